"""The search page, run without a browser over a tiny library."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from scanonce.search.engine import SearchEngine
from scanonce.search.filters import Filter
from scanonce.search.result import SearchResult
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span, Video
from scanonce.storage.selects import Select
from scanonce.ui.export_files import picks_of
from scanonce.ui.export_kinds import FORMATS
from scanonce.ui.pages import finding, picking, tray
from scanonce.ui.pages.addresses import moment_key
from scanonce.ui.pages.grid import take_picks
from scanonce.ui.pages.session import shared
from scanonce.ui.pages.start import newest
from scanonce.ui.views import match_text
from tests.colours import ColourEncoder
from tests.ui_library import NASTY, build_library, empty_index, open_page, shown_index, texts


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("search-page"))


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


def grid(app: AppTest) -> dict[str, Any]:
    """Return the data sent to the grid."""
    return sent(app, "grid")


def sent(app: AppTest, key: str) -> dict[str, Any]:
    (component,) = [each for each in app.get("bidi_component") if each.key == key]
    data: dict[str, Any] = json.loads(component.proto.json)
    return data


def names(app: AppTest) -> list[str]:
    return [card["name"] for card in grid(app)["cards"]]


def pictures(app: AppTest, key: str) -> list[dict[str, Any]]:
    """Return the pictures of a row of the start page."""
    (component,) = [each for each in app.get("bidi_component") if each.key == key]
    items: list[dict[str, Any]] = json.loads(component.proto.json)["items"]
    return items


def test_the_start_page_suggests_queries_with_a_good_match_and_has_the_size_of_the_library() -> (
    None
):
    app = open_page("search")
    assert "4 videos, 3 min" in app.caption[0].value
    suggested = [button.label for button in app.button]
    assert tuple(suggested) == shared().engine.suggestions(3)
    assert len(suggested) == 3
    assert any("scanonce tracks add said" in text for text in texts(app))
    app.button[0].click().run()
    assert app.text_input[0].value == suggested[0]
    assert app.query_params["q"] == suggested[0]
    assert grid(app)["cards"][0]["word"] != "weak"


def test_the_start_page_shows_the_newest_videos_with_stored_thumbnails() -> None:
    shown = pictures(open_page("search"), "newest-videos")
    videos = finding.searchable_library(finding.index_stamp()).videos
    assert [int(each["key"]) for each in shown] == [
        each.video_id for each in newest(videos.values())
    ]
    assert NASTY in [each["title"] for each in shown]
    assert all(each["href"].startswith(f"moment?v={each['key']}&") for each in shown)
    assert all(each["src"].startswith(f"/media/thumbs/{each['key']}/") for each in shown)


def test_the_newest_videos_are_few_and_the_last_ones_come_first() -> None:
    first = datetime(2026, 11, 21, tzinfo=UTC)
    videos = [
        Video(k, "a" * 32, "indexed", 9.0, 1, (Path("a.mp4"),), added_at=first + timedelta(days=k))
        for k in range(9)
    ]
    undated = Video(99, "a" * 32, "indexed", 9.0, 1, (Path("a.mp4"),))
    assert [each.video_id for each in newest([undated, *videos])] == [8, 7, 6, 5, 4, 3]
    assert newest([undated]) == [undated]


def test_the_last_searches_are_shown_newest_first_by_their_first_moment() -> None:
    app = open_page("search", q="green")
    for query in ("white", "green", ""):
        app.text_input[0].set_value(query).run()
    first, second = pictures(app, "last-searches")
    assert (first["title"], second["title"]) == ("green", "white")
    assert first["href"] == "?q=green"
    found = finding.search("green", Filter(), finding.FIRST, finding.index_stamp()).moments[0]
    assert first["src"].startswith(f"/media/thumbs/{found.video_id}/")
    assert first["note"] == match_text(found.probability)


def test_few_searches_are_remembered_and_none_of_a_forgotten_video() -> None:
    here, moment = shared(), finding.search("green", None, 5, finding.index_stamp()).moments[0]
    for number in range(9):
        here.show_again(SearchResult(f"query {number}", (moment,)))
    here.show_again(SearchResult("nothing", ()))
    assert [query for query, _ in here.last_searches()] == [f"query {k}" for k in range(8, 2, -1)]
    here.show_again(SearchResult("forgotten", (replace(moment, video_id=999),)))
    titles = [each["title"] for each in pictures(open_page("search"), "last-searches")]
    assert titles == [f"query {k}" for k in range(8, 3, -1)]


def test_the_start_page_of_an_empty_library_suggests_nothing_and_names_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = empty_index(tmp_path / "empty", "colours", fingerprint=ColourEncoder.fingerprint)
    Catalog.open(empty.catalog).close()
    monkeypatch.setenv("SCANONCE_UI_INDEX", str(empty.root))
    for address in ({}, {"q": "red"}):
        app = open_page("search", **address)
        assert "index is empty" in app.markdown[0].value
        assert app.code[0].value == f"scanonce index FOLDER --index {empty.root}"
        assert not app.button


def test_a_query_in_the_address_is_searched_and_its_moments_are_shown() -> None:
    app = open_page("search", q="red")
    assert app.text_input[0].value == "red"
    first, second = grid(app)["cards"][:2]
    assert first["name"] == second["name"] == "two-reds.mp4"
    assert first["word"] in ("strong", "fair")
    assert first["href"].startswith("moment?v=")
    assert "q=red" in first["href"]
    assert first["picture"]["alt"].startswith("two-reds.mp4 at 0:00:")
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


def test_good_matches_and_others_are_one_list_with_a_divider() -> None:
    app = open_page("search", q="white")
    assert app.markdown[0].value == "**3 good matches**"
    sent = grid(app)
    words = [card["word"] for card in sent["cards"]]
    assert words == ["strong"] * 3 + ["weak"] * 3
    assert sent["divider"] == 3
    assert sent["cards"][0]["match"] == "strong 99 %"


def test_without_a_good_match_the_nearest_are_shown_and_the_rest_is_one_click_away() -> None:
    app = open_page("search", q="quarterly tax form")
    assert app.markdown[0].value == "**No good match. The nearest:**"
    assert [card["word"] for card in grid(app)["cards"]] == ["weak"] * 4
    assert grid(app)["divider"] is None
    more = app.button(key="unfold")
    found = finding.search("quarterly tax form", Filter(), finding.FIRST, finding.index_stamp())
    assert more.label == f"Show {len(found.moments) - 4} more"
    more.click().run()
    assert len(grid(app)["cards"]) == len(found.moments) > 4
    assert "unfold" not in [button.key for button in app.button]
    app.text_input[0].set_value("annual tax form").run()
    assert len(grid(app)["cards"]) == 4, "another query is folded again"


def test_the_coverage_is_told_once_all_moments_asked_for_are_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert open_page("search", q="white").markdown[0].value == "**3 good matches**"
    monkeypatch.setattr(finding, "FIRST", 2)
    monkeypatch.setattr(finding, "MOST", 2)
    app = open_page("search", q="white")
    assert app.markdown[0].value == "**At least 2 good matches** 3 of 4 videos match."
    asked = []
    monkeypatch.setattr(SearchEngine, "coverage", lambda *_, **__: asked.append(1))
    app.run()
    assert not asked, "it is kept"


def test_notes_are_under_the_heading() -> None:
    app = open_page("search", q="red without green")
    assert "“without” is not followed" in app.caption[1].value


def test_turning_pages_searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.ui.views.num_pages", lambda items, size: -(-items // 2))
    app = open_page("search", q="red")
    pages_shown = app.get("pagination")
    if pages_shown:
        app.session_state["page"] = 2
        app.run()
    assert not app.exception
    assert len(shared().timings) == 1


def test_picked_moments_are_in_the_tray_of_every_page(layout: IndexLayout) -> None:
    moment = finding.search("red", None, 100, finding.index_stamp()).moments[0]
    videos = finding.searchable_library(finding.index_stamp()).videos
    try:
        picking.take_pick(moment, True, "red", videos)  # as a click does
        (kept,) = tray.selects()
        assert (kept.span, kept.query, kept.probability) == (
            *(moment.span, "red"),
            moment.probability,
        )
        assert grid(open_page("search", q="red"))["picks"] == [kept.key]
        for name in ("library", "status", "saved", "duplicates"):
            app = open_page(name)
            (row,) = sent(app, "tray")["selects"]
            assert row["name"] == "two-reds.mp4"
            labels = [button.proto.label for button in app.get("download_button")]
            assert labels[-len(FORMATS) :] == list(FORMATS)
            (rate,) = [each for each in app.selectbox if each.key == "timeline-rate"]
            assert rate.options[:2] == ["as the first moment", "23.976"]
            (link,) = app.get("link_button")
            assert link.proto.url == "/media/selects/clips.zip"
        picking.take_pick(moment, False, "red", videos)
        assert not tray.selects()
    finally:
        layout.selects.unlink(missing_ok=True)


def test_selects_of_forgotten_videos_stay_in_the_tray_and_are_not_exported() -> None:
    videos = finding.searchable_library(finding.index_stamp()).videos
    first = next(iter(videos.values()))
    kept = tuple(Select(number, Span(1.0, 2.5), "a", note="b") for number in (first.video_id, 999))
    there, gone = tray.tray_rows(kept, videos)
    assert there["href"]
    assert (there["in"], there["length"]) == ("0:00:01:00", "0:00:01.5")
    assert (gone["href"], gone["src"], gone["note"]) == ("", "", "b")
    (pick,) = picks_of(kept, videos)
    assert (pick.path, pick.label) == (first.path, "b")


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


def test_only_shown_moments_can_be_picked_and_each_click_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = finding.search("red", None, 100, finding.index_stamp()).moments[0]
    key, done = moment_key(moment), []

    def click(*acts: object) -> None:
        monkeypatch.setattr(st, "session_state", state)
        state["grid"] = SimpleNamespace(acts=list(acts))
        take_picks("grid", {key: moment}, lambda _, is_picked: done.append(is_picked))

    state: dict[str, Any] = {}
    click([1, {"key": key, "picked": True}], [2, {"key": "999-0-1", "picked": True}])
    click([1, {"key": key, "picked": True}], [3, {"key": key, "picked": False}], "x", [4])
    assert done == [True, False]
