"""Sixteen clips of coloured blocks with captions, and runs of a tiny encoder on them.

In a module of their own, so that processes started by tests import little.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.training.clip.batches import ClipSet
from scanonce.training.clip.finetune import FinetuneCallbacks
from scanonce.training.clip.model import TrainedClip, open_encoder
from scanonce.training.clip.recipe import HeadName, Recipe
from scanonce.training.clip.run import ClipRun
from scanonce.training.loop import train
from scanonce.training.processes import OneProcess, meet_processes

CPU = torch.device("cpu")
SIDE = 64
FILMS = [
    (colour, thing, night, moves)
    for colour, thing, night, moves in product(("red", "blue"), ("car", "house"), (0, 1), (0, 1))
]
RECIPE = Recipe(
    batch=8,
    epochs=6,
    max_frames=3,
    encoder_lr=3e-3,
    lr=3e-3,
    weight_decay=0.05,
    precision="float32",
    save_every=3,
    augment=False,
)


def caption(film: tuple[str, str, int, int]) -> str:
    """The first caption of a clip; its second caption begins with "the" instead of "a"."""
    colour, thing, night, moves = film
    return f"a {colour} {thing}{' drives past' if moves else ''}{' at night' if night else ''}"


def draw(film: tuple[str, str, int, int]) -> NDArray[np.uint8]:
    """[3, SIDE, SIDE, 3]: a low or a high block of a colour, moving or not, on a light or a dark ground."""
    colour, thing, night, moves = film
    frames = np.full((3, SIDE, SIDE, 3), 30 if night else 200, np.uint8)
    for number, frame in enumerate(frames):
        left = 12 * number * moves
        rows = slice(40, 60) if thing == "car" else slice(4, 40)
        frame[rows, left : left + 24] = (220, 20, 20) if colour == "red" else (20, 20, 220)
    return frames


def toy_clips() -> ClipSet:
    """16 clips with two captions each, of 2 or 3 frames."""
    captions = [(caption(film), f"the {caption(film)[2:]}") for film in FILMS]
    return ClipSet(captions, lambda number: draw(FILMS[number])[: 2 + number % 2])


def new_run(tiny: Path, recipe: Recipe = RECIPE, validation: ClipSet | None = None) -> ClipRun:
    """A run on the toy clips, in one process on the CPU."""
    model = TrainedClip(open_encoder(str(tiny), CPU), recipe)
    return ClipRun(model, recipe, toy_clips(), validation, OneProcess(CPU))


def first_gradients(run: ClipRun) -> dict[str, torch.Tensor]:
    """Gradients of all trained parameters at the first batch, before clipping."""
    run.model.train()
    run._add_gradients(run._take(0))
    named = run.model.named_parameters()
    return {name: each.grad for name, each in named if each.grad is not None}


RESUMED = replace(RECIPE, head="lstm", augment=True, validate_every=4)


class Killer(FinetuneCallbacks):
    """Ends the process after step 8, before a validation; the last state is that of step 6."""

    def stepped(self, run: ClipRun) -> None:
        if run.at.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)


def train_and_die(tiny: Path, state: Path) -> None:
    """Train in a process that kills itself."""
    torch.set_num_threads(1)
    train(new_run(tiny, RESUMED, toy_clips()), state, None, Killer())


def train_among_several(*given: str) -> None:
    """Compute gradients of one step with two heads, then run the command; called by torchrun in each process."""
    from scanonce.ui.cli import app

    torch.set_num_threads(1)
    gradients, tiny, *rest = given
    processes = meet_processes("cpu")
    assert processes.count == 2
    found = {}
    for head in SHARED_HEADS:
        recipe = replace(RECIPE, head=head, batch=4, accumulate=2)
        model = without_dropout(TrainedClip(open_encoder(tiny, CPU), recipe))
        found[head] = first_gradients(ClipRun(model, recipe, toy_clips(), None, processes))
        processes.add_up(list(found[head].values()))
    if processes.index == 0:
        torch.save(found, gradients)
    app(rest, standalone_mode=False)


SHARED_HEADS: tuple[HeadName, ...] = ("lstm", "tight")


def without_dropout(model: TrainedClip) -> TrainedClip:
    """Switch dropout off: its random numbers may differ between a batch and its parts."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
