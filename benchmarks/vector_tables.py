"""The vector index with many queries at once, with filters, with topics it has never seen, while it grows, and when it
is opened: the further tables of `benchmarks.vectors`.
"""

import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.embeddings import CLIPS_PER_VIDEO, DIM, World, matrix_of, videos_for
from benchmarks.material import console, drop_from_cache, percentile
from benchmarks.vector_ours import (
    open_first,
    publish_first,
    published_folder,
    row_of,
    rows_of_matrix,
)
from benchmarks.vector_worker import Remote
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.codes import default_nprobe, extend_codes, train_codes
from scanonce.storage.vectors.flat import FlatIndex, VectorIndex
from scanonce.storage.vectors.generation import newest_generation, newest_number
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.rows import Mask

AIM_FILTERED = 0.95
SHARES = (1.0, 0.5, 0.1, 0.03, 0.01, 0.001)
"""Shares of the videos that pass a filter."""

AIM_FIRST_ANSWER_MS = 1_000

_BATCH_ROUNDS = 5
_HALF_CLIPS = 60_000
_STEP_CLIPS = 5_000
_LARGE_STEP_CLIPS = 20_000
_LARGE_FROM_CLIPS = 100_000
_PAUSE_SECONDS = 0.01
"""Pause of the reader between two queries, so that the writer gets enough of two cores."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """Published libraries of the first clips of one file."""

    folder: Path
    world: World
    clips_file: Path

    def clips(self, num_clips: int) -> NDArray[np.float16]:
        """Return the clips of a size."""
        return matrix_of(self.clips_file, self.world, videos_for(num_clips))

    def published(self, num_clips: int) -> Path:
        """Return the library of a size; publish it if missing."""
        clips = self.clips(num_clips)
        folder = published_folder(self.folder, len(clips))
        if not newest_number(folder):
            with console.status(f"publishing {len(clips):,} clips"):
                publish_first(folder, clips, len(clips) // CLIPS_PER_VIDEO)
        return folder


def exact_rows(
    flat: FlatIndex, queries: NDArray[np.float32], k: int, allowed: Mask | None = None
) -> NDArray[np.int64]:
    """Return the rows of the exact answers, ``[num_queries, k]``."""
    return row_of(flat.search(queries, k, allowed=allowed)[1])


def asked(
    index: VectorIndex, queries: NDArray[np.float32], k: int, allowed: Mask | None = None
) -> tuple[NDArray[np.int64], list[float]]:
    """Return the rows of the answers, ``[num_queries, k]``, and the CPU milliseconds of each query, asked alone."""
    found, times = [], []
    for query in queries:
        begin = time.thread_time()
        _, ids = index.search(query[None], k, allowed=allowed)
        times.append(1e3 * (time.thread_time() - begin))
        found.append(row_of(ids))
    return np.concatenate(found), times


def share_found(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of the best rows ``[num_queries, k]`` that were found; -1 is no row, if fewer than k pass."""
    hits = (found[:, :, None] == truth[:, None, :]) & (truth >= 0)[:, None, :]
    return float(hits.sum() / (truth >= 0).sum())


# ------------------------------------------------ many queries at once


@dataclass(frozen=True, slots=True)
class Rate:
    """Speed of queries."""

    per_second: float
    per_cpu_second: float
    cores: float
    """Number of cores that the process got; fewer than it wanted if other programs ran."""

    @classmethod
    def of(
        cls,
        ask: Callable[[LibraryIndex, NDArray[np.float32]], None],
        library: LibraryIndex,
        queries: NDArray[np.float32],
    ) -> "Rate":
        """Wall seconds of one call that answers all of them."""
        wall, cpu = time.perf_counter(), time.process_time()
        ask(library, queries)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return cls(len(queries) / wall, len(queries) / cpu, cpu / wall)


def print_batch(libraries: Libraries, sizes: Sequence[int]) -> None:
    """Print the times of queries one after the other on one thread, and all at once on all cores, in turns."""
    table = Table(title=f"queries alone and at once, medians of {_BATCH_ROUNDS}", box=None)
    columns = ("clips", "queries", "alone q/s", "cores", "at once q/s", "cores")
    for column in (*columns, "times", "least", "most", "times q/CPU s"):
        table.add_column(column, justify="right")
    for size in sizes:
        clips = libraries.clips(size)
        num_videos = len(clips) // CLIPS_PER_VIDEO
        library = open_first(libraries.published(size), clips, num_videos)
        texts = libraries.world.texts(num_videos, 2_000, seed=5)
        library.search(texts, 10)  # the files are in memory from now on
        alone, at_once = [], []
        for _ in range(_BATCH_ROUNDS):
            alone.append(Rate.of(_one_by_one, library, texts))
            at_once.append(Rate.of(_all_at_once, library, texts))
        pairs = list(zip(alone, at_once, strict=True))
        times = [many.per_second / one.per_second for one, many in pairs]
        cpu_times = [many.per_cpu_second / one.per_cpu_second for one, many in pairs]
        table.add_row(
            f"{len(clips):,}",
            f"{len(texts):,}",
            *_medians(alone),
            *_medians(at_once),
            *(f"{each:.2f}" for each in (median(times), min(times), max(times))),
            f"{median(cpu_times):.2f}",
        )
    console.print(table)


def _one_by_one(library: LibraryIndex, texts: NDArray[np.float32]) -> None:
    for text in texts:
        library.search(text[None], 10)


def _all_at_once(library: LibraryIndex, texts: NDArray[np.float32]) -> None:
    library.search(texts, 10)


def _medians(rates: Sequence[Rate]) -> tuple[str, str]:
    """Print queries a second, and cores."""
    per_second = median(rate.per_second for rate in rates)
    return f"{per_second:.0f}", f"{median(rate.cores for rate in rates):.2f}"


# ------------------------------------------------ filters


def print_filters(libraries: Libraries, num_clips: int) -> None:
    """Print recall and cost by the share of clips that pass."""
    clips = libraries.clips(num_clips)
    library = open_first(libraries.published(num_clips), clips, len(clips) // CLIPS_PER_VIDEO)
    flat = FlatIndex(rows_of_matrix(clips))
    texts = libraries.world.texts(len(clips) // CLIPS_PER_VIDEO, 150, seed=1)
    pictures = libraries.world.pictures(50)
    table = Table(title=f"filters, {len(clips):,} clips, {library.kind}", box=None)
    columns = (
        "passing",
        "clips",
        "text @10",
        "picture @10",
        "CPU ms p50",
        "p99",
        "exact CPU ms p50",
        "mask ms",
    )
    for column in columns:
        table.add_column(column, justify="right")
    rng = np.random.default_rng(3)
    worst = 1.0
    for share in SHARES:
        num_passing = max(1, round(share * library.num_videos))
        videos = rng.choice(library.num_videos, num_passing, replace=False)
        begin = time.thread_time()
        allowed = library.mask(videos.tolist())
        mask_ms = 1e3 * (time.thread_time() - begin)
        recalls, times, exact_times = [], [], []
        for queries in (texts, pictures):
            truth, exact_ms = asked(flat, queries, 10, allowed)
            found, ms = asked(library, queries, 10, None if share == 1 else allowed)
            recalls.append(share_found(found, truth))
            times += ms
            exact_times += exact_ms
        worst = min(worst, *recalls)
        table.add_row(
            f"{share:.1%}",
            f"{np.count_nonzero(allowed):,}",
            *(f"{recall:.3f}" for recall in recalls),
            f"{percentile(times, 50):.2f}",
            f"{percentile(times, 99):.2f}",
            f"{percentile(exact_times, 50):.2f}",
            f"{mask_ms:.1f}",
        )
    console.print(table)
    verdict = "met" if worst >= AIM_FILTERED else "missed"
    console.print(f"worst recall@10 under a filter: {worst:.3f}; aim >= {AIM_FILTERED}: {verdict}")


# ------------------------------------------------ topics never seen


def print_drift(folder: Path) -> None:
    """Print the recall of clips of new topics, without training again and as `publish` does it."""
    halves = [_half(folder, "first"), _half(folder, "second")]
    clips = np.concatenate([clips for clips, _ in halves])
    num_old = len(halves[0][0]) // CLIPS_PER_VIDEO
    old, new = (texts for _, texts in halves)
    table = Table(title=f"half of {len(clips):,} clips of topics never seen in training", box=None)
    for column in ("state", "clips", "old text @10", "new text @10", "CPU ms p50", "CPU s"):
        table.add_column(column, justify="left" if column == "state" else "right")
    vectors = folder / "drift"
    shutil.rmtree(vectors, ignore_errors=True)
    table.add_row(*_publish_step(vectors, clips, num_old, old, new, is_first=True))
    table.add_row(*_without_training(clips, num_old, old, new))
    steps = range(num_old, len(clips) // CLIPS_PER_VIDEO, _STEP_CLIPS // CLIPS_PER_VIDEO)
    for num_videos in [*steps[1:], len(clips) // CLIPS_PER_VIDEO]:
        table.add_row(*_publish_step(vectors, clips, num_videos, old, new, is_first=False))
    console.print(table)
    shutil.rmtree(vectors)


def _half(folder: Path, half: str) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Clips and texts about half of the super-topics."""
    world = World(half="first" if half == "first" else "second")
    num_videos = videos_for(_HALF_CLIPS)
    return matrix_of(folder / f"{half}-half.f16", world, num_videos), world.texts(num_videos, 200)


def _recalls(
    index: VectorIndex, clips: NDArray[np.float16], groups: Sequence[NDArray[np.float32]]
) -> tuple[list[float], float]:
    """Return recall@10 of groups of texts over all clips, and the median time of a query."""
    flat = FlatIndex(rows_of_matrix(clips))
    recalls, times = [], []
    for queries in groups:
        found, ms = asked(index, queries, 10)
        recalls.append(share_found(found, exact_rows(flat, queries, 10)))
        times += ms
    return recalls, percentile(times, 50)


def _publish_step(
    vectors: Path,
    clips: NDArray[np.float16],
    num_videos: int,
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    *,
    is_first: bool,
) -> list[str]:
    """Publish up to a video and ask."""
    before = _state(vectors)
    begin = time.process_time()
    publish_first(vectors, clips, num_videos)
    cpu = time.process_time() - begin
    library = open_first(vectors, clips, num_videos)
    held = clips[: num_videos * CLIPS_PER_VIDEO]
    recalls, ms = _recalls(library, held, [old] if is_first else [old, new])
    after = _state(vectors)
    happened = "appended, exact"
    if after[0] != before[0]:
        happened = "trained on the old half" if is_first else "TRAINED AGAIN by publish"
    elif after[1] != before[1]:
        happened = "folded"
    shown = [f"{each:.3f}" for each in recalls] + [""] * (2 - len(recalls))
    return [happened, f"{len(held):,}", *shown, f"{ms:.2f}", f"{cpu:.1f}"]


def _state(vectors: Path) -> tuple[int, int]:
    """Return the number of clips the lists were trained on, and of those they hold."""
    generation = newest_generation(vectors, dim=DIM, with_codes=False)
    if generation is None:
        return 0, 0
    fit = generation.info.fit
    return fit.trained_clips if fit else 0, len(generation.base)


def _without_training(
    clips: NDArray[np.float16], num_old: int, old: NDArray[np.float32], new: NDArray[np.float32]
) -> list[str]:
    """Extend the lists of the old half by the new half, which `publish` does not do."""
    edge = num_old * CLIPS_PER_VIDEO
    codes = train_codes(rows_of_matrix(clips[:edge]))
    begin = time.process_time()
    extend_codes(codes, rows_of_matrix(clips[edge:]))
    cpu = time.process_time() - begin
    depth = StorageSettings().rescore_depth
    nprobe = default_nprobe(codes.nlist)
    index = IvfPqIndex(rows_of_matrix(clips), codes, nprobe=nprobe, rescore_depth=depth)
    recalls, ms = _recalls(index, clips, [old, new])
    shown = [f"{each:.3f}" for each in recalls]
    return [
        "were all merged, not trained again",
        f"{len(clips):,}",
        *shown,
        f"{ms:.2f}",
        f"{cpu:.1f}",
    ]


# ------------------------------------------------ growth


@dataclass
class Watched:
    """Measurements of a reader while the library grew to a size."""

    up_to_clips: int
    wall_ms: list[float] = field(default_factory=list)
    """Time of each answer, with the opening of new files."""
    cpu_ms: list[float] = field(default_factory=list)
    opening_ms: list[float] = field(default_factory=list)
    longest_gap_ms: float = 0.0
    """Longest time between two answers."""
    failures: int = 0


def print_growth(libraries: Libraries, num_clips: int) -> None:
    """Print how a reader follows and asks while a writer publishes."""
    clips = libraries.clips(num_clips)
    vectors = libraries.folder / "growing"
    shutil.rmtree(vectors, ignore_errors=True)
    steps = list(batches(len(clips)))
    publish_first(vectors, clips, steps[0])
    spawn = multiprocessing.get_context("spawn")
    committed: Synchronized[int] = spawn.Value("q", steps[0])
    arguments = (vectors, libraries.clips_file, clips.shape, steps, committed)
    writer = spawn.Process(target=_write, args=arguments, daemon=True)
    writer.start()
    texts = libraries.world.texts(steps[0], 200)
    begin = time.perf_counter()
    watched = list(_read(vectors, clips, texts, writer.is_alive, committed))
    took = time.perf_counter() - begin
    writer.join()
    console.print(growth_table(watched))
    answers = sum(len(each.wall_ms) for each in watched)
    failures = sum(each.failures for each in watched) + (writer.exitcode != 0)
    gap = max(each.longest_gap_ms for each in watched)
    console.print(
        f"{len(steps) - 1} publishes in {took:.0f} s, {answers:,} answers; failed: {failures}; aim 0: "
        f"{'met' if not failures else 'missed'}; longest time without an answer {gap:.0f} ms"
    )
    print_grown_recall(vectors, clips, libraries.world)
    shutil.rmtree(vectors)


def print_grown_recall(vectors: Path, clips: NDArray[np.float16], world: World) -> None:
    """Print the recall in a library that has grown: of clips trained on, and of later clips."""
    num_videos = len(clips) // CLIPS_PER_VIDEO
    library = open_first(vectors, clips, num_videos)
    texts = world.texts(num_videos, 300, seed=4)
    truth = exact_rows(FlatIndex(rows_of_matrix(clips)), texts, 10)
    found, _ = asked(library, texts, 10)
    was_found = (truth[:, :, None] == found[:, None, :]).any(axis=2)
    num_trained, num_listed = _state(vectors)
    groups = {
        f"the {num_trained:,} clips trained on": truth < num_trained,
        f"the {num_listed - num_trained:,} added to the lists since": (truth >= num_trained)
        & (truth < num_listed),
        f"the {len(clips) - num_listed:,} searched exactly": truth >= num_listed,
    }
    parts = [
        f"of {name} {was_found[mine].mean():.3f}" for name, mine in groups.items() if mine.any()
    ]
    console.print(f"then text recall@10 {was_found.mean():.3f}; {', '.join(parts)}")


def batches(num_clips: int) -> Iterator[int]:
    """Return the numbers of videos committed after each step, from 10,000 clips on."""
    clips = min(10_000, num_clips)
    while clips < num_clips:
        yield videos_for(clips)
        clips += _STEP_CLIPS if clips < _LARGE_FROM_CLIPS else _LARGE_STEP_CLIPS
    yield num_clips // CLIPS_PER_VIDEO


def _write(
    vectors: Path,
    clips_file: Path,
    shape: tuple[int, int],
    steps: Sequence[int],
    committed: "Synchronized[int]",
) -> None:
    clips = np.memmap(clips_file, np.float16, "r", shape=shape)
    for num_videos in steps[1:]:
        committed.value = num_videos  # the catalogue is written first
        publish_first(vectors, clips, num_videos)


def _read(
    vectors: Path,
    clips: NDArray[np.float16],
    texts: NDArray[np.float32],
    is_writing: Callable[[], bool],
    committed: "Synchronized[int]",
) -> Iterator[Watched]:
    """Ask until the writer has ended; return the figures of each doubling of the library."""
    library: LibraryIndex | None = None
    seen = (0, 0)
    now = Watched(2 * committed.value * CLIPS_PER_VIDEO)
    last = time.perf_counter()
    number = 0
    while is_writing():
        number += 1
        begin, cpu = time.perf_counter(), time.thread_time()
        present = (committed.value, newest_number(vectors))
        try:
            if library is None or present != seen:
                library, seen = open_first(vectors, clips, present[0], library), present
                now.opening_ms.append(1e3 * (time.perf_counter() - begin))
            _, ids = library.search(texts[number % len(texts)][None], 10)
            now.failures += int((ids < 0).any())
        except Exception as error:
            console.print(f"a query failed: {error!r}")
            now.failures += 1
        end = time.perf_counter()
        now.wall_ms.append(1e3 * (end - begin))
        now.cpu_ms.append(1e3 * (time.thread_time() - cpu))
        now.longest_gap_ms = max(now.longest_gap_ms, 1e3 * (end - last))
        last = end
        time.sleep(_PAUSE_SECONDS)
        if present[0] * CLIPS_PER_VIDEO > now.up_to_clips:
            yield now
            now = Watched(2 * now.up_to_clips)
    yield now


def growth_table(watched: Sequence[Watched]) -> Table:
    """Print one line for each doubling."""
    table = Table(title="a query while a writer publishes, with the opening of new files", box=None)
    columns = ("up to clips", "answers", "wall ms p50", "p99", "max", "CPU ms p50", "p99", "max")
    for column in (*columns, "opened again", "wall ms p50", "max", "longest gap ms"):
        table.add_column(column, justify="right")
    for each in watched:
        if not each.wall_ms:
            continue
        opening = each.opening_ms or [0.0]
        table.add_row(
            f"{each.up_to_clips:,}",
            f"{len(each.wall_ms):,}",
            *(f"{percentile(each.wall_ms, share):.1f}" for share in (50, 99, 100)),
            *(f"{percentile(each.cpu_ms, share):.1f}" for share in (50, 99, 100)),
            str(len(each.opening_ms)),
            f"{percentile(opening, 50):.0f}",
            f"{max(opening):.0f}",
            f"{each.longest_gap_ms:.0f}",
        )
    return table


# ------------------------------------------------ opening


def print_opening(libraries: Libraries, sizes: Sequence[int]) -> None:
    """Print the time of opening in a new process, with the files out of the system's cache and in it."""
    table = Table(title="opening in a new process, 50 queries", box=None)
    table.add_column("files")
    columns = ("clips", "open ms", "first answer ms", "own MB", "mapped MB", "process MB")
    for column in columns:
        table.add_column(column, justify="right")
    queries = libraries.folder / "opening.npy"
    slowest = 0.0
    for size in sizes:
        clips, folder = libraries.clips(size), libraries.published(size)
        np.save(queries, libraries.world.texts(len(clips) // CLIPS_PER_VIDEO, 50))
        for files in ("cold", "warm"):
            log = libraries.folder / "worker.log"
            with Remote(sys.executable, "benchmarks.vector_ours", "ours", log) as remote:
                if files == "cold":
                    drop_from_cache(folder)
                opened = remote.do(
                    "open",
                    clips=str(libraries.clips_file),
                    rows=len(clips),
                    dim=DIM,
                    folder=str(folder),
                    queries=str(queries),
                )
            table.add_row(
                files,
                f"{len(clips):,}",
                f"{opened['open_ms']:.0f}",
                f"{opened['first_ms']:.1f}",
                f"{opened['own_bytes'] / 1e6:.0f}",
                f"{opened['mapped_bytes'] / 1e6:.0f}",
                f"{opened['process_bytes'] / 1e6:.0f}",
            )
            slowest = max(slowest, opened["open_ms"] + opened["first_ms"])
    console.print(table)
    verdict = "met" if slowest < AIM_FIRST_ANSWER_MS else "missed"
    console.print(
        f"slowest first answer {slowest:.0f} ms after the start of opening; aim < {AIM_FIRST_ANSWER_MS}: {verdict}"
    )
