"""The vector index on disk: published video by video, opened again, damaged, merged, trained again."""

import json
import logging
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.storage.records import clip_id
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors import build, segments
from scanonce.storage.vectors import publish as generations
from scanonce.storage.vectors.codes import train_codes, write_codes
from scanonce.storage.vectors.generation import Generation, newest_number
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import publish
from tests.oracle import (
    DIM,
    MANY,
    SETTINGS,
    Clips,
    Load,
    assert_searches_like,
    bring_up,
    clips_of,
    lattice,
    newest,
    not_needed,
    reopen,
    rows_of,
    truth,
)

pytestmark = pytest.mark.usefixtures("one_faiss_thread")


def test_an_empty_library_opens_and_publishes_nothing(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    assert_searches_like(reopen(vectors, set()), {})
    assert publish(vectors, set(), clips_of, dim=DIM, settings=SETTINGS) is None
    assert newest_number(vectors) == 0


def test_a_library_of_videos_without_clips_is_published_once(tmp_path: Path) -> None:
    def nothing(video: int) -> NDArray[np.float32]:
        return np.empty((0, DIM), np.float32)

    for _ in range(2):
        generation = bring_up(tmp_path, {1, 2}, nothing)
        assert generation.number == 1
    index = reopen(tmp_path, {1, 2}, load=not_needed)
    assert (len(index), index.num_videos) == (0, 2)


@pytest.mark.parametrize("seed", range(6))
def test_random_adds_and_removals_search_like_the_truth(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    live: set[int] = set()
    numbers = []
    for step in range(12):
        gone = rng.choice(sorted(live), min(len(live), int(rng.integers(0, 4))), replace=False)
        live -= set(gone.tolist())
        live |= set(rng.choice(np.arange(step * 10, step * 10 + 10), int(rng.integers(0, 8))))
        assert_searches_like(reopen(tmp_path, live), truth(live))  # before it is published
        publish(tmp_path, live, clips_of, dim=DIM, settings=SETTINGS)
        numbers.append(newest_number(tmp_path))
        index = reopen(tmp_path, live, load=not_needed)
        assert_searches_like(index, truth(live))
        assert index.num_videos == len(live)
    assert numbers == sorted(numbers)
    assert len(list(tmp_path.iterdir())) <= 2


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2, 3})
    before = sorted(tmp_path.rglob("*"))
    generation = bring_up(tmp_path, {3, 2, 1}, not_needed)
    assert generation.number == 1
    assert sorted(tmp_path.rglob("*")) == before


def new_files(before: Generation, after: Generation) -> dict[str, int]:
    """Return the sizes of the files that the generation before does not have."""
    shared = {path.stat().st_ino for path in before.path.iterdir()}
    stats = {path.name: path.stat() for path in after.path.iterdir()}
    del stats["generation.json"]
    return {name: stat.st_size for name, stat in stats.items() if stat.st_ino not in shared}


def test_a_new_video_becomes_a_segment_and_shares_the_others(tmp_path: Path) -> None:
    first = bring_up(tmp_path, set(range(20)))
    seen: list[int] = []
    progress: list[int] = []

    def load(video: int) -> NDArray[np.float32]:
        seen.append(video)
        return clips_of(video)

    live = set(range(22))
    second = bring_up(tmp_path, live, load, progress=progress.append)
    assert (seen, progress) == ([20, 21], [1, 2])
    assert second.segments[-1].rows.videos.tolist() == [20, 21]
    assert new_files(first, second).keys() == {"0000000002.f16", "0000000002_videos.npy"}
    assert_searches_like(reopen(tmp_path, live), truth(live))


def test_segments_are_copied_if_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    flushed: list[str] = []
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(generations, "sync", lambda path: flushed.append(path.name))
    bring_up(tmp_path, MANY)
    flushed.clear()
    live = MANY | {250}
    names = {path.name for path in bring_up(tmp_path, live).path.iterdir()}
    assert {"base.faiss", "0000000001.f16", "0000000002.f16", "generation.json"} < names
    assert names < set(flushed)
    assert_searches_like(reopen(tmp_path, live), truth(live))


def test_only_new_files_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_up(tmp_path, MANY)
    flushed: list[str] = []
    monkeypatch.setattr(generations, "sync", lambda path: flushed.append(path.name))
    generation = bring_up(tmp_path, MANY | {250})
    *files, folder, parent = flushed
    assert sorted(files) == ["0000000002.f16", "0000000002_videos.npy", "generation.json"]
    assert (folder.startswith("staging-"), parent) == (True, tmp_path.name)
    assert (generation.path / "base.faiss").stat().st_nlink == 2


# One video at a time


@pytest.mark.parametrize(
    ("seed", "start", "kept_open"), [(0, 0, True), (1, 250, False), (2, 250, True)]
)
def test_hundreds_of_single_publishes_search_like_the_truth(
    tmp_path: Path, seed: int, start: int, kept_open: bool
) -> None:
    rng = np.random.default_rng(seed)
    live = set(range(100, 100 + start))
    # In no order: a video that could not be read at first is indexed later, under its old id.
    waiting = rng.permutation([*range(100), *range(100 + start, 300 + start)]).tolist()
    index: LibraryIndex | None = None
    for step in range(200):
        live |= {waiting.pop()} if rng.random() < 0.9 else set()
        live -= {int(rng.choice(sorted(live)))} if live and rng.random() < 0.3 else set()
        if step % 7 == 0:  # a reader that comes before the publish
            index = reopen(tmp_path, live, index if kept_open else None)
            assert_searches_like(index, truth(live))
        publish(tmp_path, live, clips_of, dim=DIM, settings=SETTINGS)
        if step % 3 == 0:
            index = reopen(tmp_path, live, index if kept_open else None)
            assert index.num_videos == len(live)
            assert_searches_like(index, truth(live))
    assert len(list(tmp_path.iterdir())) == 2


def same_size(video: int) -> NDArray[np.float32]:
    """Four clips in few directions, so that lists trained on some fit the others."""
    return lattice(np.random.default_rng(video % 50), (4, DIM))


def publish_same_size(vectors: Path, num_videos: int) -> Generation:
    return bring_up(vectors, range(num_videos), same_size)


def test_segments_join_so_that_they_are_few_and_little_is_copied(tmp_path: Path) -> None:
    written = 0
    before = publish_same_size(tmp_path, 1)
    for num_videos in range(2, 240):
        after = publish_same_size(tmp_path, num_videos)
        sizes = [len(segment.rows) for segment in after.segments]
        assert all(larger > 2 * smaller for larger, smaller in pairwise(sizes))
        written += sum(size for name, size in new_files(before, after).items() if "f16" in name)
        before = after
    assert after.info.kind == "flat"
    assert written <= 6 * 240 * 4 * DIM * 2  # each clip six times: log(240), not 120


@pytest.mark.parametrize("num_videos", [10, 100, 240, 250, 1_000])
def test_a_new_video_writes_the_same_whatever_the_library_holds(
    tmp_path: Path, num_videos: int
) -> None:
    before = publish_same_size(tmp_path, num_videos)
    assert before.info.kind == ("ivfpq" if num_videos >= 250 else "flat")
    written = new_files(before, publish_same_size(tmp_path, num_videos + 1))
    assert written == {"0000000002.f16": 4 * DIM * 2, "0000000002_videos.npy": 128 + 16}


def test_dead_clips_are_dropped_when_a_segment_is_joined(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(30)))
    bring_up(tmp_path, {*range(30), 31})
    generation = bring_up(tmp_path, {*range(30), 32})
    assert [segment.name for segment in generation.segments] == ["0000000001", "0000000003"]
    assert generation.delta.videos.tolist() == [*range(30), 32]


# Opening again


@pytest.mark.parametrize("live", [set(range(40)), MANY])
def test_open_files_of_a_reader_are_not_opened_again(tmp_path: Path, live: set[int]) -> None:
    bring_up(tmp_path, live)
    old = reopen(tmp_path, live)
    bring_up(tmp_path, live | {250})
    new = reopen(tmp_path, live | {250}, old)
    assert (old.generation, new.generation) == (1, 2)
    assert new.open_files.segments[0] is old.open_files.segments[0]
    assert new.open_files.codes is old.open_files.codes
    shared = new.open_files.segments[0]
    if new.kind == "flat":
        assert new._parts[0] is old._parts[0] is shared.index
    else:
        assert "index" not in vars(
            shared
        )  # its clips are searched by code, so there is no copy in memory
    assert_searches_like(old, truth(live))
    assert_searches_like(new, truth(live | {250}))


def test_a_new_index_is_not_mistaken_for_the_one_that_is_open(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(20)))
    old = reopen(tmp_path, set(range(20)))
    shutil.rmtree(tmp_path / "0000000001")

    def others(video: int) -> NDArray[np.float32]:
        return clips_of(video)[::-1]

    bring_up(tmp_path, range(20), others)
    new = reopen(tmp_path, set(range(20)), old)
    assert_searches_like(new, {video: others(video) for video in range(20)})


def test_a_new_video_is_published_without_reading_the_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mapped: bool = True) -> None:
        raise AssertionError("the codes are as long as the library is large")

    bring_up(tmp_path, MANY)
    with monkeypatch.context() as patch:
        patch.setattr(segments, "read_codes", refuse)
        patch.setattr(build, "read_codes", refuse)
        bring_up(tmp_path, MANY | {250})
    assert_searches_like(reopen(tmp_path, MANY | {250}), truth(MANY | {250}))


def test_an_unpublished_video_that_was_stored_again_is_loaded_again(tmp_path: Path) -> None:
    old = reopen(tmp_path, {1, 2})
    new = reopen(tmp_path, {1, 2}, old, load=lambda video: clips_of(video + 5))
    assert_searches_like(new, {1: clips_of(6), 2: clips_of(7)})


# Merging and training again


def load_only(known: int) -> Load:
    """Load the videos from ``known`` on; the others are stored."""
    return lambda video: not_needed(video) if video < known else same_size(video)


def test_a_delta_beyond_fold_rows_extends_the_base_without_loading_again(tmp_path: Path) -> None:
    before = publish_same_size(tmp_path, 300)
    deltas = []
    for end in range(301, 325):
        after = bring_up(tmp_path, range(end), load_only(end - 1))
        deltas.append(len(after.delta))
        before, last = after, before
        if not deltas[-1]:
            assert "base.faiss" in new_files(last, before)
            assert "0000000001.f16" not in new_files(last, before)
    assert deltas[:12] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 0, 4]
    assert before.info.fit is not None
    assert (before.info.fit.trained_clips, before.info.fit.added_clips) == (1_200, 88)
    assert before.info.factory == "IVF128,PQ8x4fs"
    expected = {video: same_size(video) for video in range(324)}
    assert_searches_like(reopen(tmp_path, set(range(324))), expected)


def test_clips_of_dead_videos_keep_their_position_in_the_base(tmp_path: Path) -> None:
    bring_up(tmp_path, MANY)
    live = MANY - {3, 120} | set(range(250, 263))
    assert len(bring_up(tmp_path, live).delta) == 0
    live = live - {4, 255} | set(range(263, 275))
    generation = bring_up(tmp_path, live)
    assert len(generation.delta) == 0
    assert {3, 4, 120, 255} < set(generation.base.videos.tolist())
    assert_searches_like(reopen(tmp_path, live), truth(live))


def test_removals_are_masked_at_once_and_dropped_past_a_fifth(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(40)))
    few = set(range(1, 40))
    assert bring_up(tmp_path, few).number == 1
    assert_searches_like(reopen(tmp_path, few), truth(few))
    generation = bring_up(tmp_path, set(range(20, 40)))
    assert generation.videos.tolist() == list(range(20, 40))
    assert bring_up(tmp_path, set()).videos.tolist() == []
    assert_searches_like(reopen(tmp_path, set()), {})


def test_a_base_with_many_dead_clips_is_trained_again(tmp_path: Path) -> None:
    publish_same_size(tmp_path, 400)
    live = range(90, 400)
    generation = bring_up(tmp_path, live, not_needed)
    assert generation.info.fit is not None
    assert generation.info.fit.trained_clips == 310 * 4
    assert generation.base.videos.tolist() == list(live)


def strange(video: int) -> NDArray[np.float32]:
    """Clips unlike any of `same_size`: their cosine with their centroid is less than .85 of that."""
    return np.random.default_rng(video).standard_normal((4, DIM), np.float32)


def crowded(video: int) -> NDArray[np.float32]:
    """Clips of one direction, which all go into one list."""
    return same_size(0)[:1].repeat(4, axis=0)


@pytest.mark.parametrize(
    ("load", "num_new", "reason"),
    [
        (same_size, 60, None),
        (strange, 12, None),
        (strange, 60, "mean cosine"),
        (crowded, 60, "imbalance"),
        (same_size, 70, "were added to 1000"),
    ],
)
def test_the_base_is_trained_again_when_its_lists_no_longer_fit(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    load: Load,
    num_new: int,
    reason: str | None,
) -> None:
    publish_same_size(tmp_path, 250)
    with caplog.at_level(logging.INFO):
        generation = bring_up(tmp_path, range(250 + num_new), load)
    assert generation.info.fit is not None
    clips = 1_000 + 4 * num_new
    assert len(generation.base) == clips
    assert generation.info.fit.trained_clips == (clips if reason else 1_000)
    assert ("trained again" in caplog.text) == (reason is not None)
    assert reason is None or reason in caplog.text


def test_a_library_that_grows_migrates_to_ivfpq(tmp_path: Path) -> None:
    def load(video: int) -> NDArray[np.float32]:
        return lattice(np.random.default_rng(video), (90, DIM))

    kinds = []
    for end in (10, 12, 13):
        generation = bring_up(
            tmp_path, range(end), load, settings=StorageSettings(ivf_threshold=1_000)
        )
        kinds.append((generation.info.kind, generation.info.factory, len(generation.delta)))
    assert kinds == [
        ("flat", None, 900),
        ("ivfpq", "IVF128,PQ8x4fs", 0),
        ("ivfpq", "IVF128,PQ8x4fs", 90),
    ]
    index = reopen(tmp_path, range(1, 13), load=not_needed)
    assert index.kind == "ivfpq"
    assert_searches_like(index, {video: load(video) for video in range(1, 13)})


def test_readers_keep_the_generation_they_opened(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(20)))
    old = reopen(tmp_path, set(range(20)))
    for end in (30, 40, 50):
        bring_up(tmp_path, set(range(end)))
    new = reopen(tmp_path, set(range(50)))
    assert (old.generation, new.generation) == (1, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000003", "0000000004"]
    assert_searches_like(old, truth(set(range(20))))
    assert_searches_like(new, truth(set(range(50))))


# The first format


def write_first_format(vectors: Path, base: Clips, delta: Clips, *, factory: str | None) -> None:
    """Write generation 1 as the first version did."""
    folder = vectors / "0000000001"
    folder.mkdir(parents=True)
    for name, clips in (("base", base), ("delta", delta)):
        np.concatenate(list(clips.values())).astype(np.float16).tofile(folder / f"{name}.f16")
        np.save(folder / f"{name}_videos.npy", [(v, len(rows)) for v, rows in clips.items()])
    if factory:
        write_codes(train_codes(rows_of(base)), str(folder / "base.faiss"))
    info = {
        "format": 1,
        "kind": "ivfpq" if factory else "flat",
        "dim": DIM,
        "base_clips": sum(map(len, base.values())),
        "delta_clips": sum(map(len, delta.values())),
        "factory": factory,
        "nprobe": 64,
        "rescore_depth": 500,
        "created": "2026-11-01T12:00:00Z",
        "files": {path.name: path.stat().st_size for path in folder.iterdir()},
    }
    (folder / "generation.json").write_text(json.dumps(info))


@pytest.mark.parametrize("factory", [None, "IVF128,PQ8x4fs"])
def test_a_generation_of_the_first_format_opens_and_grows(
    tmp_path: Path, factory: str | None
) -> None:
    old = {video: same_size(video) for video in range(250)}
    delta = {video: same_size(video) for video in range(300, 304)}
    write_first_format(tmp_path, old, delta, factory=factory)
    index = reopen(tmp_path, [*old, *delta], load=not_needed)
    assert index.kind == ("ivfpq" if factory else "flat")
    assert_searches_like(index, old | delta)
    few = StorageSettings(fold_rows=40, ivf_threshold=5_000)
    for end in range(305, 320):
        new = {video: same_size(video) for video in range(304, end)}
        live = old | delta | new
        bring_up(tmp_path, live, load_only(end - 1), settings=few)
        index = reopen(tmp_path, live, load=not_needed)
        assert_searches_like(index, live)
    generation = newest(tmp_path)
    assert "base" in generation.info.segments
    fit = generation.info.fit
    assert (fit and (fit.trained_clips, fit.added_clips)) == ((1_000, 44) if factory else None)


# The library as a whole


def test_a_video_mask_filters_to_the_videos(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(30)))
    index = reopen(tmp_path, set(range(10, 35)))  # dead, published and unpublished ones
    queries = lattice(np.random.default_rng(8), (2, DIM))
    _, ids = index.search(queries, 500, allowed=index.mask([3, 12, 29, 33, 77]))
    expected = {clip_id(v, n) for v in (12, 29, 33) for n in range(len(clips_of(v)))}
    for found in ids:
        assert set(found[found >= 0].tolist()) == expected


def test_background_scores_a_fixed_sample_of_live_clips(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(30)))
    live = set(range(3, 35))
    index = reopen(tmp_path, live)
    queries = lattice(np.random.default_rng(8), (2, DIM))
    everything = np.concatenate(list(truth(live).values()))
    whole = index.background(queries)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(np.sort(whole), np.sort(queries @ everything.T))
    part = index.background(queries, sample=20)
    np.testing.assert_array_equal(part, reopen(tmp_path, live).background(queries, sample=20))
    assert part.shape == (2, 20)
    assert not np.array_equal(part, index.background(queries, sample=20, seed=1))


def test_background_of_an_empty_library_is_empty(tmp_path: Path) -> None:
    assert reopen(tmp_path, set()).background(np.ones((2, DIM), np.float32)).shape == (2, 0)
