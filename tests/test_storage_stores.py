"""The stores of features, anchors and thumbnails: one file per content."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.stores.thumbnails import Thumbnails, ThumbnailStore

UID = "ab" * 20
TIMES = [0.5, 1.5, 2.0]
JPEGS = (b"first", b"the second", b"3")

Store: TypeAlias = FeatureStore | AnchorStore | ThumbnailStore


def frame_features(num_frames: int) -> FrameFeatures:
    frames = np.random.default_rng(0).normal(size=(num_frames, 8)).astype(np.float16)
    return FrameFeatures(frames, np.arange(num_frames, dtype=np.float64) / 2, 2.0)


def arrays(num_anchors: int) -> AnchorArrays:
    rng = np.random.default_rng(num_anchors)
    vectors = rng.normal(size=(num_anchors, 6)).astype(np.float16)
    return AnchorArrays(vectors, rng.random(num_anchors).astype(np.float32))


@pytest.fixture
def features(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


@pytest.fixture
def anchors(tmp_path: Path) -> AnchorStore:
    return AnchorStore(tmp_path / "anchors" / "abc-0")


@pytest.fixture
def thumbnails(tmp_path: Path) -> ThumbnailStore:
    return ThumbnailStore(tmp_path / "thumbnails")


@pytest.fixture
def filled(thumbnails: ThumbnailStore) -> ThumbnailStore:
    thumbnails.write(UID, Thumbnails(np.array(TIMES), JPEGS))
    return thumbnails


# ---------------------------------------------------------------- all stores


@pytest.fixture(params=["features", "anchors", "thumbnails"])
def write(request: pytest.FixtureRequest) -> Callable[[Path, str], Store]:
    """Writes a file of a content, whose uid is given, to a store in a folder."""

    def write_to(root: Path, uid: str) -> Store:
        if request.param == "features":
            features = FeatureStore(root)
            features.write(uid, frame_features(3))
            return features
        if request.param == "anchors":
            anchors = AnchorStore(root)
            anchors.write(uid, arrays(5))
            return anchors
        thumbnails = ThumbnailStore(root)
        thumbnails.write(uid, Thumbnails(np.array(TIMES), JPEGS))
        return thumbnails

    return write_to


def test_a_deleted_file_is_gone_and_deleting_twice_is_no_error(
    tmp_path: Path, write: Callable[[Path, str], Store]
) -> None:
    store = write(tmp_path / "store", UID)
    assert store.has(UID)
    assert store.size_bytes() > 0
    store.delete(UID)
    store.delete(UID)
    assert store.size_bytes() == 0
    assert not store.has(UID)


def test_orphans_are_files_of_unknown_contents_and_of_interrupted_writes(
    tmp_path: Path, write: Callable[[Path, str], Store]
) -> None:
    store = write(tmp_path / "store", UID)
    write(tmp_path / "store", "ff00")
    half = store.path(UID).parent / ".tmp-half"
    half.write_bytes(b"half")
    assert sorted(store.orphans({UID})) == sorted([half, store.path("ff00")])
    assert len(store.orphans({UID, "ff00"})) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameFeatures(np.zeros((3, 8), np.float16), np.zeros(2), 2.0), "need pts_seconds"),
        (lambda: AnchorArrays(np.zeros((3, 2), np.float16), np.zeros(2, np.float32)), "need norms"),
        (lambda: Thumbnails(np.zeros(2), JPEGS), "need pts_seconds"),
    ],
)
def test_arrays_of_different_lengths_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- features


def test_features_read_back_as_written(features: FeatureStore) -> None:
    features.write(UID, frame_features(20))
    stored = features.read(UID)
    assert stored.frames.dtype == np.float16
    assert stored.pts_seconds.dtype == np.float64
    np.testing.assert_array_equal(stored.frames, frame_features(20).frames)
    np.testing.assert_array_equal(stored.pts_seconds, frame_features(20).pts_seconds)


def test_only_the_frames_on_screen_in_half_open_spans_are_read(features: FeatureStore) -> None:
    features.write(UID, frame_features(20))
    spans = [(0.0, 1.0), (8.9, 99.0), (3.1, 3.2), (50.0, 60.0)]
    first, second, between, after = features.read_between(UID, spans)
    assert first.pts_seconds.tolist() == [0.0, 0.5]
    assert second.pts_seconds.tolist() == [9.0, 9.5]
    np.testing.assert_array_equal(second.frames, frame_features(20).frames[18:])
    assert between.pts_seconds.tolist() == [3.0], "the frame on screen then"
    assert after.pts_seconds.tolist() == [9.5], "the last frame is on screen until the end"


def test_a_picture_that_is_held_is_read_for_every_span_it_is_on_screen(
    features: FeatureStore,
) -> None:
    frames = frame_features(3).frames
    features.write(UID, FrameFeatures(frames, np.array([0.0, 20.4, 40.1]), 2.0))
    pieces = features.read_between(UID, [(4.0, 8.0), (18.0, 22.0), (20.4, 20.6)])
    assert [piece.pts_seconds.tolist() for piece in pieces] == [[0.0], [0.0, 20.4], [20.4]]


def test_a_file_of_an_earlier_version_is_read_as_if_frames_began_at_their_target(
    tmp_path: Path,
) -> None:
    store = FeatureStore(tmp_path, old_fps=2.0)
    frames, times = frame_features(4).frames, np.array([0.0, 0.52, 1.0, 30.04])
    path = store.path(UID)
    path.parent.mkdir(parents=True)
    save_file({"frames": frames, "pts_seconds": times}, path)
    stored = store.read(UID)
    assert (stored.pts_seconds.tolist(), stored.fps) == ([0.0, 0.5, 1.0, 30.0], 2.0)
    assert store.problem(UID, dim=8, num_frames=4, values=True) is None
    assert not store.is_exact(UID)
    store.write(UID, stored)
    assert store.is_exact(UID)


@pytest.mark.parametrize("fps", [np.array([0.0]), np.array([np.nan]), np.zeros(0)])
def test_an_impossible_sampling_is_damage(features: FeatureStore, fps: np.ndarray) -> None:
    stored = frame_features(2)
    path = features.path(UID)
    path.parent.mkdir(parents=True)
    save_file({"frames": stored.frames, "pts_seconds": stored.pts_seconds, "fps": fps}, path)
    with pytest.raises(IndexDirectoryError, match="missing or damaged"):
        features.read(UID)
    assert "targets per second" in str(features.problem(UID, dim=8, num_frames=2))


def test_missing_and_damaged_features_are_reported_with_the_next_step(
    features: FeatureStore,
) -> None:
    with pytest.raises(IndexDirectoryError, match="missing or damaged"):
        features.read(UID)
    features.write(UID, frame_features(20))
    path = features.path(UID)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IndexDirectoryError, match="index it again"):
        features.read(UID)


# ---------------------------------------------------------------- anchors


def test_anchors_read_back_as_written(anchors: AnchorStore) -> None:
    assert not anchors.has(UID)
    anchors.write(UID, arrays(30))
    stored = anchors.read(UID)
    assert stored.vectors.dtype == np.float16
    assert stored.norms.dtype == np.float32
    np.testing.assert_array_equal(stored.vectors, arrays(30).vectors)
    np.testing.assert_array_equal(stored.norms, arrays(30).norms)


@pytest.mark.parametrize(
    "rows", [[], [0], [29], [0, 1, 2], [3, 4, 5, 17, 18, 29], [1, 3, 5], list(range(30))]
)
def test_rows_are_read_in_order_whatever_the_runs(anchors: AnchorStore, rows: list[int]) -> None:
    anchors.write(UID, arrays(30))
    stored = anchors.read_rows(UID, np.array(rows, np.int64))
    np.testing.assert_array_equal(stored.vectors, arrays(30).vectors[rows])
    np.testing.assert_array_equal(stored.norms, arrays(30).norms[rows])


def test_a_video_without_anchors_has_none(anchors: AnchorStore) -> None:
    anchors.write(UID, arrays(0))
    assert anchors.read(UID).vectors.shape == (0, 6)


@pytest.mark.parametrize("rows", [[30], [-1], [0, 400]])
def test_rows_that_do_not_exist_mean_a_file_of_another_video(
    anchors: AnchorStore, rows: list[int]
) -> None:
    anchors.write(UID, arrays(30))
    with pytest.raises(IndexDirectoryError, match=r"30 anchors.*localise --rebuild"):
        anchors.read_rows(UID, np.array(rows, np.int64))


def test_missing_and_damaged_anchors_are_reported_with_the_next_step(anchors: AnchorStore) -> None:
    with pytest.raises(IndexDirectoryError, match="localise --rebuild"):
        anchors.read(UID)
    anchors.write(UID, arrays(5))
    anchors.path(UID).write_bytes(anchors.path(UID).read_bytes()[:40])
    with pytest.raises(IndexDirectoryError, match="missing or damaged"):
        anchors.read(UID)


# ---------------------------------------------------------------- thumbnails


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, 0), (-1.0, 0), (0.5, 0), (1.499, 0), (1.5, 1), (1.999, 1), (2.0, 2), (1e9, 2)],
)
def test_a_time_shows_the_last_thumbnail_at_or_before_it_or_else_the_first(
    filled: ThumbnailStore, seconds: float, shown: int
) -> None:
    assert filled.read(UID, seconds) == JPEGS[shown]


def test_times_are_those_written(filled: ThumbnailStore) -> None:
    assert filled.times(UID).tolist() == TIMES


@pytest.mark.parametrize("deleted", [False, True])
def test_a_video_without_thumbnails_has_none(thumbnails: ThumbnailStore, deleted: bool) -> None:
    if deleted:
        thumbnails.write(UID, Thumbnails(np.array(TIMES), JPEGS))
        thumbnails.delete(UID)
    assert thumbnails.read(UID, 0.0) is None
    assert thumbnails.times(UID).tolist() == []
    assert thumbnails.size_bytes() == 0


def test_writing_no_thumbnails_deletes_earlier_ones(filled: ThumbnailStore) -> None:
    filled.write(UID, Thumbnails.join([]))
    assert not filled.path(UID).exists()


def test_parts_are_joined_in_order() -> None:
    parts = [
        Thumbnails(np.array(TIMES[:2]), JPEGS[:2]),
        Thumbnails.join([]),
        Thumbnails(np.array(TIMES[2:]), JPEGS[2:]),
    ]
    whole = Thumbnails.join(parts)
    assert whole.pts_seconds.tolist() == TIMES
    assert whole.jpegs == JPEGS


def test_truncated_thumbnails_are_reported_with_the_next_step(filled: ThumbnailStore) -> None:
    whole = filled.path(UID).read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        filled.path(UID).write_bytes(whole[:length])
        with pytest.raises(IndexDirectoryError, match="index it again"):
            filled.read(UID, 0.0)
        with pytest.raises(IndexDirectoryError, match="index it again"):
            filled.times(UID)


@pytest.mark.parametrize(
    "change",
    [
        {"ends": np.array([5, 15, 99])},
        {"ends": np.array([20, 15, 10])},
        {"ends": np.array([5, -2, 0])},
        {"ends": np.array([5, 15])},
        {"ends": np.empty(0, np.int64), "pts_seconds": np.empty(0)},
        {"jpegs": np.zeros((4, 4), np.uint8)},
    ],
)
def test_thumbnails_with_inconsistent_lengths_are_reported(
    filled: ThumbnailStore, change: dict[str, np.ndarray]
) -> None:
    path = filled.path(UID)
    save_file({**load_file(path), **change}, path)
    with pytest.raises(IndexDirectoryError, match="damaged"):
        filled.read(UID, TIMES[-1])
