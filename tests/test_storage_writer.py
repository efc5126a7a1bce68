"""One writer at a time; the next writer removes what a dead writer left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout, switch
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.stores.thumbnails import Thumbnails, ThumbnailStore
from scanonce.storage.writer import Owner, owner, writing

HOLD = """
import sys, time
from pathlib import Path
from scanonce.storage.layout import IndexLayout
from scanonce.storage.writer import writing
with writing(IndexLayout.of(Path(sys.argv[1])), "scanonce index"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    return IndexLayout.of(tmp_path / "index")


@pytest.fixture
def note(layout: IndexLayout) -> Path:
    """The note of a writer."""
    return layout.root / "writer.json"


@contextmanager
def held_by_another_process(layout: IndexLayout) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(layout.root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def write_features(layout: IndexLayout, uid: str) -> Path:
    store = FeatureStore(layout.features)
    store.write(uid, FrameFeatures(np.ones((2, 4), np.float16), np.arange(2.0), 1.0))
    return store.path(uid)


def record(layout: IndexLayout, uid: str) -> None:
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(Path("/films"))
        catalog.record_indexed(
            Content(uid, uid, 10),
            [FileStamp(Path("/films", uid), 10, 1)],
            state="indexed",
            duration_seconds=1.0,
            num_frames=2,
            info=VideoInfo(1.0, 8, 8, 2.0, "h264"),
        )


def test_a_second_process_gets_the_writer_its_age_and_the_next_step(
    layout: IndexLayout, note: Path
) -> None:
    with held_by_another_process(layout) as process:
        values = json.loads(note.read_text())
        note.write_text(json.dumps({**values, "since": values["since"] - 3725}))
        with pytest.raises(IndexDirectoryError) as caught, writing(layout, "scanonce forget"):
            pass
    message = str(caught.value)
    for part in (f"process {process.pid} on {values['host']}", "scanonce index", "1:02:0", "wait"):
        assert part in message
    assert str(layout.root) in message


def test_the_owner_is_known_to_others_while_it_writes_and_forgotten_after(
    layout: IndexLayout, note: Path
) -> None:
    assert owner(layout) is None, "there is no index yet"
    with held_by_another_process(layout) as process:
        held = owner(layout)
        assert held is not None
        assert (held.pid, held.doing) == (process.pid, "scanonce index")
        assert 0 <= held.age_seconds < 60
    with writing(layout, "test"):
        pass
    assert owner(layout) is None
    assert not note.exists()


def test_the_lock_of_a_killed_process_is_free_and_its_leftovers_are_removed(
    layout: IndexLayout, note: Path
) -> None:
    with held_by_another_process(layout) as process:
        record(layout, "aa11")
        kept = write_features(layout, "aa11")
        orphan = write_features(layout, "bb22")
        anchors = AnchorStore(layout.anchors / "50e-0")
        anchors.write("bb22", AnchorArrays(np.ones((1, 4), np.float16), np.ones(1, np.float32)))
        thumbnails = ThumbnailStore(layout.thumbnails)
        thumbnails.write("bb22", Thumbnails(np.zeros(1), (b"jpeg",)))
        unfinished = [
            layout.folder / ".tmp-1",
            kept.with_name(".tmp-2"),
            orphan.with_name(".tmp-3"),
        ]
        for path in unfinished:
            path.write_bytes(b"half")
        staging = [layout.vectors / "staging-1", layout.anchors / "50e-0" / "vectors"]
        for folder in staging:
            folder.mkdir(parents=True)
            (folder / "base.f16").write_bytes(b"half")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert note.exists()
        assert owner(layout) is None, "nobody writes it now"
        with writing(layout, "test") as died:
            assert died is not None
            assert (died.pid, died.doing) == (process.pid, "scanonce index")
            orphans = [orphan, anchors.path("bb22"), thumbnails.path("bb22")]
            remaining = [path for path in [*unfinished, *staging, *orphans] if path.exists()]
            assert not remaining
            assert kept.exists()
            assert json.loads(note.read_text())["pid"] == os.getpid()
    assert not note.exists()


def test_a_writer_that_died_before_its_note_was_there_leaves_no_file(layout: IndexLayout) -> None:
    layout.root.mkdir()
    (layout.root / ".tmp-1").write_bytes(b"half a note")
    with writing(layout, "test") as died:
        assert died is None
    assert [path.name for path in layout.root.iterdir()] == ["writer.lock"]


def test_a_writer_after_one_that_ended_well_searches_for_no_leftovers(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(layout, "first"):
        pass
    monkeypatch.setattr(
        "scanonce.storage.writer.remove_leftovers", lambda layout: pytest.fail("cleared")
    )
    with writing(layout, "second") as died:
        assert died is None


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b'{"pid": 1}', b'{"pid": "x"'])
def test_a_note_that_makes_no_sense_is_of_a_writer_that_died(
    layout: IndexLayout, note: Path, content: bytes
) -> None:
    layout.root.mkdir()
    note.write_bytes(content)
    record(layout, "aa11")
    orphan = write_features(layout, "bb22")
    with writing(layout, "test") as died:
        assert died is not None
        assert not orphan.exists()


def test_without_a_catalogue_nothing_that_was_stored_is_removed(
    layout: IndexLayout, note: Path
) -> None:
    stored = write_features(layout, "aa11")
    note.write_bytes(b"")
    with writing(layout, "test") as died:
        assert died is not None
    assert stored.exists()


def test_of_the_generations_a_dead_writer_left_two_are_kept(
    layout: IndexLayout, note: Path
) -> None:
    for number in range(1, 5):
        (layout.vectors / f"{number:010d}").mkdir(parents=True)
    note.write_bytes(b"")
    with writing(layout, "test"):
        kept = sorted(path.name for path in layout.vectors.iterdir())
        assert kept == ["0000000003", "0000000004"]


def test_an_error_inside_frees_the_lock_and_makes_the_next_writer_clean_up(
    layout: IndexLayout, note: Path
) -> None:
    def fail() -> None:
        with writing(layout, "first"):
            record(layout, "aa11")
            write_features(layout, "bb22")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert note.exists()
    assert owner(layout) is None
    with writing(layout, "second") as died:
        assert died is not None
        assert died.doing == "first"
        assert not FeatureStore(layout.features).has("bb22")
    assert not note.exists()


def test_within_itself_it_holds_nothing_more(layout: IndexLayout, note: Path) -> None:
    with writing(layout, "outer"):
        with writing(layout, "inner") as died:
            assert died is None
        assert json.loads(note.read_text())["doing"] == "outer"
        assert owner(layout) is not None, "the inner one has let nothing go"
    assert owner(layout) is None


def test_the_same_index_by_another_name_is_held_too(layout: IndexLayout, tmp_path: Path) -> None:
    with writing(layout, "outer"):
        (tmp_path / "link").symlink_to(layout.root)
        with writing(IndexLayout.of(tmp_path / "link"), "inner") as died:
            assert died is None


def test_another_thread_is_refused(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.storage.writer._PATIENCE_SECONDS", 0.05)

    def second() -> None:
        with writing(layout, "second"):
            pass

    with ThreadPoolExecutor(1) as pool:
        with writing(layout, "first"):
            error = pool.submit(second).exception()
        assert isinstance(error, IndexDirectoryError)
        assert f"process {os.getpid()}" in str(error)
        assert "first" in str(error)
        pool.submit(second).result()


def test_reading_the_owner_stops_no_writer(layout: IndexLayout) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            owner(layout)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for _ in range(20):
                with writing(layout, "test"):
                    pass
        finally:
            stop.set()
        looking.result()


def test_two_indexes_are_written_at_once(tmp_path: Path) -> None:
    first, second = IndexLayout.of(tmp_path / "a"), IndexLayout.of(tmp_path / "b")
    with writing(first, "test"), writing(second, "test"):
        assert owner(first) is not None
        assert owner(second) is not None


def test_an_index_in_staging_has_its_own_lock(layout: IndexLayout) -> None:
    with writing(layout, "scanonce index"):
        with writing(layout.staging, "scanonce reindex"):
            assert (layout.staging.folder / "writer.json").exists()
        assert owner(layout) is not None


def test_an_index_that_was_switched_while_a_writer_waited_is_refused(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()

    class SeenLock(FileLock):
        def acquire(self, *arguments: Any, **options: Any) -> Any:
            waits.set()
            return super().acquire(*arguments, **options)

    def second() -> None:
        with writing(layout, "second"):
            pytest.fail("it must not be written")

    with ThreadPoolExecutor(1) as pool:
        with writing(layout, "first"):
            monkeypatch.setattr("scanonce.storage.writer.FileLock", SeenLock)
            waiting = pool.submit(second)
            assert waits.wait(600)
            switch(layout.staging)
        with pytest.raises(IndexDirectoryError, match=r"was replaced meanwhile, .*: run again"):
            waiting.result()


def test_an_index_that_was_switched_before_is_refused_and_not_made_again(
    layout: IndexLayout,
) -> None:
    second = layout.staging
    third = second.staging
    with writing(layout, "first"):
        switch(third)
    for old in (layout, second):
        with pytest.raises(IndexDirectoryError, match="was replaced"), writing(old, "test"):
            pytest.fail("it must not be written")
    assert not second.folder.exists()


def test_a_clock_that_was_set_back_makes_no_negative_age(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Owner(1, "host", "test", since=time.time())
    monkeypatch.setattr("time.time", lambda: begun.since - 3600)
    assert begun.age_seconds == 0


@pytest.mark.parametrize("call", ["mkdir", "open", "replace", "fsync"])
def test_a_folder_that_cannot_be_written_is_an_error_of_ours(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with (
            pytest.raises(IndexDirectoryError, match="Read-only file system"),
            writing(layout, "x"),
        ):
            pytest.fail("it must not be written")
    with writing(layout, "test"):
        assert owner(layout) is not None


def test_a_file_instead_of_the_index_directory_is_an_error_of_ours(layout: IndexLayout) -> None:
    layout.root.write_bytes(b"a file")
    with pytest.raises(IndexDirectoryError, match="an index is a folder"), writing(layout, "test"):
        pytest.fail("it must not be written")
