"""Watching: when a changed path is ready, and how errors, other writers and missing roots are handled."""

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import scanonce.indexer.watch
import tests.background
from scanonce.indexer.scan import ScanProblem
from scanonce.indexer.settings import IndexerSettings, WatchSettings
from scanonce.indexer.watch import (
    DELETION_PATIENCE_SECONDS,
    MAX_PATHS,
    Settling,
    Survey,
    collapse,
    watch,
)
from scanonce.storage.errors import IndexDirectoryError
from tests.background import in_background


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


@pytest.fixture
def settling(films: Path) -> Settling:
    return Settling([films], settle_seconds=5)


def write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


# ---------------------------------------------------------------- settling


def test_a_file_is_ready_once_it_has_stayed_the_same(settling: Settling, films: Path) -> None:
    film = write(films / "a.mp4")
    settling.add([film], now=100)
    assert settling.ready(now=104.9) == []
    assert settling.ready(now=105) == [film]
    assert settling.ready(now=200) == [], "it is given once"


def test_a_growing_file_waits_until_it_has_stopped(settling: Settling, films: Path) -> None:
    film = write(films / "a.mp4")
    settling.add([film], now=0)
    for now in range(1, 60):
        write(film, "x" * now)
        os.utime(film, (1, 1))  # only its size changes
        settling.add([film], now=now)
        assert settling.ready(now=now) == []
    assert settling.ready(now=63.9) == []
    assert settling.ready(now=64) == [film]


def test_a_file_that_is_overwritten_waits_until_writing_has_stopped(
    settling: Settling, films: Path
) -> None:
    film = write(films / "a.mp4")
    settling.add([film], now=0)
    os.utime(film, (2, 2))  # only its time changes
    assert settling.ready(now=6) == []
    assert settling.ready(now=11) == [film]


def test_repeated_events_of_a_file_that_stays_the_same_delay_nothing(
    settling: Settling, films: Path
) -> None:
    film = write(films / "a.mp4")
    for now in range(5):
        settling.add([film], now=now)
    assert settling.ready(now=5) == [film]


@pytest.mark.parametrize("mtime", [0, 1, 4_000_000_000, 8_000_000_000])
def test_a_time_of_change_long_ago_or_in_the_future_is_like_any_other(
    settling: Settling, films: Path, mtime: int
) -> None:
    film = write(films / "a.mp4")
    os.utime(film, (mtime, mtime))
    settling.add([film], now=0)
    assert settling.ready(now=5) == [film]


def test_the_wall_clock_does_not_matter(
    settling: Settling, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write(films / "a.mp4")
    settling.add([film], now=0)
    for seconds in (-1e9, 1e9):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: seconds)
        assert settling.ready(now=4) == []
    assert settling.ready(now=5) == [film]


def test_only_videos_below_the_roots_matter(films: Path, tmp_path: Path) -> None:
    index_dir = films / "index"
    settling = Settling([films], settle_seconds=5, ignored=[index_dir])
    wanted = write(films / "sub" / "A.MKV")
    others = [
        write(films / name)
        for name in ("notes.txt", ".a.mp4", ".hidden/a.mp4", "a.mp4.part", "mp4", "index/a.mp4")
    ]
    settling.add([wanted, *others, write(tmp_path / "elsewhere.mp4")], now=0)
    assert settling.ready(now=5) == [wanted]


def test_a_hidden_root_is_watched(tmp_path: Path) -> None:
    film = write(tmp_path / ".films" / "a.mp4")
    settling = Settling([tmp_path / ".films"], settle_seconds=5)
    settling.add([film], now=0)
    assert settling.ready(now=5) == [film]


def test_other_extensions_can_be_videos(films: Path) -> None:
    files = IndexerSettings(extensions=("xyz",))
    settling = Settling([films], files=files, settle_seconds=5)
    settling.add([write(films / "a.mp4"), write(films / "b.xyz")], now=0)
    assert names(settling.ready(now=5)) == ["b.xyz"]


def test_a_deletion_settles_too(settling: Settling, films: Path) -> None:
    settling.add([films / "gone.mp4"], now=0)
    assert settling.ready(now=4.9) == []
    assert settling.ready(now=5) == [films / "gone.mp4"]


def test_a_deletion_and_a_file_being_written_are_ready_together(
    settling: Settling, films: Path
) -> None:
    """A move to another disk: the copy grows while the original is deleted."""
    copy = write(films / "copy.mp4")
    settling.add([copy], now=0)
    settling.add([films / "original.mp4"], now=1)
    for now in range(1, 30):
        write(copy, "x" * now)
        assert settling.ready(now=now) == []
    assert names(settling.ready(now=34)) == ["copy.mp4", "original.mp4"]


def test_a_deletion_does_not_wait_for_ever(settling: Settling, films: Path) -> None:
    """A camera never stops writing."""
    camera = write(films / "camera.mp4")
    settling.add([camera, films / "gone.mp4"], now=0)
    ready = []
    for now in range(1, int(DELETION_PATIENCE_SECONDS) + 2):
        write(camera, "x" * now)
        os.utime(camera, (now, now))
        ready += settling.ready(now=now)
    assert names(ready) == ["gone.mp4"]
    assert settling.unsettled == [camera]


def test_a_rename_in_two_batches_of_events_is_ready_at_once(
    settling: Settling, films: Path
) -> None:
    new = write(films / "new.mp4")
    settling.add([films / "old.mp4"], now=0)
    assert settling.ready(now=2) == []
    settling.add([new], now=3)
    assert settling.ready(now=5) == [], "the deletion alone would delete the features"
    assert names(settling.ready(now=8)) == ["new.mp4", "old.mp4"]


def test_a_file_deleted_while_it_grows_is_a_deletion(settling: Settling, films: Path) -> None:
    film = write(films / "a.mp4")
    settling.add([film], now=0)
    write(film, "xx")
    assert settling.ready(now=4) == []
    film.unlink()
    assert settling.ready(now=6) == []
    assert settling.unsettled == []
    assert settling.ready(now=11) == [film]


def test_a_file_deleted_and_put_back_is_a_change(settling: Settling, films: Path) -> None:
    film = films / "a.mp4"
    settling.add([film], now=0)
    assert settling.ready(now=4) == []
    write(film)
    assert settling.ready(now=6) == []
    assert settling.unsettled == [film]
    assert settling.ready(now=11) == [film]


def test_a_folder_that_appears_is_ready_as_a_whole(settling: Settling, films: Path) -> None:
    for name in ("a.mp4", "deep/b.mp4", "deep/notes.txt"):
        write(films / "new" / name)
    settling.add([films / "new"], now=0)
    assert names(settling.unsettled) == ["new", "a.mp4", "b.mp4"]
    ready = settling.ready(now=5)
    assert collapse(ready, roots=[films], unsettled=[], most=MAX_PATHS) == [films / "new"]


def test_a_folder_waits_for_a_file_that_grows_in_it_and_the_others_do_not(
    settling: Settling, films: Path
) -> None:
    folder = films / "new"
    done, growing = write(folder / "done.mp4"), write(folder / "growing.mp4")
    settling.add([folder], now=0)
    write(growing, "xx")
    assert settling.ready(now=5) == [done]
    assert settling.unsettled == [folder, growing]
    assert settling.ready(now=10) == [folder, growing]


def test_files_that_came_into_a_new_folder_before_it_was_watched_are_found(
    settling: Settling, films: Path
) -> None:
    folder = films / "new"
    folder.mkdir()
    settling.add([folder], now=0)
    late = write(folder / "late.mp4")  # without an event
    assert settling.ready(now=4) == []
    assert settling.unsettled == [folder, late]
    assert settling.ready(now=9) == [folder, late]


def test_a_renamed_folder_is_ready_under_both_names_at_once(
    settling: Settling, films: Path
) -> None:
    write(films / "old" / "a.mp4")
    (films / "old").rename(films / "new")
    settling.add([films / "old", films / "new"], now=0)
    assert names(settling.ready(now=5)) == ["new", "a.mp4", "old"]


def test_a_folder_moved_out_is_a_deletion_whatever_its_name(
    settling: Settling, films: Path
) -> None:
    settling.add([films / "Season 1.5"], now=0)
    assert settling.ready(now=5) == [films / "Season 1.5"]


def test_a_folder_moved_in_and_out_again_is_a_deletion(
    settling: Settling, films: Path, tmp_path: Path
) -> None:
    write(films / "new" / "a.mp4")
    settling.add([films / "new"], now=0)
    (films / "new").rename(tmp_path / "out")
    assert settling.ready(now=4) == []
    assert names(settling.ready(now=9)) == ["new", "a.mp4"]


def test_five_thousand_changes_become_one_folder(settling: Settling, films: Path) -> None:
    there = [write(films / "burst" / f"{number}.mp4") for number in range(50)]
    gone = [films / "burst" / f"{number}.mp4" for number in range(50, 5_000)]
    alone = write(films / "alone.mp4")
    settling.add([alone, *there, *gone], now=0)
    ready = settling.ready(now=5)
    assert len(ready) == 5_001
    few = collapse(ready, roots=[films], unsettled=[], most=MAX_PATHS)
    assert few == [films / "alone.mp4", films / "burst"]


# ---------------------------------------------------------------- collapsing


def paths(*texts: str) -> list[Path]:
    return [Path(text) for text in texts]


ROOTS = paths("/r", "/s")


@pytest.mark.parametrize(
    ("given", "most", "expected"),
    [
        ([], 1, []),
        (["/r/a/1", "/r/b/1"], 2, ["/r/a/1", "/r/b/1"]),
        (["/r/a/1", "/r/a", "/r/a/b/2"], 9, ["/r/a"]),
        (["/r/a/1", "/r/a/2", "/r/b/3"], 2, ["/r/a", "/r/b"]),
        (["/r/a/x/1", "/r/a/x/2", "/r/b"], 2, ["/r/a/x", "/r/b"]),
        (["/r/a/1", "/r/b/2", "/r/c/3"], 2, ["/r"]),
        (["/r/1", "/r/2", "/s/1"], 1, ["/r", "/s"]),
        (["/r", "/s"], 1, ["/r", "/s"]),
    ],
)
def test_many_paths_become_their_folders(given: list[str], most: int, expected: list[str]) -> None:
    assert collapse(paths(*given), roots=ROOTS, unsettled=[], most=most) == paths(*expected)


def test_a_folder_with_an_unsettled_file_does_not_replace_its_files() -> None:
    given = paths("/r/a/1", "/r/a/2", "/r/b/1", "/r/b/2")
    few = collapse(given, roots=ROOTS, unsettled=paths("/r/a/growing"), most=1)
    assert few == paths("/r/a/1", "/r/a/2", "/r/b")


# ---------------------------------------------------------------- the watcher


class FakeIndex:
    """Compares files by name only: a file on the disk that is not in ``known`` differs."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self.known: set[Path] = set()
        self.runs: list[list[Path]] = []
        self.reported: list[str] = []
        self.other: str | None = None
        self.errors: list[Exception] = []
        self.problems: tuple[ScanProblem, ...] = ()
        self.asked = self.surveys = 0

    def busy(self) -> str | None:
        self.asked += 1
        return self.other

    def survey(self, paths: Sequence[Path]) -> Survey:
        self.surveys += 1
        there = {path for root in paths for path in (root, *root.rglob("*.mp4")) if path.is_file()}
        gone = {path for path in self.known if not path.exists()}
        gone = {path for path in gone if not {path, *path.parents}.isdisjoint(paths)}
        return Survey(tuple(sorted((there - self.known) | gone)), self.problems)

    def index(self, paths: Sequence[Path]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.runs.append(list(paths))
        differing = set(self.survey(paths).differing)
        self.known ^= differing

    def report(self, text: str) -> None:
        self.reported.append(text)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all waiting times."""
    for name, value in {
        "_TICK_SECONDS": 0.1,
        "_STEP_MILLISECONDS": 20,
        "_CHECK_SECONDS": 0.2,
        "_BUSY_SECONDS": 0.2,
        "_FIRST_PAUSE_SECONDS": 0.2,
        "_LONGEST_PAUSE_SECONDS": 0.4,
    }.items():
        monkeypatch.setattr(scanonce.indexer.watch, name, value)


@contextmanager
def watching(index: FakeIndex, **options: Any) -> Iterator[None]:
    """Watch in another thread."""
    settings = WatchSettings(settle_seconds=0.3, **options)
    stop = threading.Event()
    run = partial(watch, index.roots, index, settings=settings, stop=stop)
    with in_background(run, stop):
        yield


wait_for = tests.background.wait_for


@pytest.mark.usefixtures("hasty")
def test_earlier_changes_are_indexed_first_then_new_ones(
    films: Path,
) -> None:
    index = FakeIndex([films])
    before = write(films / "before.mp4")
    with watching(index):
        wait_for(lambda: index.known == {before})
        after = write(films / "sub" / "after.mp4")
        wait_for(lambda: index.known == {before, after})
        shutil.rmtree(films / "sub")
        wait_for(lambda: index.known == {before})
    assert [before] in index.runs


@pytest.mark.usefixtures("hasty")
def test_there_is_one_run_if_nothing_differs(films: Path) -> None:
    index = FakeIndex([films])
    index.known = {write(films / "a.mp4")}
    with watching(index):
        wait_for(lambda: index.runs == [[]])
        os.chmod(films / "a.mp4", 0o600)  # an event, but no difference
        new = write(films / "b.mp4")
        wait_for(lambda: len(index.runs) == 2)
    assert index.runs == [[], [new]]


@pytest.mark.usefixtures("hasty")
def test_a_run_gets_only_the_new_file_however_large_the_library(films: Path) -> None:
    index = FakeIndex([films])
    index.known = {write(films / f"{number}.mp4") for number in range(30)}
    with watching(index):
        wait_for(lambda: index.runs == [[]])
        new = write(films / "new.mp4")
        wait_for(lambda: len(index.runs) == 2)
    assert index.runs[1] == [new]


@pytest.mark.usefixtures("hasty")
def test_a_burst_is_indexed_by_its_folders(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanonce.indexer.watch, "MAX_PATHS", 10)
    monkeypatch.setattr(scanonce.indexer.watch, "_BURST", 20)  # so that everything is surveyed
    index = FakeIndex([films])
    with watching(index):
        wait_for(lambda: index.runs == [[]])
        burst = {write(films / f"{number % 5}" / f"{number}.mp4") for number in range(200)}
        wait_for(lambda: index.known == burst)
    assert max(map(len, index.runs)) <= 10


@pytest.mark.usefixtures("hasty")
def test_errors_are_reported_once_and_tried_again(films: Path) -> None:
    index = FakeIndex([films])
    full = IndexDirectoryError("the disk is full: make room")
    index.errors = [full, full, RuntimeError("out of memory")]
    film = write(films / "a.mp4")
    with watching(index):
        wait_for(lambda: index.known == {film})
        wait_for(lambda: len(index.reported) == 3)
    assert [text.splitlines()[0] for text in index.reported] == [
        "the disk is full: make room",
        "RuntimeError: out of memory",
        "it works again",
    ]


@pytest.mark.usefixtures("hasty")
def test_another_writer_is_waited_for_and_reported_once(films: Path) -> None:
    index = FakeIndex([films])
    index.other = "scanonce forget (process 5 on here)"
    film = write(films / "a.mp4")
    with watching(index):
        wait_for(lambda: index.asked == 3)
        assert index.runs == []
        index.other = None
        wait_for(lambda: index.known == {film})
    assert index.reported == [
        "the index is being written by scanonce forget (process 5 on here): waiting for it"
    ]


@pytest.mark.usefixtures("hasty")
def test_a_root_that_is_away_is_waited_for(films: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    index = FakeIndex([films, disk])
    with watching(index):
        wait_for(lambda: any("is not there now" in text for text in index.reported))
        here = write(films / "here.mp4")
        wait_for(lambda: index.known == {here})
        write(tmp_path / "ready" / "there.mp4")
        (tmp_path / "ready").rename(disk)
        wait_for(lambda: index.known == {here, disk / "there.mp4"})
    assert index.reported == [
        f"{disk} is not there now: waiting for it, its videos are kept",
        f"{disk} is there again",
    ]


@pytest.mark.usefixtures("hasty")
def test_a_root_that_goes_and_comes_back_is_watched_again(films: Path, tmp_path: Path) -> None:
    index = FakeIndex([films])
    write(films / "a.mp4")
    with watching(index):
        wait_for(lambda: len(index.known) == 1)
        films.rename(tmp_path / "unplugged")
        wait_for(lambda: len(index.reported) == 1)
        (tmp_path / "unplugged").rename(films)
        wait_for(lambda: len(index.reported) == 2)
        write(films / "b.mp4")
        wait_for(lambda: films / "b.mp4" in index.known)


@pytest.mark.usefixtures("hasty")
def test_a_name_that_is_not_utf8_does_not_end_watching(films: Path) -> None:
    index = FakeIndex([films])
    with watching(index):
        wait_for(lambda: index.runs == [[]])
        Path(os.fsdecode(os.fsencode(films) + b"/caf\xe9.avi")).write_bytes(b"a")
        wait_for(lambda: any("cannot be watched" in text for text in index.reported))
        film = write(films / "a.mp4")
        wait_for(lambda: index.known == {film})


@pytest.mark.usefixtures("hasty")
def test_folders_that_cannot_be_watched_are_surveyed(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_watches(*paths: Path, **options: object) -> Iterator[set[tuple[int, str]]]:
        raise OSError("OS file watch limit reached")
        yield set()

    monkeypatch.setattr("watchfiles.watch", no_more_watches)
    index = FakeIndex([films])
    with watching(index):
        wait_for(lambda: index.runs == [[]])
        film = write(films / "a.mp4")
        wait_for(lambda: index.known == {film})
    assert len(index.reported) == 1
    assert "fs.inotify.max_user_watches" in index.reported[0]


@pytest.mark.usefixtures("hasty")
def test_everything_is_surveyed_from_time_to_time_without_an_event(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*paths: Path, **options: object) -> Iterator[set[tuple[int, str]]]:
        while not options["stop_event"].is_set():  # type: ignore[attr-defined]
            time.sleep(0.05)
            yield set()

    monkeypatch.setattr("watchfiles.watch", silent)
    index = FakeIndex([films])
    with watching(index, rescan_minutes=0.01):
        wait_for(lambda: index.runs[:1] == [[]])
        film = write(films / "a.mp4")
        wait_for(lambda: index.known == {film})


@pytest.mark.usefixtures("hasty")
def test_polling_finds_changes(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanonce.indexer.watch, "_POLL_MILLISECONDS", 100)
    index = FakeIndex([films])
    with watching(index, force_polling=True):
        wait_for(lambda: index.runs == [[]])
        film = write(films / "a.mp4")
        wait_for(lambda: index.known == {film})


@pytest.mark.usefixtures("hasty")
def test_a_problem_is_reported_once_until_it_is_over(films: Path) -> None:
    index = FakeIndex([films])
    problems = index.problems = (ScanProblem(films / "locked", "unreadable"),)

    def wait_for_surveys(number: int) -> None:
        before = index.surveys
        wait_for(lambda: index.surveys >= before + number)

    with watching(index, rescan_minutes=0.001):
        wait_for_surveys(4)
        assert index.reported == [f"{films / 'locked'}: unreadable"]
        index.problems = ()
        wait_for_surveys(4)
        index.problems = problems
        wait_for(lambda: len(index.reported) == 2)
