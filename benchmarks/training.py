"""Cost of a step of `scanonce train clip`: clips per second and peak memory, by precision, checkpointing and parts.

    python -m benchmarks.training
    python -m benchmarks.training --batch 128 --steps 10    # on a GPU: the device is detected

Each variant runs in a process of its own, since the peak memory of a process never falls. Rounds repeat the variants in
order, and the table has the best round of each, which is comparable even on a busy machine. Frames and weights are
random: speed does not depend on them. Decoding is not measured: after the first epoch there is none.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

from benchmarks.material import console, vit_b_32
from scanonce.models.encoders.hub import BUNDLED_FOLDER
from scanonce.models.runtime import pick_device, pick_dtype
from scanonce.training.clip.batches import ClipSet
from scanonce.training.clip.model import TrainedClip, open_encoder
from scanonce.training.clip.recipe import Precision, Recipe
from scanonce.training.clip.run import ClipRun
from scanonce.training.processes import OneProcess

_LONG_SECONDS = 30.0
_ENCODERS = {"bundled": BUNDLED_FOLDER, "ViT-B/32": None}


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings of a training step."""

    encoder: str
    """A key of `_ENCODERS`; the weights of ViT-B/32 are random."""
    precision: Precision
    checkpointing: bool
    parts: int
    """Number of parts of a batch, embedded one after another."""

    @property
    def label(self) -> str:
        """Description in the table."""
        words: list[str] = [self.precision]
        words += ["checkpointing"] if self.checkpointing else []
        words += [f"in {self.parts} parts"] if self.parts > 1 else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a step."""

    wall_seconds: float
    cpu_seconds: float
    """Wall and CPU time are those of the fastest step."""
    loaded_bytes: int
    peak_bytes: int
    """Memory before the first step and its peak: of the process, or on a GPU the memory that torch has allocated."""


def variants(device: torch.device, encoders: Sequence[str]) -> list[Variant]:
    """Variants of these encoders; for each, plain float32 comes first."""
    precisions: list[Precision] = ["float32"]
    if pick_dtype(device, "auto") == torch.bfloat16:
        precisions.append("bfloat16")
    rows: list[Variant] = []
    for encoder in encoders:
        for precision in precisions:
            rows += [Variant(encoder, precision, False, 1), Variant(encoder, precision, True, 1)]
        rows.append(Variant(encoder, precisions[-1], False, 4))
    return rows


def measure(variant: Variant, *, batch: int, frames: int, steps: int) -> Cost:
    """Measure steps of a new run, without the first unless it is long; to be called in a process of its own."""
    device = pick_device()
    recipe = Recipe(
        batch=batch // variant.parts,
        accumulate=variant.parts,
        max_frames=frames,
        precision=variant.precision,
        checkpointing=variant.checkpointing,
        augment=False,
        epochs=steps + 1,
    )
    encoder = open_encoder(str(_ENCODERS[variant.encoder] or vit_b_32()), device)
    height, width = encoder.preprocessing.output_size
    images = np.random.default_rng(0).integers(0, 256, (batch, frames, height, width, 3), np.uint8)
    clips = ClipSet([(f"caption {number}",) for number in range(batch)], lambda n: images[n])
    run = ClipRun(TrainedClip(encoder, recipe), recipe, clips, None, OneProcess(device))
    loaded = _peak_bytes(device)
    taken = [_timed(run)]
    if taken[0][0] < _LONG_SECONDS:  # in a long step, work done only once is a small part
        taken = [_timed(run) for _ in range(steps)]
    walls, cpus = zip(*taken, strict=True)
    return Cost(min(walls), min(cpus), loaded, _peak_bytes(device))


def _timed(run: ClipRun) -> tuple[float, float]:
    """Return wall and CPU seconds of a step."""
    wall, cpu = time.perf_counter(), time.process_time()
    run.step()  # it reads the loss and so waits for a GPU
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _measured_apart(variant: Variant, **sizes: int) -> Cost:
    command = [
        sys.executable,
        "-m",
        "benchmarks.training",
        "--variant",
        json.dumps(asdict(variant)),
    ]
    command += [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant.label} failed:\n{done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def results_table(
    measured: dict[Variant, Cost], batch: int, frames: int, device: torch.device
) -> Table:
    """Clips per second and memory, and both relative to the first variant of the same encoder."""

    def taken(cost: Cost) -> float:
        # wall time on a busy CPU is not comparable
        return cost.cpu_seconds if device.type == "cpu" else cost.wall_seconds

    table = Table(title=f"steps of {batch} clips of {frames} frames", box=None)
    for column in ("encoder", "variant"):
        table.add_column(column)
    for column in ("clips/s", "clips/CPU s", "speed", "peak GB", "above the start", "memory"):
        table.add_column(column, justify="right")
    for variant, cost in measured.items():
        first = next(other for each, other in measured.items() if each.encoder == variant.encoder)
        grown, first_grown = (each.peak_bytes - each.loaded_bytes for each in (cost, first))
        table.add_row(
            variant.encoder,
            variant.label,
            f"{batch / cost.wall_seconds:.2f}",
            f"{batch / cost.cpu_seconds:.2f}",
            f"{taken(first) / taken(cost):.2f}",
            f"{cost.peak_bytes / 1e9:.2f}",
            f"{grown / 1e9:.2f}",
            f"{grown / first_grown:.2f}",
        )
    return table


def main(
    batch: Annotated[int, typer.Option(min=4, help="Clips per step, a multiple of 4.")] = 16,
    frames: Annotated[int, typer.Option(min=1, help="Frames per clip.")] = 12,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps per round.")] = 1,
    rounds: Annotated[
        int, typer.Option(min=1, help="Measurements of each variant, of which the best counts.")
    ] = 1,
    encoder: Annotated[
        str, typer.Option(help='"bundled", "ViT-B/32" or "all"; the second takes minutes on a CPU.')
    ] = "all",
    variant: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the cost of a training step."""
    sizes = {"batch": batch, "frames": frames, "steps": steps}
    if variant:
        print(json.dumps(asdict(measure(Variant(**json.loads(variant)), **sizes))))
        return
    encoders = list(_ENCODERS) if encoder == "all" else [encoder]
    if "ViT-B/32" in encoders:
        vit_b_32()  # written before the measurements
    device = pick_device()
    best: dict[Variant, Cost] = {}
    for number in range(rounds):
        for each in variants(device, encoders):
            with console.status(f"round {number + 1}: {each.encoder}, {each.label}"):
                cost = _measured_apart(each, **sizes)
            if each not in best or cost.wall_seconds < best[each].wall_seconds:
                best[each] = cost
    console.print(results_table(best, batch, frames, device))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(
        f"{where}, {torch.get_num_threads()} threads. Speed is by {'CPU' if device.type == 'cpu' else 'wall'} time."
    )


if __name__ == "__main__":
    typer.run(main)
