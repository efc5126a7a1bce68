"""The pages' entry: what Streamlit runs. `ui.server` serves it, with the media beside it."""

import streamlit as st

from ui.session import shared

st.set_page_config(page_title="Scanonce", layout="wide")
shared().warm()
st.navigation(
    [
        st.Page("pages/search_page.py", title="Search", url_path="search", default=True),
        st.Page("pages/library_page.py", title="Library", url_path="library"),
        st.Page("pages/status_page.py", title="Status", url_path="status"),
        st.Page("pages/moment_page.py", title="Moment", url_path="moment", visibility="hidden"),
    ],
    position="top",
).run()
