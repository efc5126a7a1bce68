"""Intervals over queries: compared with the binomial distribution, from the same draws, and of paired queries."""

import math

import numpy as np
import pytest

from scanonce.training.evaluation.intervals import Figure, mean_figures, paired_difference


def interval_of(hits: list[int]) -> Figure:
    (figure,) = mean_figures(np.array(hits, np.float64)[:, None])
    return figure


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    few, many = interval_of([1, 0] * 10), interval_of([1, 0] * 200)
    assert few.low < many.low < 0.5 < many.high < few.high
    assert interval_of([1, 1, 1]) == Figure(1, 1, 1)


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    # 400 queries, .25 of them hit: the standard error is sqrt(.25 * .75 / 400)
    figure = interval_of([1, 0, 0, 0] * 100)
    error = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert (figure.low, figure.high) == pytest.approx((0.25 - error, 0.25 + error), abs=0.005)


def test_every_figure_of_a_table_has_the_interval_it_has_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).random((50, 3))
    alone = [mean_figures(column[:, None])[0] for column in values.T]
    monkeypatch.setattr(
        "scanonce.training.evaluation.intervals._AT_ONCE", 777
    )  # drawn in parts: the same draws
    for one, other in zip(mean_figures(values), alone, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_a_paired_difference_is_more_certain_than_two_separate_figures() -> None:
    theirs = np.tile([0.0, 0.2, 0.4, 0.6, 0.8], 20)
    ours = theirs + np.tile([0.1, 0.0], 50)
    difference = paired_difference(ours, theirs)
    assert difference.value == pytest.approx(0.05)
    assert 0.03 < difference.low < 0.05 < difference.high < 0.07
    better, worse = mean_figures(np.stack([ours, theirs], axis=1))
    assert better.low < worse.high  # separately they overlap
    assert paired_difference(theirs, ours).value == pytest.approx(-0.05)


def test_differences_of_other_queries_or_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 3 values"):
        paired_difference(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        paired_difference(np.array([1, math.inf]), np.array([1, 2.0]))
    with pytest.raises(ValueError, match="at least one query"):
        mean_figures(np.empty((0, 1)))
