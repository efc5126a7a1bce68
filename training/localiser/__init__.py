"""Training of a SOONet localiser from an index."""
