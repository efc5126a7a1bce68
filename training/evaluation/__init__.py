"""Queries with known answers become figures with intervals."""
