"""Times, sizes and texts for people."""

from dataclasses import replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from scanonce.search.calibration import Calibration, Weights, write_calibration
from scanonce.search.engine import SearchEngine
from scanonce.search.filters import Filter, filter_json
from scanonce.search.localise import Curve
from scanonce.search.result import Coverage, SearchResult
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.views import (
    ADDED,
    added_since,
    calibration_json,
    calibration_text,
    clock,
    count_text,
    coverage_text,
    covered_by,
    curve_levels,
    divider_at,
    divider_on,
    filter_text,
    folder_names,
    good_text,
    hours_text,
    is_full,
    match_text,
    moments_table,
    num_pages,
    one_per_video,
    page_of,
    parse_span,
    plain,
    result_json,
    search_line,
    size_text,
    span_text,
    timecode,
    times_across,
    timings_text,
)

MOMENT = Moment(3, Path("/films/a [red] car.mp4"), Span(251.24, 3671.96), 0.3123456789, 0.87349)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (60, "0:01:00"), (36000, "10:00:00")]
)
def test_clock_shows_whole_seconds_that_have_passed(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0:00:00.0"), (59.96, "0:01:00.0"), (1.25, "0:00:01.2")]
)
def test_clock_rounds_to_tenths_and_carries(seconds: float, text: str) -> None:
    assert clock(seconds, tenths=True) == text


def test_span_and_sizes_and_counts() -> None:
    assert span_text(MOMENT.span) == "0:04:11.2 - 1:01:12.0"
    assert [size_text(n) for n in (0, 999, 1000, 7.4e6, 3e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "7.4 MB",
        "3000.0 TB",
    ]
    assert count_text(0, "clip") == "0 clips"


def test_the_json_of_a_result_is_the_documented_schema() -> None:
    result = SearchResult("a car", (MOMENT,), {"text": 1.23456, "total": 2.0}, notes=("a note",))
    assert result_json(result) == {
        "query": "a car",
        "no_good_match": False,
        "num_good": 1,
        "notes": ["a note"],
        "moments": [
            {
                "video_id": 3,
                "path": "/films/a [red] car.mp4",
                "start_seconds": 251.24,
                "end_seconds": 3671.96,
                "probability": 0.8735,
                "match": "strong",
                "score": 0.312346,
                "reasons": [],
            }
        ],
        "timings_ms": {"text": 1.235, "total": 2.0},
    }
    covered = result_json(result, covered=Coverage(3, 4, 5))["coverage"]
    assert covered == {"num_matching": 3, "num_judged": 4, "num_videos": 5}


def table_lines(moments: list[Moment]) -> list[str]:
    """Return the lines of the table of moments, as a terminal shows them."""
    console = Console(width=120, record=True, file=StringIO())
    console.print(moments_table(moments))
    return console.export_text().splitlines()


def test_file_names_are_shown_as_they_are_and_not_taken_for_markup() -> None:
    assert "a [red] car.mp4" in table_lines([MOMENT])[1]


def moments(*probabilities: float) -> list[Moment]:
    return [replace(MOMENT, probability=each) for each in probabilities]


def test_the_table_has_a_divider_below_the_good_matches_and_counts_on() -> None:
    lines = table_lines(moments(0.97, 0.33, 0.32, 0.01))
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "less", "3", "4"]
    assert "strong 97 %" in lines[1]
    assert "fair 33 %" in lines[2]
    assert lines[3].split() == ["less", "certain"]
    assert "weak 32 %" in lines[4]


@pytest.mark.parametrize("probabilities", [(), (0.9, 0.8), (0.2, 0.1)])
def test_moments_that_are_all_good_or_all_weak_have_no_divider(
    probabilities: tuple[float, ...],
) -> None:
    assert divider_at(moments(*probabilities)) is None
    assert len(table_lines(moments(*probabilities))) == 1 + len(probabilities)


def test_timings_name_the_stages() -> None:
    assert (
        timings_text(SearchResult("", (), {"text": 11, "library": 3, "total": 14}))
        == "14 ms: text 11, library 3"
    )


# ---------------------------------------------------------------- the pages


def test_the_divider_is_on_the_page_of_the_first_less_certain_moment() -> None:
    found = moments(0.9, 0.8, 0.7, 0.2, 0.1)
    assert [divider_on(found, page, 2) for page in (1, 2, 3)] == [None, 1, None]
    assert [divider_on(found, page, 3) for page in (1, 2)] == [None, 0]
    assert divider_on(found[:3], 1, 2) is None


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.9999, "strong 99 %"),
        (0.8, "strong 80 %"),
        (0.7999, "fair 79 %"),
        (0.57, "fair 57 %"),
        (0.33, "fair 33 %"),
        (0.3299, "weak 32 %"),
        (0.0001, "weak 1 %"),
    ],
)
def test_a_probability_has_a_word_and_a_percentage_that_agree(
    probability: float, text: str
) -> None:
    assert match_text(probability) == text


def test_the_heading_counts_the_good_matches() -> None:
    assert good_text([]) == "No good match."
    assert good_text(moments(0.3, 0.2)) == "No good match. The nearest:"
    assert good_text(moments(0.7, 0.2)) == "1 good match"
    assert good_text(moments(0.7, 0.6, 0.2)) == "2 good matches"
    assert good_text(moments(0.7, 0.6), is_full=True) == "At least 2 good matches"


def test_there_may_be_more_only_if_all_moments_asked_for_are_good() -> None:
    good, mixed = (SearchResult("", tuple(moments(0.9, last))) for last in (0.4, 0.3))
    assert is_full(good, 2)
    assert not is_full(good, 3)
    assert not is_full(mixed, 2)


class Covering:
    """An engine that says how many videos match."""

    def __init__(self, coverage: Coverage) -> None:
        self.found = coverage

    def coverage(self, text: str, *, within: object) -> Coverage:
        return self.found


def test_the_coverage_is_not_below_what_the_answer_shows_unless_it_is_an_estimate() -> None:
    good = [replace(MOMENT, video_id=number % 3) for number in range(5)]
    result = SearchResult("a car", (*good, replace(MOMENT, video_id=9, probability=0.2)))

    def shown(coverage: Coverage) -> str:
        return coverage_text(covered_by(cast(SearchEngine, Covering(coverage)), result))

    assert shown(Coverage(1, 40, 40)) == "3 of 40 videos match"
    assert shown(Coverage(38, 40, 40)) == "38 of 40 videos match"
    assert shown(Coverage(0, 64, 1200)) == "about 1 % of 1,200 videos match (64 were looked at)"


def test_the_calibration_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.search.calibration._BUNDLED_FILE", tmp_path / "none")
    layout = IndexLayout(tmp_path)
    none = calibration_json(layout, "f" * 64)
    assert none == {"kind": "none", "labelled_queries": 0}
    assert calibration_text(none).startswith("uncalibrated: scanonce tune --calibrate")
    write_calibration(layout.calibration, Calibration({"frames": Weights(-1.0)}, 120, "labels"))
    own = calibration_json(layout, "f" * 64)
    assert own == {"kind": "index", "labelled_queries": 120}
    assert calibration_text(own) == "fitted to 120 labelled queries"
    assert calibration_text({**own, "labelled_queries": 0}).startswith("fitted to texts that no")
    monkeypatch.setattr("scanonce.search.calibration._BUNDLED_FILE", layout.calibration)
    monkeypatch.setattr("scanonce.search.calibration._bundled_fingerprint", lambda: "b" * 64)
    bundled = calibration_json(IndexLayout(tmp_path / "other"), "b" * 64)
    assert calibration_text(bundled) == "bundled with the encoder"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (90, "2 min"), (5400, "1.5 h"), (3.6e7, "10,000 h")],
)
def test_lengths_of_libraries_are_round(seconds: float, text: str) -> None:
    assert hours_text(seconds) == text


def test_the_line_under_a_search_counts_the_page_in() -> None:
    timings = {"text": 11.0, "library": 3.0, "moments": 9.0, "total": 23.0}
    line = search_line(1, 61 * 3600, timings, 15.4)
    assert line == "1 video, 61 h | 38 ms: text 11, library 3, moments 9, page 15"


def test_plain_text_has_no_markup_left() -> None:
    assert plain("a  b\nc") == "a b c"
    assert plain("<b> [x](y) :red[z] $1$") == "\\<b\\> \\[x\\]\\(y\\) \\:red\\[z\\] \\$1\\$"


VIDEOS = [
    Video(number, "a" * 32, "indexed", 100.0, 1, (Path(path),))
    for number, path in enumerate(
        ["/films/a.mp4", "/films/2020/b.mp4", "/films/2020/deep/c.mp4", "/films2/d.mp4"]
    )
]


def test_choices_of_added_become_days() -> None:
    today = date(2024, 3, 1)
    days = [added_since(choice, today) for choice in ADDED]
    assert days == [None, today, date(2024, 2, 23), date(2024, 1, 31)]


def test_a_filter_is_written_without_its_open_fields() -> None:
    assert filter_json(Filter()) == {}
    assert filter_text(Filter(folders=(Path("/a"),), min_seconds=3.0)) == ""
    only = Filter(
        videos=frozenset({10, 9}),
        folders=(Path("/b"), Path("/a")),
        without_labels=frozenset({"y", "x"}),
        recorded_before=date(2024, 5, 1),
        max_seconds=60.0,
    )
    assert filter_json(only) == {
        "videos": [9, 10],
        "folders": ["/a", "/b"],
        "without_labels": ["x", "y"],
        "recorded_before": "2024-05-01",
        "max_seconds": 60.0,
    }
    assert filter_text(only) == "not labelled x or y, recorded until 2024-05-01"


def test_folders_to_choose_are_libraries_and_the_folders_directly_in_them() -> None:
    assert folder_names([Path("/films"), Path("/films2")], VIDEOS) == {
        "/films": "films",
        "/films/2020": "films/2020",
        "/films2": "films2",
    }
    alike = folder_names([Path("/a/films"), Path("/b/films")], [])
    assert alike == {"/a/films": "/a/films", "/b/films": "/b/films"}


def test_one_per_video_keeps_the_best_and_the_order() -> None:
    found = [
        replace(MOMENT, video_id=number, score=score) for number, score in [(3, 9), (1, 8), (3, 7)]
    ]
    assert one_per_video(found) == found[:2]


def test_pages_count_from_one_and_the_last_may_be_short() -> None:
    items = list(range(7))
    assert [list(page_of(items, page, 3)) for page in (1, 2, 3, 9, 0)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
        [6],
        [0, 1, 2],
    ]
    assert [num_pages(count, 3) for count in (0, 3, 4)] == [1, 1, 2]


def test_times_across_a_span_are_even_and_the_middle_is_its_middle() -> None:
    times = times_across(Span(10.0, 20.0), 5)
    assert times == (11.0, 13.0, 15.0, 17.0, 19.0)


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        ("1.5", "3", Span(1.5, 3)),
        ("1", "99", Span(1, 10)),
        ("3", "3", None),
        ("-1", "3", None),
        ("10", "12", None),
        ("nan", "3", None),
        ("1", "inf", None),
        ("", "", None),
        ("1;drop", "2", None),
    ],
)
def test_spans_of_addresses_are_kept_inside_the_video(
    start: str, end: str, span: Span | None
) -> None:
    assert parse_span(start, end, 10.0) == span


def test_curve_levels_are_even_over_the_video_and_absolute() -> None:
    # 0 for eight seconds, then 1 for one, then 0.5 for one
    curve = Curve(np.array([0.0, 8.0, 9.0, 10.0]), np.array([0.0, 1.0, 0.5]))
    assert curve_levels(curve, 10.0) == [0, 0, 115]
    even = Curve(np.linspace(0, 10, 11), np.array([0, 0, 0, 0, 0, 0, 0, 0, 1, 0.5]))
    assert curve_levels(even, 10.0) == [0] * 8 + [255, 128]
    assert curve_levels(even, 10.0, most=5) == [0] * 4 + [191]


def test_curve_levels_of_nothing_and_of_a_flat_curve() -> None:
    assert curve_levels(Curve(np.zeros(1), np.zeros(0)), 10.0) == []
    assert curve_levels(Curve(np.arange(4.0), np.full(3, 0.2)), 3.0) == [51] * 3


@pytest.mark.parametrize(
    ("seconds", "fps", "text"),
    [
        (0.04, 25.0, "0:00:00:01"),
        (0.0399999, 25.0, "0:00:00:01"),
        (0.03, 25.0, "0:00:00:00"),
        (3661.5, 30.0, "1:01:01:15"),
        (1.001, 30_000 / 1001, "0:00:01:00"),
    ],
)
def test_a_timecode_counts_the_frames_that_are_shown(seconds: float, fps: float, text: str) -> None:
    assert timecode(seconds, fps) == text
