"""The run of a localiser's training: steps over small libraries, and validation on others.

run = LocaliserRun(LocaliserRecipe(steps=1000), config, Rotation(libraries, seed=0), validation)
train_localiser(run, Path("run/state.pt"), Console())
save_checkpoint(run, Path("localiser"), curve_tiou=0.0)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console

from scanonce.models.soonet.checkpoint import read_soonet, write_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.storage.errors import ConfigError
from scanonce.training.bars import progress_bar
from scanonce.training.curves import Curves
from scanonce.training.localiser.answers import CLIP_WEIGHTS, answer
from scanonce.training.localiser.batches import FilmBatch, MomentLibrary
from scanonce.training.localiser.loss import TERMS, library_loss
from scanonce.training.localiser.recipe import LocaliserRecipe
from scanonce.training.loop import ConsoleCallbacks, Run, Schedule, Validation, adamw, train
from scanonce.training.processes import OneProcess, Processes

_SECONDS_BETWEEN_SAVES = 120.0


class Examples(Protocol):
    """Libraries to train on."""

    def library(self, number: int) -> MomentLibrary:
        """Return a library by its number, from 0 on in the order of training; the same for the same number."""


class Rotation:
    """A fixed number of libraries: each one once, in random order, before any is repeated."""

    def __init__(self, libraries: Sequence[MomentLibrary], *, seed: int) -> None:
        """Rotate through libraries in orders that depend on ``seed``."""
        self._libraries, self._seed = libraries, seed

    def library(self, number: int) -> MomentLibrary:
        """See `Examples`."""
        epoch, position = divmod(number, len(self._libraries))
        order = np.random.default_rng((self._seed, 59, epoch)).permutation(len(self._libraries))
        return self._libraries[int(order[position])]


@dataclass(frozen=True, slots=True)
class Validated(Validation):
    """Figures of the answers with their best `clip_weight`, by kind of query."""

    clip_weight: float
    """Weight of the frames' own similarity that answers best."""


class LocaliserRun(Run[Validated]):
    """The training of a localiser."""

    model: Soonet

    def __init__(
        self,
        recipe: LocaliserRecipe,
        config: SoonetConfig,
        examples: Examples,
        validation: Sequence[MomentLibrary],
        *,
        cap_seconds: float = math.inf,
        processes: Processes | None = None,
        weights: dict[str, torch.Tensor] | None = None,
        data: str = "",
    ) -> None:
        """Start a new run.

        Args:
            recipe: steps, rates and weights of the loss.
            config: configuration of the network.
            examples: libraries to train on.
            validation: libraries that decide which weights are kept; if there are none, the last weights are.
            cap_seconds: end the run earlier, see `training.loop.Schedule`.
            processes: processes that share the libraries of each step; None: this one alone, on the CPU.
            weights: initial weights, float32; None: random ones.
            data: digest of the data; states of other data are refused.

        Raises:
            ConfigError: the libraries of a step cannot be shared evenly.
        """
        processes = processes or OneProcess(torch.device("cpu"))
        self.recipe, self.config = recipe, config
        self._examples, self._validation, self._data = examples, validation, data
        if recipe.libraries_per_step % processes.count:
            raise ConfigError(
                f"{processes.count} processes cannot share {recipe.libraries_per_step} libraries per step: "
                "give a multiple of their number"
            )
        torch.manual_seed(recipe.seed)
        model = Soonet(config)
        if weights is not None:
            model.load_state_dict(weights)
        model.to(processes.device)
        super().__init__(
            model,
            adamw(
                [("", model.parameters(), recipe.learning_rate)], weight_decay=recipe.weight_decay
            ),
            # unlike in the paper, which has a constant rate and then tenths of it
            Schedule(
                num_steps=recipe.steps,
                cap_seconds=cap_seconds,
                warm_up_steps=recipe.warm_up_steps,
                lowest_rate=0.01,
                max_norm=5.0,
                validate_every=recipe.evaluate_every,
                save_every=recipe.save_every,
                save_seconds=_SECONDS_BETWEEN_SAVES,
                save_validated=True,
                log_every=10,
            ),
            processes,
            validation_type=Validated,
            keep_initial=True,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Recipe, network and data."""
        return asdict(self.recipe) | asdict(self.config) | {"data": self._data}

    @property
    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """All parameters in the order of the network: the norm of the gradient depends on it in its last bits."""
        return list(self.model.parameters())

    @property
    def validation(self) -> Iterator[FilmBatch]:
        """The libraries of validation as tensors, made one after the other."""
        device = self.processes.device
        return (FilmBatch(each, self.config.grid, device) for each in self._validation)

    @property
    def has_validation(self) -> bool:
        """Whether there are libraries of validation."""
        return len(self._validation) > 0

    @property
    def clip_weight(self) -> float:
        """Best `SoonetConfig.clip_weight` of the weights that are kept."""
        return self.best.clip_weight if self.best else self.config.clip_weight

    def _compute_step(self) -> dict[str, float]:
        count, first = self.recipe.libraries_per_step, self.processes.index
        numbers = range(first, count, self.processes.count)
        terms = [self._add_gradients(self.at.step * count + number) for number in numbers]
        mean = torch.stack(terms).sum(dim=0) / count
        self._update_weights(mean)
        losses = dict(zip(TERMS, mean.tolist(), strict=True))
        before = self.at.losses or losses  # running means
        return {name: 0.98 * before[name] + 0.02 * loss for name, loss in losses.items()}

    def _add_gradients(self, number: int) -> torch.Tensor:
        """Add the gradients of one library; returns the terms of its loss, in the order of `TERMS`."""
        # random numbers depend on the seed and the library alone: states need no generators
        rng = np.random.default_rng((self.recipe.seed, 53, number))
        torch.manual_seed(int(rng.integers(2**62)))
        library = self._examples.library(number)
        batch = FilmBatch(library, self.config.grid, self.processes.device)
        terms = library_loss(self.model, batch, self.recipe, rng)
        stacked = torch.stack([terms[name] for name in TERMS])
        torch.autograd.backward(stacked.sum() / self.recipe.libraries_per_step)
        return stacked.detach()

    def _compute_validation(self) -> Validated | None:
        by_weight = answer(self.model, self.validation, clip_weights=CLIP_WEIGHTS)
        weight = max(by_weight, key=lambda weight: by_weight[weight].selection_metric)
        answers = by_weight[weight]
        every = answers.figures(np.ones(len(answers.tiou), bool))
        shares = {"film R@1": every.film_r1, "R@1 .5": every.r1_half, "R@1 .7": every.r1_most}
        curves = {f"validation/{name}": share for name, share in shares.items()}
        step, metric = self.at.step, answers.selection_metric
        return Validated(step, metric, curves, answers.summary(), weight)


def train_localiser(
    run: LocaliserRun, state: Path, console: Console | None = None, curves: Curves | None = None
) -> None:
    """Do all steps that are left, see `training.loop.train`; without a console nothing is shown."""
    if console is None:
        train(run, state, curves)
        return
    with progress_bar("training", console=console) as report:
        train(run, state, curves, ConsoleCallbacks(console, report))


def save_checkpoint(run: LocaliserRun, folder: Path, *, curve_tiou: float) -> Soonet:
    """Write the weights that validation chose, float16, with the `clip_weight` it chose.

    Args:
        run: run at its end.
        folder: folder for `models.soonet.trained.load_localiser`.
        curve_tiou: see `SoonetConfig`.

    Returns:
        The localiser, read from the folder.
    """
    config = replace(run.config, clip_weight=run.clip_weight, curve_tiou=curve_tiou)
    model = Soonet(config)
    model.load_state_dict(run.kept_weights)
    write_soonet(model.half(), folder)
    return read_soonet(folder)
