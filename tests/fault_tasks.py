"""Tasks of a child of `tests.lab`: parts of the story with a fault, and the checks afterwards.

with Lab() as lab:
    (points,) = lab.run(write, case="one").values("points")    # without a fault: the steps of writing
    ended = lab.run(write, case="two", fault={"kind": "kill", "at": 17})
    promised = asdict(Expected.after(ended.reports, NOTHING))
    lab.run(check, case="two", expected=promised).reports      # the problems: none
"""

import ctypes
import os
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import scanonce.storage.catalog.database
from scanonce.storage.catalog.database import BUSY_TIMEOUT_SECONDS
from scanonce.storage.errors import IndexDirectoryError
from tests.faults import Faults, Names, cut_power
from tests.story import (
    NOTHING,
    STORY,
    Case,
    Expected,
    Report,
    find_leftovers,
    find_problems,
    run_story,
)


def write(
    report: Report,
    *,
    case: str,
    first: int = 0,
    last: int = len(STORY) - 1,
    fault: Mapping[str, Any] = MappingProxyType({}),
    start: str | None = None,
    patience: float = BUSY_TIMEOUT_SECONDS,
) -> None:
    """Run some steps of the story with a fault; report how they ended and the points they passed.

    Args:
        report: also gets the reports of `run_story`.
        case: folder of the case.
        first: first step of the story.
        last: last step.
        fault: arguments of `Faults`.
        start: a copy of the case at that step, to begin from; None: begin from the case as it is.
        patience: seconds to wait for a locked catalogue.
    """
    folder = Case(Path(case))
    if start is not None:
        shutil.rmtree(folder.folder, ignore_errors=True)
        shutil.copytree(start, folder.folder)
    folder.index.parent.mkdir(parents=True, exist_ok=True)
    scanonce.storage.catalog.database.BUSY_TIMEOUT_SECONDS = patience
    faults = Faults(folder, **fault)
    with faults.installed():
        ended = _ending_of(lambda: run_story(folder, report, first=first, last=last))
    report("ended", ended)
    report("points", faults.points)


def _ending_of(work: Callable[[], None]) -> str:
    """Return "" if the work ended well, the text of an expected error, or the trace of an unexpected one."""
    try:
        work()
    except IndexDirectoryError as error:
        return f"refused: {error}"
    except BaseException:
        return traceback.format_exc()
    return ""


def check(
    report: Report,
    *,
    case: str,
    expected: Mapping[str, Any],
    power: Names | None = None,
    seed: int = 0,
) -> None:
    """Check the state that a fault has left, run the interrupted command again, and check again.

    Args:
        report: gets the problems.
        case: folder of the case.
        expected: the promises, as `Expected`.
        power: for `cut_power`; None if the power was not cut.
        seed: seed of `cut_power`.
    """
    folder, promised = Case(Path(case)), Expected(**expected)
    if power is not None:
        cut_power(folder, power, seed)
    for problem in find_problems(folder, promised):
        report("problem", f"after the fault: {problem}")
    reports: list[Any] = []

    def keep(kind: str, value: Any) -> None:
        reports.append((kind, value))
        if kind == "problem":
            report(kind, f"in the next run: {value}")

    step = min(promised.next_step, len(STORY) - 1)
    # A folder that is forgotten already is not forgotten again; then the next command removes the leftovers.
    last = step + bool(STORY[step].forget)
    ended = _ending_of(lambda: run_story(folder, keep, first=step, last=last))
    if ended:
        report("problem", f"the next run ended with {ended}")
        return
    for problem in find_problems(folder, Expected.after(reports, promised)) + find_leftovers(
        folder.index
    ):
        report("problem", f"after the next run: {problem}")


def search_now(report: Report, *, case: str, expected: Mapping[str, Any]) -> None:
    """Report the problems that searches find."""
    for problem in find_problems(Case(Path(case)), Expected(**expected)):
        report("problem", problem)


def write_on_small_disk(report: Report, *, case: str, size: int) -> None:
    """Run the story on a real disk of ``size`` bytes, enlarge the disk once it is full, and `check`.

    Reports "impossible" if the system does not allow mounting.
    """
    folder = Case(Path(case))
    if not _get_own_mounts(report):
        return
    mountpoint = folder.index.parent
    mountpoint.mkdir(parents=True)
    _mount("tmpfs", mountpoint, 0, f"size={size}")
    reports: list[Any] = []
    ended = _ending_of(lambda: run_story(folder, lambda *each: reports.append(each)))
    report("ended", ended)
    _mount("tmpfs", mountpoint, _MS_REMOUNT, "size=64m")
    promised = Expected.after(reports, NOTHING)
    check(report, case=case, expected=vars(promised))


def write_on_read_only_disk(report: Report, *, case: str) -> None:
    """Run the story again on a disk that is mounted read-only, also for root.

    Reports "impossible" if the system does not allow mounting.
    """
    folder = Case(Path(case))
    if not _get_own_mounts(report):
        return
    mountpoint = folder.index.parent
    _mount("", mountpoint, _MS_BIND, "")
    _mount("", mountpoint, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, "")
    report("ended", _ending_of(lambda: run_story(folder, lambda *_: None)))


_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000


def _get_own_mounts(report: Report) -> bool:
    """Give this process its own mounts, which end with it; if that is not allowed, report it and return False."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if os.getuid() else 0)):
        with suppress(OSError):
            _mount("", Path("/"), _MS_REC | _MS_PRIVATE, "")
            return True
    report("impossible", "no mount namespaces here")
    return False


def _mount(kind: str, mountpoint: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(mountpoint)
    source = path if flags & _MS_BIND else b"none"
    if libc.mount(source, path, kind.encode() or None, flags, options.encode() or None):
        raise OSError(ctypes.get_errno(), f"cannot mount at {mountpoint}")


def write_at_another_time(report: Report, *, case: str) -> None:
    """Run the story with a clock that jumps back an hour each time it is read."""
    folder = Case(Path(case))
    real = time.time
    jumps = iter(range(0, 1 << 30, 3600))
    time.time = lambda: real() - next(jumps)
    scanonce.storage.catalog.database.now = lambda: datetime.fromtimestamp(time.time(), UTC)
    report("ended", _ending_of(lambda: run_story(folder, report)))
