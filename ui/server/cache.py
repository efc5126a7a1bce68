"""Proxies and clips that are made once and kept as long as there is room."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from scanonce.media.cut import Progress
from scanonce.storage.errors import VideoError

Make = Callable[[Path, Progress, threading.Event], None]
"""Writes a file; tells its progress from 0 to 1; stops when the event is set."""


_FAILED_FOR_SECONDS = 30.0  # so that a page that polls hears of it


@dataclass(frozen=True, slots=True)
class MakingState:
    """How far a file of the cache is."""

    state: Literal["absent", "making", "ready", "failed"]
    progress: float = 0.0
    """0 to 1."""
    reason: str | None = None
    """Why it failed."""


@dataclass(slots=True)
class _Job:
    """A file that is being made, or could not be."""

    cancel: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    progress: float = 0.0
    reason: str | None = None
    failed_at: float | None = None


class ProxyCache:
    """Proxies and clips in one folder of limited size; what was used longest ago goes first.

    Safe for threads. A file is made once, however many ask for it, and not deleted while it is lent out.
    """

    def __init__(self, folder: Path, max_bytes: int = 4 << 30) -> None:
        """The folder is made with its first file; files that a crash left unfinished are deleted."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._lent: dict[str, int] = {}
        # a clip should not wait for a proxy of a film
        self._lanes = {
            lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in ("proxy", "clip")
        }
        self._is_closed = False
        long_ago = time.time() - 6 * 3600
        for path in folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < long_ago:
                    path.unlink()

    def path(self, key: str) -> Path:
        """Where a file lies or would lie."""
        assert re.fullmatch(r"[0-9a-z-]+", key), key
        return self.folder / f"{key}.mp4"

    def state(self, key: str) -> MakingState:
        """How far it is; does not start anything."""
        with self._lock:
            return self._state(key)

    def start(self, key: str, make: Make, *, lane: str = "proxy") -> MakingState:
        """Has it made, unless it is there or being made, or has just failed."""
        with self._lock:
            found = self._state(key)
            if found.state == "absent" and not self._is_closed:
                job = self._jobs[key] = _Job()
                self._lanes[lane].submit(self._make, key, make, job)
                found = self._state(key)
            return found

    def wait(self, key: str, make: Make, *, lane: str = "clip") -> MakingState:
        """Has it made and waits for the end of it: ready or failed."""
        state = self.start(key, make, lane=lane)
        with self._lock:
            job = self._jobs.get(key)
        if state.state == "making" and job is not None:
            job.done.wait()
            return MakingState("failed", 0.0, job.reason) if job.reason else self.state(key)
        return state

    def cancel(self, key: str) -> None:
        """Stops making it; waits until that has ended."""
        with self._lock:
            job = self._jobs.get(key)
        if job is not None:
            job.cancel.set()
            job.done.wait()

    def close(self) -> None:
        """Stops everything that is being made."""
        with self._lock:
            self._is_closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel.set()
        for lane in self._lanes.values():
            lane.shutdown(cancel_futures=True)
        for job in jobs:
            job.done.set()

    def borrow(self, key: str) -> Path | None:
        """The file, which stays until :meth:`give_back`; None where there is none."""
        path = self.path(key)
        with self._lock:
            try:
                os.utime(path)  # the time of the last change is that of the last use
            except OSError:
                return None
            self._lent[key] = self._lent.get(key, 0) + 1
            return path

    def give_back(self, key: str) -> None:
        """The counterpart of :meth:`borrow`."""
        with self._lock:
            self._lent[key] -= 1
            if not self._lent[key]:
                del self._lent[key]

    def size_bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size, _ in self._files())

    def _state(self, key: str) -> MakingState:
        job = self._jobs.get(key)
        if job is not None and job.failed_at is None:
            return MakingState("making", job.progress)
        if self.path(key).exists():
            return MakingState("ready", 1.0)
        if job is not None and job.failed_at is not None:
            if time.monotonic() - job.failed_at < _FAILED_FOR_SECONDS:
                return MakingState("failed", 0.0, job.reason)
            del self._jobs[key]
        return MakingState("absent")

    def _make(self, key: str, make: Make, job: _Job) -> None:
        def progress(share: float) -> None:
            job.progress = min(max(share, job.progress), 1.0)

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if job.cancel.is_set():
                raise VideoError("it was cancelled")
            make(self.path(key), progress, job.cancel)
        except VideoError as error:
            job.reason = str(error)
        except Exception as error:  # a thread of ours: told to whoever asked, not lost
            job.reason = f"it could not be made ({type(error).__name__}: {error})"
        with self._lock:
            if job.reason is None:
                del self._jobs[key]
                self._make_room(key)
            else:
                job.failed_at = time.monotonic()
        job.done.set()

    def _make_room(self, newest: str) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self.max_bytes
        for _, size, path in files:
            if excess <= 0:
                return
            if path.stem != newest and path.stem not in self._lent:
                with contextlib.suppress(OSError):
                    path.unlink()
                    excess -= size

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """``(last use, bytes, path)``."""
        for path in self.folder.glob("[!.]*.mp4"):
            with contextlib.suppress(OSError):
                status = path.stat()
                yield status.st_mtime_ns, status.st_size, path
