"""Errors on the pages: each becomes a sentence in the place of what cannot be shown."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from scanonce.ui.reports import sentence
from scanonce.ui.views import plain


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error that ends the block as a sentence; see `ui.reports.sentence`."""
    try:
        yield
    except Exception as error:  # what Streamlit itself ends a page by is a BaseException
        st.error(plain(sentence(error)))
