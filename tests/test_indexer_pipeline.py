"""Indexing a folder: incremental, resumable, robust against broken files."""

import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanonce.indexer.pipeline import IndexReport, Progress
from scanonce.media.answers import Event, Failed
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.clips import ClipGrid
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import newest_generation
from tests.colours import write_film
from tests.indexes import SETTINGS, build_index, open_engine, read_videos
from tests.videos import cut, write_audio, write_garbage, write_video

Indexer = Callable[..., IndexReport]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    write_film(folder / "a.mp4", [("red", 6), ("blue", 6), ("black", 6)])
    write_film(folder / "sub" / "b.mkv", [("green", 8), ("white", 5), ("red", 3)])
    return folder


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    return IndexLayout(tmp_path / "index")


@pytest.fixture
def index(layout: IndexLayout, films: Path) -> Indexer:
    def run(*roots: Path, layout: IndexLayout = layout, **options: Any) -> IndexReport:
        return build_index(layout, *(roots or (films,)), **options)

    return run


def best(layout: IndexLayout, text: str) -> tuple[str, Span]:
    with open_engine(layout) as engine:
        moment = engine.search(text).moments[0]
    return moment.path.name, moment.span


def searchable(layout: IndexLayout) -> dict[str, str]:
    return {video.path.name: video.state for video in read_videos(layout, states=SEARCHABLE)}


def test_every_scene_of_a_folder_is_found_at_its_time(index: Indexer, layout: IndexLayout) -> None:
    report = index()
    assert (report.counts.indexed, report.counts.failed, report.problems) == (2, 0, ())
    assert report.counts.video_seconds == pytest.approx(34, abs=0.2)
    for text, name, span in [
        ("blue", "a.mp4", Span(6, 12)),
        ("black", "a.mp4", Span(12, 18)),
        ("green", "b.mkv", Span(0, 8)),
        ("white", "b.mkv", Span(8, 13)),
    ]:
        found, where = best(layout, text)
        assert found == name
        assert where.tiou(span) > 0.85, (text, where)


def test_frames_are_half_a_second_apart_and_clips_follow_the_grid(
    index: Indexer, layout: IndexLayout
) -> None:
    index()
    clips = 0
    for video in read_videos(layout):
        stored = FeatureStore(layout.features).read(video.uid)
        np.testing.assert_allclose(stored.pts_seconds, np.arange(video.num_frames) / 2, atol=1e-6)
        clips += sum(ClipGrid().counts(video.duration_seconds))
    generation = newest_generation(layout.vectors, dim=4)
    assert generation is not None
    assert len(generation.base) + len(generation.delta) == clips


def test_each_second_has_its_thumbnail(index: Indexer, layout: IndexLayout) -> None:
    index()
    store = ThumbnailStore(layout.thumbnails)
    (uid,) = [video.uid for video in read_videos(layout) if video.path.name == "a.mp4"]
    assert store.times(uid) == pytest.approx(np.arange(18))
    for seconds, channel in ((0.0, 0), (5.9, 0), (6.0, 2), (11.99, 2)):
        jpeg = store.read(uid, seconds)
        assert jpeg is not None
        colour = np.asarray(Image.open(io.BytesIO(jpeg))).mean((0, 1))
        assert colour.argmax() == channel, (seconds, colour)


def test_an_index_without_thumbnails_works(index: Indexer, layout: IndexLayout) -> None:
    index(settings=SETTINGS.model_copy(update={"thumbnail_seconds": 0.0}))
    assert best(layout, "blue")[0] == "a.mp4"
    assert not layout.thumbnails.exists()
    assert index().counts.skipped == 2, "an index is not tied to whether it has thumbnails"


def test_a_second_run_decodes_nothing(
    index: Indexer, monkeypatch: pytest.MonkeyPatch, layout: IndexLayout
) -> None:
    index()
    monkeypatch.setattr(
        "scanonce.indexer.pipeline.DecodePool.decode", lambda self, paths: iter(_none(paths))
    )
    report = index()
    assert (report.counts.indexed, report.counts.skipped) == (0, 2)
    assert best(layout, "blue")[0] == "a.mp4"


def _none(paths: list[Path]) -> list[object]:
    assert not paths, f"nothing should be decoded: {paths}"
    return []


def test_a_moved_a_copied_and_a_renamed_file_cost_no_decoding(
    index: Indexer, films: Path, layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    index()
    (films / "a.mp4").rename(films / "sub" / "moved.mp4")
    shutil.copy(films / "sub" / "b.mkv", films / "copy.mkv")
    monkeypatch.setattr(
        "scanonce.indexer.pipeline.DecodePool.decode", lambda self, paths: iter(_none(paths))
    )
    index()
    assert best(layout, "blue")[0] == "moved.mp4"
    paths = {path.name for video in read_videos(layout) for path in video.paths}
    assert paths == {"moved.mp4", "b.mkv", "copy.mkv"}


def test_a_deleted_file_is_forgotten_with_its_features_and_thumbnails(
    index: Indexer, films: Path, layout: IndexLayout
) -> None:
    index()
    (films / "a.mp4").unlink()
    assert index().counts.forgotten == 1
    assert searchable(layout) == {"b.mkv": "indexed"}
    assert best(layout, "blue")[0] == "b.mkv"
    assert len(list(layout.features.rglob("*.safetensors"))) == 1
    assert len(list(layout.thumbnails.rglob("*.safetensors"))) == 1


def test_a_file_replaced_in_place_is_found_by_its_new_content_only(
    index: Indexer, films: Path, layout: IndexLayout
) -> None:
    index()
    write_film(films / "a.mp4", [("white", 9), ("green", 4)])
    assert index().counts.indexed == 1
    assert len(list(layout.features.rglob("*.safetensors"))) == 2
    assert best(layout, "white") != ("a.mp4", Span(0, 0))
    durations = sorted(video.duration_seconds for video in read_videos(layout))
    assert durations == pytest.approx([13, 16], abs=0.2)


def test_broken_files_are_reported_and_the_run_goes_on(
    index: Indexer, films: Path, layout: IndexLayout
) -> None:
    (films / "garbage.mp4").write_bytes(os.urandom(4000))
    (films / "empty.avi").touch()
    write_audio(films / "sound.mp4")
    long = write_video(films.parent / "long.mkv", num_frames=300, fps=30)
    cut(long.path, films / "cut.mkv", 0.6)
    report = index()
    assert (report.counts.indexed, report.counts.partial, report.counts.failed) == (2, 1, 3)
    reasons = {problem.path.name: problem.reason for problem in report.problems}
    assert set(reasons) == {"garbage.mp4", "empty.avi", "sound.mp4", "cut.mkv"}
    assert reasons["cut.mkv"].startswith("partial: ")
    assert not report.nothing_usable
    assert searchable(layout)["cut.mkv"] == "partial"
    assert len(list(layout.thumbnails.rglob("*.safetensors"))) == 3, "partial videos have some too"


def test_a_failed_file_is_tried_again_only_on_request(index: Indexer, films: Path) -> None:
    write_garbage(films / "garbage.mp4")
    index()
    again = index()
    assert again.counts.failed == 0
    assert again.problems == ()
    (before,) = again.failed_before
    assert (before.path.name, before.reason[:11]) == ("garbage.mp4", "not a video")
    assert index(retry_failed=True).counts.failed == 1


def test_a_partial_video_is_scanned_again_when_asked(
    index: Indexer, films: Path, layout: IndexLayout
) -> None:
    cut(films / "sub" / "b.mkv", films / "cut.mkv", 0.7)
    index()
    before = {path.name for path in layout.features.rglob("*.safetensors")}
    report = index(retry_failed=True)
    assert (report.counts.partial, report.counts.failed) == (1, 0)
    after = {path.name for path in layout.features.rglob("*.safetensors")}
    assert len(after) == len(before) == 3, "what the first scan stored is gone"
    assert {name for name in after - before if "-2." in name} == after - before
    assert searchable(layout)["cut.mkv"] == "partial"


def test_a_searchable_video_stays_if_scanning_it_again_fails(
    index: Indexer, layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    index()
    (video_id,) = [each.video_id for each in read_videos(layout) if each.path.name == "a.mp4"]

    def crash(events: Iterable[Event], *_: object, **__: object) -> Iterator[Failed]:
        list(events)
        yield Failed(0, "the decoder crashed", transient=True)

    monkeypatch.setattr("scanonce.indexer.pipeline.encode_videos", crash)
    report = index(again=[video_id])
    assert report.counts.failed == 1
    assert "its earlier scan is kept: the decoder crashed" in report.problems[0].reason
    assert set(searchable(layout)) == {"a.mp4", "b.mkv"}
    assert best(layout, "red")[0] == "a.mp4"


def test_a_file_of_a_known_folder_does_not_become_a_root(
    index: Indexer, films: Path, layout: IndexLayout
) -> None:
    index()
    index(films / "a.mp4", films / "sub")
    with Catalog.open(layout.catalog) as catalog:
        assert [library.root for library in catalog.libraries()] == [films]


def test_a_folder_on_a_missing_disk_is_kept_and_reported(
    index: Indexer, films: Path, layout: IndexLayout, tmp_path: Path
) -> None:
    index()
    films.rename(tmp_path / "unplugged")
    report = index(films)
    assert report.num_offline == 2
    assert "not there now" in report.problems[0].reason
    assert set(searchable(layout)) == {"a.mp4", "b.mkv"}


def test_a_folder_with_nothing_usable_says_so(index: Indexer, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    write_garbage(folder / "garbage.mp4")
    assert index(folder).nothing_usable


def test_other_settings_are_refused_before_anything_changes(
    index: Indexer, layout: IndexLayout, films: Path
) -> None:
    index()
    write_film(films / "c.mp4", [("red", 4)])
    with pytest.raises(ManifestMismatch, match=r"sample_fps: the index has 2.0, asked for is 1.0"):
        index(settings=SETTINGS.model_copy(update={"sample_fps": 1.0}))
    assert set(searchable(layout)) == {"a.mp4", "b.mkv"}


class _StopsAfter:
    """Presses Ctrl-C after some videos."""

    def __init__(self, videos: int) -> None:
        self.videos = videos

    def __call__(self, progress: Progress) -> None:
        if progress.videos_done >= self.videos:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_finished_videos_and_the_next_run_continues(
    index: Indexer, films: Path, layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        write_film(films / f"more{number}.mp4", [("red", 2 + number)])
    monkeypatch.setattr("scanonce.indexer.pipeline._REPORT_SECONDS", 0.0)
    stopped = index(on_progress=_StopsAfter(2))
    assert stopped.interrupted
    kept = searchable(layout)
    assert 2 <= len(kept) < 6
    rest = index()
    assert not rest.interrupted
    assert rest.counts.indexed == 6 - len(kept)
    assert len(searchable(layout)) == 6


def test_a_disk_that_is_full_stops_the_run_and_loses_nothing(
    index: Indexer, films: Path, layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    index()
    write_film(films / "c.mp4", [("blue", 4)])

    def full(self: object, uid: str, features: object) -> None:
        raise IndexDirectoryError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("scanonce.storage.stores.features.FeatureStore.write", full)
        with pytest.raises(IndexDirectoryError, match="disk full"):
            index()
    assert set(searchable(layout)) == {"a.mp4", "b.mkv"}
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        assert catalog.runs.last()[0].outcome == "failed"
    assert index().counts.indexed == 1


def test_a_video_is_in_the_catalogue_only_while_its_features_are_stored(
    index: Indexer, layout: IndexLayout, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two steps leaves files without a video, never a video without files."""
    stored = FeatureStore(layout.features)
    recorded, deleted = [], []
    record, delete = Catalog.record_indexed, FeatureStore.delete

    def record_stored(self: Catalog, content: Any, *args: Any, **options: Any) -> int:
        assert stored.has(content.uid)
        recorded.append(content.uid)
        return record(self, content, *args, **options)

    def delete_forgotten(self: FeatureStore, uid: str) -> None:
        assert uid not in [video.uid for video in read_videos(layout)]
        deleted.append(uid)
        delete(self, uid)

    monkeypatch.setattr(Catalog, "record_indexed", record_stored)
    monkeypatch.setattr(FeatureStore, "delete", delete_forgotten)
    assert index().counts.indexed == 2
    (films / "a.mp4").unlink()
    index()
    assert len(recorded) == 2
    assert set(deleted) < set(recorded)


def test_progress_goes_up_to_the_whole(index: Indexer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.indexer.pipeline._REPORT_SECONDS", 0.0)
    reports: list[Progress] = []
    index(on_progress=reports.append)
    assert [p.videos_done for p in reports] == sorted(p.videos_done for p in reports)
    assert all(0 <= p.bytes_done <= p.bytes_total for p in reports)
    assert reports[-1].videos_done == reports[-1].videos_total == 2
    assert reports[-1].bytes_done == reports[-1].bytes_total
    assert reports[-1].video_seconds == pytest.approx(34, abs=0.5)


def test_key_frames_alone_make_an_index_too(layout: IndexLayout, index: Indexer) -> None:
    report = index(settings=SETTINGS.model_copy(update={"sampling": "keyframes"}))
    assert report.counts.indexed == 2
    assert best(layout, "green")[0] == "b.mkv"


def test_both_decoders_make_the_same_index(tmp_path: Path, index: Indexer, films: Path) -> None:
    stores = []
    for decoder in ("pyav", "decord"):
        layout = IndexLayout(tmp_path / decoder)
        index(layout=layout, settings=SETTINGS.model_copy(update={"decoder": decoder}))
        uids = sorted(video.uid for video in read_videos(layout))
        stores.append([FeatureStore(layout.features).read(uid) for uid in uids])
    for first, second in zip(*stores, strict=True):
        np.testing.assert_allclose(first.pts_seconds, second.pts_seconds, atol=1e-3)
        np.testing.assert_allclose(first.frames, second.frames, atol=2.0)
