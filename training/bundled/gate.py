"""The gate: held-out figures of the whole pipeline with the bundled checkpoints, compared with recorded ones.

    python -m scanonce.training.bundled.gate            # `make eval`
    python -m scanonce.training.bundled.gate --small    # the eight films of CI
    python -m scanonce.training.bundled.gate --record   # record the present figures of both libraries

It renders films of things in colours that training never draws, indexes the mp4 files as a user does, and asks all
queries of their ground truth. It prints retrieval, moments in the right film, and the library task by kind of query.
Queries that need time ("it starts to rain") are listed separately, and among them those that ask for a direction ("to
the left"). Nothing is trained. Films are kept and used again as long as the world draws the same ones. The index is
always made from scratch, since the measurement includes making it.

It fails if a figure is below the lower end of the recorded one's 95 % interval.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from scanonce.models.encoders.hub import BUNDLED_FOLDER
from scanonce.models.runtime import num_cores
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.storage.records import Video
from scanonce.training.bundled.belief import Asked, believe, of_kinds, report_cases
from scanonce.training.bundled.cases import CaseKind
from scanonce.training.bundled.clip_model import HELD_OUT_IMAGES, held_out_top1
from scanonce.training.bundled.compounds import Compounds, measure_compounds
from scanonce.training.bundled.questions import (
    FULL,
    KINDS,
    NUM_ANSWERS,
    SMALL,
    Kind,
    Question,
    Sampling,
    ask,
    index_films,
    read_questions,
)
from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.answering import ask_index, pooled_retrieval
from scanonce.training.evaluation.belief import (
    accepted,
    calibration_error,
    refused,
    separation,
)
from scanonce.training.evaluation.evaluate import ALL, Evaluation, evaluate
from scanonce.training.evaluation.intervals import Figure
from scanonce.training.evaluation.metrics import (
    BothDirections,
    LibraryFigures,
    LibraryRule,
    Relevant,
    library_figures,
    score_query,
)
from scanonce.training.evaluation.tables import library_tables, retrieval_table, speed_text
from scanonce.training.world.films import Library, ensure_rendered

LOCALISERS: tuple[Literal["clips", "training-free", "auto"], ...] = (
    "clips",
    "training-free",
    "auto",
)
"""Settings of ``search.localiser`` that are compared."""

_ANSWERED: dict[str, tuple[CaseKind, ...]] = {
    "words and phrases": ("word", "phrase"),
    "sentences": ("sentence",),
    "sentences in time": ("sentence in time",),
}
"""Kinds of queries about things that are there, by the name of their figure."""

RECORDED = Path(__file__).with_name("recorded.json")
"""Figures of both libraries, with the command that wrote them."""

GATED = (
    "VR R@1", "VR R@5", "SVMR R@1 tIoU 0.5", "SVMR R@1 tIoU 0.7", "SVMR mIoU", "VCMR R@1 tIoU 0.3",
    "VCMR R@1 tIoU 0.5", "VCMR R@1 tIoU 0.7", "VCMR R@5 tIoU 0.5", "VCMR R@10 tIoU 0.5", "NDCG@10 tIoU 0.5",
    "NDCG@20 tIoU 0.5", "MRR tIoU 0.5",
)  # fmt: skip
"""Figures of `training.evaluation.evaluate` that are recorded, for each kind of query."""

TIOUS = (0.3, 0.5, 0.7)
_RULE = LibraryRule(cutoffs=(1, 5, NUM_ANSWERS), depths=(NUM_ANSWERS,), tious=TIOUS)
_COMMAND = "python -m scanonce.training.bundled.gate --record"
_WILSON_Z = 1.96  # of a 95 % interval
_TIMED = 200  # queries that are timed one by one
_ROUNDING = 1e-4  # recorded figures have four digits
_FIGURE = re.compile(r"\[([^][]*)\]")  # of the JSON file: value, low, high


# ---------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of the gate."""

    evaluation: Evaluation
    """Library task and moments by kind of query; latency and size if they were measured."""
    scenes: BothDirections
    """Retrieval of scenes, each by its pooled frames, with captions that need no time."""
    asked: Sequence[Asked]
    """Words, phrases, sentences and things that are never drawn, with the belief in each first moment."""
    compounds: Compounds
    """Queries of several parts."""

    @property
    def figures(self) -> dict[str, Figure]:
        """All recorded figures by name; higher is better."""
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
        compounds = {f"compound: {name}": each for name, each in self.compounds.figures.items()}
        return figures | self.beliefs | compounds

    @property
    def beliefs(self) -> dict[str, Figure]:
        """Figures of the beliefs; higher is better."""
        everything = [each.belief for each in self.asked]
        answered = {
            name: _rest(refused([each for each in of_kinds(self.asked, *kinds) if each.is_present]))
            for name, kinds in _ANSWERED.items()
        }
        return {
            **{f"belief: {name} answered": figure for name, figure in answered.items()},
            "belief: never drawn refused": _rest(accepted(of_kinds(self.asked, "never drawn"))),
            "belief: 1 - calibration error": _rest(calibration_error(everything)),
            "belief: ROC area": separation(everything),
        }

    def num_queries(self, name: str) -> int:
        """Return the number of queries behind the figure of this name."""
        kind = name.partition(":")[0]
        if kind == "scenes":
            directions = (self.scenes.text_to_video, self.scenes.video_to_text)
            return directions["video to text" in name].num_queries
        if kind == "belief":
            return len(self.asked)
        if kind == "compound":
            return self.compounds.num_queries[name.removeprefix("compound: ")]
        return self.evaluation.num_queries[kind]


def measure(
    index_dir: Path,
    library: Library,
    questions: Sequence[Question],
    *,
    timed: int = 0,
    with_compounds: bool = True,
) -> Measured:
    """Measure the figures of an index of held-out films, with its own localiser.

    Args:
        index_dir: index made by `index_films`.
        library: the films of the index.
        questions: all queries of the films.
        timed: queries that are timed one by one; 0: none.
        with_compounds: ask queries of several parts too, which takes as long as all others.
    """
    queries = [as_query(number, question) for number, question in enumerate(questions)]
    asked = ask_index(index_dir, queries, timed=timed)
    evaluation = evaluate("scanonce", queries, asked.answers, speed=asked.speed)
    films = library.films()
    return Measured(
        evaluation,
        scene_retrieval(index_dir, questions, asked.videos),
        believe(index_dir, films, report_cases(films, seed=library.seed)),
        measure_compounds(index_dir, films, seed=library.seed)
        if with_compounds
        else Compounds({}, {}),
    )


def as_query(number: int, question: Question) -> Query:
    """Return a question as a query of an evaluation, in which a film has the name of its file without extension."""
    truth = question.truth
    right = Relevant(Path(truth.video).stem, truth.span)
    return Query(str(number), question.text, (right,), question.kinds)


def scene_retrieval(
    index_dir: Path, questions: Sequence[Question], videos: Mapping[str, Video]
) -> BothDirections:
    """Retrieval of scenes, each cut out of its film like the videos of benchmarks, with captions that need no time.

    Args:
        index_dir: index made by `index_films`.
        questions: all queries of the films.
        videos: films of the index by their file names without extension.
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


def evaluate_library(
    index_dir: Path, questions: list[Question], settings: SearchSettings | None = None
) -> dict[Kind, LibraryFigures]:
    """Return figures of an indexed library by kind of query; kinds without a query are left out."""
    with SearchEngine.open(index_dir, settings=settings) as engine:
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


def _rest(figure: Figure) -> Figure:
    """Return 1 minus a figure, for figures that are better if they are lower."""
    return Figure(1 - figure.value, 1 - figure.high, 1 - figure.low)


# ---------------------------------------------------------------- recorded figures


def find_shortfalls(figures: Mapping[str, Figure], recorded: Mapping[str, Figure]) -> list[str]:
    """Describe the figures below the lower ends of the recorded intervals; empty if there are none."""
    problems = []
    for name, before in recorded.items():
        now = figures.get(name)
        was = f"recorded is {before.value:.3f} ({before.low:.3f} to {before.high:.3f})"
        if now is None:
            problems.append(f"{name}: not measured; {was}")
        elif now.value < before.low - _ROUNDING:
            problems.append(f"{name}: {now.value:.3f}; {was}")
    return problems


def read_recorded(library: Library, path: Path = RECORDED) -> dict[str, Figure]:
    """Return the recorded figures of a library by name; empty if none are recorded."""
    if not path.exists():
        return {}
    figures = json.loads(path.read_text(encoding="utf-8")).get(library.name, {}).get("figures", {})
    return {name: Figure(*values) for name, values in figures.items()}


def record(library: Library, measured: Measured, path: Path = RECORDED) -> None:
    """Write figures as the recorded ones of a library."""
    content: dict[str, Any] = {}
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
    figures = {
        name: widen_interval(figure, measured.num_queries(name))
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


def widen_interval(figure: Figure, num_queries: int) -> Figure:
    """Return the figure with Wilson's interval (1927) if all queries have the same outcome.

    A bootstrap of hits alone has no misses, so its interval has no width, and one miss would make the gate fail.
    """
    if figure.low < figure.high:
        return figure
    spread = _WILSON_Z**2 / num_queries
    centre = (figure.value + spread / 2) / (1 + spread)
    variance = figure.value * (1 - figure.value) / num_queries + spread / (4 * num_queries)
    reach = _WILSON_Z * math.sqrt(variance) / (1 + spread)
    return replace(figure, low=centre - reach, high=centre + reach)


# ---------------------------------------------------------------- the command


def main(
    small: Annotated[bool, typer.Option("--small", help="Only the eight films of CI.")] = False,
    record_figures: Annotated[
        bool, typer.Option("--record", help="Record the measured figures.")
    ] = False,
    keyframes: Annotated[
        bool, typer.Option("--keyframes", help="Also index by key frames.")
    ] = False,
    keep: Annotated[Path, typer.Option(help="Folder of films and indexes; reused.")] = Path(
        "bench/held-out"
    ),
) -> None:
    """Print the held-out figures of the bundled checkpoints and compare them with the recorded ones."""
    console = Console(width=160)
    libraries = [SMALL] if small else [SMALL, FULL] if record_figures else [FULL]
    failed = False
    for library in libraries:
        truth = ensure_rendered(library, keep, workers=num_cores())
        questions = read_questions(truth)
        index_dir = _fresh_index(truth, "uniform", console)
        measured = measure(index_dir, library, questions, timed=_TIMED)
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


def _fresh_index(truth: Path, sampling: Sampling, console: Console) -> Path:
    index_dir = truth.parents[1] / f"index-{sampling}"
    shutil.rmtree(index_dir, ignore_errors=True)
    begin = time.perf_counter()
    index_films(truth.parent, index_dir, sampling=sampling)
    console.print(f"indexed in {time.perf_counter() - begin:.0f} s: {index_dir}")
    return index_dir


def _show(library: Library, measured: Measured, console: Console) -> None:
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
        "\n"
        + ", ".join(f"{name}: {figure.value:.3f}" for name, figure in measured.beliefs.items()),
        highlight=False,
    )
    compounds = measured.compounds
    console.print(
        "queries of several parts: "
        + ", ".join(
            f"{name}: {each.value:.3f} (n = {compounds.num_queries[name]})"
            for name, each in compounds.figures.items()
        ),
        highlight=False,
    )
    if evaluation.speed is not None:
        console.print(speed_text(evaluation.speed), highlight=False)


def _compare(library: Library, measured: Measured, console: Console) -> bool:
    """Print the comparison with the recorded figures; returns whether there are no shortfalls."""
    recorded = read_recorded(library)
    if not recorded:
        console.print(f"[red]nothing is recorded in {RECORDED}[/]: run {_COMMAND}")
        return False
    problems = find_shortfalls(measured.figures, recorded)
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
        f"Find the change that made it worse. If it is intended: {_COMMAND}, and note it in the changelog."
    )
    return False


def _show_localisers(
    truth: Path, questions: list[Question], keyframes: bool, console: Console
) -> None:
    """Print the figures of each localiser, and of the encoder alone."""
    top1 = held_out_top1(BUNDLED_FOLDER, num_images=HELD_OUT_IMAGES, seed=FULL.seed)
    console.print(
        f"\ncaption -> frame, exact attributes, top 1 of {HELD_OUT_IMAGES} held-out images: {top1:.3f}"
    )
    if keyframes:
        _fresh_index(truth, "keyframes", console)
    samplings: list[Sampling] = ["uniform", "keyframes"]
    for sampling in samplings if keyframes else samplings[:1]:
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


def _table(sampling: str) -> Table:
    table = Table(title=f"query -> (film, span), {sampling}", box=None)
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
            f"{figures.vcmr[0.5][NUM_ANSWERS].value:.3f}",
            f"{figures.vcmr_mean_tiou.value:.3f}",
        )


if __name__ == "__main__":
    typer.run(main)
