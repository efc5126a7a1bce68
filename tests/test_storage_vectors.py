"""One set of tests over all vector indexes, with exact search as the oracle; then what is on disk."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from storage import generations
from storage.errors import IndexDirectoryError, ManifestMismatch, ScanonceError
from storage.generations import (
    Generation,
    LibraryIndex,
    newest_generation,
    newest_number,
    open_library,
    publish,
)
from storage.records import clip_id
from storage.settings import StorageSettings
from storage.vectors import (
    ClipRows,
    FlatIndex,
    Ids,
    IvfPqIndex,
    Mask,
    Scores,
    VectorIndex,
    default_nprobe,
    factory,
    read_codes,
    write_codes,
)

DIM = 16
Clips = dict[int, NDArray[np.float32]]
SETTINGS = StorageSettings(fold_rows=40)


def lattice(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Small whole numbers: every product is exact in float32, so scores must be equal, and many tie."""
    return rng.integers(-2, 3, shape).astype(np.float32)


def clips_of(video: int, dim: int = DIM) -> NDArray[np.float32]:
    """The clips of a video: 0 to 12 of them, the same at every call."""
    rng = np.random.default_rng(video)
    return lattice(rng, (int(rng.integers(0, 13)), dim))


def oracle(
    clips: Clips, queries: NDArray[np.float32], k: int, allowed_ids: set[int] | None = None
) -> tuple[Scores, Ids]:
    """Exact search in the plainest way."""
    ids = [clip_id(video, n) for video, rows in clips.items() for n in range(len(rows))]
    rows = [row for video in clips.values() for row in video]
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for number, query in enumerate(queries):
        ranked = sorted(
            (-float(row @ query), i)
            for i, row in zip(ids, rows, strict=True)
            if allowed_ids is None or i in allowed_ids
        )[:k]
        for place, (negative, i) in enumerate(ranked):
            scores[number, place], found[number, place] = -negative, i
    return scores, found


def assert_searches_like(index: VectorIndex, clips: Clips, k: int = 7) -> None:
    queries = lattice(np.random.default_rng(99), (3, DIM))
    scores, ids = index.search(queries, k)
    expected_scores, expected_ids = oracle(clips, queries, k)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    assert len(index) == sum(map(len, clips.values()))


def rows_of(clips: Clips) -> ClipRows:
    return ClipRows.of(clips, list(clips.values()))


def make_ivfpq(rows: ClipRows) -> IvfPqIndex:
    codes = IvfPqIndex.train(rows)
    return IvfPqIndex(rows, codes, nprobe=default_nprobe(codes.nlist), rescore_depth=100)


def make_library(rows: ClipRows) -> LibraryIndex:
    """Three parts, the middle one with a dead video."""
    live = {int(video): rows.matrix[a:b] for video, a, b in runs(rows)}
    parts: list[Clips] = [{}, {1_000: lattice(np.random.default_rng(5), (9, rows.dim))}, {}]
    for number, (video, clips) in enumerate(live.items()):
        parts[number % 3][video] = clips.astype(np.float32)
    indexes = [FlatIndex(rows_of(dict(sorted(part.items())))) for part in parts]
    return LibraryIndex(indexes, rows.videos, generation=1)


def runs(rows: ClipRows) -> Iterator[tuple[int, int, int]]:
    yield from zip(rows.videos.tolist(), rows.starts[:-1], rows.starts[1:], strict=True)


MAKERS: dict[str, Callable[[ClipRows], FlatIndex | IvfPqIndex | LibraryIndex]] = {
    "flat": FlatIndex,
    "ivfpq": make_ivfpq,
    "library": make_library,
}


@pytest.fixture(autouse=True, scope="module")
def one_training_thread() -> Iterator[None]:
    """Tiny k-means runs wait for each other's threads: 200 times slower where cores are busy."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[ClipRows], VectorIndex]:
    maker: Callable[[ClipRows], VectorIndex] = MAKERS[request.param]
    return maker


@pytest.fixture
def clips() -> Clips:
    return {video: clips_of(video) for video in range(1, 41)}


def all_ids(index: VectorIndex) -> Ids:
    """The id of every row; rows of dead videos included."""
    if isinstance(index, LibraryIndex):
        return np.concatenate([part.rows.ids(np.arange(len(part))) for part in index._parts])
    assert isinstance(index, FlatIndex | IvfPqIndex)
    return index.rows.ids(np.arange(len(index)))


# One set of tests over all kinds


@pytest.mark.parametrize("k", [1, 10, 1_000])
def test_search_equals_the_oracle_with_ties_by_id_and_padding(
    make: Callable[[ClipRows], VectorIndex], clips: Clips, k: int
) -> None:
    assert_searches_like(make(rows_of(clips)), clips, k)


def test_all_clips_alike_come_in_the_order_of_their_ids(
    make: Callable[[ClipRows], VectorIndex],
) -> None:
    same = {video: np.ones((10, DIM), np.float32) for video in range(1, 31)}
    _, ids = make(rows_of(same)).search(np.ones((1, DIM), np.float32), 25)
    expected = [clip_id(video, n) for video in (1, 2, 3) for n in range(10)]
    assert ids[0].tolist() == expected[:25]


def test_a_lower_id_wins_a_tie_at_the_end_of_the_list(
    make: Callable[[ClipRows], VectorIndex],
) -> None:
    # The better rows come last, so that a bounded list has to give up some of the tied ones.
    ranked = {video: np.full((1, DIM), 1 + video // 25, np.float32) for video in range(1, 31)}
    _, ids = make(rows_of(ranked)).search(np.ones((1, DIM), np.float32), 10)
    assert (ids[0] >> 20).tolist() == [25, 26, 27, 28, 29, 30, 1, 2, 3, 4]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_mask_leaves_the_allowed_clips_only(
    make: Callable[[ClipRows], VectorIndex], clips: Clips, share: float
) -> None:
    index = make(rows_of(clips))
    queries = lattice(np.random.default_rng(3), (4, DIM))
    allowed: Mask = np.random.default_rng(4).random(index.num_rows) < share
    scores, ids = index.search(queries, 20, allowed=allowed)
    expected = oracle(clips, queries, 20, set(all_ids(index)[allowed].tolist()))
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_gather_gives_the_rows_as_stored(
    make: Callable[[ClipRows], VectorIndex], clips: Clips
) -> None:
    index = make(rows_of(clips))
    ids = all_ids(index)
    rows = np.flatnonzero(ids < clip_id(1_000, 0))[::-7]
    expected = [clips[i >> 20][i & 0xFFFFF] for i in ids[rows].tolist()]
    np.testing.assert_array_equal(index.gather(rows), expected)
    assert index.gather(rows).dtype == np.float32


def test_no_queries_give_no_answers(make: Callable[[ClipRows], VectorIndex], clips: Clips) -> None:
    scores, ids = make(rows_of(clips)).search(np.empty((0, DIM), np.float32), 5)
    assert scores.shape == ids.shape == (0, 5)


@pytest.mark.parametrize(
    ("queries", "k", "num_allowed", "message"),
    [
        (np.ones((1, DIM + 1), np.float32), 1, None, "queries must be"),
        (np.ones(DIM, np.float32), 1, None, "queries must be"),
        (np.full((1, DIM), np.nan, np.float32), 1, None, "finite"),
        (np.ones((1, DIM), np.float32), 0, None, "k must be"),
        (np.ones((1, DIM), np.float32), 1, 3, "mask must be"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    make: Callable[[ClipRows], VectorIndex],
    clips: Clips,
    queries: NDArray[np.float32],
    k: int,
    num_allowed: int | None,
    message: str,
) -> None:
    allowed = None if num_allowed is None else np.ones(num_allowed, np.bool_)
    with pytest.raises(ValueError, match=message):
        make(rows_of(clips)).search(queries, k, allowed=allowed)


def test_search_leaves_the_number_of_threads_as_it_was(
    make: Callable[[ClipRows], VectorIndex], clips: Clips
) -> None:
    import faiss

    index = make(rows_of(clips))
    faiss.omp_set_num_threads(2)
    index.search(np.ones((1, DIM), np.float32), 1)
    after = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    assert after == 2


# IVF-PQ where it does not fall back to exact search


@pytest.fixture(scope="module")
def crowd() -> tuple[ClipRows, NDArray[np.float32]]:
    """20,000 unit clips in 500 clusters, and 100 queries near some of them."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((500, 64), dtype=np.float32)
    rows = np.repeat(centres, 40, axis=0) + 0.6 * rng.standard_normal((20_000, 64), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[::200] + 0.05 * rng.standard_normal((100, 64), np.float32)
    return ClipRows.of(range(200), np.split(rows, 200)), queries


@pytest.fixture(scope="module")
def crowd_ivfpq(crowd: tuple[ClipRows, NDArray[np.float32]]) -> IvfPqIndex:
    return make_ivfpq(crowd[0])


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_ivfpq_finds_nearly_all_with_exact_scores(
    crowd: tuple[ClipRows, NDArray[np.float32]], crowd_ivfpq: IvfPqIndex, share: float
) -> None:
    rows, queries = crowd
    allowed = np.random.default_rng(2).random(len(rows)) < share
    scores, ids = crowd_ivfpq.search(queries, 10, allowed=allowed)
    true_scores, true_ids = FlatIndex(rows).search(queries, 10, allowed=allowed)
    hits = [np.isin(a, b) for a, b in zip(ids, true_ids, strict=True)]
    assert np.mean(hits) >= 0.95
    assert np.isin(ids, rows.ids(np.flatnonzero(allowed))).all()
    np.testing.assert_array_equal(scores[:, 0], true_scores[:, 0])


def test_ivfpq_is_exact_where_few_clips_pass(
    crowd: tuple[ClipRows, NDArray[np.float32]], crowd_ivfpq: IvfPqIndex
) -> None:
    rows, queries = crowd
    allowed = np.random.default_rng(2).random(len(rows)) < 0.01
    _, ids = crowd_ivfpq.search(queries, 10, allowed=allowed)
    np.testing.assert_array_equal(ids, FlatIndex(rows).search(queries, 10, allowed=allowed)[1])


@pytest.mark.parametrize(
    ("num_rows", "dim", "expected"),
    [
        (50_000, 512, "IVF1024,PQ256x4fs"),
        (1_000_000, 512, "IVF4096,PQ256x4fs"),
        (1_000, 63, "IVF128,PQ21x4fs"),
        (1_000, 7, "IVF128,PQ1x4fs"),
    ],
)
def test_the_factory_follows_rows_and_dim(num_rows: int, dim: int, expected: str) -> None:
    matrix = np.broadcast_to(np.float16(0), (num_rows, dim))
    assert factory(ClipRows(matrix, np.array([1]), np.array([num_rows]))) == expected


@pytest.mark.parametrize(("nlist", "nprobe"), [(8, 8), (1024, 64), (4096, 128), (16384, 512)])
def test_nprobe_follows_nlist(nlist: int, nprobe: int) -> None:
    assert default_nprobe(nlist) == nprobe


def test_codes_of_other_rows_are_refused(clips: Clips) -> None:
    codes = IvfPqIndex.train(rows_of(clips))
    with pytest.raises(ValueError, match="do not fit"):
        IvfPqIndex(rows_of({1: np.ones((20, DIM), np.float32)}), codes, nprobe=1, rescore_depth=10)


def test_rows_refuse_counts_or_ids_that_cannot_be(clips: Clips) -> None:
    matrix = np.zeros((3, DIM), np.float16)
    with pytest.raises(ValueError, match="sum to 2"):
        ClipRows(matrix, np.array([1, 2]), np.array([1, 1]))
    with pytest.raises(ValueError, match="rise"):
        ClipRows(matrix, np.array([2, 1]), np.array([1, 2]))


def test_missing_faiss_names_the_command(monkeypatch: pytest.MonkeyPatch, clips: Clips) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ScanonceError, match="pip install faiss-cpu"):
        FlatIndex(rows_of(clips))


def test_settings_refuse_what_is_out_of_bounds() -> None:
    with pytest.raises(ValidationError, match="ivf_threshold"):
        StorageSettings(ivf_threshold=5)
    with pytest.raises(ValidationError, match="extra"):
        StorageSettings.model_validate({"ivf_treshold": 5_000})


# On disk


def bring_up(
    vectors: Path, live: set[int], settings: StorageSettings = SETTINGS
) -> Generation | None:
    return publish(vectors, live, clips_of, dim=DIM, settings=settings)


def reopen(vectors: Path, live: set[int]) -> LibraryIndex:
    return open_library(vectors, dim=DIM, live_videos=live, load_clips=clips_of)


def not_needed(video: int) -> NDArray[np.float32]:
    raise AssertionError(f"video {video} is stored already")


def truth(live: set[int]) -> Clips:
    return {video: clips_of(video) for video in sorted(live)}


def test_an_empty_library_opens_and_publishes_nothing(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    assert_searches_like(reopen(vectors, set()), {})
    assert bring_up(vectors, set()) is None
    assert newest_number(vectors) == 0


def test_a_library_of_videos_without_clips_is_published_once(tmp_path: Path) -> None:
    def nothing(video: int) -> NDArray[np.float32]:
        return np.empty((0, DIM), np.float32)

    for _ in range(2):
        generation = publish(tmp_path, {1, 2}, nothing, dim=DIM, settings=SETTINGS)
        assert generation is not None
        assert generation.number == 1
    index = open_library(tmp_path, dim=DIM, live_videos={1, 2}, load_clips=not_needed)
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
        bring_up(tmp_path, live)
        numbers.append(newest_number(tmp_path))
        index = open_library(tmp_path, dim=DIM, live_videos=live, load_clips=not_needed)
        assert_searches_like(index, truth(live))
        assert index.num_videos == len(live)
    assert numbers == sorted(numbers)
    assert len(list(tmp_path.iterdir())) <= 2


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2, 3})
    before = sorted(tmp_path.rglob("*"))
    generation = publish(tmp_path, {3, 2, 1}, not_needed, dim=DIM, settings=SETTINGS)
    assert generation is not None
    assert generation.number == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_new_video_goes_to_the_delta_and_shares_the_base(tmp_path: Path) -> None:
    first = bring_up(tmp_path, set(range(20)))
    seen: list[int] = []
    progress: list[int] = []

    def load(video: int) -> NDArray[np.float32]:
        seen.append(video)
        return clips_of(video)

    live = set(range(22))
    second = publish(tmp_path, live, load, dim=DIM, settings=SETTINGS, progress=progress.append)
    assert first is not None
    assert second is not None
    assert (seen, progress) == ([20, 21], [1, 2])
    assert second.delta.videos.tolist() == [20, 21]
    for name in ("base.f16", "base_videos.npy"):
        assert (first.path / name).stat().st_ino == (second.path / name).stat().st_ino
    assert_searches_like(reopen(tmp_path, live), truth(live))


def test_the_base_is_copied_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    bring_up(tmp_path, set(range(20)))
    bring_up(tmp_path, set(range(21)))
    assert_searches_like(reopen(tmp_path, set(range(21))), truth(set(range(21))))


def test_a_delta_beyond_fold_rows_is_folded_without_loading_again(tmp_path: Path) -> None:
    settings = StorageSettings(fold_rows=40)
    publish(tmp_path, set(range(30)), clips_of, dim=DIM, settings=settings)
    deltas = []
    for end in range(31, 45):
        known = set(range(end - 1))

        def load(video: int, known: set[int] = known) -> NDArray[np.float32]:
            return not_needed(video) if video in known else clips_of(video)

        generation = publish(tmp_path, set(range(end)), load, dim=DIM, settings=settings)
        assert generation is not None
        deltas.append(generation.info.delta_clips)
    assert 20 < max(deltas) <= 40
    assert 0 in deltas
    assert_searches_like(reopen(tmp_path, set(range(44))), truth(set(range(44))))


def test_removals_are_masked_at_once_and_folded_past_a_fifth(tmp_path: Path) -> None:
    bring_up(tmp_path, set(range(40)))
    few = set(range(1, 40))
    generation = bring_up(tmp_path, few)
    assert generation is not None
    assert generation.number == 1
    assert_searches_like(reopen(tmp_path, few), truth(few))
    generation = bring_up(tmp_path, set(range(20, 40)))
    assert generation is not None
    assert generation.base.videos.tolist() == list(range(20, 40))


def test_a_library_that_grows_migrates_to_ivfpq(tmp_path: Path) -> None:
    settings = StorageSettings(ivf_threshold=1_000)

    def load(video: int) -> NDArray[np.float32]:
        return lattice(np.random.default_rng(video), (90, DIM))

    kinds = []
    for end in (10, 12, 13):
        generation = publish(tmp_path, set(range(end)), load, dim=DIM, settings=settings)
        assert generation is not None
        kinds.append((generation.info.kind, generation.info.factory, generation.info.delta_clips))
    assert kinds == [
        ("flat", None, 0),
        ("ivfpq", "IVF128,PQ8x4fs", 0),
        ("ivfpq", "IVF128,PQ8x4fs", 90),
    ]
    index = open_library(tmp_path, dim=DIM, live_videos=range(1, 13), load_clips=not_needed)
    assert index.kind == "ivfpq"
    assert_searches_like(index, {video: load(video) for video in range(1, 13)})


def test_mapped_codes_search_like_those_in_memory_even_after_they_are_unlinked(
    tmp_path: Path, crowd: tuple[ClipRows, NDArray[np.float32]], crowd_ivfpq: IvfPqIndex
) -> None:
    rows, queries = crowd
    path = tmp_path / "base.faiss"
    write_codes(crowd_ivfpq._codes, str(path))
    codes = read_codes(str(path))
    path.unlink()
    mapped = IvfPqIndex(rows, codes, nprobe=crowd_ivfpq.nprobe, rescore_depth=100)
    np.testing.assert_array_equal(mapped.search(queries, 10)[1], crowd_ivfpq.search(queries, 10)[1])


def test_codes_that_cannot_be_written_are_an_error_of_ours(
    tmp_path: Path, crowd_ivfpq: IvfPqIndex
) -> None:
    with pytest.raises(IndexDirectoryError, match="cannot write"):
        write_codes(crowd_ivfpq._codes, str(tmp_path / "missing" / "base.faiss"))


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


# What can go wrong


def test_a_video_that_cannot_be_loaded_leaves_the_old_generation(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})

    def broken(video: int) -> NDArray[np.float32]:
        if video == 4:
            raise RuntimeError("feature file is gone")
        return clips_of(video)

    with pytest.raises(RuntimeError, match="feature file is gone"):
        publish(tmp_path, {1, 2, 3, 4}, broken, dim=DIM, settings=SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]
    assert_searches_like(reopen(tmp_path, {1, 2}), truth({1, 2}))


@pytest.mark.parametrize("step", ["_write_rows", "_seal", "_sync"])
def test_a_write_that_fails_leaves_the_old_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bring_up(tmp_path, {1, 2})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(generations, step, full)
        with pytest.raises(IndexDirectoryError, match="No space left"):
            bring_up(tmp_path, {1, 2, 3})
    assert_searches_like(reopen(tmp_path, {1, 2, 3}), truth({1, 2, 3}))
    generation = bring_up(tmp_path, {1, 2, 3})
    assert generation is not None
    assert generation.number == 2


def test_what_a_killed_writer_left_is_not_read_and_is_swept(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})
    shutil.copytree(tmp_path / "0000000001", tmp_path / "staging-killed")
    (tmp_path / "staging-killed" / "base.f16").write_bytes(b"half")
    assert_searches_like(reopen(tmp_path, {1, 2}), truth({1, 2}))
    bring_up(tmp_path, {1, 2})
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001"]


def cut(path: Path) -> None:
    """Take a byte off the end, of this name only: a hard link keeps the whole file."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])


def grow(path: Path) -> None:
    """Put a byte at the end, of this name only."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"x")


@pytest.mark.parametrize("name", ["base.f16", "base_videos.npy", "delta.f16", "generation.json"])
@pytest.mark.parametrize("damage", [cut, grow, Path.unlink])
def test_a_damaged_generation_is_passed_over_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    live = set(range(22))
    bring_up(tmp_path, set(range(20)))
    bring_up(tmp_path, live)
    damage(tmp_path / "0000000002" / name)
    with caplog.at_level(logging.WARNING):
        index = reopen(tmp_path, live)
    assert "generation 2 is passed over" in caplog.text
    assert index.generation == 1
    assert_searches_like(index, truth(live))
    generation = bring_up(tmp_path, live)
    assert generation is not None
    assert generation.number == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000001", "0000000003"]


def test_a_damaged_generation_is_replaced_even_where_no_video_is_new(tmp_path: Path) -> None:
    live = set(range(20))
    bring_up(tmp_path, live)
    bring_up(tmp_path, live | {20})
    cut(tmp_path / "0000000002" / "delta.f16")
    generation = publish(tmp_path, live, not_needed, dim=DIM, settings=SETTINGS)
    assert generation is not None
    assert generation.number == 3
    assert_searches_like(reopen(tmp_path, live), truth(live))


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_library_whose_only_generation_is_damaged_is_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    settings = StorageSettings(ivf_threshold=1_000)
    live = set(range(250))
    publish(tmp_path, live, clips_of, dim=DIM, settings=settings)
    damage(tmp_path / "0000000001" / "base.faiss")
    assert_searches_like(reopen(tmp_path, live), truth(live))
    generation = publish(tmp_path, live, clips_of, dim=DIM, settings=settings)
    assert generation is not None
    assert (generation.number, generation.info.kind) == (2, "ivfpq")
    assert newest_number(tmp_path) == 2


def test_codes_that_faiss_cannot_read_count_as_damage(tmp_path: Path) -> None:
    settings = StorageSettings(ivf_threshold=1_000)
    publish(tmp_path, range(250), clips_of, dim=DIM, settings=settings)
    codes = tmp_path / "0000000001" / "base.faiss"
    codes.write_bytes(bytes(codes.stat().st_size))
    assert newest_generation(tmp_path, dim=DIM) is None


def test_another_dim_is_an_error_that_names_both(tmp_path: Path) -> None:
    bring_up(tmp_path, {1, 2})
    with pytest.raises(ManifestMismatch, match="16 dimensions, the encoder makes 8"):
        open_library(tmp_path, dim=8, live_videos={1}, load_clips=clips_of)
    with pytest.raises(ManifestMismatch, match="16 dimensions, the encoder makes 8"):
        publish(tmp_path, {1}, clips_of, dim=8, settings=SETTINGS)


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
        publish(tmp_path, {5}, lambda _: bad, dim=DIM, settings=SETTINGS)


def test_a_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IndexDirectoryError, match="cannot be written"):
        bring_up(tmp_path / "file", {1})
    with pytest.raises(IndexDirectoryError, match="cannot be read"):
        reopen(tmp_path / "file", {1})


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
