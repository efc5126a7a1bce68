"""The vector index of a library, derived from the stores.

    index.clips.publish(index.catalog, settings)    # adds the videos that are not published yet
    index.clips.rebuild(index.catalog, settings)    # derives all vectors again

A video whose stored files cannot be read keeps its published vectors, or is published with none: searches find all
other videos, and this one again after `scanonce repair`.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch, reported
from scanonce.storage.files import sync_directory
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.generation import (
    Generation,
    newest_generation,
    newest_number,
    numbered,
)
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library, publish
from scanonce.storage.vectors.rows import Ids

_ROUNDING = 1e-3  # neighbouring float16 numbers below 1 differ by at most half of this

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DerivedVectors:
    """A vector index, and the function that derives the vectors of a video."""

    folder: Path
    """The folder of its generations."""
    dim: int
    derive: Callable[[Video], NDArray[np.float32]]
    """Derives the vectors ``[num_rows, dim]`` of a video; raises IndexDirectoryError if its files cannot be read."""

    def difference(self, video: Video, rows: NDArray[np.float16]) -> str | None:
        """Describe how published vectors of a video differ from those derived from its files; None if they do not.

        Args:
            video: a searchable video.
            rows: ``[num_rows, dim]`` its published vectors.

        Raises:
            IndexDirectoryError: the stored files of the video are missing or damaged.
        """
        wanted = self.derive(video)
        if rows.shape != wanted.shape:
            return f"the index holds {len(rows)} vectors of it, there should be {len(wanted)}"
        close = np.abs(rows - wanted) <= _ROUNDING * np.maximum(1.0, np.abs(wanted))
        count = int(np.count_nonzero(~close.all(axis=1)))
        return f"{count} of its {len(rows)} vectors are not those of its frames" if count else None

    def open(
        self,
        live: Ids,
        load: Callable[[int], NDArray[np.float32]],
        previous: LibraryIndex | None = None,
    ) -> LibraryIndex:
        """Open the newest generation for searching.

        Args:
            live: ids of the videos to search, rising.
            load: returns the vectors of a video that is not published.
            previous: an earlier state, whose open files are shared.
        """
        return open_library(
            self.folder, dim=self.dim, live_videos=live, load_clips=load, previous=previous
        )

    def publish(self, catalog: Catalog, settings: StorageSettings) -> None:
        """Bring the vector index in line with the searchable videos; milliseconds if it is.

        Raises:
            IndexDirectoryError: it cannot be written; the previous generation is still in use.
        """
        live = catalog.live_video_ids()
        publish(self.folder, live, self._loader(catalog), dim=self.dim, settings=settings)

    def rebuild(self, catalog: Catalog, settings: StorageSettings) -> None:
        """Derive all vectors again, in a staging folder, and replace all generations by them.

        Costs reading all stored features and publishing the whole library. If the search was tuned, it is tuned again
        to the same target, as long as the generation with its queries can be read.

        Raises:
            IndexDirectoryError: it cannot be written; the previous generations are unchanged.
        """
        with reported(self.folder, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix="staging-", dir=self.folder))
        try:
            made = publish(
                staging,
                catalog.live_video_ids(),
                self._loader(catalog),
                dim=self.dim,
                settings=settings,
                tuned_like=self._tuned(),
            )
            goal = None
            if made is not None:
                goal = self.folder / numbered(newest_number(self.folder) + 1)
                with reported(self.folder, "written"):
                    made.path.rename(goal)
                    sync_directory(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for other in self.folder.iterdir():  # a reader keeps the files it has mapped
            if other != goal:
                shutil.rmtree(other, ignore_errors=True)

    def _tuned(self) -> Generation | None:
        """The newest readable generation, if its search was tuned and its queries are stored."""
        try:
            old = newest_generation(self.folder, dim=self.dim, with_codes=False)
        except IndexDirectoryError:
            return None
        return old if old and old.tuning_queries() is not None else None

    def _loader(self, catalog: Catalog) -> Callable[[int], NDArray[np.float32]]:
        """Return a function that derives the vectors of a video, or else reads the published ones if there are any."""

        def load(video_id: int) -> NDArray[np.float32]:
            (video,) = catalog.videos([video_id])
            try:
                return self.derive(video)
            except IndexDirectoryError as error:
                logger.warning(
                    "%s keeps its old vectors: run `scanonce verify`: %s", video.path, error
                )
                return self._published(video_id)

        return load

    def _published(self, video_id: int) -> NDArray[np.float32]:
        try:
            old = newest_generation(self.folder, dim=self.dim)
        except ManifestMismatch:  # its vectors have another length
            old = None
        rows = published_rows(old) if old else {}
        if video_id not in rows:
            return np.empty((0, self.dim), np.float32)
        return rows[video_id]().astype(np.float32)


def published_rows(generation: Generation) -> dict[int, Callable[[], NDArray[np.float16]]]:
    """Return for each video id in a generation a function that reads its vectors, ``[num_rows, dim]``."""
    parts = (generation.base, generation.delta)

    def reader(part: int, first: int, last: int) -> Callable[[], NDArray[np.float16]]:
        return lambda: parts[part].take(np.arange(first, last))

    readers = {}
    for number, rows in enumerate(parts):
        firsts, lasts = rows.starts[:-1].tolist(), rows.starts[1:].tolist()
        for video, first, last in zip(rows.videos.tolist(), firsts, lasts, strict=True):
            readers[video] = reader(number, first, last)
    return readers
