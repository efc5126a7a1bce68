"""The drawn embeddings are as stated, and recall is counted as it is told."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.embeddings import (
    CLIPS_PER_VIDEO,
    SHOTS_PER_VIDEO,
    VIDEOS_PER_BLOCK,
    World,
    matrix_of,
    picture_statistics,
    text_statistics,
    videos_for,
)
from benchmarks.vector_ours import best_rows, row_of, rows_of_matrix
from benchmarks.vector_tables import batches, share_found
from benchmarks.vectors import recall


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_drawn_embeddings_have_the_stated_statistics(world: World) -> None:
    clips = np.concatenate([world.block(number).clips for number in range(2)])
    texts = world.texts(2 * VIDEOS_PER_BLOCK, 60)
    scores = texts @ clips.T.astype(np.float32)
    best = np.argsort(-scores, axis=1)[:, :100]
    # 400 videos are too few for the axes and for the best 100, which are of a large library.
    statistics = picture_statistics(clips)[:6] + text_statistics(clips, texts, best)[:5]
    for each in statistics:
        assert each.measured == pytest.approx(each.stated, abs=0.02), each.name


def test_a_block_is_the_same_whenever_it_is_drawn(world: World) -> None:
    again = World()
    np.testing.assert_array_equal(again.block(3).clips, world.block(3).clips)
    assert not np.array_equal(world.block(3).clips, world.block(4).clips)
    np.testing.assert_array_equal(again.texts(500, 9), world.texts(500, 9))


def test_a_sentence_finds_the_video_of_the_shot_it_means(world: World) -> None:
    texts = world.texts(VIDEOS_PER_BLOCK, 40)
    block = world.block(0)
    best = (texts @ block.clips.T.astype(np.float32)).argmax(axis=1) // CLIPS_PER_VIDEO
    meant = (texts @ block.shots.T).argmax(axis=1) // SHOTS_PER_VIDEO
    assert np.mean(best == meant) > 0.8


def test_halves_share_no_topic() -> None:
    both = [World(half=half).block(0).shots for half in ("first", "second")]
    inside = (both[0] @ both[0].T)[np.triu_indices(len(both[0]), 10)]
    across = both[0] @ both[1].T
    assert np.mean(across > 0.6) < 0.1 * np.mean(inside > 0.6)


def test_a_longer_file_serves_for_fewer_videos(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clips.f16"
    long = matrix_of(path, world, 3)
    monkeypatch.setattr(world, "block", None)  # nothing is drawn again
    np.testing.assert_array_equal(matrix_of(path, world, 2), long[: 2 * CLIPS_PER_VIDEO])


def test_recall_counts_the_best_that_are_among_as_many_found() -> None:
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    found = np.array([[2, 1, 9, 3], [5, 9, 9, 9]])
    assert recall(found, truth, 2) == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert recall(found, truth, 4) == pytest.approx((3 / 4 + 1 / 4) / 2)


def test_best_rows_are_those_of_all_blocks_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.vector_ours._BLOCK", 7)
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((40, 8)).astype(np.float16)
    queries = rng.standard_normal((3, 8)).astype(np.float32)
    wanted = np.argsort(-(queries @ clips.T.astype(np.float32)), axis=1)[:, :10]
    np.testing.assert_array_equal(best_rows(clips, queries, 10), wanted)


def test_share_found_leaves_out_answers_that_are_none() -> None:
    truth = np.array([[1, 2, -1], [3, -1, -1]])
    found = np.array([[2, -1, -1], [3, -1, -1]])
    assert share_found(found, truth) == pytest.approx(2 / 3)


def test_clip_ids_stand_for_rows_of_the_matrix() -> None:
    rows = rows_of_matrix(np.zeros((3 * CLIPS_PER_VIDEO, 4), np.float16))
    wanted = np.array([0, 59, 60, 150, -1])
    np.testing.assert_array_equal(row_of(rows.ids(wanted)), wanted)


def test_a_library_grows_in_small_steps_then_in_large_ones() -> None:
    steps = list(batches(videos_for(200_000) * CLIPS_PER_VIDEO))
    clips = np.array(steps) * CLIPS_PER_VIDEO
    assert clips[0] == pytest.approx(10_000, abs=60)
    assert np.diff(clips)[:3] == pytest.approx(5_000, abs=60)
    assert clips[-1] == 200_040
    assert np.diff(clips)[-2] == pytest.approx(20_000, abs=60)
