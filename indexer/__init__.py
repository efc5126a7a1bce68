"""Indexing of video files: scan, decode, encode, store.

Why it is as it is: docs/decisions.md, "Indexer".
"""
