"""Queries of several parts, by images and with feedback: how well they find, and what they cost.

    python -m benchmarks.compounds              # the held-out films of the gate
    python -m benchmarks.compounds --fit        # films in colours of the training, to choose constants by
    python -m benchmarks.compounds --second-try # only answers before and after feedback
    python -m benchmarks.compounds --second-try --on small    # or clips: films that no choice was made by
    python -m benchmarks.compounds --costs      # only what queries and saved searches cost
    python -m benchmarks.compounds --saved      # only what saved searches cost
    python -m benchmarks.compounds --ceilings   # only how far ceilings are above and below the best moments

Films and index are kept and used again (`bench/held-out`). The cost of a query of several parts is the ratio of its
time to the sum of the times of its parts asked alone, in one run. That of 100 saved searches is their share of the time
in which a new film is indexed. Ceilings (`search.ceilings`) decide which of them are located: they must not be below
the best moment by more than their slack, in log-odds.
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
from scanonce.search.calibration import as_logits
from scanonce.search.ceilings import SLACK
from scanonce.search.engine import SearchEngine, ceilings_of
from scanonce.search.grades import GOOD
from scanonce.search.standing import Standing
from scanonce.training.bundled.belief import CLIPS
from scanonce.training.bundled.compounds import Compounds, measure_compounds, measure_second_try
from scanonce.training.bundled.questions import FULL, SMALL, index_films, read_questions
from scanonce.training.world.films import Library as World
from scanonce.training.world.films import ensure_rendered

TO_FIT = World("compounds-fit", seed=23, num_films=30, held_out=False)
"""Films of which no figure is reported."""

OTHERS = {"small": SMALL, "clips": CLIPS}
"""Films of other seeds; the clips have one scene each, in colours of the training."""

AIM_COST = 1.3
AIM_SAVED_SHARE = 0.05
_NUM_TIMED = 12
_NUM_SAVED = 100
_NUM_FILMS = 8
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


def saved_shares(films: Path, sentences: list[str]) -> list[float]:
    """Return the times of 100 saved searches of two new films, divided by those of indexing the films.

    Of the first, the searches are encoded, which is done once.
    """
    with tempfile.TemporaryDirectory(dir=BENCH) as folder:
        here = Path(folder, "films")
        here.mkdir()
        first, *new = sorted(films.glob("*.mp4"))
        (here / first.name).symlink_to(first)
        with Library(Path(folder, "index")) as library:
            library.index([here], encoder=BUNDLED_NAME)
            for number in range(_NUM_SAVED):
                library.saved.add(f"search {number}", sentences[number % len(sentences)])
            library.search(sentences[0])
            standing = Standing(library.saved, lambda: library.engine)
            shares = []
            for film in new[:2]:
                (here / film.name).symlink_to(film)
                begin = time.perf_counter()
                library.index([here])
                indexed = time.perf_counter()
                standing.ask()
                shares.append((time.perf_counter() - indexed) / (indexed - begin))
            return shares


def ceilings_line(index_dir: Path, sentences: list[str]) -> str:
    """Compare the ceilings of queries in single films with the probabilities of their best moments."""
    rng = np.random.default_rng(7)
    above: list[float] = []
    num_good = num_located = num_lost = 0
    with SearchEngine.open(index_dir) as engine:
        for video_id in rng.choice(sorted(engine.videos), _NUM_FILMS, replace=False).tolist():
            drawn = [sentences[k] for k in rng.choice(len(sentences), 40, replace=False).tolist()]
            pairs = zip(drawn[::2], drawn[1::2], strict=True)
            joined = [
                f"({a}){operator}({b})"
                for (a, b), operator in zip(pairs, 5 * list(_OPERATORS.values()), strict=True)
            ]
            texts = drawn + joined
            within = frozenset({video_id})
            highest = ceilings_of(engine, texts, within=within)
            for result, most in zip(engine.search_many(texts, within=within), highest, strict=True):
                best = max((each.probability for each in result.moments), default=0.0)
                above.append(float(as_logits(best) - as_logits(most)) + SLACK)
                num_good += best >= GOOD
                num_located += most >= GOOD
                num_lost += best >= GOOD > most
    return (
        f"ceilings of {len(above)} queries: {num_good} have a good match, {num_located} are located, "
        f"{num_lost} are lost; a moment is better than the best window by at most {max(above):.2f} "
        f"(slack {SLACK})"
    )


def main(
    fit: Annotated[bool, typer.Option("--fit", help="The films to choose constants by.")] = False,
    only_costs: Annotated[bool, typer.Option("--costs", help="Only what queries cost.")] = False,
    only_saved: Annotated[bool, typer.Option("--saved", help="Only saved searches.")] = False,
    only_ceilings: Annotated[bool, typer.Option("--ceilings", help="Only ceilings.")] = False,
    second_try: Annotated[
        bool, typer.Option("--second-try", help="Only first and second tries.")
    ] = False,
    on: Annotated[str, typer.Option(help="Other films: small, those of CI, or clips.")] = "",
    keep: Annotated[Path, typer.Option(help="Folder of films and indexes; reused.")] = BENCH
    / "held-out",
) -> None:
    """Print the figures and the costs."""
    if on and on not in OTHERS:
        raise typer.BadParameter(f"films are {' and '.join(OTHERS)}; got {on!r}")
    library = OTHERS[on] if on else TO_FIT if fit else FULL
    truth = ensure_rendered(library, keep, workers=num_cores())
    index_dir = truth.parents[1] / "index-uniform"
    if not index_dir.exists():
        index_films(truth.parent, index_dir)
    films = library.films()
    if second_try:
        _show(measure_second_try(index_dir, films, seed=library.seed))
        return
    if not (only_costs or only_saved or only_ceilings):
        _show(measure_compounds(index_dir, films, seed=library.seed))
    sentences = [each.text for each in read_questions(truth) if not each.needs_time]
    if only_ceilings:
        console.print(ceilings_line(index_dir, sentences), highlight=False)
        return
    asked = {} if only_saved else costs(index_dir, sentences)
    for name, ratios in asked.items():
        console.print(
            f"cost of {name}: {percentile(ratios, 50):.2f} times that of its parts "
            f"(90 %: {percentile(ratios, 90):.2f}; aim {AIM_COST})",
            highlight=False,
        )
    at_first, later = saved_shares(truth.parent, sentences)
    console.print(
        f"{_NUM_SAVED} saved searches: {100 * at_first:.1f} % of the time in which a first new film is indexed, "
        f"{100 * later:.1f} % of a later one (aim {100 * AIM_SAVED_SHARE:.0f} %)",
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
