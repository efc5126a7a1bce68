"""Pooling of the frames of a clip to its embedding: CLIP4Clip's mean (arXiv 2104.08860), or a head.

    pooling = open_pooling(layout.head, manifest.head)
    embeddings = pooling.embed_spans(frames, pts_seconds, spans, fps)   # [num_spans, dim]

All embeddings of an index come from one pooling.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import pool_spans, unit
from scanonce.storage.pooling import Pooling


class MeanPooling:
    """Mean of unit frames, as `models.vectors.mean_pool`."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
        fps: float,
    ) -> NDArray[np.float32]:
        """See `pool_spans`."""
        return pool_spans(unit(frames), pts_seconds, spans, fps)


def open_pooling(folder: Path, head: str | None) -> Pooling:
    """Return the pooling of an index.

    Args:
        folder: folder in which the index keeps its head.
        head: digest of the head, as in the manifest; None: the index has no head, its clips are means.
    """
    if head is None:
        return MeanPooling()
    from scanonce.models.clip4clip.apply import HeadPooling  # torch is slow to import

    return HeadPooling(folder, head)
