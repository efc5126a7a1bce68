"""The library-wide indexes of vectors and how what they hold is derived: of clips always, of a localiser's anchors
where that is kept.

    for vectors in library_vectors(layout, manifest):
        bring_up_to_date(vectors, catalog, settings)    # adds what is not published yet
        rebuild(vectors, catalog, settings)             # makes all of it anew

A video of which nothing is stored that could be read keeps the vectors it has, or is held with none: it is not found
then, but all others are.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import sync_directory
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.vectors.generation import Generation, newest_generation, newest_number
from scanonce.storage.vectors.publish import publish

_ROUNDING = 1e-3  # two neighbours in float16 below 1 lie half of that apart


@dataclass(frozen=True)
class Vectors:
    """A library-wide index, and how what it holds is derived."""

    of: Literal["clips", "anchors"]
    folder: Path
    """Of its generations."""
    dim: int
    derive: Callable[[Video], NDArray[np.float32]]
    """``[num_rows, dim]``, made anew from what is stored of a video; raises IndexDirectoryError."""

    def difference(self, video: Video, rows: NDArray[np.float16]) -> str | None:
        """How the rows of a video differ from what they should be, in words; None where they do not.

        Raises:
            IndexDirectoryError: what is stored of the video is missing or damaged.
        """
        wanted = self.derive(video)
        if rows.shape != wanted.shape:
            return f"the index holds {len(rows)} vectors of it, there should be {len(wanted)}"
        close = np.abs(rows - wanted) <= _ROUNDING * np.maximum(1.0, np.abs(wanted))
        count = int(np.count_nonzero(~close.all(axis=1)))
        return f"{count} of its {len(rows)} vectors are not those of its frames" if count else None


def library_vectors(layout: IndexLayout, manifest: Manifest) -> list[Vectors]:
    """The index of the clips, and that of the anchors where there is one."""
    found = [_clip_vectors(layout, manifest)]
    if manifest.anchors is not None:
        store = AnchorStore(layout.anchors / manifest.anchors)
        width = store.width()
        if width is not None and store.vectors.exists():
            found.append(_anchor_vectors(store, width))
    return found


def _clip_vectors(layout: IndexLayout, manifest: Manifest) -> Vectors:
    features, grid = FeatureStore(layout.features), manifest.grid
    pooling = open_pooling(layout.head, manifest.head)

    def derive(video: Video) -> NDArray[np.float32]:
        stored = features.read(video.uid)
        spans = grid.spans(video.duration_seconds)
        return pooling.embed_spans(stored.frames, stored.pts_seconds, spans)

    return Vectors("clips", layout.vectors, manifest.dim, derive)


def _anchor_vectors(store: AnchorStore, width: int) -> Vectors:
    def derive(video: Video) -> NDArray[np.float32]:
        return store.read(video.uid).vectors.astype(np.float32)

    return Vectors("anchors", store.vectors, width, derive)


def rows_of(generation: Generation) -> dict[int, Callable[[], NDArray[np.float16]]]:
    """By video, what reads its rows ``[num_rows, dim]``."""
    parts = (generation.base, generation.delta)

    def reader(part: int, first: int, last: int) -> Callable[[], NDArray[np.float16]]:
        return lambda: parts[part].take(np.arange(first, last))

    readers = {}
    for number, rows in enumerate(parts):
        firsts, lasts = rows.starts[:-1].tolist(), rows.starts[1:].tolist()
        for video, first, last in zip(rows.videos.tolist(), firsts, lasts, strict=True):
            readers[video] = reader(number, first, last)
    return readers


def bring_all_up_to_date(layout: IndexLayout, settings: StorageSettings) -> None:
    """Adds to all indexes the videos they lack, as after `storage.backup.backup` has copied a library that was being
    indexed.

    Args:
        layout: an index nobody else writes.
        settings: of the vector index.

    Raises:
        IndexDirectoryError: it cannot be read or written.
    """
    for vectors in library_vectors(layout, read_manifest(layout)):
        with Catalog.open(layout.catalog) as catalog:
            bring_up_to_date(vectors, catalog, settings)


def bring_up_to_date(vectors: Vectors, catalog: Catalog, settings: StorageSettings) -> None:
    """Adds the videos an index lacks; milliseconds where it lacks none. Raises as `bring_all_up_to_date` does."""
    load = _loader(vectors, catalog)
    publish(vectors.folder, catalog.live_video_ids(), load, dim=vectors.dim, settings=settings)


def rebuild(vectors: Vectors, catalog: Catalog, settings: StorageSettings) -> None:
    """Makes an index anew from what is stored, beside the generations that are there, and puts it in their place.

    Costs reading all features, and what `publish` costs for a whole library. A search that was tuned is tuned again
    to the same target, as long as the generation that says so can be read.

    Raises:
        IndexDirectoryError: it cannot be written; what was there is as it was.
    """
    load = _loader(vectors, catalog)
    live = catalog.live_video_ids()
    vectors.folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="staging-", dir=vectors.folder))
    try:
        made = publish(
            staging, live, load, dim=vectors.dim, settings=settings, tuned_like=_tuned(vectors)
        )
        goal = None
        if made is not None:
            number = newest_number(vectors.folder) + 1
            goal = vectors.folder / f"{number:0{len(made.path.name)}d}"
            made.path.rename(goal)
            sync_directory(vectors.folder)
    except OSError as error:
        raise IndexDirectoryError(
            f"the vector index in {vectors.folder} cannot be written ({error.strerror or error}). Make room or check "
            "the folder's permissions, then run the same command again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for other in vectors.folder.iterdir():  # a reader keeps what it has mapped
        if other != goal:
            shutil.rmtree(other, ignore_errors=True)


def _tuned(vectors: Vectors) -> Generation | None:
    """The newest generation that can be read where its search was tuned, and its queries are there."""
    try:
        old = newest_generation(vectors.folder, dim=vectors.dim, with_codes=False)
        return old if old and old.tuning_queries() is not None else None
    except (ManifestMismatch, OSError, ValueError, EOFError):
        return None


def _loader(vectors: Vectors, catalog: Catalog) -> Callable[[int], NDArray[np.float32]]:
    """What gives the vectors of a video: derived, else those it has, else none."""
    try:
        old = newest_generation(vectors.folder, dim=vectors.dim)
    except ManifestMismatch:  # of another length: nothing to keep
        old = None
    rows = rows_of(old) if old else {}

    def load(video_id: int) -> NDArray[np.float32]:
        try:
            (video,) = catalog.videos([video_id])
            return vectors.derive(video)
        except IndexDirectoryError:
            if video_id in rows:
                return rows[video_id]().astype(np.float32)
            return np.empty((0, vectors.dim), np.float32)

    return load
