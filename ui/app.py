"""The pages' entry: what Streamlit runs. `ui.server` serves it, with the media beside it."""

import streamlit as st

from scanonce.ui.components import page_style
from scanonce.ui.session import shared

st.set_page_config(page_title="Scanonce", layout="wide")
page_style()
shared().warm()
st.navigation(
    [
        st.Page("screens/search_page.py", title="Search", url_path="search", default=True),
        st.Page("screens/library_page.py", title="Library", url_path="library"),
        st.Page("screens/status_page.py", title="Status", url_path="status"),
        st.Page("screens/moment_page.py", title="Moment", url_path="moment", visibility="hidden"),
    ],
    position="top",
).run()
