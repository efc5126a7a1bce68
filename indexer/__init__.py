"""A folder becomes an index."""

from indexer.decode import SampledFrame, Sampling, open_video
from indexer.settings import IndexerSettings

__all__ = ["IndexerSettings", "SampledFrame", "Sampling", "open_video"]
