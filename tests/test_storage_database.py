"""The database file of a catalogue: opening, migrations, copies, and the errors a caller sees."""

import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from scanonce.storage.catalog import database
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.database import SCHEMA_REVISION
from scanonce.storage.catalog.tables import Base
from scanonce.storage.errors import IndexDirectoryError
from tests.catalogs import LIBRARY, content, record, running, sql, stamp

ALL_NAMES = "SELECT name FROM sqlite_master"


@pytest.fixture
def closed(catalog_path: Path) -> Path:
    """The file of an empty catalogue that nobody has open."""
    Catalog.open(catalog_path).close()
    return catalog_path


def migrations(connection: sqlalchemy.Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(database._MIGRATIONS))
    return config


def is_table_of_ours(name: str | None, kind: str, _: object) -> bool:
    """Leave out word indexes, whose tables SQLite makes."""
    return kind != "table" or "_words" not in str(name)


# ---------------------------------------------------------------- opening


def test_first_open_makes_an_empty_catalogue(
    catalog_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Catalog.open(catalog_path) as catalog:
        totals = catalog.totals()
    assert (totals.searchable, totals.num_files, totals.searchable_seconds) == (0, 0, 0.0)
    assert caplog.records == []


def test_commits_are_synced_and_readers_do_not_block(catalog: Catalog) -> None:
    with closing(catalog._connect()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (10_000,)


def test_reopening_keeps_what_was_recorded(catalog_path: Path, catalog: Catalog) -> None:
    record(catalog, "a")
    catalog.close()
    with Catalog.open(catalog_path) as again:
        (video,) = again.videos()
    facts = (video.uid, video.state, video.duration_seconds, video.num_frames, video.path)
    assert facts == ("a", "indexed", 8.0, 16, LIBRARY / "a.mp4")


def test_each_beginning_of_the_log_is_a_state_that_was_committed(
    catalog_path: Path, catalog: Catalog, tmp_path: Path
) -> None:
    """A power cut leaves any part of what SQLite has not synced; a commit that returned is synced."""
    log = catalog_path.with_name(f"{catalog_path.name}-wal")
    sizes, states = [log.stat().st_size], [titles(catalog)]
    for change in (
        lambda: record(catalog, "a"),
        lambda: record(catalog, "b", "b.mp4", "copy.mp4"),
        lambda: catalog.forget_files([LIBRARY / "a.mp4"]),
        lambda: record(catalog, "c"),
    ):
        change()
        sizes.append(log.stat().st_size)
        states.append(titles(catalog))
    assert sizes == sorted(set(sizes)), "each commit makes the log longer"
    database_file, whole = catalog_path.read_bytes(), log.read_bytes()
    for cut in sorted(
        {*range(sizes[0], sizes[-1], 9_973), *sizes, *(size - 1 for size in sizes[1:])}
    ):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / catalog_path.name).write_bytes(database_file)
        (folder / log.name).write_bytes(whole[:cut])
        with Catalog.open(folder / catalog_path.name) as opened:
            committed = max(number for number, size in enumerate(sizes) if size <= cut)
            assert titles(opened) == states[committed], cut
            assert opened.integrity_problems() == []


def titles(catalog: Catalog) -> list[tuple[str, Path]]:
    return sorted((video.uid, path) for video in catalog.videos() for path in video.paths)


def test_opening_an_up_to_date_catalogue_runs_no_migration(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_migrate", lambda connection: pytest.fail("migrated"))
    Catalog.open(closed).close()


def test_a_failed_migration_leaves_nothing_and_the_next_open_starts_over(
    catalog_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate = database._migrate

    def stumble(connection: sqlalchemy.Connection) -> None:
        migrate(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(database, "_migrate", stumble)
    with pytest.raises(RuntimeError, match="power cut"):
        Catalog.open(catalog_path)
    assert sql(catalog_path, ALL_NAMES) == []
    monkeypatch.undo()
    Catalog.open(catalog_path).close()


def test_migrations_make_the_tables_the_code_describes(catalog: Catalog) -> None:
    assert ScriptDirectory.from_config(migrations()).get_heads() == [SCHEMA_REVISION]
    with catalog._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": is_table_of_ours})
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("before", ["0001", "0002"])
def test_a_catalogue_without_labels_gets_their_table_and_keeps_its_videos(
    catalog_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def to_older(connection: sqlalchemy.Connection) -> None:
        command.upgrade(migrations(connection), before)

    with monkeypatch.context() as patch:
        patch.setattr(database, "_migrate", to_older)
        Catalog.open(catalog_path).close()
    names = "uid, fast_hash, state, duration_seconds, num_frames, width, height, fps, codec"
    for statement in (
        "INSERT INTO libraries VALUES (1, '/films', '2024-01-01 00:00:00')",
        f"INSERT INTO videos ({names}, size_bytes, indexed_at) "
        "VALUES ('a', 'a', 'indexed', 8, 16, 64, 48, 25, 'h264', 1, '2024-01-01 00:00:00')",
        "INSERT INTO files VALUES (1, 1, '/films/a.mp4', 1, 1, 1, NULL)",
    ):
        sql(catalog_path, statement)
    with Catalog.open(catalog_path) as catalog:
        (video,) = catalog.videos()
        assert (video.uid, catalog.labels.counts()) == ("a", {})
        catalog.labels.add([video.video_id], ["holiday"])
        assert catalog.labels.counts() == {"holiday": 1}
    assert sql(catalog_path, "SELECT * FROM alembic_version") == [(SCHEMA_REVISION,)]


def test_two_processes_may_make_the_catalogue_at_once(catalog_path: Path) -> None:
    with running(lambda: Catalog.open(catalog_path).close(), times=4):
        pass


def test_a_catalogue_of_a_newer_version_is_refused(closed: Path) -> None:
    sql(closed, "UPDATE alembic_version SET version_num = '0999'")
    for read_only in (False, True):
        with pytest.raises(IndexDirectoryError, match=r"newer scanonce \(schema 0999.*upgrade"):
            Catalog.open(closed, read_only=read_only)


def test_a_database_of_another_program_is_refused_untouched(catalog_path: Path) -> None:
    sql(catalog_path, "CREATE TABLE holidays (day TEXT)")
    with pytest.raises(IndexDirectoryError, match="not a catalogue of scanonce"):
        Catalog.open(catalog_path)
    assert sql(catalog_path, ALL_NAMES) == [("holidays",)]


def test_a_searching_process_needs_a_finished_catalogue(catalog_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match=r"no index at .*run `scanonce index PATH"):
        Catalog.open(catalog_path, read_only=True)
    assert not catalog_path.exists()
    catalog_path.touch()
    with pytest.raises(IndexDirectoryError, match="unfinished: run `scanonce index"):
        Catalog.open(catalog_path, read_only=True)


def test_after_a_switch_the_index_directory_is_named_not_the_folder_of_its_data(
    tmp_path: Path,
) -> None:
    (tmp_path / "current").write_text("data-3")
    (tmp_path / "data-3").mkdir()
    (tmp_path / "data-3" / "catalog.sqlite").touch()
    with pytest.raises(IndexDirectoryError, match=f"--index {re.escape(str(tmp_path))}` once"):
        Catalog.open(tmp_path / "data-3" / "catalog.sqlite", read_only=True)


@pytest.mark.parametrize("name", ["what? #1 100%.sqlite", "ü €.sqlite"])
def test_any_file_name_can_be_opened(tmp_path: Path, name: str) -> None:
    Catalog.open(tmp_path / name).close()
    assert (tmp_path / name).is_file()


# ---------------------------------------------------------------- errors


def test_a_damaged_file_is_reported_with_the_next_step(catalog_path: Path) -> None:
    catalog_path.write_bytes(b"no database at all " * 100)
    with pytest.raises(IndexDirectoryError, match=r"damaged: restore a backup"):
        Catalog.open(catalog_path)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="does the index directory exist"):
        Catalog.open(tmp_path / "nowhere" / "catalog.sqlite")


def test_a_read_only_catalogue_cannot_be_written(closed: Path) -> None:
    with (
        Catalog.open(closed, read_only=True) as reader,
        pytest.raises(IndexDirectoryError, match="cannot be written: check the permissions"),
    ):
        reader.add_library(Path("/other"))


def test_a_second_writer_waits_and_then_gives_up(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    with closing(sqlite3.connect(closed, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with (
            Catalog.open(closed) as catalog,
            pytest.raises(IndexDirectoryError, match="another process is writing"),
        ):
            catalog.add_library(LIBRARY)
        other.execute("ROLLBACK")


def test_a_full_disk_is_reported_and_earlier_videos_stay(catalog: Catalog) -> None:
    record(catalog, "a")
    with catalog._engine.connect() as connection:  # goes back to the pool with its limit
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(IndexDirectoryError, match="disk is full: free some space"):
        catalog.record_failed([stamp("b.mp4")], "x" * 100_000, content=content("b"))
    assert [video.uid for video in catalog.videos()] == ["a"]


def test_attaching_to_a_video_that_is_gone_is_an_error_of_ours(catalog: Catalog) -> None:
    with pytest.raises(IndexDirectoryError, match="FOREIGN KEY"):
        catalog.attach_file(12345, stamp("a.mp4"))
    assert catalog.totals().num_files == 0


# ---------------------------------------------------------------- readers and copies


def test_a_reader_sees_whole_commits_while_another_process_writes(
    catalog_path: Path, catalog: Catalog
) -> None:
    """Each commit moves all of a video's files at once; a reader must never see some here, some there."""

    def write() -> None:
        with Catalog.open(catalog_path) as writer:
            for number in range(30):
                record(writer, f"c{number}", *(f"{part}.mp4" for part in range(20)))
                writer.forget_files()

    with Catalog.open(catalog_path, read_only=True) as reader, running(write) as done:
        sizes = set()
        while not done.is_set():
            sizes |= {len(video.paths) for video in reader.videos()}
        assert reader.videos()[0].uid == "c29"
    assert sizes <= {20}


def test_a_reader_notices_the_commits_of_others_and_its_own(
    catalog_path: Path, catalog: Catalog
) -> None:
    with Catalog.open(catalog_path, read_only=True) as reader:
        token, own = reader.change_token(), catalog.change_token()
        reader.videos()
        assert reader.change_token() == token
        record(catalog, "a")
        assert reader.change_token() != token
        assert catalog.change_token() != own


def test_a_copy_is_whole_while_a_writer_goes_on(catalog: Catalog, tmp_path: Path) -> None:
    record(catalog, "a")
    target = tmp_path / "copy.sqlite"
    target.write_bytes(b"an earlier file")
    catalog.copy_to(target)
    record(catalog, "b")
    with Catalog.open(target) as copy:
        assert copy.uids() == {"a"}
        copy.mark_unscanned("not yet")
        assert (copy.totals().searchable, copy.totals().failed) == (0, 1)
        (file,) = copy.files_under(LIBRARY)
        assert (file.state, file.reason, file.transient_failures) == ("failed", "not yet", 0)
    assert catalog.totals().searchable == 2


def test_a_catalogue_on_a_read_only_disk_can_be_read(
    catalog_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(catalog, "a")
    catalog.close()
    monkeypatch.setattr("os.access", lambda *_: False)
    with Catalog.open(catalog_path, read_only=True) as reader:
        assert reader.totals().searchable == 1
        assert reader.change_token() == reader.change_token()
        assert [path.name for path in catalog_path.parent.iterdir()] == [catalog_path.name]
