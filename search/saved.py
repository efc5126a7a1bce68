"""Saved searches: queries with a name, kept in the index, that know which videos came since they were looked at.

saved = SavedSearches(root, lambda: engine)
saved.add("boats", "a boat at sea", Filter(labels=frozenset({"holiday"})))
saved.num_new("boats")                # good matches in videos that came since
saved.run("boats").moments            # all matches; now none is new
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from scanonce.search.engine import SearchEngine
from scanonce.search.filters import Filter, filter_json, filter_of
from scanonce.search.query import parse
from scanonce.search.query_text import query_text
from scanonce.search.result import SearchResult
from scanonce.storage.catalog.known import nearest
from scanonce.storage.catalog.label_names import folded, normal_label
from scanonce.storage.catalog.saved import SavedRow, SavedRows
from scanonce.storage.errors import QueryError
from scanonce.storage.index import Index, change_current
from scanonce.storage.layout import IndexLayout

MOST_NEW = 100
"""Most new matches of a saved search that are counted."""


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query with a name."""

    name: str
    query: str
    only: Filter
    """The videos to search."""
    created: datetime
    """UTC."""
    looked_at: datetime | None
    """When its answer was looked at last, UTC; None: never."""
    seen_video_id: int
    """Videos with a higher id came later. A video that is scanned again because its file changed gets another id; one
    that `scanonce reindex` scans again keeps it."""


class SavedSearches:
    """The saved searches of an index. Threads and processes may share them."""

    def __init__(self, root: Path, engine: Callable[[], SearchEngine]) -> None:
        """Use the index at ``root``; the engine is asked for when a search runs."""
        self._root, self._engine = root, engine

    def add(self, name: str, text: str, only: Filter | None = None) -> SavedSearch:
        """Save a search.

        Args:
            name: 1 to 100 characters; two names that differ in case are the same.
            text: the query.
            only: the videos to search. Default: all.

        Raises:
            QueryError: the name is not allowed or in use, or the query cannot be read.
            IndexDirectoryError: there is no index.
        """
        name, text = normal_label(name), query_text(text)
        parse(text)
        stored = json.dumps(filter_json(only or Filter()))
        if not self._write(lambda rows: rows.add(name, text, stored)):
            raise QueryError(
                f"there is a saved search {name!r}: take another name, or run "
                f"`scanonce saved remove {name!r}` first"
            )
        return self.get(name)

    def all(self) -> list[SavedSearch]:
        """Return all saved searches, sorted by name.

        Raises:
            QueryError: the filter of one of them cannot be read.
        """
        with Index.open(self._root, read_only=True) as index:
            return [_search(row) for row in index.catalog.saved.all()]

    def get(self, name: str) -> SavedSearch:
        """Return a saved search.

        Raises:
            QueryError: there is none of this name; the message names the nearest.
        """
        with Index.open(self._root, read_only=True) as index:
            rows = {folded(row.name): row for row in index.catalog.saved.all()}
        row = rows.get(folded(name))
        if row is None:
            raise _unknown(name, rows)
        return _search(row)

    def newest_video_id(self) -> int:
        """Return the highest id of a searchable video; 0 if there is none, or no index yet."""
        if not IndexLayout.of(self._root).manifest.exists():
            return 0
        with Index.open(self._root, read_only=True) as index:
            return index.catalog.saved.newest_video_id()

    def remove(self, name: str) -> None:
        """Remove a saved search; raises as `get`."""
        if not self._write(lambda rows: rows.remove(name)):
            self.get(name)

    def run(self, name: str, *, top: int | None = None) -> SearchResult:
        """Answer a saved search and note that it was looked at; raises as `get` and `SearchEngine.search`."""
        saved = self.get(name)
        engine = self._engine()
        with engine.reading() as snapshot:
            seen = max(snapshot.videos, default=0)  # a video that comes during the search stays new
        result = engine.search(saved.query, top=top, within=saved.only)
        self._write(lambda rows: rows.look(name, seen))
        return result

    def new(self, saved: SavedSearch, top: int = MOST_NEW) -> SearchResult | None:
        """Answer a saved search in the videos that came since it was looked at; None if none came."""
        return self.within(saved, self._new_ids(saved), top)

    def num_new(self, saved: SavedSearch) -> int:
        """Return the number of good matches in those videos, `MOST_NEW` at most."""
        result = self.new(saved)
        return 0 if result is None else result.num_good

    def count_new(self, saved: SavedSearch) -> tuple[int, str | None]:
        """Return `num_new`, and why the search cannot be asked now; None if it can.

        A folder, label or video that it names may have left the index. That costs no other search.
        """
        try:
            return self.num_new(saved), None
        except QueryError as error:
            return 0, str(error)

    def within(
        self, saved: SavedSearch, ids: frozenset[int], top: int = MOST_NEW
    ) -> SearchResult | None:
        """Answer a saved search in some videos, as far as they pass its filter; None if there are none."""
        if saved.only.videos is not None:
            ids &= saved.only.videos
        if not ids:
            return None
        return self._engine().search(saved.query, top=top, within=replace(saved.only, videos=ids))

    def _new_ids(self, saved: SavedSearch) -> frozenset[int]:
        engine = self._engine()
        with engine.reading() as snapshot:  # takes in the newest videos
            return frozenset(each for each in snapshot.videos if each > saved.seen_video_id)

    def _write(self, change: Callable[[SavedRows], bool]) -> bool:
        """Change the saved searches; returns whether that changed something, in the index or its successor."""
        return any(change_current(self._root, lambda index: change(index.catalog.saved)))


def _search(row: SavedRow) -> SavedSearch:
    try:
        only = filter_of(row.filter)
    except QueryError as error:
        raise QueryError(
            f"the filter of the saved search {row.name!r} cannot be read: {error}. "
            f"`scanonce saved remove {row.name!r}` removes it"
        ) from error
    return SavedSearch(row.name, row.query, only, row.created_at, row.looked_at, row.seen_video_id)


def _unknown(name: str, rows: dict[str, SavedRow]) -> QueryError:
    near = nearest(folded(name), rows)
    hint = (
        f"the nearest is {rows[near].name!r}"
        if near
        else "there is none yet: scanonce saved add NAME QUERY"
    )
    return QueryError(f"there is no saved search {name!r}; {hint}")
