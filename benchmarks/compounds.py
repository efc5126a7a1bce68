"""Queries of several parts, by images and with feedback: how well they find, and what they cost.

    python -m benchmarks.compounds              # the held-out films of the gate
    python -m benchmarks.compounds --fit        # films in colours of the training, to choose constants by
    python -m benchmarks.compounds --second-try # only answers before and after feedback
    python -m benchmarks.compounds --costs      # only what queries and saved searches cost

Films and index are kept and used again (`bench/held-out`). The cost of a query of several parts is the ratio of its
time to the sum of the times of its parts asked alone, in one run. That of 100 saved searches is their share of the time
in which a new film is indexed.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.material import BENCH, console, percentile
from scanonce.library import Library
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.search.engine import SearchEngine
from scanonce.search.standing import Standing
from scanonce.training.bundled.compounds import Compounds, measure_compounds, measure_second_try
from scanonce.training.bundled.questions import FULL, index_films, read_questions
from scanonce.training.world.films import Library as World
from scanonce.training.world.films import ensure_rendered

TO_FIT = World("compounds-fit", seed=23, num_films=30, held_out=False)
"""Films of which no figure is reported."""

AIM_COST = 1.3
AIM_SAVED_SHARE = 0.05
_NUM_TIMED = 12
_NUM_SAVED = 100
_OPERATORS = {"a & b": " & ", "a | b": " | ", "a > b": " > ", "a -b": " & -"}


def costs(index_dir: Path, sentences: list[str]) -> dict[str, list[float]]:
    """Return the cost of each kind of query, divided by that of its parts, for pairs of sentences."""
    rng = np.random.default_rng(5)
    ratios: dict[str, list[float]] = {name: [] for name in _OPERATORS}
    with SearchEngine.open(index_dir) as engine:
        engine.search("a warm engine")

        def seconds(text: str) -> float:
            begin = time.perf_counter()
            engine.search(text)
            return time.perf_counter() - begin

        for _ in range(_NUM_TIMED):
            a, b = (sentences[k] for k in rng.choice(len(sentences), 2, replace=False).tolist())
            for name, operator in _OPERATORS.items():
                # the parts before and after, so that a slow second of the machine weighs on both
                alone = [seconds(a) + seconds(b)]
                together = seconds(f"({a}){operator}({b})")
                alone.append(seconds(a) + seconds(b))
                ratios[name].append(together / (sum(alone) / 2))
    return ratios


def saved_share(films: Path, sentences: list[str]) -> float:
    """Return the time of 100 saved searches of a new film, divided by that of indexing the film."""
    with tempfile.TemporaryDirectory(dir=BENCH) as folder:
        here = Path(folder, "films")
        here.mkdir()
        first, new, *_ = sorted(films.glob("*.mp4"))
        (here / first.name).symlink_to(first)
        with Library(Path(folder, "index")) as library:
            library.index([here], encoder=BUNDLED_NAME)
            for number in range(_NUM_SAVED):
                library.saved.add(f"search {number}", sentences[number % len(sentences)])
            library.search(sentences[0])
            standing = Standing(library.saved, lambda: library.engine)
            (here / new.name).symlink_to(new)
            begin = time.perf_counter()
            library.index([here])
            indexed = time.perf_counter()
            standing.ask()
            return (time.perf_counter() - indexed) / (indexed - begin)


def main(
    fit: Annotated[bool, typer.Option("--fit", help="The films to choose constants by.")] = False,
    only_costs: Annotated[bool, typer.Option("--costs", help="Only what queries cost.")] = False,
    second_try: Annotated[
        bool, typer.Option("--second-try", help="Only first and second tries.")
    ] = False,
    keep: Annotated[Path, typer.Option(help="Folder of films and indexes; reused.")] = BENCH
    / "held-out",
) -> None:
    """Print the figures and the costs."""
    library = TO_FIT if fit else FULL
    truth = ensure_rendered(library, keep, workers=num_cores())
    index_dir = truth.parents[1] / "index-uniform"
    if not index_dir.exists():
        index_films(truth.parent, index_dir)
    films = library.films()
    if second_try:
        _show(measure_second_try(index_dir, films, seed=library.seed))
        return
    if not only_costs:
        _show(measure_compounds(index_dir, films, seed=library.seed))
    sentences = [each.text for each in read_questions(truth) if not each.needs_time]
    for name, ratios in costs(index_dir, sentences).items():
        console.print(
            f"cost of {name}: {percentile(ratios, 50):.2f} times that of its parts "
            f"(90 %: {percentile(ratios, 90):.2f}; aim {AIM_COST})",
            highlight=False,
        )
    share = saved_share(truth.parent, sentences)
    console.print(
        f"{_NUM_SAVED} saved searches: {100 * share:.1f} % of the time in which a new film is indexed "
        f"(aim {100 * AIM_SAVED_SHARE:.0f} %)",
        highlight=False,
    )


def _show(measured: Compounds) -> None:
    for name, figure in measured.figures.items():
        console.print(
            f"{name:40} {figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f}), "
            f"n = {measured.num_queries[name]}",
            highlight=False,
        )


if __name__ == "__main__":
    typer.run(main)
