"""The runs of the indexer, as a catalogue remembers them."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from scanonce.storage.catalog import database
from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.entries import Run, RunCounts, RunKind, RunOutcome
from scanonce.storage.catalog.tables import RunRow


class Runs:
    """The runs of an index. Methods raise as those of `Database` do."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, kind: RunKind) -> int:
        """Note that a run starts; return its id."""
        values = {"kind": kind, "started_at": database.now(), **asdict(RunCounts())}
        with self._database.writing() as connection:
            statement = insert(RunRow).values(values).returning(RunRow.id)
            return connection.execute(statement).scalar_one()

    def finish(self, run_id: int, outcome: RunOutcome, counts: RunCounts) -> None:
        """Note how a run ended."""
        values = {"finished_at": database.now(), "outcome": outcome, **asdict(counts)}
        with self._database.writing() as connection:
            connection.execute(update(RunRow).where(RunRow.id == run_id).values(values))

    def last(self, limit: int = 20) -> list[Run]:
        """Return the last runs, newest first."""
        statement = select(RunRow).order_by(RunRow.id.desc()).limit(limit)
        with self._database.reading() as connection, Session(connection) as session:
            return [
                Run(
                    run_id=row.id,
                    kind=row.kind,
                    started_at=row.started_at,
                    finished_at=row.finished_at,
                    outcome=row.outcome,
                    counts=RunCounts(**{name: getattr(row, name) for name in RunCounts.__slots__}),
                )
                for row in session.scalars(statement)
            ]

    def began_at(self) -> datetime | None:
        """Return when the first run began, UTC: all copies of an index have this in common, no other index has it."""
        statement = select(RunRow.started_at).order_by(RunRow.id).limit(1)
        with self._database.reading() as connection:
            return connection.scalar(statement)
