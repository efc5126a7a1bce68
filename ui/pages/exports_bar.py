"""The buttons that export moments."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from scanonce.ui.export import Pick
from scanonce.ui.export_files import FORMATS, export_content, export_name

# ---------------------------------------------------------------- the buttons


def export_buttons(picks: Sequence[Pick], stem: str, *, key: str) -> None:
    """Show a button for each format; the file is made when it is pressed."""
    for kind, description in FORMATS.items():
        st.download_button(
            kind,
            partial(export_content, kind, picks),
            file_name=export_name(kind, picks, stem),
            help=description,
            on_click="ignore",
            key=f"{key}-{kind}",
        )
