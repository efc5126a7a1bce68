"""A tiny library of flat colours, and the pages over it: what the tests of the pages share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from tests.colours import ColourEncoder, write_film

UI = Path(__file__).parents[1] / "ui"
NASTY = "<img src=x onerror=alert(1)> **b**.mp4"


def build_library(root: Path) -> IndexLayout:
    """Four films: one with two red moments, one with a nasty name in a folder of its own, two dull ones."""
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


def shown_index(index_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pages show this index, with an encoder that sees colours; nothing is kept before or after."""
    monkeypatch.setenv("SCANONCE_UI_INDEX", str(index_dir))
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def open_page(name: str, **address: str) -> AppTest:
    """A page after its first run."""
    app = AppTest.from_file(str(UI / "pages/app.py"), default_timeout=60)
    if name != "search":  # that is where one begins
        app.run()  # pages have a name only after `st.navigation` has run
        app.switch_page(f"{name}_page.py")
    for key, value in address.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, app.exception
    return app
