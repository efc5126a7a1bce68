"""The first two minutes of a newcomer: films are rendered, indexed, and sentences find moments in them."""

from pathlib import Path

from rich.console import Console

from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.search.engine import SearchEngine
from scanonce.training.bundled.gate import Question, read_questions
from scanonce.training.world.films import render_library
from scanonce.ui.commands.index import run_index
from scanonce.ui.config import Config
from scanonce.ui.contact_sheet import contact_sheet
from scanonce.ui.views import moments_table, timings_text

_SEED = 2026
_NUM_QUERIES = 6


def run_demo(folder: Path, num_films: int) -> None:
    """Renders what is not there yet, indexes what is not indexed yet, searches, and says what to type next."""
    console = Console()
    films, index_dir, sheet = folder / "films", folder / "index", folder / "found.png"
    truth = films / "ground_truth.jsonl"
    if not truth.exists() or len(list(films.glob("*.mp4"))) != num_films:
        console.print(f"[bold]1. Rendering {num_films} short films[/] into {films}")
        render_library(films, seed=_SEED, num_films=num_films)
    console.print("[bold]2. Indexing them[/]: each film is decoded and encoded once, ever")
    run_index([films], index_dir.resolve(), encoder=BUNDLED_NAME, config=Config(), console=console)
    console.print("[bold]3. Asking[/]")
    questions = _questions(read_questions(truth))
    with SearchEngine.open(index_dir) as engine:
        results = engine.search_many([question.text for question in questions], top=3)
    for result, question in zip(results, questions, strict=True):
        where = question.truth
        span = f"{where.span.start_seconds:.1f} - {where.span.end_seconds:.1f} s"
        console.print(
            f"\n[bold]“{result.query}”[/]  [dim](it is in {where.video}, {span})[/]", soft_wrap=True
        )
        console.print("no good match" if result.no_good_match else moments_table(result.moments))
        console.print(f"[dim]{timings_text(result)}[/]")
    contact_sheet(results, sheet)
    console.print(_next_steps(folder, index_dir, sheet), highlight=False)


def _questions(questions: list[Question]) -> list[Question]:
    """A few queries, each of another film, spread over the library; every third film is asked for what happens."""
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


def _next_steps(folder: Path, index_dir: Path, sheet: Path) -> str:
    return f"""
Look at [bold]{sheet}[/]: each sentence beside pictures of the moment it found.

See it in a browser:
  make ui
Ask something yourself:
  .venv/bin/scanonce search "a blue boat at sunset" --index {index_dir}
Your own videos (fetches openai/clip-vit-base-patch32 once, 600 MB; after that nothing leaves your machine):
  .venv/bin/scanonce index ~/Videos
  .venv/bin/scanonce search "a dog runs on the beach"
The bundled checkpoint of this demo knows our cartoon world only."""
