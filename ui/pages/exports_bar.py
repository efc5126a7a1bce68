"""The buttons that export moments."""

from collections.abc import Sequence
from functools import partial

import streamlit as st

from scanonce.ui.export import Pick
from scanonce.ui.export_files import export_content, export_name
from scanonce.ui.export_kinds import FORMATS
from scanonce.ui.timecode import RateName

# ---------------------------------------------------------------- the buttons


def export_buttons(
    picks: Sequence[Pick], stem: str, *, key: str, rate: RateName | None = None
) -> None:
    """Show a button for each format; the file is made when it is pressed, for a timeline of this rate."""
    for kind, description in FORMATS.items():
        st.download_button(
            kind,
            partial(export_content, kind, picks, rate),
            file_name=export_name(kind, picks, stem),
            help=description,
            on_click="ignore",
            key=f"{key}-{kind}",
        )
