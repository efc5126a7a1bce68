"""Backups of an index in use: whole at every moment, whatever ends the copying."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scanonce.indexer.anchors import derive_anchors
from scanonce.indexer.verify import verify
from scanonce.search.calibration import (
    BY_FRAMES,
    Calibration,
    Weights,
    read_calibration,
    write_calibration,
)
from scanonce.storage.backup.backup import backup, is_backup, restore
from scanonce.storage.backup.index_copy import CopyProgress, OnProgress
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout, switch
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Span
from scanonce.storage.selects import Select, SelectsFile
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import newest_generation
from tests.catalogs import running
from tests.colours import ColourEncoder
from tests.indexes import build_index, publish_all
from tests.places import (
    Place,
    answers,
    assert_whole,
    fresh_place,
    in_child,
    make_template,
    names,
    open_engine,
    video,
    with_steps,
)


class OtherEncoder(ColourEncoder):
    """Recognises the same colours, with another fingerprint and other features."""

    fingerprint = "d" * 64

    def encode_frames(
        self, frames: "np.typing.NDArray[np.uint8]"
    ) -> "np.typing.NDArray[np.float32]":
        return super().encode_frames(frames) * 2


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("backup") / "work")


@pytest.fixture
def place(template: Path) -> Place:
    return fresh_place(template)


def once(action: Callable[[], object]) -> OnProgress:
    """A callback that does something after the first file."""
    actions = [action]

    def on_progress(_: CopyProgress) -> None:
        if actions:
            actions.pop()()

    return on_progress


def content_files(root: Path) -> dict[str, int]:
    """Return the inode of every feature file by its name."""
    folder = IndexLayout.of(root).folder
    return {path.name: path.stat().st_ino for path in folder.glob("features/??/*")}


# ------------------------------------------------ backup


def test_a_backup_is_an_index_with_the_same_answers(place: Place) -> None:
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


def test_calibration_and_selects_are_backed_up_and_restored(place: Place) -> None:
    own = Calibration({BY_FRAMES: Weights(-2.0, 0.5)}, 3, "labelled sentences")
    write_calibration(place.layout.calibration, own)
    kept = SelectsFile(place.layout).change(lambda _: (Select(1, Span(1.0, 2.0), "a"),))
    report = place.backup()
    assert read_calibration(report.layout.calibration) == own
    again = restore(place.target, place.target.with_name("again"), complete=publish_all)
    assert not again.damaged
    assert read_calibration(again.layout.calibration) == own
    assert SelectsFile(again.layout).read() == kept


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
    assert {name: after[name] for name in before} == before, "earlier files are not written again"
    assert_whole(place.target)


def test_videos_removed_from_the_index_are_removed_from_the_backup(place: Place) -> None:
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
    with open_engine(place.target) as engine:
        assert "c.mp4" not in {each.path.name for each in engine.search("white").moments}
        place.add("c.mp4")
        place.backup()
        assert engine.search("white").moments[0].path.name == "c.mp4"


def test_progress_ends_with_everything(place: Place) -> None:
    calls: list[CopyProgress] = []
    report = place.backup(calls.append)
    last = calls[-1]
    assert len(calls) == report.files_copied
    assert last.bytes_done == last.bytes_total == report.bytes_copied


def test_a_backup_during_indexing_and_deleting_is_of_one_moment(place: Place) -> None:
    stop = threading.Event()

    def write() -> None:
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

    seen = set()
    with running(write):
        try:
            for number in range(100):
                place.backup()
                seen.add(frozenset(names(place.target)))
                assert_whole(place.target)
                if number > 6 and len(seen) > 1:
                    break
        finally:
            stop.set()
    assert len(seen) > 1, "the index changed meanwhile"
    shutil.rmtree(place.index_dir)
    place.restore(replace=False)
    assert_whole(place.index_dir)


def test_files_that_vanish_while_they_are_copied_make_a_newer_snapshot(place: Place) -> None:
    place.add("c.mp4")
    gone = False

    def on_progress(_: CopyProgress) -> None:
        nonlocal gone
        copied = FeatureStore(IndexLayout.of(place.target).staging.features)
        if not gone and list(copied.files()):
            gone = True
            names = ("a.mp4", "b.mp4", "c.mp4")
            place.remove(next(n for n in names if not copied.has(video(place.index_dir, n).uid)))

    report = place.backup(on_progress)
    assert report.missing == ()
    assert (report.videos, len(names(place.target))) == (2, 2)
    assert_whole(place.target)


def test_an_index_that_is_switched_while_it_is_copied_is_copied_again(place: Place) -> None:
    def switch_over() -> None:
        layout = place.layout
        shutil.copytree(layout.root, layout.staging.folder)
        switch(layout.staging)
        place.add("c.mp4")

    report = place.backup(once(switch_over))
    assert report.videos == 3
    assert_whole(place.target)


def test_a_newer_generation_is_copied_if_one_is_removed_while_it_is_copied(
    place: Place,
) -> None:
    first = newest_generation(place.layout.vectors, dim=4)
    assert first is not None

    def publish_thrice() -> None:
        assert not list(place.target.rglob("*.safetensors")), "vectors come first"
        for name in ("c.mp4", "d.mp4", "e.mp4"):
            film = place.films / name
            film.write_bytes((place.root / "spare.mp4").read_bytes() + name.encode())
            place.index()
        assert not first.path.exists()

    place.backup(once(publish_thrice))
    assert len(names(place.target)) == 5
    assert_whole(place.target)


def test_a_video_added_during_a_backup_is_restored_whole(place: Place) -> None:
    """It is added between the copy of the vectors and that of the catalogue. Vectors ahead of the catalogue would give
    the next videos of a restored index the ids and the vectors of other videos."""

    backup(place.layout, place.target, on_progress=once(lambda: place.add("c.mp4")))
    assert names(place.target) == {"a.mp4", "b.mp4", "c.mp4"}
    held = IndexLayout.of(place.target)
    generation = newest_generation(held.vectors, dim=4)
    assert generation is not None
    with Catalog.open(held.catalog) as catalog:
        assert generation.videos.max() <= catalog.last_video_id()
    place.restore()
    assert_whole(place.index_dir)
    place.add("d.mp4")
    place.restore()
    assert_whole(place.index_dir)
    place.index()
    assert_whole(place.index_dir)


def test_a_damaged_file_does_not_replace_a_whole_one(place: Place) -> None:
    place.backup()
    path = place.features_of("b.mp4")
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


def test_features_that_are_in_neither_are_reported(place: Place) -> None:
    film = place.films / "b.mp4"
    path = place.features_of("b.mp4")
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


def test_a_damaged_vector_index_is_built_again_in_the_backup(place: Place) -> None:
    for path in place.layout.vectors.rglob("*.f16"):
        path.write_bytes(b"")
    place.backup()
    assert_whole(place.target)


# ------------------------------------------------ another encoder, another localiser


def test_an_index_with_another_encoder_is_copied_next_to_the_earlier_backup(place: Place) -> None:
    place.backup()
    first = IndexLayout.of(place.target)
    shutil.rmtree(place.layout.features)
    generations = place.layout.vectors
    shutil.rmtree(generations)
    manifest = place.layout.manifest
    manifest.write_text(manifest.read_text().replace("c" * 64, "d" * 64))
    with Catalog.open(place.layout.catalog) as catalog:
        catalog.mark_unscanned("another encoder")
    build_index(place.layout, place.films, encoder=OtherEncoder(), retry_failed=True)
    uid = video(place.index_dir, "a.mp4").uid

    def on_progress(_: CopyProgress) -> None:
        assert IndexLayout.of(place.target) == first
        assert read_manifest(first).fingerprint == "c" * 64

    place.backup(on_progress)
    now = IndexLayout.of(place.target)
    assert now != first
    assert not first.folder.exists()
    assert read_manifest(now).fingerprint == "d" * 64
    np.testing.assert_array_equal(
        FeatureStore(now.features).read(uid).frames,
        FeatureStore(place.layout.features).read(uid).frames,
    )


def test_the_features_are_linked_if_only_the_localiser_changed(
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
    assert after != before, "copied, since the file system has no links"
    assert_whole(place.target)


# ------------------------------------------------ killed


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


def test_files_copied_by_a_stopped_backup_are_not_copied_again(place: Place) -> None:
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
    def again() -> None:
        with pytest.raises(IndexDirectoryError, match="another `scanonce backup`"):
            place.backup()

    place.backup(once(again))


def test_an_index_without_thumbnails_is_copied(place: Place) -> None:
    shutil.rmtree(place.layout.thumbnails)
    report = place.backup()
    assert not ThumbnailStore(report.layout.thumbnails).has(video(place.target, "a.mp4").uid)
    assert_whole(place.target)
