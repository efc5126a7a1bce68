"""Moments by the curve of frame scores: a localiser that needs no training."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import Pooling
from scanonce.models.vectors import as_float32, cosines_with, pool_spans, unit
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
    _in_order,
    best_apart,
    frame_curve,
)
from scanonce.storage.records import Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FrameFeatures

_SPANS_PER_STRETCH = 8


_FEWEST_POOLED, _POOLED_PER_MOMENT = 64, 4


_POOLED_BY_HEAD_PER_MOMENT = 2


class TrainingFree:
    """Spans by how far the frame scores inside rise above those around; scores as of a clip with that span."""

    name = "training-free"

    def __init__(
        self,
        *,
        longest_seconds: float,
        overlap: float,
        snap_seconds: float = 0.0,
        pooling: Pooling | None = None,
    ) -> None:
        """Decides what is found, and by what it is ranked.

        Args:
            longest_seconds: no moment is longer.
            overlap: see `search.curve`.
            snap_seconds: likewise.
            pooling: the head of the index, by which the best spans are scored in the end: twice as many as are
                shown, at the cost of pooling as many clips. None: the index has none, spans are scored by their mean.
        """
        self._pooling = pooling
        self._longest_seconds = longest_seconds
        self._overlap = overlap
        self._snap_seconds = snap_seconds

    def scan(self, frames: FrameFeatures, duration_seconds: float) -> AnchorArrays | None:
        """Needs nothing but the frames."""
        return None

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `Localiser.locate`."""
        owners: list[int] = []
        pictures: list[NDArray[np.float32]] = []
        cosines: list[NDArray[np.float32]] = []
        stretches: list[Stretch] = []
        for number, candidate in enumerate(candidates):
            stored = candidate.video.frames(candidate.stretches)
            for (_, end), frames in zip(candidate.stretches, stored, strict=True):
                owners.append(number)
                pictures.append(as_float32(frames.frames))
                cosines.append(cosines_with(query.joint, pictures[-1]))
                curve = z_scores(cosines[-1], query.mean, query.std)
                stretches.append(Stretch(curve, frames.pts_seconds, end))
        found = find_spans_each(
            stretches,
            longest_seconds=self._longest_seconds,
            top=_SPANS_PER_STRETCH,
            overlap=self._overlap,
        )
        # pooling is most of the work: spans whose frames are far from the best on average are not worth it
        spans, means = [], []
        for k, group in enumerate(found):
            spans += [(k, each.span) for each in group]
            means += _means_inside(cosines[k], stretches[k].pts_seconds, group)
        promising = np.argsort(-np.array(means), kind="stable")
        proposals = []
        origins: dict[Proposal, int] = {}
        units: dict[int, NDArray[np.float32]] = {}
        for place in promising[: max(_FEWEST_POOLED, _POOLED_PER_MOMENT * top)].tolist():
            k, span = spans[place]
            if k not in units:
                units[k] = unit(pictures[k])
            pts = stretches[k].pts_seconds
            bounds = np.array([(span.start_seconds, span.end_seconds)])
            if self._snap_seconds:
                bounds = snap(bounds, change_points(units[k], pts), self._snap_seconds)
            (score,) = pool_spans(units[k], pts, bounds) @ query.joint
            proposal = Proposal(owners[k], Span(*bounds[0].tolist()), float(score), float(score))
            origins[proposal] = k
            proposals.append(proposal)
        best = best_apart(proposals, overlap=self._overlap)
        if self._pooling is None:
            return best
        pooled = []
        for each in best[: _POOLED_BY_HEAD_PER_MOMENT * top]:
            k = origins[each]
            bounds = np.array([(each.span.start_seconds, each.span.end_seconds)])
            pts = stretches[k].pts_seconds
            (score,) = self._pooling.embed_spans(pictures[k], pts, bounds) @ query.joint
            pooled.append(Proposal(each.candidate, each.span, float(score), float(score)))
        return _in_order(pooled)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """The cosine of every frame."""
        return frame_curve(query, video)


def _means_inside(
    cosines: NDArray[np.float32], pts_seconds: NDArray[np.float64], found: list[ScoredSpan]
) -> list[float]:
    """Mean cosine of the frames in each span, or of the one on screen where it has none."""
    if not found:
        return []
    bounds = np.array([(each.span.start_seconds, each.span.end_seconds) for each in found])
    first, last = np.searchsorted(pts_seconds, bounds).T
    first = np.minimum(first, np.maximum(last - 1, 0))
    last = np.maximum(last, first + 1)
    sums = np.concatenate([[0.0], np.cumsum(cosines, dtype=np.float64)])
    means: list[float] = ((sums[last] - sums[first]) / (last - first)).tolist()
    return means
