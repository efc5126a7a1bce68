"""Re-ranking of moments by a head that reads the query and the frames of a moment together.

    scoring = open_scoring(layout.head, manifest.reranker)
    proposals = localiser.locate(query, candidates, top=num_located(10))
    judged = judge.by_text(text, query, proposals, localiser, reading)
    judged = rerank(judged, videos, query.features, scoring, top=10)

CLIP4Clip's tight head (`models.clip4clip.heads.TightHead`) has no embedding of a clip that could be stored: its score
needs a pass for each pair of query and clip. Moments are therefore found by the mean of their frames, and only the best
of them are scored by the head: four times as many as are shown, at most `MAX_SCORED`, in one pass.

The scores of the head decide the order and nothing else: they say which moment is better, not how good it is. So each
rank keeps its probability: the highest goes to the moment that is first now. Probabilities fall from first to last,
which callers that sort by them rely on.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.search.judging import Judged
from scanonce.search.localise import Proposal, StoredVideo
from scanonce.storage.targets import shown_at

_SCORED_PER_MOMENT = 4
MAX_SCORED = 100
"""Most moments of one query that are scored."""


class Scoring(Protocol):
    """Scores how well a query fits some frames, reading both together."""

    def scores(
        self, text: NDArray[np.float32], runs: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """Score a query with several runs of frames.

        Args:
            text: ``[dim]`` raw features of the query.
            runs: the frames of each run, ``[num_frames, dim]`` raw features in order, at least one frame.

        Returns:
            ``[num_runs]``, higher is better; comparable for one query.
        """


def open_scoring(folder: Path, digest: str) -> Scoring:
    """Return the re-ranker of an index; its files are read when it is first used.

    Args:
        folder: the head folder of the index.
        digest: digest of its files, as in the manifest.
    """
    from scanonce.models.clip4clip.apply import HeadScoring

    return HeadScoring(folder, digest)


def num_located(top: int) -> int:
    """Return the number of moments to find so that re-ranking can choose the best ``top``; at least ``top``."""
    return max(top, min(_SCORED_PER_MOMENT * top, MAX_SCORED))


def rerank(
    judged: Sequence[Judged],
    videos: Sequence[StoredVideo],
    text: NDArray[np.float32],
    scoring: Scoring,
    *,
    top: int,
) -> list[Judged]:
    """Sort the first moments by the scores of a re-ranker; the others follow unchanged.

    Args:
        judged: the judged proposals of the localiser, best first.
        videos: the videos of the candidates, in the order of the candidates.
        text: ``[dim]`` raw features of the query.
        scoring: the re-ranker.
        top: number of moments that will be shown.

    Returns:
        The same moments, best first; equal scores keep their order. Each has the probability of its rank.

    Raises:
        IndexDirectoryError: the frames of one of the videos cannot be read.
        EncoderError: the files of the re-ranker are missing or damaged.
    """
    scored = judged[: min(_SCORED_PER_MOMENT * top, MAX_SCORED)]
    if len(scored) < 2:
        return list(judged)
    inside = _frames_inside([each.proposal for each in scored], videos)
    order = np.argsort(-scoring.scores(text, inside), kind="stable")
    moved = [
        replace(scored[k], probability=ranked.probability)
        for k, ranked in zip(order.tolist(), scored, strict=True)
    ]
    return [*moved, *judged[len(scored) :]]


def _frames_inside(
    proposals: Sequence[Proposal], videos: Sequence[StoredVideo]
) -> list[NDArray[np.float16]]:
    """Read the frames on screen at the targets in each proposal, a frame that is held as often as it is on screen."""
    by_candidate: dict[int, list[int]] = {}
    for k, each in enumerate(proposals):
        by_candidate.setdefault(each.candidate, []).append(k)
    inside: dict[int, NDArray[np.float16]] = {}
    for number, mine in by_candidate.items():
        spans = [(proposals[k].span.start_seconds, proposals[k].span.end_seconds) for k in mine]
        for k, span, found in zip(mine, spans, videos[number].frames(spans), strict=True):
            _, rows = shown_at(found.pts_seconds, found.fps, *span)
            inside[k] = found.frames[rows]
    return [inside[k] for k in range(len(proposals))]
