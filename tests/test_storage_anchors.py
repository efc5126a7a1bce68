"""The anchor store."""

from pathlib import Path

import numpy as np
import pytest

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore

UID = "cd" * 20


@pytest.fixture
def store(tmp_path: Path) -> AnchorStore:
    return AnchorStore(tmp_path / "anchors" / "abc-0")


def arrays(num_anchors: int) -> AnchorArrays:
    rng = np.random.default_rng(num_anchors)
    vectors = rng.normal(size=(num_anchors, 6)).astype(np.float16)
    return AnchorArrays(vectors, rng.random(num_anchors).astype(np.float32))


def test_anchors_read_back_as_written(store: AnchorStore) -> None:
    assert not store.has(UID)
    store.write(UID, arrays(30))
    assert store.has(UID)
    stored = store.read(UID)
    assert stored.vectors.dtype == np.float16
    assert stored.norms.dtype == np.float32
    np.testing.assert_array_equal(stored.vectors, arrays(30).vectors)
    np.testing.assert_array_equal(stored.norms, arrays(30).norms)


@pytest.mark.parametrize(
    "rows", [[], [0], [29], [0, 1, 2], [3, 4, 5, 17, 18, 29], [1, 3, 5], list(range(30))]
)
def test_rows_are_read_in_their_order_whatever_the_runs(
    store: AnchorStore, rows: list[int]
) -> None:
    store.write(UID, arrays(30))
    stored = store.read_rows(UID, np.array(rows, np.int64))
    np.testing.assert_array_equal(stored.vectors, arrays(30).vectors[rows])
    np.testing.assert_array_equal(stored.norms, arrays(30).norms[rows])


def test_a_video_without_anchors_has_none(store: AnchorStore) -> None:
    store.write(UID, arrays(0))
    assert store.read(UID).vectors.shape == (0, 6)


@pytest.mark.parametrize("rows", [[30], [-1], [0, 400]])
def test_rows_that_are_not_there_mean_a_file_of_another_video(
    store: AnchorStore, rows: list[int]
) -> None:
    store.write(UID, arrays(30))
    with pytest.raises(IndexDirectoryError, match=r"30 anchors.*localise --rebuild"):
        store.read_rows(UID, np.array(rows, np.int64))


def test_missing_and_damaged_files_name_the_way_out(store: AnchorStore) -> None:
    with pytest.raises(IndexDirectoryError, match="localise --rebuild"):
        store.read(UID)
    store.write(UID, arrays(5))
    store.path(UID).write_bytes(store.path(UID).read_bytes()[:40])
    with pytest.raises(IndexDirectoryError, match="missing or damaged"):
        store.read(UID)


def test_deleting_twice_is_fine_and_frees_the_space(store: AnchorStore) -> None:
    store.write(UID, arrays(5))
    assert store.size_bytes() > 0
    store.delete(UID)
    store.delete(UID)
    assert store.size_bytes() == 0
    assert not store.has(UID)


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="need norms"):
        AnchorArrays(np.zeros((3, 2), np.float16), np.zeros(2, np.float32))
