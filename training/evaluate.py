"""The held-out figures of the whole pipeline: films rendered, decoded, indexed and searched.

    python -m training.evaluate --films 40

renders films of things in colours that training never drew, indexes the mp4 files as a user would, asks every query
of their ground truth, and prints the table, a row for each way of finding moments: the clips as they are, the
training-free localiser, the bundled SOONet. Queries that need time ("it starts to rain") are listed apart, and of
those the ones that ask for a direction ("to the left").
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
from models.localiser import choose_localiser
from search.engine import SearchEngine
from search.settings import SearchSettings
from storage.layout import IndexLayout
from storage.records import Span
from storage.settings import StorageSettings
from training.metrics import Located, bootstrap_interval, mean_tiou, recall_at
from training.train_clip import held_out_top1
from training.world import render_library

LOCALISERS: tuple[Literal["clips", "training-free", "auto"], ...] = (
    "clips",
    "training-free",
    "auto",
)
"""Settings of ``search.localiser`` that are compared."""

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


Kind = Literal["need no time", "need time", "left or right"]
KINDS: tuple[Kind, ...] = ("need no time", "need time", "left or right")
TIOUS = (0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its one right answer."""

    text: str
    truth: Located
    needs_time: bool

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What it asks for, the wider kind first."""
        if not self.needs_time:
            return ("need no time",)
        asks_direction = not {"left", "right"}.isdisjoint(self.text.split())
        return ("need time", "left or right") if asks_direction else ("need time",)


@dataclass(frozen=True, slots=True)
class LibraryScore:
    """Figures of one kind of queries; all in [0, 1]."""

    num_queries: int
    film_r1: float
    r1: dict[float, float]
    """Recall at rank 1 by tIoU threshold."""
    r5: dict[float, float]
    """Recall at rank 5 likewise."""
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
    """Indexes rendered films with the bundled encoder and localiser, by the pipeline users have."""
    encoder, settings = (
        load_encoder(BUNDLED_NAME, towers="vision"),
        IndexerSettings(sampling=sampling),
    )
    report = index_library(
        [films],
        layout=IndexLayout(index_dir),
        encoder=encoder,
        settings=settings,
        storage=StorageSettings(),
        localiser=choose_localiser(
            "auto",
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            sampling=sampling,
            fps=settings.sample_fps,
        ),
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
        r1={tiou: recall_at(1, tiou, predictions, truths) for tiou in TIOUS},
        r5={tiou: recall_at(5, tiou, predictions, truths) for tiou in TIOUS},
        r10=recall_at(10, 0.5, predictions, truths),
        mean_tiou=mean_tiou(predictions, truths),
        r1_interval=bootstrap_interval(hits),
    )


def evaluate_library(
    index_dir: Path, questions: list[Question], settings: SearchSettings | None = None
) -> dict[Kind, LibraryScore]:
    """Figures of an indexed library by kind of query; kinds without a query are left out.

    The engine's cut-off is switched off for these: they measure finding, `refusals` measures refusing.
    """
    base = settings or SearchSettings()
    with SearchEngine.open(index_dir, settings=base.model_copy(update={"cutoff": 0.0})) as engine:
        predictions = ask(engine, [question.text for question in questions])
    scores: dict[Kind, LibraryScore] = {}
    for kind in KINDS:
        rows = [k for k, question in enumerate(questions) if kind in question.kinds]
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
    console = Console(width=160)
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
            table = _table(sampling)
            for localiser in LOCALISERS:
                settings = SearchSettings(localiser=localiser)
                with SearchEngine.open(index_dir, settings=settings) as engine:
                    name = engine.localiser.name
                if localiser == "auto" and name == "training-free":
                    continue  # no trained localiser fits this sampling
                _add_rows(table, name, evaluate_library(index_dir, questions, settings))
            console.print(table)
        index_dir = folder / "index-uniform"
        present = [question.text for question in questions if not question.needs_time]
        timely = [question.text for question in questions if question.needs_time]
        console.print(
            f'"no good match" for {refusals(index_dir, present):.1%} of {len(present)} queries that have an answer, '
            f"for {refusals(index_dir, timely):.1%} of {len(timely)} that have one and need time, "
            f"for {refusals(index_dir, ABSENT_QUERIES):.0%} of {len(ABSENT_QUERIES)} that have none"
        )


def _table(sampling: str) -> Table:
    table = Table(title=f"sentence -> (film, span), {sampling}", box=None)
    figures = [f"R@{rank} {tiou:g}".replace("0.", ".") for rank in (1, 5) for tiou in TIOUS]
    figures[1] += " (95 %)"
    for column in ("queries", "moments by"):
        table.add_column(column)
    for column in ("n", "film R@1", *figures, "R@10 .5", "mIoU"):
        table.add_column(column, justify="right")
    return table


def _add_rows(table: Table, name: str, scores: dict[Kind, LibraryScore]) -> None:
    for kind, figures in scores.items():
        low, high = figures.r1_interval
        cells = [f"{value:.3f}" for value in (*figures.r1.values(), *figures.r5.values())]
        cells[1] += f" ({low:.2f}-{high:.2f})"
        table.add_row(
            kind,
            name,
            str(figures.num_queries),
            f"{figures.film_r1:.3f}",
            *cells,
            f"{figures.r10:.3f}",
            f"{figures.mean_tiou:.3f}",
        )


if __name__ == "__main__":
    typer.run(main)
