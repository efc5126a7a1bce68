"""One writer at a time, any number of readers; what a writer that died left behind is cleared by the next one.

    with writing(layout, "scanonce index"):
        ...                                  # nobody else writes this index meanwhile
    owner(layout)                            # None, or who writes it now and since when

The lock is the operating system's, so that of a writer that died is free at once, whatever it left:

    writer.lock    locked while somebody writes
    writer.json    who that is; a writer that ends well takes it away, so one that is found is of a dead one
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.files import make_folder, write_whole
from scanonce.storage.layout import IndexLayout, remove_superseded
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore

_LOCK, _OWNER = "writer.lock", "writer.json"
_PATIENCE_SECONDS = 1.0  # a look at the lock by `owner` holds it for a moment


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes an index, or wrote it when it died."""

    pid: int
    host: str
    doing: str
    """The command, for people."""
    since: float
    """Seconds since 1970, by the clock of then."""

    @property
    def age_seconds(self) -> float:
        """How long ago it began, at least 0: clocks are set back now and then."""
        return max(0.0, time.time() - self.since)


_held: dict[str, tuple[int, int]] = {}  # lock file -> process and thread that hold it
_held_lock = threading.Lock()


@contextmanager
def writing(layout: IndexLayout, doing: str) -> Iterator[Owner | None]:
    """Holds the index for writing; again within itself, in the same thread, it holds nothing more.

    Args:
        layout: the index; its folder is made where it does not exist.
        doing: the command, for whoever finds the index taken.

    Yields:
        The writer that died holding it, whose leavings were just cleared; None where the last one ended well.

    Raises:
        IndexDirectoryError: another process or thread writes it, nothing can be written there, or another index has
            taken its place since ``layout`` was looked up.
    """
    _refuse_superseded(layout)
    folder = _lock_folder(layout)
    with _mapped_errors(layout):
        make_folder(folder)
        path = os.path.realpath(folder / _LOCK)
    with _held_lock:
        is_mine = _held.get(path) == (os.getpid(), threading.get_ident())
    if is_mine:
        yield None
        return
    with _locked(layout, path):
        _refuse_superseded(layout)  # it may have been while we waited
        with _held_lock:
            _held[path] = os.getpid(), threading.get_ident()
        try:
            with _mapped_errors(layout):
                died = _read(folder / _OWNER)
                if died is not None:
                    clear_leavings(layout)
                _clear_unfinished_note(folder)
            me = Owner(os.getpid(), socket.gethostname(), doing, time.time())
            content = json.dumps(asdict(me)).encode()
            write_whole(folder / _OWNER, lambda file: file.write(content))
            yield died
            # reached only where nothing was raised: after an error the next writer clears
            with contextlib.suppress(OSError):
                (folder / _OWNER).unlink()
        finally:
            with _held_lock:
                del _held[path]


def owner(layout: IndexLayout) -> Owner | None:
    """Who writes the index at this moment; None for nobody."""
    folder = _lock_folder(layout)
    if not (folder / _LOCK).exists():
        return None
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return None
    except Timeout:
        just_begun = Owner(0, socket.gethostname(), "just begun", time.time())
        return _read(folder / _OWNER) or just_begun
    except OSError:  # read-only: nobody writes there
        return None


def refuse_while_written(layout: IndexLayout) -> None:
    """Raises IndexDirectoryError where somebody writes the index at this moment."""
    other = owner(layout)
    if other is not None:
        raise _taken(layout, other)


def clear_leavings(layout: IndexLayout) -> list[Path]:
    """Removes what a writer that died left: temporary files, old generations, files of contents that are unknown.

    Call it while holding the index; `writing` does after a death. Costs a look at every file of the index.

    Returns:
        What was removed.
    """
    unnamed = (*layout.folder.glob(".tmp-*"), *layout.head.glob(".tmp-*"))
    removed = [path for path in unnamed if path.is_file()]
    # without a catalogue all files would be unknown, and it may come back from a backup
    if layout.catalog.exists():
        with Catalog.open(layout.catalog) as catalog:
            known = catalog.uids()
        for store in content_stores(layout):
            removed += store.orphans(known)
    for path in removed:
        path.unlink(missing_ok=True)
    remove_superseded(layout)
    unfinished: list[Path] = []
    unfinished += layout.vectors.glob("staging-*")
    # a writer that died while it swept may leave one half; of those that are whole two are kept
    unfinished += sorted(layout.vectors.glob("[0-9]*"))[:-2]
    # earlier versions could keep the anchors as a library-wide index too
    unfinished += layout.anchors.glob("*/vectors")
    for path in unfinished:
        shutil.rmtree(path, ignore_errors=True)
    return [*removed, *unfinished]


def content_stores(layout: IndexLayout) -> list[ContentFiles]:
    """Every store of an index that keeps a file for each content; of anchors, those of all localisers."""
    anchors = [AnchorStore(folder) for folder in sorted(layout.anchors.glob("*-*"))]
    return [FeatureStore(layout.features), ThumbnailStore(layout.thumbnails), *anchors]


def delete_stored(layout: IndexLayout, videos: Iterable[Video]) -> None:
    """Deletes what was derived of videos that are gone from the catalogue."""
    stores = content_stores(layout)
    for video in videos:
        for store in stores:
            store.delete(video.uid)


def _lock_folder(layout: IndexLayout) -> Path:
    """The index directory; for an index that grows beside the one in use, its own folder."""
    return layout.root if IndexLayout.of(layout.root) == layout else layout.folder


def _clear_unfinished_note(folder: Path) -> None:
    """What is left of a writer that died before it had noted who it is: nobody could tell that it died."""
    for path in folder.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _refuse_superseded(layout: IndexLayout) -> None:
    if layout.number < IndexLayout.of(layout.root).number:
        raise IndexDirectoryError(
            f"the index {layout.root} was switched to another encoder or restored meanwhile: run again"
        )


@contextmanager
def _locked(layout: IndexLayout, path: str) -> Iterator[None]:
    lock = FileLock(path, timeout=_PATIENCE_SECONDS, thread_local=False)
    try:
        with _mapped_errors(layout):
            lock.acquire()
    except Timeout as error:
        raise _taken(layout, _read(Path(path).with_name(_OWNER))) from error
    try:
        yield
    finally:
        lock.release()


def _taken(layout: IndexLayout, other: Owner | None) -> IndexDirectoryError:
    who = f"process {other.pid} on {other.host} ({other.doing}" if other else "another process ("
    since = f", for {timedelta(seconds=round(other.age_seconds))})" if other else "just begun)"
    return IndexDirectoryError(
        f"the index {layout.root} is being written by {who}{since}: wait until it has ended, or stop it. "
        "Searching goes on meanwhile."
    )


@contextmanager
def _mapped_errors(layout: IndexLayout) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise IndexDirectoryError(
            f"the index {layout.root} cannot be written ({error.strerror or error}). Make room or check the folder's "
            "permissions, then run the same command again: what is stored already is kept."
        ) from error


def _read(path: Path) -> Owner | None:
    """What a writer wrote of itself; one that makes no sense is still of one that died."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        values: dict[str, Any] = json.loads(content)
        return Owner(int(values["pid"]), values["host"], values["doing"], float(values["since"]))
    except (ValueError, KeyError, TypeError):
        return Owner(0, "", "unknown", 0.0)
