"""Shared set-up of the tests of the pages: small indexes, and the pages that show them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, write_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.ui.server import INDEX_VARIABLE
from tests.colours import ColourEncoder, write_film

PAGES = Path(__file__).parents[1] / "ui/pages"
NASTY = "<img src=x onerror=alert(1)> **b**.mp4"


def build_library(root: Path) -> IndexLayout:
    """Index four films: one with two red moments, one with a nasty name in a folder of its own, two dull ones."""
    films, layout = root / "films", IndexLayout(root / "index")
    write_film(films / "two-reds.mp4", [("black", 8), ("red", 6), ("white", 10), ("red", 9)])
    write_film(films / "more" / NASTY, [("black", 12), ("green", 6)])
    for number in range(2):
        write_film(films / f"dull{number}.mp4", [("black", 65 + number), ("white", 9)])
    index_library(
        [films],
        layout=layout,
        encoder=ColourEncoder(),
        settings=IndexerSettings(decode_workers=1),
        storage=StorageSettings(),
    )
    return layout


def empty_index(root: Path, encoder: str, fingerprint: str = "f" * 64) -> IndexLayout:
    """Make an index with a manifest and nothing else."""
    root.mkdir()
    layout, settings = IndexLayout(root), IndexerSettings()
    write_manifest(
        layout,
        Manifest(
            encoder=encoder,
            fingerprint=fingerprint,
            dim=4,
            sampling=settings.sampling,
            sample_fps=settings.sample_fps,
            clip_scales_seconds=settings.clip_scales_seconds,
            clip_stride_ratio=settings.clip_stride_ratio,
        ),
    )
    return layout


def shown_index(index_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the pages show this index, with an encoder for colours and empty caches."""
    monkeypatch.setenv(INDEX_VARIABLE, str(index_dir))
    for module in ("engine", "examples"):
        name = f"scanonce.search.{module}.load_encoder"
        monkeypatch.setattr(name, lambda *_, **__: ColourEncoder())
    for cache in (st.cache_resource, st.cache_data):
        cache.clear()
    yield
    for cache in (st.cache_resource, st.cache_data):
        cache.clear()


def open_page(name: str, **address: str) -> AppTest:
    """Return a page of the application after its first run."""
    app = AppTest.from_file(str(PAGES / "app.py"), default_timeout=600)
    if name != "search":  # the first page
        app.run()  # pages have a name only after `st.navigation` has run
        app.switch_page(f"{name}_page.py")
    for key, value in address.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, app.exception
    return app


def run_page(name: str, **state: object) -> AppTest:
    """Return a page by itself, without the navigation, after its first run."""
    page = AppTest.from_file(str(PAGES / f"{name}_page.py"), default_timeout=600)
    for key, value in state.items():
        page.session_state[key] = value
    page.run()
    assert not page.exception, page.exception
    return page


def texts(page: AppTest) -> list[str]:
    """Return all texts on a page."""
    kinds = (page.markdown, page.caption, page.text, page.error, page.code)
    return [str(each.value) for kind in kinds for each in kind]
