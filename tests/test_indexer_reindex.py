"""Another encoder for an index in use: made in staging, resumable, switched at once."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scanonce.indexer.reindex
import scanonce.search.snapshot
from scanonce.indexer.pipeline import IndexReport, Progress, index_library
from scanonce.indexer.reindex import ReindexReport, reindex
from scanonce.indexer.settings import IndexerSettings
from scanonce.search.calibration import BY_FRAMES, Calibration, Weights, write_calibration
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest, write_manifest
from scanonce.storage.writer import writing
from tests.colours import ColourEncoder, write_film
from tests.indexes import SETTINGS, STORAGE, build_index, open_engine, read_videos


class Brighter(ColourEncoder):
    """An encoder with another fingerprint that sees the same colours."""

    name = "brighter"
    fingerprint = "b" * 64

    def __init__(self) -> None:
        self.num_frames = 0

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.num_frames += len(frames)
        return 2 * super().encode_frames(frames)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_film(folder / "a.mp4", [("red", 6), ("black", 4)])
    write_film(folder / "b.mp4", [("green", 6), ("white", 4)])
    write_film(folder / "c.mp4", [("blue", 6), ("white", 4)])
    return folder


@pytest.fixture
def root(tmp_path: Path, films: Path) -> Path:
    index(tmp_path / "index", films)
    return tmp_path / "index"


def index(root: Path, *films: Path, encoder: ColourEncoder | None = None) -> IndexReport:
    return build_index(IndexLayout.of(root), *films, encoder=encoder)


def run_reindex(root: Path, **options: Any) -> ReindexReport:
    given = {"encoder": Brighter(), "settings": SETTINGS, "storage": STORAGE}
    return reindex(IndexLayout.of(root), **{**given, **options})


def ids(root: Path) -> dict[str, int]:
    videos = read_videos(IndexLayout.of(root), states=SEARCHABLE)
    return {video.path.name: video.video_id for video in videos}


def best(root: Path, text: str, encoder: ColourEncoder) -> str:
    with open_engine(root, encoder) as engine:
        return engine.search(text).moments[0].path.name


def test_videos_keep_their_numbers_and_the_old_index_is_removed(root: Path, films: Path) -> None:
    (films / "a.mp4").unlink()
    index(root, films)
    before = ids(root)
    assert sorted(before) == ["b.mp4", "c.mp4"]
    report = run_reindex(root)
    assert report.switched
    assert not report.lost
    assert ids(root) == before
    assert read_manifest(IndexLayout.of(root)).encoder == "brighter"
    assert best(root, "green", Brighter()) == "b.mp4"
    assert sorted(path.name for path in root.iterdir()) == ["current", "data-1", "writer.lock"]
    assert run_reindex(root, encoder=ColourEncoder()).switched
    assert IndexLayout.of(root).data == "data-2"
    assert not (root / "data-1").exists()


def test_a_calibration_stays_with_its_encoder(root: Path) -> None:
    write_calibration(IndexLayout.of(root).calibration, Calibration({BY_FRAMES: Weights(-2.0)}))
    assert run_reindex(root, encoder=ColourEncoder()).switched
    assert IndexLayout.of(root).calibration.exists()
    assert run_reindex(root, encoder=Brighter()).switched
    assert not IndexLayout.of(root).calibration.exists()


def test_an_open_engine_follows_to_the_other_encoder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str, *_: object, **__: object) -> ColourEncoder:
        asked.append(name)
        return Brighter()

    monkeypatch.setattr(scanonce.search.snapshot, "load_encoder", load)
    with open_engine(root, ColourEncoder()) as engine:
        assert engine.search("red").moments[0].path.name == "a.mp4"
        run_reindex(root)
        assert engine.search("red").moments[0].path.name == "a.mp4"
        assert engine.manifest.encoder == "brighter"
        engine.search("blue")
        assert asked == ["brighter"]


def stop_after(videos: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.videos_done >= videos:
            raise KeyboardInterrupt

    return stop


def test_a_stopped_reindex_continues_later_and_searches_go_on_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.indexer.pipeline._REPORT_SECONDS", 0.0)
    whole = Brighter()
    assert run_reindex(root, encoder=whole, on_progress=stop_after(1)).interrupted
    assert best(root, "blue", ColourEncoder()) == "c.mp4"
    rest = Brighter()
    report = run_reindex(root, encoder=rest)
    assert report.switched
    assert 0 < rest.num_frames < 60  # 20 frames per film: not all three films again
    assert report.runs[0].counts.skipped >= 1


def test_a_video_that_cannot_be_scanned_keeps_the_old_index_in_use(
    root: Path, films: Path, tmp_path: Path
) -> None:
    away = tmp_path / "usb"
    write_film(away / "d.mp4", [("red", 4), ("green", 4)])
    index(root, away)
    away.rename(tmp_path / "unplugged")
    report = run_reindex(root)
    assert not report.switched
    assert [video.path.name for video in report.lost] == ["d.mp4"]
    assert read_manifest(IndexLayout.of(root)).encoder == "colours"
    assert run_reindex(root, force=True).switched
    assert sorted(ids(root)) == ["a.mp4", "b.mp4", "c.mp4"]
    (tmp_path / "unplugged").rename(away)
    index(root, films, away, encoder=Brighter())
    assert sorted(ids(root)) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_changes_during_a_reindex_are_in_the_new_index(
    root: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    write_film(other / "z.mp4", [("green", 5)])
    index(root, other)
    runs = 0

    def indexing(*given: Any, **options: Any) -> IndexReport:
        nonlocal runs
        runs += 1
        report = index_library(*given, **options)
        if runs == 1:  # during the long run
            write_film(films / "late.mp4", [("white", 3), ("red", 5)])
            index(root, films)
            with Catalog.open(IndexLayout.of(root).catalog) as catalog:
                catalog.forget_libraries([other])
                catalog.labels.add([ids(root)["a.mp4"]], ["holiday"])
        return report

    monkeypatch.setattr(scanonce.indexer.reindex, "index_library", indexing)
    assert run_reindex(root).switched
    assert sorted(ids(root)) == ["a.mp4", "b.mp4", "c.mp4", "late.mp4"]
    with Catalog.open(IndexLayout.of(root).catalog) as catalog:
        assert catalog.labels.of([ids(root)["a.mp4"]]) == {ids(root)["a.mp4"]: ("holiday",)}


def test_a_reindex_begun_with_other_settings_starts_from_scratch(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.indexer.pipeline._REPORT_SECONDS", 0.0)
    assert run_reindex(root, on_progress=stop_after(1)).interrupted
    dense = IndexerSettings(decode_workers=1, sample_fps=4.0)
    report = run_reindex(root, settings=dense)
    assert report.switched
    assert report.runs[0].counts.indexed == 3
    assert read_manifest(IndexLayout.of(root)).sample_fps == 4.0


def test_a_reindex_begun_by_an_earlier_version_starts_from_scratch(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanonce.indexer.pipeline._REPORT_SECONDS", 0.0)
    assert run_reindex(root, on_progress=stop_after(1)).interrupted
    staging = IndexLayout.of(root).staging
    write_manifest(staging, replace(read_manifest(staging), exact_times=False))
    assert run_reindex(root).runs[0].counts.indexed == 3
    assert read_manifest(IndexLayout.of(root)).exact_times


def test_a_switch_that_cannot_be_written_leaves_the_old_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: IndexLayout) -> None:
        raise IndexDirectoryError("no space left")

    monkeypatch.setattr(scanonce.indexer.reindex, "switch", full)
    with pytest.raises(IndexDirectoryError, match="no space left"):
        run_reindex(root)
    assert best(root, "green", ColourEncoder()) == "b.mp4"
    monkeypatch.undo()
    encoder = Brighter()
    assert run_reindex(root, encoder=encoder).switched
    assert encoder.num_frames == 0  # all videos were scanned before


def test_two_at_once_are_refused_but_not_an_ordinary_run(root: Path, films: Path) -> None:
    layout = IndexLayout.of(root)
    with writing(layout.staging, "scanonce reindex"):
        assert index(root, films).counts.skipped == 3
    write_film(films / "d.mp4", [("red", 3)])
    shutil.copy(films / "d.mp4", films / "e.mp4")
    assert run_reindex(root).switched


def test_a_run_with_the_old_encoder_is_refused_after_the_switch(root: Path, films: Path) -> None:
    before = IndexLayout.of(root)
    run_reindex(root)
    with pytest.raises(ManifestMismatch, match="scanonce reindex"):
        index(root, films)
    with pytest.raises(IndexDirectoryError, match="was replaced meanwhile"):
        build_index(before, films)
