"""Lines of videos in the catalogue: texts with a time, by track, and the search for their words.

    catalog.lines.put(video_id, "said", lines, source="whisper base")
    catalog.lines.of(video_id)                                      # a transcript
    catalog.lines.find(matching(["discord"]), limit=10)             # the lines with a word

A track belongs to a content, as labels do: moving, copying or scanning a video again keeps it, forgetting the video
removes it. One track of one video is one transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import Connection, delete, func, or_, select, text, update
from sqlalchemy.dialects.sqlite import insert

from scanonce.storage.catalog import database
from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.entries import content_of
from scanonce.storage.catalog.passages import Passages
from scanonce.storage.catalog.statements import chunks, plain_ids
from scanonce.storage.catalog.tables import FileRow, LineRow, TrackRow, VideoRow
from scanonce.storage.catalog.word_index import rebuild_words, word_problems
from scanonce.storage.catalog.words import spaced
from scanonce.storage.records import Line, TrackName
from scanonce.storage.untrusted import DamagedFile

MAX_LINES = 50_000
"""Lines of one track of one video that are kept: 20 hours of talk."""
MAX_CHARS = 500
"""Characters of a line that are kept."""

_FEW = 50_000  # of more lines with a word, the number is not counted: the word is common


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line with a word that was looked for."""

    line_id: int
    """Rises with time within a track."""
    track_id: int
    line: Line


@dataclass(frozen=True, slots=True)
class TrackVectors:
    """The vectors of one track."""

    track_id: int
    video_id: int
    name: TrackName
    passages: Passages


@dataclass(frozen=True, slots=True)
class TrackProblem:
    """A track whose vectors are wrong."""

    track_id: int
    video_id: int
    problem: str


@dataclass(frozen=True, slots=True)
class TrackTotals:
    """How much of a library one track covers."""

    videos: int
    """Searchable videos that have the track, with or without lines."""
    problems: int
    """Of these, the ones with a note."""
    lines: int


class Lines:
    """The tracks and lines of a catalogue's videos. Methods raise as those of `Database` do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------ writing

    def put(
        self,
        video_id: int,
        track: TrackName,
        lines: Sequence[Line],
        *,
        source: str,
        problem: str | None = None,
        embedder: str | None = None,
        passages: Passages | None = None,
    ) -> bool:
        """Replace a track of a video, in one transaction.

        Args:
            video_id: the video; one that is gone is skipped.
            track: its name.
            lines: in order of time; a track may have none, and is made nevertheless.
            source: what made it, such as the name of a model.
            problem: why there are no lines, or not all.
            embedder: fingerprint of the text model of ``passages``.
            passages: the vectors of the lines.

        Returns:
            Whether the video is still there.
        """
        values = {
            "video_id": video_id,
            "name": track,
            "source": source,
            "problem": problem,
            "embedder": embedder,
            "passages": None if passages is None else passages.to_bytes(),
            "made_at": database.now(),
        }
        with self._database.writing() as connection:
            if connection.scalar(select(VideoRow.id).where(VideoRow.id == video_id)) is None:
                return False
            _delete(connection, [video_id], [track])
            put = insert(TrackRow).values(values).returning(TrackRow.id)
            track_id = connection.execute(put).scalar_one()
            rows = [_values(track_id, line) for line in lines[:MAX_LINES]]
            if rows:
                connection.execute(insert(LineRow), rows)
        return True

    def put_passages(self, track_id: int, embedder: str, passages: Passages) -> None:
        """Give a track the vectors of its lines."""
        values = {"embedder": embedder, "passages": passages.to_bytes()}
        with self._database.writing() as connection:
            connection.execute(update(TrackRow).where(TrackRow.id == track_id).values(values))

    def remove(self, track: TrackName, ids: Iterable[int] | None = None) -> int:
        """Remove a track of some videos, by default of all; return the number of videos that had it."""
        with self._database.writing() as connection:
            if ids is None:
                return connection.execute(delete(TrackRow).where(TrackRow.name == track)).rowcount
            return _delete(connection, plain_ids(ids), [track])

    def take_over(self, other: "Lines") -> None:
        """Take the tracks that the same contents have in another catalogue and do not have in this one."""
        with other._database.reading() as connection:
            given = {
                (content_of(uid), name): (video_id, name)
                for uid, video_id, name in connection.execute(
                    select(VideoRow.uid, VideoRow.id, TrackRow.name).join(TrackRow)
                )
            }
        with self._database.reading() as connection:
            videos = connection.execute(select(VideoRow.uid, VideoRow.id)).all()
            mine = {content_of(uid): video_id for uid, video_id in videos}
            here = connection.execute(select(VideoRow.uid, TrackRow.name).join(TrackRow))
            have = {(content_of(uid), name) for uid, name in here}
        for (content, name), (theirs, _) in given.items():
            if (content, name) not in have and content in mine:
                self._copy(other, theirs, mine[content], name)

    def _copy(self, other: "Lines", theirs: int, mine: int, name: str) -> None:
        columns = (TrackRow.source, TrackRow.problem, TrackRow.embedder, TrackRow.passages)
        chosen = (TrackRow.video_id == theirs, TrackRow.name == name)
        with other._database.reading() as connection:
            row = connection.execute(select(*columns).where(*chosen)).one_or_none()
        if row is not None:
            source, problem, embedder, stored = row
            passages = None if stored is None else Passages.from_bytes(stored)
            track = _track_name(name)
            self.put(
                mine,
                track,
                other.of(theirs, [track]),
                source=source,
                problem=problem,
                embedder=embedder,
                passages=passages,
            )

    # ------------------------------------------------ reading

    def of(self, video_id: int, tracks: Collection[TrackName] | None = None) -> list[Line]:
        """Return the lines of a video by time: all of its tracks, or only these."""
        statement = _select_lines().where(TrackRow.video_id == video_id)
        if tracks is not None:
            statement = statement.where(TrackRow.name.in_(tracks))
        statement = statement.order_by(LineRow.start_seconds, LineRow.id)
        with self._database.reading() as connection:
            return [_found(row).line for row in connection.execute(statement)]

    def in_track(self, track_id: int, first: int = 0, count: int = MAX_LINES) -> list[FoundLine]:
        """Return ``count`` lines of a track from the one numbered ``first`` on, by time."""
        statement = _select_lines().where(TrackRow.id == track_id)
        statement = statement.order_by(LineRow.id).offset(first).limit(count)
        with self._database.reading() as connection:
            return [_found(row) for row in connection.execute(statement)]

    def near(self, asked: Sequence[tuple[FoundLine, float, float]]) -> list[list[FoundLine]]:
        """Return for each of some lines those of its track that are there in ``[start, end)``, by time.

        Looks at the 200 lines before a line and the 60 after it: the time goes with them, not with the length of the
        track.

        Args:
            asked: ``(line, start, end)``, at most 1,000.
        """
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(asked))
        statement = (
            f"WITH asked (number, id, track, first, last) AS (VALUES {values}) "
            f"SELECT asked.number, {_COLUMNS} FROM asked "
            "CROSS JOIN lines ON lines.id BETWEEN asked.id - 200 AND asked.id + 60 AND +lines.track_id = asked.track "
            "AND lines.start_seconds < asked.last AND lines.end_seconds > asked.first "
            "CROSS JOIN tracks ON tracks.id = lines.track_id ORDER BY asked.number, lines.id"
        )
        rows: list[list[FoundLine]] = [[] for _ in asked]
        if asked:
            given = tuple(
                value
                for number, (each, start, end) in enumerate(asked)
                for value in (number, each.line_id, each.track_id, start, end)
            )
            with self._database.reading() as connection:
                for number, *row in connection.exec_driver_sql(statement, given):
                    rows[number].append(_found(row))
        return rows

    def find(
        self,
        expression: str,
        *,
        tracks: Collection[TrackName] | None = None,
        videos: Collection[int] | None = None,
        limit: int,
        ranked: bool = True,
    ) -> list[FoundLine]:
        """Return the lines that match an expression of FTS5, best first (BM25).

        Args:
            expression: see `storage.catalog.words.matching`.
            tracks: only lines of these. Default: of all.
            videos: only lines of these videos. Default: of all.
            limit: the most lines.
            ranked: best first; else the first that are found, for which the others need not be read.
        """
        conditions, values = _restricted(tracks, videos)
        order = " ORDER BY line_words.rank" if ranked else ""
        statement = (
            f"SELECT {_COLUMNS} FROM line_words CROSS JOIN lines ON lines.id = line_words.rowid "
            "CROSS JOIN tracks ON tracks.id = lines.track_id "
            f"WHERE line_words MATCH :expression{conditions}{order} LIMIT :limit"
        )
        values |= {"expression": expression, "limit": limit}
        with self._database.reading() as connection:
            return [_found(row) for row in connection.execute(text(statement), values)]

    def count(self, expression: str) -> int:
        """Return the number of lines that match, at most 50,000."""
        statement = (
            "SELECT count(*) FROM (SELECT 1 FROM line_words WHERE line_words MATCH :expression "
            f"LIMIT {_FEW})"
        )
        with self._database.reading() as connection:
            found = connection.execute(text(statement), {"expression": expression}).scalar()
        return int(found or 0)

    def num_lines(self) -> int:
        """Return the number of all lines, or a little more; takes microseconds."""
        with self._database.reading() as connection:
            return int(connection.scalar(select(func.max(LineRow.id))) or 0)

    def find_paths(
        self, expression: str, *, videos: Collection[int] | None = None, limit: int
    ) -> list[tuple[int, str]]:
        """Return ``(video id, path)`` of the files whose paths match an expression of FTS5, best first."""
        condition, values = "", {"expression": expression, "limit": limit}
        if videos is not None:
            condition = f" AND files.video_id IN ({','.join(map(str, plain_ids(videos)))})"
        statement = (
            "SELECT files.video_id, files.path FROM file_words JOIN files ON files.id = file_words.rowid "
            f"WHERE file_words MATCH :expression{condition} AND files.video_id IS NOT NULL "
            "ORDER BY file_words.rank LIMIT :limit"
        )
        with self._database.reading() as connection:
            rows = connection.execute(text(statement), values).all()
        return [(_whole(video_id), str(path)) for video_id, path in rows]

    def vectors(self, embedder: str, videos: Collection[int] | None = None) -> list[TrackVectors]:
        """Return the vectors of all tracks that a text model made, or of those of some videos."""
        columns = (TrackRow.id, TrackRow.video_id, TrackRow.name, TrackRow.passages)
        statement = select(*columns).where(
            TrackRow.embedder == embedder, TrackRow.passages.is_not(None)
        )
        if videos is None:
            statements = [statement]
        else:
            pieces = chunks(plain_ids(videos))
            statements = [statement.where(TrackRow.video_id.in_(piece)) for piece in pieces]
        with self._database.reading() as connection:
            return [
                TrackVectors(
                    track_id, video_id, _track_name(name), Passages.from_bytes(stored or b"")
                )
                for each in statements
                for track_id, video_id, name, stored in connection.execute(each)
            ]

    def without_vectors(self, embedder: str) -> list[int]:
        """Return the ids of the tracks with lines, but facts, whose vectors are missing or of another text model."""
        line = select(LineRow.id).where(LineRow.track_id == TrackRow.id)
        statement = select(TrackRow.id).where(
            TrackRow.name != "facts",
            func.coalesce(TrackRow.embedder, "") != embedder,
            line.exists(),
        )
        with self._database.reading() as connection:
            return list(connection.scalars(statement.order_by(TrackRow.id)))

    def vector_problems(self, tracks: Collection[int] | None = None) -> list[TrackProblem]:
        """Return the tracks whose vectors are damaged, missing, or belong to other lines. Reads all vectors.

        Args:
            tracks: only these, by id. Default: all.
        """
        num_lines = select(func.count()).where(LineRow.track_id == TrackRow.id).scalar_subquery()
        columns = (TrackRow.id, TrackRow.video_id, TrackRow.embedder, TrackRow.passages)
        statement = select(*columns, num_lines).where(
            or_(TrackRow.embedder.is_not(None), TrackRow.passages.is_not(None))
        )
        if tracks is not None:
            statement = statement.where(TrackRow.id.in_(plain_ids(tracks)))
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(TrackRow.id))
            return [
                TrackProblem(track_id, video_id, problem)
                for track_id, video_id, embedder, stored, number in rows
                if (problem := _vector_problem(embedder, stored, number)) is not None
            ]

    def drop_vectors(self, tracks: Collection[int]) -> None:
        """Remove the vectors of some tracks; `without_vectors` names these tracks then."""
        values: dict[str, Any] = {"embedder": None, "passages": None}
        with self._database.writing() as connection:
            for chunk in chunks(plain_ids(tracks)):
                connection.execute(update(TrackRow).where(TrackRow.id.in_(chunk)).values(values))

    def word_problems(self) -> list[str]:
        """Return the faults in the words of lines and paths, a line each; see `word_index.word_problems`."""
        with self._database.writing() as connection:
            return word_problems(connection)

    def rebuild_words(self) -> None:
        """Make the words of lines and paths again from the lines and paths."""
        with self._database.writing() as connection:
            rebuild_words(connection)

    def sources(self, track: TrackName) -> dict[int, tuple[str, str | None]]:
        """Return ``(source, problem)`` by video of the videos that have a track."""
        columns = (TrackRow.video_id, TrackRow.source, TrackRow.problem)
        statement = select(*columns).where(TrackRow.name == track)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return {video_id: (source, problem) for video_id, source, problem in rows}

    def totals(self) -> dict[TrackName, TrackTotals]:
        """Return how much each track covers; tracks that no video has are left out."""
        video = select(FileRow.video_id).where(FileRow.video_id.is_not(None))
        of_tracks = (
            select(TrackRow.name, func.count(), func.count(TrackRow.problem))
            .where(TrackRow.video_id.in_(video))
            .group_by(TrackRow.name)
        )
        of_lines = select(TrackRow.name, func.count()).join(
            LineRow, LineRow.track_id == TrackRow.id
        )
        with self._database.reading() as connection:
            rows = connection.execute(of_lines.group_by(TrackRow.name))
            lines = {str(name): int(count) for name, count in rows}
            return {
                _track_name(name): TrackTotals(videos, problems, lines.get(name, 0))
                for name, videos, problems in connection.execute(of_tracks)
            }

    def problems(self) -> list[tuple[int, TrackName, str]]:
        """Return ``(video id, track, note)`` of all tracks with a note."""
        columns = (TrackRow.video_id, TrackRow.name, TrackRow.problem)
        statement = select(*columns).where(TrackRow.problem.is_not(None)).order_by(TrackRow.id)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [(video_id, _track_name(name), str(problem)) for video_id, name, problem in rows]


# ---------------------------------------------------------------- rows and records

_COLUMNS = (
    "lines.id, lines.track_id, tracks.video_id, tracks.name, lines.start_seconds, lines.end_seconds, lines.text, "
    "lines.confidence, lines.language"
)


def _select_lines() -> Any:
    return select(text(_COLUMNS)).select_from(LineRow).join(TrackRow)


def _found(row: Any) -> FoundLine:
    """Return a line of a row of `_COLUMNS`, whose values are checked here: the file may come from others."""
    line_id, track_id, video_id, name, start, end, content, confidence, language = row
    try:
        start, end, confidence = float(start), float(end), float(confidence)
    except (TypeError, ValueError) as error:
        raise DamagedFile(f"it has a line without times: {error}") from error
    if not 0.0 <= start <= end < 1e9 or not isinstance(content, str):
        raise DamagedFile(f"it has a line from {start} to {end} s")
    known = language if isinstance(language, str) else None
    line = Line(_whole(video_id), _track_name(name), start, end, content, confidence, known)
    return FoundLine(_whole(line_id), _whole(track_id), line)


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise DamagedFile(f"it has {str(value)[:50]!r} for an id")
    return value


def _track_name(value: object) -> TrackName:
    if value not in get_args(TrackName):
        raise DamagedFile(f"it has a track with the name {str(value)[:50]!r}")
    return value  # type: ignore[return-value]


def _vector_problem(embedder: str | None, stored: bytes | None, num_lines: int) -> str | None:
    """Return the fault in the vectors of a track that has some, or says so; None if there is none."""
    if embedder is None or stored is None:
        return "vectors of no text model" if embedder is None else "its vectors are missing"
    try:
        passages = Passages.from_bytes(stored)
    except DamagedFile as error:
        return str(error)
    number = int(passages.num_lines.sum())
    return None if number == num_lines else f"vectors of {number} lines, and it has {num_lines}"


def _values(track_id: int, line: Line) -> dict[str, Any]:
    content = line.text[:MAX_CHARS]
    searched = spaced(content)
    return {
        "track_id": track_id,
        "start_seconds": round(line.start_seconds, 3),
        "end_seconds": round(max(line.start_seconds, line.end_seconds), 3),
        "text": content,
        "words": None if searched == content else searched,
        "confidence": round(line.confidence, 3),
        "language": line.language,
    }


def _delete(connection: Connection, ids: Sequence[int], tracks: Sequence[TrackName]) -> int:
    return sum(
        connection.execute(
            delete(TrackRow).where(TrackRow.video_id.in_(chunk), TrackRow.name.in_(tracks))
        ).rowcount
        for chunk in chunks(ids)
    )


def _restricted(
    tracks: Collection[TrackName] | None, videos: Collection[int] | None
) -> tuple[str, dict[str, Any]]:
    """Return conditions of a statement and their values."""
    conditions, values = "", dict[str, Any]()
    if tracks is not None:
        names = {f"track_{k}": name for k, name in enumerate(sorted(tracks))}
        conditions += f" AND tracks.name IN ({', '.join(f':{key}' for key in names) or 'NULL'})"
        values |= names
    if videos is not None:  # whole numbers, more of them than a statement takes variables
        conditions += f" AND tracks.video_id IN ({','.join(map(str, plain_ids(videos)))})"
    return conditions, values
