"""The frame on screen at each target, against the definition."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.storage.targets import (
    answering_rows,
    first_targets,
    is_shown_at_target,
    shown_at,
    target_bounds,
)

times = st.lists(st.integers(0, 400), min_size=1, max_size=12, unique=True).map(sorted)
rates = st.sampled_from([0.1, 1 / 3, 1.0, 2.0, 23.976, 29.97])


@given(times, rates)
def test_the_last_frame_that_begins_at_or_before_a_target_answers_it(
    hundredths: list[int], fps: float
) -> None:
    pts = np.array(hundredths) / 10
    targets = np.arange(round(45 * fps) + 2)
    rows = answering_rows(first_targets(pts, fps), targets)
    for target, row in zip(targets / fps, rows.tolist(), strict=True):
        before = [k for k, begin in enumerate(pts) if begin <= target + 5e-7]
        assert row == (before[-1] if before else 0)


@given(times, rates)
def test_a_frame_is_an_answer_if_it_answers_a_target(hundredths: list[int], fps: float) -> None:
    pts = np.array([0, *hundredths[1:], 410]) / 10
    targets = np.arange(np.ceil(41 * fps - 1e-6), dtype=np.int64)
    rows = answering_rows(first_targets(pts, fps), targets)
    for row, (begin, end) in enumerate(pairwise(pts)):
        assert is_shown_at_target(begin, end, fps) == (row in rows.tolist())


@pytest.mark.parametrize(
    ("span", "bounds"),
    [((0.0, 2.0), (0, 4)), ((0.1, 2.1), (1, 5)), ((0.6, 0.9), (1, 2)), ((0.0, 0.0), (-1, 0))],
)
def test_every_span_has_a_target(span: tuple[float, float], bounds: tuple[int, int]) -> None:
    assert target_bounds(np.array([span]), 2.0).tolist() == [list(bounds)]


def test_a_span_between_two_targets_begins_at_its_start() -> None:
    seconds, rows = shown_at(np.array([0.0, 3.0]), 2.0, 3.1, 3.2)
    assert (seconds.tolist(), rows.tolist()) == ([3.1], [1])
