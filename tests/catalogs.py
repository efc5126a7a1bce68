"""Videos for tests of the catalogue; the fixture ``catalog`` is in conftest.py."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.records import VideoInfo

LIBRARY = Path("/films")
INFO = VideoInfo(duration_seconds=9.0, width=64, height=48, fps=25.0, codec="h264")


def content(name: str, *, fast: str | None = None) -> Content:
    return Content(uid=name, fast_hash=fast or name, size_bytes=100)


def stamp(name: str, *, mtime_ns: int = 1) -> FileStamp:
    return FileStamp(LIBRARY / name, 100, mtime_ns)


def record(
    catalog: Catalog,
    name: str,
    *paths: str,
    fast: str | None = None,
    mtime_ns: int = 1,
    seconds: float = 8.0,
    reason: str | None = None,
    replaces: int | None = None,
) -> int:
    """Record a searchable video at these paths, by default ``name.mp4``; it is partial if there is a reason."""
    return catalog.record_indexed(
        content(name, fast=fast),
        [stamp(path, mtime_ns=mtime_ns) for path in paths or (f"{name}.mp4",)],
        state="partial" if reason else "indexed",
        duration_seconds=seconds,
        num_frames=16,
        info=INFO,
        reason=reason,
        replaces=replaces,
    )


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on the database file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def running(action: Callable[[], object], *, times: int = 1) -> Iterator[threading.Event]:
    """Run an action in threads; yields an event that is set afterwards, and raises what an action raised."""
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)
        done.set()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        for thread in threads:
            thread.join()
    assert errors == []
