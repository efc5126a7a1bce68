"""The answer to a query, and how it is made: retrieved clips, located moments, and a probability for each.

search = Search(snapshot, snapshot.methods.localiser, top=10, within=None, reranks=True)
search.answer(["a red car"], features, readings, Stopwatch())[0].moments[0].probability
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import unit
from scanonce.search.curve import background_level
from scanonce.search.filters import FilteredLibrary, SearchScope
from scanonce.search.judging import Judged
from scanonce.search.localise import Candidate, Localiser, Proposal, Query
from scanonce.search.notes import notes
from scanonce.search.rerank import num_located, rerank
from scanonce.search.result import SearchResult
from scanonce.search.retrieve import stretches_around
from scanonce.search.snapshot import Snapshot
from scanonce.storage.records import Moment, Span, split_clip_id

_CLIPS_PER_MOMENT = 5
"""Clips to retrieve per shown moment: clips of all scales overlap, so several of them belong to one moment."""


class Stopwatch:
    """Wall milliseconds by stage."""

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begin = time.perf_counter()
        yield
        self.took_ms[stage] = self.took_ms.get(stage, 0.0) + (time.perf_counter() - begin) * 1e3


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The clips that the vector index found for several queries."""

    scores: NDArray[np.float32]
    """``[num_queries, depth]`` cosines of the best clips, -inf beyond the last one."""
    clip_ids: NDArray[np.int64]
    levels: NDArray[np.float32]
    """``[num_queries, num_clips]`` cosines of a sample of clips of the whole library that are means of frames."""


class Search:
    """The search of one call: the vector index once for all its queries, then the moments of each query."""

    def __init__(
        self,
        snapshot: Snapshot,
        localiser: Localiser,
        top: int | None,
        within: SearchScope,
        *,
        reranks: bool,
    ) -> None:
        self.snapshot, self.localiser = snapshot, localiser
        self.settings = snapshot.settings
        self.top = self.settings.top if top is None else top
        self.within = within
        self.reranker = snapshot.methods.reranker if reranks else None

    def answer(
        self,
        texts: Sequence[str],
        features: TextFeatures,
        watch: Stopwatch,
        readings: Sequence[Reading] | None = None,
    ) -> list[SearchResult]:
        """Return one result for each query.

        Args:
            texts: the queries, or what to call them if they are images.
            features: the queries as vectors.
            watch: has the time that was spent on all of them so far.
            readings: how the encoder reads each text; None: they are images.
        """
        with watch("library"):
            selected = self.snapshot.filters.apply(self.within)
            found = self.retrieve(features, selected)
        num_videos = None if selected is None else len(selected.ids)
        shared = {stage: took / len(texts) for stage, took in watch.took_ms.items()}
        results = []
        for k, text in enumerate(texts):
            watch = Stopwatch()
            with watch("moments"):
                query = query_of(features, k, found.levels[k])
                by_video = self.candidates(found.clip_ids[k], found.scores[k])
                candidates = list(by_video.values())
                proposals = self.localiser.locate(query, candidates, top=self.num_located())
            reading = None if readings is None else readings[k]
            with watch("judging"):
                judged = self.judge(text, query, proposals, reading)
            if self.reranker is not None:
                with watch("rerank"):
                    stored = [each.video for each in candidates]
                    scoring = self.reranker[1]
                    judged = rerank(judged, stored, query.features, scoring, top=self.top)
            moments = self.moments(judged[: self.top], list(by_video))
            took = dict(shared)
            for stage, stage_ms in watch.took_ms.items():
                took[stage] = took.get(stage, 0.0) + stage_ms
            results.append(
                SearchResult(
                    text,
                    moments,
                    {**took, "total": sum(took.values())},
                    num_videos,
                    () if reading is None else notes(text, reading),
                    len(self.snapshot.videos),
                )
            )
        return results

    @property
    def depth(self) -> int:
        """Number of clips that are retrieved for a query."""
        return max(self.settings.candidate_clips, _CLIPS_PER_MOMENT * self.top)

    def retrieve(
        self, features: TextFeatures, selected: FilteredLibrary | None, *, depth: int = 0
    ) -> Retrieved:
        """Look up the best clips for each query, at least ``depth``, and score samples of clips."""
        embeddings = unit(features.joint)
        depth = max(depth, self.depth)
        clips = self.snapshot.clips
        # Filtered inside the search: clips that do not pass take up none of the depth.
        allowed = None if selected is None else selected.clips
        scores, clip_ids = clips.search(embeddings, depth, allowed=allowed)
        # Sampled from all clips: the edges of a moment are the same with every filter.
        backgrounds = clips.background(embeddings)
        levels = self.snapshot.frame_levels(embeddings, backgrounds)
        return Retrieved(scores, clip_ids, levels)

    def num_located(self) -> int:
        """Return how many moments the localiser finds: more than are shown if they are re-ranked."""
        return self.top if self.reranker is None else num_located(self.top)

    def candidates(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> dict[int, Candidate]:
        """Return the videos of the retrieved clips by id, best clip first, with the stretches around the clips."""
        snapshot, grid = self.snapshot, self.snapshot.index.manifest.grid
        found: list[tuple[int, Span]] = []
        clips: dict[int, list[tuple[Span, float]]] = {}
        real = np.isfinite(scores)
        for identifier, score in zip(ids[real].tolist(), scores[real].tolist(), strict=True):
            video_id, ordinal = split_clip_id(identifier)
            span = grid.span(ordinal, snapshot.videos[video_id].duration_seconds)
            found.append((video_id, span))
            clips.setdefault(video_id, []).append((span, score))
        by_video = stretches_around(found, snapshot.videos, self.settings.context_seconds)
        return {
            video_id: Candidate(
                snapshot.stored(snapshot.videos[video_id]), stretches, tuple(clips[video_id])
            )
            for video_id, stretches in by_video.items()
        }

    def judge(
        self, text: str, query: Query, proposals: Sequence[Proposal], reading: Reading | None
    ) -> list[Judged]:
        """Give each proposal its probability, best first."""
        if reading is None:
            return self.snapshot.judge.by_image(query.joint, proposals)
        return self.snapshot.judge.by_text(text, query, proposals, self.localiser, reading)

    def moments(self, judged: Sequence[Judged], video_ids: Sequence[int]) -> tuple[Moment, ...]:
        """Turn judged proposals into moments."""
        moments = []
        for each in judged:
            video = self.snapshot.videos[video_ids[each.proposal.candidate]]
            moments.append(
                Moment(
                    video.video_id,
                    video.path,
                    each.proposal.span,
                    each.proposal.score,
                    each.probability,
                    each.evidence,
                )
            )
        return tuple(moments)


NO_BACKGROUND = np.empty(0, np.float32)


def query_of(
    features: TextFeatures, k: int, background: NDArray[np.float32] = NO_BACKGROUND
) -> Query:
    """Return one of several queries, with its level over the library if its scores there are given."""
    mean, std = background_level(background)
    return Query(unit(features.joint[k]), features.joint[k], features.states[k], mean, std)
