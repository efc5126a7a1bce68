"""Localisers find the moments in stretches of video.

    clips           the candidate clips unchanged, as products with fixed chunks answer
    training-free   spans from the curve of frame scores (search.training_free); works with any encoder
    SOONet          anchors of a trained localiser, computed when the video was indexed (search.soonet)

All read stored arrays only, and only within the stretches: a query costs the same in a library of short videos as in
one of long films. The curve over a whole video is computed only for the video that a person opens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import as_float32, cosines_with, unit
from scanonce.search.calibration import BY_FRAMES
from scanonce.search.curve import suppress_overlaps
from scanonce.storage.pooling import Pooling
from scanonce.storage.records import Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FrameFeatures


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query as vectors, with the level of its scores over the whole library."""

    joint: NDArray[np.float32]
    """``[dim]`` unit embedding."""
    features: NDArray[np.float32]
    """``[dim]`` raw features."""
    states: NDArray[np.float32]
    """``[text width]`` state of the text tower before the projection."""
    mean: float = 0.0
    """Mean cosine of the query with a sample of clips of the library. Each clip is the mean of its frames even if a
    head pools the clips of the index, because frame scores are compared with it."""
    std: float = 1.0
    """Standard deviation of those cosines."""


class StoredVideo(Protocol):
    """The stored arrays of one video."""

    @property
    def duration_seconds(self) -> float:
        """Length of the video; no span ends later."""

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        """Read the stored frames on screen in each half-open span of seconds, and no other bytes.

        At least one for each span, unless nothing is stored (`FrameFeatures.between`).
        """

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        """Read the stored anchors of a trained localiser; None if none are stored.

        Args:
            rows: rising row numbers; None for all.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A video and the stretches of it to search."""

    video: StoredVideo
    stretches: tuple[tuple[float, float], ...]
    """Seconds, half-open, in order, disjoint."""
    clips: tuple[tuple[Span, float], ...] = ()
    """The clips that retrieved the video, with their cosines, best first."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A span of a candidate that may be a moment."""

    candidate: int
    """Index of the candidate."""
    span: Span
    score: float
    """Higher is better; comparable within one localiser and index."""
    embedding: NDArray[np.float32] = field(compare=False)
    """``[dim]`` of length 1: the frames of the span, pooled as those of a clip."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Scores of a query over one whole video."""

    edges_seconds: NDArray[np.float64]
    """``[num_pieces + 1]`` rising, from 0 to the end of the video."""
    scores: NDArray[np.float64]
    """``[num_pieces]``, higher is better."""


class Localiser(Protocol):
    """The query side of a localiser. A trained one also has a video side, which runs when a video is indexed."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def calibration_key(self) -> str:
        """Key of the weights that turn its scores into probabilities (`search.calibration`)."""

    @property
    def score_is_sigmoid(self) -> bool:
        """Whether its scores are sigmoids, from 0 to 1; otherwise they are cosines."""

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """Find the moments in the stretches of some candidates, best first.

        Args:
            query: the query.
            candidates: the videos and stretches to search.
            top: number of moments that will be shown; more may be returned.

        Returns:
            Spans inside their video with start < end. Within one video no span shares more than the allowed part with
            a better one. Equal scores keep the order of candidates, then of time.
        """

    def highest_scores(
        self, queries: Sequence[Query], video: StoredVideo, cosines: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return for each query a score that no moment of a video exceeds, except by its cosine.

        Args:
            queries: the queries.
            video: the video; everything stored of it may be read.
            cosines: ``[num_queries]``, the highest cosine of each with the means of frames of the video.

        Returns:
            ``[num_queries]``, as `locate` scores.
        """

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """Score a whole video, for display; reads everything stored of it."""


class FixedClips:
    """Returns the candidate clips, without those that overlap a better one."""

    name = "clips"
    calibration_key = BY_FRAMES
    score_is_sigmoid = False

    def __init__(self, *, overlap: float, pooling: Pooling) -> None:
        """Set how clips are chosen and pooled.

        Args:
            overlap: see `search.curve.suppress_overlaps`.
            pooling: that of the clips of the index.
        """
        self._overlap = overlap
        self._pooling = pooling

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `Localiser.locate`."""
        unread = np.empty(0, np.float32)
        proposals = [
            Proposal(number, span, score, unread)
            for number, candidate in enumerate(candidates)
            for span, score in candidate.clips
        ]
        best = best_apart(proposals, overlap=self._overlap)[:top]
        return [
            replace(each, embedding=self._embed(candidates[each.candidate].video, each.span))
            for each in best
        ]

    def _embed(self, video: StoredVideo, span: Span) -> NDArray[np.float32]:
        bounds = (span.start_seconds, span.end_seconds)
        (inside,) = video.frames([bounds])
        (pooled,) = self._pooling.embed_spans(
            inside.frames, inside.pts_seconds, np.array([bounds]), inside.fps
        )
        embedding: NDArray[np.float32] = pooled
        return embedding

    def highest_scores(
        self, queries: Sequence[Query], video: StoredVideo, cosines: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """See `Localiser.highest_scores`: the cosines, if clips are means of frames."""
        return cosines.astype(np.float64)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """See `frame_curve`."""
        return frame_curve(query, video)


def frame_curve(query: Query, video: StoredVideo) -> Curve:
    """Return the cosine of the query with every stored frame, each for the time up to the next frame."""
    (stored,) = video.frames([(0.0, video.duration_seconds)])
    if not len(stored.pts_seconds):
        return Curve(np.zeros(1), np.zeros(0))
    edges = np.append(stored.pts_seconds, max(video.duration_seconds, stored.pts_seconds[-1]))
    edges[0] = 0.0
    return Curve(edges, cosines_with(query.joint, as_float32(stored.frames)).astype(np.float64))


def embeddings_of(curve: Curve, video: StoredVideo) -> NDArray[np.float32]:
    """Return what is seen in each piece of a curve: the mean of the frame at its middle and of its two neighbours.

    A single frame is judged higher and lower than a moment ever is.

    Args:
        curve: with at least one piece.
        video: the video of the curve, with at least one stored frame.

    Returns:
        ``[num_pieces, dim]`` of length 1.
    """
    (stored,) = video.frames([(0.0, video.duration_seconds)])
    middles = (curve.edges_seconds[1:] + curve.edges_seconds[:-1]) / 2
    last = len(stored.pts_seconds) - 1
    rows = np.clip(np.searchsorted(stored.pts_seconds, middles, side="right") - 1, 0, last)
    frames = as_float32(stored.frames)
    around = frames[np.maximum(rows - 1, 0)] + frames[rows] + frames[np.minimum(rows + 1, last)]
    return unit(around)


def best_apart(proposals: Sequence[Proposal], *, overlap: float) -> list[Proposal]:
    """Sort proposals best first and drop those of zero length or that overlap a better one of their video too much."""
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
    return best_first(kept)


def best_first(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Sort proposals by score, falling; equal ones by candidate, then by time."""
    return sorted(proposals, key=lambda each: (-each.score, each.candidate, each.span))
