"""Small clips with exact scores, exact search over them in the simplest way, and libraries made of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.records import clip_id
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.flat import VectorIndex
from scanonce.storage.vectors.generation import Generation, newest_generation
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library, publish
from scanonce.storage.vectors.rows import ClipRows, Ids, Scores

DIM = 16
Clips = dict[int, NDArray[np.float32]]
Load = Callable[[int], NDArray[np.float32]]
SETTINGS = StorageSettings(fold_rows=40, ivf_threshold=1_000)
MANY = set(range(250))
"""Videos of more than 1,000 clips in all: IVF-PQ."""


def lattice(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw small whole numbers: every product is exact in float32, so scores must be equal, and many tie."""
    return rng.integers(-2, 3, shape).astype(np.float32)


def clips_of(video: int, dim: int = DIM) -> NDArray[np.float32]:
    """Return the clips of a video: 0 to 12 of them, the same at every call."""
    rng = np.random.default_rng(video)
    return lattice(rng, (int(rng.integers(0, 13)), dim))


def oracle(
    clips: Clips, queries: NDArray[np.float32], k: int, allowed_ids: set[int] | None = None
) -> tuple[Scores, Ids]:
    """Search exactly in the simplest way."""
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
        for rank, (negative, i) in enumerate(ranked):
            scores[number, rank], found[number, rank] = -negative, i
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


def truth(live: set[int]) -> Clips:
    return {video: clips_of(video) for video in sorted(live)}


# ---------------------------------------------------------------- on disk


def bring_up(
    vectors: Path,
    live: Iterable[int],
    load: Load = clips_of,
    *,
    settings: StorageSettings = SETTINGS,
    dim: int = DIM,
    progress: Callable[[int], None] | None = None,
) -> Generation:
    generation = publish(vectors, live, load, dim=dim, settings=settings, progress=progress)
    assert generation is not None
    return generation


def newest(vectors: Path) -> Generation:
    generation = newest_generation(vectors, dim=DIM)
    assert generation is not None
    return generation


def reopen(
    vectors: Path,
    live: Iterable[int],
    previous: LibraryIndex | None = None,
    load: Load = clips_of,
    dim: int = DIM,
) -> LibraryIndex:
    return open_library(vectors, dim=dim, live_videos=live, load_clips=load, previous=previous)


def not_needed(video: int) -> NDArray[np.float32]:
    raise AssertionError(f"video {video} is stored already")


def disk_is_full(*args: object) -> None:
    """Takes the place of a function that writes."""
    raise OSError(28, "No space left on device")


@contextmanager
def one_training_thread() -> Iterator[None]:
    """Tiny k-means runs wait for each other's threads: 200 times slower if cores are busy."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)
