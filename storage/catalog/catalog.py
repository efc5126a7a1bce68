"""The catalogue: what is in the library and what became of it. The rest is derived from it.

A video is a content; files are the places where it lies. A video becomes searchable in one commit
(:meth:`Catalog.record_indexed`) and is gone when its last file is (:meth:`Catalog.forget_files`).
SQL stays in this module: callers hand in and get dataclasses, never rows.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, Catalog.open(Path(folder, "c.sqlite")) as catalog:
    ...     catalog.add_library(Path("/films")).root.name, catalog.totals().num_files
    ('films', 0)

One process writes at a time (a second one waits up to ten seconds), any number read meanwhile, each
from a consistent snapshot. A commit is synced to the disk: a video that was recorded survives a
power cut.
"""

import os
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    QueuePool,
    Row,
    Select,
    and_,
    create_engine,
    delete,
    event,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from scanonce.storage.catalog.entries import (
    ChangeMark,
    Content,
    Failure,
    FileRecord,
    FileStamp,
    KnownContent,
    Library,
    Run,
    RunCounts,
    RunKind,
    RunOutcome,
    Totals,
    VideoChanges,
)
from scanonce.storage.catalog.labels import folded, normal_label
from scanonce.storage.catalog.tables import (
    ChangeRow,
    FileRow,
    LabelRow,
    LibraryRow,
    LineageRow,
    RunRow,
    VideoRow,
)
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import index_root
from scanonce.storage.records import Video, VideoInfo, VideoState

SCHEMA_REVISION = "0004"
"""Newest revision in ``storage/migrations/versions``; revisions are numbers that rise by one."""

BUSY_TIMEOUT_SECONDS = 10.0
SEARCHABLE: tuple[VideoState, ...] = ("indexed", "partial")

Item = TypeVar("Item")
HalfOpen: TypeAlias = tuple[Item | None, Item | None]
"""From the first to before the second, with no bound where it is None."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_CHUNK = 10_000  # ids or paths per statement; SQLite takes 32,766 variables


# ---------------------------------------------------------------- the catalogue


class Catalog:
    """One open catalogue. May be shared by threads, not by processes; a context manager.

    Every method raises ``IndexDirectoryError`` where the database is locked, full, damaged or
    cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Use :meth:`open`, which also brings the tables up to date."""
        self.path = path
        self._read_only = read_only
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        event.listen(self._engine, "begin", _begin)
        self._watcher: sqlite3.Connection | None = None
        self._watcher_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """The catalogue at ``path``, made or brought up to date where needed; else some 5 ms.

        Args:
            path: ``catalog.sqlite`` in an index directory that exists.
            read_only: for processes that search; the file must exist and be up to date.

        Raises:
            IndexDirectoryError: no catalogue there (read-only), made by a newer version, or not a
                catalogue.
        """
        if read_only and not path.is_file():
            folder = path.parent
            raise IndexDirectoryError(
                f"no index at {folder}: run `scanonce index PATH --index {folder}`"
            )
        catalog = cls(path, read_only=read_only)
        try:
            catalog._bring_up_to_date()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Close every connection. A second call does nothing."""
        with self._watcher_lock:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------ libraries

    def add_library(self, root: Path) -> Library:
        """Remember a root; the library that is there already where it was added before."""
        statement = insert(LibraryRow).values(root_path=str(root), added_at=_now())
        with self._writing() as connection:
            connection.execute(statement.on_conflict_do_nothing())
            return next(each for each in _libraries(connection) if each.root == root)

    def libraries(self) -> list[Library]:
        """All libraries, sorted by root."""
        with self._reading() as connection:
            return _libraries(connection)

    def forget_library(self, root: Path) -> list[Video]:
        """Forget all libraries and files at or below ``root``, and videos that lose their last one.

        Returns:
            Those videos, as :meth:`forget_files` does.
        """
        with self._writing() as connection:
            below = list(connection.scalars(select(FileRow.path).where(_below(FileRow.path, root))))
            removed = _forget(connection, below)
            connection.execute(delete(LibraryRow).where(_below(LibraryRow.root_path, root)))
            return removed

    # ------------------------------------------------ reading

    def files_under(self, root: Path) -> list[FileRecord]:
        """Every file known at or below ``root``, sorted by path; about 2 s for 100,000."""
        statement = (
            select(FileRow.__table__, VideoRow.state, VideoRow.reason, VideoRow.transient_failures)
            .select_from(FileRow)
            .outerjoin(VideoRow)
            .where(_below(FileRow.path, root))
            .order_by(FileRow.path)
        )
        with self._reading() as connection:
            rows = connection.execute(statement).all()
        return [
            FileRecord(
                _stamp(row),
                row.video_id,
                row.state,
                row.reason,
                row.problem,
                row.transient_failures,
            )
            for row in rows
        ]

    def videos(
        self,
        ids: Iterable[int] | None = None,
        *,
        states: Collection[VideoState] | None = None,
    ) -> list[Video]:
        """Videos with their paths, by rising id; ids that are gone are left out.

        Args:
            ids: only these. Default: all.
            states: only in one of these states. Default: any.
        """
        statement = _select_videos()
        if states is not None:
            statement = statement.where(VideoRow.state.in_(states))
        with self._reading() as connection:
            if ids is None:
                return _videos(connection.execute(statement).all())
            rows: list[Row[Any]] = []
            for chunk in _chunks(sorted({int(each) for each in ids})):  # NumPy ints too
                rows += connection.execute(statement.where(VideoRow.id.in_(chunk))).all()
            return _videos(rows)

    def searchable_changes(self, since: ChangeMark | None = None) -> VideoChanges:
        """What may be searched and was not, or was otherwise, when ``since`` was given out.

        Cost: two milliseconds and some 20 microseconds for each video that has changed, whatever the
        library holds; that of `videos` where it is asked for the first time.

        Args:
            since: ``mark`` of the last answer, from this or another object of the same catalogue.
                Default: all there is.
        """
        statement = _select_videos().where(VideoRow.state.in_(SEARCHABLE))
        with self._reading() as connection:
            mark = _mark(connection)
            if since is None or since.lineage != mark.lineage or since.number > mark.number:
                return VideoChanges(_videos(connection.execute(statement).all()), [], True, mark)
            newer = select(ChangeRow.video_id).where(ChangeRow.number > since.number)
            changed = sorted(connection.scalars(newer))
            rows: list[Row[Any]] = []
            for chunk in _chunks(changed):
                rows += connection.execute(statement.where(VideoRow.id.in_(chunk))).all()
        videos = _videos(rows)
        searchable = {video.video_id for video in videos}
        gone = [video_id for video_id in changed if video_id not in searchable]
        return VideoChanges(videos, gone, False, mark)

    def live_video_ids(self, under: Path | None = None) -> NDArray[np.int64]:
        """Ids of the videos a search may return, rising; about 0.2 s for 100,000.

        Args:
            under: only videos with a file at or below this folder. Default: all.
        """
        file = select(FileRow.id).where(FileRow.video_id == VideoRow.id)
        if under is not None:
            file = file.where(_below(FileRow.path, under))
        searchable = VideoRow.state.in_(SEARCHABLE)
        statement = select(VideoRow.id).where(searchable, file.exists()).order_by(VideoRow.id)
        with self._reading() as connection:
            return np.array(connection.scalars(statement).all(), dtype=np.int64)

    def matching_videos(
        self,
        *,
        under: Sequence[Path] = (),
        changed_ns: HalfOpen[int] = (None, None),
        indexed: HalfOpen[datetime] = (None, None),
        seconds: HalfOpen[float] = (None, None),
        labels: Iterable[str] = (),
        without_labels: Iterable[str] = (),
    ) -> NDArray[np.int64]:
        """Ids of the videos a search may return of which all of this is true, rising.

        Args:
            under: one of its files lies at or below one of these folders. Default: anywhere.
            changed_ns: and that file was changed last then, nanoseconds since 1970.
            indexed: it was indexed last then.
            seconds: its length.
            labels: it carries all of these.
            without_labels: it carries none of these.

        Raises:
            QueryError: a label is none; see `storage.catalog.labels`.
        """
        file = select(FileRow.video_id).where(*_between(FileRow.mtime_ns, changed_ns))
        if under:
            file = file.where(or_(*(_below(FileRow.path, root) for root in under)))
        carries = select(LabelRow.video_id)
        statement = select(VideoRow.id).where(
            VideoRow.state.in_(SEARCHABLE),
            VideoRow.id.in_(file),
            *_between(VideoRow.indexed_at, indexed),
            *_between(VideoRow.duration_seconds, seconds),
            *(
                VideoRow.id.in_(carries.where(LabelRow.folded == folded(label)))
                for label in set(labels)
            ),
        )
        if refused := {folded(label) for label in without_labels}:
            statement = statement.where(
                VideoRow.id.not_in(carries.where(LabelRow.folded.in_(refused)))
            )
        with self._reading() as connection:
            ids = connection.scalars(statement.order_by(VideoRow.id)).all()
        return np.array(ids, dtype=np.int64)

    def uids(self) -> set[str]:
        """Uids of all contents, failed ones too."""
        with self._reading() as connection:
            return set(connection.scalars(select(VideoRow.uid)))

    def videos_by_fast_hash(self, fast_hash: str) -> list[KnownContent]:
        """Contents with this fast hash, by rising id; several where only the samples agree."""
        statement = (
            select(
                VideoRow.id.label("video"),
                VideoRow.uid,
                VideoRow.fast_hash,
                VideoRow.full_hash,
                VideoRow.state,
                VideoRow.transient_failures,
                VideoRow.size_bytes.label("content_bytes"),
                FileRow.path,
                FileRow.size_bytes,
                FileRow.mtime_ns,
            )
            .select_from(VideoRow)
            .outerjoin(FileRow)
            .where(VideoRow.fast_hash == fast_hash)
            .order_by(VideoRow.id, FileRow.path)
        )
        with self._reading() as connection:
            rows = connection.execute(statement).all()
        known = []
        for video_id, group in groupby(rows, key=lambda row: int(row.video)):
            same = list(group)
            first = same[0]
            content = Content(first.uid, first.fast_hash, first.content_bytes, first.full_hash)
            files = tuple(_stamp(row) for row in same if row.path is not None)
            known.append(
                KnownContent(video_id, content, first.state, files, first.transient_failures)
            )
        return known

    def change_token(self) -> int:
        """A number that is another one where anybody has committed since the last call. Microseconds.

        It means something only within this object. Take it before reading what you keep, so that a
        commit in between makes you read once too often, never once too seldom.
        """
        with self._watcher_lock, _mapped_errors(self.path):
            if self._watcher is None:
                # PRAGMA data_version compares within one connection, so this one is never pooled.
                self._watcher = self._connect()
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def copy_to(self, path: Path) -> None:
        """Copy the whole catalogue, as it is at one moment, to a file; writers may go on meanwhile.

        An earlier file there is replaced. The copy is on the disk when this returns.
        """
        for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            old.unlink(missing_ok=True)
        with (
            _mapped_errors(self.path),
            closing(self._connect()) as source,
            closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)

    def replace_by(self, path: Path) -> None:
        """Make everything here what another catalogue holds, in one transaction; readers follow.

        Renaming a file into place would leave this one's log beside it, which belongs to neither.

        Args:
            path: a catalogue nobody else uses; it is brought up to date, and marked as one whose
                changes are counted anew.
        """
        with Catalog.open(path) as given, given._writing() as connection:
            connection.execute(delete(LineageRow))
            connection.execute(insert(LineageRow).values(stamp=secrets.token_hex(16)))
        with (
            _mapped_errors(self.path),
            closing(sqlite3.connect(path)) as source,
            closing(self._connect()) as target,
        ):
            source.backup(target)

    def integrity_problems(self) -> list[str]:
        """What is wrong inside the database file, a line each; about 1 s for 100,000 videos.

        Also for one made with the constructor, which reads nothing. Where it is too damaged to be
        read, the error says so.
        """
        with self._reading() as connection:
            checks = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            problems = [str(line) for line in checks if line != "ok"]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return problems + [
            f"row {row[1]} of {row[0]} refers to one of {row[2]} that is not there"
            for row in broken
        ]

    def contents(self, ids: Collection[int] | None = None) -> dict[int, Content]:
        """Contents by the id of their video; all by default, ids that are gone are left out."""
        columns = (VideoRow.uid, VideoRow.fast_hash, VideoRow.size_bytes, VideoRow.full_hash)
        statement = select(VideoRow.id, *columns)
        if ids is not None:
            statement = statement.where(VideoRow.id.in_(ids))
        with self._reading() as connection:
            rows = connection.execute(statement).all()
        return {
            int(row.id): Content(row.uid, row.fast_hash, row.size_bytes, row.full_hash)
            for row in rows
        }

    def without_files(self) -> dict[int, str]:
        """Uids, by id, of videos that have no file left; they go with `forget_files`."""
        file = select(FileRow.id).where(FileRow.video_id == VideoRow.id)
        statement = select(VideoRow.id, VideoRow.uid).where(~file.exists()).order_by(VideoRow.id)
        with self._reading() as connection:
            return {int(row.id): str(row.uid) for row in connection.execute(statement)}

    def last_video_id(self) -> int:
        """The highest id a video ever had, 0 before the first: what is beyond is of another catalogue."""
        with self._reading() as connection:
            last = connection.exec_driver_sql(
                "SELECT seq FROM sqlite_sequence WHERE name = 'videos'"
            )
            return int(last.scalar() or 0)

    def began_at(self) -> datetime | None:
        """When the first run began, UTC: all copies of an index have this in common, and no other index has it."""
        statement = select(RunRow.started_at).order_by(RunRow.id).limit(1)
        with self._reading() as connection:
            return connection.scalar(statement)

    def totals(self) -> Totals:
        """How much the catalogue holds."""
        per_state = select(
            VideoRow.state,
            func.count().label("videos"),
            func.sum(VideoRow.duration_seconds).label("seconds"),
            func.sum(VideoRow.size_bytes).label("bytes"),
        ).where(VideoRow.id.in_(select(FileRow.video_id)))
        with self._reading() as connection:
            rows = connection.execute(per_state.group_by(VideoRow.state)).all()
            num_files = connection.scalar(select(func.count()).select_from(FileRow)) or 0
        counts = {row.state: int(row.videos) for row in rows}
        return Totals(
            indexed=counts.get("indexed", 0),
            partial=counts.get("partial", 0),
            failed=counts.get("failed", 0),
            num_files=num_files,
            searchable_seconds=float(sum(row.seconds for row in rows if row.state in SEARCHABLE)),
            size_bytes=sum(int(row.bytes) for row in rows),
        )

    def failures(self) -> list[Failure]:
        """Files of failed videos and files that could not be read, sorted by path."""
        statement = (
            select(FileRow.path, FileRow.problem, VideoRow.reason, VideoRow.detail)
            .outerjoin(VideoRow)
            .where(or_(FileRow.problem.is_not(None), VideoRow.state == "failed"))
            .order_by(FileRow.path)
        )
        with self._reading() as connection:
            rows = connection.execute(statement).all()
        return [
            Failure(Path(row.path), row.problem or row.reason or "unknown", row.detail)
            for row in rows
        ]

    # ------------------------------------------------ writing

    def record_indexed(
        self,
        content: Content,
        files: Sequence[FileStamp],
        *,
        state: Literal["indexed", "partial"],
        duration_seconds: float,
        num_frames: int,
        info: VideoInfo,
        reason: str | None = None,
        replaces: int | None = None,
    ) -> int:
        """Make a video searchable, in one transaction. Write its features first.

        A content that failed before keeps its id. One that was searchable gets another, and another
        uid: whatever was derived of it goes with the old ones, and no reader mixes the two. A file
        that held another content leaves it; a content without files is invisible and goes with the
        next :meth:`forget_files`.

        Args:
            content: what was decoded.
            files: where it lies, one or more, each below a library.
            state: ``partial`` needs a ``reason``.
            duration_seconds: end of the last decoded frame; the container's figure in ``info`` is
                not kept.
            num_frames: frames stored.
            info: picture size, frame rate and codec.
            reason: why it is partial.
            replaces: the video whose place this one takes; its files and labels become this one's.
                Delete what is stored of it afterwards.

        Returns:
            The video's id.

        Raises:
            ValueError: no file, a file outside every library, or a partial video without a reason.
        """
        if not files or (state == "partial" and not reason):
            raise ValueError("an indexed video needs a file, a partial one a reason as well")
        facts = {
            "state": state,
            "reason": reason,
            "duration_seconds": duration_seconds,
            "num_frames": num_frames,
            "width": info.width,
            "height": info.height,
            "fps": info.fps,
            "codec": info.codec,
            "detail": None,
            "transient_failures": None,
        }
        with self._writing() as connection:
            video_id = _put_video(connection, content, facts)
            if replaces is not None:
                theirs = update(FileRow).where(FileRow.video_id == replaces)
                connection.execute(theirs.values(video_id=video_id))
                # one that this video carries already goes with the old video
                labels = update(LabelRow).prefix_with("OR IGNORE")
                labels = labels.where(LabelRow.video_id == replaces)
                connection.execute(labels.values(video_id=video_id))
                connection.execute(delete(VideoRow).where(VideoRow.id == replaces))
            _put_files(connection, files, video_id)
            return video_id

    def record_failed(
        self,
        files: Sequence[FileStamp],
        reason: str,
        *,
        content: Content | None = None,
        detail: str | None = None,
        transient: bool = False,
    ) -> int | None:
        """Record that nothing of these files could be used.

        Args:
            files: where it lies, each below a library.
            reason: one line for a person.
            detail: the end of what the decoder printed.
            transient: another run may have more luck; how often it had none is counted.
            content: what they hold. Default: unknown, because the file could not even be hashed;
                such a file is tried again by every run, and one that held a video keeps it until
                its new content is known.

        Returns:
            The failed video's id; None without content.

        Raises:
            ValueError: a file outside every library.
        """
        with self._writing() as connection:
            if content is None:
                _put_problem(connection, files, reason)
                return None
            unknown = {"duration_seconds": 0.0, "num_frames": 0, "width": 0, "height": 0}
            facts = {"state": "failed", "reason": reason, **unknown, "fps": 0.0, "codec": ""}
            facts |= {"detail": detail or None, "transient_failures": 1 if transient else None}
            video_id = _put_video(connection, content, facts)
            _put_files(connection, files, video_id)
            return video_id

    def attach_file(self, video_id: int, file: FileStamp, *, full_hash: str | None = None) -> None:
        """Record that a file holds a known content (a copy, a move, a new time): no decoding.

        Args:
            video_id: the content's video.
            file: the file as it is now.
            full_hash: the content's, where telling it from others has taken it.

        Raises:
            ValueError: the file is outside every library.
        """
        with self._writing() as connection:
            _put_files(connection, [file], video_id)
            if full_hash is not None:
                same = update(VideoRow).where(VideoRow.id == video_id)
                connection.execute(same.values(full_hash=full_hash))

    def forget_files(self, paths: Iterable[Path] = ()) -> list[Video]:
        """Forget files, then every video that has none left, whoever took its last one.

        Call it at the end of a run, after all attaching: a video that moved must find its new file
        first.

        Args:
            paths: files that are gone. Unknown ones are passed over.

        Returns:
            The videos removed, with the paths just forgotten (none where a file was replaced):
            their features can be deleted.
        """
        with self._writing() as connection:
            return _forget(connection, [str(path) for path in paths])

    def mark_unscanned(self, reason: str) -> None:
        """Make every video one that has yet to be scanned, and keep its id, files and libraries."""
        values = {"state": "failed", "reason": reason, "detail": None, "transient_failures": 0}
        with self._writing() as connection:
            connection.execute(update(VideoRow).values(values))

    # ------------------------------------------------ labels

    def add_labels(self, ids: Iterable[int], labels: Iterable[str]) -> int:
        """Label videos, in one transaction. A label that is in use keeps the spelling it has.

        One short write, which SQLite puts between those of a run that goes on.

        Args:
            ids: of the videos; those that are gone are passed over.
            labels: see `storage.catalog.labels`.

        Returns:
            How many labels of videos are new.

        Raises:
            QueryError: a label is empty, too long, or has control characters.
        """
        wanted = {folded(label): normal_label(label) for label in labels}
        videos = _plain_ids(ids)
        with self._writing() as connection:
            return sum(
                _put_label(connection, chunk, key, label)
                for key, label in wanted.items()
                for chunk in _chunks(videos)
            )

    def remove_labels(self, ids: Iterable[int], labels: Iterable[str]) -> int:
        """Take labels from videos, in one transaction; how many there were.

        Raises:
            QueryError: as `add_labels`.
        """
        keys = {folded(label) for label in labels}
        statement = delete(LabelRow).where(LabelRow.folded.in_(keys))
        videos = _plain_ids(ids)
        with self._writing() as connection:
            return sum(
                connection.execute(statement.where(LabelRow.video_id.in_(chunk))).rowcount
                for chunk in _chunks(videos)
            )

    def labels(self) -> dict[str, int]:
        """Every label in use, in order, with the number of videos that carry it, failed ones too."""
        statement = select(func.min(LabelRow.label), func.count()).group_by(LabelRow.folded)
        with self._reading() as connection:
            rows = connection.execute(statement.order_by(LabelRow.folded)).all()
        return {str(label): int(count) for label, count in rows}

    def labels_of(self, ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """The labels of videos, in order; videos without one are left out."""
        statement = select(LabelRow.video_id, LabelRow.label)
        statement = statement.order_by(LabelRow.video_id, LabelRow.folded)
        with self._reading() as connection:
            rows = [
                row
                for chunk in _chunks(_plain_ids(ids))
                for row in connection.execute(statement.where(LabelRow.video_id.in_(chunk)))
            ]
        return {
            video_id: tuple(str(row.label) for row in group)
            for video_id, group in groupby(rows, key=lambda row: int(row.video_id))
        }

    def take_labels(self, other: "Catalog") -> None:
        """Make the labels here those that the same contents carry in another catalogue.

        For an index that was made anew beside one in use, whose videos people went on labelling.
        """
        with other._reading() as connection:
            given = connection.execute(
                select(VideoRow.uid, LabelRow.folded, LabelRow.label).join(LabelRow)
            ).all()
        with self._writing() as connection:
            mine = {
                content_of(row.uid): int(row.id)
                for row in connection.execute(select(VideoRow.uid, VideoRow.id))
            }
            connection.execute(delete(LabelRow))
            values = [
                {"video_id": mine[content_of(row.uid)], "folded": row.folded, "label": row.label}
                for row in given
                if content_of(row.uid) in mine
            ]
            if values:
                connection.execute(insert(LabelRow).on_conflict_do_nothing(), values)

    # ------------------------------------------------ runs

    def begin_run(self, kind: RunKind) -> int:
        """Note that a run starts; its id."""
        values = {"kind": kind, "started_at": _now(), **asdict(RunCounts())}
        with self._writing() as connection:
            statement = insert(RunRow).values(values).returning(RunRow.id)
            return connection.execute(statement).scalar_one()

    def finish_run(self, run_id: int, outcome: RunOutcome, counts: RunCounts) -> None:
        """Note how a run ended."""
        values = {"finished_at": _now(), "outcome": outcome, **asdict(counts)}
        with self._writing() as connection:
            connection.execute(update(RunRow).where(RunRow.id == run_id).values(values))

    def runs(self, limit: int = 20) -> list[Run]:
        """The last runs, newest first."""
        statement = select(RunRow.__table__).order_by(RunRow.id.desc()).limit(limit)
        with self._reading() as connection:
            rows = connection.execute(statement).all()
        return [
            Run(
                run_id=row.id,
                kind=row.kind,
                started_at=row.started_at,
                finished_at=row.finished_at,
                outcome=row.outcome,
                counts=RunCounts(**{name: getattr(row, name) for name in RunCounts.__slots__}),
            )
            for row in rows
        ]

    # ------------------------------------------------ connections

    def _connect(self) -> sqlite3.Connection:
        mode = "rwc"
        if self._read_only:
            mode = "ro&immutable=1" if self._is_fixed() else "ro"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,  # transactions begin in _begin, and include table definitions
            check_same_thread=False,  # the pool hands a connection to one thread at a time
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            if not self._read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(
                    "PRAGMA synchronous = FULL"
                )  # NORMAL loses commits with the power
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_fixed(self) -> bool:
        """Whether nobody can change it where it lies, such as a backup on a read-only disk: there SQLite cannot make
        the file through which readers and writers agree.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        return not os.access(self.path.parent, os.W_OK) and not log.exists()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _mapped_errors(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _mapped_errors(self.path), _immediate(self._engine).begin() as connection:
            yield connection

    def _bring_up_to_date(self) -> None:
        with self._reading() as connection:
            revision = _revision(connection, self.path)
        if revision == SCHEMA_REVISION:
            return
        if self._read_only:
            root = index_root(self.path.parent)
            raise IndexDirectoryError(
                f"the index at {root} is of an older version or unfinished: "
                f"run `scanonce index [PATH] --index {root}` once to bring it up to date"
            )
        with (
            self._writing() as connection
        ):  # of two processes, the second waits here and finds it done
            if _revision(connection, self.path) != SCHEMA_REVISION:
                _migrate(connection)


# ---------------------------------------------------------------- connections and errors


def _begin(connection: Connection) -> None:
    """Start a transaction. A writer locks at once: a reader that turns writer may find it stale."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _immediate(engine: Engine) -> Engine:
    return engine.execution_options(begin="BEGIN IMMEDIATE")


_NEXT_STEP = {
    sqlite3.SQLITE_BUSY: "another process is writing to it: wait for it, then try again",
    sqlite3.SQLITE_LOCKED: "another process is writing to it: wait for it, then try again",
    sqlite3.SQLITE_FULL: "the disk is full: free some space, then run the same command again",
    sqlite3.SQLITE_READONLY: "it cannot be written: check the permissions of the index directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: does the index directory exist, may you write in it?",
    sqlite3.SQLITE_PERM: "it cannot be opened: check the permissions of the index directory",
    sqlite3.SQLITE_IOERR: "the disk reported an error: check it, then run the same command again",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a backup, or index into a new directory",
    sqlite3.SQLITE_NOTADB: "it is damaged: restore a backup, or index into a new directory",
}


@contextmanager
def _mapped_errors(path: Path) -> Iterator[None]:
    """Turn whatever the database raises into one error that says what to do."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        advice = _NEXT_STEP.get(code, "this should not happen: please report it")
        raise IndexDirectoryError(f"the catalogue {path}: {cause}; {advice}") from error


def _revision(connection: Connection, path: Path) -> str | None:
    """Revision of the tables, None in an empty database.

    Raises:
        IndexDirectoryError: newer than this version knows, or tables of somebody else.
    """
    tables = set(
        connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars()
    )
    if not tables:
        return None
    revision: str | None = None
    if "alembic_version" in tables:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision is None or not revision.isdecimal():
        raise IndexDirectoryError(
            f"{path} is not a catalogue of scanonce: name another index directory"
        )
    if int(revision) > int(SCHEMA_REVISION):
        raise IndexDirectoryError(
            f"the index at {path.parent} was made by a newer scanonce (schema {revision}, "
            f"known here up to {SCHEMA_REVISION}): upgrade scanonce, or use another index directory"
        )
    return revision


def _migrate(connection: Connection) -> None:
    """Run the missing migrations inside the transaction at hand: all of them or none."""
    from alembic import command  # 0.2 s to import, needed once per version
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, SCHEMA_REVISION)


# ---------------------------------------------------------------- statements


def _now() -> datetime:
    return datetime.now(UTC)


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _below(column: InstrumentedAttribute[str], root: Path) -> ColumnElement[bool]:
    """True at and below ``root``: a range of the column's index, where LIKE would scan."""
    prefix = str(root).removesuffix(os.sep) + os.sep
    end = prefix[:-1] + chr(ord(os.sep) + 1)  # "/films/" <= path < "/films0"
    return or_(column == str(root), and_(column >= prefix, column < end))


def _between(
    column: InstrumentedAttribute[Any], bounds: HalfOpen[Any]
) -> Iterator[ColumnElement[bool]]:
    first, end = bounds
    if first is not None:
        yield column >= first
    if end is not None:
        yield column < end


def _plain_ids(ids: Iterable[int]) -> list[int]:
    return sorted({int(each) for each in ids})  # NumPy ints too


def _mark(connection: Connection) -> ChangeMark:
    lineage = connection.scalar(select(LineageRow.stamp))
    number = connection.scalar(select(func.max(ChangeRow.number)))
    return ChangeMark(lineage or "", number or 0)


def _stamp(row: Row[*tuple[Any, ...]]) -> FileStamp:
    return FileStamp(Path(row.path), row.size_bytes, row.mtime_ns)


def _libraries(connection: Connection) -> list[Library]:
    rows = connection.execute(select(LibraryRow.__table__).order_by(LibraryRow.root_path))
    return [Library(row.id, Path(row.root_path), row.added_at) for row in rows]


def _select_videos() -> Select[*tuple[Any, ...]]:
    columns = (VideoRow.id, VideoRow.uid, VideoRow.state, VideoRow.reason)
    lengths = (VideoRow.duration_seconds, VideoRow.num_frames)
    facts = (VideoRow.width, VideoRow.height, VideoRow.fps, VideoRow.codec, VideoRow.size_bytes)
    joined: Select[*tuple[Any, ...]] = select(
        *columns, *lengths, *facts, VideoRow.indexed_at, FileRow.path
    ).join(FileRow)
    return joined.order_by(VideoRow.id, FileRow.path)


def _videos(rows: Sequence[Row[Any]]) -> list[Video]:
    """One video per run of rows with the same id; a row is a file."""
    videos = []
    for video_id, group in groupby(rows, key=itemgetter(0)):
        files = list(group)
        # by place: by name it takes a third longer, and a search opens with all videos of the library
        first: tuple[Any, ...] = tuple(files[0])
        _, uid, state, reason, duration, num_frames, *facts, size_bytes, added_at, _ = first
        videos.append(
            Video(
                video_id=video_id,
                uid=uid,
                state=state,
                duration_seconds=duration,
                num_frames=num_frames,
                paths=tuple([Path(row[-1]) for row in files]),
                reason=reason,
                info=VideoInfo(duration, *facts),
                size_bytes=size_bytes,
                added_at=added_at,
            )
        )
    return videos


def _put_video(connection: Connection, content: Content, facts: dict[str, Any]) -> int:
    """Insert the content, or write the new facts over the old ones; its id."""
    values = {**asdict(content), **facts, "indexed_at": _now()}
    statement = insert(VideoRow).values(values)
    changed: dict[str, Any] = {name: statement.excluded[name] for name in values if name != "uid"}
    # A full hash once known stays: the next decoding may not need it.
    changed["full_hash"] = func.coalesce(statement.excluded.full_hash, VideoRow.full_hash)
    # null where it is no such failure now; those in a row add up
    before = func.coalesce(VideoRow.transient_failures, 0)
    changed["transient_failures"] = statement.excluded.transient_failures + before
    upsert = statement.on_conflict_do_update(index_elements=["uid"], set_=changed)
    return int(connection.execute(upsert.returning(VideoRow.id)).scalar_one())


def _file_values(connection: Connection, files: Sequence[FileStamp]) -> list[dict[str, Any]]:
    libraries = {library.root: library.library_id for library in _libraries(connection)}
    values = []
    for file in files:
        # parents go from the inside out, so the innermost of nested libraries takes the file
        roots = (root for root in (file.path, *file.path.parents) if root in libraries)
        root = next(roots, None)
        if root is None:
            raise ValueError(f"{file.path} is in no library; add one first: {sorted(libraries)}")
        values.append({**asdict(file), "path": str(file.path), "library_id": libraries[root]})
    return values


def _put_files(connection: Connection, files: Sequence[FileStamp], video_id: int) -> None:
    values = [
        {**each, "video_id": video_id, "problem": None} for each in _file_values(connection, files)
    ]
    statement = insert(FileRow)
    changed = {name: statement.excluded[name] for name in values[0] if name != "path"}
    upsert = statement.on_conflict_do_update(index_elements=["path"], set_=changed)
    connection.execute(upsert, values)


def _put_problem(connection: Connection, files: Sequence[FileStamp], reason: str) -> None:
    """Note a problem; a known file keeps stamp and video, so the next scan looks at it again."""
    values = [{**each, "problem": reason} for each in _file_values(connection, files)]
    statement = insert(FileRow)
    upsert = statement.on_conflict_do_update(
        index_elements=["path"], set_={"problem": statement.excluded.problem}
    )
    connection.execute(upsert, values)


def _put_label(connection: Connection, ids: Sequence[int], key: str, label: str) -> int:
    """Label videos that are there; how many did not carry it yet."""
    in_use = connection.scalar(select(func.min(LabelRow.label)).where(LabelRow.folded == key))
    rows = select(VideoRow.id, literal(key), literal(in_use or label)).where(VideoRow.id.in_(ids))
    statement = insert(LabelRow).from_select(["video_id", "folded", "label"], rows)
    return connection.execute(statement.on_conflict_do_nothing()).rowcount


def content_of(uid: str) -> str:
    """The content that a uid names, whichever scan of it: the uid without the number of the scan."""
    return uid.partition("-")[0]


def _forget(connection: Connection, paths: Sequence[str]) -> list[Video]:
    """Delete these files, then all videos without files; those, with these paths of theirs."""
    lost: dict[int, list[str]] = {}
    for chunk in _chunks(paths):
        statement = delete(FileRow).where(FileRow.path.in_(chunk))
        for row in connection.execute(statement.returning(FileRow.path, FileRow.video_id)):
            lost.setdefault(row.video_id, []).append(row.path)
    orphan = ~select(FileRow.id).where(FileRow.video_id == VideoRow.id).exists()
    rows = connection.execute(select(VideoRow.__table__).where(orphan).order_by(VideoRow.id)).all()
    connection.execute(delete(VideoRow).where(orphan))
    return [
        Video(
            video_id=row.id,
            uid=row.uid,
            state=row.state,
            duration_seconds=row.duration_seconds,
            num_frames=row.num_frames,
            paths=tuple(Path(path) for path in sorted(lost.get(row.id, []))),
            reason=row.reason,
        )
        for row in rows
    ]
