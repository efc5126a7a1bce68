"""Promises between processes: tasks of `tests.lab` that write an index endlessly, and that search it meanwhile.

The writer notes each promise in a file right after the commit that makes it. Readers follow that file and compare it
with the answers of searches.
"""

import os
import random
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from scanonce.search.engine import SearchEngine
from tests.numbered import arrange, films_in
from tests.story import Case, Report, index, numbers_found, open_engine


class PromiseLog:
    """The promises of a writer, a line each, written by one call so that a kill leaves whole lines.

    ``indexed 17``: from now on searches find it. ``leaving 17``: they may or may not find it. ``gone 17``: they never
    return it again; a number is not used a second time.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, kind: str, number: int) -> None:
        os.write(self._descriptor, f"{time.monotonic():.6f} {kind} {number}\n".encode())


class Promises:
    """The promises of a log, as a reader sees them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.found: dict[int, float] = {}
        """The videos to be found now, with the time of the promise."""
        self.gone: set[int] = set()
        self.known: set[int] = set()
        """All videos that were ever in the log."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def follow(self) -> None:
        """Read the lines that were written since the last call."""
        for line in self._file:
            when, kind, text = line.split()
            number = int(text)
            self.known.add(number)
            if kind == b"indexed":
                self.found.setdefault(number, float(when))
            else:
                self.found.pop(number, None)
            if kind == b"gone":
                self.gone.add(number)


@dataclass
class ReaderCounts:
    """The counts of a reader."""

    queries: int = 0
    errors: int = 0
    missing: int = 0
    """Number of answers that did not have the video first, although it was promised before and after the query."""
    stale: int = 0
    """Number of answers with a video that was gone before the query began."""
    longest_wait_seconds: float = 0.0
    """Longest time from a promise to the end of the first query that found the video."""
    generations: int = 0
    """Number of generations that it searched."""
    examples: list[str] = field(default_factory=list)


def read_on(report: Report, *, case: str, log: str, stop: str, seed: int) -> None:
    """Search until there is a file ``stop``: for the newest videos, for any others, and for those that are gone."""
    folder, counts, chance = Case(Path(case)), ReaderCounts(), random.Random(seed)
    with Promises(Path(log)) as promises:
        promises.follow()
        while not promises.found and not Path(stop).exists():
            time.sleep(0.01)
            promises.follow()
        waiting: dict[int, float] = dict(promises.found)
        asked: set[int] = set(waiting)
        generations: set[int] = set()
        with open_engine(folder.index) as engine:
            while not Path(stop).exists():
                promises.follow()
                fresh = promises.found.keys() - asked
                asked |= fresh
                waiting |= {number: promises.found[number] for number in fresh}
                newest = list(waiting)[-3:]
                some = chance.sample(sorted(promises.found), min(2, len(promises.found)))
                old = chance.sample(sorted(promises.gone), min(1, len(promises.gone)))
                for number in (*newest, *some, *old):
                    _ask(engine, number, promises, waiting, counts)
                with engine.reading() as snapshot:
                    generations.add(snapshot.clips.generation)
    counts.generations = len(generations)
    report("counts", vars(counts))


def _ask(
    engine: SearchEngine,
    number: int,
    promises: Promises,
    waiting: dict[int, float],
    counts: ReaderCounts,
) -> None:
    promises.follow()
    promised, gone = promises.found.get(number), set(promises.gone)
    counts.queries += 1
    try:
        (returned,) = numbers_found(engine, [f"video {number}"], promises.known)
    except Exception:
        counts.errors += 1
        counts.examples.append(traceback.format_exc())
        return
    end = time.monotonic()
    promises.follow()
    still_promised = promised is not None and promises.found.get(number) == promised
    if returned[:1] == [number]:
        since = waiting.pop(number, end)
        if still_promised:
            counts.longest_wait_seconds = max(counts.longest_wait_seconds, end - since)
    elif still_promised:
        counts.missing += 1
        counts.examples.append(f"video {number} was promised; found is {returned}")
    elif promised is None or number not in promises.found:
        waiting.pop(number, None)
    if stale := gone & set(returned):
        counts.stale += 1
        counts.examples.append(f"deleted videos {stale} are returned for {number}")


def write_on(report: Report, *, case: str, log: str, seed: int, rounds: int = 1 << 30) -> None:
    """Index, replace, move and delete videos endlessly; continue where the last writer was killed.

    The videos on the disk are to be found, and every other number is to be gone.
    """
    folder, chance = Case(Path(case)), random.Random(seed)
    folder.films.mkdir(parents=True, exist_ok=True)
    folder.index.parent.mkdir(exist_ok=True)
    with Promises(Path(log)) as promises:
        promises.follow()
    promise = PromiseLog(Path(log))
    films = films_in(folder.films)
    ever = {0} | promises.known | set(films.values())
    _index_promised(folder, promise, films, ever - promises.gone - {0})
    for _ in range(rounds):
        films, before = _changed(films, chance, fresh=max(ever) + 1), set(films.values())
        for number in before - set(films.values()):
            promise.write("leaving", number)
        arrange(folder.films, films)
        ever |= set(films.values())
        _index_promised(folder, promise, films, before | set(films.values()))


def _changed(films: Mapping[str, int], chance: random.Random, *, fresh: int) -> dict[str, int]:
    """Change a library at random: add, delete, move and replace a few videos."""
    changed = dict(films)
    for name in chance.sample(sorted(films), min(len(films), chance.randrange(3))):
        del changed[name]
    for name in chance.sample(sorted(changed), min(len(changed), chance.randrange(3))):
        changed[name] = fresh  # another video under the same path
        fresh += 1
    for name in chance.sample(sorted(changed), min(len(changed), chance.randrange(2))):
        number = changed.pop(name)
        changed[f"moved/{number}.mp4"] = number
    wanted = chance.randrange(5, 25)
    for name in sorted(changed)[wanted:]:
        del changed[name]
    for number in range(fresh, fresh + chance.randrange(1, 4)):
        changed[f"{number}.mp4"] = number
    return changed


def _index_promised(
    case: Case, promise: PromiseLog, films: Mapping[str, int], numbers: set[int]
) -> None:
    """Index the library; write the promises as soon as they hold."""
    done = index(case, promise.write)
    if done.problems:
        raise RuntimeError(f"problems: {done.problems}")
    present = set(films.values())
    for number in numbers:
        promise.write("indexed" if number in present else "gone", number)
