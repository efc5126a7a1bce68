"""The held-out figures of the whole pipeline: films rendered, decoded, indexed and searched.

    python -m training.evaluate --films 40

renders films of things in colours that training never drew, indexes the mp4 files as a user would, asks every query
of their ground truth, and prints the table. Queries that need time ("it starts to rain") are listed apart.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from indexer.pipeline import index_library
from indexer.settings import IndexerSettings
from models.encoder import BUNDLED_FOLDER, BUNDLED_NAME, load_encoder
from search.engine import SearchEngine
from search.settings import SearchSettings
from storage.layout import IndexLayout
from storage.records import Span
from storage.settings import StorageSettings
from training.metrics import Located, bootstrap_interval, mean_tiou, recall_at
from training.train_clip import held_out_top1
from training.world import render_library

ABSENT_QUERIES = (
    "a quarterly report on a desk",
    "an elephant in a kitchen",
    "people playing the violin",
    "a plate of spaghetti",
    "a doctor with a stethoscope",
    "a knight fighting a dragon",
    "a cup of coffee and a newspaper",
    "a football match in a stadium",
    "a woman typing on a laptop",
    "a bicycle leaning against a wall",
)
"""Things that the rendered world does not have: the right answer is "no good match"."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its one right answer."""

    text: str
    truth: Located
    needs_time: bool


@dataclass(frozen=True, slots=True)
class LibraryScore:
    """Figures of one kind of queries; all in [0, 1]."""

    num_queries: int
    film_r1: float
    r1: dict[float, float]
    """Recall at rank 1 by tIoU threshold."""
    r10: float
    """Recall at rank 10, tIoU 0.5."""
    mean_tiou: float
    r1_interval: tuple[float, float]
    """95 % bootstrap interval of recall at rank 1, tIoU 0.5."""


def read_questions(ground_truth: Path) -> list[Question]:
    """The queries of a rendered library, from its ``ground_truth.jsonl``."""
    questions = []
    for line in ground_truth.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        span = Span(values["start_seconds"], values["end_seconds"])
        questions.append(
            Question(values["query"], Located(values["path"], span), values["needs_time"])
        )
    return questions


def index_films(
    films: Path, index_dir: Path, *, sampling: Literal["uniform", "keyframes"] = "uniform"
) -> None:
    """Indexes rendered films with the bundled encoder, by the pipeline users have."""
    report = index_library(
        [films],
        layout=IndexLayout(index_dir),
        encoder=load_encoder(BUNDLED_NAME, towers="vision"),
        settings=IndexerSettings(sampling=sampling),
        storage=StorageSettings(),
    )
    if report.problems:
        raise RuntimeError(f"rendered films must index without a problem: {report.problems}")


def ask(engine: SearchEngine, texts: Sequence[str]) -> list[list[Located]]:
    """The ten first answers to each text, by file name."""
    return [
        [Located(moment.path.name, moment.span) for moment in result.moments]
        for result in engine.search_many(texts, top=10)
    ]


def score(predictions: list[list[Located]], truths: list[Located]) -> LibraryScore:
    """The figures of some queries."""
    hits = [
        recall_at(1, 0.5, [row], [truth]) for row, truth in zip(predictions, truths, strict=True)
    ]
    return LibraryScore(
        num_queries=len(truths),
        film_r1=recall_at(1, 0.0, predictions, truths),
        r1={tiou: recall_at(1, tiou, predictions, truths) for tiou in (0.3, 0.5, 0.7)},
        r10=recall_at(10, 0.5, predictions, truths),
        mean_tiou=mean_tiou(predictions, truths),
        r1_interval=bootstrap_interval(hits),
    )


def evaluate_library(
    index_dir: Path, questions: list[Question], settings: SearchSettings | None = None
) -> dict[bool, LibraryScore]:
    """Figures of an indexed library, by whether the queries need time.

    The engine's cut-off is switched off for these: they measure finding, `false_refusals` measures refusing.
    """
    base = settings or SearchSettings()
    with SearchEngine.open(index_dir, settings=base.model_copy(update={"cutoff": 0.0})) as engine:
        predictions = ask(engine, [question.text for question in questions])
    scores = {}
    for kind in (False, True):
        rows = [k for k, question in enumerate(questions) if question.needs_time == kind]
        if rows:
            scores[kind] = score([predictions[k] for k in rows], [questions[k].truth for k in rows])
    return scores


def refusals(
    index_dir: Path, texts: Sequence[str], settings: SearchSettings | None = None
) -> float:
    """Share of queries answered with "no good match"."""
    with SearchEngine.open(index_dir, settings=settings) as engine:
        results = engine.search_many(texts)
    return sum(result.no_good_match for result in results) / len(results)


def main(
    films: Annotated[int, typer.Option(min=1, help="Held-out films to render.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the films.")] = 1,
    pictures: Annotated[int, typer.Option(help="Held-out pictures for caption -> frame.")] = 400,
    keyframes: Annotated[
        bool, typer.Option("--keyframes", help="Also index by key frames.")
    ] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for films and index; reused.")] = None,
) -> None:
    """Print the held-out figures of the bundled checkpoint and the whole pipeline."""
    console = Console()
    top1 = held_out_top1(BUNDLED_FOLDER, num_pictures=pictures, seed=seed)
    console.print(
        f"caption -> frame, exact attributes, top 1 of {pictures} held-out pictures: {top1:.3f}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        truth = folder / "films" / "ground_truth.jsonl"
        if not truth.exists():
            render_library(folder / "films", seed=seed, num_films=films, held_out=True)
        questions = read_questions(truth)
        modes: list[Literal["uniform", "keyframes"]] = (
            ["uniform", "keyframes"] if keyframes else ["uniform"]
        )
        for sampling in modes:
            index_dir = folder / f"index-{sampling}"
            index_films(folder / "films", index_dir, sampling=sampling)
            console.print(_table(sampling, evaluate_library(index_dir, questions)))
        index_dir = folder / "index-uniform"
        present = [question.text for question in questions if not question.needs_time]
        console.print(
            f'"no good match" for {refusals(index_dir, present):.1%} of {len(present)} queries that have an answer, '
            f"for {refusals(index_dir, ABSENT_QUERIES):.0%} of {len(ABSENT_QUERIES)} that have none"
        )


def _table(sampling: str, scores: dict[bool, LibraryScore]) -> Table:
    table = Table(title=f"sentence -> (film, span), {sampling}", box=None)
    columns = ("queries", "n", "film R@1", "R@1 .3", "R@1 .5 (95 %)", "R@1 .7", "R@10 .5", "mIoU")
    for column in columns:
        table.add_column(column, justify="left" if column == "queries" else "right")
    for needs_time, figures in scores.items():
        low, high = figures.r1_interval
        table.add_row(
            "need time" if needs_time else "need no time",
            str(figures.num_queries),
            f"{figures.film_r1:.3f}",
            f"{figures.r1[0.3]:.3f}",
            f"{figures.r1[0.5]:.3f} ({low:.2f}-{high:.2f})",
            f"{figures.r1[0.7]:.3f}",
            f"{figures.r10:.3f}",
            f"{figures.mean_tiou:.3f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
