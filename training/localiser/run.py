"""A training run of a localiser: steps over small libraries, validation, and a state to go on from.

    run = Run(Recipe(steps=1000), config, Rotation(libraries, seed=0), validation)
    train(run, Path("run/state.pt"), Console())
    save_checkpoint(run, Path("localiser"))

Chance depends on the seed and the step alone, and the state is written every so many steps: on a CPU, a run that was
killed and taken up again ends with the same weights as one that never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from scanonce.models.soonet.checkpoint import read_soonet, write_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.storage.errors import ConfigError
from scanonce.storage.files import write_whole
from scanonce.training.curves import Curves
from scanonce.training.localiser.answers import CLIP_WEIGHTS, Answers, answer, told
from scanonce.training.localiser.batches import FilmBatch, MomentLibrary
from scanonce.training.localiser.loss import TERMS, Recipe, library_loss
from scanonce.training.processes import OneProcess, Processes

_SECONDS_BETWEEN_SAVES = 120.0
_LOGGED_EVERY = 10
"""Steps between two points of the curves of the loss."""


class Examples(Protocol):
    """What is trained on."""

    def library(self, number: int) -> MomentLibrary:
        """A library by its number, from 0 on in the order they are trained on; the same for the same number."""


class Rotation:
    """A fixed number of libraries: every one once, in an order by chance, before any comes again."""

    def __init__(self, libraries: Sequence[MomentLibrary], *, seed: int) -> None:
        """``seed``: of the order."""
        self._libraries, self._seed = libraries, seed

    def library(self, number: int) -> MomentLibrary:
        """See `Examples`."""
        epoch, place = divmod(number, len(self._libraries))
        order = np.random.default_rng((self._seed, 59, epoch)).permutation(len(self._libraries))
        return self._libraries[int(order[place])]


@dataclass
class Progressed:
    """Where a run stands; all of it is in the state that a run is resumed from."""

    step: int = 0
    elapsed_seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    """Running means of the terms."""
    best: float = -1.0
    """Goodness on validation of the weights that are kept."""
    best_step: int = 0
    clip_weight: float = 0.0
    """The best on validation for the weights that are kept."""


class Run:
    """A training run that can be stopped after any step and taken up again."""

    def __init__(
        self,
        recipe: Recipe,
        config: SoonetConfig,
        examples: Examples,
        validation: Sequence[MomentLibrary],
        *,
        cap_seconds: float = math.inf,
        processes: Processes | None = None,
        weights: dict[str, torch.Tensor] | None = None,
        data: str = "",
    ) -> None:
        """Args:
        recipe: Steps, rates and weights.
        config: Of the network.
        examples: A library for each step.
        validation: Decides which weights are kept; without any the last are.
        cap_seconds: Ends earlier, with the learning rate cooled down in time, when reached.
        processes: Share the libraries of each step; this one alone, on the CPU, where None.
        weights: To begin with, float32; None: new ones.
        data: Tells what the examples are made of; only a state of the same is taken up.

        Raises:
            ConfigError: the libraries of a step cannot be shared out evenly.
        """
        self.recipe, self.config = recipe, config
        self.at = Progressed(clip_weight=config.clip_weight)
        self._examples, self._validation, self._cap_seconds = examples, validation, cap_seconds
        self._processes = processes or OneProcess(torch.device("cpu"))
        self._device, self._data = self._processes.device, data
        if recipe.libraries_per_step % self._processes.count:
            raise ConfigError(
                f"{self._processes.count} processes cannot share {recipe.libraries_per_step} libraries per step: "
                "give a multiple of their number"
            )
        torch.manual_seed(recipe.seed)
        self.model = Soonet(config).train()
        if weights is not None:
            self.model.load_state_dict(weights)
        self.model.to(self._device)
        self.best = _copied(self.model)
        self._optimizer = _optimizer(self.model, recipe)

    @property
    def validation(self) -> Iterator[FilmBatch]:
        """The libraries of validation, made into tensors one after the other."""
        return (FilmBatch(each, self.config.grid, self._device) for each in self._validation)

    @property
    def share_done(self) -> float:
        """How much of the training lies behind, 0 to 1, by steps or by time, whichever is further."""
        return max(self.at.step / self.recipe.steps, self.at.elapsed_seconds / self._cap_seconds)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self._processes.index == 0

    def step(self) -> None:
        """The libraries of one step."""
        started = time.monotonic()
        recipe, number = self.recipe, self.at.step
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(recipe, number, self.share_done)
        self._optimizer.zero_grad()
        mine = range(self._processes.index, recipe.libraries_per_step, self._processes.count)
        terms = [self._backward(number * recipe.libraries_per_step + place) for place in mine]
        mean = torch.stack(terms).sum(dim=0) / recipe.libraries_per_step
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self._processes.add_up([*gradients, mean])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimizer.step()
        for name, term in zip(TERMS, mean.tolist(), strict=True):
            before = self.at.losses.get(name, term)
            self.at.losses[name] = 0.98 * before + 0.02 * term
        self.at.step += 1
        self._took(time.monotonic() - started)

    def _backward(self, number: int) -> torch.Tensor:
        """Adds the gradient of one library; returns the terms of its loss, in the order of `TERMS`."""
        # Chance depends on the seed and the library alone: a resumed run needs no state of it.
        rng = np.random.default_rng((self.recipe.seed, 53, number))
        torch.manual_seed(int(rng.integers(2**62)))
        batch = FilmBatch(self._examples.library(number), self.config.grid, self._device)
        terms = library_loss(self.model, batch, self.recipe, rng)
        stacked = torch.stack([terms[name] for name in TERMS])
        torch.autograd.backward(stacked.sum() / self.recipe.libraries_per_step)
        return stacked.detach()

    def _took(self, seconds: float) -> None:
        """Counts time; all processes count that of the first, so that they end together."""
        self.at.elapsed_seconds += seconds
        if self._processes.count > 1:
            self.at.elapsed_seconds = self._processes.agree(self.at.elapsed_seconds)

    def validate(self) -> Answers | None:
        """Answers the queries of validation and keeps the weights if they are the best so far."""
        if not self._validation:
            self.best = _copied(self.model)
            return None
        started = time.monotonic()
        answers = answer(self.model, self.validation, clip_weights=CLIP_WEIGHTS)
        weight = max(answers, key=lambda weight: answers[weight].goodness)
        if answers[weight].goodness > self.at.best:
            self.best = _copied(self.model)
            self.at.best, self.at.best_step = answers[weight].goodness, self.at.step
            self.at.clip_weight = weight
        self._took(time.monotonic() - started)
        return answers[weight]

    @property
    def _made_of(self) -> dict[str, Any]:
        return {"recipe": asdict(self.recipe), "config": asdict(self.config), "data": self._data}

    def save(self, path: Path) -> None:
        """Writes all that a later process needs to go on, whole or not at all."""
        state = {
            "made of": self._made_of,
            "at": asdict(self.at),
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
        }
        write_whole(path, lambda file: torch.save(state, file))

    def resume(self, path: Path) -> None:
        """Goes on where `save` left off.

        Raises:
            ConfigError: the file is no such state, or one of another recipe, network or data.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location=self._device, weights_only=True)
        except Exception as error:  # of pickle, zip, the system: there is no common ancestor
            raise ConfigError(
                f"{path} cannot be read as the state of a run ({type(error).__name__}): "
                "start anew without --resume"
            ) from error
        if not isinstance(state, dict) or state.get("made of") != self._made_of:
            raise ConfigError(
                f"{path} is of another recipe, network or data: give what that run was started with, "
                "or start anew without --resume"
            )
        self.at = Progressed(**state["at"])
        self.model.load_state_dict(state["model"])
        self.best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])


def _copied(model: Soonet) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _optimizer(model: Soonet, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up, then half a cosine down to a hundredth; the paper: constant, then tenths."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    return recipe.learning_rate * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * min(done, 1.0))))


def train(
    run: Run, state: Path, console: Console | None = None, curves: Curves | None = None
) -> None:
    """Runs to the end, with a validation every so often and at the end.

    Args:
        run: New or resumed.
        state: File for `Run.resume`; at most `Recipe.save_every` steps, or two minutes, are lost with the process.
        console: Shows the progress; nothing is shown where None.
        curves: Take the terms of the loss and the figures of validation.
    """
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task("", total=1.0, note="")
        saved_at = time.monotonic()
        while run.share_done < 1:
            run.step()
            step, ends = run.at.step, run.share_done >= 1
            seconds = run.at.elapsed_seconds / step
            note = f"step {step} of {run.recipe.steps}, {seconds:.2f} s each"
            progress.update(task, completed=min(run.share_done, 1.0), note=note)
            if curves and (step % _LOGGED_EVERY == 0 or ends):
                curves.log(step, {f"loss/{name}": loss for name, loss in run.at.losses.items()})
            validates = step % run.recipe.evaluate_every == 0 or ends
            if validates:
                answers = run.validate()
                _tell(run, answers, progress.console, curves)
            late = time.monotonic() - saved_at > _SECONDS_BETWEEN_SAVES
            if run.is_first and (validates or late or step % run.recipe.save_every == 0):
                run.save(state)
                saved_at = time.monotonic()


def _tell(run: Run, answers: Answers | None, console: Console, curves: Curves | None) -> None:
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in run.at.losses.items())
    figures = told(answers) if answers else "not validated"
    console.print(f"step {run.at.step}: {figures}; {losses}")
    if answers and curves:
        every = answers.figures(np.ones(len(answers.tiou), bool))
        names = {"film R@1": every.film_r1, "R@1 .5": every.r1_half, "R@1 .7": every.r1_most}
        curves.log(run.at.step, {f"validation/{name}": share for name, share in names.items()})


def save_checkpoint(run: Run, folder: Path, *, curve_tiou: float) -> Soonet:
    """Writes the weights that validation chose, float16, with the `clip_weight` it chose.

    Args:
        run: Ended.
        folder: For `models.soonet.trained.load_localiser`.
        curve_tiou: See `SoonetConfig`.

    Returns:
        The localiser as read back.
    """
    config = replace(run.config, clip_weight=run.at.clip_weight, curve_tiou=curve_tiou)
    model = Soonet(config)
    model.load_state_dict(run.best)
    write_soonet(model.half(), folder)
    return read_soonet(folder)
