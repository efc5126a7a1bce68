"""How good answers are: recall of moments over a library. Pure functions.

A prediction hits when its video is the right one and its tIoU with the true span reaches the threshold (VCMR's rule,
arXiv 2001.09099). A query without a prediction counts as a miss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.records import Span


@dataclass(frozen=True, slots=True)
class Located:
    """A span of a named video: a prediction or the truth."""

    video: str
    span: Span


def recall_at(
    rank: int, tiou: float, predictions: Sequence[Sequence[Located]], truths: Sequence[Located]
) -> float:
    """Share of queries with a hit among the first ``rank`` predictions, in [0, 1].

    Args:
        rank: how many predictions count.
        tiou: threshold; 0 asks for the right video only.
        predictions: of each query, best first.
        truths: of each query, one.

    Raises:
        ValueError: there are no queries, or not as many predictions as truths.
    """
    _check(predictions, truths)
    hits = [
        any(
            found.video == truth.video and found.span.tiou(truth.span) >= tiou
            for found in row[:rank]
        )
        for row, truth in zip(predictions, truths, strict=True)
    ]
    return float(np.mean(hits))


def mean_tiou(predictions: Sequence[Sequence[Located]], truths: Sequence[Located]) -> float:
    """Mean tIoU of the first prediction with the truth; 0 for another video or no prediction."""
    _check(predictions, truths)
    values = [
        row[0].span.tiou(truth.span) if row and row[0].video == truth.video else 0.0
        for row, truth in zip(predictions, truths, strict=True)
    ]
    return float(np.mean(values))


def bootstrap_interval(
    hits: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979), over queries."""
    values = np.asarray(hits, np.float64)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _check(predictions: Sequence[object], truths: Sequence[object]) -> None:
    if not truths or len(predictions) != len(truths):
        raise ValueError(
            f"as many predictions as truths are needed, at least one; got {len(predictions)} and {len(truths)}"
        )
