"""How sure a figure is: intervals over queries, of one system or of the difference of two.

    figures = mean_figures(hits)              # [Q, F] hits, ranks or tIoUs: F figures, each Figure(value, low, high)
    difference = paired_difference(ours, theirs)
    difference.low > 0                        # better on these queries, and not by their choice alone

Every interval is a 95 % percentile bootstrap over queries (Efron 1979): sets of as many queries are drawn with
replacement, and the middle 95 % of their figures lies inside. The same queries are drawn every time, so that figures
of the same queries may be compared. `training.evaluation.metrics` works out what a query comes to.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
"""Share of the resampled figures that lie inside an interval."""
RESAMPLES = 2000
"""Resampled sets of queries behind an interval; from seed to seed an end of a 95 % interval then moves by 1.5 % of its
width (standard deviation, of a normal distribution)."""
_AT_ONCE = 2**22  # queries drawn at once: 32 MB, few and large products


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_figures(values: NDArray[np.float64]) -> list[Figure]:
    """The mean of each column with its interval, all from the same draws.

    Args:
        values: [Q, F], finite: of each query one value for each figure.

    Returns:
        F figures. Costs ``RESAMPLES * Q`` draws and a product of [RESAMPLES, Q] with ``values``.

    Raises:
        ValueError: there are no queries, or a value is not finite (of a rank take the reciprocal).
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"an interval needs at least one query and finite values; got {len(values)} queries"
        )
    means = []
    for drawn in _resampled(len(values)):
        # how often each query was drawn: one product then serves all figures
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
    """How much better we are on the same queries: our mean less theirs, with its interval.

    What makes a query hard for both cancels out: an interval without 0 tells two systems apart where their own
    intervals still overlap.

    Args:
        ours: [Q], one finite value of each query.
        theirs: [Q] of the same queries in the same order.

    Raises:
        ValueError: there are no queries, the lengths differ, or a value is not finite.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"the same queries are needed; got {len(ours)} and {len(theirs)} values")
    (difference,) = mean_figures((ours - theirs)[:, None])
    return difference


def _resampled(num_queries: int) -> Iterator[NDArray[np.int64]]:
    """`RESAMPLES` rows of Q drawn positions, some rows at a time; however cut, the same ones."""
    rng = np.random.default_rng(0)
    at_once = max(1, _AT_ONCE // num_queries)
    for first in range(0, RESAMPLES, at_once):
        yield rng.integers(0, num_queries, (min(at_once, RESAMPLES - first), num_queries))
