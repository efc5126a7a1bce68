"""Copies of a whole index, and putting one in place."""
