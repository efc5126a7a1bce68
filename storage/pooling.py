"""Pooling of stored frames to embeddings: the only model that an open index needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray


class Pooling(Protocol):
    """Pools the frames of a span to one embedding. All clips of an index have the same pooling."""

    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
        fps: float,
    ) -> NDArray[np.float32]:
        """Return the embeddings of spans of one video.

        A frame counts once for each target in the span at which it is on screen (`storage.targets`).

        Args:
            frames: ``[num_frames, dim]`` raw features as stored, at least one.
            pts_seconds: ``[num_frames]`` rising, the time from which each is on screen.
            spans: ``[num_spans, 2]`` half-open, seconds.
            fps: targets per second.

        Returns:
            ``[num_spans, dim]`` float32, each of length 1.
        """


OpenPooling: TypeAlias = Callable[[Path, str | None], Pooling]
"""Opens the pooling of an index (`models.clip4clip.pooling.open_pooling`). Its arguments are the head folder of the
index and the digest of the head in its manifest, or None if clips are means of frames."""
