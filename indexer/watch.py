"""Watches folders: a video file that changes is indexed once it has stopped growing.

    watch([Path("/films")], index)           # until Ctrl-C; `index` is a `WatchedIndex`

:class:`Settling` decides when a changed path is ready. It gets the time and the events as arguments, so tests need
neither a clock nor a file system that reports changes. :func:`watch` gets its events from the operating system, and
from surveys of all folders: at the start, every hour, and when a root comes back. A lost event therefore costs an hour
at most, and changes made while nothing was watching are found.
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
from scanonce.indexer.selection import NO_MEDIA, Selection
from scanonce.indexer.settings import IndexerSettings, WatchSettings
from scanonce.storage.errors import ScanonceError

DELETION_PATIENCE_SECONDS = 600.0
"""Longest time a deletion waits for files that are being written: a camera never stops writing."""
MAX_PATHS = 200
"""Most paths given to one run; if more have changed, their folders are given instead."""

_TICK_SECONDS = 1.0
_STEP_MILLISECONDS = 200  # changes within this time arrive together
_CHECK_SECONDS = 10.0  # between two checks that the roots are still the same folders
_BUSY_SECONDS = 10.0  # until the next try if another process writes the index
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 300.0  # after an error
_POLL_MILLISECONDS = 5_000
_BURST = 10_000  # with this many changes at once the system has probably dropped some


# ---------------------------------------------------------------- when a path is ready


@dataclass(frozen=True, slots=True)
class _PathState:
    """State of a path on the disk."""

    is_folder: bool
    size_bytes: int
    mtime_ns: int


@dataclass(slots=True)
class _Pending:
    """A path that has changed and is not ready. Times are seconds of the caller's clock."""

    state: _PathState | None
    """None: it does not exist."""
    since: float
    """Time since which it has had this state."""
    added_at: float
    is_listed: bool = False
    """For a folder: its videos were listed again after it had settled."""


class Settling:
    """The changed paths that have not stopped changing.

    A file is ready when its size and modification time have been the same for a while. Their values do not matter, so a
    time in the future is as good as any. A deletion waits as long, and also for files that are being written: a move to
    another disk is a copy and then a deletion, and if both are given to one run, nothing is decoded. The videos in a
    new folder wait one by one, and the folder waits for all of them.

    >>> settling = Settling([Path("/films")], settle_seconds=5)
    >>> settling.add([Path("/films/gone.mp4"), Path("/films/.hidden.mp4")], now=0)
    >>> settling.ready(now=4), settling.ready(now=5)
    ([], [PosixPath('/films/gone.mp4')])
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        settle_seconds: float,
        files: IndexerSettings | None = None,
        ignored: Collection[Path] = (),
    ) -> None:
        """Begin without a changed path.

        Args:
            roots: absolute paths.
            settle_seconds: how long a path has to stay the same.
            files: extensions of videos, files that are left out, and whether links are followed.
            ignored: folders to ignore with everything in them, such as the index directory.
        """
        self._roots = tuple(roots)
        self._files, self._ignored = files, tuple(ignored)
        self._settle_seconds = settle_seconds
        self._pending: dict[Path, _Pending] = {}

    @property
    def unsettled(self) -> list[Path]:
        """The paths that exist and are not ready."""
        return [path for path, each in self._pending.items() if each.state is not None]

    @property
    def is_empty(self) -> bool:
        """Whether no path waits."""
        return not self._pending

    def add(self, paths: Iterable[Path], now: float) -> None:
        """Add paths that have changed.

        Args:
            paths: absolute; those that are no videos or folders of the library are ignored.
            now: seconds of a clock that never goes back.
        """
        selection = Selection(self._files, self._ignored)
        for path in paths:
            if path.name == NO_MEDIA:
                path = path.parent  # all of it has to leave the index, or to come in
            elif selection.why_left_out(path, self._roots):
                continue
            if path in self._pending or not self._is_below_a_root(path):
                continue
            state = _read_state(path)
            # A path that is gone may have been a folder, whatever its name.
            if state is None or state.is_folder or selection.is_video(str(path)):
                self._pending[path] = _Pending(state, now, now)
                if state is not None and state.is_folder:
                    self.add(self._videos(path), now)

    def ready(self, now: float) -> list[Path]:
        """Remove and return the paths that have stopped changing, sorted. Reads the state of every path that waits."""
        for path, each in list(self._pending.items()):
            self._update(path, each, now)
        settled = {
            path for path, each in self._pending.items() if now - each.since >= self._settle_seconds
        }
        growing = set(self.unsettled) - settled
        above = {folder for path in growing for folder in path.parents}
        ready = [path for path in settled if self._may_go(path, now, growing=growing, above=above)]
        for path in ready:
            del self._pending[path]
        return sorted(ready)

    def _may_go(self, path: Path, now: float, *, growing: set[Path], above: set[Path]) -> bool:
        """Whether a path that has settled need not wait for paths that have not."""
        each = self._pending[path]
        if each.state is None:
            return not growing or now - each.added_at >= DELETION_PATIENCE_SECONDS
        return not each.state.is_folder or path not in above

    def _update(self, path: Path, each: _Pending, now: float) -> None:
        state = _read_state(path)
        is_folder = state is not None and state.is_folder
        if state != each.state:
            each.state, each.since, each.is_listed = state, now, False
            is_to_list = is_folder
        else:
            # Files that came into a new folder before the system watched it caused no event.
            has_settled = now - each.since >= self._settle_seconds
            is_to_list = is_folder and has_settled and not each.is_listed
            each.is_listed |= is_to_list
        if is_to_list:
            self.add(self._videos(path), now)

    def _videos(self, folder: Path) -> list[Path]:
        # a library, so that it is no error if it is gone by now
        selection = Selection(self._files, self._ignored)
        found = scan([folder], selection, libraries=[folder])
        return [file.path for file in found.files]

    def _is_below_a_root(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)


def _read_state(path: Path) -> _PathState | None:
    """Return the state of a path; None if it does not exist or cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return _PathState(True, 0, status.st_mtime_ns)
    return _PathState(False, status.st_size, status.st_mtime_ns)


def collapse(
    paths: Iterable[Path], *, roots: Collection[Path], unsettled: Iterable[Path], most: int
) -> list[Path]:
    """Reduce paths to a few that contain them all: none is below another, and many in one folder become that folder.

    Args:
        paths: at or below the roots.
        roots: no path above these is returned.
        unsettled: a folder that contains one of these does not replace the paths in it.
        most: most paths to return; more are returned only if no folder can replace them.
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
    """The files below some paths that differ from the index."""

    differing: tuple[Path, ...]
    """Files that are new, changed or gone, or that are to be tried again."""
    problems: tuple[ScanProblem, ...] = ()


class WatchedIndex(Protocol):
    """The index that watching keeps up to date. Each method may raise an error; it is called again later."""

    def busy(self) -> str | None:
        """Return the other process that writes the index now, as text for people; None if there is none."""

    def survey(self, paths: Sequence[Path]) -> Survey:
        """Compare the disk with the index at and below these paths; opens no file."""

    def index(self, paths: Sequence[Path]) -> None:
        """Bring the index in line with the files at and below these paths.

        Args:
            paths: may be empty: then only the work of an interrupted run is finished.

        Raises:
            KeyboardInterrupt: it was stopped; watching ends.
        """

    def report(self, text: str) -> None:
        """Show a message to people."""


def watch(
    roots: Sequence[Path],
    index: WatchedIndex,
    *,
    files: IndexerSettings | None = None,
    settings: WatchSettings | None = None,
    ignored: Collection[Path] = (),
    stop: threading.Event | None = None,
) -> None:
    """Keep an index in line with some folders until it is stopped. Errors are reported, and the step is tried again.

    Args:
        roots: folders or single files, absolute. A missing one is waited for, also if it is inside another root.
        index: the index.
        files: extensions of videos, files that are left out, and whether links are followed.
        settings: how to watch.
        ignored: folders to ignore with everything in them, such as the index directory.
        stop: ends it when set, between two runs. Default: only Ctrl-C ends it.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    _Watcher(
        tuple(roots),
        index,
        files or IndexerSettings(),
        settings or WatchSettings(),
        ignored,
        stop or threading.Event(),
    ).run()


class _Watcher:
    """The state of watching: the roots that exist, the paths to index, and the messages reported."""

    def __init__(
        self,
        roots: tuple[Path, ...],
        index: WatchedIndex,
        files: IndexerSettings,
        settings: WatchSettings,
        ignored: Collection[Path],
        stop: threading.Event,
    ) -> None:
        self.roots = roots
        self.target = index
        self.settling = Settling(
            roots, settle_seconds=settings.settle_seconds, files=files, ignored=ignored
        )
        self.rescan_seconds = 60 * settings.rescan_minutes
        self.force_polling = settings.force_polling
        self.stop = stop
        self.present: dict[Path, tuple[int, int]] = {}
        self.backlog: set[Path] = set()
        self.current_messages: dict[str, str] = {}
        """The last message about each subject that is not over."""
        self.problems: set[tuple[Path, str]] = set()
        self.next_survey = self.next_check = self.try_at = 0.0
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        self.first_run_by: float | None = time.monotonic() + 2 * settings.settle_seconds
        """Until the first run: the time of that run at the latest, even if it has only to finish an interrupted one."""

    def run(self) -> None:
        """Watch the roots that exist; begin again when others do."""
        while not self.stop.is_set():
            self.find_roots()
            self.next_survey = 0.0
            # The survey comes with the first of these, when the system watches already: no change falls in between.
            for changes in self.changes():
                now = time.monotonic()
                self.handle(changes, now)
                if self.have_roots_changed(changes, now):
                    break

    def find_roots(self) -> None:
        """Find the roots that exist; report the missing ones once, and again when they are back."""
        self.present = _present(self.roots)
        for root in self.roots:
            if root not in self.present:
                self.report_once(
                    str(root), f"{root} is not there now: waiting for it, its videos are kept"
                )
            elif self.current_messages.pop(str(root), None):
                self.target.report(f"{root} is there again")

    def changes(self) -> Iterator[set[tuple[Change, str]]]:
        """Give the changes of each second, or an empty set; ends if the folders can no longer be watched."""
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
                self.report_once("events", _cannot_watch(error))
        while not self.stop.wait(_TICK_SECONDS) and time.monotonic() < until:
            yield set()

    def have_roots_changed(self, changes: set[tuple[Change, str]], now: float) -> bool:
        """Whether a root went, came back, or is another folder now, which the system does not watch."""
        deleted = {Path(path) for change, path in changes if change == Change.deleted}
        if not deleted.isdisjoint(self.roots):
            return True
        if now < self.next_check:
            return False
        self.next_check = now + _CHECK_SECONDS
        return _present(self.roots) != self.present

    def handle(self, changes: set[tuple[Change, str]], now: float) -> None:
        """Take in some changes, survey all folders if it is time, and index the paths that are ready."""
        if len(changes) >= _BURST:
            self.next_survey = min(self.next_survey, now + _CHECK_SECONDS)
        try:
            self.settling.add((Path(path) for _, path in changes), now)
            self.backlog.update(self.settling.ready(now))
            if now < self.try_at:
                return
            if now >= self.next_survey:
                self.survey_all(now)
            if self.backlog or self.is_first_run_due(now):
                self.index_ready(now)
        except Exception as error:
            # Any error, even a bug: watching goes on, so that later videos are found.
            pause = self.longer_pause()
            self.try_at = time.monotonic() + pause
            self.report_once("error", _described(error))

    def survey_all(self, now: float) -> None:
        """Find all files that differ from the index; they settle like those of events."""
        survey = self.target.survey(outermost(self.present))
        self.settling.add(survey.differing, now)
        # Problems that are over are dropped, so that they are reported if they come back.
        known, self.problems = self.problems, set()
        self.report_new_problems(survey, known)
        self.next_survey = now + self.rescan_seconds

    def is_first_run_due(self, now: float) -> bool:
        """Whether it is time for the first run, which finishes the work of an earlier process."""
        return self.first_run_by is not None and (
            self.settling.is_empty or now >= self.first_run_by
        )

    def index_ready(self, now: float) -> None:
        """Index the paths that are ready, if no other process writes the index and they differ from it."""
        other = self.target.busy()
        if other is not None:
            self.report_once("busy", f"the index is being written by {other}: waiting for it")
            self.try_at = now + _BUSY_SECONDS
            return
        self.current_messages.pop("busy", None)
        unsettled = self.settling.unsettled
        survey = self.target.survey(self.few(self.backlog, unsettled))
        self.report_new_problems(survey, self.problems)
        differing = set(survey.differing).difference(unsettled)
        if differing or self.first_run_by is not None:
            self.target.index(self.few(differing, unsettled))
        self.backlog.clear()
        self.first_run_by = None
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        if self.current_messages.pop("error", None):
            self.target.report("it works again")

    def few(self, paths: Iterable[Path], unsettled: Sequence[Path]) -> list[Path]:
        """Reduce paths to a few that contain them all and none that has not settled."""
        return collapse(paths, roots=self.roots, unsettled=unsettled, most=MAX_PATHS)

    def report_new_problems(self, survey: Survey, known: set[tuple[Path, str]]) -> None:
        """Report the problems of a survey that are not known."""
        for problem in survey.problems:
            what = (problem.path, problem.reason)
            is_missing_root = str(problem.path) in self.current_messages
            if what not in known and not is_missing_root:
                self.target.report(f"{problem.path}: {problem.reason}")
            self.problems.add(what)

    def longer_pause(self) -> float:
        """Return the seconds until the next try, which double with each call up to some minutes."""
        pause = self.pause_seconds
        self.pause_seconds = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return pause

    def report_once(self, about: str, text: str) -> None:
        """Report a message unless it is the last one about its subject."""
        if self.current_messages.get(about) != text:
            self.current_messages[about] = text
            self.target.report(text)


def _present(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return the roots that exist, with device and inode: another folder at the same path has others."""
    found = {}
    for root in roots:
        with suppress(OSError):
            status = os.stat(root)
            found[root] = (status.st_dev, status.st_ino)
    return found


def _cannot_watch(error: Exception) -> str:
    return (
        f"the folders cannot be watched ({error}): they are checked every few minutes instead. If there are too many, "
        "raise fs.inotify.max_user_watches; if a name is not valid UTF-8, rename it."
    )


def _described(error: Exception) -> str:
    is_ours = isinstance(error, ScanonceError)
    what = str(error) if is_ours else f"{type(error).__name__}: {error}"
    return f"{what}\nIt is tried again in a while."
