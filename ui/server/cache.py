"""Proxies and clips: made once, and kept while there is room for them."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from scanonce.media.cut import Progress
from scanonce.storage.errors import VideoError
from scanonce.storage.untrusted import inside
from scanonce.ui.reports import unexpected

Make = Callable[[Path, Progress, threading.Event], None]
"""Writes a file; reports its progress from 0 to 1; stops when the event is set."""

CACHE_BYTES = 4 << 30
"""Maximum size of a cache."""

Queue = Literal["proxy", "clip"]

_FAILED_FOR_SECONDS = 30.0  # long enough for a polling page to see the reason
_CRASHED_AFTER_SECONDS = 6 * 3600  # `media.cut` gives up on a proxy by then


@dataclass(frozen=True, slots=True)
class MakingState:
    """The state of a file of the cache."""

    state: Literal["absent", "making", "ready", "failed"]
    progress: float = 0.0
    """0 to 1."""
    reason: str | None = None
    """Why it failed."""


@dataclass(slots=True)
class _Job:
    """A file that is being made, or has failed."""

    cancel: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    progress: float = 0.0
    reason: str | None = None
    failed_at: float | None = None


class ProxyCache:
    """Proxies and clips in one folder of limited size; the least recently used go first.

    Thread-safe. A file is made once, however many ask for it, and not deleted while it is in use.
    """

    def __init__(self, folder: Path, max_bytes: int = CACHE_BYTES) -> None:
        """The folder is made with its first file. Unfinished files of a crash are deleted."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._in_use: dict[str, int] = {}
        # two queues: a clip of seconds does not wait for the proxy of a film
        self._queues: dict[Queue, ThreadPoolExecutor] = {
            "proxy": ThreadPoolExecutor(1, thread_name_prefix="proxy"),
            "clip": ThreadPoolExecutor(1, thread_name_prefix="clip"),
        }
        self._is_closed = False
        long_ago = time.time() - _CRASHED_AFTER_SECONDS
        for path in folder.glob(".tmp-*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < long_ago:
                    path.unlink()

    def path(self, key: str) -> Path:
        """Return the path of a file, which need not exist."""
        assert re.fullmatch(r"[0-9a-z-]+", key), key
        return self.folder / f"{key}.mp4"

    def state(self, key: str) -> MakingState:
        """Return the state of a file; starts nothing."""
        with self._lock:
            return self._state(key)

    def start(self, key: str, make: Make, *, queue: Queue = "proxy") -> MakingState:
        """Have a file made, unless it exists, is being made, or has just failed."""
        with self._lock:
            found = self._state(key)
            if found.state == "absent" and not self._is_closed:
                job = self._jobs[key] = _Job()
                self._queues[queue].submit(self._make, key, make, job)
                found = self._state(key)
            return found

    def wait(self, key: str, make: Make, *, queue: Queue = "clip") -> MakingState:
        """Have a file made, and wait until it is ready or has failed."""
        state = self.start(key, make, queue=queue)
        with self._lock:
            job = self._jobs.get(key)
        if state.state == "making" and job is not None:
            job.done.wait()
            return MakingState("failed", 0.0, job.reason) if job.reason else self.state(key)
        return state

    def cancel(self, key: str) -> None:
        """Stop making a file, and wait until that has ended."""
        with self._lock:
            job = self._jobs.get(key)
        if job is not None:
            job.cancel.set()
            job.done.wait()

    def close(self) -> None:
        """Stop making all files."""
        with self._lock:
            self._is_closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel.set()
        for queue in self._queues.values():
            queue.shutdown(cancel_futures=True)
        for job in jobs:
            job.done.set()

    def acquire(self, key: str) -> Path | None:
        """Return the path of a file, which stays until :meth:`release`; None if there is none."""
        path = self.path(key)
        with self._lock:
            if not _is_file(path):
                return None
            with contextlib.suppress(OSError):  # a read-only index serves what it has
                os.utime(path)  # the modification time serves as the time of the last use
            self._in_use[key] = self._in_use.get(key, 0) + 1
            return path

    def release(self, key: str) -> None:
        """Undo one :meth:`acquire`."""
        with self._lock:
            self._in_use[key] -= 1
            if not self._in_use[key]:
                del self._in_use[key]

    def size_bytes(self) -> int:
        """Return the size of all files."""
        return sum(size for _, size, _ in self._files())

    def _state(self, key: str) -> MakingState:
        job = self._jobs.get(key)
        if job is not None and job.failed_at is None:
            return MakingState("making", job.progress)
        if _is_file(self.path(key)):
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
        except OSError as error:
            job.reason = (
                f"nothing can be written to {self.folder} ({error.strerror or error}): make room, or let the user of "
                "the server write there; searching and playing the video itself need neither"
            )
        except Exception as error:  # an executor would swallow it: it becomes the reason instead
            job.reason = f"it could not be made: {unexpected(error)}"
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
            if path.stem != newest and path.stem not in self._in_use:
                with contextlib.suppress(OSError):
                    path.unlink()
                    excess -= size

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield ``(last use, bytes, path)``."""
        for path in self.folder.glob("[!.]*.mp4"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                yield status.st_mtime_ns, status.st_size, path


def _is_file(path: Path) -> bool:
    """Whether there is a file, and no link: one in an index of somebody else would publish what it leads to."""
    return path.is_file() and not path.is_symlink()


@cache
def proxy_cache(index_root: Path) -> ProxyCache:
    """Return the cache of an index directory, in ``cache/``: one for the server and its pages in this process.

    Raises:
        IndexDirectoryError: the folder is a link.
    """
    return ProxyCache(inside(index_root, "cache"))
