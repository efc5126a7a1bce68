"""Edit lists have the right timecodes, and no name or label can break a format."""

import csv
import doctest
import io
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.storage.records import Span
from scanonce.ui import export
from scanonce.ui.export import Pick, to_csv, to_edl, to_otio, to_srt
from scanonce.ui.timecode import FrameRate, frame_rate

RATES = {
    23.976: (Fraction(24000, 1001), 24, False),
    23.98: (Fraction(24000, 1001), 24, False),
    24.0: (Fraction(24), 24, False),
    25.0: (Fraction(25), 25, False),
    29.97: (Fraction(30000, 1001), 30, True),
    30000 / 1001: (Fraction(30000, 1001), 30, True),
    30.0: (Fraction(30), 30, False),
    50.0: (Fraction(50), 50, False),
    59.94: (Fraction(60000, 1001), 60, True),
    60.0: (Fraction(60), 60, False),
    119.88: (Fraction(60000, 1001), 60, True),
    120.0: (Fraction(60), 60, False),
    47.95: (Fraction(48000, 1001), 48, False),
    100.0: (Fraction(50), 50, False),
    240.0: (Fraction(60), 60, False),
    # rates that are no standard: cameras, phones, slides
    12.5: (Fraction(25), 25, False),
    6.25: (Fraction(25), 25, False),
    7.5: (Fraction(30), 30, False),
    10.0: (Fraction(30), 30, False),
    15.0: (Fraction(30), 30, False),
    20.0: (Fraction(60), 60, False),
    1.5: (Fraction(24), 24, False),
    29.501: (Fraction(30000, 1001), 30, True),
    179 / 6: (Fraction(30000, 1001), 30, True),
    58.7: (Fraction(60000, 1001), 60, True),
    61.0: (Fraction(60), 60, False),
    0.0: (Fraction(25), 25, False),
    float("nan"): (Fraction(25), 25, False),
}


def _pick(path: str = "/v/a.mp4", start: float = 0.0, end: float = 1.0, **values: Any) -> Pick:
    given = {"fps": 25.0, "label": "a car", "probability": 0.874, "score": 0.5, **values}
    span, label = Span(start, end), given["label"]
    known = given["probability"], given["score"]
    return Pick(Path(path), given["fps"], 3600.0, 640, 360, span, label, *known)


texts = st.text(max_size=40)
# the only surrogates in a file name stand for bytes that are not UTF-8
in_names = st.characters(exclude_categories=["Cs"], exclude_characters="/\0") | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF
)
names = st.text(in_names, min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@st.composite
def picks(draw: st.DrawFn) -> Pick:
    start = draw(st.floats(0, 80_000))
    return Pick(
        path=Path("/videos") / draw(names),
        fps=draw(st.sampled_from(sorted(rate for rate in RATES if rate == rate))),
        duration_seconds=draw(st.floats(0, 90_000)),
        width=640,
        height=360,
        span=Span(start, start + draw(st.floats(0, 100))),
        label=draw(texts),
        probability=draw(st.none() | st.floats(0.0001, 0.9999)),
        score=draw(st.none() | st.floats(-1, 1)),
    )


def test_the_example_of_the_module_holds() -> None:
    assert doctest.testmod(export).failed == 0


# ---------------------------------------------------------------- timecodes


@pytest.mark.parametrize(("measured", "expected"), RATES.items())
def test_a_measured_rate_becomes_the_standard_one(
    measured: float, expected: tuple[Fraction, int, bool]
) -> None:
    rate = frame_rate(measured)
    assert (rate.fps, rate.timebase, rate.drop) == expected


@pytest.mark.parametrize(
    ("rate", "frame", "expected"),
    [
        (24.0, 86_399, "00:59:59:23"),
        (23.976, 86_400, "01:00:00:00"),
        (25.0, 90_000, "01:00:00:00"),
        (30.0, 1_799, "00:00:59:29"),
        (50.0, 49, "00:00:00:49"),
        (60.0, 3_600, "00:01:00:00"),
        (25.0, 24 * 90_000, "00:00:00:00"),
        # published values: no ;00 and ;01 at minutes that are no multiple of ten
        (29.97, 1_799, "00:00:59;29"),
        (29.97, 1_800, "00:01:00;02"),
        (29.97, 3_597, "00:01:59;29"),
        (29.97, 3_598, "00:02:00;02"),
        (29.97, 17_981, "00:09:59;29"),
        (29.97, 17_982, "00:10:00;00"),
        (29.97, 17_983, "00:10:00;01"),
        (29.97, 107_892, "01:00:00;00"),
        (59.94, 3_599, "00:00:59;59"),
        (59.94, 3_600, "00:01:00;04"),
        (59.94, 35_964, "00:10:00;00"),
        (59.94, 215_784, "01:00:00;00"),
    ],
)
def test_known_timecodes(rate: float, frame: int, expected: str) -> None:
    assert frame_rate(rate).timecode(frame) == expected


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("drop", [False, True])
@given(frame=st.integers(0, 5_000_000))
def test_timecodes_agree_with_opentimelineio(fps: float, drop: bool, frame: int) -> None:
    rate = frame_rate(fps, drop=drop)
    # theirs starts 29.97 without drop frame again 86 s before the day is over
    frame %= rate.first_frame_of_hour(24 if rate.drop else 23)
    time = otio.opentime.RationalTime(frame, float(rate.fps))
    theirs = otio.opentime.to_timecode(time, float(rate.fps), rate.drop)
    assert rate.timecode(frame) == theirs


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("hour", [0, 1, 10, 23])
def test_a_whole_hour_begins_at_its_timecode(fps: float, hour: int) -> None:
    rate = frame_rate(fps)
    assert rate.timecode(rate.first_frame_of_hour(hour)).replace(";", ":") == f"{hour:02}:00:00:00"


@given(st.sampled_from([23.976, 24, 25, 29.97, 30, 50, 59.94, 60]), st.integers(0, 10_000_000))
def test_the_time_of_a_frame_finds_that_frame(fps: float, frame: int) -> None:
    rate = frame_rate(fps)
    assert rate.frames(float(frame / rate.fps)) == frame


def test_drop_frame_drifts_from_the_clock_by_less_than_a_tenth_of_a_second_in_a_day() -> None:
    rate = frame_rate(29.97)
    assert rate.timecode(rate.frames(23 * 3600.0)) == "23:00:00;02"


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60])
@pytest.mark.parametrize("drop", [False, True])
def test_a_day_of_timecode_ends_with_its_last_frame(fps: float, drop: bool) -> None:
    rate = frame_rate(fps, drop=drop)
    last = rate.timecode(rate.first_frame_of_hour(24) - 1).replace(";", ":")
    assert last == f"23:59:59:{rate.timebase - 1:02}"
    assert rate.timecode(rate.first_frame_of_hour(24)).replace(";", ":") == "00:00:00:00"


def test_drop_frame_is_refused_for_other_rates() -> None:
    with pytest.raises(ValueError, match=r"29\.97"):
        FrameRate(Fraction(25), 25, drop=True)


# ---------------------------------------------------------------- EDL


def _events(edl: str) -> list[list[str]]:
    return [line.split() for line in edl.splitlines() if re.match(r"\d{3}  ", line)]


def test_an_edit_list_of_several_videos() -> None:
    edl = to_edl(
        [
            _pick("/v/night drive.mp4", 2.0, 4.0),
            _pick("/w/night drive.mp4", 10.04, 11.0),
            _pick("/v/night drive.mp4", 30.0, 30.5),
        ]
    )
    assert "FCM: NON-DROP FRAME" in edl
    assert _events(edl) == [
        [
            "001",
            "NIGHTDRI",
            *["V", "C", "00:00:02:00", "00:00:04:00", "01:00:00:00", "01:00:02:00"],
        ],
        [
            "002",
            "NIGHTDR2",
            *["V", "C", "00:00:10:01", "00:00:11:00", "01:00:02:00", "01:00:02:24"],
        ],
        [
            "003",
            "NIGHTDRI",
            *["V", "C", "00:00:30:00", "00:00:30:12", "01:00:02:24", "01:00:03:11"],
        ],
    ]


def test_an_edit_list_at_29_97_drops_frames_and_says_so() -> None:
    fps = 30000 / 1001
    pick = _pick(start=1800 / fps, end=1860 / fps, fps=fps)
    edl = to_edl([pick])
    assert "FCM: DROP FRAME" in edl
    assert _events(edl)[0][4:] == ["00:01:00;02", "00:01:02;02", "01:00:00;00", "01:00:02;00"]
    edl = to_edl([pick], rate=frame_rate(fps, drop=False))
    assert "FCM: NON-DROP FRAME" in edl
    assert _events(edl)[0][4:] == ["00:01:00:00", "00:01:02:00", "01:00:00:00", "01:00:02:00"]


@pytest.mark.parametrize("fps", [1.5, 7.5, 12.5, 29.501, 29.83, 58.7])
def test_timecode_is_the_clock_at_rates_that_are_no_standard(fps: float) -> None:
    hour = _pick(start=3600.0, end=3605.0, fps=fps)
    rate = frame_rate(fps)
    codes = [code.replace(";", ":") for code in _events(to_edl([hour]))[0][4:6]]
    for code, seconds in zip(codes, (3600.0, 3605.0), strict=True):
        hours, minutes, whole, frames = map(int, code.split(":"))
        clock = hours * 3600 + minutes * 60 + whole + frames / rate.timebase
        assert clock == pytest.approx(seconds, abs=0.1)
    clip = otio.adapters.read_from_string(to_otio([hour]), "otio_json").tracks[0][0]
    assert clip.source_range.start_time.to_seconds() == pytest.approx(3600.0, abs=0.03)
    assert clip.source_range.start_time.to_timecode()


def test_moments_that_timecode_cannot_say_are_left_out_with_a_comment() -> None:
    day = 24 * 3600.0
    many = [
        _pick("/v/a.mp4", 5.0, 6.0),
        _pick("/v/long.mp4", day - 1, day + 1),
        _pick("/v/b.mp4", 0.0, 23.5 * 3600),
        _pick("/v/c.mp4", 7.0, 8.0),
    ]
    edl = to_edl(many)
    assert [event[1] for event in _events(edl)] == ["A", "C"]
    left_out = [line for line in edl.splitlines() if "left out" in line]
    assert [name for line in left_out for name in ("long.mp4", "b.mp4") if name in line] == [
        "long.mp4",
        "b.mp4",
    ]
    assert "23:59:59.000 - 24:00:01.000" in left_out[0]


def test_times_count_from_the_start_of_the_file() -> None:
    pick = replace(_pick(start=2.0, end=4.0), offset_seconds=10.0)
    row = next(csv.DictReader(io.StringIO(to_csv([pick]))))
    assert (row["start"], row["end_seconds"]) == ("00:00:12.000", "14.000")
    assert "00:00:12,000 --> 00:00:14,000" in to_srt([pick])[pick.path]
    assert _events(to_edl([pick]))[0][4:6] == ["00:00:12:00", "00:00:14:00"]
    clip = otio.adapters.read_from_string(to_otio([pick]), "otio_json").tracks[0][0]
    assert clip.source_range.start_time.to_seconds() == 12.0
    assert clip.media_reference.available_range.duration.to_seconds() == 3610.0


@given(st.lists(picks(), max_size=8))
def test_an_edit_list_is_valid_for_any_names(many: list[Pick]) -> None:
    edl = to_edl(many)
    edl.encode("utf-8")
    events = _events(edl)
    assert [event[0] for event in events] == [f"{n:03}" for n in range(1, len(many) + 1)]
    assert all(len(event) == 8 and re.fullmatch("[A-Z0-9]{1,8}", event[1]) for event in events)
    assert [event[6] for event in events[1:]] == [event[7] for event in events[:-1]]
    reels = {(event[1], pick.path) for event, pick in zip(events, many, strict=True)}
    assert len(reels) == len({pick.path for pick in many}) == len({reel for reel, _ in reels})
    for line in edl.splitlines():
        assert re.match(r"(TITLE: |FCM: |\d{3}  |\* [A-Z ]+: |$)", line), line


# ---------------------------------------------------------------- CSV


@given(st.lists(picks(), max_size=8))
def test_a_table_has_no_formulas_and_all_values(many: list[Pick]) -> None:
    text = to_csv(many)
    text.encode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(many)
    for row, pick in zip(rows, many, strict=True):
        for name in ("file", "label", "path"):
            assert not row[name].lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert row["label"].replace("'", "") == pick.label.replace("\0", " ").replace("'", "")
        for name, value in (("probability", pick.probability), ("score", pick.score)):
            if value is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(value, abs=1e-4)
        assert float(row["start_seconds"]) == pytest.approx(pick.span.start_seconds, abs=1e-3)


@pytest.mark.parametrize(
    "label",
    [
        "=1+1",
        "+1",
        "-1",
        "@x",
        " =1",
        "＝1",
        "﹦1",
        "−1",
        "\u00a0=1",
        "\u200b=1",
        "\ufeff\u2060 =1",
        '"=1',
    ],
)
def test_a_formula_becomes_text(label: str) -> None:
    row = next(csv.DictReader(io.StringIO(to_csv([_pick(label=label)]), newline="")))
    assert row["label"] == f"'{label}"


def _split_carelessly(line: str, separator: str) -> list[str]:
    """Split as a reader of another locale does: a quote inside a cell means nothing, one around it goes."""
    return [cell.strip('" \u00a0\u200b\ufeff') for cell in line.split(separator)]


@pytest.mark.parametrize(
    "start", ["=1", "+1", "-1", "@x", " =1", "＝1", "\u00a0=1", '"=1', '""=1', "\u200b@x"]
)
@pytest.mark.parametrize("separator", [*",;|\t\r\n\v\f\u0085\u2028\u2029؛،；", "\r\n", ";;", ", ;"])
def test_no_part_of_a_cell_is_a_formula_in_any_locale(separator: str, start: str) -> None:
    """Half of the world splits tables at semicolons."""
    dangerous = ("=", "+", "-", "@", "＝")
    pick = _pick(f"/v/a{separator}{start}.mp4", label=f"a car{separator}{start}")
    for line in re.split("[\r\n\v\f\x85\u2028\u2029]", to_csv([pick])):
        for split_at in [*separator.replace(" ", ""), "\t"]:
            for cell in _split_carelessly(line, split_at):
                assert not cell.startswith(dangerous), cell


@pytest.mark.parametrize(
    "label", ["a red car; a dog", "50 %, rising", "x-y", "a=b", "mail@home", "tea, 5 pm"]
)
def test_an_ordinary_label_stays_as_it_is(label: str) -> None:
    row = next(csv.DictReader(io.StringIO(to_csv([_pick(label=label)]), newline="")))
    assert row["label"] == label


def test_a_table_has_the_times_for_people_and_for_programs() -> None:
    row = next(csv.DictReader(io.StringIO(to_csv([_pick("/v/a.mp4", 3661.5, 3662.25)]))))
    assert (row["file"], row["path"]) == ("a.mp4", "/v/a.mp4")
    assert (row["start"], row["end"]) == ("01:01:01.500", "01:01:02.250")
    assert (row["start_seconds"], row["duration_seconds"]) == ("3661.500", "0.750")


# ---------------------------------------------------------------- SRT


def test_subtitles_are_one_text_a_video_sorted_by_time() -> None:
    texts = to_srt([_pick("/a.mp4", 5, 6), _pick("/b.mp4", 1, 2), _pick("/a.mp4", 1, 2.5)])
    assert list(texts) == [Path("/a.mp4"), Path("/b.mp4")]
    assert texts[Path("/a.mp4")] == (
        "1\n00:00:01,000 --> 00:00:02,500\na car (87 %)\n\n"
        "2\n00:00:05,000 --> 00:00:06,000\na car (87 %)\n"
    )


@given(st.lists(picks(), max_size=8))
def test_subtitles_cannot_be_broken_by_a_label(many: list[Pick]) -> None:
    texts = to_srt(many)
    assert sum(text.count(" --> ") for text in texts.values()) == len(many)
    for text in texts.values():
        text.encode("utf-8")
        for number, block in enumerate(text.rstrip("\n").split("\n\n"), 1):
            first, times, caption = block.split("\n")
            assert first == str(number)
            start, end = times.split(" --> ")
            assert start < end
            assert not set(caption) & set("<>{}")


# ---------------------------------------------------------------- OTIO


@given(st.lists(picks(), max_size=5))
def test_a_timeline_comes_back_as_it_was_written(many: list[Pick]) -> None:
    timeline = otio.adapters.read_from_string(to_otio(many), "otio_json")
    clips = list(timeline.find_clips())
    assert len(clips) == len(many)
    for clip, pick in zip(clips, many, strict=True):
        fps = float(frame_rate(pick.fps).fps)
        assert clip.media_reference.target_url == pick.path.as_uri()
        assert clip.source_range.start_time.rate == pytest.approx(fps)
        start = clip.source_range.start_time.to_seconds()
        assert start == pytest.approx(pick.span.start_seconds, abs=0.51 / fps)
        end = clip.source_range.end_time_exclusive()
        assert end.to_seconds() == pytest.approx(pick.span.end_seconds, abs=1.51 / fps)
        assert end <= clip.available_range().end_time_exclusive()
        (marker,) = clip.markers
        assert marker.marked_range == clip.source_range
        facts = marker.metadata["scanonce"]
        for name, value in (("probability", pick.probability), ("score", pick.score)):
            assert facts.get(name) == (None if value is None else pytest.approx(value))


def test_a_timeline_names_clips_and_markers() -> None:
    timeline = otio.adapters.read_from_string(
        to_otio([_pick("/v/caf\u00e9 1.mp4", 2, 4)], title="Cars"), "otio_json"
    )
    assert timeline.name == "Cars"
    (clip,) = timeline.find_clips()
    assert (clip.name, clip.markers[0].name) == ("café 1.mp4", "a car")
    assert clip.media_reference.target_url == "file:///v/caf%C3%A9%201.mp4"
    assert clip.source_range.duration.value == 50


def test_people_read_a_word_and_a_percentage_and_no_score() -> None:
    pick = _pick(probability=0.62, score=0.31)
    assert "* COMMENT: fair match, 62 %" in to_edl([pick])
    (subtitles,) = to_srt([pick]).values()
    assert subtitles.endswith("a car (62 %)\n")
    row = next(csv.DictReader(io.StringIO(to_csv([pick]))))
    assert (row["probability"], row["score"]) == ("0.6200", "0.3100")


def test_a_span_that_no_query_found_has_no_probability() -> None:
    pick = _pick(probability=None, score=None)
    assert "COMMENT" not in to_edl([pick])
    (subtitles,) = to_srt([pick]).values()
    assert subtitles.endswith("a car\n")
    assert "probability" not in to_otio([pick])


def test_no_picks_are_no_error() -> None:
    assert to_csv([]).count("\r\n") == 1
    assert to_srt([]) == {}
    assert "FCM" in to_edl([])
    assert list(otio.adapters.read_from_string(to_otio([]), "otio_json").find_clips()) == []


def test_names_of_any_bytes_can_be_exported() -> None:
    pick = _pick("/v/\udcff\udc80.mp4")
    for text in (to_csv([pick]), to_edl([pick]), to_otio([pick])):
        text.encode("utf-8")
