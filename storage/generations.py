"""The vector index on disk: immutable generations, published by a rename, opened as one library.

    vectors/0000000007/
        base.f16  base_videos.npy  [base.faiss]     most of the library, exact or IVF-PQ
        delta.f16  delta_videos.npy                 what came since, exact
        generation.json                             kind, dim, counts, sizes: the last file written

The catalogue is the truth and this is derived from it: ``publish`` brings it in line,
``open_library`` makes up in memory for what is not published yet, and a damaged generation is
passed over. The newest complete directory is current; a reader keeps what it has mapped, even after
a later publish has swept it. One writer at a time.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from storage.errors import IndexDirectoryError, ManifestMismatch
from storage.records import MAX_ORDINAL
from storage.settings import StorageSettings
from storage.vectors import (
    ClipRows,
    FlatIndex,
    Ids,
    IndexKind,
    IvfPqIndex,
    Mask,
    Scores,
    best,
    check_search,
    default_nprobe,
    factory,
    read_codes,
    write_codes,
)

logger = logging.getLogger(__name__)

LoadClips = Callable[[int], NDArray[np.float32]]
"""Embeddings of all clips of a video, ``[num_clips, dim]`` in the order of their ordinals; 0 clips
allowed."""

MAX_DEAD_SHARE = 0.2
"""Of the base: dead clips cost memory and probes, folding costs minutes at a million clips."""

_STAGING = "staging-"
_NUMBER_DIGITS = 10


class GenerationInfo(BaseModel):
    """What ``generation.json`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: IndexKind
    dim: int
    base_clips: int
    delta_clips: int
    factory: str | None
    """FAISS's name of the base, ``None`` where it is flat."""
    nprobe: int
    rescore_depth: int
    created: datetime
    files: dict[str, int]
    """Size of every other file in bytes, to notice one that is cut off or missing."""


class _Damaged(Exception):
    """This generation cannot be used; its text says why."""


@dataclass(frozen=True, eq=False)
class Generation:
    """One published generation, its files mapped."""

    path: Path
    number: int
    info: GenerationInfo
    base: ClipRows
    delta: ClipRows
    codes: Any | None
    """FAISS index of the base, ``None`` where it is flat."""

    @property
    def videos(self) -> Ids:
        """Ids of all videos it holds, dead ones included, rising."""
        return np.union1d(self.base.videos, self.delta.videos)

    def base_index(self) -> FlatIndex | IvfPqIndex:
        """The base, ready to be searched."""
        if self.codes is None:
            return FlatIndex(self.base)
        info = self.info
        return IvfPqIndex(
            self.base, self.codes, nprobe=info.nprobe, rescore_depth=info.rescore_depth
        )


class LibraryIndex:
    """A whole library as one `VectorIndex`: each part is searched, dead videos are masked out.

    Rows are those of the parts, one part after the other. ``open_library`` makes it.
    """

    def __init__(
        self, parts: Sequence[FlatIndex | IvfPqIndex], live_videos: Ids, *, generation: int
    ) -> None:
        """Search parts (at least one, of one dim, no video in two of them) for live videos only."""
        masks = [part.rows.mask(live_videos) for part in parts]
        self.generation = generation
        self.num_videos = sum(int(np.isin(part.rows.videos, live_videos).sum()) for part in parts)
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._live = np.concatenate(masks)
        self._part_live = [None if mask.all() else mask for mask in masks]
        self._background: tuple[tuple[int, int], NDArray[np.float32]] | None = None

    @property
    def kind(self) -> IndexKind:
        """Kind of the base."""
        return self._parts[0].kind

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._parts[0].dim

    @property
    def num_rows(self) -> int:
        """Rows that a mask covers, those of dead videos included."""
        return len(self._live)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._live))

    def mask(self, videos: Iterable[int]) -> Mask:
        """``[num_rows]`` for ``search``: the clips of these videos. Unknown ids are no error."""
        wanted = np.fromiter(videos, np.int64)
        return np.concatenate([part.rows.mask(wanted) for part in self._parts])

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """The k best live clips of each query; see `VectorIndex.search`."""
        check_search(self, queries, k, allowed)
        masks: Sequence[Mask | None] = self._part_live
        if allowed is not None:
            masks = np.split(allowed & self._live, self._ends[:-1])
        found = [
            part.search(queries, k, allowed=mask)
            for part, mask in zip(self._parts, masks, strict=True)
        ]
        return best(
            np.concatenate([scores for scores, _ in found], axis=1),
            np.concatenate([ids for _, ids in found], axis=1),
            k,
        )

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]`` of rows."""
        out = np.empty((len(rows), self.dim), np.float32)
        part_of = np.searchsorted(self._ends, rows, side="right")
        first = np.concatenate([np.zeros(1, np.int64), self._ends])
        for number, part in enumerate(self._parts):
            mine = part_of == number
            out[mine] = part.gather(rows[mine] - first[number])
        return out

    def background(
        self, queries: NDArray[np.float32], sample: int = 4096, seed: int = 0
    ) -> NDArray[np.float32]:
        """Scores of the queries against a fixed random sample of the live clips, as a yardstick.

        Returns:
            ``[num_queries, min(sample, len(self))]``, in no order. The sample is gathered once and
            kept (8 MB at the defaults and 512 dimensions); after that about a millisecond a query.
        """
        if self._background is None or self._background[0] != (sample, seed):
            live = np.flatnonzero(self._live)
            chosen = np.random.default_rng(seed).permutation(len(live))[:sample]
            self._background = (sample, seed), self.gather(live[np.sort(chosen)])
        clips = self._background[1]
        # numpy's product takes a second thread past about a thousand rows: measured 20 times slower
        # when the machine is busy. Pieces of 256 stay on one.
        pieces = [queries @ clips[start : start + 256].T for start in range(0, len(clips), 256)]
        return np.concatenate([np.empty((len(queries), 0), np.float32), *pieces], axis=1)


def open_library(
    vectors_dir: Path, *, dim: int, live_videos: Iterable[int], load_clips: LoadClips
) -> LibraryIndex:
    """The library as the catalogue has it now, published or not.

    Live videos that the newest generation lacks are loaded into memory, so what is committed is
    searchable at once; clips of videos that are not live are never returned. An empty or missing
    directory is an empty library.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        live_videos: ids of all searchable videos; any order.
        load_clips: called for each unpublished video; its errors pass through.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be read, or a video's clips do not fit.
    """
    live = _video_ids(live_videos)
    with _reported(vectors_dir, "read"):
        current = newest_generation(vectors_dir, dim=dim)
    known = current.videos if current else np.empty(0, np.int64)
    missing = np.setdiff1d(live, known)
    extra = [_checked_clips(load_clips, video, dim) for video in missing.tolist()]
    rows = ClipRows.of(missing, extra) if extra else _no_rows(dim)
    parts = [current.base_index(), FlatIndex(current.delta)] if current else []
    return LibraryIndex(
        [*parts, FlatIndex(rows)], live, generation=current.number if current else 0
    )


def publish(
    vectors_dir: Path,
    live_videos: Iterable[int],
    load_clips: LoadClips,
    *,
    dim: int,
    settings: StorageSettings,
    progress: Callable[[int], None] | None = None,
) -> Generation | None:
    """Bring the index on disk in line with the live videos.

    New videos go to the delta, which costs hard links and a copy of the delta. The base is made
    anew, from the stored rows, when the delta outgrows it or ``settings.fold_rows``, when over a
    fifth of it is dead, or when the library passes ``settings.ivf_threshold``. Memory stays bounded
    by the training sample (`IvfPqIndex.train`).

    Args:
        vectors_dir: the directory of the generations; made where missing.
        live_videos: ids of all searchable videos; any order.
        load_clips: called once for each new video; its errors pass through and nothing is
            published.
        dim: length of an embedding.
        settings: when to fold, what to build.
        progress: called after each new video with the number of new videos loaded so far.

    Returns:
        The current generation, new or not; ``None`` for a library that never had a video.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be written, or a video's clips do not fit. The old generation
        stays.
    """
    live = _video_ids(live_videos)
    with _reported(vectors_dir, "written"):
        vectors_dir.mkdir(parents=True, exist_ok=True)
        _sweep_staging(vectors_dir)
        current = newest_generation(vectors_dir, dim=dim)
        new = np.setdiff1d(live, current.videos if current else np.empty(0, np.int64))
        if not len(new) and _is_in_order(vectors_dir, current, live, settings):
            return current
        number = newest_number(vectors_dir) + 1
        with _staging(vectors_dir) as folder:
            fresh = _write_rows(folder, "new", _loaded(new, load_clips, dim, progress), dim)
            if current is None or _base_is_due(current, len(fresh), live, settings):
                info = _write_folded(folder, current, fresh, live, settings)
            else:
                info = _write_linked(folder, current, fresh, live, settings)
            _seal(folder, info)
            os.rename(folder, vectors_dir / f"{number:0{_NUMBER_DIGITS}d}")
            _sync(vectors_dir)
        _sweep_old(vectors_dir, keep={number, current.number if current else number})
        return newest_generation(vectors_dir, dim=dim)


def newest_number(vectors_dir: Path) -> int:
    """Number of the newest generation, 0 for none; a cheap way to notice a publish."""
    return max(_numbers(vectors_dir), default=0)


def newest_generation(vectors_dir: Path, *, dim: int) -> Generation | None:
    """The newest generation that is whole; a warning names each one passed over.

    Raises:
        ManifestMismatch: it holds embeddings of another length than ``dim``.
    """
    numbers = _numbers(vectors_dir)
    for number in reversed(numbers):
        try:
            return _open_generation(vectors_dir, number, dim)
        except _Damaged as error:
            logger.warning("vector index generation %d is passed over: %s", number, error)
    # Publishing twice while we looked sweeps what we saw: look again.
    return newest_generation(vectors_dir, dim=dim) if _numbers(vectors_dir) != numbers else None


def _numbers(vectors_dir: Path) -> list[int]:
    try:
        names = [path.name for path in vectors_dir.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(n) for n in names if n.isdecimal() and len(n) == _NUMBER_DIGITS)


def _open_generation(vectors_dir: Path, number: int, dim: int) -> Generation:
    path = vectors_dir / f"{number:0{_NUMBER_DIGITS}d}"
    try:
        info = GenerationInfo.model_validate_json((path / "generation.json").read_bytes())
        for name, size in info.files.items():
            if (path / name).stat().st_size != size:
                raise _Damaged(f"{path / name} should have {size} bytes")
        base, delta = (_map_rows(path, name, info.dim) for name in ("base", "delta"))
        codes = read_codes(str(path / "base.faiss")) if info.kind == "ivfpq" else None
    except (FileNotFoundError, ValueError, EOFError, IndexDirectoryError) as error:
        raise _Damaged(f"{path}: {error}") from error
    if (len(base), len(delta)) != (info.base_clips, info.delta_clips):
        raise _Damaged(f"{path} has {len(base)} + {len(delta)} clips, not what it says")
    if codes is not None and (codes.d, codes.ntotal) != (info.dim, len(base)):
        raise _Damaged(f"{path / 'base.faiss'} belongs to other clips")
    if info.dim != dim:
        raise ManifestMismatch(
            f"the vector index in {vectors_dir} holds embeddings of {info.dim} dimensions, the "
            f"encoder makes {dim}: use the encoder it was made with, or another index directory"
        )
    return Generation(path, number, info, base, delta, codes)


def _is_in_order(
    vectors_dir: Path, current: Generation | None, live: Ids, settings: StorageSettings
) -> bool:
    """Whether nothing is to be done where no video is new; a damaged generation is to be replaced."""
    if current is None:
        return newest_number(vectors_dir) == 0
    healthy = current.number == newest_number(vectors_dir)
    return healthy and not _base_is_due(current, 0, live, settings)


def _base_is_due(current: Generation, fresh: int, live: Ids, settings: StorageSettings) -> bool:
    """Whether the base is to be made anew, with ``fresh`` clips more than the generation has."""
    base_live = current.base.count(live)
    waiting = current.delta.count(live) + fresh
    dead = len(current.base) - base_live
    outgrown = current.info.kind == "flat" and base_live + waiting >= settings.ivf_threshold
    return (
        dead > MAX_DEAD_SHARE * len(current.base)
        or waiting > min(settings.fold_rows, base_live)  # a small base is folded cheaply and often
        or outgrown
    )


def _write_folded(
    folder: Path,
    current: Generation | None,
    fresh: ClipRows,
    live: Ids,
    settings: StorageSettings,
) -> GenerationInfo:
    """All live clips into a new base, exact or IVF-PQ by their number; the delta is empty."""
    old = [current.base, current.delta] if current else []
    base = _write_rows(folder, "base", _live_rows([*old, fresh], live), fresh.dim)
    _write_rows(folder, "delta", iter(()), fresh.dim)
    nlist, name = 0, None
    if len(base) >= settings.ivf_threshold:
        name = factory(base)
        codes = IvfPqIndex.train(base)
        nlist = codes.nlist
        write_codes(codes, str(folder / "base.faiss"))
    return GenerationInfo(
        kind="ivfpq" if name else "flat",
        dim=base.dim,
        base_clips=len(base),
        delta_clips=0,
        factory=name,
        nprobe=default_nprobe(nlist),
        rescore_depth=settings.rescore_depth,
        created=datetime.now(UTC),
        files={},
    )


def _write_linked(
    folder: Path, current: Generation, fresh: ClipRows, live: Ids, settings: StorageSettings
) -> GenerationInfo:
    """The base as it is, shared with the generation before; new clips into the delta."""
    for source in current.path.glob("base*"):
        try:
            os.link(source, folder / source.name)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, folder / source.name)
    delta = _write_rows(folder, "delta", _live_rows([current.delta, fresh], live), fresh.dim)
    return current.info.model_copy(
        update={
            "delta_clips": len(delta),
            "rescore_depth": settings.rescore_depth,
            "created": datetime.now(UTC),
        }
    )


def _loaded(
    videos: Ids, load_clips: LoadClips, dim: int, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, NDArray[np.float16]]]:
    for done, video in enumerate(videos.tolist(), start=1):
        yield video, _checked_clips(load_clips, video, dim)
        if progress is not None:
            progress(done)


def _live_rows(parts: Sequence[ClipRows], live: Ids) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """Clips of every live video of the parts, by rising video id."""
    runs = sorted(
        (video, number, position)
        for number, part in enumerate(parts)
        for position, video in enumerate(part.videos.tolist())
    )
    alive = np.isin(np.array([video for video, _, _ in runs], np.int64), live)
    for (video, number, position), keep in zip(runs, alive.tolist(), strict=True):
        if keep:
            starts = parts[number].starts
            yield video, parts[number].matrix[starts[position] : starts[position + 1]]


def _write_rows(
    folder: Path, name: str, videos: Iterator[tuple[int, NDArray[np.float16]]], dim: int
) -> ClipRows:
    """Write clips video by video, by rising id, and map what was written."""
    counts = []
    with open(folder / f"{name}.f16", "wb") as file:
        for video, clips in videos:
            file.write(clips.tobytes())
            counts.append((video, len(clips)))
    np.save(folder / f"{name}_videos.npy", np.array(counts, np.int64).reshape(-1, 2))
    return _map_rows(folder, name, dim)


def _map_rows(folder: Path, name: str, dim: int) -> ClipRows:
    videos, counts = np.load(folder / f"{name}_videos.npy", allow_pickle=False).T.copy()
    num_rows = int(counts.sum())
    if not num_rows:  # an empty file cannot be mapped
        return ClipRows(np.empty((0, dim), np.float16), videos, counts)
    path = folder / f"{name}.f16"
    matrix = np.memmap(path, np.float16, "r", shape=(num_rows, dim))
    return ClipRows(np.asarray(matrix), videos, counts)


def _seal(folder: Path, info: GenerationInfo) -> None:
    """Write ``generation.json`` and flush everything, so that a rename publishes whole files."""
    for path in folder.glob("new*"):
        path.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    text = info.model_copy(update={"files": sizes}).model_dump_json(indent=1)
    (folder / "generation.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _staging(vectors_dir: Path) -> Iterator[Path]:
    """A directory beside the generations that is gone afterwards unless it was renamed."""
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=vectors_dir))
    folder.chmod(0o755)  # mkdtemp keeps other users out; readers may be other users
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep_staging(vectors_dir: Path) -> None:
    for path in vectors_dir.glob(f"{_STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def _sweep_old(vectors_dir: Path, keep: set[int]) -> None:
    """Remove other generations; readers keep what they mapped, a failure is made up next time."""
    for number in set(_numbers(vectors_dir)) - keep:
        shutil.rmtree(vectors_dir / f"{number:0{_NUMBER_DIGITS}d}", ignore_errors=True)


@contextmanager
def _reported(vectors_dir: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IndexDirectoryError(
            f"the vector index in {vectors_dir} cannot be {done}: {error}; "
            "check free space and permissions, then run again"
        ) from error


def _video_ids(videos: Iterable[int]) -> Ids:
    return np.unique(np.fromiter(videos, np.int64))


def _no_rows(dim: int) -> ClipRows:
    none = np.empty(0, np.int64)
    return ClipRows(np.empty((0, dim), np.float16), none, none)


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
