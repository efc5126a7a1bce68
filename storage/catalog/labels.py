"""The table of the labels of videos; `label_names` says what a label may be called."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from sqlalchemy import Connection, delete, func, literal, select
from sqlalchemy.dialects.sqlite import insert

from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.entries import content_of
from scanonce.storage.catalog.label_names import folded, normal_label
from scanonce.storage.catalog.statements import chunks, plain_ids
from scanonce.storage.catalog.tables import LabelRow, VideoRow


class Labels:
    """The labels of a catalogue's videos. Methods raise as those of `Database` do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, ids: Iterable[int], labels: Iterable[str]) -> int:
        """Label videos, in one transaction. A label that is in use keeps its spelling.

        One short write: SQLite puts it between the writes of a running indexer.

        Args:
            ids: ids of videos; unknown ones are skipped.
            labels: see `normal_label`.

        Returns:
            The number of new labels of videos.

        Raises:
            QueryError: a label is empty, too long, or has control characters.
        """
        wanted = {folded(label): normal_label(label) for label in labels}
        videos = plain_ids(ids)
        with self._database.writing() as connection:
            return sum(
                _put_label(connection, chunk, key, label)
                for key, label in wanted.items()
                for chunk in chunks(videos)
            )

    def remove(self, ids: Iterable[int], labels: Iterable[str]) -> int:
        """Remove labels from videos, in one transaction; return the number of removed ones.

        Raises:
            QueryError: as `add`.
        """
        keys = {folded(label) for label in labels}
        statement = delete(LabelRow).where(LabelRow.folded.in_(keys))
        videos = plain_ids(ids)
        with self._database.writing() as connection:
            return sum(
                connection.execute(statement.where(LabelRow.video_id.in_(chunk))).rowcount
                for chunk in chunks(videos)
            )

    def counts(self) -> dict[str, int]:
        """Return every label in use, sorted, with the number of videos that carry it, failed ones too."""
        statement = select(func.min(LabelRow.label), func.count()).group_by(LabelRow.folded)
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(LabelRow.folded)).all()
        return {str(label): int(count) for label, count in rows}

    def of(self, ids: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """Return the labels of videos, sorted; videos without one are left out."""
        statement = select(LabelRow.video_id, LabelRow.label)
        statement = statement.order_by(LabelRow.video_id, LabelRow.folded)
        with self._database.reading() as connection:
            rows = [
                row
                for chunk in chunks(plain_ids(ids))
                for row in connection.execute(statement.where(LabelRow.video_id.in_(chunk)))
            ]
        return {
            video_id: tuple(row.label for row in group)
            for video_id, group in groupby(rows, key=lambda row: row.video_id)
        }

    def take_over(self, other: "Labels") -> None:
        """Replace all labels by those that the same contents carry in another catalogue.

        For an index built in the background, while people go on labelling the videos of the one in use.
        """
        statement = select(VideoRow.uid, LabelRow.folded, LabelRow.label).join(LabelRow)
        with other._database.reading() as connection:
            given = connection.execute(statement).all()
        with self._database.writing() as connection:
            videos = connection.execute(select(VideoRow.uid, VideoRow.id))
            mine = {content_of(uid): video_id for uid, video_id in videos}
            connection.execute(delete(LabelRow))
            values = [
                {"video_id": mine[content_of(uid)], "folded": key, "label": label}
                for uid, key, label in given
                if content_of(uid) in mine
            ]
            if values:
                connection.execute(insert(LabelRow).on_conflict_do_nothing(), values)


def _put_label(connection: Connection, ids: Sequence[int], key: str, label: str) -> int:
    """Label those videos that exist; return the number of those that did not carry it yet."""
    in_use = connection.scalar(select(func.min(LabelRow.label)).where(LabelRow.folded == key))
    rows = select(VideoRow.id, literal(key), literal(in_use or label)).where(VideoRow.id.in_(ids))
    statement = insert(LabelRow).from_select(["video_id", "folded", "label"], rows)
    return connection.execute(statement.on_conflict_do_nothing()).rowcount
