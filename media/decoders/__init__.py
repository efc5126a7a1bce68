"""Decoder back ends, one a file."""
