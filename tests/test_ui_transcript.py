"""Transcripts: as files, as the data of the page, and their sentences."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line, Moment, Reason, Span, VideoInfo
from scanonce.ui.pages.components import sentences_around, transcript_data
from scanonce.ui.pages.grid import moment_card
from scanonce.ui.sentences import LONGEST_SECONDS, sentences, talk, widened
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.routes import Media
from scanonce.ui.subtitles import TRANSCRIPT_FORMATS, to_srt, to_txt, to_vtt
from scanonce.ui.track_text import coverage_lines

SCRIPT = "<script>alert(1)</script> {\\an8} a --> b & c"


def line(start: float, end: float, text: str = "words") -> Line:
    return Line(1, "said", start, end, text)


# ---------------------------------------------------------------- files


def test_nothing_in_a_line_is_a_tag_or_a_line_of_times() -> None:
    hostile = [line(0, 1, SCRIPT), line(1, 2, "one\n\n7\n00:00:01,000 --> 00:00:02,000\ntwo")]
    srt = to_srt(hostile)
    assert srt.count("-->") == 2
    assert not set("<{}") & set(srt.replace("-->", ""))
    assert srt.count("\n\n") == 1
    vtt = to_vtt(hostile)
    assert vtt.count("-->") == 2
    assert "&lt;script&gt;" in vtt
    assert "a --&gt; b &amp; c" in vtt
    assert len(to_txt(hostile).splitlines()) == 2


def test_lines_are_written_by_time_and_may_overlap() -> None:
    lines = [line(5, 9, "second"), line(1, 8, "first"), line(5, 6, "short")]
    assert to_srt(lines) == (
        "1\n00:00:01,000 --> 00:00:08,000\nfirst\n\n"
        "2\n00:00:05,000 --> 00:00:06,000\nshort\n\n"
        "3\n00:00:05,000 --> 00:00:09,000\nsecond\n"
    )
    assert to_txt(lines) == "00:00:01  first\n00:00:05  short\n00:00:05  second\n"


def test_a_line_without_length_is_shown_and_one_without_text_is_not() -> None:
    lines = [line(3, 3, "now"), line(4, 5, " \u200b".replace("\u200b", "\x00"))]
    assert to_vtt(lines) == "WEBVTT\n\n00:00:03.000 --> 00:00:03.500\nnow\n"
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"


def test_times_count_as_players_do() -> None:
    assert "01:00:01,500 --> 01:00:02,500" in to_srt([line(3600, 3601)], 1.5)
    assert "00:00:00,000 --> 00:00:00,500" in to_srt([line(1, 2)], -1.5)


# ---------------------------------------------------------------- sentences


def test_sentences_go_over_lines_and_end_within_them() -> None:
    said = [line(0, 4, "One. Part"), line(4, 6, "and three."), line(6, 7, "Four")]
    found = sentences(said)
    assert [each.start_seconds for each in found] == pytest.approx([0, 4 * 4 / 9, 6])
    assert [each.end_seconds for each in found] == pytest.approx([4 * 4 / 9, 6, 7])


def test_a_pause_and_a_great_length_end_a_sentence_without_a_full_stop() -> None:
    assert sentences([line(0, 1), line(3, 4)]) == [Span(0, 1), Span(3, 4)]
    endless = sentences([line(k, k + 1) for k in range(100)])
    assert max(each.duration_seconds for each in endless) <= LONGEST_SECONDS
    assert (endless[0].start_seconds, endless[-1].end_seconds) == (0, 100)


def test_a_cut_is_widened_to_the_sentences_that_it_touches() -> None:
    spans = [Span(0, 4), Span(4, 8), Span(10, 12)]
    assert widened(Span(5, 6), spans) == Span(4, 8)
    assert widened(Span(3, 5), spans) == Span(0, 8)
    assert widened(Span(4, 8.02), spans) == Span(4, 8.02)  # it ends between sentences as it is
    assert widened(Span(8.5, 9), spans) == Span(8.5, 9)  # nothing is said there
    assert widened(Span(9, 11), spans) == Span(9, 12)
    assert widened(Span(11.99, 12.0), spans) == Span(10, 12)
    assert widened(Span(1, 2), []) == Span(1, 2)
    assert sentences_around(Span(11, 11.4), spans, 11.5) == {
        "of": [11, 11.4],
        "start": 10,
        "end": 11.5,
    }


_TEXTS = st.lists(st.text("ab. ?", min_size=1, max_size=9), min_size=1, max_size=8)


@given(_TEXTS, st.floats(0, 20), st.floats(0.2, 20))
def test_widening_covers_the_cut_and_is_done_once(
    texts: list[str], start: float, length: float
) -> None:
    spans = sentences(line(2 * k, 2 * k + 2, text) for k, text in enumerate(texts))
    cut = Span(start, start + length)
    whole = widened(cut, spans)
    assert whole.start_seconds <= cut.start_seconds
    assert whole.end_seconds >= cut.end_seconds
    assert widened(whole, spans) == whole


def test_talk_is_speech_or_else_subtitles() -> None:
    said, subtitle = line(0, 1), Line(1, "subtitle", 0, 1, "words")
    written = Line(1, "written", 0, 1, "words")
    assert talk([subtitle, written, said]) == [said]
    assert talk([subtitle, written]) == [subtitle]
    assert talk([written]) == []


# ---------------------------------------------------------------- the page


def test_the_page_gets_lines_by_track_and_by_time() -> None:
    data = transcript_data(7, {"said": [line(2, 3, "b"), line(1, 2, "a\ud800")]})
    (track,) = data["tracks"]
    assert track["lines"] == [[1, 2, "a?"], [2, 3, "b"]]
    assert [each["href"] for each in track["downloads"]] == [
        f"/media/transcripts/7/said.{kind}" for kind in TRANSCRIPT_FORMATS
    ]
    assert data["version"] != transcript_data(7, {"said": [line(1, 2, "a")]})["version"]


def test_cards_say_what_found_the_moment() -> None:
    reasons = (
        Reason("said", 0.9, f"{SCRIPT} we met", ((len(SCRIPT) + 4, len(SCRIPT) + 7),)),
        Reason("seen", 0.714),
    )
    moment = Moment(1, Path("a.mp4"), Span(0, 1), 0.1, 0.9, reasons=reasons)
    said, seen = moment_card(moment, "met")["reasons"]
    assert said["pieces"][-1] == ["met", True]
    assert "".join(text for text, _ in said["pieces"]).endswith("a --> b & c we met")
    assert (seen["channel"], seen["value"], seen["pieces"]) == ("seen", "71 %", [])
    only_seen = Moment(1, Path("a.mp4"), Span(0, 1), 0.1, 0.9, reasons=reasons[1:])
    assert moment_card(only_seen, "")["reasons"] == []


def test_coverage_names_what_is_read_and_the_command_for_the_rest() -> None:
    facts = {"track": "facts", "videos": 4, "problems": 0, "lines": 4}
    said = {"track": "said", "videos": 4, "problems": 0, "lines": 10}
    assert coverage_lines([facts, said], 4) == [
        "said: 4 of 4 videos, 10 lines",
        "not read: subtitle, written. Next: scanonce tracks add subtitle,written",
    ]


# ---------------------------------------------------------------- the server


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    layout = IndexLayout(tmp_path)
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(tmp_path)
        video_id = catalog.record_indexed(
            Content("aa01", "aa01", 1),
            [FileStamp(tmp_path / 'a"b.mp4', 1, 0)],
            state="indexed",
            duration_seconds=3.0,
            num_frames=3,
            info=VideoInfo(3.0, 128, 96, 30.0, "h264", offset_seconds=1.0),
        )
        assert video_id == 1
        catalog.lines.put(video_id, "said", [line(1, 2, SCRIPT)], source="test")
    cache = ProxyCache(tmp_path / "cache")
    served = Media(layout, cache)
    with TestClient(Starlette(routes=served.routes())) as found:
        yield found
    cache.close()
    served.close()


def test_a_transcript_is_a_download(client: TestClient) -> None:
    for kind, write in TRANSCRIPT_FORMATS.items():
        answer = client.get(f"/media/transcripts/1/said.{kind}")
        assert answer.text == write([line(1, 2, SCRIPT)], 1.0)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert f'filename="a_b said.{kind}"' in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    "name", ["2/said.srt", "1/written.srt", "1/facts.srt", "1/said.exe", "x/said.srt", "1/../a.srt"]
)
def test_another_transcript_is_a_404(client: TestClient, name: str) -> None:
    assert client.get(f"/media/transcripts/{name}").status_code == 404
