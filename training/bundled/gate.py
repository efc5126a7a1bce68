"""The gate: held-out figures of the whole pipeline with the bundled checkpoints, against recorded ones.

    python -m scanonce.training.bundled.gate            # what `make eval` runs
    python -m scanonce.training.bundled.gate --small    # the eight films that CI looks at
    python -m scanonce.training.bundled.gate --record   # take what both give from now on as recorded

renders films of things in colours that training never drew, indexes the mp4 files as a user would, asks every query
of their ground truth, and prints retrieval, moments in the right film, and the library task by kind of query. Queries
that need time ("it starts to rain") are listed apart, and of those the ones that ask for a direction ("to the left").
Nothing is trained. Films are kept and used again as long as the world draws the same ones; the index is always made
anew, since making it is a part of what is measured.

It fails where a figure lies below the recorded one by more than that one's 95 % interval reaches down.
"""

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.hub import BUNDLED_FOLDER, BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.runtime import num_cores
from scanonce.models.soonet.trained import choose_localiser
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span, Video
from scanonce.storage.settings import StorageSettings
from scanonce.training.bundled.clip import held_out_top1
from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.answering import ask_index, pooled_retrieval
from scanonce.training.evaluation.evaluate import ALL, Evaluation, evaluate
from scanonce.training.evaluation.intervals import Figure, mean_figures
from scanonce.training.evaluation.metrics import (
    BothDirections,
    LibraryFigures,
    LibraryRule,
    Located,
    Relevant,
    library_figures,
    score_query,
)
from scanonce.training.evaluation.tables import library_tables, retrieval_table, speed_text
from scanonce.training.world.drawing import Painter
from scanonce.training.world.films import (
    film_pictures,
    ground_truth,
    random_library,
    render_library,
)
from scanonce.training.world.scene import FILM_SIZE

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
_ANSWERS = 10  # to each text
_RULE = LibraryRule(cutoffs=(1, 5, _ANSWERS), depths=(_ANSWERS,), tious=TIOUS)


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
    films: Path,
    index_dir: Path,
    *,
    encoder_name: str = BUNDLED_NAME,
    sampling: Literal["uniform", "keyframes"] = "uniform",
) -> None:
    """Indexes rendered films by the pipeline users have, with the localiser that fits the encoder, if one does."""
    encoder = load_encoder(encoder_name, towers="vision")
    settings = IndexerSettings(sampling=sampling)
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
        for result in engine.search_many(texts, top=_ANSWERS)
    ]


def evaluate_library(
    index_dir: Path, questions: list[Question], settings: SearchSettings | None = None
) -> dict[Kind, LibraryFigures]:
    """Figures of an indexed library by kind of query; kinds without a query are left out.

    The engine's cut-off is switched off for these: they measure finding, `refusals` measures refusing.
    """
    base = settings or SearchSettings()
    with SearchEngine.open(index_dir, settings=base.model_copy(update={"cutoff": 0.0})) as engine:
        predictions = ask(engine, [question.text for question in questions])
    outcomes = [
        score_query(row, [question.truth], _RULE)
        for row, question in zip(predictions, questions, strict=True)
    ]
    figures: dict[Kind, LibraryFigures] = {}
    for kind in KINDS:
        of_kind = [outcomes[k] for k, question in enumerate(questions) if kind in question.kinds]
        if of_kind:
            figures[kind] = library_figures(of_kind, _RULE)
    return figures


def refusals(
    index_dir: Path, texts: Sequence[str], settings: SearchSettings | None = None
) -> float:
    """Share of queries answered with "no good match"."""
    return float(np.mean(refused(index_dir, texts, settings)))


def refused(
    index_dir: Path, texts: Sequence[str], settings: SearchSettings | None = None
) -> list[bool]:
    """Whether each query is answered with "no good match"."""
    with SearchEngine.open(index_dir, settings=settings) as engine:
        return [result.no_good_match for result in engine.search_many(texts)]


# ---------------------------------------------------------------- the gate


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A library of rendered films that training never drew."""

    name: Literal["full", "small"]
    seed: int
    num_films: int


FULL = HeldOut("full", seed=1, num_films=40)
SMALL = HeldOut("small", seed=11, num_films=8)
"""The one that CI looks at."""

RECORDED = Path(__file__).with_name("recorded.json")
"""Figures of both libraries, with the command that wrote them."""

GATED = (
    "VR R@1", "VR R@5", "SVMR R@1 tIoU 0.5", "SVMR R@1 tIoU 0.7", "SVMR mIoU", "VCMR R@1 tIoU 0.3",
    "VCMR R@1 tIoU 0.5", "VCMR R@1 tIoU 0.7", "VCMR R@5 tIoU 0.5", "VCMR R@10 tIoU 0.5", "NDCG@10 tIoU 0.5",
    "NDCG@20 tIoU 0.5", "MRR tIoU 0.5",
)  # fmt: skip
"""Figures of `training.evaluation.evaluate` that are recorded, for each kind of query."""

_COMMAND = "python -m scanonce.training.bundled.gate --record"
_WILSON_Z = 1.96  # of a 95 % interval
_PICTURES = 400  # for caption -> frame
_TIMED = 200  # queries asked one by one
_ROUNDING = 1e-4  # recorded figures have four digits
_FIGURE = re.compile(r"\[([^][]*)\]")  # of the JSON file: value, low, high
_KEPT = Path(__file__).parents[1] / "bench" / "held-out"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the gate looks at."""

    evaluation: Evaluation
    """Library task and moments by kind of query; latency and size where they were measured."""
    scenes: BothDirections
    """Captions that need no time, and the scenes they are about, each by its pooled frames."""
    refused: Figure
    """Share of "no good match" for what the library does not have."""
    answered: Figure
    """Share of queries that need no time, and do get an answer."""

    @property
    def figures(self) -> dict[str, Figure]:
        """Everything that is recorded, by name; higher is better."""
        figures = {
            f"{kind}: {name}": of_kind[name]
            for kind, of_kind in self.evaluation.figures.items()
            for name in GATED
        }
        directions = {
            "text to video": self.scenes.text_to_video,
            "video to text": self.scenes.video_to_text,
        }
        for direction, each in directions.items():
            for cutoff in (1, 5):
                figures[f"scenes: {direction} R@{cutoff}"] = each.recall[cutoff]
        return figures | {
            "what is not there: no good match": self.refused,
            "what is there: some match": self.answered,
        }

    def num_queries(self, name: str) -> int:
        """Behind the figure of a name."""
        kind = name.partition(":")[0]
        if kind == "scenes":
            directions = (self.scenes.text_to_video, self.scenes.video_to_text)
            return directions["video to text" in name].num_queries
        if kind == "what is not there":
            return len(ABSENT_QUERIES)
        counts = self.evaluation.num_queries
        return counts["need no time"] if kind == "what is there" else counts[kind]


def measure(index_dir: Path, questions: Sequence[Question], *, timed: int = 0) -> Measured:
    """The figures of an index of held-out films, with its own localiser.

    Args:
        index_dir: made by `index_films`.
        questions: all queries of the films.
        timed: queries that are asked one by one for their time; 0: none.
    """
    queries = [as_query(number, question) for number, question in enumerate(questions)]
    asked = ask_index(index_dir, queries, timed=timed)
    evaluation = evaluate("scanonce", queries, asked.answers, speed=asked.speed)
    present = [question.text for question in questions if not question.needs_time]
    refusing = refused(index_dir, [*ABSENT_QUERIES, *present])
    return Measured(
        evaluation,
        scene_retrieval(index_dir, questions, asked.videos),
        refused=_share(refusing[: len(ABSENT_QUERIES)]),
        answered=_share([not none for none in refusing[len(ABSENT_QUERIES) :]]),
    )


def as_query(number: int, question: Question) -> Query:
    """A question as evaluation has it; a film's name there is that of its file without the ending."""
    truth = question.truth
    right = Relevant(Path(truth.video).stem, truth.span)
    return Query(str(number), question.text, (right,), question.kinds)


def scene_retrieval(
    index_dir: Path, questions: Sequence[Question], videos: Mapping[str, Video]
) -> BothDirections:
    """Captions that need no time against scenes, each cut out of its film as benchmarks cut their videos.

    Args:
        index_dir: made by `index_films`.
        questions: all queries of the films.
        videos: the films in the index, by their names without the ending.
    """
    plain = [question for question in questions if not question.needs_time]
    scenes = list(dict.fromkeys(question.truth for question in plain))
    number_of = {scene: number for number, scene in enumerate(scenes)}
    return pooled_retrieval(
        index_dir,
        [question.text for question in plain],
        [(videos[Path(scene.video).stem], scene.span) for scene in scenes],
        [number_of[question.truth] for question in plain],
    )


def shortfalls(figures: Mapping[str, Figure], recorded: Mapping[str, Figure]) -> list[str]:
    """Figures that lie below the recorded ones by more than their intervals reach down, in words; [] at best."""
    problems = []
    for name, before in recorded.items():
        now = figures.get(name)
        was = f"recorded is {before.value:.3f} ({before.low:.3f} to {before.high:.3f})"
        if now is None:
            problems.append(f"{name}: not measured; {was}")
        elif now.value < before.low - _ROUNDING:
            problems.append(f"{name}: {now.value:.3f}; {was}")
    return problems


def read_recorded(library: HeldOut, path: Path = RECORDED) -> dict[str, Figure]:
    """The recorded figures of a library, by name; empty where none are recorded."""
    if not path.exists():
        return {}
    figures = json.loads(path.read_text(encoding="utf-8")).get(library.name, {}).get("figures", {})
    return {name: Figure(*values) for name, values in figures.items()}


def record(library: HeldOut, measured: Measured, path: Path = RECORDED) -> None:
    """Takes figures as the recorded ones of a library from now on."""
    content: dict[str, Any] = {}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    figures = {
        name: with_width(figure, measured.num_queries(name))
        for name, figure in measured.figures.items()
    }
    content[library.name] = {
        "command": _COMMAND,
        "seed": library.seed,
        "films": library.num_films,
        "queries": measured.evaluation.num_queries,
        "figures": {
            name: [round(each, 4) for each in (figure.value, figure.low, figure.high)]
            for name, figure in figures.items()
        },
    }
    text = json.dumps(content, indent=1)
    one_line = _FIGURE.sub(lambda figure: f"[{' '.join(figure[1].split())}]", text)
    path.write_text(one_line + "\n", encoding="utf-8")


def with_width(figure: Figure, num_queries: int) -> Figure:
    """The figure with an interval that also has a width where all queries came to the same: Wilson's (1927) then.

    Drawn again and again from hits alone, a bootstrap finds nothing but hits, and the next miss would be a failure.
    """
    if figure.low < figure.high:
        return figure
    spread = _WILSON_Z**2 / num_queries
    centre = (figure.value + spread / 2) / (1 + spread)
    variance = figure.value * (1 - figure.value) / num_queries + spread / (4 * num_queries)
    reach = _WILSON_Z * math.sqrt(variance) / (1 + spread)
    return replace(figure, low=centre - reach, high=centre + reach)


def rendered(library: HeldOut, folder: Path) -> Path:
    """The ground truth of a library's films below a folder; they are rendered where what lies there is not the same."""
    films = folder / f"{library.name}-{_drawn(library)}" / "films"
    truth = films / "ground_truth.jsonl"  # written last
    if not truth.exists():
        render_library(
            films,
            seed=library.seed,
            num_films=library.num_films,
            held_out=True,
            workers=num_cores(),
        )
    return truth


def _drawn(library: HeldOut) -> str:
    """Digest of what the world draws for a library: all its words and times, and one picture of each film."""
    films = random_library(library.seed, library.num_films, held_out=True)
    digest = hashlib.blake2b(digest_size=6)
    for line in ground_truth(films, seed=library.seed):
        digest.update(json.dumps(asdict(line)).encode())
    painter = Painter(FILM_SIZE, keep_backdrops=8)
    for film in films:
        for picture in film_pictures(film, [film.first_frames[-1] // 2], painter=painter):
            digest.update(picture.tobytes())
    return digest.hexdigest()


def _share(hits: Sequence[bool]) -> Figure:
    return mean_figures(np.array(hits, np.float64)[:, None])[0]


# ---------------------------------------------------------------- the command


def main(
    small: Annotated[
        bool, typer.Option("--small", help="Only the eight films that CI looks at.")
    ] = False,
    record_figures: Annotated[
        bool,
        typer.Option("--record", help="Take what is measured as the recorded figures from now on."),
    ] = False,
    keyframes: Annotated[
        bool, typer.Option("--keyframes", help="Also index by key frames.")
    ] = False,
    keep: Annotated[
        Path,
        typer.Option(help="Folder of films and indexes; reused.", show_default="bench/held-out"),
    ] = _KEPT,
) -> None:
    """Print the held-out figures of the bundled checkpoints and compare them with the recorded ones."""
    console = Console(width=160)
    libraries = [SMALL] if small else [SMALL, FULL] if record_figures else [FULL]
    failed = False
    for library in libraries:
        truth = rendered(library, keep)
        questions = read_questions(truth)
        index_dir = _fresh_index(truth, "uniform", console)
        measured = measure(index_dir, questions, timed=_TIMED)
        _show(library, measured, console)
        if record_figures:
            record(library, measured)
            console.print(f"recorded in {RECORDED}")
        else:
            failed |= not _compare(library, measured, console)
    if not small:
        _show_localisers(truth, questions, keyframes, console)
    if failed:
        raise typer.Exit(1)


def _fresh_index(truth: Path, sampling: Literal["uniform", "keyframes"], console: Console) -> Path:
    index_dir = truth.parents[1] / f"index-{sampling}"
    shutil.rmtree(index_dir, ignore_errors=True)
    begin = time.perf_counter()
    index_films(truth.parent, index_dir, sampling=sampling)
    console.print(f"indexed in {time.perf_counter() - begin:.0f} s: {index_dir}")
    return index_dir


def _show(library: HeldOut, measured: Measured, console: Console) -> None:
    evaluation = measured.evaluation
    console.print(
        f"\n{library.num_films} films of seed {library.seed}, {evaluation.num_queries[ALL]} queries, "
        "bundled checkpoints",
        style="bold",
    )
    title = (
        "retrieval: captions that need no time, and scenes cut out of their films, by pooled frames"
    )
    console.print(retrieval_table(title, measured.scenes))
    for table in library_tables(evaluation):
        console.print(table)
    console.print(
        f'\n"no good match" for {measured.refused.value:.0%} of {len(ABSENT_QUERIES)} queries about what is not there; '
        f"some match for {measured.answered.value:.1%} of {evaluation.num_queries['need no time']} that need no time"
    )
    if evaluation.speed is not None:
        console.print(speed_text(evaluation.speed), highlight=False)


def _compare(library: HeldOut, measured: Measured, console: Console) -> bool:
    """Whether nothing fell behind what is recorded."""
    recorded = read_recorded(library)
    if not recorded:
        console.print(f"[red]nothing is recorded in {RECORDED}[/]: run {_COMMAND}")
        return False
    problems = shortfalls(measured.figures, recorded)
    if not problems:
        console.print(
            f"[green]none of {len(recorded)} figures fell below its recorded value by more than its interval[/]"
        )
        return True
    console.print(
        f"[red]{len(problems)} of {len(recorded)} figures fell below the recorded ones by more than their intervals[/]:"
    )
    for problem in problems:
        console.print(f"  {problem}", highlight=False)
    console.print(
        f"Find out which change made it worse. If that is meant: {_COMMAND}, and say so in the changelog."
    )
    return False


def _show_localisers(
    truth: Path, questions: list[Question], keyframes: bool, console: Console
) -> None:
    """What the ways of finding moments come to, and the encoder by itself."""
    top1 = held_out_top1(BUNDLED_FOLDER, num_pictures=_PICTURES, seed=FULL.seed)
    console.print(
        f"\ncaption -> frame, exact attributes, top 1 of {_PICTURES} held-out pictures: {top1:.3f}"
    )
    if keyframes:
        _fresh_index(truth, "keyframes", console)
    modes: list[Literal["uniform", "keyframes"]] = ["uniform", "keyframes"]
    for sampling in modes if keyframes else modes[:1]:
        index_dir = truth.parents[1] / f"index-{sampling}"
        table = _table(sampling)
        for localiser in LOCALISERS:
            settings = SearchSettings(localiser=localiser)
            with SearchEngine.open(index_dir, settings=settings) as engine:
                name = engine.localiser.name
            if localiser == "auto" and name == "training-free":
                continue  # no trained localiser fits this sampling
            _add_rows(table, name, evaluate_library(index_dir, questions, settings))
        console.print(table)
    timely = [question.text for question in questions if question.needs_time]
    share = refusals(truth.parents[1] / "index-uniform", timely)
    console.print(f'"no good match" for {share:.1%} of {len(timely)} queries that need time')


def _table(sampling: str) -> Table:
    table = Table(title=f"sentence -> (film, span), {sampling}", box=None)
    figures = [f"R@{rank} {tiou:g}".replace("0.", ".") for rank in (1, 5) for tiou in TIOUS]
    figures[1] += " (95 %)"
    for column in ("queries", "moments by"):
        table.add_column(column)
    for column in ("n", "film R@1", *figures, "R@10 .5", "mIoU"):
        table.add_column(column, justify="right")
    return table


def _add_rows(table: Table, name: str, by_kind: dict[Kind, LibraryFigures]) -> None:
    for kind, figures in by_kind.items():
        cells = [f"{figures.vcmr[tiou][rank].value:.3f}" for rank in (1, 5) for tiou in TIOUS]
        at_half = figures.vcmr[0.5][1]
        cells[1] += f" ({at_half.low:.2f}-{at_half.high:.2f})"
        table.add_row(
            kind,
            name,
            str(figures.num_queries),
            f"{figures.vr[1].value:.3f}",
            *cells,
            f"{figures.vcmr[0.5][_ANSWERS].value:.3f}",
            f"{figures.vcmr_mean_tiou.value:.3f}",
        )


if __name__ == "__main__":
    typer.run(main)
