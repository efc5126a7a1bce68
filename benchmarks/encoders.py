"""How fast frames become vectors: torch against OpenVINO, with the weights of a ViT-B/32.

    python -m benchmarks.encoders

All ways take turns in one run on the same batches; the table has the medians. A call of torch uses one thread (the
indexer makes one call per core at once), a call of OpenVINO spreads over all cores.
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
class Way:
    """One back end with one number format, and what it took."""

    label: str
    encoder: ClipEncoder
    load_seconds: float
    wall_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """A batch each."""

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One batch, timed."""
        wall, cpu = time.perf_counter(), time.process_time()
        features = self.encoder.encode_frames(frames)
        self.wall_seconds.append(time.perf_counter() - wall)
        self.cpu_seconds.append(time.process_time() - cpu)
        return features


def ways() -> Iterator[Way]:
    """All that are compared; fp32 in torch comes first, as what the others are held against."""
    backends: tuple[Literal["torch", "openvino"], ...] = ("torch", "openvino")
    dtypes: tuple[DtypeName, ...] = ("float32", "auto")
    for backend, dtype in product(backends, dtypes):
        settings = ModelSettings(device="cpu", dtype=dtype, backend=backend)
        gc.collect()
        begin = time.perf_counter()
        encoder = load_encoder(str(vit_b_32()), settings, towers="vision")
        yield Way(f"{backend}, {dtype}", encoder, time.perf_counter() - begin)


def results_table(measured: list[Way], features: list[NDArray[np.float32]]) -> Table:
    """Frames a second, and how near the vectors are to those of fp32."""
    table = Table(title=f"ViT-B/32, batches of {_BATCH}, preprocessing included", box=None)
    table.add_column("back end, dtype")
    for column in ("frames/s", "frames/CPU s", "cosine to fp32", "load s"):
        table.add_column(column, justify="right")
    expected = unit(features[0])
    for way, given in zip(measured, features, strict=True):
        table.add_row(
            way.label,
            f"{_BATCH / median(way.wall_seconds[_WARM:]):.1f}",
            f"{_BATCH / median(way.cpu_seconds[_WARM:]):.1f}",
            f"{(unit(given) * expected).sum(axis=1).min():.6f}",
            f"{way.load_seconds:.1f}",
        )
    return table


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Batches that count, of each way.")] = 8,
) -> None:
    """Print frames a second by back end and number format."""
    BENCH.mkdir(exist_ok=True)
    load_encoder(str(vit_b_32()), towers="vision")  # imports and the page cache are not to count
    console.print(f"{processor()}, {num_cores()} cores")
    frames = np.random.default_rng(0).integers(0, 256, (_BATCH, 224, 224, 3), np.uint8)
    with console.status("loading"):
        measured = list(ways())
    with console.status("encoding"):
        for _ in range(_WARM + rounds):
            features = [way.encode(frames) for way in measured]
    console.print(results_table(measured, features))


if __name__ == "__main__":
    typer.run(main)
