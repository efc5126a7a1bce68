"""The state that all pages share: one open engine for the process, the catalogue, and the times of searches.

Streamlit runs a page's script in a thread of its own for every viewer and every click. All of them share one engine,
which follows new generations of the index by itself.
"""

import gc
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import streamlit as st

from scanonce.search.answer import SearchResult
from scanonce.search.engine import SearchEngine
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import ScanonceError
from scanonce.storage.layout import IndexLayout
from scanonce.ui.config import Config, read_config
from scanonce.ui.server import INDEX_VARIABLE

CONFIG_VARIABLE = "SCANONCE_CONFIG"
_REMEMBERED_SEARCHES = 500


class Shared:
    """The index that this server shows, and its engine."""

    def __init__(self, index_dir: Path, config: Config) -> None:
        self.config = config
        self.index_dir = index_dir
        self.timings: deque[Mapping[str, float]] = deque(maxlen=_REMEMBERED_SEARCHES)
        """Milliseconds by stage of the last searches, oldest first."""
        self.library = config.library(index_dir)
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
        with suppress(ScanonceError):  # the first search reports the error
            _ = self.engine

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """Open the catalogue for reading."""
        with Catalog.open(self.layout.catalog, read_only=True) as catalog:
            yield catalog

    def remember(self, result: SearchResult) -> None:
        """Keep the times of a search for the status page."""
        self.timings.append(result.timings_ms)


@st.cache_resource(show_spinner=False)
def shared() -> Shared:
    """Return the shared state of this process."""
    config = read_config()
    given = os.environ.get(INDEX_VARIABLE)
    return Shared(config.index_path(Path(given) if given else None), config)
