"""Backups of an index in use: whole at every moment, whatever ends the copying; and back again."""

import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scanonce.indexer.anchors import derive_anchors
from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.verify import verify
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.storage.backup.backup import backup, is_backup, restore
from scanonce.storage.backup.index_copy import CopyProgress, CopyReport
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout, switch
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import newest_generation
from scanonce.storage.writer import owner, writing
from tests.colours import ColourEncoder, write_film
from tests.indexes import publish_all

SETTINGS = IndexerSettings(decode_workers=1)
STORAGE = StorageSettings()


class OtherEncoder(ColourEncoder):
    """Sees the same colours, but says it is another one, and its features are."""

    fingerprint = "d" * 64

    def encode_frames(
        self, frames: "np.typing.NDArray[np.uint8]"
    ) -> "np.typing.NDArray[np.float32]":
        return super().encode_frames(frames) * 2


class Place:
    """Films, their index, a spare film and a folder for the backup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.films, self.index_dir, self.target = root / "films", root / "index", root / "backup"

    @property
    def layout(self) -> IndexLayout:
        return IndexLayout.of(self.index_dir)

    def index(self) -> None:
        index_library(
            [self.films],
            layout=self.layout,
            encoder=ColourEncoder(),
            settings=SETTINGS,
            storage=STORAGE,
        )

    def add(self, name: str) -> None:
        shutil.copy(self.root / "spare.mp4", self.films / name)
        self.index()

    def remove(self, name: str) -> None:
        (self.films / name).unlink()
        self.index()

    def backup(self, observe: Callable[[CopyProgress], None] = lambda _: None) -> CopyReport:
        complete = partial(publish_all, settings=STORAGE)
        return backup(self.layout, self.target, complete=complete, on_progress=observe)

    def restore(self, *, replace: bool = True) -> CopyReport:
        complete = partial(publish_all, settings=STORAGE)
        return restore(self.target, self.index_dir, replace=replace, complete=complete)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("backup") / "work"
    place = Place(work)
    write_film(place.films / "a.mp4", [("red", 8), ("blue", 6)])
    write_film(place.films / "b.mp4", [("green", 9)])
    write_film(work / "spare.mp4", [("white", 6), ("black", 3)])
    place.index()
    shutil.copytree(work, work.with_name("template"))
    return work.with_name("template")


@pytest.fixture
def place(template: Path) -> Place:
    work = template.with_name("work")
    shutil.rmtree(work)
    shutil.copytree(template, work)
    return Place(work)


def names(root: Path) -> set[str]:
    with Catalog.open(IndexLayout.of(root).catalog, read_only=True) as catalog:
        return {path.name for video in catalog.videos() for path in video.paths}


def video(root: Path, name: str) -> Video:
    with Catalog.open(IndexLayout.of(root).catalog, read_only=True) as catalog:
        return next(each for each in catalog.videos() if each.path.name == name)


def answers(root: Path) -> list[tuple[str, float, float, float]]:
    layout = IndexLayout.of(root)
    catalog = Catalog.open(layout.catalog, read_only=True)
    with SearchEngine(layout, catalog, ColourEncoder(), SearchSettings(cutoff=0)) as engine:
        return [
            (each.path.name, each.span.start_seconds, each.span.end_seconds, each.score)
            for text in ("red", "green", "blue", "white")
            for each in engine.search(text).moments
        ]


def assert_whole(root: Path) -> None:
    """Nothing differs but the films, which move on; queries are answered."""
    found = verify(IndexLayout.of(root), alone=True)
    kinds = [each for each in found.differences if not each.kind.startswith("file ")]
    assert kinds == []
    assert answers(root)


def content_files(root: Path) -> dict[str, int]:
    """Inode by name of every file of a content."""
    folder = IndexLayout.of(root).folder
    return {path.name: path.stat().st_ino for path in folder.glob("features/??/*")}


# ------------------------------------------------ backup


def test_a_backup_is_an_index_that_answers_alike(place: Place) -> None:
    before = answers(place.index_dir)
    report = place.backup()
    assert (report.videos, report.damaged, report.missing) == (2, (), ())
    assert report.layout == IndexLayout.of(place.target)
    assert answers(place.target) == before
    assert verify(IndexLayout.of(place.target), full=True).differences == ()
    assert is_backup(place.target)
    assert not is_backup(place.index_dir)
    copied = {path.stat().st_ino for path in place.target.rglob("*.safetensors")}
    assert copied.isdisjoint(path.stat().st_ino for path in place.index_dir.rglob("*.safetensors"))


def test_a_second_backup_copies_only_what_is_new(place: Place) -> None:
    place.backup()
    before = content_files(place.target)
    report = place.backup()
    assert (report.files_copied, report.files_kept) == (0, 4)
    place.add("c.mp4")
    report = place.backup()
    assert report.files_kept == 4
    new = list(report.layout.folder.rglob("*.safetensors"))
    vectors = newest_generation(place.layout.vectors, dim=4)
    assert vectors is not None
    assert len(new) == 6
    assert report.files_copied == 2 + len(list(vectors.path.iterdir()))
    after = content_files(place.target)
    assert {name: after[name] for name in before} == before, "what was there is not written again"
    assert_whole(place.target)


def test_what_the_index_has_no_more_goes_from_the_backup(place: Place) -> None:
    place.add("c.mp4")
    place.backup()
    place.remove("c.mp4")
    place.backup()
    assert names(place.target) == {"a.mp4", "b.mp4"}
    assert len(content_files(place.target)) == 2
    assert len(list(IndexLayout.of(place.target).vectors.iterdir())) == 1
    assert_whole(place.target)


def test_a_running_search_on_the_backup_follows(place: Place) -> None:
    place.backup()
    layout = IndexLayout.of(place.target)
    catalog = Catalog.open(layout.catalog, read_only=True)
    with SearchEngine(layout, catalog, ColourEncoder(), SearchSettings(cutoff=0)) as engine:
        assert "c.mp4" not in {each.path.name for each in engine.search("white").moments}
        place.add("c.mp4")
        place.backup()
        assert engine.search("white").moments[0].path.name == "c.mp4"


def test_progress_ends_with_everything(place: Place) -> None:
    told: list[CopyProgress] = []
    report = place.backup(told.append)
    last = told[-1]
    assert len(told) == report.files_copied
    assert last.bytes_done == last.bytes_total == report.bytes_copied


def test_a_backup_during_indexing_and_deleting_is_of_one_moment(place: Place) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                film = place.films / f"c{number % 3}.mp4"
                if film.exists():
                    film.unlink()
                else:  # another content each time
                    content = (place.root / "spare.mp4").read_bytes()
                    film.write_bytes(content + number.to_bytes(8, "little"))
                place.index()
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        for number in range(100):
            place.backup()
            seen.add(frozenset(names(place.target)))
            assert_whole(place.target)
            if number > 6 and len(seen) > 1:
                break
    finally:
        stop.set()
        writer.join()
    assert not errors
    assert len(seen) > 1, "the index changed meanwhile"
    shutil.rmtree(place.index_dir)
    place.restore(replace=False)
    assert_whole(place.index_dir)


def test_files_that_vanish_while_they_are_copied_make_a_newer_snapshot(place: Place) -> None:
    place.add("c.mp4")
    gone = False

    def observe(_: CopyProgress) -> None:
        nonlocal gone
        beside = IndexLayout.of(place.target).staging
        if not gone and list(beside.features.rglob("*.safetensors")):
            gone = True
            for name in ("a.mp4", "b.mp4", "c.mp4"):
                if not FeatureStore(IndexLayout.of(place.target).staging.folder / "features").has(
                    video(place.index_dir, name).uid
                ):
                    place.remove(name)
                    return

    report = place.backup(observe)
    assert report.missing == ()
    assert (report.videos, len(names(place.target))) == (2, 2)
    assert_whole(place.target)


def test_an_index_that_is_switched_while_it_is_copied_is_copied_as_it_is_then(place: Place) -> None:
    switched = False

    def observe(_: CopyProgress) -> None:
        nonlocal switched
        if not switched:
            switched = True
            layout = place.layout
            shutil.copytree(layout.root, layout.staging.folder)
            switch(layout.staging)
            place.add("c.mp4")

    report = place.backup(observe)
    assert report.videos == 3
    assert_whole(place.target)


def test_a_generation_that_is_swept_while_it_is_copied_is_left_for_a_newer_one(
    place: Place,
) -> None:
    first = newest_generation(place.layout.vectors, dim=4)
    assert first is not None

    def observe(_: CopyProgress) -> None:
        if first.path.exists():  # vectors come first
            assert not list(place.target.rglob("*.safetensors"))
            for name in ("c.mp4", "d.mp4", "e.mp4"):
                film = place.films / name
                film.write_bytes((place.root / "spare.mp4").read_bytes() + name.encode())
                place.index()
            assert not first.path.exists()

    place.backup(observe)
    assert len(names(place.target)) == 5
    assert_whole(place.target)


def test_vectors_are_never_ahead_of_the_catalogue(place: Place) -> None:
    """Else the next videos of a restored index would get the ids, and the vectors, of others."""

    def observe(progress: CopyProgress) -> None:
        if not (place.films / "c.mp4").exists():
            place.add("c.mp4")

    backup(place.layout, place.target, on_progress=observe)
    held = IndexLayout.of(place.target)
    generation = newest_generation(held.vectors, dim=4)
    assert generation is not None
    with Catalog.open(held.catalog) as catalog:
        assert generation.videos.max() <= catalog.last_video_id()
    place.add("d.mp4")
    place.restore()
    assert_whole(place.index_dir)
    place.index()
    assert_whole(place.index_dir)


def test_what_is_copied_while_a_video_comes_is_restored_whole(place: Place) -> None:
    """A video that comes between the copy of the vectors and that of the catalogue is indexed by the restore."""
    done = False

    def observe(progress: CopyProgress) -> None:
        nonlocal done
        if not done:
            done = True
            place.add("c.mp4")

    backup(place.layout, place.target, on_progress=observe)
    assert names(place.target) == {"a.mp4", "b.mp4", "c.mp4"}
    place.restore()
    assert_whole(place.index_dir)


def test_a_damaged_file_does_not_take_the_place_of_a_whole_one(place: Place) -> None:
    place.backup()
    path = FeatureStore(place.layout.features).path(video(place.index_dir, "b.mp4").uid)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    report = place.backup()
    assert (report.damaged, report.missing) == ((path,), ())
    assert_whole(place.target)
    path.unlink()
    assert place.backup().missing == ()
    assert_whole(place.target)
    place.restore()
    assert FeatureStore(place.layout.features).path(path.stem).read_bytes() == whole


def test_what_no_one_has_is_told(place: Place) -> None:
    film = place.films / "b.mp4"
    path = FeatureStore(place.layout.features).path(video(place.index_dir, "b.mp4").uid)
    path.unlink()
    assert place.backup().missing == (film,)
    path.write_bytes(b"damaged")
    report = place.backup()
    assert (report.missing, report.damaged) == ((film,), (path,))


def test_a_damaged_catalogue_is_not_copied_over_a_whole_one(place: Place) -> None:
    place.backup()
    content = bytearray(place.layout.catalog.read_bytes())
    content[4096:6096] = b"\x5a" * 2000
    place.layout.catalog.write_bytes(content)
    with pytest.raises(IndexDirectoryError, match="damaged"):
        place.backup()
    assert_whole(place.target)


def test_a_damaged_vector_index_is_made_anew_in_the_backup(place: Place) -> None:
    for path in place.layout.vectors.rglob("*.f16"):
        path.write_bytes(b"")
    place.backup()
    assert_whole(place.target)


# ------------------------------------------------ another encoder, another localiser


def test_an_index_with_another_encoder_is_copied_beside_the_earlier_backup(place: Place) -> None:
    place.backup()
    first = IndexLayout.of(place.target)
    shutil.rmtree(place.layout.features)
    generations = place.layout.vectors
    shutil.rmtree(generations)
    manifest = place.layout.manifest
    manifest.write_text(manifest.read_text().replace("c" * 64, "d" * 64))
    with Catalog.open(place.layout.catalog) as catalog:
        catalog.mark_unscanned("another encoder")
    index_library(
        [place.films],
        layout=place.layout,
        encoder=OtherEncoder(),
        settings=SETTINGS,
        storage=STORAGE,
        retry_failed=True,
    )
    uid = video(place.index_dir, "a.mp4").uid

    def observe(_: CopyProgress) -> None:
        assert IndexLayout.of(place.target) == first
        assert read_manifest(first).fingerprint == "c" * 64

    place.backup(observe)
    now = IndexLayout.of(place.target)
    assert now != first
    assert not first.folder.exists()
    assert read_manifest(now).fingerprint == "d" * 64
    np.testing.assert_array_equal(
        FeatureStore(now.features).read(uid).frames,
        FeatureStore(place.layout.features).read(uid).frames,
    )


def test_another_localiser_links_the_features_that_are_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.backup()
    before = content_files(place.target)
    manifest = place.layout.manifest
    manifest.write_text(manifest.read_text().replace('"anchors": null', '"anchors": "abc-0"'))
    report = place.backup()
    assert content_files(place.target) == before
    assert read_manifest(report.layout).anchors == "abc-0"
    derive_anchors(place.layout, None)

    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    place.backup()
    after = content_files(place.target)
    assert after.keys() == before.keys()
    assert after != before, "copied where the file system has no links"
    assert_whole(place.target)


# ------------------------------------------------ killed


def in_child(action: Callable[[Callable[[], None]], None], kill_at: int) -> bool:
    """Runs something in a process that kills itself at one of its steps; whether it did."""
    pid = os.fork()
    if pid == 0:
        step = 0

        def count(*_: object) -> None:
            nonlocal step
            step += 1
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            action(count)
        except BaseException:
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def with_steps(count: Callable[[], None], call: Callable[[], object]) -> None:
    """Counts a step before everything that changes the disk."""
    patch = pytest.MonkeyPatch()
    for owner_of, name in [
        (os, "replace"),
        (os, "rename"),
        (os, "unlink"),
        (os, "link"),
        (os, "fsync"),
        (os, "rmdir"),
        (Path, "replace"),
        (Path, "rename"),
        (Path, "unlink"),
        (Catalog, "replace_by"),
        (Catalog, "copy_to"),
    ]:
        real = getattr(owner_of, name)

        def stepped(*args: object, _real: Callable[..., object] = real, **more: object) -> object:
            count()
            return _real(*args, **more)

        patch.setattr(owner_of, name, stepped)
    call()


@pytest.mark.parametrize("first", [True, False])
def test_a_backup_killed_anywhere_leaves_the_earlier_one_whole(place: Place, first: bool) -> None:
    if not first:
        place.backup()
        place.add("c.mp4")
        place.remove("b.mp4")
    kept = place.root / "kept"
    if place.target.exists():
        shutil.copytree(place.target, kept)
    kill_at, stride, kills = 1, 5, 0
    while True:
        shutil.rmtree(place.target, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, place.target)
        if not in_child(lambda count: with_steps(count, place.backup), kill_at):
            break
        kills += 1
        if not first or (place.target / "current").exists():
            assert names(place.target) in ({"a.mp4", "b.mp4"}, {"a.mp4", "c.mp4"})
            assert answers(place.target)
        if kill_at % 2:
            place.backup()
            assert_whole(place.target)
            assert names(place.target) == names(place.index_dir)
        kill_at += stride
    assert kills > 5
    assert names(place.target) == names(place.index_dir)


def test_what_a_stopped_backup_copied_is_not_copied_again(place: Place) -> None:
    def stop_at(num_files: int) -> Callable[[CopyProgress], None]:
        def stop(_: CopyProgress) -> None:
            if len(list(place.target.rglob("*.safetensors"))) == num_files:
                raise KeyboardInterrupt

        return stop

    with pytest.raises(KeyboardInterrupt):
        place.backup(stop_at(3))
    assert place.backup().files_kept == 3
    place.add("c.mp4")
    with pytest.raises(KeyboardInterrupt):
        place.backup(stop_at(6))
    assert place.backup().files_kept == 6
    assert_whole(place.target)


@pytest.mark.parametrize("kill_at", [1, 8, 20, 35, 50, 60, 70, 80, 90])
def test_a_restore_killed_anywhere_leaves_the_old_or_the_new_index(
    place: Place, kill_at: int
) -> None:
    place.backup()
    place.add("c.mp4")
    killed = in_child(lambda count: with_steps(count, place.restore), kill_at)
    now = names(place.index_dir)
    assert now in ({"a.mp4", "b.mp4"}, {"a.mp4", "b.mp4", "c.mp4"})
    if not killed:
        assert now == {"a.mp4", "b.mp4"}
    assert answers(place.index_dir)
    place.restore()
    assert names(place.index_dir) == {"a.mp4", "b.mp4"}
    assert verify(place.layout, full=True).differences[1:] == ()
    assert len(list(place.index_dir.glob("data-*"))) == 1, "what it took the place of is gone"


# ------------------------------------------------ restore


def test_a_restored_index_is_that_of_the_backup(place: Place) -> None:
    before = answers(place.index_dir)
    place.backup()
    shutil.rmtree(place.index_dir)
    report = place.restore(replace=False)
    assert report.videos == 2
    assert answers(place.index_dir) == before
    assert verify(place.layout, full=True).differences == ()
    assert not is_backup(place.index_dir)
    place.add("c.mp4")
    assert names(place.index_dir) == {"a.mp4", "b.mp4", "c.mp4"}
    assert owner(place.layout) is None


def test_a_running_search_follows_a_restore(place: Place) -> None:
    place.backup()
    place.add("c.mp4")
    layout = place.layout
    catalog = Catalog.open(layout.catalog, read_only=True)
    with SearchEngine(layout, catalog, ColourEncoder(), SearchSettings(cutoff=0)) as engine:
        assert engine.search("white").moments[0].path.name == "c.mp4"
        place.restore()
        assert "c.mp4" not in {each.path.name for each in engine.search("white").moments}


def test_an_index_is_given_up_only_where_that_is_said(place: Place) -> None:
    place.backup()
    place.add("c.mp4")
    with pytest.raises(IndexDirectoryError, match="--replace"):
        place.restore(replace=False)
    assert names(place.index_dir) == {"a.mp4", "b.mp4", "c.mp4"}


def test_a_fault_before_the_switch_leaves_the_old_index(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.backup()
    place.add("c.mp4")
    before = answers(place.index_dir)

    def fail(_: IndexLayout) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scanonce.storage.backup.backup.switch", fail)
    with pytest.raises(IndexDirectoryError, match="Make room"):
        place.restore()
    assert answers(place.index_dir) == before
    monkeypatch.undo()
    assert place.restore().files_kept == 4, "it goes on where it was"
    assert names(place.index_dir) == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize("damage", ["catalog", "manifest", "current", "dead writer"])
def test_a_damaged_index_can_be_replaced(place: Place, damage: str) -> None:
    place.backup()
    place.restore()  # so that there is a file `current`
    layout = place.layout
    if damage == "manifest":
        layout.manifest.write_text("{")
    elif damage == "current":
        (place.index_dir / "current").write_text("../elsewhere")
    else:
        layout.catalog.write_bytes(b"no database" * 1000)
    if damage == "dead writer":
        (place.index_dir / "writer.json").write_text('{"pid": 1}')
    place.restore()
    assert_whole(place.index_dir)
    assert place.layout != layout


def test_a_backup_that_is_damaged_is_not_restored(place: Place) -> None:
    place.backup()
    IndexLayout.of(place.target).catalog.write_bytes(b"no database" * 1000)
    before = answers(place.index_dir)
    with pytest.raises(IndexDirectoryError):
        place.restore()
    assert answers(place.index_dir) == before


def test_an_index_somebody_writes_is_not_replaced(place: Place) -> None:
    place.backup()
    errors: list[str] = []

    def other() -> None:
        try:
            place.restore()
        except IndexDirectoryError as error:
            errors.append(str(error))

    with writing(place.layout, "a test"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "is being written" in errors[0]


def test_an_index_that_is_scanned_anew_is_not_replaced(place: Place) -> None:
    place.backup()
    with (
        writing(place.layout.staging, "scanonce reindex"),
        pytest.raises(IndexDirectoryError, match="is being scanned again"),
    ):
        place.restore()


def test_a_reindex_that_was_stopped_is_not_taken_for_a_copy(place: Place) -> None:
    """Its features are of another encoder, under the same names and of the same size."""
    place.backup()
    beside = place.layout.staging
    shutil.copytree(place.layout.features, beside.features)
    path = FeatureStore(beside.features).path(video(place.index_dir, "b.mp4").uid)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    place.restore()
    assert verify(place.layout, full=True).differences == ()
    assert place.layout == beside.staging


# ------------------------------------------------ refused


def test_folders_inside_one_another_are_refused(place: Place) -> None:
    for target in (place.index_dir, place.index_dir / "backup", place.root):
        with pytest.raises(IndexDirectoryError, match="one inside the other"):
            backup(place.layout, target)
    with pytest.raises(IndexDirectoryError, match="one inside the other"):
        restore(place.index_dir, place.index_dir / "copy")


def test_other_files_and_other_indexes_are_not_written_to(place: Place) -> None:
    with pytest.raises(IndexDirectoryError, match="other files"):
        backup(place.layout, place.films)
    other = place.root / "other"
    backup(place.layout, place.target)
    restore(place.target, other)
    with pytest.raises(IndexDirectoryError, match="an index that is no backup"):
        backup(place.layout, other)
    with pytest.raises(IndexDirectoryError, match="other files"):
        restore(place.target, place.films)
    with pytest.raises(IndexDirectoryError, match="is a file"):
        backup(place.layout, place.films / "a.mp4")
    with pytest.raises(IndexDirectoryError, match="is a file"):
        restore(place.target, place.films / "a.mp4")


def test_two_indexes_do_not_share_a_backup(place: Place) -> None:
    place.backup()
    shutil.rmtree(place.index_dir)
    place.index()
    with pytest.raises(IndexDirectoryError, match="another index"):
        place.backup()
    assert_whole(place.target)


def test_a_restored_index_goes_on_with_its_backup(place: Place) -> None:
    place.backup()
    shutil.rmtree(place.index_dir)
    place.restore(replace=False)
    assert place.backup().files_copied == 0


def test_there_must_be_room(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(IndexDirectoryError, match=r"0\.00 GB are free"):
        place.backup()


def test_there_must_be_an_index(place: Place) -> None:
    with pytest.raises(IndexDirectoryError, match="there is no index"):
        backup(IndexLayout(place.root / "none"), place.target)
    with pytest.raises(IndexDirectoryError, match="there is no index"):
        restore(place.root / "none", place.root / "new")


def test_two_backups_at_once_are_refused(place: Place) -> None:
    def again(_: CopyProgress) -> None:
        with pytest.raises(IndexDirectoryError, match="another `scanonce backup`"):
            place.backup()

    place.backup(again)


def test_an_index_without_thumbnails_is_copied(place: Place) -> None:
    shutil.rmtree(place.layout.thumbnails)
    report = place.backup()
    assert not ThumbnailStore(report.layout.thumbnails).has(video(place.target, "a.mp4").uid)
    assert_whole(place.target)
