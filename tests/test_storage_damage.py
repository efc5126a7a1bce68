"""Vector indexes that are damaged, cannot be written, or get clips that do not fit."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.vectors import publish as generations
from scanonce.storage.vectors.generation import newest_generation, newest_number
from tests.oracle import (
    DIM,
    MANY,
    assert_searches_like,
    bring_up,
    clips_of,
    disk_is_full,
    newest,
    not_needed,
    reopen,
    truth,
)

pytestmark = pytest.mark.usefixtures("one_faiss_thread")


def test_a_video_that_cannot_be_loaded_leaves_the_old_generation(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})

    def broken(video: int) -> NDArray[np.float32]:
        if video == 4:
            raise RuntimeError("feature file is gone")
        return clips_of(video)

    with pytest.raises(RuntimeError, match="feature file is gone"):
        bring_up(tmp_path, {1, 2, 3, 4}, broken)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]
    assert_searches_like(reopen(tmp_path, {1, 2}), truth({1, 2}))


@pytest.mark.parametrize("step", ["write_rows", "_seal", "sync"])
def test_a_write_that_fails_leaves_the_old_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bring_up(tmp_path, {1, 2})

    with monkeypatch.context() as patch:
        patch.setattr(generations, step, disk_is_full)
        with pytest.raises(IndexDirectoryError, match="No space left"):
            bring_up(tmp_path, {1, 2, 3})
    assert_searches_like(reopen(tmp_path, {1, 2, 3}), truth({1, 2, 3}))
    assert bring_up(tmp_path, {1, 2, 3}).number == 2


def test_leftovers_of_a_killed_writer_are_not_read_and_are_removed(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})
    shutil.copytree(tmp_path / "0000000001", tmp_path / "staging-killed")
    cut(tmp_path / "staging-killed" / "0000000001.f16")
    assert_searches_like(reopen(tmp_path, {1, 2}), truth({1, 2}))
    bring_up(tmp_path, {1, 2})
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]


def cut(path: Path) -> None:
    """Remove the last byte, of this name only: other hard links keep the whole file."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])


def grow(path: Path) -> None:
    """Append a byte, to this name only."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"x")


@pytest.mark.parametrize(
    "name", ["0000000001.f16", "0000000001_videos.npy", "0000000002.f16", "generation.json"]
)
@pytest.mark.parametrize("damage", [cut, grow, Path.unlink])
def test_a_damaged_generation_is_skipped_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    live = set(range(22))
    bring_up(tmp_path, set(range(20)))
    bring_up(tmp_path, live)
    damage(tmp_path / "0000000002" / name)
    with caplog.at_level(logging.WARNING):
        index = reopen(tmp_path, live)
    assert "generation 2 is skipped" in caplog.text
    assert index.generation == 1
    assert_searches_like(index, truth(live))
    assert bring_up(tmp_path, live).number == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000001", "0000000003"]


def test_a_damaged_generation_is_replaced_even_if_no_video_is_new(tmp_path: Path) -> None:
    live = set(range(20))
    bring_up(tmp_path, live)
    bring_up(tmp_path, live | {20})
    cut(tmp_path / "0000000002" / "0000000002.f16")
    generation = bring_up(tmp_path, live, not_needed)
    assert generation.number == 3
    assert_searches_like(reopen(tmp_path, live), truth(live))


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_library_whose_only_generation_is_damaged_is_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    live = MANY
    bring_up(tmp_path, live)
    damage(tmp_path / "0000000001" / "base.faiss")
    assert_searches_like(reopen(tmp_path, live), truth(live))
    generation = bring_up(tmp_path, live)
    assert (generation.number, generation.info.kind) == (2, "ivfpq")
    assert newest_number(tmp_path) == 2


def test_codes_that_faiss_cannot_read_count_as_damage(tmp_path: Path) -> None:
    bring_up(tmp_path, MANY)
    codes = tmp_path / "0000000001" / "base.faiss"
    codes.write_bytes(bytes(codes.stat().st_size))
    assert newest_generation(tmp_path, dim=DIM) is None


@pytest.mark.parametrize("num_new", [0, 1, 20])
def test_codes_that_faiss_cannot_read_are_built_again_when_they_are_needed(
    tmp_path: Path, num_new: int
) -> None:
    bring_up(tmp_path, MANY)
    codes = tmp_path / "0000000001" / "base.faiss"
    codes.write_bytes(bytes(codes.stat().st_size))
    live = MANY | set(range(250, 250 + num_new))
    bring_up(tmp_path, live)
    assert_searches_like(reopen(tmp_path, live), truth(live))
    bring_up(tmp_path, live)  # nothing is new: all files are checked
    generation = newest(tmp_path)
    assert len(generation.base) == sum(map(len, truth(live).values()))
    assert_searches_like(reopen(tmp_path, live), truth(live))


def test_another_dim_is_an_error_that_names_both(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})
    with pytest.raises(ManifestMismatch, match="16 dimensions, the encoder makes 8"):
        reopen(tmp_path, {1}, dim=8)
    with pytest.raises(ManifestMismatch, match="16 dimensions, the encoder makes 8"):
        bring_up(tmp_path, {1}, dim=8)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((2, DIM + 1), np.float32), r"video 5 have shape \[2, 17\]"),
        (np.full((2, DIM), np.nan, np.float32), "not finite"),
        (np.full((2, DIM), 1e6, np.float32), "not finite"),
    ],
)
def test_clips_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, bad: NDArray[np.float32], message: str
) -> None:
    with pytest.raises(IndexDirectoryError, match=message):
        bring_up(tmp_path, {5}, lambda _: bad)


def test_a_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IndexDirectoryError, match="cannot be written"):
        bring_up(tmp_path / "file", {1})
    with pytest.raises(IndexDirectoryError, match="cannot be read"):
        reopen(tmp_path / "file", {1})
