"""No promise of a writer is broken if it is killed, the power is cut, or the disk refuses.

`tests.story` has the story of the writer and the checks afterwards, `tests.faults` the faults.
"""

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

import pytest

from scanonce.storage.layout import IndexLayout
from tests.fault_tasks import (
    check,
    search_now,
    write,
    write_at_another_time,
    write_on_read_only_disk,
    write_on_small_disk,
)
from tests.faults import FaultKind, Names
from tests.lab import Lab, Outcome
from tests.promises import ReaderCounts, read_on, write_on
from tests.story import NOTHING, STORY, Case, Expected

MAX_CONCURRENCY = 2
# Every fault is tried at each 41st point of the write path, a kill at each 20th; `make faults` (FAULT_STRIDE=1) tries
# every fault at every point.
STRIDE = int(os.environ.get("FAULT_STRIDE", "41"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(max_concurrency=MAX_CONCURRENCY) as lab:
        yield lab


class Stage:
    """A case that can begin at any step of the story, repeatedly, under the same path."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.case = Case(folder / "case")
        self.starts: list[str] = []
        self.expected = [NOTHING]
        """The promises when each step begins."""
        self.points: list[tuple[int, int, str]] = []
        """Every point of the write path: its step, its number in the step, and its name."""
        self.case.folder.mkdir(parents=True)
        for step in range(len(STORY)):
            self.starts.append(str(folder / f"start-{step}"))
            shutil.copytree(self.case.folder, self.starts[-1])
            outcome = lab.run(write, case=str(self.case.folder), first=step, last=step)
            assert outcome.values("ended") == [""]
            self.expected.append(Expected.after(outcome.reports, self.expected[-1]))
            named = enumerate(outcome.values("points")[0], start=1)
            self.points += [(step, at, what) for at, what in named]


def problems_after(lab: Lab, case: Case, outcome: Outcome) -> list[str]:
    """Return the problems after the whole story, and after its last command was run again."""
    promised = Expected.after(outcome.reports, NOTHING)
    after = lab.run(check, case=str(case.folder), expected=asdict(promised))
    return [str(problem) for problem in after.values("problem")]


@pytest.fixture(scope="module")
def stages(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    """A stage for each child that runs at a time."""
    return [Stage(lab, tmp_path_factory.mktemp("stage")) for _ in range(MAX_CONCURRENCY)]


def try_faults(
    lab: Lab,
    stages: list[Stage],
    kind: FaultKind,
    points: Sequence[tuple[int, int, str]],
    power: Names | None = None,
) -> None:
    """Make a fault at each of the points, several at a time, and check the state after each."""
    free: SimpleQueue[Stage] = SimpleQueue()
    for stage in stages:
        free.put(stage)

    def one_try(point: tuple[int, int, str]) -> list[str]:
        step, at, _ = point
        stage = free.get()
        try:
            folder, before = str(stage.case.folder), stage.expected[step]
            fault = {"kind": kind, "at": at}
            outcome = lab.run(
                write, case=folder, first=step, last=step, start=stage.starts[step], fault=fault
            )
            ended = [text for text in outcome.values("ended") if not text.startswith("refused: ")]
            promised = asdict(Expected.after(outcome.reports, before))
            after = lab.run(check, case=folder, expected=promised, power=power, seed=at)
            assert outcome.killed == (kind in ("kill", "power"))
            return [*filter(None, ended), *after.values("problem")]
        finally:
            free.put(stage)

    with ThreadPoolExecutor(len(stages)) as pool:
        found = list(zip(points, pool.map(one_try, points), strict=True))
    wrong = [
        f"step {step}, point {at}, {what}:\n  " + "\n  ".join(problems)
        for (step, at, what), problems in found
        if problems
    ]
    assert not wrong, f"{len(wrong)} of {len(points)} faults\n" + "\n".join(wrong[:10])


@pytest.mark.parametrize(
    "what", ["open", "write", "fsync", "rename", "link", "unlink", "mkdir", "commit", "write_index"]
)
def test_the_story_has_every_kind_of_step(stages: list[Stage], what: str) -> None:
    assert any(point.startswith(f"{what} ") for _, _, point in stages[0].points)


def test_a_writer_killed_at_any_step_loses_nothing_and_leaves_nothing(
    lab: Lab, stages: list[Stage]
) -> None:
    try_faults(lab, stages, "kill", stages[0].points[:: max(1, STRIDE // 2)])


@pytest.mark.parametrize(("power", "first"), [("oldest", 0), ("newest", 4), ("any", 8)])
def test_a_power_cut_at_any_step_loses_nothing_and_leaves_nothing(
    lab: Lab, stages: list[Stage], power: Names, first: int
) -> None:
    try_faults(lab, stages, "power", stages[0].points[first % STRIDE :: STRIDE], power)


def test_a_power_cut_within_a_commit_loses_nothing_and_leaves_nothing(
    lab: Lab, stages: list[Stage]
) -> None:
    """Any part of the commit may be in the write-ahead log of SQLite: it is whole or undone."""
    every = [point for point in stages[0].points if point[2].startswith("committed ")]
    assert len(every) > 10
    try_faults(lab, stages, "power", every[:: max(1, STRIDE // 8)], "newest")


@pytest.mark.parametrize(("kind", "first"), [("full", 2), ("read-only", 6)])
def test_a_disk_that_refuses_any_step_is_reported_and_loses_nothing(
    lab: Lab, stages: list[Stage], kind: FaultKind, first: int
) -> None:
    try_faults(lab, stages, kind, stages[0].points[first % STRIDE :: STRIDE])


def test_a_writer_killed_at_random_times_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    """All writers have the same index; each continues where the one before it was killed."""
    case, chance, promised = Case(tmp_path), random.Random(5), NOTHING
    killed = 0
    while killed < 15:
        outcome = lab.run(
            write,
            case=str(case.folder),
            first=promised.next_step,
            kill_after=chance.uniform(0.0, 0.4),
        )
        killed += outcome.killed
        promised = Expected.after(outcome.reports, promised)
        problems = lab.run(search_now, case=str(case.folder), expected=asdict(promised))
        assert problems.reports == []
        if promised.next_step == len(STORY):
            promised = NOTHING
            shutil.rmtree(case.index)
    after = lab.run(check, case=str(case.folder), expected=asdict(promised))
    assert after.reports == []


def test_a_real_disk_that_is_full_at_any_size_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    sizes = [*range(8, 400, 12), 4096]  # kilobytes; the whole story fits on the last one

    def fill(kilobytes: int) -> Outcome:
        case = tmp_path / str(kilobytes)
        return lab.run(write_on_small_disk, case=str(case), size=kilobytes * 1024)

    with ThreadPoolExecutor(MAX_CONCURRENCY) as pool:
        outcomes = list(pool.map(fill, sizes))
    if reason := outcomes[0].values("impossible"):
        pytest.skip(reason[0])
    assert [problem for outcome in outcomes for problem in outcome.values("problem")] == []
    ended = [outcome.values("ended")[0] for outcome in outcomes]
    assert ended[-1] == ""
    assert len(set(ended)) > 10, "it was full at different moments"
    assert all(not text or text.startswith("refused: ") for text in ended)


def test_a_disk_mounted_read_only_is_reported_and_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    before = lab.run(write, case=str(tmp_path))
    outcome = lab.run(write_on_read_only_disk, case=str(tmp_path))
    if reason := outcome.values("impossible"):
        pytest.skip(reason[0])
    (ended,) = outcome.values("ended")
    assert ended.startswith("refused: ")
    assert "Read-only file system" in ended
    assert problems_after(lab, Case(tmp_path), before) == []


def test_a_catalogue_that_is_locked_for_a_moment_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    case = Case(tmp_path)
    lab.run(write, case=str(tmp_path), last=0)
    with ThreadPoolExecutor(1) as pool:
        with locked_by_another(case):
            running = pool.submit(lab.run, write, case=str(tmp_path), first=1)
            time.sleep(0.5)
            assert not running.done()
        outcome = running.result()
    assert outcome.values("ended") == [""]
    assert problems_after(lab, case, outcome) == []


def test_a_catalogue_that_stays_locked_is_reported_and_searched_meanwhile(
    lab: Lab, tmp_path: Path
) -> None:
    case = Case(tmp_path)
    first = lab.run(write, case=str(tmp_path), last=0)
    promised = Expected.after(first.reports, NOTHING)
    with locked_by_another(case):
        outcome = lab.run(write, case=str(tmp_path), first=1, patience=0.1)
        looked = lab.run(search_now, case=str(tmp_path), expected=asdict(promised))
    (ended,) = outcome.values("ended")
    assert ended.startswith("refused: ")
    assert "another process is writing to it: wait for it, then try again" in ended
    assert looked.reports == []
    after = lab.run(check, case=str(tmp_path), expected=asdict(promised))
    assert after.reports == []


@contextmanager
def locked_by_another(case: Case) -> Iterator[None]:
    """Lock the catalogue from another program."""
    catalog = IndexLayout.of(case.index).catalog
    with closing(sqlite3.connect(catalog, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_a_clock_that_goes_backwards_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    outcome = lab.run(write_at_another_time, case=str(tmp_path))
    assert outcome.values("ended") == [""]
    assert problems_after(lab, Case(tmp_path), outcome) == []


def test_readers_see_each_video_once_it_is_promised_and_never_an_error(
    lab: Lab, tmp_path: Path
) -> None:
    """One writer and one reader, each in its own process. `benchmarks.torture` measures how long they wait."""
    stop = tmp_path / "stop"
    log = tmp_path / "promises"
    log.touch()
    case = str(tmp_path / "case")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lab.run, read_on, case=case, log=str(log), stop=str(stop), seed=1)
        try:
            writing = lab.run(write_on, case=case, log=str(log), seed=1, rounds=20)
        finally:
            stop.touch()
        outcome = reading.result()
    assert writing.reports == []
    assert outcome.values("problem") == []
    (values,) = outcome.values("counts")
    counts = ReaderCounts(**values)
    assert (counts.errors, counts.missing, counts.stale) == (0, 0, 0), counts.examples[:3]
    assert counts.generations > 3
