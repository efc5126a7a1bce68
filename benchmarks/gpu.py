"""Indexing speed and the vector index on an NVIDIA GPU.

    python -m benchmarks.gpu                       a vector index of a million clips
    python -m benchmarks.gpu --clips 10000000      needs 10 GB of disk and 25 GB of memory

It needs no network: missing films, a checkpoint with random weights of the size of ViT-B/32 and embeddings
(`benchmarks.embeddings`) are generated. Encoding and indexing need torch with CUDA, the vector index needs FAISS for
GPUs (the extra `gpu`). Without them, the report says what was not measured.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from benchmarks.embeddings import World, matrix_of, videos_for
from benchmarks.material import (
    BENCH,
    SAMPLE_FPS,
    Film,
    Meter,
    console,
    many_films,
    processor,
    run_index,
    speed_films,
    vit_b_32,
)
from benchmarks.vector_ours import rows_of_matrix
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.runtime import num_cores
from scanonce.models.settings import ModelSettings
from scanonce.storage.settings import GpuUse, StorageSettings
from scanonce.storage.vectors.codes import (
    default_nprobe,
    extend_codes,
    factory,
    training_rows,
    untrained_codes,
)
from scanonce.storage.vectors.flat import search_exactly
from scanonce.storage.vectors.gpu import load_on_gpu, num_gpus, train_on_gpu
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.rows import ClipRows, Ids

_BATCHES = (64, 256, 1024)
_FRAMES_EACH = 16_384
_BATCH_QUERIES = 4_096
_TRUTH_QUERIES = 200


def describe_machine() -> str:
    """Describe processor, GPU, driver and torch."""
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{processor()}, {num_cores()} cores; {properties.name}, "
        f"{properties.total_memory / 1e9:.0f} GB, driver {driver_version()}; "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def driver_version() -> str:
    """Version of the NVIDIA driver, as nvidia-smi reports it."""
    return _first_line("driver_version")


def gpu_names() -> str:
    """Name, memory and driver of the first GPU, from nvidia-smi."""
    return _first_line("name,memory.total,driver_version")


def _first_line(fields: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return next(iter(done.stdout.splitlines()), "unknown")


def encode_rate(encoder: ClipEncoder, batch: int) -> float:
    """Frames per second of `encode_frames`, from ordinary memory through the GPU and back."""
    frames = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    for _ in range(3):  # warm-up: kernels are chosen and memory is allocated
        encoder.encode_frames(frames)
    rounds = max(4, _FRAMES_EACH // batch)
    begin = time.perf_counter()
    for _ in track(range(rounds), f"encoding, batch {batch}", console=console, transient=True):
        encoder.encode_frames(frames)  # returns an array in memory, so the GPU is done
    return rounds * batch / (time.perf_counter() - begin)


def pipeline_rate(encoder: ClipEncoder, films: Sequence[Film], workers: int) -> float:
    """Seconds of video indexed per second."""
    seconds = sum(film.seconds for film in films)
    with Meter() as meter:
        run_index([films[0].path.parent], encoder, IndexerSettings(decode_workers=workers), seconds)
    return seconds / meter.wall_seconds


# ------------------------------------------------ the vector index


@dataclass(frozen=True, slots=True)
class IndexFigures:
    """Costs of the vector index on one device."""

    device: str
    train_seconds: float
    build_seconds: float
    """Time of training again and adding all clips."""
    queries_per_second: float
    """Rate of `IvfPqIndex.search` in batches of `_BATCH_QUERIES`."""
    recall: float
    """Recall of the ten best clips of a text."""


def measure_index(num_clips: int) -> list[IndexFigures]:
    """Train, fill and search 8-bit codes on all cores, then on the first GPU."""
    world = World()
    num_videos = videos_for(num_clips)
    clips = matrix_of(BENCH / "vectors" / f"clips-{num_clips}.f16", world, num_videos)
    rows, texts = rows_of_matrix(clips), world.texts(num_videos, _BATCH_QUERIES)
    _, truth = search_exactly(rows, texts[:_TRUTH_QUERIES], 10)
    console.print(f"{len(rows):,} clips, {factory(rows, 'ivfpq')}, {len(texts):,} queries a batch")
    figures = []
    for device in ("CPU", "GPU"):
        with console.status(f"the vector index on the {device}"):
            figures.append(_on_device(device, rows, texts, truth))
    return figures


def _on_device(device: str, rows: ClipRows, texts: NDArray[np.float32], truth: Ids) -> IndexFigures:
    build: Callable[[ClipRows], Any] = partial(_built, rows, on_gpu=device == "GPU")
    begin = time.perf_counter()
    build(ClipRows.none(rows.dim))
    trained = time.perf_counter()
    codes = build(rows)
    built = time.perf_counter()
    use = GpuUse(enabled=device == "GPU")
    index = IvfPqIndex(
        rows,
        codes,
        nprobe=default_nprobe(codes.nlist),
        rescore_depth=StorageSettings().rescore_depth,
        gpu=load_on_gpu(codes, use),
    )
    _, found = index.search(texts, 10)
    seconds = []
    for _ in range(3):
        asked = time.perf_counter()
        index.search(texts, 10)
        seconds.append(time.perf_counter() - asked)
    recall = np.mean([np.isin(best, mine).mean() for best, mine in zip(truth, found, strict=False)])
    return IndexFigures(
        device, trained - begin, built - trained, len(texts) / median(seconds), float(recall)
    )


def _built(trained_on: ClipRows, held: ClipRows, *, on_gpu: bool) -> Any:
    """Train codes for some rows and add others."""
    codes = untrained_codes(trained_on, "ivfpq")
    sample = trained_on.gather(training_rows(trained_on, codes.nlist))
    if on_gpu:
        return train_on_gpu(codes, sample, held)
    codes.train(sample)
    extend_codes(codes, held)
    return codes


def index_table(figures: Sequence[IndexFigures]) -> Table:
    """One row per device, and the speed-up of the GPU."""
    table = Table(title="the vector index, 8-bit codes, wall time", box=None)
    table.add_column("device")
    for column in ("train s", "train and add s", "queries/s in batch", "text recall@10"):
        table.add_column(column, justify="right")
    for each in figures:
        table.add_row(
            each.device,
            f"{each.train_seconds:.2f}",
            f"{each.build_seconds:.2f}",
            f"{each.queries_per_second:.0f}",
            f"{each.recall:.3f}",
        )
    cpu, gpu = figures
    table.add_row(
        "times",
        f"{cpu.train_seconds / gpu.train_seconds:.1f}",
        f"{cpu.build_seconds / gpu.build_seconds:.1f}",
        f"{gpu.queries_per_second / cpu.queries_per_second:.1f}",
    )
    return table


# ------------------------------------------------ the command


def main(
    films_per_core: Annotated[
        int, typer.Option(min=1, help="Films of about 4.5 minutes per core.")
    ] = 2,
    clips: Annotated[int, typer.Option(min=100_000, help="Clips in the vector index.")] = 1_000_000,
) -> None:
    """Print encoding, indexing and vector search on the first GPU."""
    if torch.cuda.is_available():
        print_encoding(films_per_core)
    else:
        console.print(
            "torch finds no NVIDIA GPU on this machine: encoding and indexing were not measured"
        )
    if num_gpus():
        console.print(f"{processor()}, {num_cores()} cores; {gpu_names()}")
        console.print(index_table(measure_index(clips)))
    else:
        console.print(
            "FAISS finds no NVIDIA GPU on this machine: the vector index was not measured"
        )


def print_encoding(films_per_core: int) -> None:
    """Print frames encoded and videos indexed per second."""
    console.print(describe_machine())
    settings = ModelSettings(device="cuda", dtype="bfloat16")
    encoder = load_encoder(str(vit_b_32()), settings, towers="vision")
    base = speed_films()["720p"]
    run_index([base[0].path.parent], encoder, IndexerSettings(), sum(f.seconds for f in base))
    films = many_films(base, films_per_core * num_cores())
    torch.cuda.reset_peak_memory_stats()
    rates = {batch: encode_rate(encoder, batch) for batch in _BATCHES}
    indexed = pipeline_rate(encoder, films, num_cores())
    table = Table(title="ViT-B/32, bfloat16, random weights", box=None)
    table.add_column("figure")
    table.add_column("measured", justify="right")
    for batch, rate in rates.items():
        table.add_row(f"encoding alone, batch {batch}, frames/s", f"{rate:.0f}")
    table.add_row(f"pipeline, {num_cores()} decode workers, video s / s", f"{indexed:.1f}")
    table.add_row("pipeline, files to index, frames/s", f"{indexed * SAMPLE_FPS:.0f}")
    # rate of the pipeline relative to that of the GPU at the same batch size
    busy = indexed * SAMPLE_FPS / rates[encoder.batch_frames]
    table.add_row("GPU busy in the pipeline, about", f"{busy:.0%}")
    table.add_row("peak GPU memory, MB", f"{torch.cuda.max_memory_allocated() / 1e6:.0f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
