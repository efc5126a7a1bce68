"""The vector index: generations of flat and IVF-PQ parts, published in one step."""
