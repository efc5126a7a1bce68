"""Keeps the words of lines and paths in line with their tables.

SQLite lets no trigger touch a word index of FTS5 if the schema of a file is not trusted (``trusted_schema``), and files
may come from others. So temporary triggers, which each connection that writes has of its own, note what changes, and
the end of the transaction takes it in.
"""

import sqlite3
from itertools import groupby

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

_WORDS = "coalesce({row}.words, {row}.text)"
_INDEXES = (
    ("line_words", "words", "lines", _WORDS, ("INSERT", "DELETE")),  # lines never change
    ("file_words", "path", "files", "{row}.path", ("INSERT", "DELETE", "UPDATE OF path")),
)

_EMPTY = [(1, b""), (10, bytes(7))]
"""The averages and the structure of an index without words: rows 1 and 10 of its data, by fts5_index.c of SQLite."""


def note_words(connection: sqlite3.Connection) -> None:
    """Have a connection note changes; does nothing before the migration that makes the word indexes."""
    found = connection.execute("SELECT name FROM main.sqlite_master WHERE name = 'line_words'")
    if found.fetchone() is None:
        return
    for index, _, table, value, events in _INDEXES:
        notes = f"noted_{index}"
        connection.execute(f"CREATE TEMP TABLE {notes} (row, is_new, content)")
        for event in events:
            sides = (["OLD"] if event != "INSERT" else []) + (["NEW"] if event != "DELETE" else [])
            does = " ".join(
                f"INSERT INTO {notes} VALUES ({side}.id, {side == 'NEW'}, {value.format(row=side)});"
                for side in sides
            )
            name = f"{notes}_{event.split()[0].lower()}"
            connection.execute(
                f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} BEGIN {does} END"
            )


def take_in_words(connection: Connection) -> None:
    """Take in the notes of this transaction, in their order: a row may have changed twice."""
    for index, column, *_ in _INDEXES:
        notes = f"noted_{index}"
        if connection.exec_driver_sql(_EXISTS, (notes,)).scalar() is None:
            return
        take = f"INSERT INTO {index} ({index}, rowid, {column}) VALUES ('delete', ?, ?)"
        put = f"INSERT INTO {index} (rowid, {column}) VALUES (?, ?)"
        noted = connection.exec_driver_sql(
            f"SELECT is_new, row, content FROM temp.{notes} ORDER BY rowid"
        ).all()
        for is_new, group in groupby(noted, key=lambda note: note.is_new):
            rows = [(note.row, note.content) for note in group]
            connection.exec_driver_sql(put if is_new else take, rows)
        if noted:
            connection.exec_driver_sql(f"DELETE FROM temp.{notes}")


_EXISTS = "SELECT 1 FROM sqlite_temp_master WHERE name = ?"


def word_problems(connection: Connection) -> list[str]:
    """Return the faults of the word indexes, a line each: damage, or words of other rows than those in the tables.

    Args:
        connection: may write, which FTS5 asks for; nothing is written.
    """
    problems = []
    for index, _, table, *_ in _INDEXES:
        check = f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)"
        try:
            connection.exec_driver_sql(check)
        except DatabaseError as error:
            problems.append(f"the words of its {table} do not agree with them ({error.orig})")
    return problems


def rebuild_words(connection: Connection) -> None:
    """Make the word indexes again from their tables, however damaged they are."""
    for index, *_ in _INDEXES:
        # an index without these rows cannot even be opened to be made again
        empty = f"INSERT OR REPLACE INTO {index}_data (id, block) VALUES (?, ?)"
        connection.exec_driver_sql(empty, _EMPTY)
        connection.exec_driver_sql(f"INSERT INTO {index} ({index}) VALUES ('rebuild')")
