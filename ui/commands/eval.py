"""What the `eval` command does: answers of an index, or of a file, become tables and JSON."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from scanonce.models.settings import ModelSettings
from scanonce.search.settings import SearchSettings
from scanonce.storage.errors import ConfigError
from scanonce.training.evaluation.annotations import (
    Query,
    as_queries,
    match_names,
    read_annotations,
)
from scanonce.training.evaluation.answering import ask_index
from scanonce.training.evaluation.evaluate import Evaluation, evaluate, json_text
from scanonce.training.evaluation.predictions import read_predictions, write_predictions, write_text
from scanonce.training.evaluation.tables import (
    library_tables,
    own_tables,
    retrieval_table,
    speed_text,
)
from scanonce.ui.views import count_text

_NAMES_SHOWN = 5


def run_eval(
    benchmark: str,
    annotation_file: Path,
    *,
    index_dir: Path | None = None,
    predictions: Path | None = None,
    videos: Path | None = None,
    json_out: Path | None = None,
    predictions_out: Path | None = None,
    settings: SearchSettings | None = None,
    models: ModelSettings | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Evaluates an index, or a file of predictions, and prints its tables.

    Args:
        benchmark: whose form the annotations have, and whose own figures are printed.
        annotation_file: the sentences and their right answers.
        index_dir: the index that is asked; either this or ``predictions``.
        predictions: a file of answers.
        videos: with ``predictions``: only queries whose video lies in this folder count.
        json_out: where everything is written as JSON.
        predictions_out: where the index's answers are written.
        settings, models: how the index is searched.
        console: where to print.

    Raises:
        ConfigError: a file cannot be read or is not what it should be, or no video of the annotations is there.
        IndexDirectoryError: there is no usable index.
    """
    console = console or Console()
    queries = as_queries(read_annotations(annotation_file, benchmark))
    file = annotation_file if benchmark == "qvhighlights" else None
    if predictions is not None:
        there, missing = _there(queries, videos)
        answers = read_predictions(predictions, queries)
        evaluation = evaluate(
            benchmark,
            there,
            answers,
            num_left_out=len(queries) - len(there),
            missing=missing,
            annotation_file=file,
        )
    else:
        assert index_dir is not None, "an index or predictions are evaluated"
        with console.status(f"asking {count_text(len(queries), 'query')}"):
            asked = ask_index(
                index_dir,
                queries,
                settings=settings,
                models=models,
                with_saliency=benchmark == "qvhighlights",
            )
        there = [query for query in queries if query.id in asked.answers]
        _refuse_none(there, asked.missing, f"the index {index_dir}")
        evaluation = evaluate(
            benchmark,
            there,
            asked.answers,
            num_left_out=len(queries) - len(there),
            missing=asked.missing,
            retrieval=asked.retrieval,
            speed=asked.speed,
            annotation_file=file,
        )
        if predictions_out is not None:
            write_predictions(predictions_out, asked.answers)
    show_evaluation(evaluation, console)
    if json_out is not None:
        write_text(json_out, json_text(evaluation))
    return evaluation


def show_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Prints the tables of an evaluation, and what was not there."""
    if evaluation.missing:
        shown = ", ".join(evaluation.missing[:_NAMES_SHOWN])
        more = len(evaluation.missing) - _NAMES_SHOWN
        console.print(
            f"[yellow]{count_text(len(evaluation.missing), 'video')} of the annotations "
            f"{'is' if len(evaluation.missing) == 1 else 'are'} not there[/]: {escape(shown)}"
            f"{f' and {more:,} more (--json lists all)' if more > 0 else ''}. "
            f"{count_text(evaluation.num_left_out, 'sentence')} not evaluated."
        )
    if evaluation.num_unanswered:
        console.print(
            f"[yellow]{count_text(evaluation.num_unanswered, 'sentence')} without an answer[/]: counted as a miss."
        )
    for table in own_tables(evaluation):
        console.print(table)
    if evaluation.own_source:
        console.print(f"[dim]as in {evaluation.own_source}[/]")
    for table in library_tables(evaluation):
        console.print(table)
    if evaluation.retrieval is not None and evaluation.benchmark != "msrvtt":
        console.print(retrieval_table("sentence and video, by pooled frames", evaluation.retrieval))
    if evaluation.speed is not None:
        console.print()
        console.print(speed_text(evaluation.speed), highlight=False)


def _there(queries: list[Query], videos: Path | None) -> tuple[list[Query], list[str]]:
    """The queries with a right video in a folder, and the names of videos that are not in it."""
    if videos is None:
        return queries, []
    names = [name for query in queries for name in sorted(query.videos)]
    found, missing = match_names(names, videos)
    there = [query for query in queries if not query.videos.isdisjoint(found)]
    _refuse_none(there, missing, f"the folder {videos}")
    return there, missing


def _refuse_none(there: list[Query], missing: tuple[str, ...] | list[str], where: str) -> None:
    if not there:
        raise ConfigError(
            f"none of the {count_text(len(missing), 'video')} of the annotations is in {where}, such as {missing[0]}. "
            "A video is known by its file's name without the ending: index the benchmark's own files"
        )
