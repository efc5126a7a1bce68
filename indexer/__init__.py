"""A folder becomes an index."""
