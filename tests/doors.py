"""A small library behind all doors: Python, the command line, HTTP and MCP, in the process of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.library import Library
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.ui.api.tokens import Tokens
from scanonce.ui.server.cache import ProxyCache, proxy_cache
from scanonce.ui.server.server import build_app, new_service
from scanonce.ui.service import Service
from tests.colours import ColourEncoder, write_film
from tests.ui_library import NASTY


@dataclass
class Doors:
    """The library and what serves it."""

    layout: IndexLayout
    library: Library
    service: Service
    cache: ProxyCache
    tokens: Tokens
    client: TestClient
    """Sends a token with all scopes."""

    def id(self, name: str) -> int:
        """Return the id of a video by the name of its file."""
        (video,) = self.service.videos(name)[0]
        return video.video_id


@contextmanager
def open_doors(root: Path) -> Iterator[Doors]:
    """Index three films, one of them with a nasty name in a folder of its own, and open the doors."""
    films, layout = root / "films", IndexLayout(root / "index")
    write_film(films / "two-reds.mp4", [("black", 8), ("red", 6), ("white", 10), ("red", 9)])
    write_film(films / "more" / NASTY, [("black", 8), ("green", 6)])
    write_film(films / "dull.mp4", [("black", 5), ("white", 4)])
    index_library(
        [films],
        layout=layout,
        encoder=ColourEncoder(),
        settings=IndexerSettings(decode_workers=1),
        storage=StorageSettings(),
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in ("engine", "examples"):
            name = f"scanonce.search.{module}.load_encoder"
            patch.setattr(name, lambda *_, **__: ColourEncoder())
        library = Library(layout.root)
        service, tokens = new_service(library, None), Tokens(layout.root)
        secret = tokens.add("all", ("read", "export", "write"))
        app = build_app(service, with_pages=False)
        headers = {"Authorization": f"Bearer {secret}"}
        with TestClient(app, base_url="http://localhost:8501", headers=headers) as client:
            yield Doors(layout, library, service, proxy_cache(layout.root), tokens, client)
