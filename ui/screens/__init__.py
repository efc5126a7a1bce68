"""Scripts that Streamlit runs, one a page. Not called `pages`: beside its entry that name means another thing to it."""
