"""QVHighlights' figures: the official file to every digit, and plain loops compared with vectorised code."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanonce.storage.records import Span
from scanonce.training.evaluation.qvhighlights import TIOUS, qvhighlights_figures
from tests.training_kit import published

ANNOTATION: dict[str, Any] = {
    "qid": 1,
    "duration": 12,  # six clips
    "relevant_windows": [[0, 4], [4, 12]],
    "relevant_clip_ids": [0, 1, 3],
    "saliency_scores": [[4, 2, 0], [3, 2, 0], [1, 2, 0]],
}
PREDICTION: dict[str, Any] = {
    "qid": 1,
    "pred_relevant_windows": [[2, 12, 0.1], [0, 4, 0.9]],
    "pred_saliency_scores": [0.5, 0.9, 0.1, 0.7, 0.2, 0.3],
}

spans = st.tuples(st.integers(0, 5), st.integers(1, 25)).map(lambda row: [row[0], sum(row)])
scores = st.sampled_from([0.0, 0.5, 1.0])


def test_the_sample_predictions_have_the_official_figures() -> None:
    official = published("qvhighlights")
    predictions, annotations = (
        [json.loads(line) for line in (official / name).read_text("utf-8").splitlines()]
        for name in ("sample_val_preds.jsonl", "highlight_val_release.jsonl")
    )
    figures = qvhighlights_figures(predictions[::-1], annotations)  # in any order
    expected = json.loads((official / "sample_val_preds_metrics_raw.json").read_text("utf-8"))
    assert figures == expected
    assert json.dumps(figures) == json.dumps(expected)  # the order of the fields as well


def test_a_query_by_hand() -> None:
    figures = qvhighlights_figures([PREDICTION], [ANNOTATION])
    # by score: the first right window exactly, then the second with tIoU .8
    assert figures["full"]["MR-mAP"] == {
        str(tiou): 100.0 if tiou <= 0.8 else 50.0 for tiou in TIOUS
    } | {"average": 85.0}
    # as listed: the one with tIoU .8, and exactly the threshold is a hit
    assert figures["full"]["MR-R1"] == {str(tiou): 100.0 if tiou <= 0.8 else 0.0 for tiou in TIOUS}
    assert figures["short"] == figures["full"]  # 4 and 8 s
    assert figures["middle"]["MR-mAP"]["average"] is None  # no query has such a window
    assert figures["brief"]["MR-long-mAP"] is None
    # clips by score: 1 3 0 5 4 2. Fair: 0 and 1, then 0, 1 and 3, then none
    assert figures["HL-min-Fair"] == {
        "HL-mAP": round(100 * ((1 + 2 / 3) / 2 + 1 + 0) / 3, 2),
        "HL-Hit1": 100.0,
    }
    assert figures["HL-min-VeryGood"] == {"HL-mAP": round(100 / 3 / 3, 2), "HL-Hit1": 0.0}
    assert figures["brief"]["HL-min-Good-mAP"] == figures["HL-min-Good"]["HL-mAP"]


def test_scores_of_clips_after_the_end_are_cut_off_and_missing_ones_are_zero() -> None:
    longer = PREDICTION | {"pred_saliency_scores": [*PREDICTION["pred_saliency_scores"], 0.0]}
    assert qvhighlights_figures([longer], [ANNOTATION]) == qvhighlights_figures(
        [PREDICTION], [ANNOTATION]
    )
    top_after = PREDICTION | {"pred_saliency_scores": [*PREDICTION["pred_saliency_scores"], 1.0]}
    last_is_good = ANNOTATION | {"relevant_clip_ids": [0, 1, 5]}
    assert qvhighlights_figures([top_after], [last_is_good])["HL-min-Fair"]["HL-Hit1"] == 0
    short, zeros = (
        PREDICTION | {"pred_saliency_scores": [-0.5, 0.9] + [0.0] * count} for count in (0, 4)
    )
    assert qvhighlights_figures([short], [ANNOTATION]) == qvhighlights_figures(
        [zeros], [ANNOTATION]
    )


def test_only_the_first_ten_windows_as_listed_count() -> None:
    wrong = [[100, 101, 0.1]] * 10
    late = PREDICTION | {"pred_relevant_windows": [*wrong, [0, 4, 0.9]]}
    assert qvhighlights_figures([late], [ANNOTATION])["brief"]["MR-full-mAP"] == 0


def test_parts_that_no_record_has_are_left_out_and_empty_windows_are_misses() -> None:
    moments = qvhighlights_figures([{"qid": 1, "pred_relevant_windows": []}], [ANNOTATION])
    assert list(moments) == ["brief", "full", "long", "middle", "short"]
    assert moments["brief"]["MR-full-mAP"] == moments["brief"]["MR-full-R1@0.5"] == 0
    highlights = qvhighlights_figures([{"qid": 1, "pred_saliency_scores": [1.0]}], [ANNOTATION])
    assert list(highlights) == ["brief", "HL-min-Fair", "HL-min-Good", "HL-min-VeryGood"]


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "each qid once; got 0 records"),
        ([PREDICTION, PREDICTION], "got 2 records of 1 queries"),
        ([PREDICTION | {"qid": 2}], r"1 annotated queries have no prediction record \[1\]"),
        ([PREDICTION | {"pred_relevant_windows": [[0, 4]]}], "query 1: windows need 3 finite"),
        ([PREDICTION | {"pred_relevant_windows": [[0, 4, np.nan]]}], "query 1: windows need 3"),
        ([PREDICTION | {"pred_saliency_scores": []}], "query 1: pred_saliency_scores needs"),
    ],
)
def test_records_that_cannot_be_used_are_refused(
    predictions: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        qvhighlights_figures(predictions, [ANNOTATION])


def test_annotations_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ValueError, match="query 1: 3 scores for 3 relevant clips of 3"):
        qvhighlights_figures([PREDICTION], [ANNOTATION | {"duration": 6}])
    with pytest.raises(ValueError, match="1 of 2 prediction records have 'pred_saliency_scores'"):
        qvhighlights_figures(
            [PREDICTION, {"qid": 2, "pred_relevant_windows": []}],
            [ANNOTATION, ANNOTATION | {"qid": 2}],
        )


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.lists(spans, min_size=1, max_size=4, unique_by=tuple),
            st.lists(st.tuples(spans, scores), max_size=12),
            st.lists(
                st.tuples(scores, st.tuples(*[st.integers(0, 4)] * 3)), min_size=2, max_size=7
            ),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_figures_are_those_of_plain_loops(queries: list[Any]) -> None:
    annotations, predictions = [], []
    moments, highlights = [], []
    for qid, (right, windows, clips) in enumerate(queries):
        found = [[*span, score] for span, score in windows]
        given_scores = [list(levels) for _, levels in clips]
        annotations.append(
            {
                "qid": qid,
                "duration": 2 * len(clips),
                "relevant_windows": right,
                "relevant_clip_ids": list(range(len(clips))),
                "saliency_scores": given_scores,
            }
        )
        predicted = [score for score, _ in clips]
        predictions.append(
            {"qid": qid, "pred_relevant_windows": found, "pred_saliency_scores": predicted}
        )
        moments.append([_plain_average_precision(found, right, tiou) for tiou in TIOUS])
        highlights.append(
            [
                _plain_highlight_precision(predicted, [levels[who] >= 3 for levels in given_scores])
                for who in range(3)
            ]
        )
    figures = qvhighlights_figures(predictions, annotations)
    expected = 100 * np.mean(moments, axis=0)
    found_figures = [figures["full"]["MR-mAP"][str(tiou)] for tiou in TIOUS]
    assert found_figures == pytest.approx(expected, abs=0.0051)
    assert figures["HL-min-Good"]["HL-mAP"] == pytest.approx(100 * np.mean(highlights), abs=0.0051)


def _plain_average_precision(
    found: list[list[float]], right: list[list[int]], tiou: float
) -> float:
    left = list(right)
    hits: list[bool] = []
    for start, end, _ in sorted(found[:10], key=lambda window: -window[2]):
        tious = [Span(start, end).tiou(Span(*map(float, window))) for window in left]
        best = max(reversed(range(len(left))), key=lambda number: tious[number], default=0)
        hits.append(bool(left) and tious[best] >= tiou)
        if hits[-1]:
            del left[best]
    precisions = [sum(hits[:count]) / count for count in range(1, len(hits) + 1)]
    return sum(max(precisions[rank:]) for rank, hit in enumerate(hits) if hit) / len(right)


def _plain_highlight_precision(predicted: list[float], positive: list[bool]) -> float:
    steps: dict[int, float] = {0: 0.0}  # recall, as a count, to the best precision there
    for level in sorted(set(predicted), reverse=True):
        shown = [yes for score, yes in zip(predicted, positive, strict=True) if score >= level]
        steps[sum(shown)] = max(steps.get(sum(shown), 0.0), sum(shown) / len(shown))
    best = [max(steps[later] for later in steps if later >= count) for count in steps if count]
    return float(np.mean(best)) if best else 0.0
