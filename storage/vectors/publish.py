"""The vector index on disk: immutable generations, published by a rename, opened as one library.

    vectors/0000000007/
        0000000004.f16  0000000004_videos.npy       segments of clips, the oldest first
        0000000007.f16  0000000007_videos.npy
        base.faiss                                  IVF-PQ codes of the first segments: the base
        tuning_queries.npy                          the queries the search was tuned with, if it was
        generation.json                             kind, dim, counts, sizes: the last file written

Clips after the base, the delta, are searched exactly; a small library is nothing else. The catalogue is the truth and
this is derived from it: `publish` updates it, `open_library` loads unpublished videos into memory, and a damaged
generation is skipped. The newest complete directory is current; a reader keeps the files it has mapped, even after a
later publish has removed them. One writer at a time. Generations share files by hard links, so a new video costs the
same whatever the size of the library. Which files the next generation gets is decided in `storage.vectors.build`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import make_folder
from scanonce.storage.records import MAX_ORDINAL
from scanonce.storage.settings import GpuUse, StorageSettings
from scanonce.storage.vectors.build import NextGeneration, due_step
from scanonce.storage.vectors.flat import FlatIndex
from scanonce.storage.vectors.generation import (
    CODES,
    TUNING_QUERIES,
    Generation,
    GenerationInfo,
    TunedSettings,
    generation_numbers,
    newest_generation,
    newest_number,
    numbered,
)
from scanonce.storage.vectors.gpu import NO_GPU
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.rows import ClipRows, Ids
from scanonce.storage.vectors.segments import (
    NOTHING_OPEN,
    link_file,
    link_segment,
    sync,
    write_rows,
)

LoadClips: TypeAlias = Callable[[int], NDArray[np.float32]]
"""Returns the embeddings of all clips of a video, ``[num_clips, dim]`` in the order of their ordinals; there may be 0
clips."""

_STAGING = "staging-"


def open_library(
    vectors_dir: Path,
    *,
    dim: int,
    live_videos: Iterable[int],
    load_clips: LoadClips,
    previous: LibraryIndex | None = None,
    gpu: GpuUse = NO_GPU,
) -> LibraryIndex:
    """Open the library as the catalogue has it now, published or not.

    Live videos that are missing in the newest generation are loaded into memory, so a committed video is searchable at
    once; clips of videos that are not live are never returned. An empty or missing directory is an empty library.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        live_videos: ids of all searchable videos; any order.
        load_clips: called for each unpublished video, even if ``previous`` had it: it may have been stored again
            since. Its errors pass through.
        previous: a library that was opened before. Files that it has open are taken from it instead of being opened
            and copied again: at a million clips and one new video, 2 milliseconds instead of 40. It is not changed,
            and may be searched meanwhile.
        gpu: whether a GPU may look up the candidates of many queries; see ``StorageSettings.gpu_use``.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be read, or a video's clips do not fit.
    """
    live = _video_ids(live_videos)
    with reported(vectors_dir, "read"):
        known = previous.open_files if previous else NOTHING_OPEN
        current = newest_generation(vectors_dir, dim=dim, known=known)
    missing = _missing(current, live)
    extra = [_checked_clips(load_clips, video, dim) for video in missing.tolist()]
    unpublished = FlatIndex(ClipRows.of(missing, extra) if extra else ClipRows.none(dim))
    if current is None:
        return LibraryIndex([unpublished], live)
    return LibraryIndex(
        [*current.indexes(gpu), unpublished],
        live,
        generation=current.number,
        open_files=current.open_files,
    )


def publish(
    vectors_dir: Path,
    live_videos: Iterable[int],
    load_clips: LoadClips,
    *,
    dim: int,
    settings: StorageSettings,
    progress: Callable[[int], None] | None = None,
    tuned_like: Generation | None = None,
) -> Generation | None:
    """Update the index on disk to the live videos.

    New videos become a segment, joined with the newest ones that they outweigh; the rest is shared with the generation
    before. When the delta outgrows the base or ``settings.fold_rows``, its clips are merged into the base's codes: a
    second or two, and 151 bytes written for every clip of the base. Everything is built from scratch when the library
    passes ``settings.ivf_threshold`` or ``settings.kind`` asks for other codes, when the inverted lists no longer fit
    their clips (`storage.vectors.list_fit`), or when over a fifth of all clips is dead; then memory is bounded by the
    training sample (`train_codes`). A search that was tuned (`storage.vectors.tuning`) is tuned again then: half a CPU
    minute more at a million clips.

    Args:
        vectors_dir: the directory of the generations; created if necessary.
        live_videos: ids of all searchable videos; any order.
        load_clips: called once for each new video; its errors pass through and nothing is published.
        dim: length of an embedding.
        settings: when to merge, which codes to build.
        progress: called after each new video with the number of new videos loaded so far.
        tuned_like: if nothing was published yet, a generation whose search was tuned: the new one is tuned to the same
            target by the same queries.

    Returns:
        The current generation, new or not; ``None`` for a library that never had a video. Its codes may not be open:
        reading them would cost more than all the rest.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be written, or a video's clips do not fit. The old generation stays.
    """
    live = _video_ids(live_videos)
    with reported(vectors_dir, "written"):
        make_folder(vectors_dir)
        current = newest_generation(vectors_dir, dim=dim, with_codes=False)
        new = _missing(current, live)
        if not len(new):  # there is time to check that all files can be read
            current = newest_generation(vectors_dir, dim=dim)
            if _is_in_order(vectors_dir, current, live, settings):
                _sweep_staging(vectors_dir)
                return current
            new = _missing(current, live)

        def write(folder: Path, number: int) -> GenerationInfo:
            fresh = write_rows(folder, "new", _loaded(new, load_clips, dim, progress), dim)
            tuned = current or tuned_like
            return NextGeneration(folder, number, current, fresh, live, settings, tuned).write()

        _publish_next(vectors_dir, current, write)
        known = current.open_files if current else NOTHING_OPEN
        return newest_generation(vectors_dir, dim=dim, known=known, with_codes=False)


def publish_tuned(
    vectors_dir: Path, tuned: TunedSettings, queries: NDArray[np.float32], *, dim: int
) -> None:
    """Publish the newest generation, which is not flat, again with these settings of its search.

    Args:
        vectors_dir: the directory of the generations.
        tuned: the settings; later generations measure them again as the library grows.
        queries: ``[num_queries, dim]``, the queries to measure with then.
        dim: length of an embedding.

    Raises:
        IndexDirectoryError: it cannot be written; nothing has changed then.
    """
    with reported(vectors_dir, "written"):
        current = newest_generation(vectors_dir, dim=dim, with_codes=False)
        assert current is not None

        def write(folder: Path, number: int) -> GenerationInfo:
            for segment in current.segments:
                link_segment(current.path, segment.name, folder)
            link_file(current.path / CODES, folder)
            np.save(folder / TUNING_QUERIES, queries.astype(np.float16))
            return current.info.model_copy(update={"tuned": tuned, "created": datetime.now(UTC)})

        _publish_next(vectors_dir, current, write)


# ---------------------------------------------------------------- one publish


def _publish_next(
    vectors_dir: Path, current: Generation | None, write: Callable[[Path, int], GenerationInfo]
) -> None:
    """Write the next generation in a staging folder, rename it into place, and remove all but the last two.

    Args:
        vectors_dir: the directory of the generations.
        current: the generation before.
        write: writes all files but ``generation.json`` to a folder, given the number of the generation.
    """
    _sweep_staging(vectors_dir)
    number = newest_number(vectors_dir) + 1
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=vectors_dir))
    folder.chmod(0o755)  # mkdtemp keeps other users out; readers may be other users
    try:
        _seal(folder, write(folder, number))
        os.rename(folder, vectors_dir / numbered(number))
        sync(vectors_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept = {number, current.number if current else number}
    for old in set(generation_numbers(vectors_dir)) - kept:
        # Readers keep the files they mapped. A failure is made up for the next time.
        shutil.rmtree(vectors_dir / numbered(old), ignore_errors=True)


def _seal(folder: Path, info: GenerationInfo) -> None:
    """Write ``generation.json`` and flush the new files, so that a rename publishes whole files."""
    for path in folder.glob("new*"):
        path.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    text = info.model_copy(update={"files": sizes}).model_dump_json(indent=1)
    (folder / "generation.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.stat().st_nlink == 1:  # a file with other names was flushed under the first one
            sync(path)
    sync(folder)


def _sweep_staging(vectors_dir: Path) -> None:
    """Remove the leftovers of a killed writer."""
    for path in vectors_dir.glob(f"{_STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def _is_in_order(
    vectors_dir: Path, current: Generation | None, live: Ids, settings: StorageSettings
) -> bool:
    """Return whether there is nothing to do if no video is new. A damaged generation must be replaced."""
    if current is None:
        return newest_number(vectors_dir) == 0
    is_whole = current.number == newest_number(vectors_dir)
    return is_whole and due_step(current, 0, live, settings) == "append"


# ---------------------------------------------------------------- videos and clips


def _video_ids(videos: Iterable[int]) -> Ids:
    """Return each id once, rising."""
    array = isinstance(videos, np.ndarray)
    ids = np.asarray(videos, np.int64) if array else np.fromiter(videos, np.int64)
    return ids if (np.diff(ids) > 0).all() else np.unique(ids)


def _missing(current: Generation | None, live: Ids) -> Ids:
    """Return the live videos that the generation does not have, rising."""
    return live if current is None else live[~np.isin(live, current.videos)]


def _loaded(
    videos: Ids, load_clips: LoadClips, dim: int, progress: Callable[[int], None] | None
) -> Iterator[ClipRows]:
    for done, video in enumerate(videos.tolist(), start=1):
        yield ClipRows.of([video], [_checked_clips(load_clips, video, dim)])
        if progress is not None:
            progress(done)


def _checked_clips(load_clips: LoadClips, video: int, dim: int) -> NDArray[np.float16]:
    clips = np.asarray(load_clips(video))
    if clips.ndim != 2 or clips.shape[1] != dim or len(clips) > MAX_ORDINAL + 1:
        raise IndexDirectoryError(
            f"the clips of video {video} have shape {list(clips.shape)}; the vector index takes "
            f"[at most {MAX_ORDINAL + 1}, {dim}]: index that video again"
        )
    if not (np.abs(clips) <= np.finfo(np.float16).max).all():  # false for nan, too
        raise IndexDirectoryError(
            f"the clips of video {video} hold values that are not finite: index that video again"
        )
    return clips.astype(np.float16)
