"""Pieces of SQL that the catalogue is made of, as functions over an open connection or parts of a statement."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    false,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import InstrumentedAttribute

from scanonce.storage.catalog import database
from scanonce.storage.catalog.entries import (
    Content,
    Failure,
    FileStamp,
    KnownContent,
    Library,
    Totals,
)
from scanonce.storage.catalog.facts import put_facts
from scanonce.storage.catalog.tables import (
    FactsRow,
    FileRow,
    LabelRow,
    LibraryRow,
    TrackRow,
    VideoRow,
)
from scanonce.storage.facts import Facts
from scanonce.storage.records import Video, VideoInfo, VideoState

Item = TypeVar("Item")

_NO_INFO = VideoInfo(0.0, 0, 0, 0.0, "")
_CHUNK = 10_000  # ids or paths per statement; SQLite takes 32,766 variables


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut a sequence into pieces that fit into one statement."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def plain_ids(ids: Iterable[int]) -> list[int]:
    """Return each id once, rising, as Python's int; NumPy's are not known to SQLite."""
    return sorted({int(each) for each in ids})


def below(column: InstrumentedAttribute[str], root: Path) -> ColumnElement[bool]:
    """Return the condition "at or below ``root``": a range of the column's index, while LIKE would scan."""
    if not _is_utf8(str(root)):  # no such path is stored
        return false()
    prefix = str(root).removesuffix(os.sep) + os.sep
    end = prefix[:-1] + chr(ord(os.sep) + 1)  # "/films/" <= path < "/films0"
    return or_(column == str(root), and_(column >= prefix, column < end))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def libraries(connection: Connection) -> list[Library]:
    """Return all libraries, sorted by root."""
    columns = select(LibraryRow.id, LibraryRow.root_path, LibraryRow.added_at)
    rows = connection.execute(columns.order_by(LibraryRow.root_path))
    return [Library(library_id, Path(root), added_at) for library_id, root, added_at in rows]


# ---------------------------------------------------------------- videos


class _VideoAndFile(NamedTuple):
    """One row of `select_videos`: SQLAlchemy types ten columns at most."""

    video_id: int
    uid: str
    state: VideoState
    reason: str | None
    duration_seconds: float
    num_frames: int
    width: int
    height: int
    fps: float
    codec: str
    size_bytes: int
    offset_seconds: float
    indexed_at: datetime
    stated: str | None
    path: str
    mtime_ns: int


def select_videos() -> Select[*tuple[Any, ...]]:
    """Return the statement that selects a row for each file of each video, by video and path."""
    columns = (VideoRow.id, VideoRow.uid, VideoRow.state, VideoRow.reason)
    lengths = (VideoRow.duration_seconds, VideoRow.num_frames)
    facts = (VideoRow.width, VideoRow.height, VideoRow.fps, VideoRow.codec, VideoRow.size_bytes)
    later = (VideoRow.offset_seconds, VideoRow.indexed_at, FactsRow.stated)
    joined: Select[*tuple[Any, ...]] = (
        select(*columns, *lengths, *facts, *later, FileRow.path, FileRow.mtime_ns)
        .join(FileRow)
        .outerjoin(FactsRow, FactsRow.video_id == VideoRow.id)
    )
    return joined.order_by(VideoRow.id, FileRow.path)


def read_videos(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    ids: Sequence[int] | None = None,
) -> list[Video]:
    """Return the videos of a statement that began as `select_videos`.

    Args:
        connection: to the database.
        statement: selects the rows.
        ids: only these, rising. Default: all.
    """
    if ids is None:
        rows = [_VideoAndFile._make(row) for row in connection.execute(statement)]
    else:
        rows = [
            _VideoAndFile._make(row)
            for chunk in chunks(ids)
            for row in connection.execute(statement.where(VideoRow.id.in_(chunk)))
        ]
    return [_video(list(files)) for _, files in groupby(rows, key=lambda row: row.video_id)]


def _video(files: Sequence[_VideoAndFile]) -> Video:
    row = files[0]
    return Video(
        video_id=row.video_id,
        uid=row.uid,
        state=row.state,
        duration_seconds=row.duration_seconds,
        num_frames=row.num_frames,
        paths=tuple([Path(file.path) for file in files]),
        reason=row.reason,
        info=VideoInfo(
            row.duration_seconds, row.width, row.height, row.fps, row.codec, row.offset_seconds
        ),
        size_bytes=row.size_bytes,
        added_at=row.indexed_at,
        stated=row.stated or "",
        changed_ns=min(file.mtime_ns for file in files),
    )


def put_video(
    connection: Connection,
    content: Content,
    *,
    state: VideoState,
    reason: str | None,
    duration_seconds: float = 0.0,
    num_frames: int = 0,
    info: VideoInfo = _NO_INFO,
    detail: str | None = None,
    transient_failures: int | None = None,
    facts: Facts | None = None,
) -> int:
    """Insert the content, or replace the facts of a known one; return its id."""
    values = {
        **asdict(content),
        **asdict(info),
        "state": state,
        "reason": reason,
        "duration_seconds": duration_seconds,  # replaces the container's figure
        "num_frames": num_frames,
        "detail": detail,
        "transient_failures": transient_failures,
        "indexed_at": database.now(),
    }
    statement = insert(VideoRow).values(values)
    changed: dict[str, Any] = {name: statement.excluded[name] for name in values if name != "uid"}
    # A full hash once known stays: the next decoding may not need it.
    changed["full_hash"] = func.coalesce(statement.excluded.full_hash, VideoRow.full_hash)
    # Failures in a row add up; the sum with null, which is no such failure, is null.
    before = func.coalesce(VideoRow.transient_failures, 0)
    changed["transient_failures"] = statement.excluded.transient_failures + before
    upsert = statement.on_conflict_do_update(index_elements=["uid"], set_=changed)
    video_id = connection.execute(upsert.returning(VideoRow.id)).scalar_one()
    if facts is not None:
        put_facts(connection, {video_id: facts})
    return video_id


def replace_video(connection: Connection, old: int, new: int) -> None:
    """Delete a video; another video of the same content takes its files, labels and tracks."""
    files = update(FileRow).where(FileRow.video_id == old)
    connection.execute(files.values(video_id=new))
    # A label that the new video carries already is deleted with the old video.
    labels = update(LabelRow).prefix_with("OR IGNORE").where(LabelRow.video_id == old)
    connection.execute(labels.values(video_id=new))
    tracks = update(TrackRow).prefix_with("OR IGNORE").where(TrackRow.video_id == old)
    connection.execute(tracks.values(video_id=new))
    connection.execute(delete(VideoRow).where(VideoRow.id == old))


# ---------------------------------------------------------------- files


def put_files(connection: Connection, files: Sequence[FileStamp], video_id: int) -> None:
    """Insert files of a video, or replace their records."""
    values = [
        {**each, "video_id": video_id, "problem": None} for each in _file_values(connection, files)
    ]
    statement = insert(FileRow)
    changed = {name: statement.excluded[name] for name in values[0] if name != "path"}
    upsert = statement.on_conflict_do_update(index_elements=["path"], set_=changed)
    connection.execute(upsert, values)


def put_problem(connection: Connection, files: Sequence[FileStamp], reason: str) -> None:
    """Note a problem; a known file keeps stamp and video, so the next scan reads it again."""
    values = [{**each, "problem": reason} for each in _file_values(connection, files)]
    statement = insert(FileRow)
    upsert = statement.on_conflict_do_update(
        index_elements=["path"], set_={"problem": statement.excluded.problem}
    )
    connection.execute(upsert, values)


def _file_values(connection: Connection, files: Sequence[FileStamp]) -> list[dict[str, Any]]:
    known = {library.root: library.library_id for library in libraries(connection)}
    values = []
    for file in files:
        # parents go from the inside out, so the innermost of nested libraries takes the file
        roots = (root for root in (file.path, *file.path.parents) if root in known)
        root = next(roots, None)
        if root is None:
            raise ValueError(f"{file.path} is in no library; add one first: {sorted(known)}")
        values.append({**asdict(file), "path": str(file.path), "library_id": known[root]})
    return values


def forget_libraries(connection: Connection, roots: Sequence[Path]) -> list[Video]:
    """Delete all libraries and files at or below these roots; return the removed videos as `forget` does."""
    files = [select(FileRow.path).where(below(FileRow.path, root)) for root in roots]
    paths = {path for file in files for path in connection.scalars(file)}
    removed = forget(connection, sorted(paths))
    for root in roots:
        connection.execute(delete(LibraryRow).where(below(LibraryRow.root_path, root)))
    return removed


def forget(connection: Connection, paths: Sequence[str]) -> list[Video]:
    """Delete these files, then all videos without files; return those, with these paths of theirs."""
    lost: dict[int | None, list[str]] = {}
    for chunk in chunks(paths):
        files = delete(FileRow).where(FileRow.path.in_(chunk))
        for path, video_id in connection.execute(files.returning(FileRow.path, FileRow.video_id)):
            lost.setdefault(video_id, []).append(path)
    file = select(FileRow.id).where(FileRow.video_id == VideoRow.id)
    orphans = select(
        VideoRow.id,
        VideoRow.uid,
        VideoRow.state,
        VideoRow.duration_seconds,
        VideoRow.num_frames,
        VideoRow.reason,
    ).where(~file.exists())
    rows = connection.execute(orphans.order_by(VideoRow.id)).all()
    connection.execute(delete(VideoRow).where(~file.exists()))
    return [
        Video(
            video_id,
            uid,
            state,
            duration_seconds,
            num_frames,
            paths=tuple(Path(path) for path in sorted(lost.get(video_id, []))),
            reason=reason,
        )
        for video_id, uid, state, duration_seconds, num_frames, reason in rows
    ]


def totals(connection: Connection, searchable: Sequence[VideoState]) -> Totals:
    """Return the size of the library.

    Args:
        connection: an open one.
        searchable: states of the videos whose lengths are summed.
    """
    sums = (func.count(), func.sum(VideoRow.duration_seconds), func.sum(VideoRow.size_bytes))
    per_state = select(VideoRow.state, *sums).where(VideoRow.id.in_(select(FileRow.video_id)))
    rows = connection.execute(per_state.group_by(VideoRow.state)).all()
    counts = {state: count for state, count, _, _ in rows}
    return Totals(
        indexed=counts.get("indexed", 0),
        partial=counts.get("partial", 0),
        failed=counts.get("failed", 0),
        num_files=connection.scalar(select(func.count()).select_from(FileRow)) or 0,
        searchable_seconds=float(sum(row[2] for row in rows if row[0] in searchable)),
        size_bytes=sum(row[3] for row in rows),
    )


def failures(connection: Connection) -> list[Failure]:
    """Return the files of failed videos and the files that could not be read, sorted by path."""
    statement = (
        select(FileRow.path, FileRow.problem, VideoRow.reason, VideoRow.detail)
        .outerjoin(VideoRow)
        .where(or_(FileRow.problem.is_not(None), VideoRow.state == "failed"))
        .order_by(FileRow.path)
    )
    return [
        Failure(Path(path), problem or reason or "unknown", detail)
        for path, problem, reason, detail in connection.execute(statement)
    ]


def contents_with(connection: Connection, fast_hash: str) -> list[KnownContent]:
    """Return the contents with this fast hash, by rising id, each with its files."""
    columns = (VideoRow.id, VideoRow.uid, VideoRow.size_bytes, VideoRow.full_hash)
    contents = (
        select(*columns, VideoRow.state, VideoRow.transient_failures)
        .where(VideoRow.fast_hash == fast_hash)
        .order_by(VideoRow.id)
    )
    files = (
        select(FileRow.video_id, FileRow.path, FileRow.size_bytes, FileRow.mtime_ns)
        .join(VideoRow)
        .where(VideoRow.fast_hash == fast_hash)
        .order_by(FileRow.path)
    )
    stamps: defaultdict[int | None, list[FileStamp]] = defaultdict(list)
    for video_id, path, size_bytes, mtime_ns in connection.execute(files):
        stamps[video_id].append(FileStamp(Path(path), size_bytes, mtime_ns))
    return [
        KnownContent(
            video,
            Content(uid, fast_hash, size, full),
            *(state, tuple(stamps[video]), failures),
        )
        for video, uid, size, full, state, failures in connection.execute(contents)
    ]
