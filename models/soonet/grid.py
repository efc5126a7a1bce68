"""Anchors of a video of a given length: SOONet's preset spans (arXiv 2303.08345), pure arithmetic.

Scale ``i`` cuts a video into anchors of ``snippet_length * 2**i`` frames of a grid with ``fps`` frames per second;
rows count through the scales, finest first. Spans are not stored: they follow from the grid and the duration.

    >>> AnchorGrid(fps=5.0, snippet_length=10, num_scales=2).spans(5.0).tolist()
    [[0.0, 2.0], [2.0, 4.0], [4.0, 5.0], [0.0, 4.0], [4.0, 5.0]]
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanonce.storage.records import Span
from scanonce.storage.targets import TOLERANCE_SECONDS, answering_rows, first_targets

_TOLERANCE_STEPS = 1e-6  # 10.0000001 grid steps are 10: durations are sums of binary fractions


@dataclass(frozen=True, slots=True)
class AnchorGrid:
    """Anchors of several lengths that tile a video, one tiling per scale."""

    fps: float = 5.0
    """Frames per second of the grid; grid frame ``k`` is at ``k / fps``."""
    snippet_length: int = 10
    """Grid frames per anchor of the finest scale."""
    num_scales: int = 4
    """Number of scales; the length of anchors doubles from one to the next."""

    def __post_init__(self) -> None:
        if not 0.0 < self.fps < math.inf:
            raise ValueError(f"frames per second must be more than 0 and finite; got {self.fps}")
        if self.snippet_length < 1 or self.num_scales < 1:
            raise ValueError(
                "an anchor grid needs a snippet length and a number of scales of 1 or more; "
                f"got {self.snippet_length} and {self.num_scales}"
            )

    @property
    def lengths(self) -> list[int]:
        """Grid frames per anchor, by scale."""
        return [self.snippet_length * 2**scale for scale in range(self.num_scales)]

    def num_frames(self, duration_seconds: float) -> int:
        """Number of grid frames of a video: the times ``k / fps`` before its end, at least one unless it is empty."""
        if not duration_seconds > 0:
            return 0
        return max(1, math.ceil(duration_seconds * self.fps - _TOLERANCE_STEPS))

    def counts(self, duration_seconds: float) -> list[int]:
        """Number of anchors of each scale that contain at least one grid frame."""
        num_frames = self.num_frames(duration_seconds)
        return [-(-num_frames // length) for length in self.lengths]

    def spans(self, duration_seconds: float) -> NDArray[np.float64]:
        """Spans of all anchors by row, ``[num_anchors, 2]`` seconds, clipped to the end of the video."""
        return self.spans_of(np.arange(sum(self.counts(duration_seconds))), duration_seconds)

    def spans_of(self, rows: ArrayLike, duration_seconds: float) -> NDArray[np.float64]:
        """Spans ``[len(rows), 2]`` of anchors, in the order of ``rows``.

        Raises:
            IndexError: the video has no such anchor.
        """
        spans = self.frame_bounds(rows, duration_seconds) / self.fps
        clamped: NDArray[np.float64] = np.minimum(spans, duration_seconds)
        return clamped

    def span_of(self, row: int, duration_seconds: float) -> Span:
        """Span of one anchor.

        Raises:
            IndexError: the video has no such anchor.
        """
        start, end = self.spans_of([row], duration_seconds)[0].tolist()
        return Span(start, end)

    def scales_of(self, rows: ArrayLike, duration_seconds: float) -> NDArray[np.int64]:
        """Scale of each anchor, 0 the finest.

        Raises:
            IndexError: the video has no such anchor.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        ends = np.cumsum(self.counts(duration_seconds))
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < ends[-1]):
            raise IndexError(
                f"a video of {duration_seconds:.1f} s has anchors 0 to {ends[-1] - 1}; "
                f"got {wanted.min()} to {wanted.max()}"
            )
        scales: NDArray[np.int64] = np.searchsorted(ends, wanted, side="right").astype(np.int64)
        return scales

    def rows_between(
        self, duration_seconds: float, start_seconds: float, end_seconds: float
    ) -> NDArray[np.int64]:
        """Rows of the anchors of which at least half is in ``[start, end)``, rising.

        At 5 fps and 10 frames, [3.0, 8.0) has three anchors of the finest scale: half of [2, 4), and [4, 6), [6, 8).
        """
        start, end = max(0.0, start_seconds), min(end_seconds, duration_seconds)
        pieces = [np.empty(0, np.int64)]
        first_row = 0
        for length, count in zip(self.lengths, self.counts(duration_seconds), strict=True):
            if end > start:
                steps = np.arange(
                    math.floor(start * self.fps / length),
                    min(count, math.ceil(end * self.fps / length)),
                )
                starts = steps * (length / self.fps)
                ends = np.minimum(starts + length / self.fps, duration_seconds)
                inside = np.minimum(ends, end) - np.maximum(starts, start)
                enough = inside >= 0.5 * (ends - starts) - TOLERANCE_SECONDS
                pieces.append(first_row + steps[enough])
            first_row += count
        return np.concatenate(pieces)

    def frame_bounds(self, rows: ArrayLike, duration_seconds: float) -> NDArray[np.int64]:
        """First and one-past-last grid frame of anchors, ``[len(rows), 2]``.

        The last anchor of a scale may reach past the last grid frame: the missing frames are zero vectors.

        Raises:
            IndexError: the video has no such anchor.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        scales = self.scales_of(wanted, duration_seconds)
        firsts = np.cumsum([0, *self.counts(duration_seconds)[:-1]])
        lengths = np.asarray(self.lengths, dtype=np.int64)[scales]
        starts = (wanted - firsts[scales]) * lengths
        return np.stack([starts, starts + lengths], axis=1)

    def frame_rows(
        self,
        pts_seconds: NDArray[np.float64],
        duration_seconds: float,
        first: int = 0,
        last: int | None = None,
    ) -> NDArray[np.int64]:
        """Positions of the stored frames that answer the grid frames ``first`` to ``last - 1``.

        A grid frame is answered by the stored frame on screen at its time, the last that begins at or before it
        (`storage.targets`). A picture that is held answers all grid frames until the next one begins.

        Args:
            pts_seconds: ``[num_stored]`` rising, the time from which each is on screen, at least one.
            duration_seconds: length of the video, which bounds ``last``.
            first: first grid frame wanted.
            last: one past the last grid frame wanted; None: all.

        Returns:
            ``[last - first]`` int64; empty if ``last <= first``.
        """
        num_frames = self.num_frames(duration_seconds)
        last = num_frames if last is None else min(last, num_frames)
        starts = first_targets(pts_seconds, self.fps)
        return answering_rows(starts, np.arange(first, max(first, last)))
