"""Indexing of video files: scan, decode, encode, store.

Why it is as it is: docs/decisions.md, "Indexer".
"""

from scanonce.indexer.settings import IndexerSettings
from scanonce.media.open import open_video
from scanonce.media.sampling import SampledFrame, Sampling

__all__ = ["IndexerSettings", "SampledFrame", "Sampling", "open_video"]
