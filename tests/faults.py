"""Faults of a writer at any step of writing: it is killed, the power is cut, or the disk refuses.

Production code has no hooks for this: `Faults` wraps the calls that change the disk, counts them and makes the fault
at one of them.

A power cut (`Disk`, `cut_power`) keeps of a file the content of its last sync, and of a folder the names of its last
sync or of any later state; each folder separately, as POSIX allows. SQLite syncs by itself in C, where nothing here can
see it: its files are kept as they are, but for the commit that the power cut interrupts, of which any part may be in
the write-ahead log.
"""

import builtins
import errno
import fcntl
import io
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import faiss
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect

from scanonce.storage.layout import IndexLayout
from tests.story import Case


@dataclass
class Disk:
    """The state of a folder after a power cut, followed call by call.

    Files and folders have our own numbers, because the system reuses inodes.
    """

    root: Path
    copies: Path
    """Folder for the contents of synced files."""
    ids: dict[int, int] = field(default_factory=dict)
    """Number of each file or folder by inode."""
    folders: dict[int, list[dict[str, int]]] = field(default_factory=dict)
    """Names in each folder: at its last sync, then after each change."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.copies.mkdir(parents=True)
        self.log = self.copies / _LOG
        for folder, _, names in os.walk(self.root, topdown=False):
            for name in names:
                self.sync(os.path.join(folder, name))
            self.sync(folder)

    def sync(self, path: str) -> None:
        """Note that the content of a file, or the names in a folder, are safely on the disk."""
        number = self._number(path)
        if os.path.isdir(path):
            self.folders[number] = [self._names(path)]
        else:
            shutil.copyfile(path, self.copies / str(number))

    def changed(self, folder: str) -> None:
        """Note that the names in a folder have changed."""
        if os.path.isdir(folder):
            self.folders[self._number(folder)].append(self._names(folder))

    def forget(self, path: str) -> None:
        """Note that a name is about to go; after the last name of a file the system may reuse its inode."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            self.ids.pop(status.st_ino, None)

    def begin_commit(self, log: Path) -> None:
        """Keep the write-ahead log of SQLite as it is before a commit."""
        self.log.write_bytes(log.read_bytes() if log.exists() else b"")

    def end_commit(self) -> None:
        """Note that SQLite has synced its write-ahead log."""
        self.log.unlink()

    def save(self) -> None:
        """Save the state for `cut_power`, which runs in another process."""
        state = {"root": self._number(str(self.root)), "folders": self.folders}
        (self.copies / "state.json").write_text(json.dumps(state))

    def _number(self, path: str) -> int:
        inode = os.stat(path).st_ino
        if inode not in self.ids:
            self.ids[inode] = next(self.numbers)
            if os.path.isdir(path):
                self.folders[self.ids[inode]] = [{}]
        return self.ids[inode]

    def _names(self, folder: str) -> dict[str, int]:
        return {
            name: self._number(os.path.join(folder, name))
            for name in os.listdir(folder)
            if not name.startswith(_SQLITE)
        }


_SQLITE = "catalog.sqlite"
_LOG = f"{_SQLITE}-wal"
Names = Literal["oldest", "newest", "any"]


def cut_power(case: Case, names: Names, seed: int) -> None:
    """Turn the index of a killed writer into what a power cut at that moment would have left.

    Args:
        case: the case of the writer, whose fault was of the kind ``power``.
        names: which changes of names since the last sync of a folder have reached the disk.
        seed: seed of the choice if that is ``any``.
    """
    killed = case.folder / "killed"
    case.index.parent.rename(killed)
    state = json.loads((case.disk / "state.json").read_text())
    histories = {int(key): value for key, value in state["folders"].items()}
    chance = random.Random(seed)

    def build(number: int, source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        history = histories[number]
        here = {"oldest": history[0], "newest": history[-1], "any": chance.choice(history)}[names]
        for path in source.glob(f"{_SQLITE}*"):
            shutil.copyfile(path, target / path.name)
            if path.name == _LOG and (case.disk / _LOG).exists():
                old, new = (case.disk / _LOG).read_bytes(), path.read_bytes()
                cut = chance.randint(0, len(new))
                (target / _LOG).write_bytes(new[:cut] + old[cut:])
        for name, inner in here.items():
            copy = case.disk / str(inner)
            if inner in histories:
                build(inner, source / name, target / name)
            else:
                (target / name).write_bytes(copy.read_bytes() if copy.exists() else b"")

    build(state["root"], killed, case.index.parent)


FaultKind = Literal["none", "kill", "power", "full", "read-only"]

_ERRORS = {
    "full": (errno.ENOSPC, "database or disk is full", 13),
    "read-only": (errno.EROFS, "attempt to write a readonly database", 8),
}
_CHANGING = (
    ("rename", "rename", 2),
    ("replace", "rename", 2),
    ("link", "link", 2),
    ("unlink", "unlink", 1),
    ("remove", "unlink", 1),
    ("rmdir", "unlink", 1),
    ("mkdir", "mkdir", 1),
)
"""Functions of `os` that change names, the names of their points, and the number of paths they take."""
_NEEDS_ROOM = ("open", "write", "fsync", "mkdir", "link", "rename", "commit", "write_index")


class Faults:
    """Counts the calls that change an index directory, and makes a fault at one of them.

    ``kill`` and ``power`` end the process there. ``full``: this one call fails if it needs room. ``read-only``: this
    call and all later ones fail, as on a disk that the system has mounted read-only after errors.
    """

    def __init__(self, case: Case, *, kind: FaultKind = "none", at: int = 0) -> None:
        self.root = os.path.realpath(case.index.parent) + os.sep
        self.kind = kind
        self.at = at
        self.points: list[str] = []
        self.log = IndexLayout.of(case.index).catalog.with_name(_LOG)
        self.disk = Disk(case.index.parent, case.disk) if kind == "power" else None
        self._commits_writing = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch all calls within the block."""
        self._open = builtins.open
        with ExitStack() as stack:

            def put(owner: Any, name: str, new: Any) -> None:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, new)

            for name, what, num_paths in _CHANGING:
                put(os, name, self._changing(getattr(os, name), what, num_paths))
            put(os, "fsync", self._fsync(os.fsync))
            put(os, "open", self._os_open(os.open))
            put(fcntl, "flock", self._flock(fcntl.flock))
            put(faiss, "write_index", self._write_index(faiss.write_index))
            put(DefaultDialect, "do_commit", self._commit(DefaultDialect.do_commit))
            put(io, "open", self._open_file)
            put(builtins, "open", self._open_file)
            event.listen(Engine, "commit", self._note_commit)
            stack.callback(event.remove, Engine, "commit", self._note_commit)
            yield

    def point(self, what: str, path: str) -> None:
        """Count a call that is about to change the disk, and make the fault if it is the one."""
        self.points.append(f"{what} {path.removeprefix(self.root)}")
        here = len(self.points)
        if self.kind in ("kill", "power") and here == self.at:
            if self.disk is not None:
                self.disk.save()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind in _ERRORS and self._fails(what, here):
            code, text, sqlite_code = _ERRORS[self.kind]
            if what == "commit":
                error = sqlite3.OperationalError(text)
                error.sqlite_errorcode = sqlite_code
                raise error
            if what == "write_index":  # FAISS has an error of its own
                raise RuntimeError(f"could not open {path} for writing: {os.strerror(code)}")
            raise OSError(code, os.strerror(code), path)

    def _fails(self, what: str, here: int) -> bool:
        if what in ("lock", "unlock", "committed"):
            return False
        if self.kind == "full":
            return here == self.at and what in _NEEDS_ROOM
        return here >= self.at

    def path_of(self, path: Any, dir_fd: int | None = None) -> str:
        """Return the absolute path of an argument, which may be a descriptor."""
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        return os.path.abspath(os.path.join(folder, os.fsdecode(path)))

    def _changing(self, real: Callable[..., Any], what: str, num_paths: int) -> Callable[..., Any]:
        def changing(*args: Any, **options: Any) -> Any:
            targets = [self.path_of(each, options.get("dir_fd")) for each in args[:num_paths]]
            is_there = what == "mkdir" and os.path.isdir(targets[-1])
            if is_there or not targets[-1].startswith(self.root):
                return real(*args, **options)
            self.point(what, targets[-1])
            if self.disk is not None and what in ("unlink", "rename"):
                self.disk.forget(targets[-1])
            result = real(*args, **options)
            if self.disk is not None:
                for folder in dict.fromkeys(os.path.dirname(target) for target in targets):
                    self.disk.changed(folder)
            return result

        return changing

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            target = self.path_of(descriptor)
            if not target.startswith(self.root.rstrip(os.sep)):
                return real(descriptor)
            self.point("fsync", target)
            if self.disk is not None:
                self.disk.sync(target)
            return None  # only the simulated disk counts

        return fsync

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            target = self.path_of(path, options.get("dir_fd"))
            writes = flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            if not writes or not target.startswith(self.root):
                return real(path, flags, *args, **options)
            self.point("open", target)
            descriptor = real(path, flags, *args, **options)
            if self.disk is not None:
                self.disk.changed(os.path.dirname(target))
            return descriptor

        return opened

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        """Replace `open`: a file that is opened for writing has points at its writes, too."""
        target = "" if isinstance(file, int) else self.path_of(file)
        if not set(mode) & set("wax+") or not (target + os.sep).startswith(self.root):
            return self._open(file, mode, *args, **options)
        opener = options.get("opener")
        if opener is None:
            self.point("open", target)
        raw = io.FileIO(file, mode.replace("b", "").replace("t", ""), opener=opener)
        if self.disk is not None and opener is None:
            self.disk.changed(os.path.dirname(target))
        binary = (_WatchedRandom if "+" in mode else _WatchedWriter)(raw)
        binary.faults = self
        if "b" in mode:
            return binary
        return io.TextIOWrapper(binary, options.get("encoding"), options.get("errors"))

    def _flock(self, real: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def flock(descriptor: int, operation: int) -> None:
            self.point("unlock" if operation & fcntl.LOCK_UN else "lock", self.path_of(descriptor))
            real(descriptor, operation)

        return flock

    def _write_index(self, real: Callable[..., None]) -> Callable[..., None]:
        def write_index(codes: Any, path: str, *args: Any) -> None:
            self.point("write_index", path)
            real(codes, path, *args)
            if self.disk is not None:
                self.disk.changed(os.path.dirname(path))

        return write_index

    def _note_commit(self, connection: Connection) -> None:
        self._commits_writing = "begin" in connection.get_execution_options()

    def _commit(self, real: Callable[..., None]) -> Callable[..., None]:
        def commit(dialect: DefaultDialect, connection: Any) -> None:
            writing, self._commits_writing = self._commits_writing, False
            if not writing:
                real(dialect, connection)
                return
            self.point("commit", self.root)
            if self.disk is not None:
                self.disk.begin_commit(self.log)
            real(dialect, connection)
            self.point("committed", self.root)
            if self.disk is not None:
                self.disk.end_commit()

        return commit


class _Watched:
    """Writes half of the data before the fault comes."""

    faults: Faults
    name: Any

    def watch(self, data: Any, write: Callable[[Any], int], flush: Callable[[], None]) -> int:
        whole = bytes(data)
        half = len(whole) // 2
        write(whole[:half])
        flush()
        self.faults.point("write", self.faults.path_of(self.name))
        return half + write(whole[half:])


class _WatchedWriter(_Watched, io.BufferedWriter):
    def write(self, data: Any, /) -> int:
        return self.watch(data, super().write, super().flush)


class _WatchedRandom(_Watched, io.BufferedRandom):
    def write(self, data: Any, /) -> int:
        return self.watch(data, super().write, super().flush)
