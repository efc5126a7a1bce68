"""Localisers: from stretches of video worth a closer look to the moments in them.

    clips           the candidate clips as they are: what products with fixed chunks answer with
    training-free   spans from the curve of frame scores (search.curve); works with any encoder
    SOONet          a trained localiser's anchors, computed when the video was indexed (search.soonet)

All read stored arrays only, and only of the stretches: a query costs the same in a library of shorts and in one of
long films. The curve over a whole video is computed for the one a person opens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import as_float32, cosines_with
from scanonce.search.curve import (
    suppress_overlaps,
)
from scanonce.storage.records import Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FrameFeatures


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What was asked, as vectors, and how the library as a whole answers it."""

    joint: NDArray[np.float32]
    """``[dim]`` unit embedding."""
    features: NDArray[np.float32]
    """``[dim]`` raw features."""
    states: NDArray[np.float32]
    """``[text width]`` state of the text tower before the projection."""
    mean: float = 0.0
    """Mean cosine of the query with clips drawn from the library, each the mean of its frames: a yardstick for frames,
    also where the index pools clips by a head."""
    std: float = 1.0
    """Their standard deviation."""


class StoredVideo(Protocol):
    """What the index holds of one video."""

    @property
    def duration_seconds(self) -> float:
        """Spans end here at the latest."""

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        """The stored frames inside each half-open span of seconds; only their bytes are read."""

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        """The given rows (rising) of what the localiser's `scan` gave, all for None; None where nothing is stored."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A video and where in it to look."""

    video: StoredVideo
    stretches: tuple[tuple[float, float], ...]
    """Seconds, half-open, in order, apart from each other."""
    clips: tuple[tuple[Span, float], ...] = ()
    """The clips that brought the video up, with their cosines, best first."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A span of a candidate that may be a moment."""

    candidate: int
    """Position among the candidates."""
    span: Span
    score: float
    """Higher is better; comparable within one localiser and index."""
    cosine: float
    """Of the query with the frames in the span, pooled as a clip is."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """How well each piece of a video fits a query."""

    edges_seconds: NDArray[np.float64]
    """``[num_pieces + 1]`` rising, from 0 to the end of the video."""
    scores: NDArray[np.float64]
    """``[num_pieces]``, higher is better."""


class Localiser(Protocol):
    """Finds moments: a video side that runs once, when a video is indexed, and a query side."""

    @property
    def name(self) -> str:
        """What people call it."""

    def scan(self, frames: FrameFeatures, duration_seconds: float) -> AnchorArrays | None:
        """What to store of a video so that queries need not compute it; None where that is nothing.

        Args:
            frames: all of the video, as stored.
            duration_seconds: its length.
        """

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """The moments in the candidates' stretches, best first.

        Args:
            query: what was asked.
            candidates: where to look.
            top: how many will be shown; more may be returned.

        Returns:
            Spans inside their video with start < end; in one video none shares more than the allowed part with a
            better one. Equal scores keep the order of candidates, then of time.
        """

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """The scores over a whole video, for display; reads all that is stored of it."""


class FixedClips:
    """The candidate clips as they are, less those that overlap a better one."""

    name = "clips"

    def __init__(self, *, overlap: float) -> None:
        """``overlap``: see `search.curve.suppress_overlaps`."""
        self._overlap = overlap

    def scan(self, frames: FrameFeatures, duration_seconds: float) -> AnchorArrays | None:
        """Needs nothing."""
        return None

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `Localiser.locate`."""
        proposals = [
            Proposal(number, span, score, score)
            for number, candidate in enumerate(candidates)
            for span, score in candidate.clips
        ]
        return best_apart(proposals, overlap=self._overlap)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """The cosine of every frame."""
        return frame_curve(query, video)


def frame_curve(query: Query, video: StoredVideo) -> Curve:
    """The cosine of the query with every stored frame, each standing for the time up to the next."""
    (stored,) = video.frames([(0.0, np.inf)])
    if not len(stored.pts_seconds):
        return Curve(np.zeros(1), np.zeros(0))
    edges = np.append(stored.pts_seconds, max(video.duration_seconds, stored.pts_seconds[-1]))
    edges[0] = 0.0
    return Curve(edges, cosines_with(query.joint, as_float32(stored.frames)).astype(np.float64))


def best_apart(proposals: Sequence[Proposal], *, overlap: float) -> list[Proposal]:
    """Best first, less those of zero length and those that overlap a better one of the same video too much."""
    by_candidate: dict[int, list[Proposal]] = {}
    for each in proposals:
        if each.span.duration_seconds > 0:
            by_candidate.setdefault(each.candidate, []).append(each)
    kept: list[Proposal] = []
    for group in by_candidate.values():
        group.sort(key=lambda each: each.span)
        spans = np.array([(each.span.start_seconds, each.span.end_seconds) for each in group])
        scores = np.array([each.score for each in group])
        kept += [group[k] for k in suppress_overlaps(spans, scores, overlap, len(group))]
    return _in_order(kept)


def _in_order(proposals: Sequence[Proposal]) -> list[Proposal]:
    return sorted(proposals, key=lambda each: (-each.score, each.candidate, each.span))
