"""The library page: its pure functions, and the page as Streamlit runs it."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from scanonce.indexer.scan import outermost
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp, RunCounts, Totals
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Video, VideoInfo
from scanonce.ui import jobs
from scanonce.ui.jobs import Job
from scanonce.ui.pages.addresses import opening
from scanonce.ui.pages.finding import name_order
from scanonce.ui.pages.library_table import (
    COLUMNS,
    Sorting,
    named,
    sorted_videos,
    table_row,
)
from scanonce.ui.pages.library_text import (
    advice,
    check_folder,
    progress_text,
    took_text,
    totals_text,
)
from scanonce.ui.views import outcome_text
from tests.ui_library import empty_index, run_page, shown_index, texts

NAME = "<img src=x onerror=alert(1)> **a** [b](http://c) :smile:.mp4".replace("/", "_")

VIDEOS = [
    Video(3, "c", "indexed", 30.0, 60, (Path("/b/Aa.mp4"),), added_at=datetime(2026, 1, 2, tzinfo=UTC)),
    Video(1, "a", "failed", 0.0, 0, (Path("/c/ab.mp4"),), "damaged", added_at=datetime(2026, 1, 3, tzinfo=UTC)),
    Video(2, "b", "partial", 90.0, 9, (Path("/a/B.mp4"),), "cut", added_at=datetime(2026, 1, 1, tzinfo=UTC)),
]  # fmt: skip


# ---------------------------------------------------------------- pure


def test_videos_are_sorted_by_each_column_and_back() -> None:
    by_name = sorted(VIDEOS, key=name_order)
    ids = {
        column: [video.video_id for video in sorted_videos(by_name, Sorting(column))]
        for column in COLUMNS
    }
    assert ids == {
        "name": [3, 1, 2],
        "folder": [2, 3, 1],
        "length": [1, 3, 2],
        "state": [3, 2, 1],
        "added": [2, 3, 1],
    }
    for column, order in ids.items():
        back = [video.video_id for video in sorted_videos(by_name, Sorting(column, True))]
        assert back == order[::-1]


def test_a_click_on_a_heading_reverses_the_order_or_changes_the_column() -> None:
    assert Sorting().clicked("name") == Sorting("name", True)
    assert Sorting("name", True).clicked("added") == Sorting("added", True)
    assert Sorting("added", True).clicked("folder") == Sorting("folder", False)


def test_names_are_found_by_all_words_whatever_their_case() -> None:
    assert [video.video_id for video in named(VIDEOS, " A B ")] == [1]
    assert named(VIDEOS, "") == VIDEOS
    assert named(VIDEOS, "[") == []


def test_a_row_is_data_and_says_what_can_be_done() -> None:
    odd = replace(VIDEOS[0], paths=(Path("/x") / NAME,))
    row = table_row(odd, offline=False, busy=False)
    assert row["name"] == NAME
    assert (row["length"], row["state"], row["actions"]) == ("0:00:30", "indexed", ["forget"])
    assert row["href"] == "moment?v=3&a=0.000&b=10.000"
    assert row["thumbnail"] == "/media/thumbs/3/15000.jpg"
    failed = table_row(VIDEOS[1], offline=False, busy=False)
    assert (failed["actions"], failed["href"], failed["note"]) == (
        ["retry", "forget"],
        None,
        "damaged",
    )
    assert table_row(VIDEOS[1], offline=True, busy=False)["actions"] == ["forget"]
    assert table_row(VIDEOS[1], offline=False, busy=True)["actions"] == []
    assert table_row(VIDEOS[2], offline=True, busy=False)["state"] == "offline"
    json.dumps(table_row(replace(odd, paths=(Path("/\udcff.mp4"),)), offline=False, busy=False))
    assert opening(replace(odd, duration_seconds=4.0)).end_seconds == 4.0


def test_only_the_outermost_folders_are_indexed() -> None:
    roots = [Path("/a/b.mp4"), Path("/a"), Path("/ab"), Path("/c/d")]
    assert outermost(roots) == [Path("/a"), Path("/ab"), Path("/c/d")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  ", "no folder was given"),
        ("films", "begin with /"),
        ("/nowhere/at/all", "does not exist"),
        ("{index}", "inside the index"),
        ("{index}/cache", "inside the index"),
        ("/\0", "NUL character"),
        ("/" + 300 * "x", "examined"),
    ],
)
def test_a_folder_that_cannot_be_indexed_is_refused_with_the_next_step(
    tmp_path: Path, text: str, said: str
) -> None:
    index = tmp_path / "index"
    (index / "cache").mkdir(parents=True)
    with pytest.raises(ConfigError, match=said):
        check_folder(text.format(index=index), index)


def test_a_folder_may_be_typed_with_a_tilde_or_dots(tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    (home / "films").mkdir()
    assert check_folder(" ~/films/../films ", tmp_path) == home / "films"


def test_the_result_and_the_progress_of_a_run() -> None:
    counts = RunCounts(9, 1, 1, 2, 3, 4, 60.0)
    assert outcome_text(counts, 5) == (
        "2 videos indexed (0:01:00), 1 of them in part, 3 already indexed, 4 no longer there, 2 failed, "
        "5 offline and kept"
    )
    assert outcome_text(RunCounts(skipped=2)) == "nothing new indexed, 2 already indexed"
    now = datetime.now(UTC)
    job = Job(1, "", (), "running", now, now)
    assert progress_text(job) is None
    job = replace(job, videos_done=3, videos_total=1200, bytes_done=25.0, bytes_total=100)
    assert progress_text(job) == "3 of 1,200 videos · 25%"
    job = replace(job, rate=81.2, seconds_left=3700.0)
    assert progress_text(job) == ("3 of 1,200 videos · 25% · 81x real time · 1:01:40 left")


def test_an_ended_run_says_how_long_it_took_and_for_how_much_video() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    counts = RunCounts(indexed=2, video_seconds=4200.0)
    job = Job(1, "", (), "done", start, start + timedelta(minutes=4), counts=counts)
    took = took_text(job, counts)
    assert took == "took 4 min for 1 h 10 of video"
    assert outcome_text(counts, took=took) == f"2 videos indexed ({took})"


def test_totals_say_what_an_hour_takes() -> None:
    totals = Totals(2, 1, 1, 5, 7200.0, 10)
    status = {
        "vector_index": {"clips": 30},
        "feature_bytes": 4_000_000,
        "anchor_bytes": 0,
        "thumbnail_bytes": 28_000_000,
    }
    assert totals_text(totals, status) == (
        "3 videos, 2.0 h · 30 clips · an hour takes 2.0 MB features, 14.0 MB thumbnails"
    )
    assert totals_text(totals, None) == "3 videos, 2.0 h"


@pytest.mark.parametrize(
    "reason",
    [
        "the decoder crashed on it (SIGSEGV)",
        "the decoder gave no frame for 60 s and was stopped",
        "cannot be read: Permission denied",
        "something new",
    ],
)
def test_every_failure_has_a_next_step(reason: str) -> None:
    assert advice(reason)
    assert advice("the file is empty: copy or download it again") is None


# ---------------------------------------------------------------- the page


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The index directory that the page shows, not made yet."""
    for _ in shown_index(tmp_path / "index", monkeypatch):
        yield tmp_path / "index"


@pytest.fixture
def library(index: Path, tmp_path: Path) -> Path:
    """Three videos, one with an odd name and one whose file is gone, and a failure."""
    films = tmp_path / "films"
    films.mkdir()
    layout = empty_index(index, "bundled")
    info = VideoInfo(30.0, 64, 48, 25.0, "h264")
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(films)
        for number, name in enumerate((NAME, "b.mp4", "gone.mp4")):
            if name != "gone.mp4":
                (films / name).write_bytes(b"video")
            catalog.record_indexed(
                Content(f"{number:040x}", "f", 5),
                [FileStamp(films / name, 5, 1)],
                state="indexed",
                duration_seconds=30.0,
                num_frames=60,
                info=info,
            )
        (films / "**bad**.mp4").write_bytes(b"")
        catalog.record_failed(
            [FileStamp(films / "**bad**.mp4", 0, 1)],
            "the file is empty: copy or download it again",
            content=Content("e" * 40, "e", 0),
        )
    return index


def run(**state: object) -> AppTest:
    return run_page("library", **state)


def button(page: AppTest, label: str) -> object:
    return next(each for each in page.button if each.label == label)


def click(page: AppTest, label: str) -> AppTest:
    next(each for each in page.button if each.label == label and not each.disabled).click().run()
    assert not page.exception, page.exception
    return page


def text(page: AppTest) -> str:
    return "\n".join(texts(page))


class Started:
    """A stub of `jobs.start`."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Path], bool]] = []

    def __call__(
        self, index_dir: Path, paths: list[Path], *, retry: bool = False, **_: object
    ) -> None:
        self.calls.append((list(paths), retry))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    stub = Started()
    monkeypatch.setattr(jobs, "start", stub)
    return stub


def test_an_empty_library_says_what_to_do(index: Path, started: Started) -> None:
    page = run()
    assert "Add a folder" in text(page)
    assert f"scanonce index FOLDER --index {index}" in text(page)
    assert button(page, "Index now").disabled  # type: ignore[attr-defined]


def test_a_wrong_folder_is_refused_and_a_right_one_is_indexed(
    index: Path, tmp_path: Path, started: Started
) -> None:
    page = run()
    page.text_input(key="new_folder").input("/nowhere/**x**")
    click(page, "Add and index")
    assert r"\*\*x\*\* does not exist" in page.error[0].value, "shown as text"
    assert not started.calls
    page.text_input(key="new_folder").input(str(tmp_path))
    click(page, "Add and index")
    assert not page.error
    assert started.calls == [([tmp_path], False)]


def test_the_table_the_totals_and_the_failures_are_there(library: Path, started: Started) -> None:
    page = run()
    assert "3 videos, 2 min" in text(page)
    assert "1 file could not be indexed" in page.expander[0].label
    films = library.parent / "films"
    assert any(each.value == str(films / "**bad**.mp4") for each in page.text), "not as Markdown"
    assert "4 videos" in text(page)
    click(page, "Index now")
    click(page, "Retry all")
    click(page, "Retry")
    assert started.calls == [([films], False), ([films], True), ([films / "**bad**.mp4"], True)]


def test_no_name_reaches_markdown(library: Path) -> None:
    page = run()
    for element in (*page.markdown, *page.caption, *page.button, *page.expander):
        value = getattr(element, "value", "") or getattr(element, "label", "")
        assert "onerror" not in str(value)
        assert "**bad**" not in str(value)


def test_videos_are_filtered_by_name_and_state(library: Path) -> None:
    page = run(library_name="B.mp4")
    assert "1 of 4 videos" in text(page)
    page = run(library_state="failed")
    assert "1 of 4 videos" in text(page)
    page = run(library_state="offline")
    assert "1 of 4 videos" in text(page)
    page = run(library_name="zebra")
    assert "No video has such a name" in text(page)


def test_a_retry_of_a_file_that_is_gone_says_what_to_do(library: Path, started: Started) -> None:
    (library.parent / "films" / "**bad**.mp4").unlink()
    page = click(run(), "Retry")
    assert "plug its disk in" in page.error[0].value
    assert not started.calls


def test_forgetting_asks_first(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = []
    monkeypatch.setattr("scanonce.library.Library.forget", lambda _, paths: forgotten.extend(paths))
    page = run(forgetting=2)
    films = library.parent / "films"
    assert str(films / "b.mp4") in text(page)
    assert "The file itself is not touched" in text(page)
    click(page, "Keep")
    assert not forgotten
    assert "is not touched" not in text(page)
    click(run(forgetting=2), "Forget")
    assert forgotten == [films / "b.mp4"]


def test_nothing_is_forgotten_while_a_run_writes(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.library.Library.forget", lambda *_: pytest.fail("forgotten"))
    with jobs.recorded(library, [library]):
        page = click(run(forgetting=2), "Forget")
    assert "wait until that has ended" in page.error[0].value


def test_a_run_is_shown_and_can_be_paused(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(jobs, "pause", asked.append)
    with jobs.recorded(library, [library]) as recorder:
        recorder.report("loading the encoder **x**")
        page = run()
        assert any(each.value == "loading the encoder **x**" for each in page.text)
        assert button(page, "Index now").disabled  # type: ignore[attr-defined]
        assert button(page, "Retry").disabled  # type: ignore[attr-defined]
        click(page, "Pause")
    assert asked == [library]


def test_a_run_that_ended_early_can_be_resumed(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[Path] = []
    monkeypatch.setattr(jobs, "resume", resumed.append)
    with pytest.raises(KeyboardInterrupt), jobs.recorded(library, [library]):
        raise KeyboardInterrupt
    page = run()
    assert "Stopped in the terminal." in text(page)
    click(page, "Resume")
    assert resumed == [library]


def test_a_run_that_failed_says_why(library: Path) -> None:
    with pytest.raises(ConfigError), jobs.recorded(library, [library]):
        raise ConfigError("/a/**b** does not exist: plug its disk in")
    page = run()
    assert "Indexing failed." in page.error[0].value
    assert r"\*\*b\*\* does not exist\: plug its disk in" in page.error[0].value
    assert "Try again" in [each.label for each in page.button]


def test_a_damaged_catalogue_gives_a_message(library: Path) -> None:
    for path in library.glob("catalog.sqlite*"):
        path.write_bytes(b"no database" * 1000)
    page = run()
    assert "it is damaged" in page.error[0].value
    assert "Traceback" not in text(page)
