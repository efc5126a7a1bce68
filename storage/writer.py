"""One writer at a time, any number of readers; the next writer removes what a dead writer left.

    with writing(layout, "scanonce index"):
        ...                                  # no other process or thread writes this index
    owner(layout)                            # None, or the process that writes it now

The lock is the operating system's, so that of a dead writer is free at once:

    writer.lock    locked while a process writes
    writer.json    that process; a writer that ends well removes it, so if the lock is free, its writer has died
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import make_folder, write_whole
from scanonce.storage.layout import IndexLayout, remove_superseded
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.untrusted import DamagedFile, read_json

_LOCK, _OWNER = "writer.lock", "writer.json"
_SETTLED_SECONDS = 5.0  # for a process that begins to write its note, or children to end
_LATEST = 1e11  # the year 5138
_PATIENCE_SECONDS = 1.0  # `owner` holds the lock for a moment to see whether it is free


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that writes an index, or wrote it when it died."""

    pid: int
    host: str
    doing: str
    """The command, for people."""
    since: float
    """Seconds since 1970, by its own clock."""

    @property
    def age_seconds(self) -> float:
        """Seconds since it began, at least 0: a clock may be set back."""
        return max(0.0, time.time() - self.since)


_held: dict[str, tuple[int, int]] = {}  # lock file -> process and thread that hold it
_held_lock = threading.Lock()


@contextmanager
def writing(layout: IndexLayout, doing: str) -> Iterator[Owner | None]:
    """Lock the index for writing. In the thread that holds the lock already, this does nothing more.

    Args:
        layout: the index; its folder is made if it does not exist.
        doing: the command, shown to others that want to write.

    Yields:
        The writer that died with the lock, whose leftovers were just removed; None if the last one ended well.

    Raises:
        IndexDirectoryError: another process or thread writes the index, nothing can be written there, another index
            has replaced it since ``layout`` was read, or a part of it is a link.
    """
    _refuse_superseded(layout)
    layout.refuse_links()
    folder = _lock_folder(layout)
    with reported(layout.root, "written"):
        make_folder(folder)
        path = os.path.realpath(folder / _LOCK)
    with _held_lock:
        is_mine = _held.get(path) == (os.getpid(), threading.get_ident())
    if is_mine:
        yield None
        return
    with _locked(layout, path):
        _refuse_superseded(layout)  # a switch may have come while we waited
        with _held_lock:
            _held[path] = os.getpid(), threading.get_ident()
        try:
            with reported(layout.root, "written"):
                died = _read(folder / _OWNER)
                if died is not None:
                    remove_leftovers(layout)
                _remove_unfinished_note(folder)
            me = Owner(os.getpid(), socket.gethostname(), doing, time.time())
            content = json.dumps(asdict(me)).encode()
            write_whole(folder / _OWNER, lambda file: file.write(content))
            yield died
            # Not reached after an error: the note stays, and the next writer removes the leftovers.
            with contextlib.suppress(OSError):
                (folder / _OWNER).unlink()
        finally:
            with _held_lock:
                del _held[path]


def owner(layout: IndexLayout) -> Owner | None:
    """Return the process that writes the index now; None if there is none."""
    folder = _lock_folder(layout)
    if not (folder / _LOCK).exists():
        return None
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return None
    except Timeout:
        just_begun = Owner(0, socket.gethostname(), "just begun", time.time())
        return _read(folder / _OWNER) or just_begun
    except OSError:  # a read-only folder has no writer
        return None


def refuse_while_written(layout: IndexLayout) -> None:
    """Raise IndexDirectoryError if a process writes the index now.

    A lock without a note is of a process that just begins or ends: children of the last writer hold it until they are
    gone, too. So it is looked at again for some seconds.
    """
    until = time.monotonic() + _SETTLED_SECONDS
    while (other := owner(layout)) is not None:
        if other.pid or time.monotonic() >= until:
            raise _taken(layout, other)
        time.sleep(0.05)


def remove_leftovers(layout: IndexLayout) -> list[Path]:
    """Remove what a dead writer left; see `find_leftovers`. Reads the name of every file of the index.

    Call it while holding the lock; `writing` does so after a death.

    Returns:
        The files and folders removed.
    """
    known = None
    if layout.catalog.exists():
        with Catalog.open(layout.catalog) as catalog:
            known = catalog.uids()
    leftovers = find_leftovers(layout, known)
    folders = [path for path in leftovers if path.is_dir()]
    for path in leftovers:
        if path not in folders:
            path.unlink(missing_ok=True)
    remove_superseded(layout)
    for path in folders:
        shutil.rmtree(path, ignore_errors=True)
    return leftovers


def find_leftovers(layout: IndexLayout, known: Collection[str] | None) -> list[Path]:
    """Return the temporary files, unfinished or old generations, and orphaned files of an index.

    Args:
        layout: the index.
        known: uids of the contents in the catalogue. None if there is no catalogue: then no file is an orphan, since
            the catalogue may come back from a backup.
    """
    temporary = (*layout.folder.glob(".tmp-*"), *layout.head.glob(".tmp-*"))
    found = [path for path in temporary if path.is_file()]
    if known is not None:
        for store in content_stores(layout):
            found += store.orphans(known)
    found += layout.vectors.glob("staging-*")
    # Two generations are kept. Older ones remain if a writer died while it removed them.
    found += sorted(layout.vectors.glob("[0-9]*"))[:-2]
    # Earlier versions could keep a vector index of the anchors too.
    found += [path for folder in layout.anchor_folders() for path in folder.glob("vectors")]
    return found


def content_stores(layout: IndexLayout) -> list[ContentFiles]:
    """Return every store with a file per content; for anchors, the stores of all localisers."""
    anchors = [AnchorStore(folder) for folder in layout.anchor_folders()]
    return [FeatureStore(layout.features), ThumbnailStore(layout.thumbnails), *anchors]


def delete_stored(layout: IndexLayout, videos: Iterable[Video]) -> None:
    """Delete the stored files of videos that are gone from the catalogue."""
    stores = content_stores(layout)
    for video in videos:
        for store in stores:
            store.delete(video.uid)


def _lock_folder(layout: IndexLayout) -> Path:
    """The index directory; for an index in staging, its own folder."""
    return layout.root if IndexLayout.of(layout.root) == layout else layout.folder


def _remove_unfinished_note(folder: Path) -> None:
    """Remove the temporary note of a writer that died before its note was complete."""
    for path in folder.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _refuse_superseded(layout: IndexLayout) -> None:
    if layout.number < IndexLayout.of(layout.root).number:
        raise IndexDirectoryError(
            f"the index {layout.root} was replaced meanwhile, by `scanonce reindex` or `restore`: run again"
        )


@contextmanager
def _locked(layout: IndexLayout, path: str) -> Iterator[None]:
    lock = FileLock(path, timeout=_PATIENCE_SECONDS, thread_local=False)
    with reported(layout.root, "written"):
        try:
            lock.acquire()
        except Timeout as error:  # an OSError, too
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


def _read(path: Path) -> Owner | None:
    """Read the note of a writer. A damaged note still says that its writer died."""
    try:
        values: Any = read_json(path)
        owner = Owner(int(values["pid"]), values["host"], values["doing"], float(values["since"]))
        if isinstance(owner.host, str) and isinstance(owner.doing, str):
            # a clock that is far off would have no length of time that can be shown
            return replace(owner, since=min(max(owner.since, 0.0), _LATEST))
    except OSError:
        return None
    except (DamagedFile, ValueError, KeyError, TypeError, OverflowError):
        pass
    return Owner(0, "", "unknown", 0.0)
