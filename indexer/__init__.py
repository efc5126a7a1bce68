"""Indexing of video files: scan, decode, encode, store."""

from scanonce.indexer.settings import IndexerSettings
from scanonce.media.open import open_video
from scanonce.media.sampling import SampledFrame, Sampling

__all__ = ["IndexerSettings", "SampledFrame", "Sampling", "open_video"]
