"""The tables of the catalogue, as the migrations create them. Only `storage.catalog` uses them."""

from datetime import UTC, datetime

from sqlalchemy import BigInteger, DateTime, Dialect, ForeignKey, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from scanonce.storage.catalog.entries import RunKind, RunOutcome
from scanonce.storage.records import VideoState


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


class LibraryRow(Base):
    """Libraries: roots that a person added."""

    __tablename__ = "libraries"

    id: Mapped[int] = mapped_column(primary_key=True)
    root_path: Mapped[str] = mapped_column(unique=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)


class VideoRow(Base):
    """Videos: contents."""

    __tablename__ = "videos"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True)
    fast_hash: Mapped[str] = mapped_column(index=True)
    full_hash: Mapped[str | None]
    state: Mapped[VideoState] = mapped_column(String)
    reason: Mapped[str | None]
    duration_seconds: Mapped[float]
    num_frames: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    fps: Mapped[float]
    codec: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
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
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    video_id: Mapped[int | None] = mapped_column(ForeignKey("videos.id"), index=True)
    problem: Mapped[str | None]


class LabelRow(Base):
    """Labels of videos. Labels are compared by ``folded`` and shown as ``label``."""

    __tablename__ = "labels"

    video_id: Mapped[int] = mapped_column(
        ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
    )
    folded: Mapped[str] = mapped_column(primary_key=True, index=True)
    label: Mapped[str]


class ChangeRow(Base):
    """The last change of each video and of its files, written by triggers; the row stays when the video is removed.

    A video that has not changed since this table exists has no row.
    """

    __tablename__ = "video_changes"

    video_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, index=True)
    """Rises with each change of any video."""


class LineageRow(Base):
    """One row if this catalogue has replaced another: numbers of changes before and after that cannot be compared."""

    __tablename__ = "lineage"

    stamp: Mapped[str] = mapped_column(primary_key=True)


class RunRow(Base):
    """Runs of the indexer."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[RunKind] = mapped_column(String)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[RunOutcome | None] = mapped_column(String)
    seen: Mapped[int]
    indexed: Mapped[int]
    partial: Mapped[int]
    failed: Mapped[int]
    skipped: Mapped[int]
    forgotten: Mapped[int]
    video_seconds: Mapped[float]
