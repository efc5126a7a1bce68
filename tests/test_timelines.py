"""Timelines for editing programs: rates, timecodes of sources, sound, and files that are read back."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import opentimelineio as otio  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.media.facts import read_facts
from scanonce.storage.facts import AudioTrack
from scanonce.storage.records import Span
from scanonce.storage.selects import SelectsFile
from scanonce.ui.export import Pick, to_edl, to_otio
from scanonce.ui.timecode import RATES, FrameRate, RateName, frame_rate, relabelled
from scanonce.ui.timelines import to_fcpxml, to_premiere, to_resolve_markers
from tests.command import scanonce
from tests.doors import Doors, open_doors
from tests.stated import write_stated

STEREO = (AudioTrack(2, "deu", "aac"),)
NAMES: tuple[RateName, ...] = get_args(RateName)
SOURCES = (24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001, 60)


def pick(start: float = 2.0, end: float = 4.0, **values: Any) -> Pick:
    made = Pick(Path("/v/night drive.mp4"), 25.0, 60.0, 1920, 1080, Span(start, end), "a car", 0.83)
    return replace(made, **values)


# ---------------------------------------------------------------- rates


@given(st.sampled_from(NAMES), st.integers(0, 24 * 3600 * 60 - 1))
def test_a_timecode_is_the_frame_that_it_was_made_of(name: RateName, frame: int) -> None:
    rate = RATES[name]
    frame %= rate.first_frame_of_hour(24)
    assert rate.number(rate.timecode(frame)) == frame


def test_numbers_that_drop_frame_leaves_out_are_the_next_ones() -> None:
    rate = RATES["29.97df"]
    assert [rate.timecode(rate.number(f"00:01:00;{frames:02}")) for frames in (0, 1, 2)] == [
        "00:01:00;02"
    ] * 3
    assert rate.timecode(rate.number("00:10:00;00")) == "00:10:00;00"
    with pytest.raises(ValueError, match="no timecode"):
        RATES["25"].number("00:00:00:25")


@pytest.mark.parametrize("own", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_another_rate_keeps_hours_minutes_and_seconds(own: RateName, name: RateName) -> None:
    for code in ("10:00:00:00", "10:07:31:12", "23:59:59:23"):
        there = RATES[name].timecode(relabelled(RATES[own].number(code), RATES[own], RATES[name]))
        assert there[:8] == code[:8]
        part = Fraction(int(code[9:]), RATES[own].timebase)
        assert (
            0
            <= part - Fraction(int(there[9:]), RATES[name].timebase)
            < Fraction(1, RATES[name].timebase)
        )


# ---------------------------------------------------------------- edit lists


@dataclass
class Event:
    """An event of an edit list, in frames."""

    reel: str
    channels: str
    source: tuple[int, int]
    record: tuple[int, int]


def read_edl(text: str, rate: FrameRate, *, are_cuts: bool = True) -> list[Event]:
    """Read an edit list strictly: an AssertionError for any line, order or length that CMX 3600 does not have."""
    title, mode, *lines = text.splitlines()
    assert re.fullmatch(r"TITLE: .{1,70}", title)
    assert mode == f"FCM: {'DROP FRAME' if rate.drop else 'NON-DROP FRAME'}"
    mark = ";" if rate.drop else ":"
    code = rf"(\d\d:\d\d:\d\d{mark}\d\d)"
    event = re.compile(rf"(\d{{3}})  (\w{{1,8}}) +(V|B|AA/V) +C +{code} {code} {code} {code}")
    found: list[Event] = []
    for line in lines:
        if not line or line.startswith(("* ", " |C:")):
            continue
        parts = event.fullmatch(line)
        assert parts, line
        assert int(parts[1]) == len(found) + 1
        numbers = [rate.number(each) for each in parts.groups()[3:]]
        assert [rate.timecode(number) for number in numbers] == list(parts.groups()[3:])
        source, record = (numbers[0], numbers[1]), (numbers[2], numbers[3])
        assert source[1] - source[0] == record[1] - record[0] > 0
        assert not found or not are_cuts or found[-1].record[1] == record[0]
        found.append(Event(parts[2], parts[3], source, record))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_list_has_the_rate_that_was_asked_for(name: RateName) -> None:
    rate = RATES[name]
    many = [
        pick(path=Path(f"/v/{number}.mov"), fps=fps, timecode="10:00:00:00", audio=STEREO)
        for number, fps in enumerate(SOURCES)
    ]
    events = read_edl(to_edl(many, rate=rate), rate)
    assert len(events) == len(SOURCES)
    assert events[0].record[0] == rate.first_frame_of_hour(1)
    for event, each in zip(events, many, strict=True):
        assert event.channels == "AA/V"
        seconds = float((event.source[0] - rate.number("10:00:00:00")) / rate.fps)
        assert seconds == pytest.approx(2.0, abs=1.01 / min(float(rate.fps), each.fps))
        assert event.source[1] - event.source[0] == rate.frames(4.0) - rate.frames(2.0)


@pytest.mark.parametrize("fps", SOURCES)
def test_at_the_rate_of_its_source_a_timecode_is_exact(fps: float) -> None:
    own = frame_rate(fps, drop=False)
    first, end = 127, 200
    span = Span(float(first / own.fps), float(end / own.fps))
    each = pick(fps=fps, span=span, timecode="09:59:58:00", duration_seconds=60.0)
    (event,) = read_edl(to_edl([each]), own)
    start = own.number("09:59:58:00")
    assert event.source == (start + first, start + end)


def test_drop_frame_of_the_source_is_that_of_the_list() -> None:
    fps = 30000 / 1001
    drop = pick(0.0, 90.0, fps=fps, timecode="00:59:00;02", duration_seconds=100.0)
    (event,) = read_edl(to_edl([drop]), RATES["29.97df"])
    assert RATES["29.97df"].timecode(event.source[0]) == "00:59:00;02"
    (event,) = read_edl(to_edl([replace(drop, timecode="00:59:00:02")]), RATES["29.97"])
    assert RATES["29.97"].timecode(event.source[0]) == "00:59:00:02"


@pytest.mark.parametrize(
    ("audio", "channels"),
    [
        ((), "V"),
        ((AudioTrack(1),), "B"),
        ((AudioTrack(0),), "B"),
        (STEREO, "AA/V"),
        (STEREO * 3, "AA/V"),
    ],
)
def test_an_event_has_the_sound_of_its_file(audio: tuple[AudioTrack, ...], channels: str) -> None:
    (event,) = read_edl(to_edl([pick(audio=audio)]), RATES["25"])
    assert event.channels == channels


def test_a_timecode_with_more_frames_than_a_second_has_is_not_used() -> None:
    (event,) = read_edl(to_edl([pick(timecode="10:00:00:48")]), RATES["25"])
    assert event.source[0] == 50


# ---------------------------------------------------------------- files with timecodes


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        ("mov", "10:00:00:00", "25"),
        ("mov", "01:00:00;00", "29.97df"),
        ("mov", "01:00:00:00", "29.97"),
        ("mov", "10:11:12:13", "23.976"),
        ("mp4", "10:11:12:13", "50"),
        ("mkv", "10:00:00:00", "30"),
        ("mxf", "10:00:00:00", "25"),
    ],
)
def test_a_file_with_a_timecode_conforms(
    tmp_path: Path, kind: str, code: str, name: RateName
) -> None:
    rate = RATES[name]
    path = write_stated(tmp_path / f"a.{kind}", timecode=code, fps=rate.fps, num_frames=30)
    facts = read_facts(path)
    first, end = 7, 19
    each = pick(
        path=path,
        fps=float(rate.fps),
        duration_seconds=float(30 / rate.fps),
        span=Span(float(first / rate.fps), float(end / rate.fps)),
        timecode=facts.timecode,
        audio=facts.audio,
    )
    (event,) = read_edl(to_edl([each]), rate)
    assert event.source == (rate.number(code) + first, rate.number(code) + end)
    assert event.channels == "AA/V"
    (clip,) = otio.adapters.read_from_string(to_otio([each]), "otio_json").video_tracks()[0]
    assert clip.available_range().start_time.value == rate.number(code)
    assert clip.source_range.start_time.value == rate.number(code) + first
    root = ElementTree.fromstring(to_fcpxml([each]))
    assert seconds_of(found(root, ".//asset").attrib["start"]) == rate.number(code) / rate.fps
    file = found(ElementTree.fromstring(to_premiere([each])), ".//file/timecode")
    assert (text(file, "string"), text(file, "frame")) == (code, str(rate.number(code)))


# ---------------------------------------------------------------- OpenTimelineIO


@pytest.mark.parametrize("name", NAMES)
def test_a_timeline_of_one_rate_comes_back(name: RateName) -> None:
    rate = RATES[name]
    many = [
        pick(timecode="10:00:00:00", audio=STEREO * 2),
        pick(7.5, 9.0, path=Path("/v/silent.mp4"), fps=30000 / 1001),
    ]
    timeline = otio.adapters.read_from_string(to_otio(many, rate=rate), "otio_json")
    assert timeline.global_start_time.value == rate.first_frame_of_hour(1)
    (pictures,) = timeline.video_tracks()
    sounds = timeline.audio_tracks()
    assert [len(track.find_clips()) for track in (pictures, *sounds)] == [2, 1, 1]
    assert [track.duration() for track in sounds] == [pictures.duration()] * 2
    for clip in timeline.find_clips():
        assert clip.source_range.start_time.rate == pytest.approx(float(rate.fps))
        assert clip.available_range().contains(clip.source_range)
    assert pictures[0].available_range().start_time.value == rate.number("10:00:00:00")
    assert [
        clip.metadata["scanonce"]["audio_track"] for track in sounds for clip in track.find_clips()
    ] == [1, 2]


# ---------------------------------------------------------------- FCPXML


def seconds_of(value: str) -> Fraction:
    assert value.endswith("s")
    return Fraction(value[:-1])


def found(parent: Element, path: str) -> Element:
    element = parent.find(path)
    assert element is not None, path
    return element


def text(parent: Element, path: str) -> str:
    return found(parent, path).text or ""


@pytest.mark.parametrize("name", NAMES)
def test_fcpxml_has_whole_frames_and_clips_within_their_files(name: RateName) -> None:
    rate = RATES[name]
    many = [
        pick(path=Path(f"/v/{number}.mov"), fps=fps, timecode="10:00:00:00", audio=STEREO)
        for number, fps in enumerate(SOURCES)
    ] + [pick(58.0, 60.0), pick(3.0, 4.0)]
    root = ElementTree.fromstring(to_fcpxml(many, title="Cars <1>", rate=rate))
    assert root.attrib == {"version": "1.9"}
    formats = {each.attrib["id"]: each for each in root.iter("format")}
    assets = {each.attrib["id"]: each for each in root.iter("asset")}
    assert len(formats) == len(assets) + 1 == len(SOURCES) + 2
    sequence = found(root, "./library/event/project/sequence")
    frame = seconds_of(formats[sequence.attrib["format"]].attrib["frameDuration"])
    assert frame == 1 / rate.fps
    assert sequence.attrib["tcFormat"] == ("DF" if rate.drop else "NDF")
    at = seconds_of(sequence.attrib["tcStart"])
    assert at == rate.first_frame_of_hour(1) * frame
    clips = list(root.iter("asset-clip"))
    for clip, each in zip(clips, many, strict=True):
        asset = assets[clip.attrib["ref"]]
        own = seconds_of(formats[asset.attrib["format"]].attrib["frameDuration"])
        offset, start, length = (
            seconds_of(clip.attrib[part]) for part in ("offset", "start", "duration")
        )
        assert offset == at
        assert (length / frame).denominator == (start / own).denominator == 1
        begin, whole = (seconds_of(asset.attrib[part]) for part in ("start", "duration"))
        assert begin <= start < start + length <= begin + whole
        assert abs(start - begin - Fraction(each.span.start_seconds)) <= own / 2
        assert found(asset, "media-rep").attrib["src"] == each.path.as_uri()
        assert ("audioChannels" in asset.attrib) == bool(each.audio)
        marker = found(clip, "marker")
        assert (marker.attrib["value"], marker.attrib["note"]) == ("a car", "strong match, 83 %")
        at += length
    assert seconds_of(sequence.attrib["duration"]) == at - seconds_of(sequence.attrib["tcStart"])


# ---------------------------------------------------------------- Premiere and Resolve


@pytest.mark.parametrize("name", NAMES)
def test_premiere_gets_one_rate_linked_sound_and_markers(name: RateName) -> None:
    rate = RATES[name]
    many = [pick(audio=STEREO), pick(7.5, 9.0, path=Path("/v/b.mp4"), fps=50.0), pick(8.0, 9.0)]
    root = ElementTree.fromstring(to_premiere(many, rate=rate))
    sequence = found(root, "sequence")
    ntsc = "TRUE" if rate.fps.denominator > 1 else "FALSE"
    items = {item.attrib["id"]: item for item in root.iter("clipitem")}
    for part in (sequence, *items.values()):
        assert (text(part, "rate/timebase"), text(part, "rate/ntsc")) == (str(rate.timebase), ntsc)
    code = found(sequence, "timecode")
    assert (text(code, "string")[:8], text(code, "displayformat")) == (
        "01:00:00",
        "DF" if rate.drop else "NDF",
    )
    tracks = [found(sequence, "media/video/track"), *sequence.findall("media/audio/track")]
    assert [len(track.findall("clipitem")) for track in tracks] == [3, 1, 1]
    at = 0
    for item, each in zip(tracks[0].findall("clipitem"), many, strict=True):
        start, end, first, last = (int(text(item, part)) for part in ("start", "end", "in", "out"))
        assert (start, last - first) == (at, end - start)
        assert first == rate.frames(each.span.start_seconds)
        assert last <= int(text(item, "duration"))
        at = end
    for item in items.values():
        assert all(text(link, "linkclipref") in items for link in item.iter("link"))
    defined = [file.attrib["id"] for file in root.iter("file") if file.find("pathurl") is not None]
    assert defined == ["file-1", "file-2", "file-3"][: len(defined)] == ["file-1", "file-2"]
    assert {file.attrib["id"] for file in root.iter("file")} == set(defined)
    assert text(found(root, ".//file"), "pathurl") == "file://localhost/v/night%20drive.mp4"
    marks = [(int(text(mark, "in")), text(mark, "name")) for mark in sequence.findall("marker")]
    starts = [int(text(item, "start")) for item in tracks[0].findall("clipitem")]
    assert marks == [(start, "a car") for start in starts]


@pytest.mark.parametrize("name", NAMES)
def test_markers_for_resolve_lie_on_the_cuts_of_the_edit_list(name: RateName) -> None:
    rate = RATES[name]
    many = [pick(), pick(7.5, 9.0, label="a | b\n|M:x"), pick(1.0, 1.0, probability=None)]
    markers = to_resolve_markers(many, rate=rate)
    events = read_edl(markers, rate, are_cuts=False)
    cuts = read_edl(to_edl(many, rate=rate), rate)
    assert [event.record[0] for event in events] == [cut.record[0] for cut in cuts]
    notes = re.findall(r"^ \|C:(\w+) \|M:([^|\n]+) \|D:(\d+)$", markers, re.MULTILINE)
    assert [(colour, label) for colour, label, _ in notes] == [
        ("ResolveColorGreen", "a car"),
        ("ResolveColorGreen", "a / b /M:x"),
        ("ResolveColorBlue", "a car"),
    ]
    assert [int(length) for _, _, length in notes] == [
        cut.record[1] - cut.record[0] for cut in cuts
    ]


@given(
    st.text(max_size=20), st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=10)
)
def test_no_name_breaks_the_formats(label: str, name: str) -> None:
    each = pick(label=label, path=Path("/v") / f"x{name}")
    for content in (to_fcpxml([each], title=label), to_premiere([each], title=label)):
        root = ElementTree.fromstring(content.encode("utf-8", "replace"))
        assert len(list(root.iter("marker"))) == 1
    assert len(read_edl(to_resolve_markers([each]), RATES["25"])) == 1


def test_nothing_to_export_is_no_error() -> None:
    for content in (to_fcpxml([]), to_premiere([])):
        ElementTree.fromstring(content)
    assert read_edl(to_resolve_markers([]), RATES["25"]) == []


# ---------------------------------------------------------------- doors


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with open_doors(tmp_path_factory.mktemp("timelines")) as opened:
        yield opened


def test_selects_are_picked_listed_exported_and_removed_over_http(doors: Doors) -> None:
    client, number = doors.client, doors.id("two-reds")
    assert client.get("/api/v1/selects").json() == {"selects": []}
    refused = client.post("/api/v1/selects/export", json={"format": "edl"})
    assert (refused.status_code, "nothing is selected" in refused.text) == (422, True)
    moments = [
        {"video_id": number, "start_seconds": start, "end_seconds": start + 2, "label": "red"}
        for start in (8.0, 24.0)
    ]
    added = client.post("/api/v1/selects", json={"moments": moments}).json()["selects"]
    assert [each["key"] for each in added] == [f"{number}-8000-10000", f"{number}-24000-26000"]
    assert client.post("/api/v1/selects", json={"moments": moments}).json()["selects"] == added
    assert len(SelectsFile(doors.layout).read()) == 2
    for kind in ("edl", "otio", "fcpxml", "xml", "markers", "csv", "srt"):
        file = client.post("/api/v1/selects/export", json={"format": kind, "rate": "24"})
        assert file.status_code == 200
        assert "selects" in file.headers["content-disposition"]
        if kind == "edl":
            assert len(read_edl(file.text, RATES["24"])) == 2
    run = scanonce("selects", "--export", "edl", "--rate", "24", "--index", doors.layout.root)
    assert len(read_edl(run.stdout, RATES["24"])) == 2
    listed = scanonce("selects", "--json", "--index", doors.layout.root)
    assert json.loads(listed.stdout)["selects"] == added
    assert "red" in scanonce("selects", "--index", doors.layout.root).stdout
    left = client.delete(f"/api/v1/selects/{added[0]['key']}").json()["selects"]
    assert left == added[1:]
    assert client.delete("/api/v1/selects/none").json()["selects"] == left
    beyond = [{"video_id": number, "start_seconds": 900, "end_seconds": 901}]
    assert client.post("/api/v1/selects", json={"moments": beyond}).status_code == 422


def test_the_command_line_and_the_api_export_every_format_at_a_rate(doors: Doors) -> None:
    index = ("--top", 3, "--index", doors.layout.root)
    run = scanonce("search", "red", "--export", "fcpxml", "--rate", "29.97df", *index)
    root = ElementTree.fromstring(run.stdout)
    assert found(root, ".//sequence").attrib["tcFormat"] == "DF"
    assert "xmeml" in scanonce("search", "red", "--export", "xml", *index).stdout
    assert "ResolveColor" in scanonce("search", "red", "--export", "markers", *index).stdout
    wrong = scanonce("search", "red", "--rate", "25", *index)
    assert "--rate is that of a timeline" in wrong.stderr
    moment = {"video_id": doors.id("two-reds"), "start_seconds": 8, "end_seconds": 10}
    asked = {"format": "xml", "moments": [moment], "rate": "59.94"}
    given = doors.client.post("/api/v1/export", json=asked)
    assert text(ElementTree.fromstring(given.text), "sequence/rate/timebase") == "60"
    refused = doors.client.post("/api/v1/export", json={**asked, "rate": "26"})
    assert refused.status_code == 422
