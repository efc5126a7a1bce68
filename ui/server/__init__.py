"""The web server: the pages, and the media of the library, for a browser.

Why it is as it is: docs/decisions.md, "Pages and server".
"""

DEFAULT_PORT = 8501

INDEX_VARIABLE = "SCANONCE_UI_INDEX"
"""Environment variable by which the server passes the index directory to the pages. ``SCANONCE_CONFIG`` passes the
configuration in the same way."""
