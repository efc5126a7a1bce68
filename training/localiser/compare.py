"""How several localisers answer held-out sentences, by the code that a search runs.

    compared = compare({"training-free": TrainingFree(longest_seconds=60, overlap=.3)}, moments, groups, ...)
    compared["training-free"].in_video[0.5].value       # R@1 with the video given

The videos of a group of held-out ones are the library: nothing is looked up, every localiser looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.vectors import pool_spans, unit
from scanonce.search.localise import Candidate, Localiser, Proposal, Query
from scanonce.search.rank import background_level
from scanonce.search.soonet import SoonetLocaliser
from scanonce.storage.clips import ClipGrid
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorArrays
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.training.evaluation.intervals import Figure, mean_figures
from scanonce.training.evaluation.metrics import LibraryRule, Located, QueryOutcome, score_query
from scanonce.training.localiser.examples import Chunk, SentenceFeatures, StoredMoments

TIOUS = (0.5, 0.7)
_RULE = LibraryRule(cutoffs=(1,), depths=(1,), tious=TIOUS)
_MOST_QUERIES = 1000
_SHOWN = 5  # moments asked for


@dataclass(frozen=True, slots=True)
class Compared:
    """Figures of one localiser, with 95 % intervals over the queries."""

    num_queries: int
    in_video: dict[float, Figure]
    """R@1 by tIoU with the right video given."""
    library: dict[float, Figure]
    """R@1 by tIoU of video and span, over the videos of the group."""

    @property
    def goodness(self) -> float:
        """Mean of all figures."""
        figures = [*self.in_video.values(), *self.library.values()]
        return float(np.mean([figure.value for figure in figures]))


def compare(
    localisers: Mapping[str, Localiser],
    moments: StoredMoments,
    groups: Sequence[list[Chunk]],
    *,
    texts: SentenceFeatures,
    store: FeatureStore,
    clips: ClipGrid,
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Compared]:
    """Asks all localisers the sentences of some groups, at most some thousand.

    Args:
        localisers: by the name they are shown under.
        moments: the videos and sentences.
        groups: videos that are a library together, with the sentences that are asked.
        texts: features of the sentences.
        store: of the videos' frames.
        clips: of the index, for the level of a query.
        observe: is told how many sentences of how many are done.

    Raises:
        IndexDirectoryError: the stored features of a video are missing or damaged.
    """
    outcomes: dict[str, list[tuple[QueryOutcome, QueryOutcome]]] = {name: [] for name in localisers}
    total = min(_MOST_QUERIES, sum(len(rows) for group in groups for _, rows in group))
    done = 0
    for group in groups:
        asked = np.concatenate([rows for _, rows in group])[: total - done].tolist()
        if not asked:
            break
        videos = [moments.videos[film] for film, _ in group]
        queries = _queries(
            videos, [moments.sentences[row].text for row in asked], texts, store, clips
        )
        own_place = {film: place for place, (film, _) in enumerate(group)}
        answers = moments.answers([film for film, _ in group], asked)
        for name, localiser in localisers.items():
            candidates = [_candidate(_Scanned(video, store, localiser)) for video in videos]
            for row, query, truths in zip(asked, queries, answers, strict=True):
                own = own_place[moments.sentences[row].video]
                right = [Located(str(place), span) for place, span in truths]
                in_video = localiser.locate(query, [candidates[own]], top=_SHOWN)
                library = localiser.locate(query, candidates, top=_SHOWN)
                outcomes[name].append(
                    (
                        score_query(_located(in_video, own), right, _RULE),
                        score_query(_located(library, 0), right, _RULE),
                    )
                )
        done += len(asked)
        observe(done, total)
    return {name: _compared(rows) for name, rows in outcomes.items()}


def _compared(outcomes: Sequence[tuple[QueryOutcome, QueryOutcome]]) -> Compared:
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
    """Under the places of their videos, which are counted from ``first``."""
    return [Located(str(first + each.candidate), each.span) for each in proposals]


def _queries(
    videos: Sequence[Video],
    sentences: Sequence[str],
    texts: SentenceFeatures,
    store: FeatureStore,
    clips: ClipGrid,
) -> list[Query]:
    """What is asked, with the level of each sentence over the clips of these videos."""
    pooled = []
    for video in videos:
        stored = store.read(video.uid)
        pooled.append(
            pool_spans(unit(stored.frames), stored.pts_seconds, clips.spans(video.duration_seconds))
        )
    features: TextFeatures = texts.of(sentences)
    joint = unit(features.joint)
    scores = joint @ np.concatenate(pooled).astype(np.float32).T  # [Q, clips]
    levels = [background_level(row) for row in scores]
    return [
        Query(joint[k], features.joint[k], features.states[k], *level)
        for k, level in enumerate(levels)
    ]


class _Scanned:
    """A `search.localise.StoredVideo` with what one localiser makes of it, as if it were the index's."""

    def __init__(self, video: Video, store: FeatureStore, localiser: Localiser) -> None:
        self._video, self._store = video, store
        self._anchors: AnchorArrays | None = None
        if isinstance(localiser, SoonetLocaliser):
            stored, trained = store.read(video.uid), localiser.trained
            self._anchors = AnchorArrays(
                *trained.scan(stored.frames, stored.pts_seconds, video.duration_seconds)
            )

    @property
    def duration_seconds(self) -> float:
        return self._video.duration_seconds

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        return self._store.read_between(self._video.uid, list(spans))

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        if self._anchors is None or rows is None:
            return self._anchors
        return AnchorArrays(self._anchors.vectors[rows], self._anchors.norms[rows])


def _candidate(video: _Scanned) -> Candidate:
    return Candidate(video, ((0.0, video.duration_seconds),))
