"""The database file of a catalogue: connections, transactions, migrations, whole copies.

    with Database.open(Path("catalog.sqlite")) as database, database.writing() as connection:
        connection.execute(...)                 # committed and synced to the disk afterwards

Whatever SQLite or SQLAlchemy raises leaves this module as an ``IndexDirectoryError`` that says what to do.
"""

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine, QueuePool, create_engine, delete, event, insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from scanonce.storage.catalog.tables import LineageRow
from scanonce.storage.catalog.word_index import note_words, take_in_words
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import index_root
from scanonce.storage.untrusted import DamagedFile, check_regular

SCHEMA_REVISION = "0008"
"""Newest revision in ``storage/catalog/migrations/versions``; revisions are numbers that rise by one."""

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a second writer waits for the first."""

_MIGRATIONS = Path(__file__).with_name("migrations")


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


class Database:
    """One open SQLite file. Threads may share it, processes may not; a context manager.

    Every method raises ``IndexDirectoryError`` if the database is locked, full, damaged or cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Prepare connections to ``path`` and read nothing. `open` also brings the tables up to date."""
        self.path = path
        self._read_only = read_only
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        event.listen(self._engine, "begin", _begin)
        self._watcher: sqlite3.Connection | None = None
        self._watcher_lock = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the catalogue at ``path``; create it or update its tables if necessary. Otherwise takes about 5 ms.

        Args:
            path: ``catalog.sqlite`` in an index directory that exists.
            read_only: for processes that search; the file must exist and be up to date.

        Raises:
            IndexDirectoryError: there is no catalogue (read-only), it was made by a newer version, or the file is not
                a catalogue.
        """
        if read_only and not path.is_file():
            folder = path.parent
            raise IndexDirectoryError(
                f"no index at {folder}: run `scanonce index PATH --index {folder}`"
            )
        database = cls(path, read_only=read_only)
        try:
            database._bring_up_to_date()
        except BaseException:
            database.close()
            raise
        return database

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

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads one consistent snapshot. Make records of the rows inside the block."""
        # what a row cannot be made of is a damaged row: a date that is none, a null where there is always a number
        with _reported(self.path, ValueError, TypeError), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes: all of it is committed, or nothing if the block raises."""
        with _reported(self.path), _immediate(self._engine).begin() as connection:
            yield connection
            take_in_words(connection)

    def change_token(self) -> int:
        """Return a number that changes if anybody has committed since the last call. Takes microseconds.

        The number has a meaning within this object only. Ask for it before you read the data you keep: a commit in
        between then makes you read once too often, never once too seldom.
        """
        with self._watcher_lock, _reported(self.path):
            if self._watcher is None:
                # PRAGMA data_version compares within one connection, so this one is never pooled.
                self._watcher = self._connect()
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def copy_to(self, path: Path) -> None:
        """Copy the whole database, as it is at one moment, to a file; writers may go on meanwhile.

        An earlier file there is replaced. The copy is on the disk when this returns.
        """
        for old in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            old.unlink(missing_ok=True)
        with (
            _reported(self.path),
            closing(self._connect()) as source,
            closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)

    def replace_by(self, path: Path) -> None:
        """Replace all content by that of another catalogue, in one transaction; readers follow.

        A file renamed into place would leave the write-ahead log of the old one next to it.

        Args:
            path: a catalogue nobody else uses. It is brought up to date and gets a new lineage, because its numbers of
                changes mean other changes than the numbers here.
        """
        with type(self).open(path) as given, given.writing() as connection:
            connection.execute(delete(LineageRow))
            connection.execute(insert(LineageRow).values(stamp=secrets.token_hex(16)))
        with (
            _reported(self.path),
            closing(sqlite3.connect(path)) as source,
            closing(self._connect()) as target,
        ):
            source.backup(target)

    def integrity_problems(self) -> list[str]:
        """Return the faults inside the database file, a line each; about 1 s for 100,000 videos.

        Also works for an object made with the constructor, which reads nothing.

        Raises:
            IndexDirectoryError: the file is too damaged to be read.
        """
        with self.reading() as connection:
            checks = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
            problems = [str(line) for line in checks if line != "ok"]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        return problems + [
            f"row {row[1]} of {row[0]} refers to one of {row[2]} that is not there"
            for row in broken
        ]

    def _connect(self) -> sqlite3.Connection:
        with suppress(FileNotFoundError):  # SQLite says that, or makes it
            check_regular(self.path)
        mode = "rwc"
        if self._read_only:
            mode = "ro&immutable=1" if self._is_immutable() else "ro"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,  # transactions begin in _begin, and include table definitions
            check_same_thread=False,  # the pool hands a connection to one thread at a time
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # the views and triggers of a file made by others call no functions with effects
            connection.execute("PRAGMA trusted_schema = OFF")
            if not self._read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                # NORMAL would lose commits in a power cut
                connection.execute("PRAGMA synchronous = FULL")
                note_words(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_immutable(self) -> bool:
        """Whether nobody can change the file, such as a backup on a read-only disk.

        SQLite cannot create the file there by which readers and writers agree.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        return not os.access(self.path.parent, os.W_OK) and not log.exists()

    def _bring_up_to_date(self) -> None:
        with self.reading() as connection:
            revision = _revision(connection, self.path)
        if revision == SCHEMA_REVISION:
            return
        if self._read_only:
            root = index_root(self.path.parent)
            raise IndexDirectoryError(
                f"the index at {root} is of an older version or unfinished: "
                f"run `scanonce index [PATH] --index {root}` once to bring it up to date"
            )
        with self.writing() as connection:
            # The second of two processes waits here, and then finds the tables up to date.
            if _revision(connection, self.path) != SCHEMA_REVISION:
                _migrate(connection)
        self._engine.dispose()  # connections from before note no words


def _begin(connection: Connection) -> None:
    """Start a transaction. A writer locks at once: a reader that turns writer may find its snapshot stale."""
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


_DAMAGED = _NEXT_STEP[sqlite3.SQLITE_CORRUPT]


@contextmanager
def _reported(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn whatever the database raises, and what else means damage, into one error that says what to do."""
    damage: tuple[type[Exception], ...] = (DamagedFile, *also)
    try:
        yield
    except damage as error:
        raise IndexDirectoryError(f"the catalogue {path}: {error}; {_DAMAGED}") from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        advice = _NEXT_STEP.get(code, "this should not happen: please report it")
        raise IndexDirectoryError(f"the catalogue {path}: {cause}; {advice}") from error


def _revision(connection: Connection, path: Path) -> str | None:
    """Return the revision of the tables, None for an empty database.

    Raises:
        IndexDirectoryError: the revision is newer than this version, or the tables are not ours.
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
    """Run the missing migrations inside the open transaction: all of them or none."""
    from alembic import command  # takes 0.2 s to import and is needed once per version
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, SCHEMA_REVISION)
