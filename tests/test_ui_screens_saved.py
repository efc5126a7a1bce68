"""The pages of saved searches and of near-duplicates, and the drawn part of a picture, without a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.ui.pages import finding
from scanonce.ui.pages.components import Crop, crop_of
from scanonce.ui.pages.session import shared
from tests.colours import write_film
from tests.indexes import build_index
from tests.ui_library import open_page, shown_index, texts

PIECES = [("red", 3.0), ("green", 4.0), ("blue", 3.0), ("white", 5.0), ("green", 2.0), ("red", 4.0)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    """Three films, one of which begins later than its copy."""
    films = tmp_path_factory.mktemp("saved") / "films"
    write_film(films / "whole.mp4", PIECES)
    write_film(films / "excerpt_[x].mp4", PIECES[1:])
    write_film(films / "other.mp4", [("black", 20), ("blue", 8)])
    layout = IndexLayout(films.parent / "index")
    build_index(layout, films)
    return layout


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


def video_named(name: str) -> int:
    videos = finding.searchable_library(finding.index_stamp()).videos
    return next(number for number, video in videos.items() if video.path.name == name)


def test_a_query_is_saved_run_and_removed() -> None:
    app = open_page("search", q="blue")
    app.text_input(key="save-name").set_value("the *sea*")
    app.button(key="save").click().run()
    assert any("Saved as" in text for text in texts(app))
    app.button(key="save").click().run()
    assert any("there is a saved search" in text for text in texts(app))

    app = open_page("saved")
    assert any("nothing new" not in text and text.endswith(" new") for text in texts(app))
    assert any("never looked at" in text for text in texts(app))
    app.button(key="run-the *sea*").click().run()
    assert not app.exception
    assert "saved-grid" in [each.key for each in app.get("bidi_component")]
    assert any("nothing new" in text for text in texts(app)), "somebody has looked"
    app.button(key="remove-the *sea*").click().run()
    assert any("No search is saved yet" in text for text in texts(app))
    assert shared().library.saved.all() == []
    assert "saved-grid" not in [each.key for each in app.get("bidi_component")]


def test_pairs_stand_side_by_side_and_one_can_be_labelled(layout: IndexLayout) -> None:
    app = open_page("duplicates")
    app.button(key="compare").click().run()
    assert not app.exception
    assert any("1 pair of near-duplicates" in text for text in texts(app))
    (pictures,) = [
        each for each in app.get("bidi_component") if str(each.key).startswith("pictures-")
    ]
    assert "whole.mp4" in pictures.proto.json
    assert "excerpt_[x].mp4" in pictures.proto.json
    (lesser,) = [each for each in app.button if "the shorter or smaller" in each.label]
    lesser.click().run()
    with Catalog.open(layout.catalog) as catalog:
        assert catalog.labels.counts() == {"duplicate": 1}
        assert catalog.labels.of([video_named("excerpt_[x].mp4")]) != {}
    (lesser,) = [each for each in app.button if "the shorter or smaller" in each.label]
    assert lesser.disabled


def test_a_drawn_part_of_a_picture_finds_what_looks_like_it(layout: IndexLayout) -> None:
    number = video_named("whole.mp4")
    crop = Crop(number, 8.0, (0.25, 0.25, 0.75, 0.75))
    result = finding.like_part(crop, 5, finding.index_stamp())
    assert result.query == "[part of whole.mp4]"
    blue = [each for each in result.moments if each.probability > 0.995]
    assert {each.path.stem for each in blue} == {"whole", "excerpt_[x]", "other"}


def sent(**values: object) -> dict[str, object]:
    whole = {"video": 1, "seconds": 2.0, "left": 0.1, "top": 0.0, "right": 1, "bottom": 0.5}
    return {**whole, **values}


def test_the_server_takes_an_id_a_time_and_four_shares_only() -> None:
    video = next(iter(finding.searchable_library(finding.index_stamp()).videos.values()))
    good = sent(video=video.video_id, path="/etc/passwd")
    assert crop_of(good, video) == Crop(video.video_id, 2.0, (0.1, 0.0, 1.0, 0.5))
    for bad in (
        {"video": video.video_id + 1},
        {"seconds": -1.0},
        {"seconds": 1e9},
        {"left": 1.0},
        {"right": 1.1},
        {"bottom": float("nan")},
        {"top": "0.1"},
    ):
        assert crop_of(sent(**{"video": video.video_id, **bad}), video) is None
    assert crop_of(None, video) is None


@pytest.mark.parametrize("name", ["saved", "duplicates"])
def test_without_an_index_a_page_names_the_next_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in shown_index(tmp_path / "none", monkeypatch):
        assert any("add a folder" in text for text in texts(open_page(name)))
