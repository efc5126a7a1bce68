"""A writer that is killed, cut from power or refused by the disk at any one of its steps, and what must hold then.

    with Lab() as lab:
        (points,) = lab.run("write", case="one").said("points")    # once without a fault: how many points there are
        ended = lab.run("write", case="two", fault={"kind": "kill", "at": 17})
        promised = asdict(Expected.after(ended.reports, NOTHING))
        lab.run("check", case="two", expected=promised).reports    # what is wrong: nothing

Importing torch takes seconds, so one process imports everything and runs the story once; each run after that is a fork
of it, which costs milliseconds and shares nothing. Production code has no hooks for this: the child wraps the calls
that change the disk (`Faults`), counts them and does the fault at the one asked for. Decoding is replaced by generated
frames: the file of video 17 says "video 17", and so do its embeddings to `NumberEncoder`.

A power cut (`Disk`, `cut_power`) keeps of a file what it held when it was last synced, and of a folder the names it had
then or any later state of them; each folder for itself, as POSIX allows. SQLite's own files are taken as they are: it
syncs by itself in C, where nothing here can see it, and is well tested at that.
"""

import builtins
import ctypes
import errno
import fcntl
import gc
import importlib
import io
import itertools
import json
import os
import queue
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType, TracebackType
from typing import Any, Literal, NoReturn, Self, cast

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.default import DefaultDialect

import scanonce.indexer.pipeline
import scanonce.search.snapshot
import scanonce.storage.catalog.database
from scanonce.indexer.pipeline import IndexReport, Progress, index_library
from scanonce.indexer.plan import fast_hash
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library
from scanonce.media.answers import Event, Finished, Frames, NewThumbnails, Opened
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.search.engine import SearchEngine
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.database import BUSY_TIMEOUT_SECONDS
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import Thumbnails, ThumbnailStore
from tests import indexes

Report = Callable[..., None]

# ---------------------------------------------------------------- a world of numbered videos


class NumberEncoder:
    """Sees the number of a video, reads the number in a sentence; each number has a direction of its own."""

    name = "numbers"
    fingerprint = "n" * 64
    dim = 64
    head_files = ()
    batch_frames = 4
    max_concurrency = 1
    preprocessing = Preprocessing(None, (2, 2), None, "bicubic", (0.5,) * 3, (0.5,) * 3)

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = frames[:, 0, 0].astype(np.int64) @ (1, 1 << 8, 1 << 16)
        return np.stack([_direction(number) for number in numbers.tolist()])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [text.partition("video ")[2] for text in texts]
        numbers = [
            int(row) if row.isdecimal() else 1 << 40 | zlib.crc32(text.encode())
            for row, text in zip(rows, texts, strict=True)
        ]
        return np.array([_direction(number) for number in numbers]).reshape(-1, self.dim)

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        joint = self.encode_texts(texts)
        return TextFeatures(joint, joint)


@cache
def _direction(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal(NumberEncoder.dim, np.float32)


class NumberLocaliser:
    """Stands in for a trained localiser: its anchors are a piece of the features."""

    name = "numbers"
    fingerprint = "a" * 64
    folder = fingerprint[:12]
    width = 8

    def scan(
        self, frames: NDArray[np.float16], pts_seconds: NDArray[np.float64], duration_seconds: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        return frames[:4, : self.width], np.ones(len(frames[:4]), np.float32)


ENCODER: ClipEncoder = NumberEncoder()
LOCALISER = cast(TrainedLocaliser, NumberLocaliser())
SETTINGS = IndexerSettings()
# far below what pydantic lets people set: a handful of videos is folded and becomes IVF-PQ
STORAGE = StorageSettings.model_construct(ivf_threshold=20, rescore_depth=500, fold_rows=8)


class GeneratedDecoders:
    """Takes the place of `DecodePool`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Sequence[Path]) -> Iterator[Event]:
        for job, path in enumerate(paths):
            yield from generated_events(job, number_in(path))


def generated_events(job: int, number: int) -> Iterator[Event]:
    """A video of 4 to 12 seconds, every other one with thumbnails."""
    seconds = 4.0 + 4 * (number % 3)
    pts = np.arange(0.0, seconds, 0.5)
    yield Opened(job, VideoInfo(seconds, 2, 2, 2.0, "generated"))
    pixel = np.array([number & 255, number >> 8 & 255, number >> 16], np.uint8)
    yield Frames(job, pts, np.broadcast_to(pixel, (len(pts), 2, 2, 3)))
    if has_thumbnails(number):
        yield NewThumbnails(job, Thumbnails(np.zeros(1), (b"\xff\xd8 video %d" % number,)))
    yield Finished(job, seconds, None)


def has_thumbnails(number: int) -> bool:
    """Of a generated video."""
    return number % 2 == 0


def write_video(path: Path, number: int) -> None:
    """The file of a video, there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = random.Random(number).randbytes(500)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(b"video %d\n" % number + rest)
    unfinished.rename(path)


def number_in(path: Path) -> int:
    """Which video a file holds."""
    return int(path.read_bytes().partition(b"\n")[0].removeprefix(b"video "))


@cache
def uid_of(number: int) -> str:
    """What the catalogue calls the content of a video when it is scanned for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        write_video(path, number)
        return fast_hash(path)


def films_in(folder: Path) -> dict[str, int]:
    """Number of each video file in a library, by its name there."""
    paths = sorted(path for path in folder.rglob("*.mp4") if not path.name.startswith("."))
    return {str(path.relative_to(folder)): number_in(path) for path in paths}


def arrange(folder: Path, films: Mapping[str, int]) -> None:
    """Makes a library hold these videos: moves what is elsewhere in it, writes what is new, deletes the rest."""
    there = films_in(folder)
    for name, number in films.items():
        if there.get(name) == number:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        old = next((n for n, k in there.items() if k == number and films.get(n) != k), None)
        if old is None:
            write_video(target, number)
        else:
            (folder / old).rename(target)
            del there[old]
    for name in there.keys() - films.keys():
        (folder / name).unlink()


# ---------------------------------------------------------------- the story


@dataclass(frozen=True)
class Step:
    """One command of the writer."""

    films: dict[str, int]
    """What lies in the library when it begins."""
    again: tuple[int, ...] = ()
    """Videos that are to be scanned again."""
    forget: str = ""
    """Folder of the library to forget; empty: the library is indexed."""


STORY = (
    Step({"a.mp4": 1, "b.mp4": 2, "sub/c.mp4": 3}),
    # 1 replaced in place by 4, 2 moved, 3 deleted, 5 and 6 new
    Step({"a.mp4": 4, "moved/b.mp4": 2, "d.mp4": 5, "e.mp4": 6}),
    Step({"a.mp4": 4, "moved/b.mp4": 2, "d.mp4": 5, "e.mp4": 6, "f.mp4": 7}, again=(6,)),
    Step({"a.mp4": 4, "d.mp4": 5, "e.mp4": 6, "f.mp4": 7}, forget="moved"),
    Step({"a.mp4": 4, "d.mp4": 5, "f.mp4": 7, "g.mp4": 8, "h.mp4": 9}),
)


@dataclass(frozen=True)
class Case:
    """The folders of one try."""

    folder: Path

    @property
    def films(self) -> Path:
        """The library."""
        return self.folder / "films"

    @property
    def index(self) -> Path:
        """The index directory. Its parent is made first, so that losing its own name can be tried too."""
        return self.folder / "place" / "index"

    @property
    def disk(self) -> Path:
        """Where the child notes what is on the disk for good."""
        return self.folder / "disk"


def run_story(case: Case, report: Report, *, first: int = 0, last: int = len(STORY) - 1) -> None:
    """Commands of the story one after another; reports each beginning and end."""
    case.index.parent.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(STORY[first : last + 1], start=first):
        arrange(case.films, step.films)
        report("begin", number)
        if step.forget:
            forget(case, case.films / step.forget)
        else:
            done = index(case, report, again=_ids(case, step.again))
            for problem in done.problems:
                report("problem", f"{problem.path.name}: {problem.reason}")
        report("done", number)


def index(case: Case, report: Report, *, again: Sequence[int] = ()) -> IndexReport:
    """`index_library`; reports each video right after the commit that makes it searchable."""
    done = 0

    def observe(progress: Progress) -> None:
        nonlocal done
        if progress.videos_done > done:  # said of the file just stored
            done = progress.videos_done
            assert progress.current is not None
            report("indexed", number_in(progress.current))

    return index_library(
        [case.films],
        layout=IndexLayout.of(case.index),
        encoder=ENCODER,
        settings=SETTINGS,
        storage=STORAGE,
        localiser=LOCALISER,
        on_progress=observe,
        again=again,
    )


def forget(case: Case, path: Path) -> None:
    """`scanonce forget`, where there is something left to forget."""
    with Catalog.open(IndexLayout.of(case.index).catalog) as catalog:
        known = catalog.files_under(path)
    if known:
        Library(case.index, storage=STORAGE).forget([path])


def _ids(case: Case, numbers: Sequence[int]) -> list[int]:
    if not numbers:
        return []
    uids = tuple(uid_of(number) for number in numbers)
    with Catalog.open(IndexLayout.of(case.index).catalog) as catalog:
        return [video.video_id for video in catalog.videos() if video.uid.startswith(uids)]


@dataclass(frozen=True)
class Expected:
    """What was promised when a writer came to its end."""

    found: tuple[int, ...]
    gone: tuple[int, ...]
    next_step: int
    """First step that was not done."""

    @classmethod
    def after(cls, reports: Sequence[Sequence[Any]], before: "Expected") -> "Expected":
        """Promises of a run that began where ``before`` ended."""
        found, gone, step = set(before.found), set(before.gone), before.next_step
        for kind, value in reports:
            if kind == "begin":
                # what the person has taken away may be found or not, until the command ends
                found &= set(STORY[value].films.values())
            elif kind == "indexed":
                found.add(value)
            elif kind == "done":
                present = set(STORY[value].films.values())
                ever = {k for each in STORY[: value + 1] for k in each.films.values()}
                found, gone, step = present, ever - present, value + 1
        return cls(tuple(sorted(found)), tuple(sorted(gone)), step)


NOTHING = Expected((), (), 0)

# ---------------------------------------------------------------- what must hold


def open_engine(index_dir: Path) -> SearchEngine:
    """Open the index for searches that return whole clips."""
    return indexes.open_engine(index_dir, ENCODER, localiser="clips", nms_overlap=1.0, cutoff=0.0)


def numbers_found(
    engine: SearchEngine, texts: Sequence[str], known: Collection[int]
) -> list[list[int]]:
    """Which of these videos searches return, best first."""
    by_uid = {uid_of(number): number for number in known}
    found = []
    for result in engine.search_many(texts, top=100):
        videos = [engine.videos[moment.video_id] for moment in result.moments]
        uids = [video.uid.partition("-")[0] for video in videos]
        found.append(list(dict.fromkeys(by_uid[uid] for uid in uids if uid in by_uid)))
    return found


def look(case: Case, expected: Expected) -> list[str]:
    """What is wrong with an index as searches see it."""
    every = sorted({number for step in STORY for number in step.films.values()})
    try:
        with open_engine(case.index) as engine:
            found = numbers_found(engine, [f"video {number}" for number in every], every)
        problems = []
        for number, returned in zip(every, found, strict=True):
            if number in expected.found and returned[:1] != [number]:
                problems.append(f"video {number} was promised; found is {returned}")
            stale = set(returned) & set(expected.gone)
            if stale:
                problems.append(f"deleted videos {stale} are returned for {number}")
        return problems + _unreadable(case.index, expected.found)
    except IndexDirectoryError as error:
        if not expected.found:  # killed before there was an index
            return []
        return [f"cannot be opened or searched: {error}"]


def _unreadable(index_dir: Path, numbers: Sequence[int]) -> list[str]:
    """Stored files of promised videos that are not as they were stored."""
    layout = IndexLayout.of(index_dir)
    features, thumbnails = FeatureStore(layout.features), ThumbnailStore(layout.thumbnails)
    anchors = AnchorStore(layout.anchors / str(read_manifest(layout).anchors))
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        uids = {video.uid.partition("-")[0]: video.uid for video in catalog.videos()}
    problems = []
    for number in numbers:
        uid = uids[uid_of(number)]
        try:
            right = _direction(number).astype(np.float16)
            if not (features.read(uid).frames == right).all():
                problems.append(f"features of another video are stored for {number}")
            anchors.read(uid)
            if has_thumbnails(number) and not thumbnails.read(uid, 0.0):
                problems.append(f"thumbnails of video {number} are lost")
        except IndexDirectoryError as error:
            problems.append(str(error))
    return problems


def leavings(index_dir: Path) -> list[str]:
    """What an index has that it should not have after a run that ended well."""
    layout = IndexLayout.of(index_dir)
    paths = sorted(index_dir.rglob("*"))
    problems = [
        f"left behind: {path.relative_to(index_dir)}"
        for path in paths
        if path.name.startswith((".tmp", "staging-", "writer.json"))
    ]
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = catalog.videos()
        uids = catalog.uids()
    if len(uids) != len(videos):
        problems.append(f"{len(uids) - len(videos)} videos in the catalogue have no file")
    stored = {path.stem for path in paths if path.suffix == ".safetensors"}
    problems += [f"stored for no video: {uid}" for uid in sorted(stored - uids)]
    generations = [path.name for path in layout.vectors.glob("??????????")]
    if len(generations) > 2:
        problems.append(f"generations that nobody needs: {generations}")
    with sqlite3.connect(layout.catalog) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return problems if verdict == "ok" else [*problems, f"SQLite: {verdict}"]


# ---------------------------------------------------------------- faults


@dataclass
class Disk:
    """What of a folder would be there after a power cut, followed call by call.

    Files and folders have numbers of our own, since the system uses its own ones again.
    """

    root: Path
    copies: Path
    """Where the contents of files go when they are synced."""
    ids: dict[int, int] = field(default_factory=dict)
    """Number of each file or folder by inode."""
    folders: dict[int, list[dict[str, int]]] = field(default_factory=dict)
    """Names in each folder: when it was last synced, then after each change."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.copies.mkdir(parents=True)
        for folder, _, names in os.walk(self.root, topdown=False):
            for name in names:
                self.sync(os.path.join(folder, name))
            self.sync(folder)

    def sync(self, path: str) -> None:
        """The content of a file, or the names in a folder, are there for good."""
        number = self._number(path)
        if os.path.isdir(path):
            self.folders[number] = [self._names(path)]
        else:
            shutil.copyfile(path, self.copies / str(number))

    def changed(self, folder: str) -> None:
        """Names in a folder are others now."""
        if os.path.isdir(folder):
            self.folders[self._number(folder)].append(self._names(folder))

    def forget(self, path: str) -> None:
        """A name is about to go: of its last one the system may use the inode again."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            self.ids.pop(status.st_ino, None)

    def save(self) -> None:
        """For `cut_power`, in another process."""
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
Names = Literal["oldest", "newest", "any"]


def cut_power(case: Case, names: Names, seed: int) -> None:
    """Makes the index of a writer that was killed what a power cut would have left of it at that moment.

    Args:
        case: of the writer, whose faults were of the kind ``power``.
        names: which changes of names since the last sync of a folder have reached the disk.
        seed: of the choice where that is ``any``.
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
"""Calls that change names, what we call them and how many paths each takes."""
_NEEDS_ROOM = ("open", "write", "fsync", "mkdir", "link", "rename", "commit", "write_index")


class Faults:
    """Counts the calls that change an index directory and does a fault at one of them.

    ``kill`` and ``power`` end the process there. ``full``: that one call fails, if it is one that needs room.
    ``read-only``: it fails and so does every one after it, as on a disk that the system has mounted anew after errors.
    """

    def __init__(self, case: Case, *, kind: FaultKind = "none", at: int = 0) -> None:
        self.root = os.path.realpath(case.index.parent) + os.sep
        self.kind = kind
        self.at = at
        self.points: list[str] = []
        self.disk = Disk(case.index.parent, case.disk) if kind == "power" else None
        self._commits_writing = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Every call made within is watched."""
        self._open = builtins.open
        with ExitStack() as stack:

            def put(owner: Any, name: str, new: Any) -> None:
                stack.callback(setattr, owner, name, getattr(owner, name))
                _put(owner, name, new)

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
        """A call that changes the disk is about to be made."""
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
        """The absolute path that a call names, also by descriptor."""
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        return os.path.abspath(os.path.join(folder, os.fsdecode(path)))

    def _changing(self, real: Callable[..., Any], what: str, num_paths: int) -> Callable[..., Any]:
        def changing(*args: Any, **options: Any) -> Any:
            places = [self.path_of(each, options.get("dir_fd")) for each in args[:num_paths]]
            is_there = what == "mkdir" and os.path.isdir(places[-1])
            if is_there or not places[-1].startswith(self.root):
                return real(*args, **options)
            self.point(what, places[-1])
            if self.disk is not None and what in ("unlink", "rename"):
                self.disk.forget(places[-1])
            result = real(*args, **options)
            if self.disk is not None:
                for folder in dict.fromkeys(os.path.dirname(place) for place in places):
                    self.disk.changed(folder)
            return result

        return changing

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            place = self.path_of(descriptor)
            if not place.startswith(self.root.rstrip(os.sep)):
                return real(descriptor)
            self.point("fsync", place)
            if self.disk is not None:
                self.disk.sync(place)
            return None  # the simulated disk is the one that counts

        return fsync

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            place = self.path_of(path, options.get("dir_fd"))
            writes = flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            if not writes or not place.startswith(self.root):
                return real(path, flags, *args, **options)
            self.point("open", place)
            descriptor = real(path, flags, *args, **options)
            if self.disk is not None:
                self.disk.changed(os.path.dirname(place))
            return descriptor

        return opened

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        """`open`: a file that is written gets points at its writes, too."""
        place = "" if isinstance(file, int) else self.path_of(file)
        if not set(mode) & set("wax+") or not (place + os.sep).startswith(self.root):
            return self._open(file, mode, *args, **options)
        opener = options.get("opener")
        if opener is None:
            self.point("open", place)
        raw = io.FileIO(file, mode.replace("b", "").replace("t", ""), opener=opener)
        if self.disk is not None and opener is None:
            self.disk.changed(os.path.dirname(place))
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
            if writing:
                self.point("commit", self.root)
            real(dialect, connection)
            if writing:
                self.point("committed", self.root)

        return commit


class _Watched:
    """Half of what a write was to write is there when the fault comes."""

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


# ---------------------------------------------------------------- tasks of a child


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
    """Some of the story with a fault; reports what ended it and the points it passed, where it reached an end.

    Args:
        report: told all that.
        case: folder of the case.
        first: step of the story to begin with.
        last: step to end with.
        fault: arguments of `Faults`.
        start: a copy of the case at that step, to begin from; the case as it is where None.
        patience: seconds for which a locked catalogue is waited for.
    """
    folder = Case(Path(case))
    if start is not None:
        shutil.rmtree(folder.folder, ignore_errors=True)
        shutil.copytree(start, folder.folder)
    folder.index.parent.mkdir(parents=True, exist_ok=True)
    scanonce.storage.catalog.database.BUSY_TIMEOUT_SECONDS = patience
    faults = Faults(folder, **fault)
    with faults.installed():
        ended = _told(lambda: run_story(folder, report, first=first, last=last))
    report("ended", ended)
    report("points", faults.points)


def _told(work: Callable[[], None]) -> str:
    """How it ended: empty for well, the text of an error of ours, or the trace of one that should not be."""
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
    """Looks at what a fault has left, runs the command again that it ended, and looks again.

    Args:
        report: told what is wrong.
        case: folder of the case.
        expected: what was promised, as `Expected`.
        power: what a power cut leaves of names, where there was one.
        seed: of `cut_power`.
    """
    folder, promised = Case(Path(case)), Expected(**expected)
    if power is not None:
        cut_power(folder, power, seed)
    for problem in look(folder, promised):
        report("problem", f"after the fault: {problem}")
    reports: list[Any] = []

    def keep(kind: str, value: Any) -> None:
        reports.append((kind, value))
        if kind == "problem":
            report(kind, f"in the next run: {value}")

    step = min(promised.next_step, len(STORY) - 1)
    # what is forgotten already is not forgotten again: then it is the next command that clears
    last = step + bool(STORY[step].forget)
    ended = _told(lambda: run_story(folder, keep, first=step, last=last))
    if ended:
        report("problem", f"the next run ended with {ended}")
        return
    for problem in look(folder, Expected.after(reports, promised)) + leavings(folder.index):
        report("problem", f"after the next run: {problem}")


def search_now(report: Report, *, case: str, expected: Mapping[str, Any]) -> None:
    """Reports what searches find wrong."""
    for problem in look(Case(Path(case)), Expected(**expected)):
        report("problem", problem)


def write_on_small_disk(report: Report, *, case: str, size: int) -> None:
    """The story on a real disk of so many bytes, which is made larger after it was full, and `check` of that.

    Reports "impossible" where the system lets nobody mount.
    """
    folder = Case(Path(case))
    if not _own_mounts():
        report("impossible", "no mount namespaces here")
        return
    place = folder.index.parent
    place.mkdir(parents=True)
    _mount("tmpfs", place, 0, f"size={size}")
    reports: list[Any] = []
    ended = _told(lambda: run_story(folder, lambda *each: reports.append(each)))
    report("ended", ended)
    _mount("tmpfs", place, _MS_REMOUNT, "size=64m")
    promised = Expected.after(reports, NOTHING)
    check(report, case=case, expected=vars(promised))


def write_on_read_only_disk(report: Report, *, case: str) -> None:
    """The story once more, on a disk that is mounted read-only, which binds root, too.

    Reports "impossible" where the system lets nobody mount.
    """
    folder = Case(Path(case))
    if not _own_mounts():
        report("impossible", "no mount namespaces here")
        return
    place = folder.index.parent
    _mount("", place, _MS_BIND, "")
    _mount("", place, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, "")
    report("ended", _told(lambda: run_story(folder, lambda *_: None)))


_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000


def _own_mounts() -> bool:
    """From here on this process has mounts of its own, which go with it; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if os.getuid() else 0)):
        return False
    try:
        _mount("", Path("/"), _MS_REC | _MS_PRIVATE, "")
    except OSError:
        return False
    return True


def _mount(kind: str, place: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(place)
    source = path if flags & _MS_BIND else b"none"
    if libc.mount(source, path, kind.encode() or None, flags, options.encode() or None):
        raise OSError(ctypes.get_errno(), f"cannot mount at {place}")


def write_at_another_time(report: Report, *, case: str) -> None:
    """The story by a clock that jumps back an hour each time it is read."""
    folder = Case(Path(case))
    real = time.time
    jumps = iter(range(0, 1 << 30, 3600))
    time.time = lambda: real() - next(jumps)
    scanonce.storage.catalog.database.now = lambda: datetime.fromtimestamp(time.time(), UTC)
    report("ended", _told(lambda: run_story(folder, report)))


# ---------------------------------------------------------------- promises between processes


class PromiseLog:
    """What a writer has promised, a line each, written by one call: there whole or not at all when it is killed.

    ``indexed 17``: searches find it from here on. ``leaving 17``: they may or may not. ``gone 17``: they never return
    it again; a number is not used a second time.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def say(self, kind: str, number: int) -> None:
        os.write(self._descriptor, f"{time.monotonic():.6f} {kind} {number}\n".encode())


class Promises:
    """A reader's side of the log."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.found: dict[int, float] = {}
        """When each video was promised that is to be found now."""
        self.gone: set[int] = set()
        self.known: set[int] = set()
        """All that were ever named."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def follow(self) -> None:
        """Reads what was written since."""
        for line in self._file:
            when, kind, text = line.split()
            number = int(text)
            self.known.add(number)
            if kind == b"indexed":
                self.found.setdefault(number, float(when))
            else:
                self.found.pop(number, None)
            if kind == b"gone":
                self.gone.add(number)


@dataclass
class ReaderCounts:
    """What a reader has seen."""

    queries: int = 0
    errors: int = 0
    missing: int = 0
    """Answers without a video, or with another one before it, that had been promised before and still was after."""
    stale: int = 0
    """Answers with a video that was gone before the query began."""
    longest_wait_seconds: float = 0.0
    """From a promise to the end of the first query that found the video."""
    generations: int = 0
    """Different ones that it searched."""
    examples: list[str] = field(default_factory=list)


def read_on(report: Report, *, case: str, log: str, stop: str, seed: int) -> None:
    """Searches until there is a file ``stop``: the newest promises first, then any, then what is gone."""
    folder, counts, chance = Case(Path(case)), ReaderCounts(), random.Random(seed)
    with Promises(Path(log)) as promises:
        promises.follow()
        while not promises.found and not Path(stop).exists():
            time.sleep(0.01)
            promises.follow()
        waiting: dict[int, float] = dict(promises.found)
        asked: set[int] = set(waiting)
        generations: set[int] = set()
        with open_engine(folder.index) as engine:
            while not Path(stop).exists():
                promises.follow()
                fresh = promises.found.keys() - asked
                asked |= fresh
                waiting |= {number: promises.found[number] for number in fresh}
                newest = list(waiting)[-3:]
                some = chance.sample(sorted(promises.found), min(2, len(promises.found)))
                old = chance.sample(sorted(promises.gone), min(1, len(promises.gone)))
                for number in (*newest, *some, *old):
                    _ask(engine, number, promises, waiting, counts)
                with engine.reading() as snapshot:
                    generations.add(snapshot.clips.generation)
    counts.generations = len(generations)
    report("counts", vars(counts))


def _ask(
    engine: SearchEngine,
    number: int,
    promises: Promises,
    waiting: dict[int, float],
    counts: ReaderCounts,
) -> None:
    promises.follow()
    promised, gone = promises.found.get(number), set(promises.gone)
    counts.queries += 1
    try:
        (returned,) = numbers_found(engine, [f"video {number}"], promises.known)
    except Exception:
        counts.errors += 1
        counts.examples.append(traceback.format_exc())
        return
    end = time.monotonic()
    promises.follow()
    still_promised = promised is not None and promises.found.get(number) == promised
    if returned[:1] == [number]:
        since = waiting.pop(number, end)
        if still_promised:
            counts.longest_wait_seconds = max(counts.longest_wait_seconds, end - since)
    elif still_promised:
        counts.missing += 1
        counts.examples.append(f"video {number} was promised; found is {returned}")
    elif promised is None or number not in promises.found:
        waiting.pop(number, None)
    if stale := gone & set(returned):
        counts.stale += 1
        counts.examples.append(f"deleted videos {stale} are returned for {number}")


def write_on(report: Report, *, case: str, log: str, seed: int, rounds: int = 1 << 30) -> None:
    """Indexes, replaces, moves and deletes videos without an end; begins where the last one was killed.

    The library on the disk is what it should be: what is there is to be found, every other number is to be gone.
    """
    folder, chance = Case(Path(case)), random.Random(seed)
    folder.films.mkdir(parents=True, exist_ok=True)
    folder.index.parent.mkdir(exist_ok=True)
    with Promises(Path(log)) as promises:
        promises.follow()
    promise = PromiseLog(Path(log))
    films = films_in(folder.films)
    ever = {0} | promises.known | set(films.values())
    _index_promised(folder, promise, films, ever - promises.gone - {0})
    for _ in range(rounds):
        films, before = _changed(films, chance, fresh=max(ever) + 1), set(films.values())
        for number in before - set(films.values()):
            promise.say("leaving", number)
        arrange(folder.films, films)
        ever |= set(films.values())
        _index_promised(folder, promise, films, before | set(films.values()))


def _changed(films: Mapping[str, int], chance: random.Random, *, fresh: int) -> dict[str, int]:
    """A library after a person was at it: a few videos more, less, elsewhere and in place of others."""
    changed = dict(films)
    for name in chance.sample(sorted(films), min(len(films), chance.randrange(3))):
        del changed[name]
    for name in chance.sample(sorted(changed), min(len(changed), chance.randrange(3))):
        changed[name] = fresh  # another video under the same name
        fresh += 1
    for name in chance.sample(sorted(changed), min(len(changed), chance.randrange(2))):
        number = changed.pop(name)
        changed[f"moved/{number}.mp4"] = number
    wanted = chance.randrange(5, 25)
    for name in sorted(changed)[wanted:]:
        del changed[name]
    for number in range(fresh, fresh + chance.randrange(1, 4)):
        changed[f"{number}.mp4"] = number
    return changed


def _index_promised(
    case: Case, promise: PromiseLog, films: Mapping[str, int], numbers: set[int]
) -> None:
    """Indexes; says what is found now, as soon as it is, and what is gone."""
    done = index(case, promise.say)
    if done.problems:
        raise RuntimeError(f"problems: {done.problems}")
    present = set(films.values())
    for number in numbers:
        promise.say("indexed" if number in present else "gone", number)


# ---------------------------------------------------------------- processes


@dataclass
class Outcome:
    """What a child said and how it ended."""

    reports: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 0
    """As `os.waitpid` gives it."""

    @property
    def killed(self) -> bool:
        """Ended by SIGKILL."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    def said(self, kind: str) -> list[Any]:
        """The values of all reports of a kind."""
        return [value for each, value in self.reports if each == kind]


class Lab:
    """A process that has everything imported, and lanes in which it forks one child at a time."""

    def __init__(self, module: str = "tests.faults", *, lanes: int = 2) -> None:
        """``module`` holds the tasks: functions that take a `Report` and then named values JSON can hold."""
        self._module = module
        self._num_lanes = lanes
        self._free: queue.Queue[socket.socket] = queue.Queue()

    def __enter__(self) -> Self:
        pairs = [socket.socketpair() for _ in range(self._num_lanes)]
        theirs = [pair[1].fileno() for pair in pairs]
        # no thread but the first one may ever have run there: a fork takes only that one along
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults", self._module, *map(str, theirs)],
            pass_fds=theirs,
            cwd=Path(__file__).parents[1],
            env={**os.environ, **alone},
        )
        for ours, other in pairs:
            other.close()
            self._free.put(ours)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in range(self._num_lanes):
            self._free.get().close()
        self._process.wait()

    def run(self, task: str, *, kill_after: float | None = None, **values: Any) -> Outcome:
        """Runs a task in a child of its own and waits for its end; from any thread.

        Args:
            task: name of a function.
            kill_after: seconds after which the child is killed.
            values: what the function gets.
        """
        lane = self._free.get()
        try:
            lane.sendall(json.dumps([task, values, kill_after]).encode() + b"\n")
            outcome = Outcome()
            with lane.makefile("rb") as lines:
                for line in lines:
                    kind, value = json.loads(line)
                    if kind == "exit":
                        outcome.status = value
                        return outcome
                    outcome.reports.append((kind, value))
            raise RuntimeError("the process that forks has died")
        finally:
            self._free.put(lane)


def _serve(lane: socket.socket, module: ModuleType) -> None:
    """Forks a child for each line."""
    with lane.makefile("rb") as lines:
        for line in lines:
            task, values, kill_after = json.loads(line)
            child = os.fork()
            if not child:
                _be_child(lane, getattr(module, task), values)
            status = _end_of(child, kill_after)
            lane.sendall(json.dumps(["exit", status]).encode() + b"\n")


def _end_of(child: int, kill_after: float | None) -> int:
    """Waits for a child, or kills it when its time is over; its status."""
    if kill_after is not None:
        over = time.monotonic() + kill_after
        while time.monotonic() < over:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _be_child(
    lane: socket.socket, task: Callable[..., None], values: Mapping[str, Any]
) -> NoReturn:
    def report(kind: str, value: Any) -> None:
        lane.sendall(json.dumps([kind, value]).encode() + b"\n")

    status = 1
    try:
        task(report, **values)
        status = 0
    except BaseException:
        report("problem", traceback.format_exc())
    finally:
        os._exit(status)


def _put(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def main(module_name: str, *lanes: str) -> None:
    """The process that forks: everything imported, the story run once so that nothing is left to load."""
    _put(scanonce.indexer.pipeline._Run, "decoders", lambda self: GeneratedDecoders())
    _put(scanonce.indexer.pipeline, "_REPORT_SECONDS", 0.0)  # every video is reported
    _put(scanonce.search.snapshot, "load_localiser", lambda *_, **__: LOCALISER)
    module = importlib.import_module(module_name)
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        run_story(case, lambda *_: None)
        look(case, NOTHING)
        leavings(case.index)
    gc.collect()
    gc.disable()  # in short lives it would only touch, and so copy, what all share
    servers = []
    for number, lane in enumerate(lanes, start=1):
        if not (server := os.fork()):
            for later in lanes[number:]:
                os.close(int(later))
            with socket.socket(fileno=int(lane)) as connection:
                _serve(connection, module)
            os._exit(0)
        servers.append(server)
        os.close(int(lane))
    for server in servers:
        os.waitpid(server, 0)


if __name__ == "__main__":
    # under its own name, not as __main__: tasks of other modules share what is patched here
    importlib.import_module("tests.faults").main(*sys.argv[1:])
