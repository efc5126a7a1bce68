"""The query side of SOONet over a library: one inner product per stored anchor, boundaries for the best few.

The product contains both stages of the ranking (arXiv 2303.08345), so the anchors of all candidate stretches are
scored as they are read. Frames are read only around the best anchors: for the regression of their boundaries, and for
the cosine that `SoonetConfig.clip_weight` adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.soonet.query import (
    SelectedAnchors,
    refine,
    score_anchors,
    second_stage,
    sigmoid,
)
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.models.vectors import pool_spans, unit
from scanonce.search.curve import (
    Stretch,
    change_points,
    find_spans_each,
    snap,
    suppress_overlaps,
    z_scores,
)
from scanonce.search.localise import Candidate, Curve, Proposal, Query, StoredVideo, best_apart
from scanonce.search.retrieve import merge
from scanonce.storage.records import Span
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.targets import shown_at

_SPARE = 2.0
"""Anchors per shown moment that get boundaries, if their frames may still change the order."""

_CURVE_SPANS = 8
_MIN_REACH_SECONDS = 10.0
"""Read around a short anchor at least, so that the curve includes its fall on either side of the moment."""

_SECOND_STAGE_ANCHORS = 100
"""Anchors of each scale that get the second stage, if it is not stored; the number of the paper."""


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    """The anchors of all candidates, concatenated, and their scores."""

    candidates: NDArray[np.int64]
    """``[num_anchors]`` index of the candidate, rising."""
    rows: NDArray[np.int64]
    """``[num_anchors]`` row in the video, rising within a video."""
    spans: NDArray[np.float64]
    """``[num_anchors, 2]`` seconds in the video."""
    scores: NDArray[np.float32]
    """``s1 + s2`` (`models.soonet.query`)."""

    def __getitem__(self, chosen: NDArray[np.int64]) -> "_Anchors":
        return _Anchors(
            self.candidates[chosen], self.rows[chosen], self.spans[chosen], self.scores[chosen]
        )


class SoonetLocaliser:
    """Finds moments by the anchors of a trained SOONet."""

    def __init__(
        self,
        trained: TrainedLocaliser,
        *,
        overlap: float,
        longest_seconds: float,
        snap_seconds: float = 0.0,
    ) -> None:
        """Set how moments are found.

        Args:
            trained: the localiser of the index.
            overlap: see `search.curve.suppress_overlaps`.
            longest_seconds: length of the longest span of the curve (`SoonetConfig.curve_tiou`).
            snap_seconds: see `search.curve.snap`.
        """
        self.trained = trained
        self._model = trained.model
        self._grid = trained.grid
        self._overlap = overlap
        self._longest_seconds = longest_seconds
        self._snap_seconds = snap_seconds

    @property
    def name(self) -> str:
        """Name for people."""
        return f"SOONet ({self.trained.name})"

    @property
    def calibration_key(self) -> str:
        """The name and version of the trained localiser."""
        return self.trained.folder

    @property
    def score_is_sigmoid(self) -> bool:
        """Its scores are sigmoids of s1 + s2 and the weighted cosine."""
        return True

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `search.localise.Localiser.locate`."""
        text = self._text(query)
        vector = self._model.query_vector(text)
        anchors = self._scored(vector, candidates)
        if not self.trained.ranks_by_vectors:
            anchors = self._with_second_stage(vector, anchors, candidates)
        weight = self._model.config.clip_weight
        best = anchors[self._apart(anchors, candidates, round(top * _SPARE) if weight else top)]
        numbers = np.unique(best.candidates).tolist()
        groups = [best[np.flatnonzero(best.candidates == number)] for number in numbers]
        frames = [
            _Frames(self.trained, candidates[number].video, group.rows)
            for number, group in zip(numbers, groups, strict=True)
        ]
        chosen = [
            self._chosen(candidates[number].video, group.rows, around)
            for number, group, around in zip(numbers, groups, frames, strict=True)
        ]
        regressed = refine(self._model, text, chosen)
        proposals: list[Proposal] = []
        edged = self._edged(query, regressed, frames)
        for number, group, (spans, embeddings) in zip(numbers, groups, edged, strict=True):
            totals = sigmoid(group.scores + weight * (embeddings @ query.joint))
            proposals += [
                Proposal(number, Span(*span), float(total), embedding)
                for span, total, embedding in zip(spans.tolist(), totals, embeddings, strict=True)
            ]
        return best_apart(proposals, overlap=self._overlap)

    def _text(self, query: Query) -> NDArray[np.float32]:
        features = TextFeatures(query.features[None], query.states[None])
        text: NDArray[np.float32] = self.trained.texts(features)[0]
        return text

    def _scored(self, vector: NDArray[np.float32], candidates: Sequence[Candidate]) -> _Anchors:
        """Read and score the anchors inside the stretches."""
        none = np.empty(0, np.int64)
        found = [_Anchors(none, none, np.empty((0, 2)), np.empty(0, np.float32))]
        for number, candidate in enumerate(candidates):
            duration = candidate.video.duration_seconds
            pieces = [self._grid.rows_between(duration, *each) for each in candidate.stretches]
            rows = np.unique(np.concatenate([none, *pieces]))
            stored = self._arrays(candidate.video, rows)
            rows = rows[: len(stored.norms)]  # a video without stored frames has no anchors
            spans = self._grid.spans_of(rows, duration)
            scores = score_anchors(vector, stored.vectors)
            found.append(_Anchors(np.full(len(rows), number), rows, spans, scores))
        return _Anchors(
            np.concatenate([each.candidates for each in found]),
            np.concatenate([each.rows for each in found]),
            np.concatenate([each.spans for each in found]),
            np.concatenate([each.scores for each in found]),
        )

    def _arrays(self, video: StoredVideo, rows: NDArray[np.int64] | None) -> AnchorArrays:
        """Return the stored anchors; if a video has none, compute them from its frames."""
        stored = video.anchors(rows)
        if stored is not None:
            return stored
        (frames,) = video.frames([(0.0, video.duration_seconds)])
        whole = self.trained.scan(frames.frames, frames.pts_seconds, video.duration_seconds)
        if rows is None or not len(whole[1]):
            return AnchorArrays(*whole)
        return AnchorArrays(whole[0][rows], whole[1][rows])

    def _with_second_stage(
        self, vector: NDArray[np.float32], anchors: _Anchors, candidates: Sequence[Candidate]
    ) -> _Anchors:
        """Select the best anchors of each scale by the first stage and add the second, computed from their frames."""
        scales = np.empty(len(anchors.rows), np.int64)
        for number, candidate in enumerate(candidates):
            mine = anchors.candidates == number
            scales[mine] = self._grid.scales_of(
                anchors.rows[mine], candidate.video.duration_seconds
            )
        order = np.argsort(-anchors.scores, kind="stable")
        chosen = [
            order[scales[order] == scale][:_SECOND_STAGE_ANCHORS]
            for scale in range(self._grid.num_scales)
        ]
        kept = anchors[np.sort(np.concatenate(chosen))]
        scores = kept.scores.copy()
        for number in np.unique(kept.candidates).tolist():
            mine = np.flatnonzero(kept.candidates == number)
            video = candidates[number].video
            frames = _Frames(self.trained, video, kept.rows[mine])
            scores[mine] += second_stage(
                self._model, vector, kept.rows[mine], frames.read, video.duration_seconds
            )
        return replace(kept, scores=scores)

    def _apart(
        self, anchors: _Anchors, candidates: Sequence[Candidate], limit: int
    ) -> NDArray[np.int64]:
        """Return the indices of the best anchors, best first, without those that overlap a better one too much."""
        order = np.argsort(-anchors.scores, kind="stable")
        # one time line on which the videos follow each other
        ends = np.cumsum([0.0, *(each.video.duration_seconds + 1.0 for each in candidates)])
        line = anchors.spans + ends[anchors.candidates, None]
        kept = suppress_overlaps(
            line[order], anchors.scores[order].astype(np.float64), self._overlap, limit
        )
        return order[kept]

    def _chosen(
        self, video: StoredVideo, rows: NDArray[np.int64], frames: "_Frames"
    ) -> SelectedAnchors:
        """Return some anchors of one video, in any order, with the inputs of their regression."""
        in_order = np.sort(rows)
        stored = self._arrays(video, in_order)
        at = np.searchsorted(in_order, rows)
        return SelectedAnchors(
            rows, stored.vectors[at], stored.norms[at], frames.read, video.duration_seconds
        )

    def _edged(
        self, query: Query, spans: Sequence[NDArray[np.float64]], frames: Sequence["_Frames"]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """Move the edges of the regressed spans of each video.

        Returns:
            For each video its spans and the means of their frames, ``[num_spans, dim]``.
        """
        if self._model.config.curve_tiou:
            spans = self._edges_by_curve(query, spans, frames)
        edged = []
        for own, around in zip(spans, frames, strict=True):
            if self._snap_seconds:
                points = [
                    change_points(each, times, rows)
                    for each, (times, rows) in zip(around.units, around.shown, strict=True)
                ]
                own = snap(own, np.concatenate(points), self._snap_seconds)
            stacked = np.concatenate(around.units)
            edged.append((own, pool_spans(stacked, around.pts_seconds, own, self._grid.fps)))
        return edged

    def _edges_by_curve(
        self, query: Query, spans: Sequence[NDArray[np.float64]], frames: Sequence["_Frames"]
    ) -> list[NDArray[np.float64]]:
        """Give each span the edges of the training-free span of the same moment, if there is one.

        The network knows what happens, the curve knows where the image changes: the regression of an anchor is exact
        to a fraction of its length, the curve to a frame.
        """
        stretches = [
            Stretch(z_scores((each @ query.joint)[rows], query.mean, query.std), times, end)
            for around in frames
            for each, (times, rows), (_, end) in zip(
                around.units, around.shown, around.around, strict=True
            )
        ]
        found = iter(
            find_spans_each(
                stretches,
                longest_seconds=self._longest_seconds,
                top=_CURVE_SPANS,
                overlap=self._overlap,
            )
        )
        moved = []
        for own, around in zip(spans, frames, strict=True):
            others = [each.span for _ in around.around for each in next(found)]
            edges = own.copy()
            for k, (start, end) in enumerate(own.tolist()):
                same = max(others, key=Span(start, end).tiou, default=None)
                if (
                    same is not None
                    and same.tiou(Span(start, end)) >= self._model.config.curve_tiou
                ):
                    edges[k] = same.start_seconds, same.end_seconds
            moved.append(edges)
        return moved

    def highest_scores(
        self, queries: Sequence[Query], video: StoredVideo, cosines: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """See `search.localise.Localiser.highest_scores`; 1 if the second stage of the ranking is not stored."""
        stored = self._arrays(video, None)
        if not self.trained.ranks_by_vectors or not len(stored.norms):
            return np.ones(len(queries))
        texts = np.stack([self._text(query) for query in queries])
        best = self._model.best_anchors(texts, stored.vectors)
        return sigmoid(best + self._model.config.clip_weight * cosines)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """Return for each anchor of the finest scale the best score of the anchors that cover it."""
        duration = video.duration_seconds
        stored = self._arrays(video, None)
        if not len(stored.norms):
            return Curve(np.zeros(1), np.zeros(0))
        scores = score_anchors(self._model.query_vector(self._text(query)), stored.vectors)
        counts = self._grid.counts(duration)
        best = np.full(counts[0], -np.inf)
        for scale, level in enumerate(np.split(scores, np.cumsum(counts)[:-1])):
            best = np.maximum(best, np.repeat(level, 2**scale)[: counts[0]])
        edges = np.append(self._grid.spans_of(np.arange(counts[0]), duration)[:, 0], duration)
        return Curve(edges, sigmoid(best))


class _Frames:
    """The stored frames in and around some anchors of one video, read once."""

    def __init__(
        self, trained: TrainedLocaliser, video: StoredVideo, rows: NDArray[np.int64]
    ) -> None:
        self._grid, self._duration = trained.grid, video.duration_seconds
        spans = self._grid.spans_of(rows, self._duration)
        # Boundaries move by less than a length, so this includes the frames of the regressed span.
        lengths = spans[:, 1:] - spans[:, :1]
        reach = np.maximum(lengths, _MIN_REACH_SECONDS)
        self.around = merge(
            [
                (max(0.0, start), min(end, self._duration))
                for start, end in (spans + reach * [-1.0, 1.0]).tolist()
            ]
        )
        self.pieces = video.frames(self.around)
        self.units = [unit(piece.frames) for piece in self.pieces]
        """``[num_frames, dim]`` of length 1, for each piece."""
        self.shown = [
            shown_at(piece.pts_seconds, piece.fps, *span)
            for piece, span in zip(self.pieces, self.around, strict=True)
        ]
        """For each piece the times of its targets and the row of the frame on screen at each."""
        self.features = np.concatenate([piece.frames for piece in self.pieces])
        self.pts_seconds = np.concatenate([piece.pts_seconds for piece in self.pieces])

    def read(self, first: int, last: int) -> NDArray[np.float16]:
        """Return some rows of frames; a `models.soonet.query.FrameReader`."""
        rows = self._grid.frame_rows(self.pts_seconds, self._duration, first, last)
        return self.features[rows]
