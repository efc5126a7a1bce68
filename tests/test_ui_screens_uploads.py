"""Images and clips that are dropped on the search page, without a browser."""

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from scanonce.storage.layout import IndexLayout
from scanonce.ui.pages import finding
from tests.colours import COLOURS
from tests.ui_library import NASTY, build_library, open_page, shown_index, texts


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


def image(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def cards(app: AppTest) -> list[dict[str, Any]]:
    (component,) = [each for each in app.get("bidi_component") if each.key == "grid"]
    found: list[dict[str, Any]] = json.loads(component.proto.json)["cards"]
    return found


def test_a_dropped_image_finds_moments_and_can_be_taken_away(
    layout: IndexLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    app = open_page("search")
    app.file_uploader(key="uploads").set_value(
        [(NASTY + ".png", image("green"), "image/png")]
    ).run()
    assert not app.exception
    assert cards(app)[0]["name"] == NASTY
    assert "q=" not in cards(app)[0]["href"]
    assert list(tmp_path.iterdir()) == []  # nothing of it stays on the disk
    film = (layout.root.parent / "films" / "two-reds.mp4").read_bytes()
    app.file_uploader(key="uploads").set_value([("a.mp4", film, "video/mp4")]).run()
    assert "two-reds.mp4" in [card["name"] for card in cards(app)]
    app.file_uploader(key="uploads").set_value([]).run()
    assert not [each for each in app.get("bidi_component") if each.key == "grid"]


def test_an_image_and_a_text_hold_together() -> None:
    app = open_page("search", q="red")
    app.file_uploader(key="uploads").set_value([("r.png", image("red"), "image/png")]).run()
    assert {card["name"] for card in cards(app)[:2]} == {"two-reds.mp4"}
    assert "q=red" in cards(app)[0]["href"]
    assert any("read as\\: red" in each for each in texts(app))


def test_a_file_that_is_no_image_is_an_error_and_the_field_stays() -> None:
    app = open_page("search")
    app.file_uploader(key="uploads").set_value([("a.png", b"no image", "image/png")]).run()
    assert not app.exception
    assert any("a\\.png" in error.value for error in app.error)
    app.file_uploader(key="uploads").set_value([("r.png", image("red"), "image/png")]).run()
    assert cards(app)[0]["name"] == "two-reds.mp4"


def test_uploads_are_told_apart_by_content_and_name() -> None:
    first = finding.Upload("a", b"1")
    assert (
        len({each.digest for each in (first, finding.Upload("b", b"1"), finding.Upload("a", b"2"))})
        == 3
    )
    assert "1" not in repr(first)
