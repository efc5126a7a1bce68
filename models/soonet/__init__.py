"""SOONet: the network, what of it can be computed at indexing, and what is left for the query."""
