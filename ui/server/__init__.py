"""The web server: pages, media and the guard before them."""
