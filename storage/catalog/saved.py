"""Saved searches: their table."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_new

from scanonce.storage.catalog import database
from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.label_names import folded, normal_label
from scanonce.storage.catalog.tables import SavedSearchRow, VideoRow


@dataclass(frozen=True, slots=True)
class SavedRow:
    """A saved search as it is stored."""

    name: str
    query: str
    filter: str
    """JSON."""
    created_at: datetime
    """UTC."""
    looked_at: datetime | None
    """When its answer was looked at last, UTC; None: never."""
    seen_video_id: int
    """The highest id of a video then, 0 if never."""


class SavedRows:
    """The saved searches of a catalogue. Methods raise as those of `Database` do.

    Each change is one short transaction, which needs no writer's lock: see `Labels.add`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest_video_id(self) -> int:
        """Return the highest id of a searchable video, up to which a look sees; 0 if there is none."""
        statement = select(func.max(VideoRow.id)).where(VideoRow.state.in_(("indexed", "partial")))
        with self._database.reading() as connection:
            return int(connection.scalar(statement) or 0)

    def add(self, name: str, query: str, filter_text: str) -> bool:
        """Save a search; return whether the name was free. If it was not, nothing is changed.

        Args:
            name: as of a label (`storage.catalog.labels`): two names that differ in case are the same.
            query: the text of the query.
            filter_text: the filter as JSON.

        Raises:
            QueryError: the name is empty, too long, or has control characters.
        """
        statement = insert_new(SavedSearchRow).values(
            folded=folded(name),
            name=normal_label(name),
            query=query,
            filter=filter_text,
            created_at=database.now(),
            looked_at=None,
            seen_video_id=0,
        )
        with self._database.writing() as connection:
            return connection.execute(statement.on_conflict_do_nothing()).rowcount > 0

    def remove(self, name: str) -> bool:
        """Remove a saved search; return whether there was one of this name. Raises as `add`."""
        statement = delete(SavedSearchRow).where(SavedSearchRow.folded == folded(name))
        with self._database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def all(self) -> list[SavedRow]:
        """Return all saved searches, sorted by name."""
        columns = [getattr(SavedSearchRow, name) for name in SavedRow.__slots__]
        statement = select(*columns).order_by(SavedSearchRow.folded)
        with self._database.reading() as connection:
            return [SavedRow(*row) for row in connection.execute(statement)]

    def look(self, name: str, seen_video_id: int) -> bool:
        """Note that an answer was looked at, in which no video had a higher id; return whether the search exists."""
        seen = func.max(SavedSearchRow.seen_video_id, seen_video_id)
        statement = (
            update(SavedSearchRow)
            .where(SavedSearchRow.folded == folded(name))
            .values(looked_at=database.now(), seen_video_id=seen)
        )
        with self._database.writing() as connection:
            return connection.execute(statement).rowcount > 0

    def take_over(self, other: "SavedRows") -> None:
        """Replace all saved searches by those of another catalogue that was a copy of this one; see `Labels`."""
        rows = [
            {"folded": folded(row.name), **{name: getattr(row, name) for name in row.__slots__}}
            for row in other.all()
        ]
        with self._database.writing() as connection:
            connection.execute(delete(SavedSearchRow))
            if rows:
                connection.execute(insert(SavedSearchRow), rows)
