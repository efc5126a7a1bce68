"""The catalogue: libraries, files and videos, and the state of each. The rest of an index is derived from it.

A video is a content; files are the paths it is stored at. A video becomes searchable in one commit
(:meth:`Catalog.record_indexed`) and is gone when its last file is (:meth:`Catalog.forget_files`).
SQL stays in this folder: callers pass and receive dataclasses, never rows.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, Catalog.open(Path(folder, "c.sqlite")) as catalog:
    ...     catalog.add_library(Path("/films")).root.name, catalog.totals().num_files
    ('films', 0)

One process writes at a time (a second one waits up to ten seconds), any number read at the same time,
each from a consistent snapshot. A commit is synced to the disk: a recorded video survives a power cut.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, func, select, update
from sqlalchemy.dialects.sqlite import insert

from scanonce.storage.catalog import database
from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.entries import (
    ChangeMark,
    Content,
    Failure,
    FileRecord,
    FileStamp,
    HalfOpen,
    KnownContent,
    Library,
    Totals,
    VideoChanges,
)
from scanonce.storage.catalog.facts import Near, ids_near, put_facts, without_facts
from scanonce.storage.catalog.labels import Labels
from scanonce.storage.catalog.lines import Lines
from scanonce.storage.catalog.matching import select_matching
from scanonce.storage.catalog.runs import Runs
from scanonce.storage.catalog.saved import SavedRows
from scanonce.storage.catalog.spelling import spelled
from scanonce.storage.catalog.statements import (
    below,
    contents_with,
    failures,
    forget,
    forget_libraries,
    libraries,
    plain_ids,
    put_files,
    put_problem,
    put_video,
    read_videos,
    replace_video,
    select_videos,
    totals,
)
from scanonce.storage.catalog.tables import (
    ChangeRow,
    FactsRow,
    FileRow,
    LibraryRow,
    LineageRow,
    VideoRow,
)
from scanonce.storage.facts import Chapter, Facts, read_facts
from scanonce.storage.records import Video, VideoInfo, VideoState

SEARCHABLE: tuple[VideoState, ...] = ("indexed", "partial")


class Catalog(Database):
    """One open catalogue: libraries, files and videos; see `Database` for how it is opened and shared."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Prepare connections and read nothing; use :meth:`open`."""
        super().__init__(path, read_only=read_only)
        self.labels, self.saved = Labels(self), SavedRows(self)
        self.lines = Lines(self)
        self.runs = Runs(self)

    # ------------------------------------------------ libraries

    def add_library(self, root: Path) -> Library:
        """Remember a root; return the existing library if it was added before."""
        statement = insert(LibraryRow).values(root_path=str(root), added_at=database.now())
        with self.writing() as connection:
            connection.execute(statement.on_conflict_do_nothing())
            return next(each for each in libraries(connection) if each.root == root)

    def libraries(self) -> list[Library]:
        """Return all libraries, sorted by root."""
        with self.reading() as connection:
            return libraries(connection)

    def forget_libraries(self, roots: Iterable[Path]) -> list[Video]:
        """Remove all libraries and files at or below these roots at once; return the videos as `forget_files` does."""
        with self.writing() as connection:
            return forget_libraries(connection, list(roots))

    # ------------------------------------------------ reading

    def spelled(self, path: Path) -> list[Path]:
        """Return a path as the catalogue has it, with other accents or under other links; see `spelling.spelled`."""
        with self.reading() as connection:
            return spelled(connection, path)

    def files_under(self, root: Path) -> list[FileRecord]:
        """Return every known file at or below ``root``, sorted by path; about 2 s for 100,000."""
        file = (FileRow.path, FileRow.size_bytes, FileRow.mtime_ns)
        video = (FileRow.video_id, VideoRow.state, VideoRow.reason)
        statement = (
            select(*file, *video, FileRow.problem, VideoRow.transient_failures)
            .select_from(FileRow)
            .outerjoin(VideoRow)
            .where(below(FileRow.path, root))
            .order_by(FileRow.path)
        )
        with self.reading() as connection:
            return [
                FileRecord(
                    FileStamp(Path(path), size, mtime_ns),
                    *(video_id, state, reason, problem, failures),
                )
                for path, size, mtime_ns, video_id, state, reason, problem, failures in (
                    connection.execute(statement)
                )
            ]

    def videos(
        self, ids: Iterable[int] | None = None, *, states: Collection[VideoState] | None = None
    ) -> list[Video]:
        """Return videos with their paths, by rising id; ids that are gone are left out.

        Args:
            ids: only these. Default: all.
            states: only videos in one of these states. Default: any.
        """
        statement = select_videos()
        if states is not None:
            statement = statement.where(VideoRow.state.in_(states))
        with self.reading() as connection:
            return read_videos(connection, statement, None if ids is None else plain_ids(ids))

    def searchable_changes(self, since: ChangeMark | None = None) -> VideoChanges:
        """Return the searchable videos that are new or different since ``since``, and those that are gone.

        Cost: two milliseconds and some 20 microseconds for each changed video, whatever the size of the library;
        without ``since``, that of `videos`.

        Args:
            since: ``mark`` of the last answer, from any object of the same catalogue. Default: return all videos.
        """
        statement = select_videos().where(VideoRow.state.in_(SEARCHABLE))
        with self.reading() as connection:
            mark = _mark(connection)
            if since is None or since.lineage != mark.lineage or since.number > mark.number:
                return VideoChanges(read_videos(connection, statement), [], True, mark)
            newer = select(ChangeRow.video_id).where(ChangeRow.number > since.number)
            changed = sorted(connection.scalars(newer))
            videos = read_videos(connection, statement, changed)
        searchable = {video.video_id for video in videos}
        gone = [video_id for video_id in changed if video_id not in searchable]
        return VideoChanges(videos, gone, False, mark)

    def live_video_ids(self, under: Path | None = None) -> NDArray[np.int64]:
        """Return the ids of the videos a search may return, rising; about 0.2 s for 100,000.

        Args:
            under: only videos with a file at or below this folder. Default: all.
        """
        places = () if under is None else self.spelled(under)
        with self.reading() as connection:
            return _searchable_ids(connection, select_matching(places))

    def matching_videos(
        self,
        *,
        under: Sequence[Path] = (),
        recorded_ns: HalfOpen[int] = (None, None),
        indexed: HalfOpen[datetime] = (None, None),
        seconds: HalfOpen[float] = (None, None),
        labels: Iterable[str] = (),
        without_labels: Iterable[str] = (),
        camera: str | None = None,
        near: Near | None = None,
    ) -> NDArray[np.int64]:
        """Return the ids of the videos a search may return and that meet all conditions, rising.

        Args:
            under: one of the video's files is at or below one of these folders, as `spelled`. Default: anywhere.
            recorded_ns: range of the time of its recording, nanoseconds since 1970; of that file's last change if
                nothing else is known.
            indexed: range of the time of its last indexing.
            seconds: range of its length.
            labels: it carries all of these.
            without_labels: it carries none of these.
            camera: make and model of its camera contain this text.
            near: it was recorded near this place.

        Raises:
            QueryError: a label is not allowed; see `storage.catalog.labels`.
        """
        places = [place for folder in under for place in self.spelled(folder)]
        statement = select_matching(
            places, recorded_ns, indexed, seconds, labels, without_labels, camera
        )
        with self.reading() as connection:
            ids = _searchable_ids(connection, statement)
            return ids if near is None else ids[np.isin(ids, ids_near(connection, near))]

    def without_facts(self) -> list[Video]:
        """Return the searchable videos whose facts were never read."""
        statement = select_videos().where(VideoRow.state.in_(SEARCHABLE), without_facts())
        with self.reading() as connection:
            return read_videos(connection, statement)

    def chapters(self, video_id: int) -> tuple[Chapter, ...]:
        """Return the chapters that the file of a video states, by rising start."""
        with self.reading() as connection:
            text = connection.scalar(select(FactsRow.chapters).where(FactsRow.video_id == video_id))
        return read_facts(f'{{"chapters": {text}}}').chapters if text else ()

    def uids(self) -> set[str]:
        """Return the uids of all contents, failed ones too."""
        with self.reading() as connection:
            return set(connection.scalars(select(VideoRow.uid)))

    def videos_by_fast_hash(self, fast_hash: str) -> list[KnownContent]:
        """Return the contents with this fast hash, by rising id; several if only their samples agree."""
        with self.reading() as connection:
            return contents_with(connection, fast_hash)

    def contents(self, ids: Collection[int] | None = None) -> dict[int, Content]:
        """Return contents by the id of their video; all by default, ids that are gone are left out."""
        columns = (VideoRow.uid, VideoRow.fast_hash, VideoRow.size_bytes, VideoRow.full_hash)
        statement = select(VideoRow.id, *columns)
        if ids is not None:
            statement = statement.where(VideoRow.id.in_(ids))
        with self.reading() as connection:
            rows = connection.execute(statement).all()
        return {
            video_id: Content(uid, fast_hash, size_bytes, full_hash)
            for video_id, uid, fast_hash, size_bytes, full_hash in rows
        }

    def without_files(self) -> dict[int, str]:
        """Return the uids, by id, of videos that have no file left; `forget_files` removes them."""
        file = select(FileRow.id).where(FileRow.video_id == VideoRow.id)
        statement = select(VideoRow.id, VideoRow.uid).where(~file.exists()).order_by(VideoRow.id)
        with self.reading() as connection:
            return {row.id: row.uid for row in connection.execute(statement)}

    def last_video_id(self) -> int:
        """Return the highest id a video ever had, 0 before the first; higher ids are of another catalogue."""
        with self.reading() as connection:
            last = "SELECT seq FROM sqlite_sequence WHERE name = 'videos'"
            return int(connection.exec_driver_sql(last).scalar() or 0)

    def totals(self) -> Totals:
        """Return the size of the library."""
        with self.reading() as connection:
            return totals(connection, SEARCHABLE)

    def failures(self) -> list[Failure]:
        """Return the files of failed videos and the files that could not be read, sorted by path."""
        with self.reading() as connection:
            return failures(connection)

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
        facts: Facts | None = None,
    ) -> int:
        """Make a video searchable, in one transaction. Write its features first.

        A content that failed before keeps its id. One that was searchable gets a new id and a new uid: everything
        derived from it goes with the old ones, and no reader mixes the two. A file that held another content leaves
        it; a content without files is invisible and is removed by the next :meth:`forget_files`.

        Args:
            content: the decoded content.
            files: the files that hold it, one or more, each below a library.
            state: ``partial`` needs a ``reason``.
            duration_seconds: end of the last decoded frame; the container's figure in ``info`` is not stored.
            num_frames: frames stored.
            info: image size, frame rate and codec.
            reason: why it is partial.
            replaces: the video to replace; the new one takes its files and labels. Delete its stored files afterwards.
            facts: what the file states about its recording; None: they were not read.

        Returns:
            The video's id.

        Raises:
            ValueError: no file, a file outside every library, or a partial video without a reason.
        """
        if not files or (state == "partial" and not reason):
            raise ValueError("an indexed video needs a file, a partial one a reason as well")
        with self.writing() as connection:
            video_id = put_video(
                connection,
                content,
                state=state,
                reason=reason,
                duration_seconds=duration_seconds,
                num_frames=num_frames,
                info=info,
                facts=facts,
            )
            if replaces is not None:
                replace_video(connection, replaces, video_id)
            put_files(connection, files, video_id)
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
            files: the files, each below a library.
            reason: one line for a person.
            detail: the end of the decoder's output.
            transient: the failure may pass; the number of such failures in a row is counted.
            content: the content they hold. Default: unknown, because the file could not even be hashed; every run
                tries such a file again, and one that held a video keeps it until its new content is known.

        Returns:
            The failed video's id; None without content.

        Raises:
            ValueError: a file outside every library.
        """
        with self.writing() as connection:
            if content is None:
                put_problem(connection, files, reason)
                return None
            video_id = put_video(
                connection,
                content,
                state="failed",
                reason=reason,
                detail=detail or None,
                transient_failures=1 if transient else None,
            )
            put_files(connection, files, video_id)
            return video_id

    def attach_file(self, video_id: int, file: FileStamp, *, full_hash: str | None = None) -> None:
        """Record that a file holds a known content (a copy, a move, a new time): no decoding.

        Args:
            video_id: the content's video.
            file: the file as it is now.
            full_hash: the content's, if it was needed to distinguish it from others.

        Raises:
            ValueError: the file is outside every library.
        """
        with self.writing() as connection:
            put_files(connection, [file], video_id)
            if full_hash is not None:
                same = update(VideoRow).where(VideoRow.id == video_id)
                connection.execute(same.values(full_hash=full_hash))

    def record_facts(self, facts: Mapping[int, Facts]) -> None:
        """Write the facts of videos, by id."""
        with self.writing() as connection:
            put_facts(connection, facts)

    def forget_files(self, paths: Iterable[Path] = ()) -> list[Video]:
        """Remove files, then every video that has no file left, for whatever reason.

        Call it at the end of a run, after all attaching: a video that moved must find its new file first.

        Args:
            paths: files that are gone. Unknown ones are skipped.

        Returns:
            The removed videos, with the paths just removed (none if a file was replaced); delete their stored files.
        """
        with self.writing() as connection:
            return forget(connection, [str(path) for path in paths])

    def mark_unscanned(self, reason: str) -> None:
        """Mark every video as not scanned yet; keep its id, files and libraries."""
        values = {"state": "failed", "reason": reason, "detail": None, "transient_failures": 0}
        with self.writing() as connection:
            connection.execute(update(VideoRow).values(values))


def _searchable_ids(connection: Connection, statement: Select[int]) -> NDArray[np.int64]:
    ids = connection.scalars(statement.where(VideoRow.state.in_(SEARCHABLE))).all()
    return np.array(ids, dtype=np.int64)


def _mark(connection: Connection) -> ChangeMark:
    lineage = connection.scalar(select(LineageRow.stamp))
    number = connection.scalar(select(func.max(ChangeRow.number)))
    return ChangeMark(lineage or "", number or 0)
