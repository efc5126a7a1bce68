"""Evaluation: figures with intervals of queries with known answers."""
