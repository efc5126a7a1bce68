"""Recall of moments over a library, against values worked out by hand."""

import pytest

from storage.records import Span
from training.metrics import Located, bootstrap_interval, mean_tiou, recall_at

TRUTHS = [Located("a", Span(0, 10)), Located("b", Span(10, 20)), Located("c", Span(0, 4))]
PREDICTIONS = [
    [Located("a", Span(0, 9)), Located("a", Span(50, 60))],  # tIoU .9 at rank 1
    [Located("a", Span(10, 20)), Located("b", Span(14, 20))],  # wrong video, then .6
    [],
]


@pytest.mark.parametrize(
    ("rank", "tiou", "share"),
    [(1, 0.5, 1 / 3), (1, 0.95, 0), (2, 0.5, 2 / 3), (2, 0.7, 1 / 3), (1, 0, 1 / 3)],
)
def test_recall_counts_queries_with_a_hit_among_the_first(
    rank: int, tiou: float, share: float
) -> None:
    assert recall_at(rank, tiou, PREDICTIONS, TRUTHS) == pytest.approx(share)


def test_the_threshold_itself_is_a_hit() -> None:
    assert recall_at(1, 0.9, PREDICTIONS[:1], TRUTHS[:1]) == 1


def test_the_right_span_in_another_video_is_no_hit_even_without_threshold() -> None:
    assert recall_at(1, 0.0, PREDICTIONS[1:2], TRUTHS[1:2]) == 0


def test_mean_tiou_counts_the_first_prediction_only() -> None:
    assert mean_tiou(PREDICTIONS, TRUTHS) == pytest.approx(0.9 / 3)


def test_no_queries_or_too_few_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        recall_at(1, 0.5, [], [])
    with pytest.raises(ValueError, match="got 3 and 2"):
        mean_tiou(PREDICTIONS, TRUTHS[:2])


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    few, many = bootstrap_interval([1, 0] * 10), bootstrap_interval([1, 0] * 1000)
    assert few[0] < 0.5 < few[1]
    assert many[0] < 0.5 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    assert bootstrap_interval([1, 1, 1]) == (1, 1)
