"""Our own index, through its public functions, and the exact one, for `benchmarks.vector_worker`."""

import os
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss  # noqa: F401 - loaded before anyone looks at memory
import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import CLIPS_PER_VIDEO
from benchmarks.vector_worker import Method
from scanonce.storage.records import MAX_ORDINAL, ORDINAL_BITS
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.codes import extend_codes
from scanonce.storage.vectors.flat import FlatIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import LoadClips, open_library, publish
from scanonce.storage.vectors.rows import ClipRows, Ids
from scanonce.storage.vectors.tuning import tune

_BLOCK = 50_000
TARGET_RECALL = 0.98
"""Of the ten best clips of a sentence: what is aimed at, and what a library is tuned to."""


def loader(clips: NDArray[np.float16]) -> LoadClips:
    """``load_clips`` over a matrix that holds `CLIPS_PER_VIDEO` rows of each video."""

    def load(video: int) -> NDArray[np.float32]:
        rows: NDArray[Any] = clips[video * CLIPS_PER_VIDEO : (video + 1) * CLIPS_PER_VIDEO]
        return rows

    return load


def row_of(ids: Ids) -> Ids:
    """Rows of the matrix that clip ids stand for; -1 stays -1."""
    rows = (ids >> ORDINAL_BITS) * CLIPS_PER_VIDEO + (ids & MAX_ORDINAL)
    return np.where(ids >= 0, rows, -1)


def rows_of_matrix(clips: NDArray[np.float16]) -> ClipRows:
    """The whole matrix as rows of videos."""
    num_videos = len(clips) // CLIPS_PER_VIDEO
    counts = np.full(num_videos, CLIPS_PER_VIDEO, np.int64)
    return ClipRows((clips,), np.arange(num_videos), counts)


def published_folder(folder: Path, num_clips: int) -> Path:
    """Where the library of so many clips is kept."""
    return folder / f"ours-{num_clips}"


def publish_first(
    folder: Path,
    clips: NDArray[np.float16],
    num_videos: int,
    settings: StorageSettings | None = None,
) -> None:
    """Bring a library on disk in line with the first videos of a matrix."""
    publish(
        folder,
        np.arange(num_videos),
        loader(clips),
        dim=clips.shape[1],
        settings=settings or StorageSettings(),
    )


def open_first(
    folder: Path,
    clips: NDArray[np.float16],
    num_videos: int,
    previous: LibraryIndex | None = None,
) -> LibraryIndex:
    """A library of the first videos of a matrix."""
    return open_library(
        folder,
        dim=clips.shape[1],
        live_videos=np.arange(num_videos),
        load_clips=loader(clips),
        previous=previous,
    )


class Ours:
    """A library as it is published and opened by default."""

    name = "ours"
    threads_of_its_own = False
    efforts: tuple[int, ...] = ()
    within_ms = np.inf

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Publishes all at once; says how much of the time went into adding."""
        spent = 0.0

        def timed(index: Any, rows: ClipRows) -> None:
            nonlocal spent
            begin = time.process_time()
            extend_codes(index, rows)
            spent += time.process_time() - begin

        with patch("scanonce.storage.vectors.codes.extend_codes", timed):
            publish_first(folder, clips, len(clips) // CLIPS_PER_VIDEO)
        return {"add_cpu_seconds": spent}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Opens the library."""
        self._library = open_first(folder, clips, len(clips) // CLIPS_PER_VIDEO)

    def set_effort(self, effort: int) -> None:
        """None to set: the library knows."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        return row_of(self._library.search(queries, k)[1])


class OursTuned(Ours):
    """The same library, told by other sentences how hard to search (`storage.vectors.tuning`)."""

    name = "ours, tuned"

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Shares the files of the library that `Ours` published, beside the folder of the size."""
        published = published_folder(folder.parents[1], len(clips))
        shutil.copytree(published, folder, copy_function=os.link, dirs_exist_ok=True)
        queries = np.load(folder.parent / "tuning.npy")
        live = np.arange(len(clips) // CLIPS_PER_VIDEO)
        tuned = tune(folder, clips.shape[1], live, target_recall=TARGET_RECALL, queries=queries)
        return {"nprobe": tuned.nprobe, "rescore_depth": tuned.rescore_depth} if tuned else {}


class Exact:
    """All inner products, float16 rows in memory: what our own index is below 50,000 clips."""

    name = "exact"
    threads_of_its_own = False
    efforts: tuple[int, ...] = ()
    within_ms = np.inf

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Nothing: the file of the clips is all it needs."""
        return {"disk_bytes": clips.nbytes}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Copies the clips to memory."""
        self._index = FlatIndex(rows_of_matrix(clips))

    def set_effort(self, effort: int) -> None:
        """None to set."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        return row_of(self._index.search(queries, k)[1])


def best_rows(
    clips: NDArray[np.float16], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    """Rows ``[num_queries, k]`` with the largest inner products, best first.

    A product of matrices, `_BLOCK` clips at a time: what is true where the clips do not fit into memory, and by
    other code than what is measured.
    """
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(clips), _BLOCK):
        block = clips[start : start + _BLOCK].astype(np.float32)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        if scores.shape[1] > k:
            keep = np.argpartition(-scores, k, axis=1)[:, :k]
            scores = np.take_along_axis(scores, keep, 1)
            rows = np.take_along_axis(rows, keep, 1)
    order = np.lexsort((rows, -scores), axis=-1)
    return np.take_along_axis(rows, order, 1)


METHODS: dict[str, type[Method]] = {each.name: each for each in (Ours, OursTuned, Exact)}
