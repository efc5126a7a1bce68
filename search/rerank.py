"""Moments put into another order: that of a head which looks at a sentence and the frames of a moment together.

    scoring = open_scoring(layout.head, manifest.reranker)
    proposals = localiser.locate(query, candidates, top=num_located(10))
    proposals = rerank(proposals, videos, query.features, scoring, top=10)

CLIP4Clip's tight head (`models.clip4clip.heads.TightHead`) has no vector of a clip to be looked up, its score needs a
pass for each pair of sentence and clip. So the library and the localiser find moments by the mean of their frames, and
only the best of those are scored: four times as many as are shown, `MOST_SCORED` at most, all in one pass.

Its scores decide the order and nothing else. They are no cosines, and those behind the ones scored have none; so every
place keeps the score that the localiser gave it: the best score goes to the moment that is first now. Scores fall from
first to last as without a re-ranker and mean what they do there, which whoever sorts by them or compares queries relies
on. A moment keeps its own cosine.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import span_rows
from scanonce.search.localise import Proposal, StoredVideo

_SCORED_PER_MOMENT = 4
MOST_SCORED = 100
"""Moments of one query that are scored at most."""


class Scoring(Protocol):
    """How well a sentence fits frames that are looked at together with it."""

    def scores(
        self, text: NDArray[np.float32], runs: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """Scores of one sentence with runs of frames.

        Args:
            text: ``[dim]`` raw features.
            runs: of each its frames, ``[num_frames, dim]`` raw features in their order, at least one.

        Returns:
            ``[num_runs]``, higher is better; comparable for one sentence.
        """


def open_scoring(folder: Path, digest: str) -> Scoring:
    """The re-ranker of an index, whose files are read when it is first used.

    Args:
        folder: where the index keeps it.
        digest: of its files, as in the manifest.
    """
    from scanonce.models.clip4clip.apply import HeadScoring

    return HeadScoring(folder, digest)


def num_located(top: int) -> int:
    """How many moments to have found so that the best ``top`` can be chosen by their scores: ``top`` or more."""
    return max(top, min(_SCORED_PER_MOMENT * top, MOST_SCORED))


def rerank(
    proposals: Sequence[Proposal],
    videos: Sequence[StoredVideo],
    text: NDArray[np.float32],
    scoring: Scoring,
    *,
    top: int,
) -> list[Proposal]:
    """The same proposals in the order of their scores; those behind the ones that are scored stay behind them.

    Args:
        proposals: best first, as the localiser found them.
        videos: of the candidates, by their position.
        text: ``[dim]`` raw features of the sentence.
        scoring: what scores them.
        top: how many will be shown.

    Returns:
        Best first, equals in the order they were found. The score of each is the one found in its place.

    Raises:
        IndexDirectoryError: the frames of one of the videos cannot be read.
        EncoderError: the files of the re-ranker are missing or damaged.
    """
    scored = proposals[: min(_SCORED_PER_MOMENT * top, MOST_SCORED)]
    if len(scored) < 2:
        return list(proposals)
    order = np.argsort(-scoring.scores(text, _frames_inside(scored, videos)), kind="stable")
    moved = [
        replace(scored[k], score=place.score)
        for k, place in zip(order.tolist(), scored, strict=True)
    ]
    return [*moved, *proposals[len(scored) :]]


def _frames_inside(
    proposals: Sequence[Proposal], videos: Sequence[StoredVideo]
) -> list[NDArray[np.float16]]:
    """The stored frames of each proposal; where a span has none of its own, the one on screen when it starts."""
    places: dict[int, list[int]] = {}
    for place, each in enumerate(proposals):
        places.setdefault(each.candidate, []).append(place)
    inside: dict[int, NDArray[np.float16]] = {}
    for number, mine in places.items():
        spans = [
            (proposals[place].span.start_seconds, proposals[place].span.end_seconds)
            for place in mine
        ]
        for place, span, found in zip(mine, spans, videos[number].frames(spans), strict=True):
            inside[place] = found.frames if len(found.frames) else _on_screen(videos[number], span)
    return [inside[place] for place in range(len(proposals))]


def _on_screen(video: StoredVideo, span: tuple[float, float]) -> NDArray[np.float16]:
    """As pooling does it. Reads all that is stored of the video: key frames are seldom that far apart."""
    (stored,) = video.frames([(0.0, np.inf)])
    first, last = span_rows(stored.pts_seconds, np.array([span]))
    return stored.frames[first[0] : last[0]]
