"""Follows folders: what changes below them is indexed once it has stopped growing.

    watch([Path("/films")], work)            # until Ctrl-C; `work` looks, indexes and tells

:class:`Settling` decides when a changed path is ready; it knows no clock and no source of events, both are handed in.
:func:`watch` feeds it from the operating system, and from looks at everything: when it starts, every hour, and when a
root comes back. So a lost event costs an hour at most, and nothing that happened while nobody watched is lost.
"""

import os
import stat
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import watchfiles
from watchfiles import Change

from scanonce.indexer.scan import ScanProblem, outermost, scan
from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.errors import ScanonceError

SETTLE_SECONDS = 5.0
"""How long a file has to keep its size and time of change before it is indexed."""
RESCAN_MINUTES = 60.0
"""Between two looks at everything: events can be lost, and some file systems send none."""
DELETION_PATIENCE_SECONDS = 600.0
"""How long a deletion waits at most for what is being written: a camera never stops writing."""
MOST_PATHS = 200
"""Of one run; where more have changed, their folders are looked at."""

_TICK_SECONDS = 1.0
_STEP_MILLISECONDS = 200  # changes of so long are told together
_CHECK_SECONDS = 10.0  # between two looks at whether the roots are the folders they were
_BUSY_SECONDS = 10.0  # until the next try, where somebody else writes the index
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0  # after an error
_POLL_MILLISECONDS = 5_000
_BURST = 10_000  # changes at once that make it likely that the system has dropped some


# ---------------------------------------------------------------- when a path is ready


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a look at a path shows."""

    is_folder: bool
    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class _Changed:
    """A path that somebody has told of. Times are of the clock that is handed in, seconds."""

    sight: _Sight | None
    """None: nothing is there."""
    since: float
    """It has looked like this all the time from here on."""
    told: float
    is_listed: bool = False
    """A folder whose videos were looked for once more after it had settled."""


class Settling:
    """Changed paths, until they have stopped changing.

    A file is ready when its size and time of change have stayed the same for a while; only that they stay the same
    counts, so a time in the future is as good as any. What is gone waits as long, and for all that is being written:
    a move to another disk is a copy and then a deletion, and told together they cost no decoding. The videos below a
    folder that appears are waited for one by one, and the folder as a whole for all of them.

    >>> settling = Settling([Path("/films")], settle_seconds=5)
    >>> settling.tell([Path("/films/gone.mp4"), Path("/films/.hidden.mp4")], now=0)
    >>> settling.ready(now=4), settling.ready(now=5)
    ([], [PosixPath('/films/gone.mp4')])
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        settings: IndexerSettings | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        ignored: Collection[Path] = (),
    ) -> None:
        """Nothing is told yet.

        Args:
            roots: absolute; names that start with a dot are passed over below them, not in them.
            settings: which files are videos, and whether links are followed.
            settle_seconds: how long a path has to stay the same.
            ignored: folders below which nothing matters, such as the index directory.
        """
        settings = settings or IndexerSettings()
        self._roots = tuple(roots)
        self._extensions = settings.endings
        self._follow_symlinks = settings.follow_symlinks
        self._settle_seconds = settle_seconds
        self._ignored = frozenset(ignored)
        self._changed: dict[Path, _Changed] = {}

    @property
    def unsettled(self) -> list[Path]:
        """Paths that are there and were not ready yet."""
        return [path for path, change in self._changed.items() if change.sight is not None]

    @property
    def is_calm(self) -> bool:
        """Nothing waits."""
        return not self._changed

    def tell(self, paths: Iterable[Path], now: float) -> None:
        """Something has happened at these paths.

        Args:
            paths: absolute; what does not matter among them is passed over.
            now: seconds by a clock that never goes back.
        """
        for path in paths:
            if path in self._changed or not self._is_visible(path):
                continue
            sight = _look(path)
            # what is gone may have been a folder, whatever its name
            if sight is None or sight.is_folder or path.suffix.lower() in self._extensions:
                self._changed[path] = _Changed(sight, now, now)
                if sight is not None and sight.is_folder:
                    self.tell(self._videos(path), now)

    def ready(self, now: float) -> list[Path]:
        """Paths that have stopped changing, sorted, each once. Costs a look at every path that waits."""
        for path, change in list(self._changed.items()):
            self._look_again(path, change, now)
        settled = {
            path
            for path, change in self._changed.items()
            if now - change.since >= self._settle_seconds
        }
        growing = set(self.unsettled) - settled
        above = {folder for path in growing for folder in path.parents}
        ready = [path for path in settled if self._may_go(path, now, growing=growing, above=above)]
        for path in ready:
            del self._changed[path]
        return sorted(ready)

    def _may_go(self, path: Path, now: float, *, growing: set[Path], above: set[Path]) -> bool:
        """Whether a path that has settled need not wait for others that have not."""
        change = self._changed[path]
        if change.sight is None:
            return not growing or now - change.told >= DELETION_PATIENCE_SECONDS
        return not change.sight.is_folder or path not in above

    def _look_again(self, path: Path, change: _Changed, now: float) -> None:
        sight = _look(path)
        if sight != change.sight:
            change.sight, change.since, change.is_listed = sight, now, False
            is_to_list = sight is not None and sight.is_folder
        else:
            # what was put there before the system began to watch the folder was told by nobody
            has_settled = now - change.since >= self._settle_seconds
            is_to_list = (
                sight is not None and sight.is_folder and has_settled and not change.is_listed
            )
            change.is_listed |= is_to_list
        if is_to_list:
            self.tell(self._videos(path), now)

    def _videos(self, folder: Path) -> list[Path]:
        found = scan(
            [folder],
            extensions=self._extensions,
            follow_symlinks=self._follow_symlinks,
            libraries=[folder],  # gone by now: no error
        )
        return [file.path for file in found.files]

    def _is_visible(self, path: Path) -> bool:
        if not self._ignored.isdisjoint((path, *path.parents)):
            return False
        below = [path.relative_to(root) for root in self._roots if path.is_relative_to(root)]
        return any(not any(part.startswith(".") for part in relative.parts) for relative in below)


def _look(path: Path) -> _Sight | None:
    """None where nothing is there, or nothing that can be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return _Sight(True, 0, status.st_mtime_ns)
    return _Sight(False, status.st_size, status.st_mtime_ns)


def collapse(
    paths: Iterable[Path], *, roots: Collection[Path], unsettled: Iterable[Path], most: int
) -> list[Path]:
    """Few paths that hold all of the given ones: none below another, many in one folder become that folder.

    Args:
        paths: at or below the roots.
        roots: nothing above them is given.
        unsettled: no folder that holds one of these takes the place of what is in it.
        most: how many paths are few; more are given only where folders cannot take their place.
    """
    closed = {folder for path in unsettled for folder in (path, *path.parents)}
    few = outermost(paths)
    while len(few) > most:
        inside = [path for path in few if path not in roots and path.parent not in closed]
        if not inside:
            break
        depth = max(len(path.parts) for path in inside)
        deepest = {path for path in inside if len(path.parts) == depth}
        few = outermost([path.parent if path in deepest else path for path in few])
    return few


# ---------------------------------------------------------------- watching


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at some paths finds, compared with the index."""

    differing: tuple[Path, ...]
    """Files that are new, changed or gone, or are to be tried again."""
    problems: tuple[ScanProblem, ...] = ()


class Work(Protocol):
    """What watching needs done. Each may raise; it is tried again then."""

    def busy(self) -> str | None:
        """Who else writes the index now, for people; None for nobody."""

    def survey(self, paths: Sequence[Path]) -> Survey:
        """Compares the disk with the index at and below these paths; opens no file."""

    def index(self, paths: Sequence[Path]) -> None:
        """Brings the index in line with what lies at and below these paths; none: only finishes what a run left.

        Raises:
            KeyboardInterrupt: it was stopped; watching ends.
        """

    def tell(self, text: str) -> None:
        """Something a person should know."""


def watch(
    roots: Sequence[Path],
    work: Work,
    *,
    settings: IndexerSettings | None = None,
    settle_seconds: float = SETTLE_SECONDS,
    rescan_minutes: float = RESCAN_MINUTES,
    force_polling: bool = False,
    ignored: Collection[Path] = (),
    stop: threading.Event | None = None,
) -> None:
    """Keeps an index in line with some folders, until it is stopped. Whatever fails is told and tried again.

    Args:
        roots: folders, or single files, absolute; one that is not there is waited for, also inside another.
        work: what looks, indexes and tells.
        settings: which files are videos.
        settle_seconds: how long a path has to stay the same before it is indexed.
        rescan_minutes: between two looks at everything.
        force_polling: look for changes every few seconds instead of being told by the system, for network drives.
        ignored: folders below which nothing matters, such as the index directory.
        stop: ends it when set, between two runs. Default: only Ctrl-C does.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    settling = Settling(roots, settings=settings, settle_seconds=settle_seconds, ignored=ignored)
    watcher = _Watcher(
        tuple(roots),
        work,
        settling,
        settle_seconds=settle_seconds,
        rescan_seconds=60 * rescan_minutes,
        force_polling=force_polling,
        stop=stop or threading.Event(),
    )
    watcher.run()


class _Watcher:
    """Watching: what is watched, what waits to be indexed, and what a person was told."""

    def __init__(
        self,
        roots: tuple[Path, ...],
        work: Work,
        settling: Settling,
        *,
        settle_seconds: float,
        rescan_seconds: float,
        force_polling: bool,
        stop: threading.Event,
    ) -> None:
        self.roots = roots
        self.work = work
        self.settling = settling
        self.rescan_seconds = rescan_seconds
        self.force_polling = force_polling
        self.stop = stop
        self.present: dict[Path, tuple[int, int]] = {}
        self.backlog: set[Path] = set()
        self.said: dict[str, str] = {}
        self.problems: set[tuple[Path, str]] = set()
        self.next_look = self.next_check = self.try_at = 0.0
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        self.first_by: float | None = time.monotonic() + 2 * settle_seconds
        """There was no run yet; it comes by then, with nothing to do but finish what an earlier one left."""

    def run(self) -> None:
        """Watches the roots that are there; begins anew when others are."""
        while not self.stop.is_set():
            self.find_roots()
            self.next_look = 0.0
            # the look comes with the first of these, when the system watches already: nothing falls in between
            for changes in self.changes():
                now = time.monotonic()
                self.turn(changes, now)
                if self.have_roots_changed(changes, now):
                    break

    def find_roots(self) -> None:
        """Which roots are there; a person is told of the others once, and when they are back."""
        self.present = _present(self.roots)
        for root in self.roots:
            if root not in self.present:
                self.say(str(root), f"{root} is not there now: waiting for it, its videos are kept")
            elif self.said.pop(str(root), None):
                self.work.tell(f"{root} is there again")

    def changes(self) -> Iterator[set[tuple[Change, str]]]:
        """What has changed, every second at least; ends where the folders can no longer be watched."""
        until = float("inf")
        if self.present:
            try:
                yield from watchfiles.watch(
                    *outermost(self.present),
                    watch_filter=None,
                    step=_STEP_MILLISECONDS,
                    rust_timeout=round(1000 * _TICK_SECONDS),
                    yield_on_timeout=True,
                    stop_event=self.stop,
                    force_polling=self.force_polling,
                    poll_delay_ms=_POLL_MILLISECONDS,
                    ignore_permission_denied=True,
                )
            except (OSError, RuntimeError) as error:
                until = time.monotonic() + self.longer_pause()
                self.say("events", _cannot_watch(error))
        while not self.stop.wait(_TICK_SECONDS) and time.monotonic() < until:
            yield set()

    def have_roots_changed(self, changes: set[tuple[Change, str]], now: float) -> bool:
        """Whether a root went, came back, or is another folder now: what was watched is not what is there then."""
        deleted = {Path(path) for change, path in changes if change == Change.deleted}
        if not deleted.isdisjoint(self.roots):
            return True
        if now < self.next_check:
            return False
        self.next_check = now + _CHECK_SECONDS
        return _present(self.roots) != self.present

    def turn(self, changes: set[tuple[Change, str]], now: float) -> None:
        """Looks where it is time to, and has indexed what is ready."""
        if len(changes) >= _BURST:
            self.next_look = min(self.next_look, now + _CHECK_SECONDS)
        try:
            self.settling.tell((Path(path) for _, path in changes), now)
            self.backlog.update(self.settling.ready(now))
            if now < self.try_at:
                return
            if now >= self.next_look:
                self.look(now)
            if self.backlog or self.is_first_due(now):
                self.index(now)
        except Exception as error:
            # also what should not happen: tomorrow's videos are to be found all the same
            pause = self.longer_pause()
            self.try_at = time.monotonic() + pause
            self.say("error", _described(error))

    def look(self, now: float) -> None:
        """Finds everything that differs from the index; it settles like what was told."""
        survey = self.work.survey(outermost(self.present))
        self.settling.tell(survey.differing, now)
        told, self.problems = self.problems, set()
        self.tell_problems(survey, told)
        self.next_look = now + self.rescan_seconds

    def is_first_due(self, now: float) -> bool:
        """Whether the run comes that finishes what an earlier process has left."""
        return self.first_by is not None and (self.settling.is_calm or now >= self.first_by)

    def index(self, now: float) -> None:
        """Has what is ready indexed, if nobody else writes the index and anything differs."""
        other = self.work.busy()
        if other is not None:
            self.say("busy", f"the index is being written by {other}: waiting for it")
            self.try_at = now + _BUSY_SECONDS
            return
        self.said.pop("busy", None)
        unsettled = self.settling.unsettled
        survey = self.work.survey(self.few(self.backlog, unsettled))
        self.tell_problems(survey, self.problems)
        differing = set(survey.differing).difference(unsettled)
        if differing or self.first_by is not None:
            self.work.index(self.few(differing, unsettled))
        self.backlog.clear()
        self.first_by = None
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        if self.said.pop("error", None):
            self.work.tell("it works again")

    def few(self, paths: Iterable[Path], unsettled: Sequence[Path]) -> list[Path]:
        """Few paths that hold all of these and nothing that has not settled."""
        return collapse(paths, roots=self.roots, unsettled=unsettled, most=MOST_PATHS)

    def tell_problems(self, survey: Survey, told: set[tuple[Path, str]]) -> None:
        """Tells the problems that were not told; a look at everything forgets those that are over."""
        for problem in survey.problems:
            what = (problem.path, problem.reason)
            if what not in told and str(problem.path) not in self.said:  # a root that is away
                self.work.tell(f"{problem.path}: {problem.reason}")
            self.problems.add(what)

    def longer_pause(self) -> float:
        """Seconds until the next try: each time twice as many, up to some minutes."""
        pause = self.pause_seconds
        self.pause_seconds = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return pause

    def say(self, about: str, text: str) -> None:
        """Tells something once, until it is something else or over."""
        if self.said.get(about) != text:
            self.said[about] = text
            self.work.tell(text)


def _present(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Roots that are there, with what tells one folder from another at the same place: device and inode."""
    found = {}
    for root in roots:
        with suppress(OSError):
            status = os.stat(root)
            found[root] = (status.st_dev, status.st_ino)
    return found


def _cannot_watch(error: Exception) -> str:
    return (
        f"the folders cannot be watched ({error}): they are looked at every few minutes instead. Where there are too "
        "many of them, raise fs.inotify.max_user_watches; a name that is not valid UTF-8 has to be changed."
    )


def _described(error: Exception) -> str:
    is_ours = isinstance(error, ScanonceError)
    what = str(error) if is_ours else f"{type(error).__name__}: {error}"
    return f"{what}\nIt is tried again in a while."
