"""Our own index, through its public functions, and the exact one, for `benchmarks.vector_worker`."""

import os
import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss  # noqa: F401 - loaded before memory is measured
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
"""Recall of the ten best clips of a text: the aim, and the target of the tuning."""


def loader(clips: NDArray[np.float16]) -> LoadClips:
    """Return ``load_clips`` for a matrix with `CLIPS_PER_VIDEO` rows of each video."""

    def load(video: int) -> NDArray[np.float32]:
        rows: NDArray[Any] = clips[video * CLIPS_PER_VIDEO : (video + 1) * CLIPS_PER_VIDEO]
        return rows

    return load


def row_of(ids: Ids) -> Ids:
    """Return the rows of the matrix for clip ids; -1 stays -1."""
    rows = (ids >> ORDINAL_BITS) * CLIPS_PER_VIDEO + (ids & MAX_ORDINAL)
    return np.where(ids >= 0, rows, -1)


def rows_of_matrix(clips: NDArray[np.float16]) -> ClipRows:
    """Return the whole matrix as rows of videos."""
    num_videos = len(clips) // CLIPS_PER_VIDEO
    counts = np.full(num_videos, CLIPS_PER_VIDEO, np.int64)
    return ClipRows((clips,), np.arange(num_videos), counts)


def published_folder(folder: Path, num_clips: int) -> Path:
    """Return the folder of the library of a number of clips."""
    return folder / f"ours-{num_clips}"


def publish_first(
    folder: Path,
    clips: NDArray[np.float16],
    num_videos: int,
    settings: StorageSettings | None = None,
) -> None:
    """Publish the first videos of a matrix."""
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
    """Open a library of the first videos of a matrix."""
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
        """Publish everything at once; return the time spent on adding."""
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
        """Open the library."""
        self._library = open_first(folder, clips, len(clips) // CLIPS_PER_VIDEO)

    def set_effort(self, effort: int) -> None:
        """Do nothing: the library has its settings."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        return row_of(self._library.search(queries, k)[1])


class OursTuned(Ours):
    """The same library, tuned with other texts (`storage.vectors.tuning`)."""

    name = "ours, tuned"

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Share the files of the library that `Ours` published, next to the folder of the size."""
        published = published_folder(folder.parents[1], len(clips))
        shutil.copytree(published, folder, copy_function=os.link, dirs_exist_ok=True)
        queries = np.load(folder.parent / "tuning.npy")
        live = np.arange(len(clips) // CLIPS_PER_VIDEO)
        tuned = tune(folder, clips.shape[1], live, target_recall=TARGET_RECALL, queries=queries)
        return {"nprobe": tuned.nprobe, "rescore_depth": tuned.rescore_depth} if tuned else {}


class Exact:
    """All inner products, float16 rows in memory: our own index with fewer than 50,000 clips."""

    name = "exact"
    threads_of_its_own = False
    efforts: tuple[int, ...] = ()
    within_ms = np.inf

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Do nothing: it needs the file of the clips only."""
        return {"disk_bytes": clips.nbytes}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Copy the clips to memory."""
        self._index = FlatIndex(rows_of_matrix(clips))

    def set_effort(self, effort: int) -> None:
        """Do nothing: there is no effort to set."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        return row_of(self._index.search(queries, k)[1])


def best_rows(
    clips: NDArray[np.float16], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    """Return the rows with the largest inner products, ``[num_queries, k]``, best first.

    A product of matrices, `_BLOCK` clips at a time: it works for clips that do not fit into memory, and is independent
    of the measured code.
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
