"""The pages: what Streamlit runs, and what its scripts share.

Why it is as it is: docs/decisions.md, "Pages and server".
"""
