"""Keys of all pages: ``/`` goes to the box for the query, ``?`` shows all keys. It also focuses the box at first."""

import streamlit as st

from scanonce.ui.pages.components import read_asset

_keys = st.components.v2.component(
    "scanonce_keys",
    html=read_asset("keys.html"),
    css=read_asset("controls.css", "keys.css"),
    js=read_asset("keys.js"),
)


def keys() -> None:
    """Listen for the keys; shows nothing until ``?`` is pressed."""
    _keys(key="keys", data={})
