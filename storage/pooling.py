"""How stored frames become embeddings: the one thing an index needs from a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray


class Pooling(Protocol):
    """Pools the frames of spans of a video into embeddings. Every vector of an index comes from one of these."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Return the embeddings of spans of one video.

        A span without a frame of its own (key frames can be far apart) takes the frame on screen at its start.

        Args:
            frames: ``[num_frames, dim]`` raw features as stored, at least one frame.
            pts_seconds: ``[num_frames]`` rising.
            spans: ``[num_spans, 2]`` half-open, seconds.

        Returns:
            ``[num_spans, dim]`` float32, each of length 1.
        """


OpenPooling: TypeAlias = Callable[[Path, str | None], Pooling]
"""Opens the pooling of an index from its head folder and the digest of the head in its manifest; None if clips are
means (`models.clip4clip.pooling.open_pooling`)."""
