"""What the catalogue is handed and gives: files, contents, libraries and runs as it knows them."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from scanonce.storage.records import Video, VideoState

Value = TypeVar("Value")
HalfOpen: TypeAlias = tuple[Value | None, Value | None]
"""A range from the first value to before the second; None is no bound."""
RunKind = Literal["index", "update", "forget", "rebuild"]
RunOutcome = Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file as the file system shows it: enough to say unread that it has not changed."""

    path: Path
    """Absolute."""
    size_bytes: int
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a video file holds, wherever it lies. ``indexer/library.py`` makes the digests."""

    uid: str
    """Hex digest that names the content and its feature file: never two contents with one uid."""
    fast_hash: str
    """Hex digest of the size and samples."""
    size_bytes: int
    full_hash: str | None = None
    """Hex digest of every byte, where it was needed."""


@dataclass(frozen=True, slots=True)
class KnownContent:
    """A content that has a video in the catalogue, with the files that hold it."""

    video_id: int
    content: Content
    state: VideoState
    files: tuple[FileStamp, ...]
    """Sorted by path. Empty where all are gone and :meth:`Catalog.forget_files` has not run yet."""
    transient_failures: int | None = None
    """As in :class:`FileRecord`."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file the catalogue knows."""

    stamp: FileStamp
    video_id: int | None
    """None where the file could never be read."""
    state: VideoState | None
    """State of its video."""
    reason: str | None
    """Why the video is partial or failed."""
    problem: str | None
    """Why the file could not be read when it was last looked at."""
    transient_failures: int | None = None
    """How often in a row its decoder crashed, hung or met a limit, which may pass; 0: never tried.
    None where it did not fail, or is sure to fail again."""


@dataclass(frozen=True, slots=True)
class Library:
    """A folder (or single file) a person asked to index."""

    library_id: int
    root: Path
    added_at: datetime
    """UTC."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A file nothing of which is searchable."""

    path: Path
    reason: str
    detail: str | None = None
    """The end of what its decoder printed, where it printed something."""


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What one run did, in files, and seconds of video decoded."""

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
    """Size of the library. A content at several paths counts once, but in ``num_files``."""

    indexed: int
    partial: int
    failed: int
    num_files: int
    searchable_seconds: float
    """Length of what can be searched."""
    size_bytes: int
    """Of all videos, failed ones too."""

    @property
    def searchable(self) -> int:
        """Videos a search can find something in."""
        return self.indexed + self.partial


@dataclass(frozen=True, slots=True)
class ChangeMark:
    """How far somebody has read the changes of a catalogue; `storage.catalog.catalog` makes them."""

    lineage: str
    """Another one where the catalogue has taken the place of another: numbers cannot be compared then."""
    number: int
    """The newest change of a video."""


@dataclass(frozen=True, slots=True)
class VideoChanges:
    """What there is to search that was not there before, and what is there no more."""

    videos: list[Video]
    """Searchable ones that are new or of which something is another, by rising id."""
    gone: list[int]
    """Ids that cannot be searched now; some may never have been known to whoever asks."""
    is_all: bool
    """``videos`` are all there are: what is known from before is to be forgotten."""
    mark: ChangeMark
    """To ask with the next time."""


def content_of(uid: str) -> str:
    """Return the content that a uid names: the uid without the number of the scan."""
    return uid.partition("-")[0]
