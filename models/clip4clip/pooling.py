"""How frames become one vector: CLIP4Clip's parameter-free mean pooling (arXiv 2104.08860), or a head of its own.

The order matters and is: unit length per frame, mean over the frames of the clip, unit length again. The mean of
raw frame vectors is another vector (frames with large norms would outweigh the rest).

    >>> frames = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    >>> mean_pool(frames).round(3).tolist()
    [0.707, 0.707]
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import pool_spans, unit


class Pooling(Protocol):
    """How the frames of a clip become its embedding: all that is indexed of an index goes through one of these."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Embeddings of many spans of one video.

        A span without a frame of its own (key frames can lie far apart) takes the frame on screen when it starts.

        Args:
            frames: ``[num_frames, dim]`` raw features as they are stored, at least one.
            pts_seconds: ``[num_frames]`` rising.
            spans: ``[num_spans, 2]`` half-open, seconds.

        Returns:
            ``[num_spans, dim]`` float32 of length 1.
        """


class MeanPooling:
    """The mean of unit frames; see `mean_pool`."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """See `pool_spans`."""
        return pool_spans(unit(frames), pts_seconds, spans)


def open_pooling(folder: Path, head: str | None) -> Pooling:
    """The pooling of an index.

    Args:
        folder: where the index keeps its head.
        head: digest of that, as in the manifest; None: the index has none, its clips are means.
    """
    if head is None:
        return MeanPooling()
    from scanonce.models.clip4clip.apply import HeadPooling

    return HeadPooling(folder, head)
