"""The feature store."""

from pathlib import Path

import numpy as np
import pytest

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.stores.features import FeatureStore, FrameFeatures

UID = "ab" * 20


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def features(num_frames: int) -> FrameFeatures:
    frames = np.random.default_rng(0).normal(size=(num_frames, 8)).astype(np.float16)
    return FrameFeatures(frames, np.arange(num_frames, dtype=np.float64) / 2)


def test_features_read_back_as_written(store: FeatureStore) -> None:
    store.write(UID, features(20))
    stored = store.read(UID)
    assert stored.frames.dtype == np.float16
    assert stored.pts_seconds.dtype == np.float64
    np.testing.assert_array_equal(stored.frames, features(20).frames)
    np.testing.assert_array_equal(stored.pts_seconds, features(20).pts_seconds)


def test_only_the_frames_inside_half_open_spans_are_read(store: FeatureStore) -> None:
    store.write(UID, features(20))
    first, second, nothing = store.read_between(UID, [(0.0, 1.0), (8.9, 99.0), (50.0, 60.0)])
    assert first.pts_seconds.tolist() == [0.0, 0.5]
    assert second.pts_seconds.tolist() == [9.0, 9.5]
    np.testing.assert_array_equal(second.frames, features(20).frames[18:])
    assert nothing.frames.shape == (0, 8)


def test_frames_and_times_must_agree() -> None:
    with pytest.raises(ValueError, match="need pts_seconds"):
        FrameFeatures(np.zeros((3, 8), np.float16), np.zeros(2))


def test_missing_and_damaged_features_are_told_with_the_next_step(store: FeatureStore) -> None:
    with pytest.raises(IndexDirectoryError, match="missing or damaged"):
        store.read(UID)
    store.write(UID, features(20))
    path = store.path(UID)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IndexDirectoryError, match="index it again"):
        store.read(UID)


def test_deleted_features_are_gone_and_deleting_twice_is_no_error(store: FeatureStore) -> None:
    store.write(UID, features(3))
    assert store.size_bytes() > 0
    store.delete(UID)
    store.delete(UID)
    assert store.size_bytes() == 0


def test_strays_are_files_of_unknown_contents_and_of_interrupted_writes(
    store: FeatureStore,
) -> None:
    store.write(UID, features(3))
    store.write("ff00", features(3))
    half = store.path(UID).parent / ".tmp-stray"
    half.write_bytes(b"half")
    assert sorted(store.strays({UID})) == sorted([half, store.path("ff00")])
    assert len(store.strays({UID, "ff00"})) == 1
