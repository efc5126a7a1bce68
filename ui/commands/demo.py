"""`scanonce demo`: render films, index them, find moments in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.ui.commands.index import run_index
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import good_text, moments_table, timings_text

if TYPE_CHECKING:
    from scanonce.library import Library
    from scanonce.training.bundled.questions import Question

_SEED = 2026
_NUM_QUERIES = 6
_MOST_PROPOSED = 64
"""Questions that are tried for the proposal at the end."""


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder of the demo.")] = Path("demo"),
    num_films: Annotated[
        int, typer.Option("--films", min=1, max=200, help="Films to render.")
    ] = 12,
) -> None:
    """Render a few films, index them, and find moments in them. A second run starts with the search."""
    from scanonce.models.encoders.hub import BUNDLED_NAME
    from scanonce.training.bundled.questions import read_questions
    from scanonce.training.world.films import render_library
    from scanonce.ui.config import Config
    from scanonce.ui.contact_sheet import contact_sheet

    console = new_console()
    films, index_dir, sheet = folder / "films", folder / "index", folder / "found.png"
    truth = films / "ground_truth.jsonl"
    if not truth.exists() or len(list(films.glob("*.mp4"))) != num_films:
        console.print(f"[bold]1. Rendering {num_films} short films[/] into {verbatim(films)}")
        render_library(films, seed=_SEED, num_films=num_films)
    console.print("[bold]2. Indexing them[/]: each film is decoded and encoded once, ever")
    with Config().library(index_dir) as library:
        run_index(library, [films], encoder=BUNDLED_NAME)
        console.print("[bold]3. Searching[/]")
        known = read_questions(truth)
        questions = _choose(known)
        results = library.search_many([question.text for question in questions], top=3)
        proposal = propose(library, known, questions)
    for result, question in zip(results, questions, strict=True):
        true = question.truth
        span = f"{true.span.start_seconds:.1f} - {true.span.end_seconds:.1f} s"
        console.print(
            f"\n[bold]“{verbatim(result.query)}”[/]  [dim](it is in {verbatim(true.video)}, {span})[/]",
            soft_wrap=True,
        )
        console.print(good_text(result.moments), highlight=False)
        console.print(moments_table(result.moments))
        console.print(f"[dim]{timings_text(result)}[/]")
    contact_sheet(results, sheet)
    console.print(_next_steps(index_dir, sheet, proposal), highlight=False, soft_wrap=True)


def _choose(questions: "list[Question]") -> "list[Question]":
    """Choose a few questions, each about a different film; every third is about an event, if possible."""
    chosen = []
    for number, film in enumerate(sorted({question.truth.video for question in questions})):
        of_film = [question for question in questions if question.truth.video == film]
        timely = [question for question in of_film if question.needs_time]
        if number % 3 == 1 and timely:
            chosen.append(max(timely, key=lambda question: len(question.text)))
        else:
            plain = [question for question in of_film if not question.needs_time] or of_film
            chosen.append(plain[number % len(plain)])
    return chosen[:: max(1, len(chosen) // _NUM_QUERIES)][:_NUM_QUERIES]


def propose(
    library: "Library", questions: "Sequence[Question]", shown: "Sequence[Question]"
) -> str:
    """Return the shortest question with a strong match in the right film; if there is none, the surest one.

    Questions that a single frame answers are preferred: they are the simpler sentences.

    Args:
        library: an index of the films.
        questions: one at least.
        shown: those that the demo has just answered; they are proposed only if no other has a good match.
    """
    from scanonce.search.grades import GOOD, STRONG

    simple = [each for each in questions if not each.needs_time] or questions
    asked = simple[:_MOST_PROPOSED]
    results = library.search_many([each.text for each in asked], top=1)

    def merit(k: int) -> tuple[bool, bool, float, int]:
        question, moments = asked[k], results[k].moments
        if not moments:
            return False, False, 0.0, 0
        probability = moments[0].probability
        is_right = moments[0].path.name == question.truth.video and probability >= GOOD
        return is_right, question not in shown, min(probability, STRONG), -len(question.text)

    return asked[max(range(len(asked)), key=merit)].text


def _next_steps(index_dir: Path, sheet: Path, proposal: str) -> str:
    return f"""
Open [bold]{verbatim(sheet)}[/]: each query next to frames of the moment it found.

See it in a browser:
  make ui
Search for something yourself:
  .venv/bin/scanonce search "{verbatim(proposal)}" --index {verbatim(index_dir)}
Your own videos (fetches openai/clip-vit-base-patch32 once, 600 MB; after that nothing leaves your machine):
  .venv/bin/scanonce index ~/Videos
  .venv/bin/scanonce search "a dog runs on the beach"
The bundled checkpoint of this demo knows our cartoon world only."""
