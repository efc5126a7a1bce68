"""The page of a moment, run without a browser over a tiny library."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from scanonce.search.engine import SearchEngine
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.facts import facts_of
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line, Moment, Recording, Span
from scanonce.ui.export_files import export_content, export_name, pick_of
from scanonce.ui.export_kinds import FORMATS
from scanonce.ui.pages import finding
from scanonce.ui.pages.addresses import moment_key
from scanonce.ui.pages.components import cut_of
from scanonce.ui.pages.grid import moment_card
from tests.ui_library import NASTY, build_library, open_page, shown_index


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("moment-page"))


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


@pytest.fixture
def ids(pages: None) -> dict[str, int]:
    videos = finding.searchable_library(finding.index_stamp()).videos
    return {video.path.name: video_id for video_id, video in videos.items()}


def component(app: AppTest, key: str) -> dict[str, Any]:
    """Return the data sent to a component."""
    (found,) = [each for each in app.get("bidi_component") if each.key == key]
    data: dict[str, Any] = json.loads(found.proto.json)
    return data


def test_the_player_opens_on_the_moment_with_the_curve_of_the_query(ids: dict[str, int]) -> None:
    number = ids["two-reds.mp4"]
    app = open_page("moment", v=str(number), a="8", b="14", q="red")
    sent = component(app, "player")
    assert (sent["start"], sent["end"]) == (8.0, 14.0)
    assert sent["source"]["url"].endswith(f"/videos/{number}")
    assert sent["source"]["state_url"] is None
    assert sent["line"] is None  # this encoder was never calibrated
    assert sent["caption"].endswith("not calibrated: no line of a good match")
    # 33 s: red from 8 to 14 and from 24 on
    per_second = len(sent["levels"]) / 33
    inside = min(sent["levels"][int(9 * per_second) : int(13 * per_second)])
    assert inside > max(sent["levels"][: int(7 * per_second)])
    starts = [moment["start"] for moment in sent["moments"]]
    assert starts == sorted(starts)
    assert len(starts) == 2
    assert [button.proto.label for button in app.get("download_button")] == list(FORMATS)
    assert app.code[0].value.endswith("/films/two-reds.mp4")


def test_the_curve_of_a_calibrated_encoder_has_the_line_of_a_good_match(
    ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SearchEngine, "is_calibrated", True)
    sent = component(
        open_page("moment", v=str(ids["two-reds.mp4"]), a="8", b="14", q="red"), "player"
    )
    assert sent["line"] == 84
    assert sent["caption"] == "probability of “red”"


def test_a_new_query_searches_this_video_and_opens_its_best_moment(
    ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    search = SearchEngine.search

    def spy(self: SearchEngine, text: str, **more: Any) -> Any:
        asked.append(more["within"])
        return search(self, text, **more)

    monkeypatch.setattr(SearchEngine, "search", spy)
    number = ids["two-reds.mp4"]
    app = open_page("moment", v=str(number), a="8", b="14", q="red")
    before = component(app, "player")["opening"]
    app.text_input[0].set_value("white").run()
    assert not app.exception
    assert asked == [[number], [number]]
    sent = component(app, "player")
    assert sent["opening"] == before + 1
    assert (sent["start"], sent["end"]) == pytest.approx((14.0, 24.0), abs=1.0)
    assert app.query_params["q"] == "white"
    assert float(str(app.query_params["a"])) == pytest.approx(sent["start"], abs=0.001)
    app.toggle[0].set_value(True).run()
    assert asked[2:] == [None]
    assert component(app, "wider")["cards"]


def test_a_new_moment_in_the_address_is_a_new_opening(ids: dict[str, int]) -> None:
    app = open_page("moment", v=str(ids["two-reds.mp4"]), a="8", b="14")
    before = component(app, "player")["opening"]
    app.query_params["a"] = "9"
    app.run()
    assert component(app, "player")["opening"] == before + 1


@pytest.mark.parametrize("video", ["999", "-1", "1.5", "../../etc/passwd", "", "9" * 40, "٣"])
def test_an_unknown_or_forged_video_is_a_plain_message(video: str) -> None:
    app = open_page("moment", v=video, a="1", b="2")
    assert "no such video" in app.markdown[0].value
    assert [each.key for each in app.get("bidi_component")] == ["keys"]


@pytest.mark.parametrize(
    ("start", "end"), [("nan", "3"), ("5", "2"), ("-1", "2"), ("x", ""), ("1e9", "2e9")]
)
def test_a_forged_span_opens_the_beginning(ids: dict[str, int], start: str, end: str) -> None:
    sent = component(open_page("moment", v=str(ids["two-reds.mp4"]), a=start, b=end), "player")
    assert (sent["start"], sent["end"]) == (0.0, 10.0)


def test_a_name_that_is_markup_is_shown_as_text(ids: dict[str, int]) -> None:
    app = open_page("moment", v=str(ids[NASTY]), a="1", b="2")
    shown = app.markdown[0].value
    assert "<img" not in shown.replace("\\<img", "")
    assert "\\*\\*b\\*\\*" in shown


# ---------------------------------------------------------------- without a page


def test_a_cut_is_taken_only_from_the_player_of_this_moment() -> None:
    cut = {"opening": 3, "start": 1.0, "end": 2.5}
    assert cut_of(cut, 3, 10.0) == Span(1.0, 2.5)
    assert cut_of(cut, 4, 10.0) is None
    for wrong in (None, "x", {**cut, "start": 3}, {**cut, "end": 11}, {**cut, "start": "1"}):
        assert cut_of(wrong, 3, 10.0) is None


def test_cards_carry_addresses_and_words(ids: dict[str, int]) -> None:
    video = finding.searchable_library(finding.index_stamp()).videos[ids[NASTY]]
    moment = Moment(video.video_id, video.path, Span(1.5, 4.5), 0.25, 0.62)
    card = moment_card(moment, "a & b")
    assert card["key"] == moment_key(moment) == f"{video.video_id}-1500-4500"
    assert card["href"] == f"moment?v={video.video_id}&a=1.500&b=4.500&q=a+%26+b"
    assert (card["word"], card["match"], card["span"]) == (
        *("fair", "fair 62 %"),
        "0:00:01.5 - 0:00:04.5",
    )
    assert card["at"] == "0:00:01  3.0 s"
    assert card["where"] == "more"
    recording = Recording(datetime.fromisoformat("2024-05-01T10:00:00+02:00"), "camera")
    dated = moment_card(moment, "", recording=recording)
    assert dated["where"] == "more \u00b7 2024-05-01 10:00:01"
    assert card["picture"]["src"].endswith(f"/{video.video_id}/3000.jpg")
    assert card["frames"] == f"/media/moments/{video.video_id}/1500-4500.json"
    assert moment_card(moment, "", alike=True)["match"] == "62 % alike"


def test_a_cut_is_exported_with_the_probability_of_the_moment_found_there(
    ids: dict[str, int],
) -> None:
    video = finding.searchable_library(finding.index_stamp()).videos[ids[NASTY]]
    moment = Moment(video.video_id, video.path, Span(1.5, 4.5), 0.25, 0.62)
    assert pick_of(video, Span(1, 2), "red", moment).probability == 0.62
    assert pick_of(video, Span(1, 2), "moment").probability is None


@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_gives_a_file(ids: dict[str, int], kind: Any) -> None:
    videos = finding.searchable_library(finding.index_stamp()).videos
    picks = [pick_of(videos[ids[name]], Span(1.0, 2.0), "red") for name in ids]
    assert export_content(kind, picks[:1])
    assert export_content(kind, picks)
    name = "cut markers.edl" if kind == "MARKERS" else f"cut.{kind.lower()}"
    assert export_name(kind, picks[:1], "cut") == name
    several = "cut srt.zip" if kind == "SRT" else name
    assert export_name(kind, picks, "cut") == several


def test_the_page_shows_what_the_file_states_about_its_recording(
    layout: IndexLayout, ids: dict[str, int]
) -> None:
    number = ids["two-reds.mp4"]
    stated = {"timecode": "10:00:00;00", "camera": "<b>ACME</b> *X1*", "place": [48.5, 2.25]}
    with Catalog.open(layout.catalog) as catalog:
        catalog.record_facts({number: facts_of(stated)})
    app = open_page("moment", v=str(number))
    (panel,) = [each for each in app.expander if each.label == "Recording"]
    shown = panel.markdown[0].value
    for part in ("nothing says when it was recorded", "10:00:00;00", "48.50000, 2.25000"):
        assert part in shown.replace("\\", "")
    assert "<b>" not in shown
    assert "*X1*" not in shown


# ---------------------------------------------------------------- what is said


def test_the_lines_are_beside_the_player_and_the_cut_may_be_widened_to_sentences(
    layout: IndexLayout, ids: dict[str, int]
) -> None:
    number = ids["two-reds.mp4"]
    page = open_page("moment", v=str(number), a="8", b="14")
    assert component(page, "player")["sentences"] is None
    assert "transcript" not in [each.key for each in page.get("bidi_component")]
    said = [Line(number, "said", 7.0, 9.0, "We met on"), Line(number, "said", 9.0, 15.0, "<b>.")]
    written = [Line(number, "written", 2.0, 30.0, "a title")]
    with Catalog.open(layout.catalog) as catalog:
        catalog.lines.put(number, "written", written, source="test")
        catalog.lines.put(number, "said", said, source="test")
    try:
        page = open_page("moment", v=str(number), a="8", b="14")
        sent = component(page, "transcript")
        assert [each["name"] for each in sent["tracks"]] == ["said", "written"]
        assert sent["tracks"][0]["lines"][1] == [9.0, 15.0, "<b>."]
        assert component(page, "player")["sentences"] == {
            "of": [8.0, 14.0],
            "start": 7.0,
            "end": 15.0,
        }
    finally:
        with Catalog.open(layout.catalog) as catalog:
            for track in ("said", "written"):
                catalog.lines.remove(track)
