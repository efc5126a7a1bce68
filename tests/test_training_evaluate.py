"""Figures of answers: files of predictions, each benchmark's own counting, and the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.evaluate import ALL, OWN_RULES, as_json, evaluate
from scanonce.training.evaluation.metrics import Prediction, Relevant, both_directions
from scanonce.training.evaluation.predictions import Answer, read_predictions, write_predictions
from scanonce.ui.cli import app
from tests.training_kit import published

QUERIES = [
    Query("1", "a dog", (Relevant("x", Span(0, 10)),), ("v",)),
    Query("2", "a cat", (Relevant("y", Span(10, 20)),), ("vt",)),
]


def found(video: str, start: float, end: float, score: float = 0.0) -> Prediction:
    return Prediction(video, Span(start, end), score)


# ---------------------------------------------------------------- files of predictions


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_predictions_with_scores_are_sorted_and_others_keep_their_order(
    tmp_path: Path,
) -> None:
    scored = [["y", 4, 6, 0.5], ["x", 0, 2, 0.9], ["x", 1, 3, 0.5]]
    listed = [["y", 4, 6], ["x", 0, 2]]
    path = written(tmp_path, {"qid": 1, "predictions": scored}, {"qid": "2", "in_video": listed})
    answers = read_predictions(path, QUERIES)
    assert answers["1"].library == (
        found("x", 0, 2, 0.9),
        found("x", 1, 3, 0.5),
        found("y", 4, 6, 0.5),
    )
    assert answers["2"] == Answer(None, (found("y", 4, 6), found("x", 0, 2)))


def test_windows_of_qvhighlights_are_in_the_right_video_and_keep_their_order(
    tmp_path: Path,
) -> None:
    row = {
        "qid": 2,
        "pred_relevant_windows": [[0, 2, 0.1], [4, 6, 0.9]],
        "pred_saliency_scores": [0.5, -1],
    }
    answer = read_predictions(written(tmp_path, row), QUERIES)["2"]
    assert answer.in_video == (found("y", 0, 2, 0.1), found("y", 4, 6, 0.9))
    assert answer.library is None
    assert answer.saliency == (0.5, -1.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"qid": 7, "predictions": []}], r"line 1: qid 7 is of no query"),
        ([{"qid": 1, "in_video": []}, {"qid": 1, "in_video": []}], r"line 2: qid 1 was answered above"),
        ([{"qid": 1}], r"line 1: 'predictions' is missing\. Expected is {\"qid\""),
        ([{"qid": 1, "predictions": [["x", 0, 1], ["x", 0, 1, 2]]}], r"some of its predictions have a score"),
        ([{"qid": 1, "predictions": [[3, 0, 1]]}], r"begins with the name of its video, got 3"),
        ([{"qid": 1, "predictions": [["x", -2, 1]]}], r"begins at -2 s: cut predictions to their video"),
        ([{"qid": 1, "predictions": [["x", 1]]}], r"line 1: not enough values"),
        ([], r"has no predictions"),
    ],
)  # fmt: skip
def test_a_bad_line_of_predictions_is_named(
    rows: list[object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_predictions(written(tmp_path, *rows), QUERIES)


def test_written_predictions_are_read_again(tmp_path: Path) -> None:
    answers = {
        "1": Answer((found("x", 0, 2, 0.9),), (found("x", 0, 3, 0.8),)),
        "2": Answer((found("y", 1, 2, 0.7),), (found("y", 1, 4, 0.6),), saliency=(0.1, 0.2)),
    }
    write_predictions(tmp_path / "deep/out.jsonl", answers)
    assert read_predictions(tmp_path / "deep/out.jsonl", QUERIES) == answers


# ---------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("benchmark", "tiou", "hit"),
    [
        ("charades", 0.5, True),
        ("tvr", 0.5, True),
        ("ego4d", 0.5, False),
        ("activitynet", 0.5, False),
        ("mad", 0.5, False),
    ],
)
def test_a_tiou_of_exactly_the_threshold_counts_as_in_the_benchmarks_evaluator(
    benchmark: str, tiou: float, hit: bool
) -> None:
    answers = {"1": Answer((found("x", 0, 5),)), "2": Answer((found("y", 10, 15.1),))}
    figures = evaluate(benchmark, QUERIES, answers).own["SVMR"][ALL]
    assert figures[f"R@1 tIoU {tiou:g}"] == (100 if hit else 50)


def test_two_annotators_of_didemo_must_agree() -> None:
    spans = (Span(0, 5), Span(0, 10), Span(20, 25), Span(25, 30))
    query = Query("1", "a dog", tuple(Relevant("x", span) for span in spans))
    for answer, percent in ((found("x", 0, 10), 100), (found("x", 20, 25), 0)):
        evaluation = evaluate("didemo", [query], {"1": Answer((answer,))})
        assert evaluation.own["VCMR"][ALL]["R@1 tIoU 0.5"] == percent
        assert not any(name.startswith("NDCG") for name in evaluation.figures[ALL])


def test_tvr_has_three_tasks_by_kind_of_query() -> None:
    answers = {
        "1": Answer((found("x", 0, 9),), (found("x", 0, 9),)),
        "2": Answer((found("x", 10, 20), found("y", 0, 3)), (found("y", 10, 20),)),
    }
    figures = evaluate("tvr", QUERIES, answers).own
    assert list(figures) == ["VCMR", "SVMR", "VR"]
    assert list(figures["VR"]) == ["all", "v", "vt"]
    assert figures["VCMR"]["v"]["R@1 tIoU 0.7"] == 100
    assert figures["VCMR"]["vt"]["R@100 tIoU 0.5"] == 0
    assert figures["SVMR"]["vt"]["R@1 tIoU 0.7"] == 100
    assert figures["VR"]["all"] == {"R@1": 50, "R@5": 100, "R@10": 100, "R@100": 100}


def test_without_answers_with_the_video_given_those_in_the_right_video_are_used() -> None:
    answers = {"1": Answer((found("y", 0, 9), found("x", 0, 9))), "2": Answer(())}
    figures = evaluate("charades", QUERIES, answers).figures[ALL]
    assert figures["SVMR R@1 tIoU 0.5"].value == 0.5
    assert figures["VCMR R@1 tIoU 0.5"].value == 0
    assert figures["VCMR R@5 tIoU 0.5"].value == 0.5


def test_a_query_without_an_answer_is_a_miss_and_reported() -> None:
    evaluation = evaluate("tvr", QUERIES, {"1": Answer((found("x", 0, 10),))})
    assert evaluation.num_unanswered == 1
    assert evaluation.num_queries == {"all": 2, "v": 1, "vt": 1}
    assert evaluation.figures[ALL]["VR R@100"].value == 0.5
    assert evaluation.median_ranks["vt"]["VR"] == math.inf
    assert as_json(evaluation)["median_ranks"]["vt"]["VR"] is None


def test_answers_with_the_video_given_have_no_figures_of_the_library() -> None:
    evaluation = evaluate("tvr", QUERIES, {"1": Answer(None, (found("x", 0, 10),))})
    assert list(evaluation.own) == ["SVMR"]
    assert {name.split()[0] for name in evaluation.figures[ALL]} == {"SVMR"}


def test_queries_about_whole_videos_have_figures_of_the_video_alone() -> None:
    whole = [Query(str(n), "a dog", (Relevant(f"v{n}", Span(0, 0)),)) for n in range(2)]
    answers = {
        "0": Answer((found("v0", 3, 4),)),
        "1": Answer((found("v0", 3, 4), found("v1", 0, 1))),
    }
    retrieval = both_directions(np.array([[0.9, 0.1], [0.2, 0.1]]), np.arange(2))
    by_index = evaluate("msrvtt", whole, answers, retrieval=retrieval)
    assert by_index.own["text to video"][ALL] == {
        "R@1": 50,
        "R@5": 100,
        "R@10": 100,
        "MdR": 1.5,
        "MnR": 1.5,
    }
    assert by_index.own["video to text"][ALL]["R@1"] == 50
    by_list = evaluate("msrvtt", whole, answers)
    assert list(by_list.own) == ["text to video"]
    assert by_list.own["text to video"][ALL]["MnR"] == 1.5
    assert not any("CMR" in name or "SVMR" in name for name in by_list.figures[ALL])


def test_each_rule_names_its_source() -> None:
    for name, rule in OWN_RULES.items():
        assert "arXiv" in rule.source or "github.com" in rule.source, name


def test_the_official_predictions_of_qvhighlights_have_the_official_figures(tmp_path: Path) -> None:
    folder = published("qvhighlights")
    files = {
        "--annotations": folder / "highlight_val_release.jsonl",
        "--predictions": folder / "sample_val_preds.jsonl",
        "--json": tmp_path / "out.json",
    }
    options = [str(each) for option in files.items() for each in option]
    assert CliRunner().invoke(app, ["eval", "--benchmark", "qvhighlights", *options]).exit_code == 0
    expected = json.loads((folder / "sample_val_preds_metrics_raw.json").read_text())
    assert json.loads((tmp_path / "out.json").read_text())["official"] == expected


# ---------------------------------------------------------------- the command


def test_the_command_prints_tables_of_a_file_of_answers(tmp_path: Path) -> None:
    annotations = tmp_path / "charades.txt"
    annotations.write_text("x 0 10##a dog\ny 10 20##a cat\n", encoding="utf-8")
    path = written(tmp_path, {"qid": 1, "predictions": [["x", 0, 5, 1.0]]})
    arguments = ["eval", "--benchmark", "charades", "--annotations", str(annotations)]
    result = CliRunner().invoke(app, [*arguments, "--predictions", str(path)])
    assert result.exit_code == 0, result.output
    assert "Queries without an answer: 1, counted as misses" in " ".join(result.output.split())
    assert "R@1 tIoU 0.5  50.00" in result.output
    assert "TALL" in result.output


def test_the_command_refuses_options_that_exclude_each_other() -> None:
    arguments = ["eval", "--benchmark", "tvr", "--annotations", "a.jsonl"]
    for more in (["--predictions", "p", "--index", "i"], ["--videos", "folder"]):
        assert CliRunner().invoke(app, arguments + more).exit_code == 2
