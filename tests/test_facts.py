"""The facts that files state about their recording: read, kept, filtered by."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.indexer.pipeline import Progress
from scanonce.media.facts import parse_place, parse_time, read_facts
from scanonce.search.filters import Filter, filter_json, filter_of
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import QueryError
from scanonce.storage.facts import (
    MAX_CHAPTERS,
    MAX_TRACKS,
    NO_FACTS,
    Facts,
    clean_timecode,
    facts_of,
    facts_values,
)
from scanonce.storage.layout import IndexLayout
from scanonce.storage.recorded import time_in_name, with_name
from tests.catalogs import record, sql
from tests.indexes import build_index, read_videos
from tests.stated import write_stated
from tests.videos import write_garbage, write_video

CREATED = "2024-01-31T14:22:33Z"
TAGS = {"creation_time": CREATED, "location": "+48.8577+002.2950/", "make": "ACME", "model": "X1"}
NTSC = Fraction(30000, 1001)


# ---------------------------------------------------------------- what containers state


@pytest.mark.parametrize(
    ("kind", "tags", "timecode", "expected"),
    [
        ("mp4", TAGS, "", ("container", "", "ACME X1", (48.8577, 2.295))),
        ("mov", TAGS, "10:00:00:00", ("container", "10:00:00:00", "ACME X1", (48.8577, 2.295))),
        (
            "mov",
            {**TAGS, "com.apple.quicktime.creationdate": "2024-01-31T15:22:33+0100"},
            "01:02:03;04",
            ("camera", "01:02:03;04", "ACME X1", (48.8577, 2.295)),
        ),
        ("mkv", TAGS, "23:59:59:24", ("container", "23:59:59:24", "ACME X1", (48.8577, 2.295))),
        ("webm", TAGS, "", ("container", "", "ACME X1", (48.8577, 2.295))),
        ("mxf", {"creation_time": CREATED}, "10:00:00:00", ("container", "10:00:00:00", "", None)),
        ("ts", {}, "", (None, "", "", None)),
    ],
)
def test_facts_are_read_from_every_container(
    tmp_path: Path, kind: str, tags: dict[str, str], timecode: str, expected: Any
) -> None:
    fps = NTSC if ";" in timecode else 25
    facts = read_facts(write_stated(tmp_path / f"a.{kind}", tags, timecode=timecode, fps=fps))
    assert (facts.recorded_by, facts.timecode, facts.camera, facts.place) == expected
    assert [track.channels for track in facts.audio] == [2]
    if kind not in ("mov", "mxf"):  # these writers keep no such code
        assert [track.language for track in facts.audio] == ["deu"]
    if expected[0] is not None:
        assert facts.recorded_at == datetime(2024, 1, 31, 14, 22, 33, tzinfo=UTC)
    if expected[0] == "camera":
        assert facts.recorded_at is not None
        assert facts.recorded_at.utcoffset() == timedelta(hours=1)


def test_chapters_tracks_and_rotation_are_read(tmp_path: Path) -> None:
    path = write_stated(tmp_path / "a.mkv", languages=("deu", "eng"), layout="mono", chapters=3)
    facts = read_facts(path)
    assert [(track.channels, track.language) for track in facts.audio] == [(1, "deu"), (1, "eng")]
    assert [chapter.title for chapter in facts.chapters] == ["part 0", "part 1", "part 2"]
    assert [chapter.start_seconds for chapter in facts.chapters] == [0.0, 0.001, 0.002]
    turned = write_video(tmp_path / "turned.mp4", num_frames=3, rotation=90)
    assert read_facts(turned.path).rotation == 90


@pytest.mark.parametrize(
    "tags",
    [
        {"creation_time": "1904-01-01T00:00:00Z"},
        {"creation_time": "2100-01-01T00:00:00Z"},
        {"creation_time": "no time", "date": "2003"},
        {"location": "+999.0000+002.2950/"},
        {"location": "+91.0000+002.2950/"},
        {"location": "+00.0000+000.0000/"},
        {"location": "+" + "9" * 500},
    ],
)
def test_absurd_values_count_as_not_stated(tmp_path: Path, tags: dict[str, str]) -> None:
    facts = read_facts(write_stated(tmp_path / "a.mkv", tags))
    assert (facts.recorded_at, facts.recorded_by, facts.place) == (None, None, None)


def test_many_chapters_and_broken_names_are_cut_and_cleaned(tmp_path: Path) -> None:
    path = write_stated(
        tmp_path / "a.mkv", {"make": "AC\x1b[2JME", "model": "Q" * 5_000}, chapters=10_000
    )
    content = path.read_bytes()
    path.write_bytes(content.replace(b"part 7", b"\xff\xfe\xc3\xc3 7"))
    facts = read_facts(path)
    assert len(facts.chapters) == MAX_CHAPTERS
    assert facts.chapters[7].title == "7"
    assert facts.camera == "AC [2JME " + "Q" * 91


def test_a_file_that_is_no_video_has_no_facts(tmp_path: Path) -> None:
    assert read_facts(write_garbage(tmp_path / "a.mp4")) == NO_FACTS


def test_a_header_that_raises_costs_the_facts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_stated(tmp_path / "a.mov", TAGS)
    assert read_facts(path) != NO_FACTS

    def fail(*_: object) -> None:
        raise KeyError("start")

    monkeypatch.setattr("scanonce.media.facts._chapters", fail)
    assert read_facts(path) == NO_FACTS


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("+37.3318-122.0312+010/", (37.3318, -122.0312)),
        ("-3345.5+15112.25/", (-33.7583333, 151.2041667)),
        ("+404512.6-0735934.4+12CRSWGS_84/", (40.7535, -73.9928889)),
        ("+3799.0-12200.0/", None),
        ("+123+1234/", None),
        ("48.1, 11.5", None),
        ("", None),
    ],
)
def test_places_are_degrees_minutes_or_seconds(
    text: str, place: tuple[float, float] | None
) -> None:
    found = parse_place(text)
    assert found == (None if place is None else pytest.approx(place, abs=1e-6))


@pytest.mark.parametrize("text", ["2024-01-31", "2024-13-31T00:00:00Z", "0001-01-01T00:00:00Z", ""])
def test_what_is_no_time_of_a_recording(text: str) -> None:
    assert parse_time(text) is None


def test_timecodes_are_written_in_one_way() -> None:
    assert [clean_timecode(each) for each in ("10:00:00.00", " 01:02:03;04", "24:00:00:00", "1:2:3:4", 7)] == [
        *("10:00:00;00", "01:02:03;04", "", "", ""),
    ]  # fmt: skip


# ---------------------------------------------------------------- values of any origin


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)
NAMES = (
    "recorded_at",
    "recorded_by",
    "timecode",
    "camera",
    "place",
    "rotation",
    "audio",
    "chapters",
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON) | JSON)
def test_any_values_give_facts_that_are_kept_as_they_are(values: Any) -> None:
    facts = facts_of(values)
    assert facts_of(json.loads(json.dumps(facts_values(facts)))) == facts
    assert facts.camera.isprintable()


def test_a_long_list_is_cut() -> None:
    facts = facts_of({"audio": [[2, "und", "aac"]] * 9_999, "camera": "a\ud800b"})
    assert len(facts.audio) == MAX_TRACKS
    assert facts.audio[0].language == ""
    assert facts.camera == "a b"


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("VID_20240131_142233.mp4", "2024-01-31T14:22:33"),
        ("2024-01-31 14.22.33.mov", "2024-01-31T14:22:33"),
        ("DJI_20240131142233_0001_D.MP4", "2024-01-31T14:22:33"),
        ("Screen Recording 2024-01-31 at 14.22.33.mov", "2024-01-31T14:22:33"),
        ("GOPR0001.MP4", None),
        ("DJI_0001.MP4", None),
        ("VID_20240231_142233.mp4", None),
        ("VID_19040131_142233.mp4", None),
        ("VID_20990131_142233.mp4", None),
        ("20240131.mp4", None),
    ],
)
def test_names_state_times(name: str, local: str | None) -> None:
    found = time_in_name(name)
    assert (found and found.replace(tzinfo=None).isoformat()) == local


def test_a_clock_with_a_zone_goes_before_a_name_and_a_name_before_the_container() -> None:
    at = datetime(2020, 5, 5, tzinfo=UTC)
    name = "VID_20240131_142233.mp4"
    assert with_name(Facts(at, "camera"), name).recorded_by == "camera"
    assert with_name(Facts(at, "container"), name).recorded_by == "name"
    assert with_name(Facts(at, "container"), "20240131.mp4").recorded_by == "container"
    assert with_name(NO_FACTS, "20240131.mp4").recorded_by == "day"
    assert with_name(NO_FACTS, "C0001.MP4") == NO_FACTS


# ---------------------------------------------------------------- the catalogue


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        opened.add_library(Path("/films"))
        yield opened


def facts_like(**values: Any) -> Facts:
    return facts_of({"recorded_by": "container", **values})


def ids(catalog: Catalog, **conditions: Any) -> list[int]:
    return [int(each) for each in Filter(**conditions).matching(catalog)]


def test_filters_know_the_time_the_camera_and_the_place(catalog: Catalog) -> None:
    paris, tokyo, unknown = (record(catalog, name, mtime_ns=10**18) for name in "abc")
    catalog.record_facts(
        {
            paris: facts_like(recorded_at=CREATED, camera="Straße 100%", place=[48.8577, 2.295]),
            tokyo: facts_like(camera="ACME X1", place=[35.6586, 139.7454]),
        }
    )
    day = date(2024, 1, 31)
    assert ids(catalog, recorded_after=day, recorded_before=day) == [paris]
    assert ids(catalog, recorded_before=date(2001, 9, 10)) == [tokyo, unknown]  # 10^18 ns
    assert ids(catalog, camera="STRASSE") == ids(catalog, camera="0%") == [paris]
    assert ids(catalog, camera="%") == [paris]
    assert ids(catalog, camera="_") == []
    assert ids(catalog, near=(48.86, 2.35, 10.0)) == [paris]
    assert ids(catalog, near=(48.86, 2.35, 20_000.0)) == [paris, tokyo]
    assert ids(catalog, near=(-48.86, 2.35, 10.0)) == []


def test_a_place_beyond_the_date_line_is_near(catalog: Catalog) -> None:
    here = record(catalog, "a")
    catalog.record_facts({here: facts_like(place=[10.0, 179.99])})
    assert ids(catalog, near=(10.0, -179.99, 3.0)) == [here]
    assert ids(catalog, near=(10.0, -179.99, 2.0)) == []


def test_the_conditions_are_checked_and_kept_as_json() -> None:
    only = Filter(camera="acme", near=(48.5, -2.25, 3.0))
    assert filter_of(json.dumps(filter_json(only))) == only
    for wrong in ((91.0, 0.0, 1.0), (0.0, 181.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, float("nan"))):
        with pytest.raises(QueryError, match=r"48\.86,2\.35,10"):
            Filter(near=wrong)
    for text in ("", "x" * 101):
        with pytest.raises(QueryError, match="1 to 100 characters"):
            Filter(camera=text)


def test_facts_come_with_their_video_and_go_with_it(catalog: Catalog) -> None:
    number = record(catalog, "a", "/films/a.mp4", mtime_ns=10**18)
    (video,) = catalog.videos()
    assert video.recording is not None
    assert (video.recording.by, video.facts) == ("file", NO_FACTS)
    assert catalog.without_facts() == [video]
    mark = catalog.searchable_changes().mark
    catalog.record_facts(
        {number: facts_like(recorded_at=CREATED, timecode="10:00:00:00", chapters=[[0, 5, "one"]])}
    )
    (video,) = catalog.searchable_changes(mark).videos
    assert (video.facts.timecode, video.facts.chapters) == ("10:00:00:00", ())
    assert video.recording is not None
    assert video.recording.by == "container"
    assert [chapter.title for chapter in catalog.chapters(number)] == ["one"]
    assert catalog.without_facts() == []
    catalog.forget_files([Path("/films/a.mp4")])
    assert sql(catalog.path, "SELECT count(*) FROM facts") == [(0,)]


def test_a_damaged_text_in_the_catalogue_counts_as_not_stated(catalog: Catalog) -> None:
    number = record(catalog, "a")
    catalog.record_facts({number: facts_like(timecode="10:00:00:00")})
    sql(catalog.path, "UPDATE facts SET stated = '[' || hex(zeroblob(9)), chapters = '[[1]]'")
    assert catalog.videos()[0].facts == NO_FACTS
    assert catalog.chapters(number) == ()


# ---------------------------------------------------------------- indexing


def test_indexing_keeps_the_facts_and_fills_those_of_an_older_index(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_stated(films / "a.mov", TAGS, timecode="10:00:00:00", num_frames=30)
    write_stated(films / "VID_20230101_101010.mp4", num_frames=30)
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, films)

    def stated() -> dict[str, Any]:
        return {
            video.path.name: (video.facts.timecode, video.facts.recorded_by)
            for video in read_videos(layout)
        }

    expected = {"a.mov": ("10:00:00:00", "container"), "VID_20230101_101010.mp4": ("", "name")}
    assert stated() == expected
    features = sorted((path.name, path.stat().st_mtime_ns) for path in layout.features.rglob("*.*"))
    sql(layout.catalog, "DELETE FROM facts")
    assert {by for _, by in stated().values()} == {None}
    shown: list[Progress] = []
    report = build_index(layout, films, on_progress=shown.append)
    assert [(each.videos_done, each.videos_total) for each in shown] == [(1, 2), (2, 2)]
    assert shown[-1].bytes_done == shown[-1].bytes_total > 0
    assert (report.counts.indexed, report.counts.skipped) == (0, 2)
    assert stated() == expected
    assert features == sorted(
        (path.name, path.stat().st_mtime_ns) for path in layout.features.rglob("*.*")
    )  # nothing was decoded again


def test_offline_videos_wait_for_their_facts(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_stated(films / "a.mov", TAGS, num_frames=30)
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, films)
    sql(layout.catalog, "DELETE FROM facts")
    shutil.move(films, tmp_path / "away")
    build_index(layout, films)
    with Catalog.open(layout.catalog) as catalog:
        assert len(catalog.without_facts()) == 1
    assert np.all([video.facts == NO_FACTS for video in read_videos(layout)])
