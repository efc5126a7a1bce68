"""The thumbnail store."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.stores.thumbnails import Thumbnails, ThumbnailStore

UID = "ab" * 20
TIMES = [0.5, 1.5, 2.0]
JPEGS = (b"first", b"the second", b"3")


@pytest.fixture
def store(tmp_path: Path) -> ThumbnailStore:
    return ThumbnailStore(tmp_path / "thumbnails")


@pytest.fixture
def filled(store: ThumbnailStore) -> ThumbnailStore:
    store.write(UID, Thumbnails(np.array(TIMES), JPEGS))
    return store


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, 0), (-1.0, 0), (0.5, 0), (1.499, 0), (1.5, 1), (1.999, 1), (2.0, 2), (1e9, 2)],
)
def test_a_time_shows_the_last_one_at_or_before_it_or_else_the_first(
    filled: ThumbnailStore, seconds: float, shown: int
) -> None:
    assert filled.read(UID, seconds) == JPEGS[shown]


def test_times_are_those_written(filled: ThumbnailStore) -> None:
    assert filled.times(UID).tolist() == TIMES


def test_a_video_without_thumbnails_has_none(store: ThumbnailStore) -> None:
    assert store.read(UID, 0.0) is None
    assert store.times(UID).tolist() == []
    assert store.size_bytes() == 0


def test_writing_none_keeps_none(filled: ThumbnailStore) -> None:
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


def test_pictures_and_times_must_agree() -> None:
    with pytest.raises(ValueError, match="need pts_seconds"):
        Thumbnails(np.zeros(2), JPEGS)


def test_a_file_that_is_cut_off_is_told_with_the_next_step(filled: ThumbnailStore) -> None:
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
def test_numbers_that_do_not_fit_each_other_are_told(
    filled: ThumbnailStore, change: dict[str, np.ndarray]
) -> None:
    path = filled.path(UID)
    save_file({**load_file(path), **change}, path)
    with pytest.raises(IndexDirectoryError, match="damaged"):
        filled.read(UID, TIMES[-1])


def test_deleted_thumbnails_are_gone_and_deleting_twice_is_no_error(filled: ThumbnailStore) -> None:
    assert filled.size_bytes() > 0
    filled.delete(UID)
    filled.delete(UID)
    assert filled.read(UID, 0.0) is None
    assert filled.size_bytes() == 0
