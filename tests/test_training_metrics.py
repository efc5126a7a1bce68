"""Ranks, moments and the library task: values by hand, and plain loops compared with vectorised code."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from scanonce.storage.records import Span
from scanonce.training.evaluation.metrics import (
    LibraryRule,
    Located,
    Overlap,
    Prediction,
    Relevant,
    Ties,
    agreed_tiou,
    both_directions,
    first_hits,
    in_order,
    library_figures,
    ndcg,
    pairwise_tiou,
    rank_of_right,
    ranks,
    retrieval_figures,
    score_query,
    text_to_video_ranks,
    video_to_text_ranks,
)

TRUTHS = [Located("a", Span(0, 10)), Located("b", Span(10, 20)), Located("c", Span(0, 4))]
PREDICTIONS = [
    [Located("a", Span(0, 9)), Located("a", Span(50, 60))],  # tIoU .9 at rank 1
    [Located("a", Span(10, 20)), Located("b", Span(14, 20))],  # wrong video, then .6
    [],
]

Floats = NDArray[np.float64]

few_scores = st.sampled_from([0.0, 0.5, 1.0])  # so that many are equal
small_spans = st.tuples(st.integers(0, 8), st.integers(0, 6)).map(
    lambda row: Span(row[0], sum(row))
)
located = st.builds(Located, st.sampled_from("abc"), small_spans)
relevant = st.builds(Relevant, st.sampled_from("abc"), small_spans, st.integers(0, 4))
rows_of_predictions = st.lists(located, max_size=6)


# ---------------------------------------------------------------- text-video retrieval


def test_ranks_by_hand() -> None:
    similarity = np.array([[0.9, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4], [0.7, 0.7, 0.1, 0.0]])
    right = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], np.bool_)
    # one above and two tied; the best of two right ones is second; two right ones tie at the top
    assert ranks(similarity, right).tolist() == [4, 2, 1]
    assert ranks(similarity, right, ties="middle").tolist() == [3, 2, 1]


@pytest.mark.parametrize(("ties", "rank"), [("pessimistic", 10.0), ("middle", 5.5)])
def test_with_constant_scores_every_query_has_one_rank(ties: Ties, rank: float) -> None:
    right = np.eye(10, dtype=np.bool_)
    found = ranks(np.zeros((10, 10)), right, ties=ties)
    assert found.tolist() == [rank] * 10
    assert retrieval_figures(found).recall[1].value == 0


@settings(max_examples=20)
@given(arrays(np.float64, (3, 4), elements=few_scores), arrays(np.bool_, (3, 4)))
def test_ranks_are_those_of_all_orders_of_the_tied(
    similarity: Floats, right: NDArray[np.bool_]
) -> None:
    right[~right.any(axis=1), 2] = True
    worst = ranks(similarity, right)
    middle = ranks(similarity, right, ties="middle")
    for row in range(3):
        possible = [
            next(rank for rank, item in enumerate(order, 1) if right[row, item])
            for order in permutations(range(4))
            if (np.diff(similarity[row, list(order)]) <= 0).all()
        ]
        assert worst[row] == 1 + sum(
            ~right[row] & (similarity[row] >= similarity[row, right[row]].max())
        )
        assert worst[row] >= max(possible)
        assert middle[row] == pytest.approx(np.mean(possible))


def test_many_queries_are_ranked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    similarity, right = rng.integers(0, 4, (23, 7)) / 4, np.eye(23, 7, dtype=np.bool_)
    right[7:, 3] = True
    whole = ranks(similarity, right)
    monkeypatch.setattr("scanonce.training.evaluation.metrics._AT_ONCE", 30)
    assert (ranks(similarity, right) == whole).all()
    right[20] = False
    with pytest.raises(ValueError, match="query 20 has no right item"):
        ranks(similarity, right)


def test_similarities_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="is NaN"):
        ranks(np.array([[math.nan, 1.0]]), np.array([[False, True]]))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 3\)"):
        ranks(np.zeros((2, 2)), np.ones((2, 3), np.bool_))


def test_each_caption_is_a_query_for_its_video_and_each_video_for_its_best_caption() -> None:
    video_of_text = np.array([1, 0, 1, 2])  # video 1 has two captions
    similarity = np.array([[0.1, 0.2, 0.9], [0.8, 0.7, 0.1], [0.3, 0.6, 0.2], [0.5, 0.9, 0.4]])
    assert text_to_video_ranks(similarity, video_of_text).tolist() == [2, 1, 1, 3]
    # best of each video's captions:  v0 .8 .7 .1 · v1 .3 .6 .9 · v2 .5 .9 .4
    assert video_to_text_ranks(similarity, video_of_text).tolist() == [1, 3, 2]
    figures = both_directions(similarity, video_of_text)
    assert figures.text_to_video.num_queries == 4
    assert figures.video_to_text.num_queries == 3
    assert figures.text_to_video.recall[1].value == 0.5
    assert figures.text_to_video.mean_rank == 1.75
    assert figures.text_to_video.reciprocal_rank.value == pytest.approx((0.5 + 1 + 1 + 1 / 3) / 4)
    assert figures.video_to_text.median_rank == 2
    json.dumps(asdict(figures), allow_nan=False)


def test_captions_without_a_video_and_videos_without_a_caption_are_refused() -> None:
    with pytest.raises(ValueError, match="video 1 has no caption"):
        video_to_text_ranks(np.zeros((2, 3)), np.array([0, 2]))
    with pytest.raises(ValueError, match="from 0 to 2; got 0 to 3"):
        text_to_video_ranks(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match="2 texts need as many"):
        text_to_video_ranks(np.zeros((2, 3)), np.array([0]))


def test_the_rank_of_a_list_is_that_of_its_first_right_item_and_repeats_count_once() -> None:
    assert rank_of_right(["x", "x", "y", "x", "z"], {"z", "q"}) == 3
    assert rank_of_right(["z", "z"], {"z"}) == 1
    assert rank_of_right(["x"], {"z"}) == math.inf
    assert rank_of_right([], {"z"}) == math.inf
    with pytest.raises(ValueError, match="the lowest 0"):
        retrieval_figures(np.array([0.0, 1.0]))


# ---------------------------------------------------------------- spans and hits


@settings(max_examples=40)
@given(small_spans, small_spans)
def test_tiou_is_that_of_the_spans_and_the_hull_differs_only_at_the_threshold(
    span: Span, other: Span
) -> None:
    pair = (_row(span), _row(other))
    assert pairwise_tiou(*pair)[0, 0] == pytest.approx(span.tiou(other), abs=1e-15)
    assert pairwise_tiou(*pair, overlap="hull")[0, 0] == pytest.approx(span.tiou(other), abs=1e-8)


def test_a_span_that_ends_before_it_starts_overlaps_nothing() -> None:
    assert pairwise_tiou(np.array([[6.0, 4.0]]), np.array([[0.0, 10.0]])).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("overlap", "strict", "rank"),
    [("union", False, 1), ("union", True, math.inf), ("hull", False, math.inf)],
)
def test_a_tiou_of_exactly_the_threshold_is_a_hit_or_not_by_the_rule(
    overlap: Overlap, strict: bool, rank: float
) -> None:
    rule = LibraryRule(tious=(0.5,), strict=strict, overlap=overlap)
    outcome = score_query([Located("a", Span(0, 5))], [Located("a", Span(0, 10))], rule)
    assert outcome.svmr_ranks.tolist() == outcome.vcmr_ranks.tolist() == [rank]
    assert outcome.svmr_tiou == pytest.approx(0.5)


@settings(max_examples=30)
@given(
    arrays(np.float64, (3, 4), elements=st.sampled_from([-1, 0, 0.3, 0.5, 1])), st.integers(1, 5)
)
def test_a_threshold_is_reached_with_enough_right_spans(tious: Floats, agreeing: int) -> None:
    agreed = agreed_tiou(tious, agreeing)
    for threshold in (0.0, 0.3, 0.5, 0.9):
        enough = (tious >= threshold).sum(axis=1) >= agreeing
        assert ((agreed >= threshold) == enough).all()


def test_first_hits_of_no_predictions_are_misses() -> None:
    assert first_hits(np.empty(0), (0.0, 0.5)).tolist() == [math.inf, math.inf]
    with pytest.raises(ValueError, match="1 or more right spans must agree; got 0"):
        agreed_tiou(np.zeros((1, 1)), 0)


# ---------------------------------------------------------------- moments of a library


def test_the_order_of_predictions_does_not_depend_on_their_input_order() -> None:
    ordered = [
        Prediction("b", Span(5, 6), 0.9),
        Prediction("a", Span(2, 4), 0.5),
        Prediction("a", Span(3, 4), 0.5),
        Prediction("a", Span(3, 5), 0.5),
        Prediction("c", Span(0, 1), 0.5),
    ]
    assert all(in_order(row) == ordered for row in permutations(ordered))
    with pytest.raises(ValueError, match="is NaN"):
        in_order([Prediction("a", Span(0, 1), math.nan)])


def test_library_figures_by_hand() -> None:
    rule = LibraryRule(cutoffs=(1, 2), depths=(2,), tious=(0.5, 0.7))
    outcomes = [
        score_query(row, [right], rule) for row, right in zip(PREDICTIONS, TRUTHS, strict=True)
    ]
    figures = library_figures(outcomes, rule)
    assert (figures.num_queries, figures.num_unanswered) == (3, 1)
    assert [figures.vr[k].value for k in (1, 2)] == pytest.approx([1 / 3, 2 / 3])
    # with the video given, the second query's .6 comes first
    assert [figures.svmr[t][1].value for t in rule.tious] == pytest.approx([2 / 3, 1 / 3])
    assert [figures.vcmr[0.5][k].value for k in (1, 2)] == pytest.approx([1 / 3, 2 / 3])
    assert [figures.vcmr[0.7][k].value for k in (1, 2)] == pytest.approx([1 / 3, 1 / 3])
    assert figures.ndcg[0.5][2].value == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert figures.mrr[0.5].value == pytest.approx((1 + 1 / 2) / 3)
    assert figures.median_rank == {0.5: 2, 0.7: None}
    assert figures.svmr_mean_tiou.value == pytest.approx((0.9 + 0.6) / 3)
    assert figures.vcmr_mean_tiou.value == pytest.approx(0.9 / 3)
    assert figures.vcmr[0.5][1].low < 1 / 3 < figures.vcmr[0.5][1].high
    assert json.loads(json.dumps(asdict(figures), allow_nan=False))["vcmr"]["0.5"]["2"]["value"] > 0


def test_ndcg_by_hand() -> None:
    truths = [
        Relevant("a", Span(0, 10), 3),
        Relevant("a", Span(8, 18), 1),
        Relevant("b", Span(0, 4), 2),
        Relevant("c", Span(0, 4), 0),
    ]
    predictions = [
        Located("a", Span(0, 9)),  # assigned to the moment of 3
        Located("a", Span(0, 10)),  # that one is taken, and a tIoU of .1 is too small: 0
        Located("b", Span(0, 2)),  # exactly .5 is not more than .5: 0
        Located("a", Span(8, 17)),  # assigned to the moment of 1
    ]
    rule = LibraryRule(depths=(1, 4), tious=(0.5,))
    ideal = 7 + 3 / math.log2(3) + 1 / 2
    assert ndcg(predictions, truths, rule)[0] == pytest.approx([1, (7 + 1 / math.log2(5)) / ideal])
    assert ndcg(predictions, truths[3:], rule).tolist() == [[0, 0]]
    assert ndcg([], truths, rule).tolist() == [[0, 0]]


@settings(max_examples=40)
@given(rows_of_predictions, st.lists(relevant, min_size=1, max_size=4))
def test_ndcg_is_that_of_plain_loops(predictions: list[Located], truths: list[Relevant]) -> None:
    rule = LibraryRule(depths=(1, 3, 20), tious=(0.0, 0.3, 0.5))
    expected = [
        [_plain_ndcg(predictions, truths, depth, tiou) for depth in rule.depths]
        for tiou in rule.tious
    ]
    assert ndcg(predictions, truths, rule) == pytest.approx(np.array(expected))


def _plain_ndcg(
    predictions: Sequence[Located], truths: Sequence[Relevant], depth: int, tiou: float
) -> float:
    left = sorted(truths, key=lambda truth: -truth.relevance)
    ideal = sum(
        (2**truth.relevance - 1) / math.log2(rank + 1) for rank, truth in enumerate(left[:depth], 1)
    )
    reached = 0.0
    for rank, found in enumerate(predictions[:depth], 1):
        same_video = [truth for truth in left if truth.video == found.video]
        best = max(same_video, key=lambda truth: found.span.tiou(truth.span), default=None)
        if best and found.span.tiou(best.span) > tiou:
            reached += (2**best.relevance - 1) / math.log2(rank + 1)
            left = [truth for truth in left if truth is not best]
    return reached / ideal if ideal else 0.0


@settings(max_examples=40)
@given(rows_of_predictions, st.lists(located, min_size=1, max_size=4), st.booleans())
def test_a_query_is_scored_as_by_plain_loops(
    predictions: list[Located], truths: list[Located], strict: bool
) -> None:
    for agreeing in (1, 2):
        rule = LibraryRule(tious=(0.0, 0.3, 0.5), strict=strict, agreeing=agreeing)
        outcome = score_query(predictions, truths, rule)
        videos = [truth.video for truth in truths]
        given_video = [found for found in predictions if found.video in videos]
        distinct = list(dict.fromkeys(found.video for found in predictions))
        assert outcome.answered == bool(predictions)
        assert outcome.video_rank == _plain_rank([video in videos for video in distinct])
        for row, tiou in enumerate(rule.tious):
            hits = [_plain_hit(found, truths, rule, tiou) for found in predictions]
            assert outcome.vcmr_ranks[row] == _plain_rank(hits)
            hits = [_plain_hit(found, truths, rule, tiou) for found in given_video]
            assert outcome.svmr_ranks[row] == _plain_rank(hits)


def _plain_hit(found: Located, truths: Sequence[Located], rule: LibraryRule, tiou: float) -> bool:
    tious = [found.span.tiou(truth.span) for truth in truths if truth.video == found.video]
    reached = [value > tiou if rule.strict else value >= tiou for value in tious]
    return sum(reached) >= rule.agreeing


def _plain_rank(hits: Sequence[bool]) -> float:
    return hits.index(True) + 1 if True in hits else math.inf


def test_in_a_library_of_one_video_recall_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 10, (20, 5, 1))
    spans = np.concatenate([starts, starts + rng.integers(1, 8, (20, 5, 1))], axis=2).tolist()
    rows = [[Located("a", Span(*span)) for span in row] for row in spans]
    right = [Located("a", Span(2, 7)), Located("a", Span(8, 12))]
    rule = LibraryRule(cutoffs=(1, 5), tious=(0.3, 0.5))
    figures = library_figures([score_query(row, right, rule) for row in rows], rule)
    best = [[max(found.span.tiou(truth.span) for truth in right) for found in row] for row in rows]
    for tiou, rank in product(rule.tious, rule.cutoffs):
        hits = [any(reached >= tiou for reached in row[:rank]) for row in best]
        assert figures.vcmr[tiou][rank].value == pytest.approx(sum(hits) / 20)
    assert figures.svmr == figures.vcmr
    assert figures.vcmr_mean_tiou.value == pytest.approx(sum(row[0] for row in best) / 20)
    assert figures.svmr_mean_tiou == figures.vcmr_mean_tiou


def test_no_queries_and_queries_without_a_right_moment_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        library_figures([], LibraryRule())
    for truths in ([], [Relevant("a", Span(0, 1), 0)]):
        with pytest.raises(ValueError, match="needs a right moment"):
            score_query([], truths, LibraryRule())


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]; got \(50,\)"):
        LibraryRule(tious=(50,))
    with pytest.raises(ValueError, match="must be 1 or more; got"):
        LibraryRule(cutoffs=(0,))


def _row(span: Span) -> Floats:
    return np.array([[span.start_seconds, span.end_seconds]])
