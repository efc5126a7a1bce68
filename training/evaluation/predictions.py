"""Files of answers, one line of JSON per query.

    {"qid": "12", "predictions": [["film_a", 3.5, 9.0, 0.41], ...], "in_video": [["film_b", 2.0, 4.0, 0.3], ...]}

``predictions`` are answers from the whole library: video, start and end in seconds, score. ``in_video`` are answers
with the correct video given; without them, the ``predictions`` in the correct video are used instead. Lists with scores
are sorted by score, ties by video and start; lists without scores keep their order.

QVHighlights' own form is read too (``pred_relevant_windows`` [start, end, score], ``pred_saliency_scores``): there the
video is always given, and windows keep their order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.metrics import Prediction, in_order
from scanonce.training.evaluation.rows import Row, jsonl_rows, opening, reading, seconds_of

MOST_PREDICTIONS = 100
"""Predictions of a query that count; TVR's limit, and the deepest rank that any benchmark uses."""

_EXPECTED = '{"qid": ..., "predictions": [["video", start, end, score], ...]}'
_EXPECTED_WINDOWS = '{"qid": ..., "pred_relevant_windows": [[start, end, score], ...]}'


@dataclass(frozen=True, slots=True)
class Answer:
    """A system's answers to one query; lists are best first."""

    library: tuple[Prediction, ...] | None = None
    """Answers from the whole library; None if the system was only asked with the video given."""
    in_video: tuple[Prediction, ...] | None = None
    """Answers with the correct video given; None if the system was not asked so."""
    saliency: tuple[float, ...] = ()
    """QVHighlights: score of each 2 s of the correct video, from its start."""


def read_predictions(path: Path, queries: Iterable[Query]) -> dict[str, Answer]:
    """Return the answers of a file, by the id of their query.

    Args:
        path: JSON Lines in one of the forms above.
        queries: queries that may be answered. In QVHighlights' form windows are in the query's correct video.

    Raises:
        ConfigError: the file cannot be read, or a line has another form or belongs to no query.
    """
    by_id = {query.id: query for query in queries}
    answers: dict[str, Answer] = {}
    with opening(path, "the predictions"):
        for line, row in jsonl_rows(path):
            windows = "pred_relevant_windows" in row
            with reading(path, f"line {line}", _EXPECTED_WINDOWS if windows else _EXPECTED):
                identifier = str(row["qid"])
                if identifier not in by_id:
                    raise ValueError(f"qid {identifier} is of no query of the annotations")
                if identifier in answers:
                    raise ValueError(f"qid {identifier} was answered above")
                if windows:
                    answers[identifier] = _from_windows(row, min(by_id[identifier].videos))
                else:
                    answers[identifier] = _from_row(row)
    if not answers:
        raise ConfigError(f"{path} has no predictions. Expected is one line per query: {_EXPECTED}")
    return answers


def write_predictions(path: Path, answers: Mapping[str, Answer]) -> None:
    """Write a file for `read_predictions`; answers with saliency also for QVHighlights' own evaluator.

    Raises:
        ConfigError: the file cannot be written.
    """
    lines = [json.dumps(_row(identifier, answer)) for identifier, answer in answers.items()]
    content = "".join(f"{line}\n" for line in lines)
    write_text(path, content)


def write_text(path: Path, content: str) -> None:
    """Write a text file; raises ConfigError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): name another file"
        ) from error


def windows_record(qid: int | str, answer: Answer) -> dict[str, Any]:
    """Return an answer in the form of QVHighlights' own evaluator, without query and vid, which it ignores."""
    return {
        "qid": qid,
        "pred_relevant_windows": [
            [found.span.start_seconds, found.span.end_seconds, found.score]
            for found in answer.in_video or ()
        ],
        "pred_saliency_scores": list(answer.saliency),
    }


def _row(identifier: str, answer: Answer) -> dict[str, Any]:
    qid = _number_or_text(identifier)
    row: dict[str, Any] = {"qid": qid}
    if answer.library is not None:
        row["predictions"] = _quadruples(answer.library)
    if answer.saliency:
        return row | windows_record(qid, answer)
    if answer.in_video is not None:
        row["in_video"] = _quadruples(answer.in_video)
    return row


def _quadruples(predictions: Iterable[Prediction]) -> list[tuple[str, float, float, float]]:
    return [
        (found.video, found.span.start_seconds, found.span.end_seconds, found.score)
        for found in predictions
    ]


def _number_or_text(identifier: str) -> int | str:
    """Return an id as the benchmark has it: most are numbers."""
    return (
        int(identifier)
        if identifier.isdecimal() and str(int(identifier)) == identifier
        else identifier
    )


def _from_row(row: Row) -> Answer:
    if "predictions" not in row and "in_video" not in row:
        raise KeyError("predictions")
    library, in_video = (
        _ordered(row[name]) if name in row else None for name in ("predictions", "in_video")
    )
    return Answer(library, in_video)


def _from_windows(row: Row, video: str) -> Answer:
    windows = tuple(
        Prediction(video, _predicted_span(start, end), seconds_of(score))
        for start, end, score in row["pred_relevant_windows"]
    )
    library = _ordered(row["predictions"]) if "predictions" in row else None
    return Answer(library, windows, tuple(map(float, row.get("pred_saliency_scores", ()))))


def _ordered(entries: Sequence[Sequence[object]]) -> tuple[Prediction, ...]:
    with_score = {len(entry) >= 4 for entry in entries}
    if len(with_score) > 1:
        raise ValueError("some of its predictions have a score and others have none")
    predictions = [_prediction(entry) for entry in entries]
    if with_score == {True}:
        predictions = in_order(predictions)
    return tuple(predictions[:MOST_PREDICTIONS])


def _prediction(entry: Sequence[object]) -> Prediction:
    video, start, end, *score = entry
    if not isinstance(video, str):
        raise TypeError(f"a prediction begins with the name of its video, got {video!r}")
    return Prediction(video, _predicted_span(start, end), seconds_of(score[0]) if score else 0.0)


def _predicted_span(start: object, end: object) -> Span:
    """Return a span; an empty one, which hits nothing, if the prediction ends before it begins."""
    first, last = seconds_of(start), seconds_of(end)
    if first < 0:
        raise ValueError(
            f"a prediction begins at {first:g} s: cut predictions to their video, from 0 to its end"
        )
    return Span(first, max(first, last))
