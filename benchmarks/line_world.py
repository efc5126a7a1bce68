"""What is said and written in the rendered world, whose truth is exact: films with signs and with a synthetic voice.

    python -m benchmarks.line_world [--films 8] [--seed 417]

Things in these colours are never drawn in training, and no weight of the search for words was fitted to these films. A
query of signs or speech asks all channels. One that needs both is ``seen: a red car said: turn left``; its sentence is
said over two scenes. An answer is right if its first moment has at least half of the truth in common (R@1 at IoU .5).
The truth of both is the time in which the sentence is said. Queries of images alone are asked of the films with words,
and of the same films without. It needs the package espeakng-loader (extra ``dev``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from benchmarks.material import BENCH, console, processor
from scanonce.library import Library
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.settings import TrackSettings
from scanonce.storage.records import Moment, Span
from scanonce.training.world.films import ground_truth, random_library, render_films
from scanonce.training.world.lines import LineLibrary, render_with_lines, scene_text, with_lines

AIMS = {"said": 0.85, "written": 0.90, "both": 0.70}
SEED = 417
_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """A query and the only moment that answers it."""

    kind: str
    query: str
    name: str
    """File name of the film."""
    span: Span


def questions(library: LineLibrary) -> Iterator[Question]:
    """Yield the queries of a library."""
    for line in library.lines:
        name, span = f"film_{line.film:03d}.mp4", Span(line.start_seconds, line.end_seconds)
        if not line.is_twin:
            yield Question(line.track, line.words, name, span)
        else:
            seen = scene_text(library.films[line.film].scenes[line.scene])
            yield Question("both", f"seen: {seen} said: {line.words}", name, span)


def image_questions(library: LineLibrary) -> list[Question]:
    """Return the queries of images."""
    truth = ground_truth(list(library.films), seed=library.seed)
    return [
        Question("images", line.query, line.path, Span(line.start_seconds, line.end_seconds))
        for line in truth
    ]


def is_right(question: Question, moments: tuple[Moment, ...]) -> bool:
    """Whether the first moment is the right one."""
    if not moments or moments[0].path.name != question.name:
        return False
    return iou(moments[0].span, question.span) >= _IOU


def iou(one: Span, other: Span) -> float:
    """Return the time that two spans have in common, of the time that either has."""
    shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    either = one.duration_seconds + other.duration_seconds - max(0.0, shared)
    return max(0.0, shared) / either if either > 0 else 0.0


def share_right(asked: list[Question], library: Library, *, show: bool) -> float:
    """Return the share of queries whose first moment is right; print the others."""
    right = 0
    for question in asked:
        moments = library.search(question.query).moments
        is_one = is_right(question, moments)
        right += is_one
        if show and not is_one:
            best = moments[0] if moments else None
            found = f"{best.path.name} {best.span}" if best else "nothing"
            console.print(
                f"{question.kind}: {question.query!r} of {question.name} {question.span}; the first is {found}",
                highlight=False,
                markup=False,
            )
    return right / len(asked)


def main(
    films: Annotated[int, typer.Option(min=2, help="Films of about 45 s.")] = 8,
    work: Annotated[Path, typer.Option(help="Folder of the films and their indexes.")] = BENCH,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
    images: Annotated[bool, typer.Option(help="Ask queries of images too.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the films, signs and voices.")] = SEED,
) -> None:
    """Print how many queries of words are answered in the rendered world."""
    console.print(f"{processor()}, {num_cores()} cores")
    specs = random_library(seed, films, held_out=True)
    world = with_lines(specs, seed=seed)
    root = work / f"line-world-{seed}-{films}"
    render_with_lines(world, root / "films", workers=workers)
    if images and not (root / "plain" / "ground_truth.jsonl").exists():
        render_films(specs, root / "plain", seed=seed, workers=workers)
    models = ModelSettings(encoder=BUNDLED_NAME)
    table = Table(title=f"{films} films with signs and speech, seed {seed}", box=None)
    for column in ("query", "number", "R@1@.5", "aim"):
        table.add_column(column, justify="left" if column == "query" else "right")
    with Library(root / "index", models=models, tracks=TrackSettings()) as library:
        library.index([root / "films"])
        library.make_tracks(["said", "written"])
        asked = list(questions(world))
        for kind, aim in AIMS.items():
            own = [each for each in asked if each.kind == kind]
            share = share_right(own, library, show=True)
            verdict = f">= {aim:.2f}: {'met' if share >= aim else 'missed'}"
            table.add_row(kind, str(len(own)), f"{share:.2f}", verdict)
    if images:
        alone = image_questions(world)
        for name, folder, index in (
            ("with words", "films", "index"),
            ("without", "plain", "plain-index"),
        ):
            with Library(root / index, models=models, tracks=TrackSettings()) as library:
                library.index([root / folder])
                share = share_right(alone, library, show=False)
            table.add_row(f"images, films {name}", str(len(alone)), f"{share:.2f}", "")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
