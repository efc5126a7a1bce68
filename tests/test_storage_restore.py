"""Restoring an index from a backup: one step, whatever was there before."""

import shutil
from pathlib import Path

import pytest

from scanonce.indexer.verify import verify
from scanonce.storage.backup.backup import is_backup
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.writer import owner, writing
from tests.catalogs import running
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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("restore") / "work")


@pytest.fixture
def place(template: Path) -> Place:
    return fresh_place(template)


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
    assert len(list(place.index_dir.glob("data-*"))) == 1, "the replaced index is gone"


def test_a_restored_index_is_the_same_as_the_backup(place: Place) -> None:
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
    with open_engine(place.index_dir) as engine:
        assert engine.search("white").moments[0].path.name == "c.mp4"
        place.restore()
        assert "c.mp4" not in {each.path.name for each in engine.search("white").moments}


def test_an_index_is_replaced_only_on_request(place: Place) -> None:
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
    assert place.restore().files_kept == 4, "it continues from there"
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


def test_an_index_that_is_being_written_is_not_replaced(place: Place) -> None:
    place.backup()

    def restore_in_vain() -> None:
        with pytest.raises(IndexDirectoryError, match="is being written"):
            place.restore()

    with writing(place.layout, "a test"), running(restore_in_vain):
        pass


def test_an_index_that_is_being_scanned_again_is_not_replaced(place: Place) -> None:
    place.backup()
    with (
        writing(place.layout.staging, "scanonce reindex"),
        pytest.raises(IndexDirectoryError, match="is being scanned again"),
    ):
        place.restore()


def test_a_stopped_reindex_is_not_mistaken_for_a_copy(place: Place) -> None:
    """Its features are of another encoder, with the same names and sizes."""
    place.backup()
    beside = place.layout.staging
    shutil.copytree(place.layout.features, beside.features)
    path = FeatureStore(beside.features).path(video(place.index_dir, "b.mp4").uid)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    place.restore()
    assert verify(place.layout, full=True).differences == ()
    assert place.layout == beside.staging
