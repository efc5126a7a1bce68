"""Saved searches, asked of new videos: those that `scanonce watch` has just indexed.

standing = Standing(library.saved, lambda: library.engine)
for news in standing.ask():
    print(news.saved.name, [moment.path for moment in news.moments])
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from scanonce.search.engine import SearchEngine, good_matches
from scanonce.search.filters import Filter
from scanonce.search.saved import SavedSearch, SavedSearches
from scanonce.storage.errors import IndexDirectoryError, QueryError
from scanonce.storage.records import Moment

MOST_MOMENTS = 20
"""Most moments of one search in one message."""


@dataclass(frozen=True, slots=True)
class News:
    """The matches of a saved search in new videos."""

    saved: SavedSearch
    moments: tuple[Moment, ...]
    """Its good matches, best first; at least one."""


class Standing:
    """Asks saved searches of the videos that came since it was asked last."""

    def __init__(self, saved: SavedSearches, engine: Callable[[], SearchEngine]) -> None:
        """Take all videos that are there for known; there need not be an index yet."""
        self._saved, self._engine = saved, engine
        self.problems: dict[str, str] = {}
        """Why searches could not be asked the last time, by name: a folder or label of theirs has left the index."""
        self._asked_up_to = saved.newest_video_id()

    def ask(self) -> list[News]:
        """Return what the searches find in newer videos, by name; searches with the same filter are asked together.

        Raises:
            ScanonceError: the index or its encoder cannot be read; the videos are asked again next time.
        """
        newest = self._saved.newest_video_id()
        if newest <= self._asked_up_to:
            return []
        try:
            searches = self._saved.all()
        except IndexDirectoryError:
            return []
        self.problems = {}
        by_filter: dict[Filter, list[SavedSearch]] = defaultdict(list)
        for each in searches:
            by_filter[each.only].append(each)
        news = []
        if searches:
            engine = self._engine()
            with engine.reading() as snapshot:  # takes in the newest videos
                ids = frozenset(each for each in snapshot.videos if each > self._asked_up_to)
                newest = max(ids, default=newest)
            for only, group in by_filter.items():
                news += self._asked(engine, only, ids, group)
        self._asked_up_to = newest
        return sorted(news, key=lambda each: each.saved.name)

    def _asked(
        self, engine: SearchEngine, only: Filter, ids: frozenset[int], searches: list[SavedSearch]
    ) -> list[News]:
        """Ask searches of one filter; one that cannot be asked costs no other."""
        try:
            return _ask(engine, only, ids, searches)
        except QueryError as error:
            if len(searches) == 1:
                self.problems[searches[0].name] = str(error)
                return []
        return [news for each in searches for news in self._asked(engine, only, ids, [each])]


def _ask(
    engine: SearchEngine, only: Filter, ids: frozenset[int], searches: list[SavedSearch]
) -> list[News]:
    chosen = ids if only.videos is None else ids & only.videos
    if not chosen:
        return []
    results = good_matches(
        engine,
        [each.query for each in searches],
        top=MOST_MOMENTS,
        within=replace(only, videos=chosen),
    )
    return [News(searches[k], result.moments[: result.num_good]) for k, result in results.items()]
