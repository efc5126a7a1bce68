"""The pages: what Streamlit runs, and what its scripts share."""
