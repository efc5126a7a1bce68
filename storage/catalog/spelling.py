"""Finds a path in the catalogue that is spelled otherwise there: with other Unicode accents, or through a link."""

import os
import stat
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, select

from scanonce.storage.catalog.statements import below
from scanonce.storage.catalog.tables import FileRow, LibraryRow


def spelled(connection: Connection, path: Path) -> list[Path]:
    """Return a path as the catalogue has it: with other Unicode accents, or under the links it was indexed by.

    Costs a look-up if a file or library is recorded at or below it as it is; else see `same_places`.

    Returns:
        One path, or several if it was indexed under several; the path itself if nothing is recorded there.
    """
    for column in (FileRow.path, LibraryRow.root_path):
        if connection.scalar(select(column).where(below(column, path)).limit(1)):
            return [path]
    recorded = connection.scalars(select(FileRow.path).union(select(LibraryRow.root_path)))
    return same_places(path, recorded) or [path]


def same_places(path: Path, recorded: Iterable[str]) -> list[Path]:
    """Return the outermost folders or files among some recorded paths that are the same as ``path``, sorted.

    Two paths are the same if they are the same folder on the disk, or if they differ only in composed and decomposed
    accents, with links resolved or not. A hard link is another file. Costs some 0.1 ms for each folder, and for each
    file if no folder is the same.

    Args:
        path: absolute; it need not exist.
        recorded: absolute paths of files and roots. Folders above them count too.
    """
    files = {Path(each) for each in recorded}
    folders = {folder for file in files for folder in file.parents}
    is_same = _SamePlace(path)
    found = {folder for folder in folders if is_same(folder)}
    found = found or {file for file in files if is_same(file)}
    return sorted(each for each in found if found.isdisjoint(each.parents))


class _SamePlace:
    """Whether a path is the same place as a given one."""

    def __init__(self, path: Path) -> None:
        self._spellings = {_composed(path), _composed(os.path.realpath(path))}
        self._identity = _identity(path)

    def __call__(self, other: Path) -> bool:
        if self._identity is not None and self._identity == _identity(other):
            return True
        return not self._spellings.isdisjoint(
            (_composed(other), _composed(os.path.realpath(other)))
        )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a folder; None if there is none."""
    with suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return status.st_dev, status.st_ino
    return None


def _composed(path: str | Path) -> str:
    return unicodedata.normalize("NFC", str(path))
