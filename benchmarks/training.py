"""What a step of `scanonce train clip` costs: clips a second and peak memory, by precision, checkpointing and parts.

    python -m benchmarks.training
    python -m benchmarks.training --batch 128 --steps 10    # on a GPU: the device is found by itself

Each way runs in a process of its own, since a process does not give its peak back; their order is repeated, and the
table has each one's best round, by which ways compare even on a busy machine. Pictures and weights are random: speed
does not depend on them. Decoding is not in it: after the first epoch there is none.
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
class Way:
    """How a step is done."""

    encoder: str
    """Of `_ENCODERS`; the weights of ViT-B/32 are random."""
    precision: Precision
    checkpointing: bool
    parts: int
    """That a batch is embedded in, one after another."""

    @property
    def label(self) -> str:
        """For the table."""
        words: list[str] = [self.precision]
        words += ["checkpointing"] if self.checkpointing else []
        words += [f"in {self.parts} parts"] if self.parts > 1 else []
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a way took."""

    wall_seconds: float
    cpu_seconds: float
    """Of a step, the quickest."""
    loaded_bytes: int
    peak_bytes: int
    """Before the first step and at most: of the process, or on a GPU of what torch has allocated there."""


def ways(device: torch.device, encoders: Sequence[str]) -> list[Way]:
    """All that are compared of these encoders; of each, float32 as it is comes first."""
    precisions: list[Precision] = ["float32"]
    if pick_dtype(device, "auto") == torch.bfloat16:
        precisions.append("bfloat16")
    rows: list[Way] = []
    for encoder in encoders:
        for precision in precisions:
            rows += [Way(encoder, precision, False, 1), Way(encoder, precision, True, 1)]
        rows.append(Way(encoder, precisions[-1], False, 4))
    return rows


def measure(way: Way, *, batch: int, frames: int, steps: int) -> Cost:
    """Steps of a new run, after one that is not counted unless it is a long one. For a process of its own."""
    device = pick_device()
    recipe = Recipe(
        batch=batch // way.parts,
        accumulate=way.parts,
        max_frames=frames,
        precision=way.precision,
        checkpointing=way.checkpointing,
        augment=False,
        epochs=steps + 1,
    )
    encoder = open_encoder(str(_ENCODERS[way.encoder] or vit_b_32()), device)
    height, width = encoder.preprocessing.output_size
    pictures = np.random.default_rng(0).integers(
        0, 256, (batch, frames, height, width, 3), np.uint8
    )
    clips = ClipSet([(f"caption {number}",) for number in range(batch)], lambda n: pictures[n])
    run = ClipRun(TrainedClip(encoder, recipe), recipe, clips, None, OneProcess(device))
    loaded = _peak_bytes(device)
    taken = [_timed(run)]
    if taken[0][0] < _LONG_SECONDS:  # of a long step, what is done only once is a small part
        taken = [_timed(run) for _ in range(steps)]
    walls, cpus = zip(*taken, strict=True)
    return Cost(min(walls), min(cpus), loaded, _peak_bytes(device))


def _timed(run: ClipRun) -> tuple[float, float]:
    """Wall and CPU seconds of a step."""
    wall, cpu = time.perf_counter(), time.process_time()
    run.step()  # reads the loss, and so waits for a GPU
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _measured_apart(way: Way, **sizes: int) -> Cost:
    command = [sys.executable, "-m", "benchmarks.training", "--way", json.dumps(asdict(way))]
    command += [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way.label} failed:\n{done.stderr[-2000:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def results_table(
    measured: dict[Way, Cost], batch: int, frames: int, device: torch.device
) -> Table:
    """Clips a second and memory, and both beside the first way of the same encoder."""

    def taken(cost: Cost) -> float:
        # the wall of a busy machine says little
        return cost.cpu_seconds if device.type == "cpu" else cost.wall_seconds

    table = Table(title=f"steps of {batch} clips of {frames} frames", box=None)
    for column in ("encoder", "way"):
        table.add_column(column)
    for column in ("clips/s", "clips/CPU s", "speed", "peak GB", "above the start", "memory"):
        table.add_column(column, justify="right")
    for way, cost in measured.items():
        first = next(other for each, other in measured.items() if each.encoder == way.encoder)
        grown, first_grown = (each.peak_bytes - each.loaded_bytes for each in (cost, first))
        table.add_row(
            way.encoder,
            way.label,
            f"{batch / cost.wall_seconds:.2f}",
            f"{batch / cost.cpu_seconds:.2f}",
            f"{taken(first) / taken(cost):.2f}",
            f"{cost.peak_bytes / 1e9:.2f}",
            f"{grown / 1e9:.2f}",
            f"{grown / first_grown:.2f}",
        )
    return table


def main(
    batch: Annotated[int, typer.Option(min=4, help="Clips in a step, a multiple of 4.")] = 16,
    frames: Annotated[int, typer.Option(min=1, help="Of a clip.")] = 12,
    steps: Annotated[int, typer.Option(min=1, help="Counted in a round.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each way has its turn.")] = 1,
    encoder: Annotated[
        str, typer.Option(help='"bundled", "ViT-B/32" or "all"; the second takes minutes on a CPU.')
    ] = "all",
    way: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print what a step costs."""
    sizes = {"batch": batch, "frames": frames, "steps": steps}
    if way:
        print(json.dumps(asdict(measure(Way(**json.loads(way)), **sizes))))
        return
    encoders = list(_ENCODERS) if encoder == "all" else [encoder]
    if "ViT-B/32" in encoders:
        vit_b_32()  # made before anything is measured
    device = pick_device()
    best: dict[Way, Cost] = {}
    for number in range(rounds):
        for each in ways(device, encoders):
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
