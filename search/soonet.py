"""SOONet's query side over a library: one inner product for each stored anchor, boundaries for the few that win.

Ranking (arXiv 2303.08345 with both stages collapsed, docs/decisions.md): the anchors of all candidate stretches are
compared with the query at once. Only for the best of them frames are read, for the regression of their boundaries
and for the cosine that `SoonetConfig.clip_weight` adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.clip4clip import pool_spans, unit
from models.encoder import TextFeatures
from models.localiser import TrainedLocaliser
from search.localise import Candidate, Curve, Proposal, Query, StoredVideo, best_apart
from search.retrieve import merge
from storage.anchors import AnchorArrays
from storage.features import FrameFeatures
from storage.records import Span

_ANCHORS_PER_MOMENT = 4
_FEWEST_ANCHORS = 40
"""Anchors whose boundaries are computed: several of them, of neighbouring scales, end up as one moment."""


@dataclass(frozen=True, slots=True, eq=False)
class _Anchors:
    """Anchors of all candidates, one after the other."""

    candidates: NDArray[np.int64]
    """``[num_anchors]`` position of the candidate each belongs to."""
    rows: NDArray[np.int64]
    """``[num_anchors]`` row in its video."""
    vectors: NDArray[np.float16]
    norms: NDArray[np.float32]


class SoonetLocaliser:
    """A trained SOONet."""

    def __init__(self, trained: TrainedLocaliser, *, overlap: float) -> None:
        """``overlap``: see `search.curve.suppress_overlaps`."""
        self._trained = trained
        self._overlap = overlap

    @property
    def name(self) -> str:
        """What people call it."""
        return f"SOONet ({self._trained.name})"

    def scan(self, frames: FrameFeatures, duration_seconds: float) -> AnchorArrays | None:
        """The vectors of all anchors."""
        scanned = self._trained.scan(frames.frames, frames.pts_seconds, duration_seconds)
        return AnchorArrays(*scanned)

    def locate(self, query: Query, candidates: Sequence[Candidate], *, top: int) -> list[Proposal]:
        """See `search.localise.Localiser.locate`."""
        anchors = self._gather(candidates)
        if not len(anchors.rows):
            return []
        text = self._text(query)
        scores = anchors.vectors.astype(np.float32) @ self._trained.model.query_vector(text)
        depth = max(_FEWEST_ANCHORS, _ANCHORS_PER_MOMENT * top)
        best = np.argsort(-scores, kind="stable")[:depth]
        proposals: list[Proposal] = []
        for number in np.unique(anchors.candidates[best]).tolist():
            mine = best[anchors.candidates[best] == number]
            spans, cosines = self._bounded(query, text, candidates[number].video, anchors, mine)
            totals = scores[mine] + self._trained.model.config.clip_weight * cosines
            proposals += [
                Proposal(number, Span(*span), float(total))
                for span, total in zip(spans.tolist(), totals, strict=True)
            ]
        return best_apart(proposals, overlap=self._overlap)

    def _text(self, query: Query) -> NDArray[np.float32]:
        features = TextFeatures(query.features[None], query.states[None])
        return self._trained.texts(features)[0]

    def _gather(self, candidates: Sequence[Candidate]) -> _Anchors:
        """The stored anchors of all stretches; where a video has none, they are computed from its frames."""
        numbers, rows, vectors, norms = [], [], [], []
        for number, candidate in enumerate(candidates):
            duration = candidate.video.duration_seconds
            pieces = [
                self._trained.grid.rows_between(duration, *each) for each in candidate.stretches
            ]
            wanted = np.unique(np.concatenate(pieces)) if pieces else np.empty(0, np.int64)
            stored = candidate.video.anchors(wanted)
            if stored is None:
                (frames,) = candidate.video.frames([(0.0, np.inf)])
                whole = self._trained.scan(frames.frames, frames.pts_seconds, duration)
                wanted = wanted[wanted < len(whole[0])]
                stored = AnchorArrays(whole[0][wanted], whole[1][wanted])
            numbers.append(np.full(len(wanted), number))
            rows.append(wanted)
            vectors.append(stored.vectors)
            norms.append(stored.norms)
        if not numbers:
            none = np.empty(0, np.int64)
            return _Anchors(
                none, none, np.empty((0, self._trained.width), np.float16), np.empty(0, np.float32)
            )
        return _Anchors(
            np.concatenate(numbers),
            np.concatenate(rows),
            np.concatenate(vectors),
            np.concatenate(norms),
        )

    def _bounded(
        self,
        query: Query,
        text: NDArray[np.float32],
        video: StoredVideo,
        anchors: _Anchors,
        chosen: NDArray[np.int64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Regressed spans of some anchors of one video, and the cosine of the query with the frames inside."""
        model, grid, duration = self._trained.model, self._trained.grid, video.duration_seconds
        rows = anchors.rows[chosen]
        spans = grid.spans_of(rows, duration)
        # boundaries move by less than an anchor's length: its neighbours hold all frames that are asked for
        lengths = (spans[:, 1] - spans[:, 0])[:, None]
        around = merge([(max(0.0, a), b) for a, b in (spans + lengths * [-1.0, 1.0]).tolist()])
        pieces = video.frames(around)
        frames = np.concatenate([piece.frames for piece in pieces])
        pts = np.concatenate([piece.pts_seconds for piece in pieces])
        half = (
            anchors.vectors.shape[1] // 2 if self._trained.collapses else anchors.vectors.shape[1]
        )
        contexts = anchors.vectors[chosen, :half].astype(np.float32) * anchors.norms[chosen, None]
        offsets = np.zeros((len(rows), 2), np.float32)
        scales = grid.scales_of(rows, duration)
        bounds = grid.frame_bounds(rows, duration)
        with torch.inference_mode():
            for scale in np.unique(scales).tolist():
                mine = np.flatnonzero(scales == scale)
                inputs = np.zeros((len(mine), grid.lengths[scale], frames.shape[1]), np.float32)
                for k, row in enumerate(mine):
                    found = grid.frame_rows(pts, duration, *bounds[row].tolist())
                    inputs[k, : len(found)] = frames[found]
                contents = model.contents(torch.from_numpy(inputs))
                offsets[mine] = model.regress(
                    torch.from_numpy(text), torch.from_numpy(contexts[mine]), contents
                ).numpy()
        moved = np.sort(np.clip(spans + offsets * lengths, 0.0, duration), axis=1)
        cosines = pool_spans(unit(frames), pts, moved) @ query.joint
        return moved, cosines.astype(np.float64)

    def curve(self, query: Query, video: StoredVideo) -> Curve:
        """For each finest anchor the best score of those that cover it."""
        duration = video.duration_seconds
        grid = self._trained.grid
        stored = video.anchors(None)
        if stored is None:
            (frames,) = video.frames([(0.0, np.inf)])
            stored = self.scan(frames, duration)
        assert stored is not None
        if not len(stored.norms):
            return Curve(np.zeros(1), np.zeros(0))
        scores = stored.vectors.astype(np.float32) @ self._trained.model.query_vector(
            self._text(query)
        )
        counts = grid.counts(duration)
        best = np.full(counts[0], -np.inf)
        for scale, level in enumerate(np.split(scores, np.cumsum(counts)[:-1])):
            best = np.maximum(best, np.repeat(level, 2**scale)[: counts[0]])
        edges = np.append(grid.spans_of(np.arange(counts[0]), duration)[:, 0], duration)
        return Curve(edges, best)
