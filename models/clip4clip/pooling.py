"""Pooling of the frames of a clip to its embedding: CLIP4Clip's mean (arXiv 2104.08860), or a head.

    pooling = open_pooling(layout.head, manifest.head)
    embeddings = pooling.embed_spans(frames, pts_seconds, spans)        # [num_spans, dim]

All embeddings of an index come from one pooling.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import pool_spans, unit


class Pooling(Protocol):
    """Pooling of the frames of a clip to its embedding; all embeddings of an index come from one of these."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Embed many spans of one video.

        A span without a frame of its own (key frames can be far apart) takes the frame on screen at its start.

        Args:
            frames: ``[num_frames, dim]`` raw features as they are stored, at least one.
            pts_seconds: ``[num_frames]`` rising.
            spans: ``[num_spans, 2]`` half-open, seconds.

        Returns:
            ``[num_spans, dim]`` float32 of length 1.
        """


class MeanPooling:
    """Mean of unit frames, as `models.vectors.mean_pool`."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """See `pool_spans`."""
        return pool_spans(unit(frames), pts_seconds, spans)


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
