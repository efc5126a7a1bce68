"""The vector index: generations of flat and IVF-PQ parts, published in one step.

Why it is as it is: docs/decisions.md, "Storage: the vector index".
"""
