"""From retrieved clips to the stretches around them."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scanonce.search.retrieve import merge, stretches_around
from scanonce.storage.records import Span, Video


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=20))
def test_merged_stretches_cover_the_same_and_keep_apart(pairs: list[tuple[float, float]]) -> None:
    stretches = [(start, start + length) for start, length in pairs]
    merged = merge(stretches)
    assert all(a[1] < b[0] for a, b in pairwise(merged))
    for start, end in stretches:
        assert any(a <= start and end <= b for a, b in merged)
    edges = {edge for pair in stretches for edge in pair}
    assert all(a in edges and b in edges for a, b in merged)


def test_stretches_are_around_the_found_spans_and_inside_their_video() -> None:
    videos = {
        number: Video(number, "uid", "indexed", 100.0, 200, (Path("a.mp4"),)) for number in (3, 9)
    }
    found = [
        (9, Span(50, 54)),
        (3, Span(0, 4)),
        (3, Span(2, 6)),
        (3, Span(80, 84)),
        (9, Span(98, 100)),
    ]
    stretches = stretches_around(found, videos, context_seconds=10.0)
    assert stretches == {9: ((40.0, 64.0), (88.0, 100.0)), 3: ((0.0, 16.0), (70.0, 94.0))}
    assert list(stretches) == [9, 3]
