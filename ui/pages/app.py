"""The script that Streamlit runs: it chooses the page. `ui.server.server` serves it together with the media."""

import streamlit as st

from scanonce.ui.pages.components import page_style
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.keys import keys
from scanonce.ui.pages.session import shared
from scanonce.ui.pages.tray import tray

st.set_page_config(page_title="Scanonce", layout="wide")
page_style()
with errors_shown():
    shared().warm()
    keys()
    st.navigation(
        [
            st.Page("search_page.py", title="Search", url_path="search", default=True),
            st.Page("library_page.py", title="Library", url_path="library"),
            st.Page("saved_page.py", title="Saved", url_path="saved"),
            st.Page("duplicates_page.py", title="Duplicates", url_path="duplicates"),
            st.Page("status_page.py", title="Status", url_path="status"),
            st.Page("moment_page.py", title="Moment", url_path="moment", visibility="hidden"),
        ],
        position="top",
    ).run()
    tray()
