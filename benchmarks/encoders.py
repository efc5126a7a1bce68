"""Encoding speed of torch and OpenVINO with the weights of a ViT-B/32.

    python -m benchmarks.encoders

All variants take turns in one run on the same batches; the table has the medians. A call of torch uses one thread (the
indexer makes one call per core at the same time), a call of OpenVINO uses all cores.
"""

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.material import BENCH, console, median, processor, vit_b_32
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.runtime import DtypeName, num_cores
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit

_BATCH, _WARM = 32, 3


@dataclass(slots=True)
class Variant:
    """A back end with a number format, and its times."""

    label: str
    encoder: ClipEncoder
    load_seconds: float
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """One time per batch."""

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode a batch and record its times."""
        wall, cpu = time.perf_counter(), time.process_time()
        features = self.encoder.encode_frames(frames)
        self.wall_seconds.append(time.perf_counter() - wall)
        self.cpu_seconds.append(time.process_time() - cpu)
        return features


def variants() -> Iterator[Variant]:
    """Load the variants; fp32 in torch, with which the others are compared, comes first."""
    backends: tuple[Literal["torch", "openvino"], ...] = ("torch", "openvino")
    dtypes: tuple[DtypeName, ...] = ("float32", "auto")
    for backend, dtype in product(backends, dtypes):
        settings = ModelSettings(device="cpu", dtype=dtype, backend=backend)
        gc.collect()
        begin = time.perf_counter()
        encoder = load_encoder(str(vit_b_32()), settings, towers="vision")
        yield Variant(f"{backend}, {dtype}", encoder, time.perf_counter() - begin)


def results_table(measured: list[Variant], features: list[NDArray[np.float32]]) -> Table:
    """Frames per second, and cosines with the vectors of fp32."""
    table = Table(title=f"ViT-B/32, batches of {_BATCH}, preprocessing included", box=None)
    table.add_column("back end, dtype")
    for column in ("frames/s", "frames/CPU s", "cosine to fp32", "load s"):
        table.add_column(column, justify="right")
    expected = unit(features[0])
    for variant, given in zip(measured, features, strict=True):
        table.add_row(
            variant.label,
            f"{_BATCH / median(variant.wall_seconds[_WARM:]):.1f}",
            f"{_BATCH / median(variant.cpu_seconds[_WARM:]):.1f}",
            f"{(unit(given) * expected).sum(axis=1).min():.6f}",
            f"{variant.load_seconds:.1f}",
        )
    return table


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Measured batches of each variant.")] = 8,
) -> None:
    """Print frames per second by back end and number format."""
    BENCH.mkdir(exist_ok=True)
    load_encoder(str(vit_b_32()), towers="vision")  # imports and reading the file are not measured
    console.print(f"{processor()}, {num_cores()} cores")
    frames = np.random.default_rng(0).integers(0, 256, (_BATCH, 224, 224, 3), np.uint8)
    with console.status("loading"):
        measured = list(variants())
    with console.status("encoding"):
        for _ in range(_WARM + rounds):
            features = [variant.encode(frames) for variant in measured]
    console.print(results_table(measured, features))


if __name__ == "__main__":
    typer.run(main)
