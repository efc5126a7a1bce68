"""Errors on the pages, and an index that is not there: each becomes a sentence in the place of what cannot be shown."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from scanonce.ui.pages.session import shared
from scanonce.ui.reports import sentence
from scanonce.ui.views import plain


def index_is_missing() -> bool:
    """Whether there is no index yet; then the page says what to do."""
    if shared().exists:
        return False
    st.write("There is no index yet: add a folder of videos in the library.")
    return True


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error that ends the block as a sentence; see `ui.reports.sentence`."""
    try:
        yield
    except Exception as error:  # what Streamlit itself ends a page by is a BaseException
        st.error(plain(sentence(error)))
