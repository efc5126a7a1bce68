"""Indexing speed on an NVIDIA GPU.

    python -m benchmarks.gpu

Needs no network: films and a checkpoint with random weights of the size of ViT-B/32 are made where missing. Without
a GPU it says so and measures nothing.
"""

import subprocess
import time
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.material import (
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
from indexer.settings import IndexerSettings
from models.encoder import ClipEncoder, load_encoder
from models.runtime import num_cores
from models.settings import ModelSettings

_BATCHES = (64, 256, 1024)
_FRAMES_EACH = 16_384


def describe_machine() -> str:
    """Processor, GPU, driver and torch."""
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{processor()}, {num_cores()} cores; {properties.name}, "
        f"{properties.total_memory / 1e9:.0f} GB, driver {driver_version()}; "
        f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    )


def driver_version() -> str:
    """As nvidia-smi tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines[0] if lines else "unknown"


def encode_rate(encoder: ClipEncoder, batch: int) -> float:
    """Frames a second from ordinary memory through the GPU and back, by `encode_frames`, which pins them."""
    frames = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    for _ in range(3):  # warm: kernels are chosen and memory is taken
        encoder.encode_frames(frames)
    rounds = max(4, _FRAMES_EACH // batch)
    begin = time.perf_counter()
    for _ in track(range(rounds), f"encoding, batch {batch}", console=console, transient=True):
        encoder.encode_frames(frames)  # gives numbers in memory, so the GPU is done
    return rounds * batch / (time.perf_counter() - begin)


def pipeline_rate(encoder: ClipEncoder, films: Sequence[Film], workers: int) -> float:
    """Seconds of video indexed a second."""
    seconds = sum(film.seconds for film in films)
    with Meter() as meter:
        run_index([films[0].path.parent], encoder, IndexerSettings(decode_workers=workers), seconds)
    return seconds / meter.wall_seconds


def main(
    films_per_core: Annotated[
        int, typer.Option(min=1, help="Films of about 4.5 minutes for each core.")
    ] = 2,
) -> None:
    """Print encoding and indexing speed on the first GPU."""
    if not torch.cuda.is_available():
        console.print("there is no NVIDIA GPU here that torch can use: nothing was measured")
        return
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
    # what the pipeline encodes, against what the GPU could at the pipeline's own batch
    busy = indexed * SAMPLE_FPS / rates[encoder.batch_frames]
    table.add_row("GPU busy in the pipeline, about", f"{busy:.0%}")
    table.add_row("peak GPU memory, MB", f"{torch.cuda.max_memory_allocated() / 1e6:.0f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
