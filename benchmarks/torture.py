"""One writer that is killed again and again, and readers that search: is anything lost, stale or left behind?

    python -m benchmarks.torture --kills 200

The writer indexes, replaces, moves and deletes generated videos endlessly and is killed by SIGKILL at random times; the
next one continues at once. It notes each promise in a file right after the commit that makes it: from then on a search
must find the video, or must no longer return it. Each reader is a separate process with an open `SearchEngine`; before
and after each query it reads the promises. The exit code is 1 if an aim is missed.
"""

import random
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scanonce.storage.layout import IndexLayout
from scanonce.storage.vectors.generation import newest_number
from tests.lab import Lab, Outcome
from tests.promises import Promises, ReaderCounts, read_on, write_on
from tests.story import Case, find_leftovers

AIM_WAIT_SECONDS = 1.0
_SHORTEST_LIFE_SECONDS, _LONGEST_LIFE_SECONDS = 0.05, 1.5

console = Console(width=120)


@dataclass
class Result:
    """Result of a run."""

    kills: int
    seconds: float
    generations: int
    """Published generations of the vector index of clips."""
    promised: int
    """Number of promised videos."""
    deleted: int
    readers: list[ReaderCounts]
    problems: list[str] = field(default_factory=list)
    """Problems of writers, and faults of the index at the end."""

    @property
    def longest_wait_seconds(self) -> float:
        """Time from a promise to the end of the first query that found the video."""
        return max(reader.longest_wait_seconds for reader in self.readers)

    @property
    def is_right(self) -> bool:
        """Whether every aim is met."""
        wrong = sum(reader.errors + reader.missing + reader.stale for reader in self.readers)
        return not wrong and not self.problems and self.longest_wait_seconds < AIM_WAIT_SECONDS


def torture(folder: Path, *, kills: int, readers: int, seed: int) -> Result:
    """Run writers one after another, each killed but the last, while readers search."""
    case, log, stop = Case(folder / "case"), folder / "promises", folder / "stop"
    log.touch()
    begin = time.monotonic()
    with (
        Lab(max_concurrency=readers + 1) as lab,
        ThreadPoolExecutor(readers) as pool,
    ):
        places: dict[str, Any] = {"case": str(case.folder), "log": str(log)}
        reading = [
            pool.submit(lab.run, read_on, **places, stop=str(stop), seed=seed + number)
            for number in range(readers)
        ]
        try:
            problems = _write_and_kill(lab, places, kills, seed)
        finally:
            stop.touch()
        counts = [_counts(each) for each in reading]
    with Promises(log) as promises:
        promises.follow()
    return Result(
        kills=kills,
        seconds=time.monotonic() - begin,
        generations=newest_number(IndexLayout.of(case.index).vectors),
        promised=len(promises.found) + len(promises.gone),
        deleted=len(promises.gone),
        readers=counts,
        problems=[*problems, *find_leftovers(case.index)],
    )


def _write_and_kill(lab: Lab, places: dict[str, Any], kills: int, seed: int) -> list[str]:
    """Return the problems that writers reported; the last one ends without a kill."""
    chance = random.Random(seed)
    problems: list[str] = []
    for number in track(range(kills), "killing", console=console, disable=not console.is_terminal):
        life = chance.uniform(_SHORTEST_LIFE_SECONDS, _LONGEST_LIFE_SECONDS)
        outcome = lab.run(write_on, **places, seed=seed + number, kill_after=life)
        problems += _problems(outcome, killed=True)
    return problems + _problems(lab.run(write_on, **places, seed=seed, rounds=1), killed=False)


def _problems(outcome: Outcome, *, killed: bool) -> list[str]:
    if outcome.killed != killed:
        return [f"a writer ended by itself: {outcome.values('problem')}"]
    return [str(problem) for problem in outcome.values("problem")]


def _counts(reading: Future[Outcome]) -> ReaderCounts:
    outcome = reading.result()
    for values in outcome.values("counts"):
        return ReaderCounts(**values)
    return ReaderCounts(errors=1, examples=[f"a reader ended: {outcome.values('problem')}"])


def result_table(result: Result) -> Table:
    """Print the figures and the aims."""
    table = Table(title=f"{result.kills} writers killed in {result.seconds:.0f} s", box=None)
    for column in ("figure", "measured", "aim", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    table.add_row("writers started", str(result.kills + 1))
    table.add_row("generations published", str(result.generations))
    table.add_row("videos indexed", str(result.promised))
    table.add_row("videos deleted", str(result.deleted))
    for number, reader in enumerate(result.readers, start=1):
        seen = f"{reader.queries} in {reader.generations} generations"
        table.add_row(f"queries of reader {number}", seen)
    for name in ("errors", "missing", "stale"):
        _add_aim(table, name, sum(getattr(reader, name) for reader in result.readers))
    wait = result.longest_wait_seconds
    verdict = "met" if wait < AIM_WAIT_SECONDS else "missed"
    table.add_row(
        "longest from promise to found, s", f"{wait:.2f}", f"< {AIM_WAIT_SECONDS:.2f}", verdict
    )
    _add_aim(table, "problems of writers, leftovers, damage", len(result.problems))
    return table


def _add_aim(table: Table, name: str, count: int) -> None:
    table.add_row(name, str(count), "0", "missed" if count else "met")


def main(
    kills: Annotated[int, typer.Option(min=1, help="Number of writers to kill.")] = 200,
    readers: Annotated[int, typer.Option(min=1, help="Number of processes that search.")] = 2,
    seed: Annotated[
        int, typer.Option(help="Seed of the operations and of the times of the kills.")
    ] = 0,
    keep: Annotated[bool, typer.Option(help="Keep the index if an aim is missed.")] = False,
) -> None:
    """Kill writers while readers search; print what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="scanonce-torture-"))
    result = torture(folder, kills=kills, readers=readers, seed=seed)
    console.print(result_table(result))
    examples = [example for reader in result.readers for example in reader.examples]
    for text in [*result.problems, *examples][:10]:
        console.print(text, markup=False, highlight=False)
    if keep and not result.is_right:
        console.print(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    raise typer.Exit(not result.is_right)


if __name__ == "__main__":
    typer.run(main)
