"""The training-free localiser and temporal NMS: pure arithmetic."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search.curve import ScoredSpan, find_spans, suppress_overlaps, z_scores
from search.rank import background_level, margins
from search.retrieve import merge, neighbourhoods
from storage.clips import ClipGrid
from storage.records import Span, Video, clip_id

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


@pytest.mark.parametrize(("first", "last"), [(10, 20), (0, 6), (50, 60), (30, 31), (5, 55)])
def test_a_clean_step_is_found_to_the_frame(first: int, last: int) -> None:
    best = find(step(60, first, last))[0].span
    exact = (first / 2, last / 2)
    # lengths are tried in steps of a tenth: an edge may be off by half of that
    assert Span(*exact).tiou(best) > 0.9


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
    """Share of the shorter span that lies in the other."""
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
    assert find(np.ones(3), fps=0.1, longest=4.0)[0].span.duration_seconds == pytest.approx(10)


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


def test_a_margin_is_the_best_above_the_mean_of_the_background() -> None:
    backgrounds = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.3]], np.float32)
    np.testing.assert_allclose(
        margins(np.array([0.5, 0.3], np.float32), backgrounds), [0.3, 0.2], atol=1e-6
    )


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=20))
def test_merged_stretches_cover_the_same_and_keep_apart(pairs: list[tuple[float, float]]) -> None:
    stretches = [(start, start + length) for start, length in pairs]
    merged = merge(stretches)
    assert all(a[1] < b[0] for a, b in pairwise(merged))
    for start, end in stretches:
        assert any(a <= start and end <= b for a, b in merged)
    edges = {edge for pair in stretches for edge in pair}
    assert all(a in edges and b in edges for a, b in merged)


def test_candidates_open_stretches_around_them_inside_their_video() -> None:
    video = Video(3, "uid", "indexed", 100.0, 200, (Path("a.mp4"),))
    grid = ClipGrid((4.0,), 0.5)
    ids = [clip_id(3, 0), clip_id(3, 1), clip_id(3, 40), clip_id(9, 0)]
    found = neighbourhoods(ids, {3: video}, grid, context_seconds=10.0)
    assert found == {3: [(0.0, 16.0), (70.0, 94.0)]}
