"""Confidence intervals over queries, of one system or of the difference between two.

    figures = mean_figures(hits)              # [Q, F] hits, ranks or tIoUs: F figures, each Figure(value, low, high)
    difference = paired_difference(ours, theirs)
    difference.low > 0                        # better, and not only because of the choice of queries

Every interval is a 95 % percentile bootstrap over queries (Efron 1979): sets of the same number of queries are drawn
with replacement, and the interval has the middle 95 % of their figures. The same queries are drawn every time, so that
figures of the same queries can be compared. `training.evaluation.metrics` computes the outcome of a query.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Share of the resampled figures inside an interval."""
RESAMPLES = 2000
"""Resampled sets of queries. Between seeds an end of a 95 % interval then varies by 1.5 % of its width (standard
deviation, for a normal distribution)."""
_AT_ONCE = 2**22  # queries drawn at once: 32 MB, few and large products


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_figures(values: NDArray[np.float64]) -> list[Figure]:
    """Return the mean of each column with its interval, all from the same draws.

    Args:
        values: [Q, F], finite: a value of each query for each figure.

    Returns:
        F figures. Costs ``RESAMPLES * Q`` draws and a product of [RESAMPLES, Q] with ``values``.

    Raises:
        ValueError: there are no queries, or a value is not finite (use the reciprocal of a rank).
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"an interval needs at least one query and finite values; got {len(values)} queries"
        )
    means = []
    for drawn in _resampled(len(values)):
        # the count of each query: one product then computes all figures
        cells = drawn + np.arange(len(drawn))[:, None] * len(values)
        times = np.bincount(cells.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(times.astype(np.float64) @ values / len(values))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return [
        Figure(float(mean), float(least), float(most))
        for mean, least, most in zip(values.mean(axis=0), low, high, strict=True)
    ]


def paired_difference(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Figure:
    """Return the difference of two systems' means on the same queries, with its interval.

    Queries that are hard for both cancel out: an interval without 0 distinguishes two systems even if their own
    intervals overlap.

    Args:
        ours: [Q], one finite value of each query.
        theirs: [Q], values of the same queries in the same order; they are subtracted.

    Raises:
        ValueError: there are no queries, the lengths differ, or a value is not finite.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"the same queries are needed; got {len(ours)} and {len(theirs)} values")
    (difference,) = mean_figures((ours - theirs)[:, None])
    return difference


def resampled_figure(
    statistic: Callable[[NDArray[np.float64]], float], values: NDArray[np.float64]
) -> Figure:
    """Return a figure that is not a mean, with its interval.

    Args:
        statistic: gives the figure of some queries from their rows of ``values``, finite.
        values: [Q, F], a row for each query; at least one.

    Returns:
        The figure. Costs ``RESAMPLES`` calls of ``statistic``.
    """
    drawn = [statistic(values[rows]) for some in _resampled(len(values)) for rows in some]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Figure(statistic(values), float(low), float(high))


def _resampled(num_queries: int) -> Iterator[NDArray[np.int64]]:
    """Yield `RESAMPLES` rows of Q drawn positions, some rows at a time; their number does not change the draws."""
    rng = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // num_queries)
    for first in range(0, RESAMPLES, at_once):
        yield rng.integers(0, num_queries, (min(at_once, RESAMPLES - first), num_queries))
