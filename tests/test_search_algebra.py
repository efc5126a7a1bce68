"""The algebra of moments, against definitions written out as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.search.algebra import (
    Found,
    Presence,
    overlaid,
    sequence,
    together,
    union,
    weighed,
    without,
)
from scanonce.storage.records import Span


def found(video: int, start: float, end: float, probability: float = 0.9) -> Found:
    return Found(video, Span(start, end), probability)


_FOUND = st.builds(
    lambda video, start, length, p: found(video, start / 2, (start + length) / 2, p / 20),
    st.integers(1, 2), st.integers(0, 60), st.integers(1, 20), st.integers(1, 19),
)  # fmt: skip
_MANY = st.lists(_FOUND, max_size=12)


@given(_MANY, _MANY, st.sampled_from([0.0, 3.0, 30.0]))
def test_a_sequence_is_the_best_leader_of_each_follower(
    first: list[Found], second: list[Found], within: float
) -> None:
    def slack(span: Span) -> float:
        return min(1.0, span.duration_seconds / 4)

    def precedes(a: Found, b: Found) -> bool:
        pause = b.span.start_seconds + slack(b.span) - (a.span.end_seconds - slack(a.span))
        return a.video_id == b.video_id and 0 <= pause <= within

    expected = sorted(
        max(leaders) * b.probability
        for b in second
        if (leaders := [a.probability for a in first if precedes(a, b)])
    )
    joined = sequence(first, second, within_seconds=within)
    assert sorted(each.probability for each in joined) == pytest.approx(expected)
    probabilities = [each.probability for each in joined]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_sequence_spans_both_and_keeps_their_order() -> None:
    a, b = found(1, 0, 10, 0.8), found(1, 12, 20, 0.5)
    assert sequence([a], [b], within_seconds=5) == [Found(1, Span(0, 20), 0.4)]
    assert sequence([b], [a], within_seconds=60) == []
    assert sequence([a], [found(2, 12, 20)], within_seconds=60) == []
    assert sequence([a], [b], within_seconds=0.5) == []
    # edges are known to a sampling step
    assert sequence([a], [found(1, 9, 20)], within_seconds=5)
    assert not sequence([a], [found(1, 5, 20)], within_seconds=5)


@given(_MANY, _MANY)
def test_together_does_not_depend_on_the_order(first: list[Found], second: list[Found]) -> None:
    def key(each: Found) -> tuple[int, Span, float]:
        return each.video_id, each.span, each.probability

    one, other = together(first, second), together(second, first)
    assert sorted(map(key, one)) == sorted(map(key, other))
    for each in one:
        assert each.span.duration_seconds > 0
        assert any(
            a.span.start_seconds <= each.span.start_seconds
            and each.span.end_seconds <= a.span.end_seconds
            for a in first
        )


def test_together_is_the_time_of_both() -> None:
    a, b = found(1, 0, 10, 0.8), found(1, 4, 30, 0.5)
    assert together([a], [b]) == [Found(1, Span(4, 10), 0.4)]
    assert together([a], [found(1, 9, 30)]) == []
    assert together([a], [found(2, 0, 10)]) == []


@given(_MANY, _MANY)
def test_a_union_keeps_the_best_and_nothing_twice(first: list[Found], second: list[Found]) -> None:
    kept = union([first, second], overlap=0.3)
    assert set(kept) <= {*first, *second}
    assert [each.probability for each in kept] == sorted(
        (each.probability for each in kept), reverse=True
    )
    best = max((each.probability for each in (*first, *second)), default=None)
    assert (kept[0].probability if kept else None) == best
    assert union([kept], overlap=0.3) == kept


def presence(*values: float) -> Presence:
    return Presence(np.arange(len(values) + 1.0), np.array(values))


def test_what_is_unwanted_is_cut_out() -> None:
    moment = found(1, 0, 6, 0.8)
    whole = without(moment, presence(0.1, 0.1, 0.1, 0.2, 0.1, 0.1))
    assert whole == Found(1, Span(0, 6), 0.8 * 0.8)
    cut = without(moment, presence(0.9, 0.9, 0.1, 0.1, 0.2, 0.9))
    assert cut == Found(1, Span(2, 5), 0.8 * 0.8)
    assert without(moment, presence(0.9, 0.9, 0.5, 0.6, 0.9, 0.9)) is None
    assert without(found(1, 0, 0.4), Presence(np.array([0.0, 0.4]), np.array([0.2]))) is not None


@given(st.floats(0.001, 0.999), st.floats(0.1, 10))
def test_a_weight_multiplies_log_odds(probability: float, weight: float) -> None:
    def log_odds(p: float) -> float:
        return float(np.log(p) - np.log1p(-p))

    result = weighed(probability, weight)
    assert 0 <= result <= 1
    if 1e-6 < result < 1 - 1e-6:
        assert log_odds(result) == pytest.approx(weight * log_odds(probability), rel=1e-3, abs=1e-6)


def test_a_presence_rises_to_the_moments_over_it() -> None:
    raised = overlaid(presence(0.1, 0.8, 0.1), [found(1, 0.4, 2.4, 0.5), found(1, 2.6, 9, 0.9)])
    assert raised.probabilities.tolist() == [0.5, 0.8, 0.1]
