"""The state that all pages share: one open engine for the process, the catalogue, and the last searches.

Streamlit runs a page's script in a thread of its own for every viewer and every click. All of them share one engine,
which follows new generations of the index by itself.
"""

import gc
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread

import streamlit as st

from scanonce.search.engine import SearchEngine
from scanonce.search.result import SearchResult
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment
from scanonce.ui.config import Config, read_config
from scanonce.ui.server import INDEX_VARIABLE
from scanonce.ui.server.served import find_served

CONFIG_VARIABLE = "SCANONCE_CONFIG"
LAST_SEARCHES = 6
"""Number of searches that the start page shows."""
_REMEMBERED_SEARCHES = 500


class Shared:
    """The index that this server shows, and its engine."""

    def __init__(self, index_dir: Path, config: Config) -> None:
        self.config = config
        self.index_dir = index_dir
        self.timings: deque[Mapping[str, float]] = deque(maxlen=_REMEMBERED_SEARCHES)
        """Milliseconds by stage of the last searches, oldest first."""
        self.library = find_served(index_dir) or config.library(index_dir)
        self._last_searches: dict[str, Moment] = {}
        self._remembering = Lock()
        self.is_ready = False
        """Whether the model is loaded, so that a search begins at once."""
        self._is_open = False
        self._warming = False

    @property
    def layout(self) -> IndexLayout:
        """The paths of the index now: a reindex or a restore may switch to a new one."""
        return IndexLayout.of(self.index_dir)

    @property
    def exists(self) -> bool:
        """Whether there is an index."""
        return self.layout.manifest.exists()

    @property
    def engine(self) -> SearchEngine:
        """The engine, opened by the first caller; searches of several viewers run at the same time.

        Raises:
            ScanonceError: there is no index yet, or it cannot be opened.
        """
        engine = self.library.engine
        self.is_ready = True
        if not self._is_open:
            self._is_open = True
            # Streamlit collects garbage after each run of a page, before the browser gets the result; going through
            # torch's objects took 0.3 s each time (benchmarks.ui)
            gc.freeze()
        return engine

    def warm(self) -> None:
        """Start opening the engine, once, while the viewer still types: encoders take seconds to load."""
        if self.exists and not self._warming:
            self._warming = True
            Thread(target=self._open, name="warm", daemon=True).start()

    def _open(self) -> None:
        with suppress(Exception):  # the first search reports the error
            _ = self.engine

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """Open the catalogue for reading."""
        with Catalog.open(self.layout.catalog, read_only=True) as catalog:
            yield catalog

    def remember(self, result: SearchResult) -> None:
        """Keep the times of a search for the status page."""
        self.timings.append(result.timings_ms)

    def show_again(self, result: SearchResult) -> None:
        """Keep a search of the library for the start page, as the newest; one that found nothing is not kept."""
        if not result.moments:
            return
        with self._remembering:
            self._last_searches.pop(result.query, None)
            self._last_searches[result.query] = result.moments[0]
            for query in list(self._last_searches)[:-LAST_SEARCHES]:
                del self._last_searches[query]

    def last_searches(self) -> list[tuple[str, Moment]]:
        """Return the last queries with their first moments, newest first."""
        with self._remembering:
            return list(self._last_searches.items())[::-1]


@st.cache_resource(show_spinner=False)
def shared() -> Shared:
    """Return the shared state of this process."""
    config = read_config()
    given = os.environ.get(INDEX_VARIABLE)
    return Shared(config.index_path(Path(given) if given else None), config)
