"""Comparison of localisers on held-out queries, by the code of a search.

    free = TrainingFree(longest_seconds=60, overlap=.3)
    compared = compare({"training-free": Competitor(free)}, moments, groups, ...)
    compared["training-free"].in_video[0.5].value       # R@1 with the video given

The videos of a group of held-out ones are the library. There is no retrieval: every localiser sees all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanonce.indexer.anchors import scan_anchors
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.models.vectors import pool_spans, unit
from scanonce.search.curve import background_level
from scanonce.search.localise import Candidate, Localiser, Proposal, Query
from scanonce.storage.clips import ClipGrid
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.training.bars import OnProgress
from scanonce.training.evaluation.intervals import Figure, mean_figures
from scanonce.training.evaluation.metrics import LibraryRule, Located, QueryOutcome, score_query
from scanonce.training.localiser.examples import Chunk, EncodedTexts, StoredMoments

TIOUS = (0.5, 0.7)
_RULE = LibraryRule(cutoffs=(1,), depths=(1,), tious=TIOUS)
_MOST_QUERIES = 1000
_SHOWN = 5  # moments per query


@dataclass(frozen=True, slots=True)
class Competitor:
    """A localiser, and the network whose anchors an index would store for it."""

    localiser: Localiser
    trained: TrainedLocaliser | None = None
    """None: the localiser reads frames only."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of one localiser, with 95 % intervals over the queries."""

    num_queries: int
    in_video: dict[float, Figure]
    """R@1 by tIoU with the right video given."""
    library: dict[float, Figure]
    """R@1 by tIoU of video and span, over the videos of the group."""

    @property
    def selection_metric(self) -> float:
        """Mean of all figures."""
        figures = [*self.in_video.values(), *self.library.values()]
        return float(np.mean([figure.value for figure in figures]))


def compare(
    competitors: Mapping[str, Competitor],
    moments: StoredMoments,
    groups: Sequence[list[Chunk]],
    *,
    texts: EncodedTexts,
    store: FeatureStore,
    clips: ClipGrid,
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Compared]:
    """Ask all localisers the queries of groups, at most a thousand.

    Args:
        competitors: localisers by the name they are shown under.
        moments: videos and queries.
        groups: videos that are a library together, with their queries.
        texts: features of the queries.
        store: stored frames of the videos.
        clips: grid of the index, for the background level of a query.
        on_progress: called with the number of queries that are done, and of all queries.

    Raises:
        IndexDirectoryError: the stored features of a video are missing or damaged.
    """
    outcomes: dict[str, list[tuple[QueryOutcome, QueryOutcome]]] = {n: [] for n in competitors}
    total = min(_MOST_QUERIES, sum(len(rows) for group in groups for _, rows in group))
    done = 0
    for group in groups:
        asked = np.concatenate([rows for _, rows in group])[: total - done].tolist()
        if not asked:
            break
        videos = [moments.videos[film] for film, _ in group]
        words = [moments.queries[row].text for row in asked]
        queries = _queries(videos, words, texts, store, clips)
        position = {film: number for number, (film, _) in enumerate(group)}
        answers = moments.answers([film for film, _ in group], asked)
        for name, competitor in competitors.items():
            localiser = competitor.localiser
            candidates = [_candidate(video, store, competitor.trained) for video in videos]
            for row, query, truths in zip(asked, queries, answers, strict=True):
                own = position[moments.queries[row].video]
                right = [Located(str(number), span) for number, span in truths]
                in_video = localiser.locate(query, [candidates[own]], top=_SHOWN)
                library = localiser.locate(query, candidates, top=_SHOWN)
                outcomes[name].append(
                    (
                        score_query(_located(in_video, own), right, _RULE),
                        score_query(_located(library, 0), right, _RULE),
                    )
                )
        done += len(asked)
        on_progress(done, total)
    return {name: _figures(rows) for name, rows in outcomes.items()}


def _figures(outcomes: Sequence[tuple[QueryOutcome, QueryOutcome]]) -> Compared:
    hits = [
        np.concatenate([in_video.svmr_ranks <= 1, library.vcmr_ranks <= 1])
        for in_video, library in outcomes
    ]
    figures = mean_figures(np.array(hits, np.float64))
    return Compared(
        len(outcomes),
        dict(zip(TIOUS, figures[: len(TIOUS)], strict=True)),
        dict(zip(TIOUS, figures[len(TIOUS) :], strict=True)),
    )


def _located(proposals: Sequence[Proposal], first: int) -> list[Located]:
    """Proposals with the positions of their videos as names, counted from ``first``."""
    return [Located(str(first + each.candidate), each.span) for each in proposals]


def _queries(
    videos: Sequence[Video],
    words: Sequence[str],
    texts: EncodedTexts,
    store: FeatureStore,
    clips: ClipGrid,
) -> list[Query]:
    """Queries with their background level over the clips of these videos."""
    pooled = []
    for video in videos:
        stored = store.read(video.uid)
        spans = clips.spans(video.duration_seconds)
        pooled.append(pool_spans(unit(stored.frames), stored.pts_seconds, spans, stored.fps))
    features: TextFeatures = texts.of(words)
    joint = unit(features.joint)
    scores = joint @ np.concatenate(pooled).astype(np.float32).T  # [Q, clips]
    levels = [background_level(row) for row in scores]
    return [
        Query(joint[k], features.joint[k], features.states[k], *level)
        for k, level in enumerate(levels)
    ]


class _ScannedVideo:
    """A `search.localise.StoredVideo` whose anchors are not in an index."""

    def __init__(self, video: Video, store: FeatureStore, anchors: AnchorArrays | None) -> None:
        self._video, self._store, self._anchors = video, store, anchors

    @property
    def duration_seconds(self) -> float:
        return self._video.duration_seconds

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        return self._store.read_between(self._video.uid, spans)

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        if self._anchors is None or rows is None:
            return self._anchors
        return AnchorArrays(self._anchors.vectors[rows], self._anchors.norms[rows])


def _candidate(video: Video, store: FeatureStore, trained: TrainedLocaliser | None) -> Candidate:
    anchors = None
    if trained is not None:
        anchors = scan_anchors(trained, store.read(video.uid), video.duration_seconds)
    scanned = _ScannedVideo(video, store, anchors)
    return Candidate(scanned, ((0.0, video.duration_seconds),))
