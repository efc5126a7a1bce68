"""Spans, clip ids and clip windows: pure arithmetic."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.storage.clips import ClipGrid
from scanonce.storage.records import MAX_ORDINAL, Span, clip_id, split_clip_id

durations = st.floats(0.01, 40_000, allow_nan=False)
grids = st.builds(
    ClipGrid,
    st.sampled_from([(4.0, 8.0, 16.0), (2.0,), (1.5, 7.0), (10.0, 11.0)]),
    st.sampled_from([0.25, 0.5, 1.0]),
)
times = st.floats(0, 1e5, allow_nan=False)
spans = st.tuples(times, times).map(lambda pair: Span(min(pair), max(pair)))


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, math.inf), (math.nan, 1)])
def test_an_invalid_span_is_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="a span needs"):
        Span(start, end)


@given(spans, spans)
def test_tiou_is_symmetric_and_between_0_and_1(a: Span, b: Span) -> None:
    assert a.tiou(b) == b.tiou(a)
    assert 0 <= a.tiou(b) <= 1
    assert a.tiou(a) == (1 if a.duration_seconds else 0)


def test_tiou_of_spans_that_only_touch_is_0() -> None:
    assert Span(0, 4).tiou(Span(4, 8)) == 0


@given(st.integers(0, 2**42), st.integers(0, MAX_ORDINAL))
def test_a_clip_id_splits_into_its_parts(video: int, ordinal: int) -> None:
    assert split_clip_id(clip_id(video, ordinal)) == (video, ordinal)


def test_an_ordinal_too_large_for_a_clip_id_is_refused() -> None:
    with pytest.raises(ValueError, match="ordinals go from 0"):
        clip_id(1, MAX_ORDINAL + 1)


@given(grids, durations)
def test_clips_of_each_scale_cover_the_video_and_stay_inside(
    grid: ClipGrid, duration: float
) -> None:
    clips = grid.spans(duration)
    assert len(clips) == sum(grid.counts(duration))
    assert (clips[:, 0] >= 0).all()
    assert (clips[:, 1] <= duration).all()
    row = 0
    for count in grid.counts(duration):
        scale_clips = clips[row : row + count]
        row += count
        if count:
            assert scale_clips[0, 0] == 0
            assert scale_clips[-1, 1] == pytest.approx(duration, abs=1e-6)
            assert (scale_clips[1:, 0] <= scale_clips[:-1, 1]).all(), "a gap between two clips"


@given(grids, durations)
def test_only_the_last_clips_are_short_and_never_shorter_than_one_step(
    grid: ClipGrid, duration: float
) -> None:
    for scale, count in zip(grid.scales_seconds, grid.counts(duration), strict=True):
        if count > 1:
            stride = scale * grid.stride_ratio
            last_start = (count - 1) * stride
            assert duration - last_start > scale - stride - 1e-6


@given(grids, durations, st.data())
def test_the_span_of_an_ordinal_is_that_of_the_list(
    grid: ClipGrid, duration: float, data: st.DataObject
) -> None:
    clips = grid.spans(duration)
    ordinal = data.draw(st.integers(0, len(clips) - 1))
    span = grid.span(ordinal, duration)
    assert [span.start_seconds, span.end_seconds] == pytest.approx(clips[ordinal].tolist())
    with pytest.raises(IndexError):
        grid.span(len(clips), duration)


@pytest.mark.parametrize(
    ("duration", "counts"),
    [
        (0.04, [1, 0, 0]),
        (4, [1, 0, 0]),
        (4.1, [2, 1, 0]),
        (8, [3, 1, 0]),
        (9, [4, 2, 1]),
        (16, [7, 3, 1]),
    ],
)
def test_a_scale_is_left_out_if_a_finer_clip_covers_the_video(
    duration: float, counts: list[int]
) -> None:
    assert ClipGrid().counts(duration) == counts


def test_a_video_without_length_has_no_clips() -> None:
    assert ClipGrid().spans(0.0).shape == (0, 2)


def test_more_clips_than_an_id_can_count_are_refused() -> None:
    with pytest.raises(ValueError, match="use longer clip scales"):
        ClipGrid((0.1,)).counts(1e6)


@pytest.mark.parametrize(
    ("scales", "ratio"), [((), 0.5), ((8.0, 4.0), 0.5), ((0.0,), 0.5), ((4.0,), 0)]
)
def test_a_grid_that_makes_no_sense_is_refused(scales: tuple[float, ...], ratio: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        ClipGrid(scales, ratio)
