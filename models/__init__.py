"""Encoders, CLIP4Clip heads and SOONet: networks with their checkpoints, for indexing and for search.

    encoder = load_encoder("bundled")
    embeddings = unit(encoder.encode_texts(["a red car at night"]))        # [1, dim]

Towers return *raw* features; `models.vectors.unit` makes embeddings of them.

Why it is as it is: docs/decisions.md, "Models".
"""
