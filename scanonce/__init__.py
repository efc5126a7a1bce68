"""Semantic video search: a video is scanned once; after that a sentence finds its moments in milliseconds."""
