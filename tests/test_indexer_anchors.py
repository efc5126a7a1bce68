"""Switching an index to a trained localiser and back: from stored features, resumable, all or nothing."""

from pathlib import Path

import numpy as np
import pytest

from scanonce.indexer.anchors import derive_anchors
from scanonce.indexer.pipeline import IndexReport
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.search.engine import SearchEngine
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.features import FeatureStore
from tests.colours import write_film
from tests.indexes import build_index, open_engine, random_localiser, read_videos

STORAGE = StorageSettings()


@pytest.fixture
def first(tmp_path: Path) -> TrainedLocaliser:
    return random_localiser(tmp_path / "first", 1)


@pytest.fixture
def second(tmp_path: Path) -> TrainedLocaliser:
    return random_localiser(tmp_path / "second", 2)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_film(folder / "a.mp4", [("red", 8), ("blue", 6)])
    write_film(folder / "b.mp4", [("green", 9)])
    write_film(folder / "c.mp4", [("white", 5), ("red", 5)])
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    return IndexLayout(tmp_path / "index")


def build(films: Path, layout: IndexLayout, localiser: TrainedLocaliser | None) -> IndexReport:
    return build_index(layout, films, localiser=localiser)


def answers(engine: SearchEngine) -> list[tuple[str, float, float, float]]:
    return [
        (each.path.name, each.span.start_seconds, each.span.end_seconds, each.score)
        for each in engine.search("red").moments
    ]


def test_anchors_of_new_videos_are_stored_with_their_features(
    films: Path, layout: IndexLayout, first: TrainedLocaliser
) -> None:
    build(films, layout, first)
    manifest = read_manifest(layout)
    assert manifest.localiser == first.name
    store = AnchorStore(layout.anchors / str(manifest.anchors))
    for video in read_videos(layout):
        stored = FeatureStore(layout.features).read(video.uid)
        vectors, norms = first.scan(stored.frames, stored.pts_seconds, video.duration_seconds)
        np.testing.assert_array_equal(store.read(video.uid).vectors, vectors)
        np.testing.assert_array_equal(store.read(video.uid).norms, norms)
        assert len(norms) == len(first.grid.spans(video.duration_seconds))


def test_giving_an_index_a_localiser_later_is_the_same_as_from_the_start(
    films: Path, layout: IndexLayout, tmp_path: Path, first: TrainedLocaliser
) -> None:
    build(films, layout, first)
    later = IndexLayout(tmp_path / "later")
    build(films, later, None)
    with open_engine(later) as engine:
        assert engine.localiser.name == "training-free"
        report = derive_anchors(later, first)
        assert (report.videos, report.derived) == (3, 3)
        after = answers(engine)  # a running engine follows
        assert engine.localiser.name == f"SOONet ({first.name})"
    with open_engine(layout) as engine:
        assert answers(engine) == after


def test_deriving_decodes_nothing_and_does_nothing_twice(
    films: Path, layout: IndexLayout, first: TrainedLocaliser, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(films, layout, None)
    monkeypatch.setattr("scanonce.media.open.open_video", None)
    for film in films.iterdir():
        film.unlink()
    assert derive_anchors(layout, first).derived == 3
    assert derive_anchors(layout, first).derived == 0


def test_an_interrupted_change_keeps_the_old_localiser_and_continues_later(
    films: Path, layout: IndexLayout, first: TrainedLocaliser, second: TrainedLocaliser
) -> None:
    build(films, layout, first)
    with open_engine(layout) as engine:
        before = answers(engine)

        def stop(done: int, total: int, seconds: float) -> None:
            assert (total, seconds > 0) == (3, True)
            if done == 2:
                raise KeyboardInterrupt

        report = derive_anchors(layout, second, on_video=stop)
        assert (report.interrupted, report.derived) == (True, 2)
        assert answers(engine) == before
        report = derive_anchors(layout, second)
        assert (report.interrupted, report.derived) == (False, 1)
        assert answers(engine) != before
    assert [path.name for path in layout.anchors.iterdir()] == [f"{second.folder}-0"]


def test_a_rebuild_repairs_damaged_anchors(
    films: Path, layout: IndexLayout, first: TrainedLocaliser
) -> None:
    build(films, layout, first)
    with open_engine(layout) as engine:
        before = answers(engine)
        for path in layout.anchors.glob("*/??/*.safetensors"):
            path.write_bytes(b"rotten")
        with pytest.raises(IndexDirectoryError, match="localise --rebuild"):
            engine.search("red")
        assert derive_anchors(layout, first).derived == 0
        assert derive_anchors(layout, first, rebuild=True).derived == 3
        assert answers(engine) == before
    assert read_manifest(layout).anchors == f"{first.folder}-1"


def test_going_back_to_training_free_frees_the_space(
    films: Path, layout: IndexLayout, first: TrainedLocaliser
) -> None:
    build(films, layout, first)
    derive_anchors(layout, None)
    assert read_manifest(layout).localiser is None
    assert list(layout.anchors.iterdir()) == []
    with open_engine(layout) as engine:
        assert engine.localiser.name == "training-free"


def test_an_index_is_not_extended_with_another_localiser(
    films: Path, layout: IndexLayout, first: TrainedLocaliser, second: TrainedLocaliser
) -> None:
    build(films, layout, first)
    for other in (second, None):
        with pytest.raises(ManifestMismatch, match="scanonce localise --localiser"):
            build(films, layout, other)


def test_forgotten_videos_leave_no_anchors(
    films: Path, layout: IndexLayout, first: TrainedLocaliser
) -> None:
    build(films, layout, first)
    (films / "b.mp4").unlink()
    build(films, layout, first)
    assert len(list(layout.anchors.glob("*/??/*.safetensors"))) == 2
