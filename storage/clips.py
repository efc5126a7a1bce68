"""The clips of a video of a given length: multi-scale windows, pure arithmetic.

The grid is fixed for an index (it is part of the manifest), so a clip's span follows from its ordinal and the length of
its video, and no row per clip is stored. The indexer makes clips by it, the search resolves them by it.

    >>> ClipGrid((4.0, 8.0)).spans(10.0).tolist()
    [[0.0, 4.0], [2.0, 6.0], [4.0, 8.0], [6.0, 10.0], [0.0, 8.0], [4.0, 10.0]]
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.records import MAX_ORDINAL, Span


@dataclass(frozen=True, slots=True)
class ClipGrid:
    """Windows of several lengths over a video; each scale slides by a share of its own length."""

    scales_seconds: tuple[float, ...] = (4.0, 8.0, 16.0)
    """Window lengths, rising."""
    stride_ratio: float = 0.5
    """Step between two windows of a scale, as a share of the window: in (0, 1]."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.scales_seconds))
        if not self.scales_seconds or self.scales_seconds[0] <= 0 or not rising:
            raise ValueError(f"clip scales must be positive and rising; got {self.scales_seconds}")
        if not 0 < self.stride_ratio <= 1:
            raise ValueError(f"the stride ratio must be in (0, 1]; got {self.stride_ratio}")

    @property
    def clips_per_second(self) -> float:
        """Clips per second of a long video."""
        return sum(1 / (scale * self.stride_ratio) for scale in self.scales_seconds)

    def counts(self, duration_seconds: float) -> list[int]:
        """Return the number of windows of each scale.

        Windows start at 0, stride, 2 stride ... until one reaches the end. A scale is left out (count 0) if a single
        window of the next finer one covers the whole video; the finest scale always has at least one.
        """
        if not duration_seconds > 0:
            return [0] * len(self.scales_seconds)
        counts = []
        finer = 0.0
        for scale in self.scales_seconds:
            if duration_seconds <= finer:
                counts.append(0)
            else:
                steps = max(0.0, duration_seconds - scale) / (scale * self.stride_ratio)
                counts.append(math.ceil(steps - 1e-9) + 1)  # 1e-9: 6.000000001 steps of 2 s are 6
            finer = scale
        if sum(counts) > MAX_ORDINAL + 1:
            hours = duration_seconds / 3600
            raise ValueError(
                f"a video of {hours:.0f} h has {sum(counts)} clips; at most {MAX_ORDINAL + 1} fit an index: "
                "use longer clip scales"
            )
        return counts

    def spans(self, duration_seconds: float) -> NDArray[np.float64]:
        """Return the spans of all clips by ordinal, ``[num_clips, 2]`` seconds, finest scale first."""
        pieces = []
        for scale, count in zip(self.scales_seconds, self.counts(duration_seconds), strict=True):
            starts = np.arange(count) * (scale * self.stride_ratio)
            pieces.append(np.stack([starts, np.minimum(starts + scale, duration_seconds)], axis=1))
        return np.concatenate(pieces)

    def span(self, ordinal: int, duration_seconds: float) -> Span:
        """Return the span of one clip.

        Raises:
            IndexError: the video has no such clip.
        """
        position = ordinal
        for scale, count in zip(self.scales_seconds, self.counts(duration_seconds), strict=True):
            if 0 <= position < count:
                start = position * (scale * self.stride_ratio)
                return Span(start, min(start + scale, duration_seconds))
            position -= count
        raise IndexError(f"a video of {duration_seconds:.1f} s has no clip {ordinal}")
