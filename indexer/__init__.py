"""A folder becomes an index."""

from scanonce.indexer.decode import SampledFrame, Sampling, open_video
from scanonce.indexer.settings import IndexerSettings

__all__ = ["IndexerSettings", "SampledFrame", "Sampling", "open_video"]
