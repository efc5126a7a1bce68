"""Moments from the curve of frame scores: a localiser that needs no training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import as_float32, cosines_with, pool_spans, unit
from scanonce.search.calibration import BY_FRAMES
from scanonce.search.curve import (
    ScoredSpan,
    Stretch,
    change_points,
    find_spans_each,
    snap,
    z_scores,
)
from scanonce.search.localise import (
    Candidate,
    Curve,
    Proposal,
    Query,
    StoredVideo,
    best_apart,
    best_first,
    frame_curve,
)
from scanonce.storage.pooling import Pooling
from scanonce.storage.records import Span
from scanonce.storage.stores.features import FrameFeatures
from scanonce.storage.targets import shown_at

_SPANS_PER_STRETCH = 8

_MIN_POOLED, _POOLED_PER_MOMENT = 64, 4
"""Pooling is most of the work, so only the spans with the best mean cosine are pooled: this many."""

_POOLED_BY_HEAD_PER_MOMENT = 2

_LEAST_SECONDS = 2.0
"""A shorter moment is widened to this: the best frame of a glimpse tells a person nothing without its surroundings."""


class TrainingFree:
    """Finds spans whose frame scores rise above those around them. A span scores as a clip with that span would."""

    name = "training-free"
    calibration_key = BY_FRAMES
    score_is_sigmoid = False

    def __init__(
        self,
        *,
        longest_seconds: float,
        overlap: float,
        snap_seconds: float = 0.0,
        pooling: Pooling | None = None,
    ) -> None:
        """Set the limits of moments and their ranking.

        Args:
            longest_seconds: length of the longest moment.
            overlap: see `search.curve.suppress_overlaps`.
            snap_seconds: see `search.curve.snap`.
            pooling: the head of the index. It scores the best spans last, twice as many as are shown, at the cost of
                pooling that many clips. None: the index has no head, and spans are scored by the mean of their frames.
        """
        self._pooling = pooling
        self._longest_seconds = longest_seconds
        self._overlap = overlap
        self._snap_seconds = snap_seconds

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `search.localise.Localiser.locate`."""
        owners: list[int] = []
        features: list[NDArray[np.float32]] = []
        cosines: list[NDArray[np.float32]] = []
        pieces: list[FrameFeatures] = []
        rows: list[NDArray[np.int64]] = []
        stretches: list[Stretch] = []
        for number, candidate in enumerate(candidates):
            stored = candidate.video.frames(candidate.stretches)
            for (start, end), frames in zip(candidate.stretches, stored, strict=True):
                if not len(frames.frames):
                    continue
                times, shown = shown_at(frames.pts_seconds, frames.fps, start, end)
                owners.append(number)
                pieces.append(frames)
                rows.append(shown)
                features.append(as_float32(frames.frames))
                cosines.append(cosines_with(query.joint, features[-1])[shown])
                curve = z_scores(cosines[-1], query.mean, query.std)
                stretches.append(Stretch(curve, times, end))
        found = find_spans_each(
            stretches,
            longest_seconds=self._longest_seconds,
            top=_SPANS_PER_STRETCH,
            overlap=self._overlap,
        )
        spans, means = [], []
        for k, group in enumerate(found):
            spans += [(k, each.span) for each in group]
            means += _means_inside(cosines[k], stretches[k].pts_seconds, group)
        promising = np.argsort(-np.array(means), kind="stable")
        proposals = []
        origins: dict[Proposal, int] = {}
        units: dict[int, NDArray[np.float32]] = {}
        for position in promising[: max(_MIN_POOLED, _POOLED_PER_MOMENT * top)].tolist():
            k, span = spans[position]
            if k not in units:
                units[k] = unit(features[k])
            bounds = np.array([(span.start_seconds, span.end_seconds)])
            if self._snap_seconds:
                points = change_points(units[k], stretches[k].pts_seconds, rows[k])
                bounds = snap(bounds, points, self._snap_seconds)
            bounds = widened(bounds, candidates[owners[k]].video.duration_seconds)
            (embedding,) = pool_spans(units[k], pieces[k].pts_seconds, bounds, pieces[k].fps)
            score = float(embedding @ query.joint)
            proposal = Proposal(owners[k], Span(*bounds[0].tolist()), score, embedding)
            origins[proposal] = k
            proposals.append(proposal)
        best = best_apart(proposals, overlap=self._overlap)
        if self._pooling is None:
            return best
        pooled = []
        for each in best[: _POOLED_BY_HEAD_PER_MOMENT * top]:
            k = origins[each]
            bounds = np.array([(each.span.start_seconds, each.span.end_seconds)])
            (embedding,) = self._pooling.embed_spans(
                features[k], pieces[k].pts_seconds, bounds, pieces[k].fps
            )
            score = float(embedding @ query.joint)
            pooled.append(Proposal(each.candidate, each.span, score, embedding))
        return best_first(pooled)

    def highest_scores(
        self, queries: Sequence[Query], video: StoredVideo, cosines: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """See `search.localise.Localiser.highest_scores`: the cosines, if clips are means of frames."""
        return cosines.astype(np.float64)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """See `search.localise.frame_curve`."""
        return frame_curve(query, video)


def widened(bounds: NDArray[np.float64], duration_seconds: float) -> NDArray[np.float64]:
    """Widen spans of less than two seconds to both sides, inside their video.

    >>> widened(np.array([(4.0, 4.5), (0.0, 0.5), (1.0, 9.0)]), 10.0).tolist()
    [[3.25, 5.25], [0.0, 2.0], [1.0, 9.0]]

    Args:
        bounds: ``[num_spans, 2]`` seconds.
        duration_seconds: length of the video.
    """
    missing = np.maximum(_LEAST_SECONDS - (bounds[:, 1] - bounds[:, 0]), 0.0)
    starts = np.maximum(bounds[:, 0] - missing / 2, 0.0)
    ends = starts + (bounds[:, 1] - bounds[:, 0]) + missing
    starts = np.maximum(starts - np.maximum(ends - duration_seconds, 0.0), 0.0)
    return np.stack([starts, np.minimum(ends, duration_seconds)], axis=1)


def _means_inside(
    cosines: NDArray[np.float32], pts_seconds: NDArray[np.float64], found: list[ScoredSpan]
) -> list[float]:
    """Mean cosine of the targets in each span; of a span between two of them, the cosine of the one before it."""
    if not found:
        return []
    bounds = np.array([(each.span.start_seconds, each.span.end_seconds) for each in found])
    first, last = np.searchsorted(pts_seconds, bounds).T
    first = np.minimum(first, np.maximum(last - 1, 0))
    last = np.maximum(last, first + 1)
    sums = np.concatenate([[0.0], np.cumsum(cosines, dtype=np.float64)])
    means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
    return means
