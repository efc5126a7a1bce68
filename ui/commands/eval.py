"""`scanonce eval`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.storage.errors import ConfigError
from scanonce.ui.commands.options import ConfigOption, IndexOption
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import count_text

if TYPE_CHECKING:
    from scanonce.models.settings import ModelSettings
    from scanonce.search.settings import SearchSettings
    from scanonce.training.evaluation.annotations import Query
    from scanonce.training.evaluation.evaluate import Evaluation

_NAMES_SHOWN = 5


def evaluate(
    benchmark: Annotated[
        str,
        typer.Option(
            help="msrvtt, qvhighlights, charades, tvr, mad, ego4d, activitynet, didemo; scanonce: a file of your own."
        ),
    ],
    annotations: Annotated[
        Path,
        typer.Option(help="Queries with their right answers, as the benchmark publishes them."),
    ],
    predictions: Annotated[
        Path | None, typer.Option(help="Evaluate the answers in this file, not an index.")
    ] = None,
    index_dir: IndexOption = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="With --predictions: only queries about videos in this folder."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
    write_predictions: Annotated[
        Path | None, typer.Option(help="Write the answers of the index to this file.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure how well queries find their moments: a benchmark's own figures and those of library search."""
    if predictions is not None and (index_dir is not None or write_predictions is not None):
        raise typer.BadParameter(
            "--predictions holds the answers: leave out --index and --write-predictions"
        )
    if videos is not None and predictions is None:
        raise typer.BadParameter("--videos goes with --predictions: an index knows its videos")
    from scanonce.training.evaluation.evaluate import json_text
    from scanonce.training.evaluation.predictions import write_text
    from scanonce.ui.config import read_config

    console = new_console()
    if predictions is not None:
        evaluation = evaluate_file(benchmark, annotations, predictions, videos)
    else:
        settings = read_config(config)
        with console.status("asking all queries"):
            evaluation = evaluate_index(
                benchmark,
                annotations,
                settings.index_path(index_dir),
                settings=settings.search,
                models=settings.models,
                write_to=write_predictions,
            )
    _show(evaluation, console)
    if json_out is not None:
        write_text(json_out, json_text(evaluation))


def evaluate_file(
    benchmark: str, annotations: Path, predictions: Path, videos: Path | None = None
) -> "Evaluation":
    """Evaluate a file of predictions.

    Args:
        benchmark: format of the annotations, and whose own figures are computed.
        annotations: the queries and their right answers.
        predictions: the answers.
        videos: evaluate only queries with a right video in this folder.

    Raises:
        ConfigError: a file cannot be read or is not valid, or no video of the annotations is in the folder.
    """
    from scanonce.training.evaluation.annotations import as_queries, match_names, read_annotations
    from scanonce.training.evaluation.evaluate import evaluate
    from scanonce.training.evaluation.predictions import read_predictions

    queries = as_queries(read_annotations(annotations, benchmark))
    asked = queries
    missing: list[str] = []
    if videos is not None:
        names = [name for query in queries for name in sorted(query.videos)]
        found, missing = match_names(names, videos)
        asked = [query for query in queries if not query.videos.isdisjoint(found)]
        _refuse_none(asked, missing, f"the folder {videos}")
    return evaluate(
        benchmark,
        asked,
        read_predictions(predictions, queries),
        num_left_out=len(queries) - len(asked),
        missing=missing,
        annotation_file=annotations,
    )


def evaluate_index(
    benchmark: str,
    annotations: Path,
    index_dir: Path,
    *,
    settings: "SearchSettings | None" = None,
    models: "ModelSettings | None" = None,
    write_to: Path | None = None,
) -> "Evaluation":
    """Ask an index all queries and evaluate its answers.

    Args:
        benchmark, annotations: see `evaluate_file`.
        index_dir: the index directory.
        settings, models: settings of the search.
        write_to: a file for the answers.

    Raises:
        ConfigError: a file cannot be read or is not valid, or no video of the annotations is in the index.
        IndexDirectoryError: there is no usable index.
    """
    from scanonce.training.evaluation.annotations import as_queries, read_annotations
    from scanonce.training.evaluation.answering import ask_index
    from scanonce.training.evaluation.evaluate import evaluate
    from scanonce.training.evaluation.predictions import write_predictions

    queries = as_queries(read_annotations(annotations, benchmark))
    answers = ask_index(
        index_dir,
        queries,
        settings=settings,
        models=models,
        with_saliency=benchmark == "qvhighlights",
    )
    asked = [query for query in queries if query.id in answers.answers]
    _refuse_none(asked, answers.missing, f"the index {index_dir}")
    if write_to is not None:
        write_predictions(write_to, answers.answers)
    return evaluate(
        benchmark,
        asked,
        answers.answers,
        num_left_out=len(queries) - len(asked),
        missing=answers.missing,
        retrieval=answers.retrieval,
        speed=answers.speed,
        annotation_file=annotations,
    )


def _refuse_none(asked: "Sequence[Query]", missing: Sequence[str], where: str) -> None:
    if not asked:
        raise ConfigError(
            f"none of the {count_text(len(missing), 'video')} of the annotations is in {where}, such as {missing[0]}. "
            "A video is known by its file's name without the ending: index the benchmark's own files"
        )


def _show(evaluation: "Evaluation", console: Console) -> None:
    """Print the tables of an evaluation, and the missing videos and answers."""
    from scanonce.training.evaluation import tables

    if evaluation.missing:
        shown = ", ".join(evaluation.missing[:_NAMES_SHOWN])
        more = len(evaluation.missing) - _NAMES_SHOWN
        console.print(
            f"[yellow]{count_text(len(evaluation.missing), 'video')} of the annotations "
            f"{'is' if len(evaluation.missing) == 1 else 'are'} not there[/]: {verbatim(shown)}"
            f"{f' and {more:,} more (--json lists all)' if more > 0 else ''}. "
            f"Queries not evaluated: {evaluation.num_left_out:,}."
        )
    if evaluation.num_unanswered:
        console.print(
            f"[yellow]Queries without an answer[/]: {evaluation.num_unanswered:,}, counted as misses."
        )
    for table in tables.own_tables(evaluation):
        console.print(table)
    if evaluation.own_source:
        console.print(f"[dim]as in {verbatim(evaluation.own_source)}[/]")
    for table in tables.library_tables(evaluation):
        console.print(table)
    if evaluation.retrieval is not None and evaluation.benchmark != "msrvtt":
        title = "text and video, by pooled frames"
        console.print(tables.retrieval_table(title, evaluation.retrieval))
    if evaluation.speed is not None:
        console.print()
        console.print(tables.speed_text(evaluation.speed), highlight=False)
