"""What people read."""

from pathlib import Path

import pytest
from rich.console import Console

from search.engine import SearchResult
from storage.records import Moment, Span
from ui.views import (
    clock,
    count_text,
    moments_table,
    result_json,
    size_text,
    span_text,
    timings_text,
)

MOMENT = Moment(3, Path("/films/a [red] car.mp4"), Span(251.24, 3671.96), 0.3123456789, 2.5)


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
    result = SearchResult("a car", (MOMENT,), False, {"text": 1.23456, "total": 2.0})
    assert result_json(result) == {
        "query": "a car",
        "no_good_match": False,
        "moments": [
            {
                "video_id": 3,
                "path": "/films/a [red] car.mp4",
                "start_seconds": 251.24,
                "end_seconds": 3671.96,
                "score": 0.312346,
                "strength": 2.5,
            }
        ],
        "timings_ms": {"text": 1.235, "total": 2.0},
    }


def test_file_names_are_shown_as_they_are_and_not_taken_for_markup() -> None:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(moments_table([MOMENT]))
    assert "a [red] car.mp4" in console.export_text()
    console.file.close()


def test_timings_name_the_stages() -> None:
    assert (
        timings_text(SearchResult("", (), True, {"text": 11, "library": 3, "total": 14}))
        == "14 ms: text 11, library 3"
    )
