"""A query becomes moments."""
