"""The records that callers pass to the catalogue and get from it: files, contents, libraries and runs."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, TypeAlias, TypeVar

from scanonce.storage.records import Video, VideoState

Value = TypeVar("Value")
HalfOpen: TypeAlias = tuple[Value | None, Value | None]
"""A range from the first value to before the second; None is no bound."""
RunKind = Literal["index", "update", "forget", "rebuild"]
RunOutcome = Literal["done", "stopped", "failed"]

_EARLIEST_NS, _LATEST_NS = -(2**63), 2**63 - 1  # what an integer of SQLite holds


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file by the file system: enough to see, without reading it, that it has not changed."""

    path: Path
    """Absolute."""
    size_bytes: int
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970. File systems have times before 1677 and after 2262, which the
    catalogue cannot hold: any such time becomes the nearest one that it can."""

    def __post_init__(self) -> None:
        clamped = min(max(self.mtime_ns, _EARLIEST_NS), _LATEST_NS)
        object.__setattr__(self, "mtime_ns", clamped)

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Self:
        """Return the stamp of a file with this status."""
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a video file, whatever its path. ``indexer/library.py`` makes the digests."""

    uid: str
    """Hex digest that names the content and its feature file; no two contents have the same uid."""
    fast_hash: str
    """Hex digest of the size and samples."""
    size_bytes: int
    full_hash: str | None = None
    """Hex digest of every byte, if it was needed."""


@dataclass(frozen=True, slots=True)
class KnownContent:
    """A content that has a video in the catalogue, with the files that hold it."""

    video_id: int
    content: Content
    state: VideoState
    files: tuple[FileStamp, ...]
    """Sorted by path. Empty if all are gone and :meth:`Catalog.forget_files` has not run yet."""
    transient_failures: int | None = None
    """As in :class:`FileRecord`."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file the catalogue knows."""

    stamp: FileStamp
    video_id: int | None
    """None if the file could never be read."""
    state: VideoState | None
    """State of its video."""
    reason: str | None
    """Why the video is partial or failed."""
    problem: str | None
    """Why the file could not be read the last time."""
    transient_failures: int | None = None
    """How often in a row its decoder crashed, hung or met a limit, which may pass; 0: never tried. None if it did not
    fail, or will certainly fail again."""


@dataclass(frozen=True, slots=True)
class Library:
    """A folder (or single file) that a person has indexed."""

    library_id: int
    root: Path
    added_at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file without searchable content."""

    path: Path
    reason: str
    detail: str | None = None
    """The end of its decoder's output, if there was any."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Result of one run, in files, and seconds of decoded video."""

    seen: int = 0
    indexed: int = 0
    partial: int = 0
    failed: int = 0
    skipped: int = 0
    forgotten: int = 0
    video_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the indexer. Times are UTC; a run that was killed has neither end nor outcome."""

    run_id: int
    kind: RunKind
    started_at: datetime
    finished_at: datetime | None
    outcome: RunOutcome | None
    counts: RunCounts


@dataclass(frozen=True, slots=True)
class Totals:
    """Size of the library. A content at several paths counts once, except in ``num_files``."""

    indexed: int
    partial: int
    failed: int
    num_files: int
    searchable_seconds: float
    """Length of what can be searched."""
    size_bytes: int
    """Size of all videos, failed ones too."""

    @property
    def searchable(self) -> int:
        """Number of searchable videos."""
        return self.indexed + self.partial


@dataclass(frozen=True, slots=True)
class ChangeMark:
    """A position in the changes of a catalogue, made by `Catalog.searchable_changes`."""

    lineage: str
    """Changes when another catalogue replaces this one: numbers cannot be compared then."""
    number: int
    """The newest change of a video."""


@dataclass(frozen=True, slots=True)
class VideoChanges:
    """The changes of the searchable videos."""

    videos: list[Video]
    """Searchable videos that are new or have changed, by rising id."""
    gone: list[int]
    """Ids that cannot be searched now; the caller may never have known some of them."""
    is_all: bool
    """``videos`` are all searchable videos: discard all earlier ones."""
    mark: ChangeMark
    """Pass this the next time."""


def content_of(uid: str) -> str:
    """Return the content that a uid names: the uid without the number of the scan."""
    return uid.partition("-")[0]
