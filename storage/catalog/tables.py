"""The tables of the catalogue, as the migrations create them. Only `storage.catalog` uses them.

SQLite keeps any value in any column, and the file may come from others: each value is checked where it is read.
"""

import math
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar, get_args

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from scanonce.storage.catalog.entries import RunKind, RunOutcome
from scanonce.storage.records import ORDINAL_BITS, VideoState
from scanonce.storage.untrusted import DamagedFile, check_uid

Value = TypeVar("Value")

_LONGEST_SECONDS = 1_000_000.0


class _Checked(TypeDecorator[Value]):
    """A column whose values are of one type when they are read; null passes, outer joins return it."""

    allowed: ClassVar[tuple[type, ...]]

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the value; raises DamagedFile if it has another type."""
        if value is None or isinstance(value, self.allowed):
            return value
        raise DamagedFile(f"it has {str(value)[:50]!r} in a column of {type(self).__name__}")


class Whole(_Checked[int]):
    """A whole number."""

    impl, cache_ok, allowed = Integer, True, (int,)


class BigWhole(_Checked[int]):
    """A whole number, declared as a big one."""

    impl, cache_ok, allowed = BigInteger, True, (int,)


class VideoId(Whole):
    """The id of a video, which leaves room for the number of a clip (`storage.records.clip_id`)."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the id; raises DamagedFile if no clip of it could be numbered."""
        number = super().process_result_value(value, dialect)
        if number is None or 0 < number < 1 << 63 - ORDINAL_BITS:
            return number
        raise DamagedFile(f"it has a video with the id {number}")


class Real(_Checked[float]):
    """A finite number."""

    impl, cache_ok, allowed = Double, True, (int, float)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the number; raises DamagedFile if it is not finite."""
        number = super().process_result_value(value, dialect)
        if number is None or math.isfinite(number):
            return number
        raise DamagedFile("it has a number that is not finite")


class Seconds(Real):
    """A length of a video; the longest that is indexed has 240 hours."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the length; raises DamagedFile if no video has it."""
        number = super().process_result_value(value, dialect)
        if number is None or 0 <= number <= _LONGEST_SECONDS:
            return number
        raise DamagedFile(f"it has a video of {number} seconds")


class Text(_Checked[str]):
    """A text that may be a path: no path has a zero in it."""

    impl, cache_ok, allowed = String, True, (str,)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the text; raises DamagedFile if it has a zero."""
        text = super().process_result_value(value, dialect)
        if text is not None and "\0" in text:
            raise DamagedFile(f"it has a text with a zero in it: {text[:50]!r}")
        return text


class State(Text):
    """The state of a video."""

    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the state; raises DamagedFile if there is no such state."""
        if value is None or value in get_args(VideoState):
            return value
        raise DamagedFile(f"it has a video in the state {str(value)[:50]!r}")


class Uid(TypeDecorator[str]):
    """A uid, which becomes the name of a file."""

    impl, cache_ok = String, True

    def process_result_value(self, value: Any, dialect: Dialect) -> str:
        """Return the uid, checked by `check_uid`."""
        return check_uid(value)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware in Python, UTC without a zone in the database."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC without a zone."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Add the zone again."""
        return value.replace(tzinfo=UTC) if value else None


class Base(DeclarativeBase):
    """Base of all tables. Ids are never used again (the migrations set AUTOINCREMENT)."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {int: Whole, float: Real, str: Text}


class LibraryRow(Base):
    """Libraries: roots that a person added."""

    __tablename__ = "libraries"

    id: Mapped[int] = mapped_column(primary_key=True)
    root_path: Mapped[str] = mapped_column(unique=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VideoRow(Base):
    """Videos: contents."""

    __tablename__ = "videos"

    id: Mapped[int] = mapped_column(VideoId, primary_key=True)
    uid: Mapped[str] = mapped_column(Uid, unique=True)
    fast_hash: Mapped[str] = mapped_column(index=True)
    full_hash: Mapped[str | None]
    state: Mapped[VideoState] = mapped_column(State)
    reason: Mapped[str | None]
    duration_seconds: Mapped[float] = mapped_column(Seconds)
    num_frames: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    fps: Mapped[float]
    codec: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigWhole)
    indexed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    detail: Mapped[str | None]
    transient_failures: Mapped[int | None]
    offset_seconds: Mapped[float] = mapped_column(server_default="0")


class FileRow(Base):
    """Files: paths of contents."""

    __tablename__ = "files"

    id: Mapped[int] = mapped_column(primary_key=True)
    library_id: Mapped[int] = mapped_column(ForeignKey("libraries.id"), index=True)
    path: Mapped[str] = mapped_column(unique=True)
    size_bytes: Mapped[int] = mapped_column(BigWhole)
    mtime_ns: Mapped[int] = mapped_column(BigWhole)
    video_id: Mapped[int | None] = mapped_column(VideoId, ForeignKey("videos.id"), index=True)
    problem: Mapped[str | None]


class LabelRow(Base):
    """Labels of videos. Labels are compared by ``folded`` and shown as ``label``."""

    __tablename__ = "labels"

    video_id: Mapped[int] = mapped_column(
        VideoId, ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    folded: Mapped[str] = mapped_column(primary_key=True, index=True)
    label: Mapped[str]


class SavedSearchRow(Base):
    """Saved searches. Their names are compared as labels are."""

    __tablename__ = "saved_searches"

    folded: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    query: Mapped[str]
    filter: Mapped[str]
    """JSON."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    looked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    seen_video_id: Mapped[int]
    """Videos with a higher id are new."""


class TrackRow(Base):
    """Tracks: the lines of one kind of a video."""

    __tablename__ = "tracks"
    __table_args__ = (UniqueConstraint("video_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    video_id: Mapped[int] = mapped_column(
        VideoId, ForeignKey("videos.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str]
    source: Mapped[str]
    """What it was made by and from, such as the name of a model."""
    problem: Mapped[str | None]
    """Why there are no lines, or not all."""
    embedder: Mapped[str | None]
    """Fingerprint of the text model of ``passages``."""
    passages: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Vectors of its lines; see `storage.catalog.passages`."""
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LineRow(Base):
    """Lines of tracks, by rising time."""

    __tablename__ = "lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    track_id: Mapped[int] = mapped_column(ForeignKey("tracks.id", ondelete="CASCADE"), index=True)
    start_seconds: Mapped[float]
    end_seconds: Mapped[float]
    text: Mapped[str]
    words: Mapped[str | None]
    """The text as it is searched, if that differs; see `storage.catalog.words`."""
    confidence: Mapped[float]
    language: Mapped[str | None]


class FactsRow(Base):
    """Facts that the file of a video states; a video that was indexed by an earlier version has no row at first."""

    __tablename__ = "facts"

    video_id: Mapped[int] = mapped_column(
        VideoId, ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    recorded_ns: Mapped[int | None] = mapped_column(BigWhole)
    """Nanoseconds since 1970."""
    camera: Mapped[str | None]
    """Folded, as it is compared."""
    latitude: Mapped[float | None]
    longitude: Mapped[float | None]
    stated: Mapped[str]
    """JSON of `storage.facts.facts_values`, without the chapters."""
    chapters: Mapped[str]
    """JSON of the chapters."""


class ChangeRow(Base):
    """The last change of each video and of its files, written by triggers; the row stays when the video is removed.

    A video that has not changed since this table exists has no row.
    """

    __tablename__ = "video_changes"

    video_id: Mapped[int] = mapped_column(VideoId, primary_key=True)
    number: Mapped[int] = mapped_column(BigWhole, index=True)
    """Rises with each change of any video."""


class LineageRow(Base):
    """One row if this catalogue has replaced another: numbers of changes before and after that cannot be compared."""

    __tablename__ = "lineage"

    stamp: Mapped[str] = mapped_column(primary_key=True)


class RunRow(Base):
    """Runs of the indexer."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[RunKind] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[RunOutcome | None] = mapped_column(Text)
    seen: Mapped[int]
    indexed: Mapped[int]
    partial: Mapped[int]
    failed: Mapped[int]
    skipped: Mapped[int]
    forgotten: Mapped[int]
    video_seconds: Mapped[float]
