"""The training-free localiser and temporal NMS: pure arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scanonce.search.curve import (
    ScoredSpan,
    Stretch,
    background_level,
    change_points,
    find_spans,
    find_spans_each,
    running_max,
    snap,
    suppress_overlaps,
    z_scores,
)
from scanonce.storage.records import Span

curves = arrays(np.float64, st.integers(1, 60), elements=st.floats(-5, 5, width=16))


def find(
    curve: np.ndarray, *, fps: float = 2.0, top: int = 5, **options: float
) -> list[ScoredSpan]:
    pts = np.arange(len(curve)) / fps
    end = len(curve) / fps
    longest = options.get("longest", 60.0)
    return find_spans(
        curve,
        pts,
        end_seconds=end,
        longest_seconds=longest,
        top=top,
        overlap=options.get("overlap", 0.3),
    )


def step(num_frames: int, first: int, last: int, height: float = 3.0) -> np.ndarray:
    curve = np.zeros(num_frames)
    curve[first:last] = height
    return curve


def seen(first: int, last: int, num_frames: int) -> Span:
    """Return the span of frames at 2 fps; a cut is halfway between two frames."""
    return Span(
        max(0.0, first / 2 - 0.25), num_frames / 2 if last == num_frames else last / 2 - 0.25
    )


@pytest.mark.parametrize(
    ("first", "last"), [(10, 20), (0, 6), (50, 60), (30, 31), (5, 55), (0, 60), (17, 36)]
)
def test_a_clean_step_is_found_to_the_frame(first: int, last: int) -> None:
    assert find(step(60, first, last))[0].span == seen(first, last, 60)


@given(st.integers(0, 399), st.integers(1, 400))
def test_a_step_is_found_nearly_to_the_frame_wherever_it_is_and_however_long(
    first: int, length: int
) -> None:
    last = min(first + length, 400)
    best = find(step(400, first, last), longest=400.0, top=1)[0].span
    assert best.tiou(seen(first, last, 400)) > 0.95


def test_noise_moves_the_edges_little() -> None:
    rng = np.random.default_rng(0)
    overlaps = []
    for _ in range(50):
        curve = step(120, 40, 70) + rng.normal(size=120)
        overlaps.append(Span(20, 35).tiou(find(curve)[0].span))
    assert np.median(overlaps) > 0.85


def test_one_bright_frame_does_not_beat_a_whole_scene() -> None:
    curve = step(60, 20, 40, height=2.0)
    curve[5] = 4.0
    assert find(curve)[0].span.tiou(Span(10, 20)) > 0.8


def test_two_moments_are_both_found() -> None:
    curve = step(120, 10, 24) + step(120, 80, 90)
    first, second = (found.span for found in find(curve)[:2])
    assert {first.tiou(Span(5, 12)) > 0.8, second.tiou(Span(40, 45)) > 0.8} == {True}


def test_no_frames_give_no_spans_and_one_frame_gives_one() -> None:
    assert find(np.zeros(0)) == []
    assert [found.span for found in find(np.ones(1))] == [Span(0.0, 0.5)]


@given(curves)
def test_spans_are_ordered_inside_the_video_and_do_not_overlap_more_than_allowed(
    curve: np.ndarray,
) -> None:
    found = find(curve, top=20)
    spans = [each.span for each in found]
    assert spans, "a video with frames has at least one span"
    assert all(0 <= s.start_seconds < s.end_seconds <= len(curve) / 2 for s in spans)
    contrasts = [each.contrast for each in found]
    assert contrasts == sorted(contrasts, reverse=True)
    for k, span in enumerate(spans):
        assert all(shared(span, other) <= 0.3 + 1e-9 for other in spans[:k])


def shared(a: Span, b: Span) -> float:
    """Return the share of the shorter span that is in the other."""
    both = min(a.end_seconds, b.end_seconds) - max(a.start_seconds, b.start_seconds)
    return max(0.0, both) / max(min(a.duration_seconds, b.duration_seconds), 1e-9)


@given(curves, st.floats(-3, 3), st.floats(0.5, 4))
def test_spans_do_not_depend_on_the_encoders_level_and_spread(
    curve: np.ndarray, level: float, spread: float
) -> None:
    mean, std = float(curve.mean()), float(curve.std()) + 0.1
    here = find(z_scores(curve.astype(np.float32), mean, std), top=1)
    scaled = (curve * spread + level).astype(np.float32)
    there = find(z_scores(scaled, mean * spread + level, std * spread), top=1)
    assert here[0].contrast == pytest.approx(there[0].contrast, abs=1e-2)


def test_no_span_is_longer_than_allowed_unless_it_is_a_single_frame() -> None:
    for found in find(step(60, 5, 55), longest=4.0, top=50):
        assert found.span.duration_seconds <= 4.0
    assert find(np.ones(3), fps=0.1, longest=4.0)[0].span.duration_seconds > 4.0


@pytest.mark.parametrize("level", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 16, 59, 120])
def test_a_stretch_that_is_equally_good_throughout_is_one_span(
    num_frames: int, level: float
) -> None:
    (only,) = find(np.full(num_frames, level))
    assert only.span == Span(0.0, num_frames / 2)


@given(st.lists(curves, max_size=4), st.sampled_from([1.0, 2.0, 5.0]))
def test_stretches_do_not_influence_each_other(several: list[np.ndarray], fps: float) -> None:
    several.append(np.zeros(0))
    stretches = [
        Stretch(curve, 7.0 + np.arange(len(curve)) / rate, 7.0 + len(curve) / rate)
        for rate, curve in zip([fps, 2.0, 2.0, 0.3, 2.0], several, strict=False)
    ]
    together = find_spans_each(stretches, longest_seconds=20.0, top=4, overlap=0.3)
    alone = [
        find_spans(
            each.curve,
            each.pts_seconds,
            end_seconds=each.end_seconds,
            longest_seconds=20.0,
            top=4,
            overlap=0.3,
        )
        for each in stretches
    ]
    assert together == alone


@given(curves, st.integers(0, 4000))
def test_spans_move_with_the_clock(curve: np.ndarray, seconds: int) -> None:
    (early,), (late,) = (
        find_spans_each(
            [Stretch(curve, begin + np.arange(len(curve)) / 2, begin + len(curve) / 2)],
            longest_seconds=20.0,
            top=5,
            overlap=0.3,
        )
        for begin in (0.0, float(seconds))
    )
    assert [each.contrast for each in early] == [each.contrast for each in late]
    for here, there in zip(early, late, strict=True):
        assert here.span.start_seconds + seconds == there.span.start_seconds
        assert here.span.end_seconds + seconds == there.span.end_seconds


@given(curves)
def test_low_frames_far_away_do_not_move_the_best_span(curve: np.ndarray) -> None:
    curve = np.concatenate([np.full(20, -9.0), curve + 10.0, np.full(20, -9.0)])
    longer = np.append(curve, np.full(60, -9.0))
    assert find(curve, longest=100.0)[0] == find(longer, longest=100.0)[0]


def test_of_equal_moments_the_earlier_comes_first() -> None:
    found = find(step(300, 200, 212) + step(300, 31, 43) + step(300, 90, 102), longest=300.0, top=3)
    assert [each.span for each in found] == [
        seen(first, first + 12, 300) for first in (31, 90, 200)
    ]
    assert len({each.contrast for each in found}) == 1


@given(curves, st.integers(0, 70))
def test_a_running_maximum_is_that_of_every_window(values: np.ndarray, reach: int) -> None:
    expected = [
        values[max(0, k - reach) : k + reach + 1].max(initial=-np.inf) for k in range(len(values))
    ]
    assert running_max(values, reach).tolist() == expected


def shots(*lengths: int, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Return unit vectors of frames: shots of the given lengths, each around another direction."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.normal(size=(len(lengths), 32)), lengths, axis=0)
    frames += noise * rng.normal(size=frames.shape)
    units: np.ndarray = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    return units.astype(np.float32)


def test_shots_change_halfway_between_the_last_frame_and_the_first() -> None:
    units = shots(20, 6, 40, 9, 25)
    assert change_points(units, np.arange(100) / 2, np.arange(100)).tolist() == [
        9.75,
        12.75,
        32.75,
        37.25,
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_held_pictures_have_the_change_points_of_their_copies(counts: list[int], seed: int) -> None:
    units = shots(*[1] * len(counts), seed=seed)
    rows = np.repeat(np.arange(len(counts)), counts)
    times = np.arange(len(rows)) / 2
    copies = change_points(units[rows], times, np.arange(len(rows)))
    assert change_points(units, times, rows).tolist() == copies.tolist()


@given(st.integers(0, 40), st.sampled_from([0.0, 0.01, 0.3]), st.integers(0, 50))
def test_one_shot_has_hardly_any_change_point(num_frames: int, noise: float, seed: int) -> None:
    rows = np.arange(num_frames)
    points = change_points(shots(num_frames, noise=noise, seed=seed), rows / 2, rows)
    assert len(points) <= num_frames // 20


spans_in_film = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0.1, 20)).map(lambda each: (each[0], sum(each))),
    max_size=10,
)
points_in_film = st.lists(st.floats(0, 80), max_size=10).map(lambda each: np.array(sorted(each)))


@given(spans_in_film, points_in_film, st.floats(0, 100))
def test_snapping_never_inverts_or_empties_and_moves_no_edge_out_of_reach(
    rows: list[tuple[float, float]], points: np.ndarray, reach: float
) -> None:
    spans = np.array(rows).reshape(-1, 2)
    snapped = snap(spans, points, reach)
    assert snapped.shape == spans.shape
    assert (snapped[:, 0] < snapped[:, 1]).all()
    moved = snapped != spans
    assert (np.abs(snapped - spans) <= reach).all()
    assert np.isin(snapped[moved], points).all()


def test_an_edge_goes_to_the_nearest_change_point_within_reach() -> None:
    spans = np.array([[4.2, 9.5], [4.2, 4.4], [20.0, 30.0]])
    points = np.array([4.0, 5.0, 10.0])
    assert snap(spans, points, 1.0).tolist() == [[4.0, 10.0], [4.2, 4.4], [20.0, 30.0]]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.integers(0, 5)), max_size=30),
    st.floats(0, 0.95),
)
def test_nms_keeps_the_best_of_every_group_and_only_drops_what_overlaps(
    items: list[tuple[float, float, int]], overlap: float
) -> None:
    spans = np.array([(start, start + length) for start, length, _ in items]).reshape(-1, 2)
    scores = np.array([float(score) for *_, score in items])
    kept = suppress_overlaps(spans, scores, overlap, top=100)
    as_spans = [Span(*row) for row in spans.tolist()]
    for position in range(len(items)):
        if position in kept:
            continue
        better = [k for k in kept if scores[k] >= scores[position]]
        assert any(shared(as_spans[k], as_spans[position]) > overlap - 1e-9 for k in better)
    if items:
        assert kept[0] == int(np.argmax(scores)), "ties keep their order"
    assert suppress_overlaps(spans, scores, overlap, top=2) == kept[:2]


def test_the_background_of_a_single_clip_says_nothing() -> None:
    assert background_level(np.array([0.3], np.float32)) == (0.0, 1.0)
