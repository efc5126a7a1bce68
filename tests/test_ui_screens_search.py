"""The search page, run without a browser over a tiny library."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.ui.pages import exports_bar, finding
from scanonce.ui.pages.components import Picks
from scanonce.ui.pages.session import shared
from tests.ui_library import NASTY, build_library, open_page, shown_index


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("search-page"))


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


def grid(app: AppTest) -> dict[str, Any]:
    """Return the data sent to the grid."""
    (component,) = [each for each in app.get("bidi_component") if each.key == "grid"]
    data: dict[str, Any] = json.loads(component.proto.json)
    return data


def names(app: AppTest) -> list[str]:
    return [card["name"] for card in grid(app)["cards"]]


def test_the_empty_page_has_examples_and_the_size_of_the_library() -> None:
    app = open_page("search")
    assert "4 videos, 3 min" in app.caption[0].value
    examples = [button.label for button in app.button]
    assert len(examples) == 3
    app.button[0].click().run()
    assert app.text_input[0].value == examples[0]
    assert app.query_params["q"] == examples[0]


def test_a_query_in_the_address_is_searched_and_its_moments_are_shown() -> None:
    app = open_page("search", q="red")
    assert app.text_input[0].value == "red"
    first, second = grid(app)["cards"][:2]
    assert first["name"] == second["name"] == "two-reds.mp4"
    assert first["word"] in ("strong", "fair")
    assert first["href"].startswith("moment?v=")
    assert "q=red" in first["href"]
    assert len(first["thumbnails"]) == 3
    assert all(
        thumbnail["alt"].startswith("two-reds.mp4 at 0:00:") for thumbnail in first["thumbnails"]
    )
    assert "4 videos, 3 min | " in app.caption[0].value
    assert "page" in app.caption[0].value
    assert len(shared().timings) == 1


def test_a_name_that_is_markup_is_sent_as_data() -> None:
    card = grid(open_page("search", q="green"))["cards"][0]
    assert card["name"] == NASTY


def test_filters_narrow_the_search_and_are_in_the_address() -> None:
    app = open_page("search", q="black", folder="films/more")
    assert set(names(app)) == {NASTY}
    app.selectbox(key="folder").set_value("").run()
    assert len(set(names(app))) > 1
    app.selectbox(key="length").set_value("> 1 h").run()
    assert not app.exception
    assert "No video passes these filters" in app.markdown[0].value
    app.selectbox(key="length").set_value("1-10 min").run()
    assert {name[:4] for name in names(app)} == {"dull"}


@pytest.fixture
def labelled(layout: IndexLayout) -> Iterator[None]:
    """Some videos carry labels, one of them with markup in it."""
    with Catalog.open(layout.catalog) as catalog:
        dull = catalog.matching_videos(seconds=(60.0, None))
        catalog.labels.add(dull, ["dull", "**bold**"])
        catalog.labels.add(dull[:1], ["first"])
        yield
        catalog.labels.remove(dull, catalog.labels.counts())


@pytest.mark.usefixtures("labelled")
def test_labels_narrow_the_search_and_are_in_the_address() -> None:
    app = open_page("search", q="black", label="dull")
    assert set(names(app)) == {"dull0.mp4", "dull1.mp4"}
    assert app.multiselect(key="label").options == ["**bold**", "dull", "first"]
    app.multiselect(key="without").set_value(["first"]).run()
    assert len(set(names(app))) == 1
    app.multiselect(key="label").set_value(["dull", "**bold**"]).run()
    assert app.caption[0].value.startswith(
        "Only videos labelled \\*\\*bold\\*\\* and dull, not labelled"
    )
    app.multiselect(key="without").set_value(["dull"]).run()
    assert "both required and excluded" in app.error[0].value


def test_without_labels_the_page_says_how_to_give_some() -> None:
    app = open_page("search", q="red")
    assert app.multiselect(key="label").disabled
    assert "scanonce label" in app.multiselect(key="label").proto.placeholder


def test_days_of_recording_narrow_the_search_and_are_in_the_address() -> None:
    today, before = date.today(), date.today() - timedelta(days=2)
    app = open_page("search", q="black", until=before.isoformat())  # the address of a bookmark
    assert "No video passes these filters" in app.markdown[0].value
    assert f"recorded until {before}".replace("-", "\\-") in app.caption[-2].value
    app.date_input(key="until").set_value(today).run()
    assert len(set(names(app))) > 2
    app.date_input(key="from").set_value(before).run()
    assert len(set(names(app))) > 2
    app.date_input(key="until").set_value(before - timedelta(days=1)).run()
    assert "swap them" in app.error[0].value


def test_a_video_added_today_passes_the_filter_of_today() -> None:
    app = open_page("search", q="black")
    app.selectbox(key="added").set_value("Added today").run()
    assert len(set(names(app))) > 2


def test_one_per_video_shows_each_video_once() -> None:
    app = open_page("search", q="red", one="true")
    assert len(names(app)) == len(set(names(app)))


def test_no_good_match_comes_first_and_the_closest_are_dimmed() -> None:
    app = open_page("search", q="quarterly tax form")
    assert app.markdown[0].value.startswith("No good match for “quarterly tax form”")
    cards = grid(app)["cards"]
    assert 0 < len(cards) <= 4
    assert all(card["dim"] for card in cards)


def test_turning_pages_searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.ui.views.num_pages", lambda items, size: -(-items // 2))
    app = open_page("search", q="red")
    pages_shown = app.get("pagination")
    if pages_shown:
        app.session_state["page"] = 2
        app.run()
    assert not app.exception
    assert len(shared().timings) == 1


def test_picked_moments_stay_and_can_be_exported() -> None:
    app = open_page("search", q="red")
    key = grid(app)["cards"][0]["key"]
    moment = finding.search("red", None, 100, finding.index_stamp()).moments[0]
    app.session_state["picked"] = {key: exports_bar.Picked(moment, "red")}  # as a click does
    app.session_state["picks_version"] = 1
    app.text_input[0].set_value("green").run()
    assert not app.exception
    assert grid(app)["picks"] == [key]
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["CSV", "SRT", "EDL", "OTIO"]
    (link,) = app.get("link_button")
    assert "/clips/" in link.proto.url


def test_an_error_is_a_message_with_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IndexDirectoryError("the index is damaged: restore it, or index again")

    monkeypatch.setattr("scanonce.search.engine.SearchEngine.search", fail)
    app = open_page("search", q="red")
    assert "the index is damaged" in app.error[0].value
    assert "Traceback" not in app.error[0].value


def test_without_an_index_the_page_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANONCE_UI_INDEX", str(tmp_path / "none"))
    app = open_page("search")
    assert "no index yet" in app.markdown[0].value
    assert app.code[0].value.startswith("scanonce index FOLDER --index ")


def test_only_shown_moments_can_be_picked() -> None:
    moment = finding.search("red", None, 100, finding.index_stamp()).moments[0]
    shown = exports_bar.shown_picks([moment], "red")
    (key,) = shown
    exports_bar.take_picks(shown, Picks(1, (key, "999-0-1")))
    assert list(exports_bar.picked()) == [key]
