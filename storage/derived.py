"""The library-wide vector indexes and how their vectors follow from the stores.

    for vectors in index.vectors:
        vectors.publish(index.catalog, settings)    # adds the videos that are not published yet
        vectors.rebuild(index.catalog, settings)    # derives all vectors again

A video whose stored files cannot be read keeps the vectors it has, or is published with none. It is not found until
`scanonce repair`; all other videos are.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import sync_directory
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.generation import Generation, newest_generation, newest_number
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library, publish
from scanonce.storage.vectors.rows import Ids

_ROUNDING = 1e-3  # two neighbours in float16 below 1 differ by half of that

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DerivedVectors:
    """A library-wide vector index and the function that derives the vectors of a video."""

    of: Literal["clips", "anchors"]
    folder: Path
    """Folder of its generations."""
    dim: int
    derive: Callable[[Video], NDArray[np.float32]]
    """Return ``[num_rows, dim]`` from the stores; raises IndexDirectoryError if they cannot be read."""

    def difference(self, video: Video, rows: NDArray[np.float16]) -> str | None:
        """Describe how the vectors of a video differ from those its stored files give; None if they do not.

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
        """Open the newest generation for searching these videos; ``load`` gives the vectors of unpublished ones.

        Files that are open in ``previous`` are shared.
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
        """Derive all vectors again, in a staging folder, and put them in place of all generations.

        Costs reading all stored features, and a publication of the whole library. A tuned search is tuned again to
        the same target, as long as the generation that holds its queries can be read.

        Raises:
            IndexDirectoryError: it cannot be written; the previous generations are unchanged.
        """
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
                number = newest_number(self.folder) + 1
                goal = self.folder / f"{number:0{len(made.path.name)}d}"
                made.path.rename(goal)
                sync_directory(self.folder)
        except OSError as error:
            raise IndexDirectoryError(
                f"the vector index in {self.folder} cannot be written ({error.strerror or error}). Make room or check "
                "the folder's permissions, then run the same command again."
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for other in self.folder.iterdir():  # a reader keeps what it has mapped
            if other != goal:
                shutil.rmtree(other, ignore_errors=True)

    def _tuned(self) -> Generation | None:
        """The newest readable generation, if its search was tuned and its queries are stored."""
        try:
            old = newest_generation(self.folder, dim=self.dim, with_codes=False)
            return old if old and old.tuning_queries() is not None else None
        except (ManifestMismatch, OSError, ValueError, EOFError):
            return None

    def _loader(self, catalog: Catalog) -> Callable[[int], NDArray[np.float32]]:
        """Derives the vectors of a video; if that fails, takes those already published, else none."""

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
        except ManifestMismatch:  # vectors of another length: nothing to keep
            old = None
        rows = published_rows(old) if old else {}
        if video_id not in rows:
            return np.empty((0, self.dim), np.float32)
        return rows[video_id]().astype(np.float32)


def published_rows(generation: Generation) -> dict[int, Callable[[], NDArray[np.float16]]]:
    """By video id, a function that reads its vectors ``[num_rows, dim]`` from a generation."""
    parts = (generation.base, generation.delta)

    def reader(part: int, first: int, last: int) -> Callable[[], NDArray[np.float16]]:
        return lambda: parts[part].take(np.arange(first, last))

    readers = {}
    for number, rows in enumerate(parts):
        firsts, lasts = rows.starts[:-1].tolist(), rows.starts[1:].tolist()
        for video, first, last in zip(rows.videos.tolist(), firsts, lasts, strict=True):
            readers[video] = reader(number, first, last)
    return readers
