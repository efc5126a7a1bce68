"""The vector index on disk: immutable generations, published by a rename, opened as one library.

    vectors/0000000007/
        0000000004.f16  0000000004_videos.npy       segments of clips, the oldest first
        0000000007.f16  0000000007_videos.npy
        base.faiss                                  IVF-PQ codes of the first segments: the base
        generation.json                             kind, dim, counts, sizes: the last file written

Clips behind the base, the delta, are searched exactly; a small library is nothing else. The
catalogue is the truth and this is derived from it: ``publish`` brings it in line, ``open_library``
makes up in memory for what is not published yet, and a damaged generation is passed over. The
newest complete directory is current; a reader keeps what it has mapped, even after a later publish
has swept it. One writer at a time. Generations share files by hard links, so a new video costs the
same whatever the library holds.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.errors import IndexDirectoryError, ManifestMismatch
from storage.generation_info import GenerationInfo, read_info
from storage.library import LibraryIndex
from storage.list_fit import ListFit
from storage.records import MAX_ORDINAL
from storage.segments import (
    NOTHING_OPEN,
    Codes,
    OpenFiles,
    Segment,
    link_file,
    link_segment,
    live_rows,
    num_kept,
    sync,
    write_rows,
)
from storage.settings import StorageSettings
from storage.vectors import (
    ClipRows,
    FlatIndex,
    Ids,
    IvfPqIndex,
    default_nprobe,
    factory,
    read_codes,
    write_codes,
)

__all__ = [
    "Generation",
    "LibraryIndex",
    "LoadClips",
    "newest_generation",
    "newest_number",
    "open_library",
    "publish",
]

logger = logging.getLogger(__name__)

LoadClips = Callable[[int], NDArray[np.float32]]
"""Embeddings of all clips of a video, ``[num_clips, dim]`` in the order of their ordinals; 0 clips
allowed."""

MAX_DEAD_SHARE = 0.2
"""Of all clips: dead ones cost memory and probes, a rebuild costs minutes at a million clips."""

_CODES = "base.faiss"
_STAGING = "staging-"
_NUMBER_DIGITS = 10


class _Damaged(Exception):
    """This generation cannot be used; its text says why."""


@dataclass(frozen=True, eq=False)
class Generation:
    """One published generation, its segments mapped."""

    path: Path
    number: int
    info: GenerationInfo
    open_files: OpenFiles

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Its clips; the base first, then the oldest first."""
        return self.open_files.segments

    @property
    def codes(self) -> Codes | None:
        """Those of the base, ``None`` where the index is flat or they were not asked for."""
        return self.open_files.codes

    @property
    def base_segments(self) -> tuple[Segment, ...]:
        """Those that the codes cover."""
        return self.segments[: self.info.base_segments]

    @property
    def delta_segments(self) -> tuple[Segment, ...]:
        """Those that are searched exactly."""
        return self.segments[self.info.base_segments :]

    @cached_property
    def base(self) -> ClipRows:
        """The clips that the codes cover; none where the index is flat."""
        return ClipRows.joined([segment.rows for segment in self.base_segments], self.info.dim)

    @cached_property
    def delta(self) -> ClipRows:
        """The clips that are searched exactly; all of them where the index is flat."""
        return ClipRows.joined([segment.rows for segment in self.delta_segments], self.info.dim)

    @property
    def videos(self) -> Ids:
        """Ids of all videos it holds, dead ones included, in no order."""
        return np.concatenate([self.base.videos, self.delta.videos])

    def indexes(self) -> list[FlatIndex | IvfPqIndex]:
        """All it holds, ready to be searched, the base first; it must have been opened with codes."""
        info = self.info
        exact = [segment.index for segment in self.delta_segments]
        if info.kind == "flat":
            return [*exact]
        assert self.codes is not None
        codes = self.codes.faiss
        base = IvfPqIndex(self.base, codes, nprobe=info.nprobe, rescore_depth=info.rescore_depth)
        return [base, *exact]


def open_library(
    vectors_dir: Path,
    *,
    dim: int,
    live_videos: Iterable[int],
    load_clips: LoadClips,
    previous: LibraryIndex | None = None,
) -> LibraryIndex:
    """The library as the catalogue has it now, published or not.

    Live videos that the newest generation lacks are loaded into memory, so what is committed is
    searchable at once; clips of videos that are not live are never returned. An empty or missing
    directory is an empty library.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        live_videos: ids of all searchable videos; any order.
        load_clips: called for each unpublished video, even where ``previous`` had it: it may have
            been stored again since. Its errors pass through.
        previous: a library that was opened before. Files that it has open are taken from it instead
            of being opened and copied again: at a million clips and one new video, 2 milliseconds
            instead of 40. It stays as it is, and may be searched meanwhile.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be read, or a video's clips do not fit.
    """
    live = _video_ids(live_videos)
    with _reported(vectors_dir, "read"):
        known = previous.open_files if previous else NOTHING_OPEN
        current = newest_generation(vectors_dir, dim=dim, known=known)
    missing = _missing(current, live)
    extra = [_checked_clips(load_clips, video, dim) for video in missing.tolist()]
    rows = ClipRows.of(missing, extra) if extra else ClipRows.none(dim)
    if current is None:
        return LibraryIndex([FlatIndex(rows)], live)
    return LibraryIndex(
        [*current.indexes(), FlatIndex(rows)],
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
) -> Generation | None:
    """Bring the index on disk in line with the live videos.

    New videos become a segment, joined with the newest ones that they outweigh; the rest is shared
    with the generation before. When the delta outgrows the base or ``settings.fold_rows``, its clips
    are added to the base's codes: a second or two, and 151 bytes written for every clip of the base.
    All is made anew when the library passes ``settings.ivf_threshold``, when the lists no longer fit
    what they hold (`storage.list_fit`), or when over a fifth of all clips is dead; then memory is
    bounded by the training sample (`IvfPqIndex.train`).

    Args:
        vectors_dir: the directory of the generations; made where missing.
        live_videos: ids of all searchable videos; any order.
        load_clips: called once for each new video; its errors pass through and nothing is
            published.
        dim: length of an embedding.
        settings: when to fold, what to build.
        progress: called after each new video with the number of new videos loaded so far.

    Returns:
        The current generation, new or not; ``None`` for a library that never had a video. Its codes
        may not be open: reading them would cost more than all the rest.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be written, or a video's clips do not fit. The old generation
        stays.
    """
    live = _video_ids(live_videos)
    with _reported(vectors_dir, "written"):
        vectors_dir.mkdir(parents=True, exist_ok=True)
        _sweep_staging(vectors_dir)
        current = newest_generation(vectors_dir, dim=dim, with_codes=False)
        new = _missing(current, live)
        if not len(new):  # nothing is in a hurry: see to it that all can be read
            current = newest_generation(vectors_dir, dim=dim)
            if _is_in_order(vectors_dir, current, live, settings):
                return current
            new = _missing(current, live)
        number = newest_number(vectors_dir) + 1
        with _staging(vectors_dir) as folder:
            fresh = write_rows(folder, "new", _loaded(new, load_clips, dim, progress), dim)
            _seal(folder, _Draft(folder, number, current, fresh, live, settings).write())
            os.rename(folder, vectors_dir / _numbered(number))
            sync(vectors_dir)
        _sweep_old(vectors_dir, keep={number, current.number if current else number})
        known = current.open_files if current else NOTHING_OPEN
        return newest_generation(vectors_dir, dim=dim, known=known, with_codes=False)


def newest_number(vectors_dir: Path) -> int:
    """Number of the newest generation, 0 for none; a cheap way to notice a publish."""
    return max(_numbers(vectors_dir), default=0)


def newest_generation(
    vectors_dir: Path,
    *,
    dim: int,
    known: OpenFiles = NOTHING_OPEN,
    with_codes: bool = True,
) -> Generation | None:
    """The newest generation that is whole; a warning names each one passed over.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        known: files that are open already and need not be opened again.
        with_codes: open the codes, too, so that it can be searched, and codes that FAISS cannot
            read count as damage. That takes as long as the codes are large (see `read_codes`).

    Raises:
        ManifestMismatch: it holds embeddings of another length than ``dim``.
    """
    numbers = _numbers(vectors_dir)
    for number in reversed(numbers):
        try:
            return _open_generation(vectors_dir, number, dim, known, with_codes)
        except _Damaged as error:
            logger.warning("vector index generation %d is passed over: %s", number, error)
    # Publishing twice while we looked sweeps what we saw: look again.
    if _numbers(vectors_dir) == numbers:
        return None
    return newest_generation(vectors_dir, dim=dim, known=known, with_codes=with_codes)


def _numbers(vectors_dir: Path) -> list[int]:
    try:
        names = [path.name for path in vectors_dir.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(n) for n in names if n.isdecimal() and len(n) == _NUMBER_DIGITS)


def _numbered(number: int) -> str:
    return f"{number:0{_NUMBER_DIGITS}d}"


def _open_generation(
    vectors_dir: Path, number: int, dim: int, known: OpenFiles, with_codes: bool
) -> Generation:
    path = vectors_dir / _numbered(number)
    try:
        info = read_info((path / "generation.json").read_bytes())
        for name, size in info.files.items():
            if (path / name).stat().st_size != size:
                raise _Damaged(f"{path / name} should have {size} bytes")
        codes = path / _CODES if info.kind == "ivfpq" and with_codes else None
        files = known.open(path, info.segments, codes, info.dim)
    except (FileNotFoundError, ValueError, EOFError, IndexDirectoryError) as error:
        raise _Damaged(f"{path}: {error}") from error
    generation = Generation(path, number, info, files)
    _check_counts(generation)
    if info.dim != dim:
        raise ManifestMismatch(
            f"the vector index in {vectors_dir} holds embeddings of {info.dim} dimensions, the "
            f"encoder makes {dim}: use the encoder it was made with, or another index directory"
        )
    return generation


def _check_counts(generation: Generation) -> None:
    path, info, codes = generation.path, generation.info, generation.codes
    clips = [len(segment.rows) for segment in generation.segments]
    if clips != list(info.segments.values()):
        raise _Damaged(f"{path} has segments of {clips} clips, not what it says")
    if codes and (codes.faiss.d, codes.faiss.ntotal) != (info.dim, len(generation.base)):
        raise _Damaged(f"{path / _CODES} belongs to other clips")


def _missing(current: Generation | None, live: Ids) -> Ids:
    """Live videos that the generation lacks, rising."""
    return live if current is None else live[~np.isin(live, current.videos)]


def _is_in_order(
    vectors_dir: Path, current: Generation | None, live: Ids, settings: StorageSettings
) -> bool:
    """Whether nothing is to be done where no video is new; a damaged generation is to be replaced."""
    if current is None:
        return newest_number(vectors_dir) == 0
    healthy = current.number == newest_number(vectors_dir)
    return healthy and _step(current, 0, live, settings) == "append"


def _step(
    current: Generation, fresh: int, live: Ids, settings: StorageSettings
) -> Literal["append", "fold", "rebuild"]:
    """What is due with ``fresh`` clips more than the generation has."""
    base_live, delta_live = current.base.count(live), current.delta.count(live)
    clips = len(current.base) + len(current.delta)
    waiting = delta_live + fresh
    if clips - base_live - delta_live > MAX_DEAD_SHARE * clips:
        return "rebuild"
    if current.info.kind == "flat":
        return "rebuild" if waiting >= settings.ivf_threshold else "append"
    # A small base is folded cheaply and often.
    return "fold" if waiting > min(settings.fold_rows, base_live) else "append"


@dataclass(frozen=True)
class _Draft:
    """A generation in the making."""

    folder: Path
    number: int
    current: Generation | None
    """The generation before."""
    fresh: ClipRows
    """Clips of new videos."""
    live: Ids
    settings: StorageSettings

    def write(self) -> GenerationInfo:
        """Write all files but ``generation.json``."""
        if self.current is None:
            return self._rebuild([self.fresh])
        step = _step(self.current, len(self.fresh), self.live, self.settings)
        if step == "append":
            return self._append(self.current)
        if step == "fold":
            return self._fold(self.current)
        segments = [live_rows(segment.rows, self.live) for segment in self.current.segments]
        return self._rebuild([*segments, self.fresh])

    def _append(self, current: Generation) -> GenerationInfo:
        """New clips into the delta; the base and all large segments as they are."""
        delta = current.delta_segments
        keep = num_kept(delta, len(self.fresh))
        joined = [live_rows(segment.rows, self.live) for segment in delta[keep:]]
        segments = self._write_segments(
            current.path, [*current.base_segments, *delta[:keep]], [*joined, self.fresh]
        )
        if current.info.kind == "ivfpq":
            link_file(current.path / _CODES, self.folder)
        return self._changed(current, segments=segments)

    def _fold(self, current: Generation) -> GenerationInfo:
        """The delta into the base, whose lists and codec stay as long as they fit."""
        base = current.base_segments
        delta = [live_rows(segment.rows, self.live) for segment in current.delta_segments]
        added = write_rows(self.folder, "new_base", [*delta, self.fresh], self.fresh.dim)
        everything = [*(live_rows(segment.rows, self.live) for segment in base), added]
        try:
            codes = read_codes(str(current.path / _CODES), mapped=False)
        except IndexDirectoryError as error:
            logger.warning("the vector index is trained anew: %s", error)
            return self._rebuild(everything)
        fit = current.info.fit or ListFit.measured(codes, current.base)
        IvfPqIndex.extend(codes, added)
        fit = fit.extended(codes, added)
        if reason := fit.misfit():
            logger.info("the vector index is trained anew: %s", reason)
            return self._rebuild(everything)
        write_codes(codes, str(self.folder / _CODES))
        keep = num_kept(base, len(added))
        # Clips of dead videos stay where they are: the codes know their clips by their places.
        joined = [segment.rows for segment in base[keep:]]
        segments = self._write_segments(current.path, base[:keep], [*joined, added])
        return self._changed(current, segments=segments, base_segments=len(segments), fit=fit)

    def _rebuild(self, parts: Sequence[ClipRows]) -> GenerationInfo:
        """One segment of all live clips, exact or IVF-PQ by their number."""
        name, dim = _numbered(self.number), self.fresh.dim
        rows = write_rows(self.folder, name, parts, dim)
        nlist, codes = 0, None
        if len(rows) >= self.settings.ivf_threshold:
            codes = IvfPqIndex.train(rows)
            nlist = codes.nlist
            write_codes(codes, str(self.folder / _CODES))
        return GenerationInfo(
            kind="ivfpq" if codes else "flat",
            dim=dim,
            segments={name: len(rows)},
            base_segments=1 if codes else 0,
            factory=factory(rows) if codes else None,
            nprobe=default_nprobe(nlist),
            rescore_depth=self.settings.rescore_depth,
            fit=ListFit.measured(codes, rows) if codes else None,
            created=datetime.now(UTC),
            files={},
        )

    def _write_segments(
        self, source: Path, kept: Sequence[Segment], parts: Sequence[ClipRows]
    ) -> dict[str, int]:
        """Link the segments to keep and write one of the parts behind them: their names and clips."""
        for segment in kept:
            link_segment(source, segment.name, self.folder)
        name = _numbered(self.number)
        rows = write_rows(self.folder, name, parts, self.fresh.dim)
        return {segment.name: len(segment.rows) for segment in kept} | {name: len(rows)}

    def _changed(self, current: Generation, **changes: Any) -> GenerationInfo:
        changes |= {"rescore_depth": self.settings.rescore_depth, "created": datetime.now(UTC)}
        return current.info.model_copy(update=changes)


def _loaded(
    videos: Ids, load_clips: LoadClips, dim: int, progress: Callable[[int], None] | None
) -> Iterator[ClipRows]:
    for done, video in enumerate(videos.tolist(), start=1):
        yield ClipRows.of([video], [_checked_clips(load_clips, video, dim)])
        if progress is not None:
            progress(done)


def _seal(folder: Path, info: GenerationInfo) -> None:
    """Write ``generation.json`` and flush what is new, so that a rename publishes whole files."""
    for path in folder.glob("new*"):
        path.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    text = info.model_copy(update={"files": sizes}).model_dump_json(indent=1)
    (folder / "generation.json").write_text(text, encoding="utf-8")
    for path in folder.iterdir():
        if path.stat().st_nlink == 1:  # a file that has other names was flushed under the first
            sync(path)
    sync(folder)


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
        shutil.rmtree(vectors_dir / _numbered(number), ignore_errors=True)


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
    """Each id once, rising."""
    array = isinstance(videos, np.ndarray)
    ids = np.asarray(videos, np.int64) if array else np.fromiter(videos, np.int64)
    return ids if (np.diff(ids) > 0).all() else np.unique(ids)


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
