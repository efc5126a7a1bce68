"""Encoders, CLIP4Clip heads and SOONet: networks with their checkpoints, for indexing and for search.

    encoder = load_encoder("bundled")
    embeddings = unit(encoder.encode_texts(["a red car at night"]))        # [1, dim]

Towers return *raw* features; `unit` makes embeddings of them.

Why it is as it is: docs/decisions.md, "Models".
"""

from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import mean_pool, unit

__all__ = ["ClipEncoder", "ModelSettings", "load_encoder", "mean_pool", "unit"]
