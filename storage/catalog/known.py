"""The folders and files of a catalogue by other spellings of their paths, and the nearest to one that is not there."""

import os
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from sqlalchemy import select

from scanonce.storage.catalog.database import Database
from scanonce.storage.catalog.statements import below, libraries
from scanonce.storage.catalog.tables import FileRow

_MOST_COMPARED = 5000
"""Names that are compared for the nearest one: a comparison takes 10 to 100 microseconds."""


def known_paths(catalog: Database, path: Path) -> tuple[Path, ...]:
    """Return the paths by which a catalogue has files at or below ``path``; empty if it has none there.

    The path as it is comes first. Without files there, the libraries that it leads to through links are tried, then
    the same letters in another Unicode form, such as those of names that were copied from a Mac. Only these read the
    disk and all paths of the catalogue.

    Args:
        catalog: the catalogue.
        path: absolute.
    """
    roots = _roots(catalog)
    if path in roots or _has_files(catalog, path):
        return (path,)
    through_links = tuple(_through_links(path, roots))
    for candidates in (through_links, _respelled(catalog, (path, *through_links))):
        if found := tuple(each for each in candidates if _has_files(catalog, each)):
            return found
    return ()


def nearest_folder(catalog: Database, path: Path) -> Path | None:
    """Return the known folder with the name most like a path; None if the catalogue has no folder."""
    found = nearest(str(path), map(str, sorted(_folders(catalog))))
    return None if found is None else Path(found)


def nearest_path(catalog: Database, path: Path) -> Path | None:
    """Return the known folder or file with the path most like another; None if the catalogue has none."""
    known = sorted({*_folders(catalog), *_files(catalog)})
    found = nearest(str(path), map(str, known))
    return None if found is None else Path(found)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like another; None if none is known."""
    words = list(known)[:_MOST_COMPARED]
    return next(iter(get_close_matches(word, words, n=1, cutoff=0.0)), None)


def _has_files(catalog: Database, path: Path) -> bool:
    with catalog.reading() as connection:
        return connection.scalar(select(FileRow.id).where(below(FileRow.path, path)).limit(1)) is not None  # fmt: skip


def _roots(catalog: Database) -> list[Path]:
    with catalog.reading() as connection:
        return [library.root for library in libraries(connection)]


def _through_links(path: Path, roots: Iterable[Path]) -> Iterable[Path]:
    """Yield the libraries, or paths in them, that are the same on the disk as ``path``."""
    if "\0" in str(path):  # no file has such a name
        return
    real = Path(os.path.realpath(path))
    for root in roots:
        real_root = Path(os.path.realpath(root))
        if real.is_relative_to(real_root):
            yield root / real.relative_to(real_root)
        elif real_root.is_relative_to(real):
            yield root


def _respelled(catalog: Database, paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the known paths that have the letters of some paths in another Unicode form."""
    wanted = {_form(path) for path in paths}
    known = {*_folders(catalog), *_files(catalog)}
    return tuple(sorted(each for each in known if _form(each) in wanted))


def _form(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path))


def _folders(catalog: Database) -> set[Path]:
    """Return the libraries and all folders in them that have files, at any depth."""
    roots = _roots(catalog)
    folders = set(roots)
    for folder in {path.parent for path in _files(catalog)}:
        inside = (each for each in (folder, *folder.parents) if each not in folders)
        folders.update(each for each in inside if any(each.is_relative_to(root) for root in roots))
    return folders


def _files(catalog: Database) -> list[Path]:
    with catalog.reading() as connection:
        return [Path(path) for path in connection.scalars(select(FileRow.path))]
