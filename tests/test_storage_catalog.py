"""The catalogue: opening, recording, forgetting, and what callers see of errors."""

import logging
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import scanonce.storage.catalog.catalog
import scanonce.storage.catalog.database
import scanonce.storage.catalog.statements
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.database import SCHEMA_REVISION
from scanonce.storage.catalog.entries import ChangeMark, Content, FileStamp, RunCounts
from scanonce.storage.catalog.tables import Base
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.records import Video, VideoInfo

LIBRARY = Path("/films")
INFO = VideoInfo(duration_seconds=9.0, width=64, height=48, fps=25.0, codec="h264")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "catalog.sqlite"


@pytest.fixture
def catalog(place: Path) -> Iterator[Catalog]:
    with Catalog.open(place) as opened:
        opened.add_library(LIBRARY)
        yield opened


def content(name: str, *, fast: str | None = None) -> Content:
    return Content(uid=name, fast_hash=fast or name, size_bytes=100)


def stamp(name: str, *, mtime_ns: int = 1) -> FileStamp:
    return FileStamp(LIBRARY / name, 100, mtime_ns)


def record(catalog: Catalog, name: str, *paths: str, seconds: float = 8.0) -> int:
    """A searchable video with content ``name`` at these paths."""
    return catalog.record_indexed(
        content(name),
        [stamp(path) for path in paths],
        state="indexed",
        duration_seconds=seconds,
        num_frames=16,
        info=INFO,
    )


def sql(place: Path, statement: str) -> None:
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute(statement)


# ---------------------------------------------------------------- opening


def test_first_open_makes_an_empty_catalogue(place: Path) -> None:
    with Catalog.open(place) as catalog:
        totals = catalog.totals()
    assert (totals.searchable, totals.num_files, totals.searchable_seconds) == (0, 0, 0.0)


def test_commits_are_synced_and_readers_do_not_block(catalog: Catalog) -> None:
    with closing(catalog._connect()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)


def test_reopening_keeps_what_was_recorded(place: Path) -> None:
    with Catalog.open(place) as catalog:
        catalog.add_library(LIBRARY)
        record(catalog, "a", "a.mp4")
    with Catalog.open(place) as catalog:
        (video,) = catalog.videos()
    assert (video.uid, video.state, video.duration_seconds, video.num_frames) == (
        "a",
        "indexed",
        8.0,
        16,
    )
    assert video.path == LIBRARY / "a.mp4"


def test_opening_an_up_to_date_catalogue_runs_no_migration(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalog.open(place).close()
    monkeypatch.setattr(
        scanonce.storage.catalog.database, "_migrate", lambda connection: pytest.fail("migrated")
    )
    Catalog.open(place).close()


def test_a_failed_migration_leaves_nothing_and_the_next_open_starts_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate = scanonce.storage.catalog.database._migrate

    def stumble(connection: sqlalchemy.Connection) -> None:
        migrate(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(scanonce.storage.catalog.database, "_migrate", stumble)
    with pytest.raises(RuntimeError, match="power cut"):
        Catalog.open(place)
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    monkeypatch.undo()
    Catalog.open(place).close()


def test_migrations_make_the_tables_the_code_describes(catalog: Catalog) -> None:
    config = Config()
    config.set_main_option("script_location", str(scanonce.storage.catalog.database._MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_REVISION]
    with catalog._engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []


def test_two_processes_may_make_the_catalogue_at_once(place: Path) -> None:
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            Catalog.open(place).close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_catalogue_of_a_newer_version_is_refused(place: Path) -> None:
    Catalog.open(place).close()
    sql(place, "UPDATE alembic_version SET version_num = '0999'")
    for read_only in (False, True):
        with pytest.raises(IndexDirectoryError, match=r"newer scanonce \(schema 0999.*upgrade"):
            Catalog.open(place, read_only=read_only)


def test_a_database_of_somebody_else_is_refused_untouched(place: Path) -> None:
    sql(place, "CREATE TABLE holidays (day TEXT)")
    with pytest.raises(IndexDirectoryError, match="not a catalogue of scanonce"):
        Catalog.open(place)
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("holidays",)]


def test_a_searching_process_is_told_to_index_first(place: Path) -> None:
    with pytest.raises(IndexDirectoryError, match=r"no index at .*run `scanonce index PATH"):
        Catalog.open(place, read_only=True)
    assert not place.exists()


def test_an_unfinished_catalogue_is_no_index_to_search(place: Path) -> None:
    place.touch()
    with pytest.raises(IndexDirectoryError, match="unfinished: run `scanonce index"):
        Catalog.open(place, read_only=True)


def test_after_a_switch_the_index_directory_is_named_not_the_folder_of_its_data(
    tmp_path: Path,
) -> None:
    (tmp_path / "current").write_text("data-3")
    (tmp_path / "data-3").mkdir()
    (tmp_path / "data-3" / "catalog.sqlite").touch()
    with pytest.raises(IndexDirectoryError, match=f"--index {re.escape(str(tmp_path))}` once"):
        Catalog.open(tmp_path / "data-3" / "catalog.sqlite", read_only=True)


def test_a_read_only_catalogue_cannot_be_written(place: Path, catalog: Catalog) -> None:
    with (
        Catalog.open(place, read_only=True) as reader,
        pytest.raises(IndexDirectoryError, match="cannot be written: check the permissions"),
    ):
        reader.add_library(Path("/other"))


@pytest.mark.parametrize("name", ["what? #1 100%.sqlite", "ü €.sqlite"])
def test_any_file_name_can_be_opened(tmp_path: Path, name: str) -> None:
    Catalog.open(tmp_path / name).close()
    assert (tmp_path / name).is_file()


# ---------------------------------------------------------------- errors


def test_a_damaged_file_is_reported_with_the_next_step(place: Path) -> None:
    place.write_bytes(b"no database at all " * 100)
    with pytest.raises(IndexDirectoryError, match=r"damaged: restore a backup"):
        Catalog.open(place)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="does the index directory exist"):
        Catalog.open(tmp_path / "nowhere" / "catalog.sqlite")


def test_a_second_writer_waits_then_is_told_to(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalog.open(place).close()
    monkeypatch.setattr(scanonce.storage.catalog.database, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(sqlite3.connect(place, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            Catalog.open(place) as catalog,
            pytest.raises(IndexDirectoryError, match="another process is writing"),
        ):
            catalog.add_library(LIBRARY)
        other.execute("ROLLBACK")


def test_a_full_disk_is_reported_and_what_was_there_stays(catalog: Catalog) -> None:
    record(catalog, "a", "a.mp4")
    with catalog._engine.connect() as connection:  # goes back to the pool with its limit
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(IndexDirectoryError, match="disk is full: free some space"):
        catalog.record_failed([stamp("b.mp4")], "x" * 100_000, content=content("b"))
    assert [video.uid for video in catalog.videos()] == ["a"]


def test_attaching_to_a_video_that_is_gone_is_an_error_of_ours(catalog: Catalog) -> None:
    with pytest.raises(IndexDirectoryError, match="FOREIGN KEY"):
        catalog.attach_file(12345, stamp("a.mp4"))
    assert catalog.totals().num_files == 0


# ---------------------------------------------------------------- libraries


def test_adding_a_library_twice_keeps_the_first(catalog: Catalog) -> None:
    before = datetime.now(UTC)
    first = catalog.add_library(LIBRARY / "new")
    assert catalog.add_library(LIBRARY / "new") == first
    assert before - timedelta(seconds=1) < first.added_at <= datetime.now(UTC)
    assert [library.root for library in catalog.libraries()] == [LIBRARY, LIBRARY / "new"]


def test_forgetting_a_library_takes_its_videos_and_no_others(catalog: Catalog) -> None:
    catalog.add_library(Path("/films-too"))
    record(catalog, "a", "a.mp4", "sub/a.mp4")
    other = FileStamp(Path("/films-too/b.mp4"), 100, 1)
    catalog.record_indexed(
        content("b"), [other], state="indexed", duration_seconds=1.0, num_frames=1, info=INFO
    )
    assert [video.uid for video in catalog.forget_library(LIBRARY)] == ["a"]
    assert [video.uid for video in catalog.videos()] == ["b"]
    assert [library.root for library in catalog.libraries()] == [Path("/films-too")]


def test_a_file_outside_every_library_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="in no library"):
        catalog.record_failed([FileStamp(Path("/films2/a.mp4"), 1, 1)], "why", content=content("a"))
    assert catalog.videos() == []


def test_files_under_stops_at_the_folder_name(catalog: Catalog) -> None:
    record(catalog, "a", "a/1.mp4", "a/b/2.mp4", "ab/3.mp4", "a.mp4", "a0.mp4", "A/4.mp4", "a")
    found = catalog.files_under(LIBRARY / "a")
    assert [file.stamp.path.relative_to(LIBRARY).as_posix() for file in found] == [
        "a",
        "a/1.mp4",
        "a/b/2.mp4",
    ]
    assert len(catalog.files_under(Path("/"))) == 7


# ---------------------------------------------------------------- recording


def test_recording_makes_a_video_searchable_at_all_its_paths(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "z.mp4", "a.mp4")
    (video,) = catalog.videos([video_id])
    assert video.paths == (LIBRARY / "a.mp4", LIBRARY / "z.mp4")
    assert catalog.live_video_ids().tolist() == [video_id]


def test_recording_is_all_or_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(scanonce.storage.catalog.catalog, "put_files", stumble)
    with pytest.raises(RuntimeError, match="power cut"):
        record(catalog, "a", "a.mp4")
    assert catalog.videos_by_fast_hash("a") == []
    assert catalog.totals().num_files == 0


def test_a_partial_video_needs_a_reason_and_is_searchable(catalog: Catalog) -> None:
    facts = {"duration_seconds": 2.0, "num_frames": 4, "info": INFO}
    with pytest.raises(ValueError, match="reason"):
        catalog.record_indexed(content("a"), [stamp("a.mp4")], state="partial", **facts)  # type: ignore[arg-type]
    video_id = catalog.record_indexed(
        content("a"),
        [stamp("a.mp4")],
        state="partial",
        reason="cut off",
        **facts,  # type: ignore[arg-type]
    )
    assert catalog.live_video_ids().tolist() == [video_id]
    assert catalog.videos([video_id])[0].reason == "cut off"
    assert catalog.failures() == []


def test_a_failed_video_is_listed_but_not_searchable(catalog: Catalog) -> None:
    catalog.record_failed([stamp("a.mp4")], "no video stream", content=content("a"))
    assert catalog.live_video_ids().tolist() == []
    (failure,) = catalog.failures()
    assert (failure.path, failure.reason) == (LIBRARY / "a.mp4", "no video stream")


def test_a_failed_video_that_works_later_keeps_its_id(catalog: Catalog) -> None:
    failed = catalog.record_failed([stamp("a.mp4")], "no decoder", content=content("a"))
    assert record(catalog, "a", "a.mp4") == failed
    (video,) = catalog.videos()
    assert (video.state, video.reason) == ("indexed", None)


def test_an_unreadable_new_file_is_a_failure_without_a_video(catalog: Catalog) -> None:
    assert catalog.record_failed([stamp("a.mp4")], "permission denied") is None
    (file,) = catalog.files_under(LIBRARY)
    assert (file.video_id, file.problem) == (None, "permission denied")
    assert [failure.reason for failure in catalog.failures()] == ["permission denied"]


def test_an_unreadable_known_file_keeps_its_video_and_old_stamp(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4")
    catalog.record_failed([stamp("a.mp4", mtime_ns=2)], "permission denied")
    (file,) = catalog.files_under(LIBRARY)
    assert (file.video_id, file.stamp, file.problem) == (
        video_id,
        stamp("a.mp4"),
        "permission denied",
    )
    catalog.attach_file(video_id, stamp("a.mp4", mtime_ns=2))
    assert catalog.failures() == []


def test_known_content_shows_both_hashes_and_its_files(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4")
    catalog.attach_file(video_id, stamp("copy.mp4"), full_hash="full")
    record(catalog, "a", "a.mp4")  # indexed anew, without the full hash
    (known,) = catalog.videos_by_fast_hash("a")
    assert known.content == Content("a", "a", 100, "full")
    assert known.files == (stamp("a.mp4"), stamp("copy.mp4"))
    assert catalog.videos_by_fast_hash("b") == []


def test_two_contents_may_share_a_fast_hash(catalog: Catalog) -> None:
    for name in ("a", "b"):
        facts = {"duration_seconds": 2.0, "num_frames": 4, "info": INFO}
        catalog.record_indexed(
            content(name, fast="same"),
            [stamp(f"{name}.mp4")],
            state="indexed",
            **facts,  # type: ignore[arg-type]
        )
    known = catalog.videos_by_fast_hash("same")
    assert [(each.content.uid, each.files) for each in known] == [
        ("a", (stamp("a.mp4"),)),
        ("b", (stamp("b.mp4"),)),
    ]


# ---------------------------------------------------------------- forgetting


def test_forgetting_keeps_a_video_with_another_path(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4", "copy.mp4")
    assert catalog.forget_files([LIBRARY / "a.mp4"]) == []
    assert catalog.videos([video_id])[0].paths == (LIBRARY / "copy.mp4",)


def test_forgetting_the_last_path_returns_the_video(catalog: Catalog) -> None:
    video_id = record(catalog, "a", "a.mp4", "copy.mp4")
    record(catalog, "b", "b.mp4")
    gone = [LIBRARY / "copy.mp4", LIBRARY / "a.mp4", LIBRARY / "never there.mp4"]
    (removed,) = catalog.forget_files(gone)
    assert (removed.video_id, removed.uid) == (video_id, "a")
    assert removed.paths == (LIBRARY / "a.mp4", LIBRARY / "copy.mp4")
    assert [video.uid for video in catalog.videos()] == ["b"]


def test_a_replaced_file_leaves_its_old_video_invisible_until_it_is_forgotten(
    catalog: Catalog,
) -> None:
    old = record(catalog, "old", "a.mp4")
    new = record(catalog, "new", "a.mp4")
    assert catalog.live_video_ids().tolist() == [new]
    assert [video.video_id for video in catalog.videos()] == [new]
    assert catalog.totals().indexed == 1
    assert [(each.video_id, each.paths) for each in catalog.forget_files()] == [(old, ())]


def test_two_files_that_swap_contents_lose_neither(catalog: Catalog) -> None:
    a, b = record(catalog, "a", "1.mp4"), record(catalog, "b", "2.mp4")
    catalog.attach_file(b, stamp("1.mp4", mtime_ns=2))
    catalog.attach_file(a, stamp("2.mp4", mtime_ns=2))
    assert catalog.forget_files() == []
    assert [video.path.name for video in catalog.videos()] == ["2.mp4", "1.mp4"]


def test_video_ids_are_never_used_again(place: Path) -> None:
    with Catalog.open(place) as catalog:
        catalog.add_library(LIBRARY)
        first = record(catalog, "a", "a.mp4")
        catalog.forget_files([LIBRARY / "a.mp4"])
    with Catalog.open(place) as catalog:
        assert record(catalog, "a", "a.mp4") > first


def test_an_unreadable_file_does_not_keep_orphans_alive(catalog: Catalog) -> None:
    catalog.record_failed([stamp("odd.mp4")], "permission denied")  # a file with no video
    record(catalog, "a", "a.mp4")
    assert [video.uid for video in catalog.forget_files([LIBRARY / "a.mp4"])] == ["a"]


# ---------------------------------------------------------------- reading


def test_videos_are_chosen_by_id_and_state(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanonce.storage.catalog.statements, "_CHUNK", 2)
    ids = [record(catalog, name, f"{name}.mp4") for name in "abcde"]
    failed = catalog.record_failed([stamp("f.mp4")], "bad", content=content("f"))
    wanted = np.array([ids[4], ids[0], ids[2], 999, ids[0]])
    assert [video.uid for video in catalog.videos(wanted)] == ["a", "c", "e"]
    assert [video.video_id for video in catalog.videos(states=["failed"])] == [failed]
    assert catalog.videos([]) == []
    assert catalog.videos(ids, states=["failed"]) == []


def test_live_ids_can_be_those_of_one_folder(catalog: Catalog) -> None:
    inside = record(catalog, "a", "cats/a.mp4", "cats/again.mp4")
    both = record(catalog, "b", "b.mp4", "cats/b.mp4")
    record(catalog, "c", "cats and dogs/c.mp4")
    ids = catalog.live_video_ids(LIBRARY / "cats")
    assert ids.tolist() == [inside, both]
    assert ids.dtype == np.int64


def test_totals_count_a_content_once(catalog: Catalog) -> None:
    record(catalog, "a", "a.mp4", "copy.mp4", seconds=5.0)
    record(catalog, "b", "b.mp4", seconds=7.0)
    catalog.record_failed([stamp("c.mp4")], "bad", content=content("c"))
    totals = catalog.totals()
    assert (totals.indexed, totals.partial, totals.failed) == (2, 0, 1)
    assert (totals.searchable, totals.num_files) == (2, 4)
    assert (totals.searchable_seconds, totals.size_bytes) == (12.0, 300)


def test_a_reader_sees_whole_commits_while_another_process_writes(
    place: Path, catalog: Catalog
) -> None:
    """Each commit moves all of a video's files at once; a reader must never see some here, some there."""
    done = threading.Event()

    def write() -> None:
        with Catalog.open(place) as writer:
            for number in range(30):
                record(writer, f"content {number}", *(f"{part}.mp4" for part in range(20)))
                writer.forget_files()
        done.set()

    writing = threading.Thread(target=write)
    with Catalog.open(place, read_only=True) as reader:
        writing.start()
        sizes = set()
        while not done.is_set():
            sizes |= {len(video.paths) for video in reader.videos()}
        writing.join()
        assert reader.videos()[0].uid == "content 29"
    assert sizes <= {20}


def test_a_reader_notices_the_commits_of_others(place: Path, catalog: Catalog) -> None:
    with Catalog.open(place, read_only=True) as reader:
        token = reader.change_token()
        reader.videos()
        assert reader.change_token() == token
        record(catalog, "a", "a.mp4")
        assert reader.change_token() != token


def test_a_catalogue_notices_its_own_commits(catalog: Catalog) -> None:
    token = catalog.change_token()
    record(catalog, "a", "a.mp4")
    assert catalog.change_token() != token


# ---------------------------------------------------------------- runs


def test_runs_are_listed_newest_first_with_their_counts(catalog: Catalog) -> None:
    killed = catalog.runs.begin("index")
    finished = catalog.runs.begin("update")
    counts = RunCounts(seen=7, indexed=3, failed=1, skipped=3, video_seconds=90.5)
    catalog.runs.finish(finished, "done", counts)
    last, first = catalog.runs.last()
    assert (last.run_id, last.kind, last.outcome, last.counts) == (
        finished,
        "update",
        "done",
        counts,
    )
    assert last.finished_at is not None
    assert last.started_at <= last.finished_at
    assert last.started_at.tzinfo is UTC
    assert (first.run_id, first.finished_at, first.outcome) == (killed, None, None)
    assert [run.run_id for run in catalog.runs.last(limit=1)] == [finished]


def test_opening_says_nothing_to_the_log(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Catalog.open(place).close()
    assert caplog.records == []


# ---------------------------------------------------------------- failures that may pass, scans done again


def test_transient_failures_in_a_row_are_counted(catalog: Catalog) -> None:
    def fail(*, transient: bool) -> int | None:
        catalog.record_failed(
            [stamp("a.mp4")],
            "crashed",
            content=content("a"),
            detail="free(): invalid",
            transient=transient,
        )
        (file,) = catalog.files_under(LIBRARY)
        (known,) = catalog.videos_by_fast_hash("a")
        assert known.transient_failures == file.transient_failures
        return file.transient_failures

    assert [fail(transient=True), fail(transient=True)] == [1, 2]
    assert [(each.reason, each.detail) for each in catalog.failures()] == [
        ("crashed", "free(): invalid")
    ]
    assert fail(transient=False) is None
    assert fail(transient=True) == 1
    record(catalog, "a", "a.mp4")
    assert catalog.files_under(LIBRARY)[0].transient_failures is None
    assert catalog.failures() == []


def test_a_content_scanned_again_takes_all_files_of_the_old_scan(catalog: Catalog) -> None:
    old = record(catalog, "a", "a.mp4", "copy.mp4")
    other = record(catalog, "b", "b.mp4")
    new = catalog.record_indexed(
        content("a-2", fast="a"),
        [stamp("a.mp4", mtime_ns=5)],
        state="indexed",
        duration_seconds=9.0,
        num_frames=18,
        info=INFO,
        replaces=old,
    )
    assert new not in (old, other)
    (video,) = catalog.videos([old, new])
    assert (video.uid, [path.name for path in video.paths]) == ("a-2", ["a.mp4", "copy.mp4"])
    assert catalog.live_video_ids().tolist() == [other, new]
    assert catalog.uids() == {"a-2", "b"}
    assert catalog.forget_files() == []


def test_a_copy_is_whole_while_a_writer_goes_on(catalog: Catalog, tmp_path: Path) -> None:
    record(catalog, "a", "a.mp4")
    target = tmp_path / "copy.sqlite"
    target.write_bytes(b"an earlier file")
    catalog.copy_to(target)
    record(catalog, "b", "b.mp4")
    with Catalog.open(target) as copy:
        assert copy.uids() == {"a"}
        copy.mark_unscanned("not yet")
        assert (copy.totals().searchable, copy.totals().failed) == (0, 1)
        (file,) = copy.files_under(LIBRARY)
        assert (file.state, file.reason, file.transient_failures) == ("failed", "not yet", 0)
    assert catalog.totals().searchable == 2


def test_a_catalogue_on_a_read_only_disk_can_be_read(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog.open(place) as catalog:
        catalog.add_library(LIBRARY)
        record(catalog, "a", "a.mp4")
    monkeypatch.setattr("os.access", lambda *_: False)
    with Catalog.open(place, read_only=True) as catalog:
        assert catalog.totals().searchable == 1
        assert catalog.change_token() == catalog.change_token()
        assert [path.name for path in place.parent.iterdir()] == [place.name], "nothing is written"


# ---------------------------------------------------------------- following changes


class Follower:
    """A reader that never looks at more than what has changed."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.videos: dict[int, Video] = {}
        self.mark: ChangeMark | None = None

    def follow(self) -> tuple[int, int]:
        """Takes in what is new; how many videos were named as changed and as gone."""
        changes = self.catalog.searchable_changes(self.mark)
        if changes.is_all:
            self.videos.clear()
        self.videos.update((video.video_id, video) for video in changes.videos)
        for video_id in changes.gone:
            self.videos.pop(video_id, None)
        self.mark = changes.mark
        return len(changes.videos), len(changes.gone)

    @property
    def is_right(self) -> bool:
        everything = self.catalog.videos(states=SEARCHABLE)
        return self.videos == {video.video_id: video for video in everything}


def change_at_random(catalog: Catalog, rng: np.random.Generator, number: int) -> None:
    """One of all the ways in which videos and files change."""
    videos = catalog.videos()
    some = videos[rng.integers(len(videos))] if videos else None
    name = f"{number}.mp4"
    match rng.integers(9):
        case 0 | 1:
            record(catalog, f"c{number}", name, f"copies/{name}")
        case 2:
            catalog.record_failed([stamp(name)], "no stream", content=content(f"c{number}"))
        case 3 if some is not None:
            catalog.attach_file(some.video_id, stamp(name))
        case 4 if some is not None:  # a file takes on what another one holds
            other = videos[rng.integers(len(videos))]
            catalog.attach_file(some.video_id, replace(stamp(name), path=other.path))
        case 5 if some is not None:
            catalog.forget_files(some.paths[: rng.integers(1, 3)])
        case 6 if some is not None and some.state == "indexed":
            catalog.record_indexed(
                content(f"{some.uid.partition('-')[0]}-{number}"),
                [stamp(some.path.name)],
                state="partial",
                reason="cut off",
                duration_seconds=3.0,
                num_frames=6,
                info=INFO,
                replaces=some.video_id,
            )
        case 7 if some is not None and some.state == "failed":
            record(catalog, some.uid, some.path.name)
        case 8 if number % 5 == 0:
            catalog.mark_unscanned("not yet")
        case _:
            catalog.forget_library(LIBRARY / "copies")


def test_who_follows_changes_knows_what_who_reads_everything_knows(catalog: Catalog) -> None:
    rng = np.random.default_rng(4)
    often, seldom = Follower(catalog), Follower(catalog)
    for number in range(100):
        change_at_random(catalog, rng, number)
        often.follow()
        assert often.is_right, number
        if number % 10 == 9:
            seldom.follow()
            assert seldom.is_right, number


def test_what_changes_no_video_is_no_change_and_what_changes_one_is_one(catalog: Catalog) -> None:
    ids = [record(catalog, name, f"{name}.mp4") for name in "abcd"]
    reader = Follower(catalog)
    assert reader.follow() == (4, 0)
    catalog.labels.add(ids, ["holiday"])
    catalog.runs.finish(catalog.runs.begin("index"), "done", RunCounts())
    catalog.add_library(Path("/elsewhere"))
    catalog.record_failed([stamp("e.mp4")], "cannot be read")
    assert reader.follow() == (0, 0)
    catalog.attach_file(ids[1], stamp("copy.mp4"))
    assert reader.follow() == (1, 0)
    catalog.forget_files([stamp("a.mp4").path])
    assert reader.follow() == (0, 1)
    catalog.attach_file(ids[2], stamp("d.mp4"))  # which held another one
    assert reader.follow() == (1, 1)
    assert reader.is_right


def test_a_catalogue_that_took_the_place_of_another_is_read_anew(
    catalog: Catalog, tmp_path: Path
) -> None:
    record(catalog, "a", "a.mp4")
    backup = tmp_path / "backup.sqlite"
    reader = Follower(catalog)
    for name in ("b", "c"):  # the numbers of changes are the same afterwards, and mean other videos
        catalog.copy_to(backup)
        gone = record(catalog, name, f"{name}.mp4")
        reader.follow()
        catalog.replace_by(backup)
        record(catalog, f"not {name}", "other.mp4")
        reader.follow()
        assert reader.is_right
        assert reader.videos[gone].uid == f"not {name}"
        catalog.forget_files([stamp("other.mp4").path])


def test_a_catalogue_of_an_older_version_takes_the_place_of_a_new_one(
    catalog: Catalog, tmp_path: Path
) -> None:
    record(catalog, "a", "a.mp4")
    backup = tmp_path / "backup.sqlite"
    catalog.copy_to(backup)
    with closing(sqlite3.connect(backup)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in ("video_changes", "lineage"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE alembic_version SET version_num = '0003'")
        connection.commit()
    reader = Follower(catalog)
    reader.follow()
    catalog.replace_by(backup)
    reader.follow()
    record(catalog, "b", "b.mp4")
    assert reader.follow() == (1, 0)
    assert reader.is_right
