"""The grid of anchors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.models.soonet.grid import AnchorGrid
from scanonce.storage.records import Span

PUBLISHED = AnchorGrid(fps=5.0, snippet_length=10, num_scales=4)

grids = st.builds(
    AnchorGrid,
    fps=st.sampled_from([0.5, 1.0, 2.0, 5.0, 29.97]),
    snippet_length=st.integers(1, 12),
    num_scales=st.integers(1, 4),
)
durations = st.floats(0.001, 400.0)


@given(grids, durations)
def test_each_scale_tiles_the_video(grid: AnchorGrid, duration: float) -> None:
    spans = grid.spans(duration)
    last = 0
    for count in grid.counts(duration):
        scale = spans[last : last + count]
        last += count
        assert scale[0, 0] == 0.0
        np.testing.assert_array_equal(scale[1:, 0], scale[:-1, 1])
        assert duration - 2e-6 / grid.fps <= scale[-1, 1] <= duration
        assert (scale[:, 0] < scale[:, 1]).all()
    assert last == len(spans)


def test_an_hour_has_the_anchors_of_the_paper() -> None:
    assert PUBLISHED.counts(3600.0) == [1800, 900, 450, 225]


@pytest.mark.parametrize(
    ("duration", "num_frames"),
    [(0.0, 0), (1e-9, 1), (0.2, 1), (0.2000001, 1), (0.21, 2), (0.1 * 3 * 10, 15), (3600.0, 18000)],
)
def test_grid_frames_are_the_grid_times_before_the_end(duration: float, num_frames: int) -> None:
    assert PUBLISHED.num_frames(duration) == num_frames


def test_a_video_of_no_length_has_no_anchors() -> None:
    assert PUBLISHED.counts(0.0) == [0, 0, 0, 0]
    assert PUBLISHED.spans(0.0).shape == (0, 2)
    assert PUBLISHED.rows_between(0.0, 0.0, 5.0).shape == (0,)


@given(grids, durations, st.floats(-5.0, 400.0), st.floats(0.0, 100.0))
def test_rows_between_are_those_at_least_half_inside(
    grid: AnchorGrid, duration: float, start: float, length: float
) -> None:
    spans = grid.spans(duration)
    inside = np.minimum(spans[:, 1], start + length) - np.maximum(spans[:, 0], start)
    surplus = inside - 0.5 * (spans[:, 1] - spans[:, 0])
    rows = grid.rows_between(duration, start, start + length)
    assert (np.diff(rows) > 0).all()
    assert set(np.flatnonzero(surplus > 1e-6)) <= set(rows) <= set(np.flatnonzero(surplus > -1e-6))


def test_half_of_an_anchor_is_enough_for_a_row_between() -> None:
    grid = AnchorGrid(fps=5.0, snippet_length=10, num_scales=1)
    assert grid.rows_between(60.0, 3.0, 8.0).tolist() == [1, 2, 3]
    assert grid.rows_between(60.0, 3.1, 7.0).tolist() == [2, 3]
    assert grid.rows_between(7.0, 6.5, 99.0).tolist() == [
        3
    ]  # half of [6, 7), its part before the end


@given(grids, durations)
def test_frames_of_an_anchor_agree_with_its_span(grid: AnchorGrid, duration: float) -> None:
    rows = np.arange(sum(grid.counts(duration)))
    bounds = grid.frame_bounds(rows, duration)
    spans = grid.spans(duration)
    lengths = np.asarray(grid.lengths)[grid.scales_of(rows, duration)]
    np.testing.assert_array_equal(bounds[:, 1] - bounds[:, 0], lengths)
    np.testing.assert_array_equal(bounds[:, 0] / grid.fps, spans[:, 0])
    assert (bounds[:, 0] < grid.num_frames(duration)).all()
    assert grid.span_of(int(rows[-1]), duration) == Span(*spans[-1].tolist())


@pytest.mark.parametrize("row", [-1, 8])
def test_a_row_the_video_does_not_have_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=r"anchors 0 to 7"):
        PUBLISHED.frame_bounds([row], 8.0)


@given(st.sampled_from([1.0, 2.0, 5.0, 30.0]), st.integers(1, 2000))
def test_the_frames_of_a_regular_video_answer_the_grid_frames_in_order(
    fps: float, num_frames: int
) -> None:
    grid = AnchorGrid(fps=fps)
    pts = np.arange(num_frames) / fps
    np.testing.assert_array_equal(grid.frame_rows(pts, num_frames / fps), np.arange(num_frames))


@given(
    st.lists(st.floats(0.0, 30.0), min_size=1, max_size=40),
    st.floats(0.1, 40.0),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_the_stored_frame_on_screen_at_a_grid_frame_answers_it(
    times: list[float], duration: float, first: int, last: int
) -> None:
    pts = np.sort(np.asarray(times))
    rows = PUBLISHED.frame_rows(pts, duration, first, last)
    wanted = range(first, min(last, PUBLISHED.num_frames(duration)))
    assert rows.shape == (len(wanted),)
    for row, frame in zip(rows.tolist(), wanted, strict=True):
        before = [i for i, t in enumerate(pts) if t <= frame / 5.0 + 5e-7]
        assert row == (before[-1] if before else 0)


def test_a_picture_that_is_held_answers_until_the_next_one() -> None:
    pts = np.array([0.0, 0.2000001, 0.75, 1.0])  # nothing begins between 0.3 and 0.7, nor after 1.0
    assert PUBLISHED.frame_rows(pts, 1.4).tolist() == [0, 1, 1, 1, 2, 3, 3]
    assert PUBLISHED.frame_rows(pts, 1.4, first=3, last=5).tolist() == [1, 2]


@pytest.mark.parametrize(
    "values", [{"fps": 0.0}, {"fps": math.inf}, {"snippet_length": 0}, {"num_scales": 0}]
)
def test_impossible_grids_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be more than 0|needs a snippet length"):
        AnchorGrid(**values)  # type: ignore[arg-type]
