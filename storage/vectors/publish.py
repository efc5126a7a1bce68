"""The vector index on disk: immutable generations, published by a rename, opened as one library.

    vectors/0000000007/
        0000000004.f16  0000000004_videos.npy       segments of clips, the oldest first
        0000000007.f16  0000000007_videos.npy
        base.faiss                                  IVF-PQ codes of the first segments: the base
        tuning_queries.npy                          what the search was tuned with, where it was
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
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import make_folder
from scanonce.storage.records import MAX_ORDINAL
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.codes import (
    CodedForm,
    coded_form,
    default_nprobe,
    extend_codes,
    factory,
    form_of,
    read_codes,
    write_codes,
)
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
from scanonce.storage.vectors.gpu import NO_GPU, GpuUse, build_codes, searches_on_gpu
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.list_fit import ListFit
from scanonce.storage.vectors.recall import num_affordable, tuned_settings
from scanonce.storage.vectors.rows import ClipRows, Ids
from scanonce.storage.vectors.segments import (
    NOTHING_OPEN,
    Segment,
    link_file,
    link_segment,
    live_rows,
    num_kept,
    sync,
    write_rows,
)

logger = logging.getLogger(__name__)

LoadClips = Callable[[int], NDArray[np.float32]]
"""Embeddings of all clips of a video, ``[num_clips, dim]`` in the order of their ordinals; 0 clips
allowed."""

MAX_DEAD_SHARE = 0.2
"""Of all clips: dead ones cost memory and probes, a rebuild costs minutes at a million clips."""

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
        gpu: whether a GPU may look up the candidates of many queries; of settings by
            ``StorageSettings.gpu_use``.

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
    rows = ClipRows.of(missing, extra) if extra else ClipRows.none(dim)
    if current is None:
        return LibraryIndex([FlatIndex(rows)], live)
    return LibraryIndex(
        [*current.indexes(gpu), FlatIndex(rows)],
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
    """Bring the index on disk in line with the live videos.

    New videos become a segment, joined with the newest ones that they outweigh; the rest is shared
    with the generation before. When the delta outgrows the base or ``settings.fold_rows``, its clips
    are added to the base's codes: a second or two, and 151 bytes written for every clip of the base.
    All is made anew when the library passes ``settings.ivf_threshold`` or ``settings.kind`` asks for
    other codes, when the lists no longer fit what they hold (`storage.vectors.list_fit`), or when over a fifth
    of all clips is dead; then memory is bounded by the training sample (`train_codes`). A search that
    was tuned (`storage.vectors.tuning`) is tuned again then: half a CPU minute more at a million clips.

    Args:
        vectors_dir: the directory of the generations; made where missing.
        live_videos: ids of all searchable videos; any order.
        load_clips: called once for each new video; its errors pass through and nothing is
            published.
        dim: length of an embedding.
        settings: when to fold, what to build.
        progress: called after each new video with the number of new videos loaded so far.
        tuned_like: where nothing was published yet, one whose search was tuned: the new one's is
            tuned to the same target by the same queries.

    Returns:
        The current generation, new or not; ``None`` for a library that never had a video. Its codes
        may not be open: reading them would cost more than all the rest.

    Raises:
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be written, or a video's clips do not fit. The old generation
        stays.
    """
    live = _video_ids(live_videos)
    with reported(vectors_dir, "written"):
        make_folder(vectors_dir)
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
            draft = _Draft(folder, number, current, fresh, live, settings, current or tuned_like)
            info = draft.write()
            _put_in_place(folder, info, vectors_dir / numbered(number))
        _sweep_old(vectors_dir, keep={number, current.number if current else number})
        known = current.open_files if current else NOTHING_OPEN
        return newest_generation(vectors_dir, dim=dim, known=known, with_codes=False)


def publish_tuned(
    vectors_dir: Path, tuned: TunedSettings, queries: NDArray[np.float32], *, dim: int
) -> None:
    """The newest generation, which is not flat, once more, now with these settings of its search.

    Args:
        vectors_dir: the directory of the generations.
        tuned: the settings; later generations measure them anew as the library grows.
        queries: ``[num_queries, dim]``, what to measure with then.
        dim: length of an embedding.

    Raises:
        IndexDirectoryError: it cannot be written; nothing has changed then.
    """
    with reported(vectors_dir, "written"):
        _sweep_staging(vectors_dir)
        current = newest_generation(vectors_dir, dim=dim, with_codes=False)
        assert current is not None
        number = newest_number(vectors_dir) + 1
        with _staging(vectors_dir) as folder:
            for segment in current.segments:
                link_segment(current.path, segment.name, folder)
            link_file(current.path / CODES, folder)
            np.save(folder / TUNING_QUERIES, queries.astype(np.float16))
            changes = {"tuned": tuned, "created": datetime.now(UTC)}
            info = current.info.model_copy(update=changes)
            _put_in_place(folder, info, vectors_dir / numbered(number))
        _sweep_old(vectors_dir, keep={number, current.number})


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
    form = _form(settings, base_live + waiting, current.info)
    if current.info.factory is None:
        return "rebuild" if form else "append"
    if form != form_of(current.info.factory):
        return "rebuild"
    # A small base is folded cheaply and often.
    return "fold" if waiting > min(settings.fold_rows, base_live) else "append"


def _form(
    settings: StorageSettings, num_rows: int, current: GenerationInfo | None
) -> CodedForm | None:
    """The codes that so many clips should have, ``None`` for exact search."""
    factory_now = current.factory if current else None
    if settings.kind == "flat":
        return None
    # What has codes keeps some until it is made anew: clips may come and go around the threshold.
    if num_rows < settings.ivf_threshold and factory_now is None:
        return None
    # For the same reason plain codes stay until there are half as many clips as called for them.
    is_plain = factory_now is not None and form_of(factory_now) == "ivfpq"
    on_gpu = searches_on_gpu(settings.gpu_use)
    return coded_form(settings.kind, 2 * num_rows if is_plain else num_rows, gpu=on_gpu)


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
    tuned_like: Generation | None
    """What knows how the search was tuned: the generation before, or one that this takes the place of."""

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
            link_file(current.path / CODES, self.folder)
        self._keep_queries()
        return self._changed(current, segments=segments)

    def _fold(self, current: Generation) -> GenerationInfo:
        """The delta into the base, whose lists and codec stay as long as they fit."""
        base = current.base_segments
        delta = [live_rows(segment.rows, self.live) for segment in current.delta_segments]
        added = write_rows(self.folder, "new_base", [*delta, self.fresh], self.fresh.dim)
        everything = [*(live_rows(segment.rows, self.live) for segment in base), added]
        try:
            codes = read_codes(str(current.path / CODES), mapped=False)
        except IndexDirectoryError as error:
            logger.warning("the vector index is trained anew: %s", error)
            return self._rebuild(everything)
        fit = current.info.fit or ListFit.measured(codes, current.base)
        extend_codes(codes, added)
        fit = fit.extended(codes, added)
        if reason := fit.misfit():
            logger.info("the vector index is trained anew: %s", reason)
            return self._rebuild(everything)
        write_codes(codes, str(self.folder / CODES))
        keep = num_kept(base, len(added))
        # Clips of dead videos stay where they are: the codes know their clips by their places.
        joined = [segment.rows for segment in base[keep:]]
        segments = self._write_segments(current.path, base[:keep], [*joined, added])
        self._keep_queries()
        return self._changed(current, segments=segments, base_segments=len(segments), fit=fit)

    def _rebuild(self, parts: Sequence[ClipRows]) -> GenerationInfo:
        """One segment of all live clips, exact or IVF-PQ by their number."""
        name, dim = numbered(self.number), self.fresh.dim
        rows = write_rows(self.folder, name, parts, dim)
        # What is made anew goes by the number of clips alone.
        form = _form(self.settings, len(rows), None)
        made = GenerationInfo(
            kind="ivfpq" if form else "flat",
            dim=dim,
            segments={name: len(rows)},
            base_segments=1 if form else 0,
            factory=factory(rows, form) if form else None,
            nprobe=0,
            rescore_depth=self.settings.rescore_depth,
            fit=None,
            created=datetime.now(UTC),
            files={},
        )
        if form is None:
            return made
        codes = build_codes(rows, form, self.settings.gpu_use)
        write_codes(codes, str(self.folder / CODES))
        queries = self.tuned_like.tuning_queries() if self.tuned_like else None
        tuned = None
        if self.tuned_like and self.tuned_like.info.tuned and queries is not None:
            tuned = self._tuned_again(self.tuned_like.info.tuned, queries, codes, rows)
            self._keep_queries()
        changes = {
            "nprobe": default_nprobe(codes.nlist),
            "fit": ListFit.measured(codes, rows),
            "tuned": tuned,
        }
        return made.model_copy(update=changes)

    def _tuned_again(
        self, before: TunedSettings, queries: NDArray[np.float32], codes: Any, rows: ClipRows
    ) -> TunedSettings:
        """What the search of ``codes`` should be set to, by the queries of the last time."""
        queries = queries[: num_affordable(len(queries), len(rows))]
        index = IvfPqIndex(rows, codes, nprobe=before.nprobe, rescore_depth=before.rescore_depth)
        allowed = rows.mask(self.live)
        after = tuned_settings(
            index,
            queries,
            target_recall=before.target_recall,
            source=before.queries,
            allowed=None if allowed.all() else allowed,
        )
        logger.info(
            "the search is tuned to %d clips: nprobe %d, rescore depth %d, recall %.3f",
            len(rows),
            after.nprobe,
            after.rescore_depth,
            after.recall,
        )
        return after

    def _keep_queries(self) -> None:
        """Those of the tuning, where there was one, for the next time."""
        if self.tuned_like is not None and self.tuned_like.info.tuned is not None:
            link_file(self.tuned_like.path / TUNING_QUERIES, self.folder)

    def _write_segments(
        self, source: Path, kept: Sequence[Segment], parts: Sequence[ClipRows]
    ) -> dict[str, int]:
        """Link the segments to keep and write one of the parts behind them: their names and clips."""
        for segment in kept:
            link_segment(source, segment.name, self.folder)
        name = numbered(self.number)
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


def _put_in_place(folder: Path, info: GenerationInfo, place: Path) -> None:
    """Make a whole generation of a staging directory: from the rename on it is the newest."""
    _seal(folder, info)
    os.rename(folder, place)
    sync(place.parent)


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
    for number in set(generation_numbers(vectors_dir)) - keep:
        shutil.rmtree(vectors_dir / numbered(number), ignore_errors=True)


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
