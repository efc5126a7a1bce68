"""Whether answers can be believed: refusals, acceptances, and the calibration of probabilities.

beliefs = [Belief(probability=0.9, is_right=True, is_present=True), ...]     # the first moment of each query
refused(beliefs).value          # share of "no good match" among queries that the library answers
calibration_error(beliefs).value
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanonce.search.grades import GOOD
from scanonce.storage.records import Span
from scanonce.training.evaluation.intervals import Figure, mean_figures, resampled_figure

NUM_BINS = 15
"""Bins of the calibration error, of equal width (Guo et al., 2017, arXiv 1706.04599)."""


@dataclass(frozen=True, slots=True)
class Belief:
    """The probability of the first moment of a query, and the truth."""

    probability: float
    """0 for an answer without moments."""
    is_right: bool
    """Whether the moment shows what was asked."""
    is_present: bool
    """Whether the library shows it anywhere."""

    @property
    def is_good(self) -> bool:
        """Whether the answer has a good match."""
        return self.probability >= GOOD


MIN_INSIDE = 0.5
"""Least part of a moment that must lie in right answers for it to be right."""


def share_inside(span: Span, answers: Sequence[Span]) -> float:
    """Return the share of a span inside some disjoint answers, 0 to 1; 0 for an empty span."""
    if not span.duration_seconds:
        return 0.0
    inside = sum(
        max(
            0.0,
            min(span.end_seconds, each.end_seconds) - max(span.start_seconds, each.start_seconds),
        )
        for each in answers
    )
    return inside / span.duration_seconds


def refused(beliefs: Sequence[Belief]) -> Figure:
    """Return the share of "no good match" among queries that the library answers; lower is better."""
    return _share([not each.is_good for each in beliefs if each.is_present])


def accepted(beliefs: Sequence[Belief]) -> Figure:
    """Return the share of good matches among queries that it does not answer; lower is better."""
    return _share([each.is_good for each in beliefs if not each.is_present])


def calibration_error(beliefs: Sequence[Belief]) -> Figure:
    """Return the expected calibration error: the mean distance of probability and share of right answers, by bins."""
    return resampled_figure(lambda rows: expected_error(rows[:, 0], rows[:, 1]), _table(beliefs))


def separation(beliefs: Sequence[Belief]) -> Figure:
    """Return the area under the ROC curve of the probability: how well it separates right from wrong moments."""
    return resampled_figure(lambda rows: roc_area(rows[:, 0], rows[:, 1]), _table(beliefs))


def expected_error(
    probabilities: NDArray[np.float64], is_right: NDArray[np.float64], bins: int = NUM_BINS
) -> float:
    """Return the expected calibration error in [0, 1].

    Args:
        probabilities: [N] in [0, 1].
        is_right: [N], 1 or 0.
        bins: number of bins of equal width.
    """
    places = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, probabilities - is_right, minlength=bins)
    return float(np.abs(gaps).sum() / len(probabilities))


def roc_area(scores: NDArray[np.float64], is_right: NDArray[np.float64]) -> float:
    """Return the share of (right, wrong) pairs that the scores put in order, ties as halves; 1 without such a pair."""
    right = is_right > 0.5
    num_right, num_wrong = int(right.sum()), int((~right).sum())
    if not num_right or not num_wrong:
        return 1.0
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # mean rank of equal scores, from 1
    total = middle[ranks][right].sum() - num_right * (num_right + 1) / 2
    return float(total / (num_right * num_wrong))


def _table(beliefs: Sequence[Belief]) -> NDArray[np.float64]:
    return np.array([(each.probability, each.is_right) for each in beliefs], np.float64)


def _share(hits: Sequence[bool]) -> Figure:
    return mean_figures(np.array(hits, np.float64)[:, None])[0]
