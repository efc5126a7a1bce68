"""What the pages share: one open engine per process, the catalogue, and how long searches took.

Streamlit runs a page's script in a thread of its own for every viewer and every click. The engine takes one caller at
a time, so it is lent out under a lock; it follows new generations of the index by itself.
"""

import gc
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import urlencode

import streamlit as st

from scanonce.search.engine import SearchEngine, SearchResult
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import ScanonceError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from scanonce.ui.config import Config, read_config

INDEX_VARIABLE, CONFIG_VARIABLE = "SCANONCE_UI_INDEX", "SCANONCE_CONFIG"
_REMEMBERED_SEARCHES = 500


class Shared:
    """The index that this server shows."""

    def __init__(self, index_dir: Path, config: Config) -> None:
        self.config = config
        self.index_dir = index_dir
        self.timings: deque[Mapping[str, float]] = deque(maxlen=_REMEMBERED_SEARCHES)
        """Milliseconds by stage of the last searches, the newest last."""
        self._engine: SearchEngine | None = None
        self._lock = Lock()
        self._warming = False

    @property
    def layout(self) -> IndexLayout:
        """Where things lie now: another index may take the place of this one."""
        return IndexLayout.of(self.index_dir)

    @property
    def exists(self) -> bool:
        """Whether there is an index yet."""
        return self.layout.manifest.exists()

    @contextmanager
    def engine(self) -> Iterator[SearchEngine]:
        """The engine, for one caller at a time; opened by the first.

        Raises:
            ScanonceError: there is no index yet, or it cannot be opened.
        """
        with self._lock:
            if self._engine is None:
                self._engine = SearchEngine.open(
                    self.index_dir, settings=self.config.search, models=self.config.models
                )
                # Streamlit collects garbage after each run of a page, before the browser hears of it; looking through
                # torch's objects took 0.3 s each time (benchmarks.ui)
                gc.freeze()
            yield self._engine

    def warm(self) -> None:
        """Begins to open the engine, once, while the viewer still types: encoders take seconds to load."""
        if self.exists and not self._warming:
            self._warming = True
            Thread(target=self._open, name="warm", daemon=True).start()

    def _open(self) -> None:
        with suppress(ScanonceError), self.engine():  # the first search tells what is wrong
            pass

    @contextmanager
    def catalog(self) -> Iterator[Catalog]:
        """The catalogue, to be read."""
        with Catalog.open(self.layout.catalog, read_only=True) as catalog:
            yield catalog

    def remember(self, result: SearchResult) -> None:
        """Keeps how long a search took, for the status page."""
        self.timings.append(result.timings_ms)


@st.cache_resource(show_spinner=False)
def shared() -> Shared:
    """The one of this process."""
    config = read_config()
    given = os.environ.get(INDEX_VARIABLE)
    return Shared(config.index_path(Path(given) if given else None), config)


def moment_url(video_id: int, span: Span, query: str = "") -> str:
    """The page of a moment: it can be bookmarked and shared."""
    values = {"v": video_id, "a": f"{span.start_seconds:.3f}", "b": f"{span.end_seconds:.3f}"}
    return f"moment?{urlencode({**values, 'q': query} if query else values)}"


def thumb_url(video_id: int, seconds: float) -> str:
    """A small stored picture of a video."""
    return f"/media/thumbs/{video_id}/{max(0, round(seconds * 1000))}.jpg"
