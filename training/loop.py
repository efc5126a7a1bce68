"""The training loop: learning rates over a run, validation, the best weights, a state to resume from.

A subclass of `Run` computes one step and one validation; `train` does the rest:

    run = LocaliserRun(recipe, config, examples, validation)
    train(run, Path("work/state.pt"), curves, callbacks)
    run.kept_weights                                     # the best ones on validation

Random numbers of a step come from the seed and the number of the step alone, never from the state of a generator.
So on a CPU a run that was killed and resumed ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console

from scanonce.storage.errors import ConfigError
from scanonce.storage.files import write_whole
from scanonce.training.bars import Report
from scanonce.training.curves import Curves
from scanonce.training.processes import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Length of a run, its learning rates, and when it validates, saves and logs."""

    num_steps: int
    cap_seconds: float = math.inf
    """Time of steps and validations after which the run ends earlier. Learning rates reach their end in time, so a slow
    machine ends with cooled weights too; they then depend on the machine."""
    warm_up_steps: int = 0
    """Steps in which learning rates rise; 0: `warm_up_share` decides."""
    warm_up_share: float = 0.0
    """Share of the run, by steps or by time, in which learning rates rise."""
    lowest_rate: float = 0.0
    """Learning rate at the end, as a share of the highest one."""
    max_norm: float = math.inf
    """Largest norm of the gradient of a step."""
    validate_every: int = 1
    """Steps between validations; there is one at the end too."""
    validate_first: bool = False
    """Validate before the first step."""
    save_every: int = 1
    """Steps between saved states; there is one at the end too."""
    save_seconds: float = math.inf
    """Longest time between saved states."""
    save_validated: bool = False
    """Save after each validation too."""
    log_every: int = 1
    """Steps between two points of the curves of the loss."""

    def warm_up(self, step: int, share_done: float) -> float:
        """Return the factor of a straight rise, up to 1, for the step of this number (from 0)."""
        if self.warm_up_steps:
            return min(1.0, (step + 1) / self.warm_up_steps)
        return min(1.0, (share_done + 1 / self.num_steps) / max(self.warm_up_share, 1e-9))

    def cool_down(self, share_done: float) -> float:
        """Return the factor of half a cosine from 1 down to `lowest_rate`."""
        fall = 0.5 * (1 - self.lowest_rate) * (1 + math.cos(math.pi * min(1.0, share_done)))
        return self.lowest_rate + fall


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    step: int = 0
    """Steps done."""
    elapsed_seconds: float = 0.0
    """Time of steps and validations, over all processes that worked on the run one after another."""
    losses: dict[str, float] = field(default_factory=dict)
    """Losses by name, at the last step or as running means."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Figures of one validation; subclasses add further numbers, texts, and containers of these."""

    step: int
    """Steps done before it; 0: before training."""
    selection_metric: float
    """Figure that the best weights are chosen by; higher is better."""
    curves: dict[str, float]
    """Figures by their names in `Curves`."""
    summary: str
    """Figures in one line."""


V = TypeVar("V", bound=Validation)


class Run(Generic[V]):
    """A model being trained; all processes have one and call the same methods in the same order."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        processes: Processes,
        *,
        validation_type: type[V],
        keep_best: bool = True,
        keep_initial: bool = False,
    ) -> None:
        """Start a new run.

        Args:
            model: model on the device of this process; equal in all processes.
            optimizer: optimizer from `adamw`.
            schedule: schedule of the run.
            processes: processes that share each step.
            validation_type: class of the figures of a validation.
            keep_best: keep the best weights on validation; False: the last ones.
            keep_initial: a validation before the first step counts among the best too.
        """
        self.model, self.optimizer = model, optimizer
        self.schedule, self.processes = schedule, processes
        self.at = Progress()
        self.first: V | None = None
        """Figures before training."""
        self.last: V | None = None
        self.best: V | None = None
        self._validation_type = validation_type
        self._keep_best, self._keep_initial = keep_best, keep_initial
        self._best_weights: dict[str, torch.Tensor] | None = None

    # ------------------------------------------------ for subclasses

    @property
    def identity(self) -> dict[str, Any]:
        """Values by name that must be equal for a state to belong to this run."""
        raise NotImplementedError

    @property
    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """Parameters whose gradients are added up over processes and clipped."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _compute_step(self) -> dict[str, float]:
        """Add the gradients of a step, call `_update_weights`, and return the losses by name."""
        raise NotImplementedError

    @property
    def has_validation(self) -> bool:
        """Whether there is something to validate on."""
        raise NotImplementedError

    def _compute_validation(self) -> V | None:
        """Return the figures of the present weights; None in processes that do not have them."""
        raise NotImplementedError

    def _update_weights(self, *sums: torch.Tensor) -> None:
        """Add gradients, and other tensors, up over all processes; clip the gradients and step."""
        trained = self.trained_parameters
        self.processes.add_up([*(p.grad for p in trained if p.grad is not None), *sums])
        if math.isfinite(self.schedule.max_norm):
            torch.nn.utils.clip_grad_norm_(trained, self.schedule.max_norm)
        self.optimizer.step()

    # ------------------------------------------------ steps

    @property
    def share_done(self) -> float:
        """Share of the run that is done, from 0 on, by steps or by time, whichever is further."""
        by_time = self.at.elapsed_seconds / self.schedule.cap_seconds
        return max(self.at.step / self.schedule.num_steps, by_time)

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.share_done >= 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.processes.index == 0

    def step(self) -> None:
        """Do one step."""
        started = time.monotonic()
        warm = self.schedule.warm_up(self.at.step, self.share_done)
        cool = self.schedule.cool_down(self.share_done)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * warm * cool
        self.optimizer.zero_grad()
        self.model.train()
        losses = self._compute_step()
        self.at = Progress(self.at.step + 1, self.at.elapsed_seconds, losses)
        self._add_time(started)

    def _add_time(self, started: float) -> None:
        elapsed = self.at.elapsed_seconds + time.monotonic() - started
        if self.processes.count > 1 and math.isfinite(self.schedule.cap_seconds):
            elapsed = self.processes.agree(elapsed)  # otherwise they would not end together
        self.at = replace(self.at, elapsed_seconds=elapsed)

    def curves(self) -> dict[str, float]:
        """Return values of the last step by their names in `Curves`."""
        return {f"loss/{name}": loss for name, loss in self.at.losses.items()}

    # ------------------------------------------------ validation

    @property
    def is_validation_due(self) -> bool:
        """Whether a validation follows this step."""
        return self.at.step % self.schedule.validate_every == 0 or self.is_done

    def validate(self) -> V | None:
        """Compute the figures of the present weights, and keep these if they are the best so far."""
        started = time.monotonic()
        found = self._compute_validation() if self.has_validation else None
        if found is not None:
            is_initial = self.at.step == 0
            if is_initial:
                self.first = found
            is_better = self.best is None or found.selection_metric > self.best.selection_metric
            if is_better and (self._keep_initial or not is_initial):
                self.best = found
                if self._keep_best:
                    state = self.model.state_dict().items()
                    self._best_weights = {n: each.detach().cpu().clone() for n, each in state}
            self.last = found
        self._add_time(started)
        return found

    @property
    def kept(self) -> V | None:
        """Figures of `kept_weights`; None if nothing was validated."""
        return self.best if self._keep_best else self.last

    @property
    def kept_weights(self) -> dict[str, torch.Tensor]:
        """Best weights on validation, or the present ones if those are wanted or nothing was validated."""
        return self.model.state_dict() if self._best_weights is None else self._best_weights

    # ------------------------------------------------ state

    def save(self, path: Path) -> None:
        """Write everything a later process needs to continue, atomically."""
        state = {
            "identity": self.identity,
            "at": asdict(self.at),
            "validated": [each and asdict(each) for each in (self.first, self.last, self.best)],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self._best_weights,
        }
        write_whole(path, lambda file: torch.save(state, file))

    def resume(self, path: Path) -> None:
        """Continue from the state that `save` wrote.

        Raises:
            ConfigError: the state cannot be read, or belongs to another run; the message names the differences.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            identity: dict[str, Any] = state["identity"]
        except Exception as error:  # torch.load raises errors of many kinds for damaged files
            raise ConfigError(
                f"{path} is not the state of a run ({type(error).__name__}): remove it and start from scratch"
            ) from error
        differences = [
            f"{name.replace('_', ' ')} was {identity.get(name)}, is {value}"
            for name, value in self.identity.items()
            if identity.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"{path} is of another recipe, network or data ({'; '.join(differences)}): give those of that run, or "
                "start from scratch without --resume"
            )
        self.at = Progress(**state["at"])
        validated = [each and self._validation_type(**each) for each in state["validated"]]
        self.first, self.last, self.best = validated
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._best_weights = state["best"]


class Callbacks:
    """Calls during a run, in the first process; these do nothing. Subclasses name the types of run and figures."""

    def started(self, run: Any) -> None:
        """Called before the first step; after an interruption ``run.at`` says where the run continues."""

    def stepped(self, run: Any) -> None:
        """Called after each step, before a validation."""

    def validated(self, run: Any, found: Any) -> None:
        """Called with the figures of each validation."""


class ConsoleCallbacks(Callbacks):
    """Moves a bar, and prints a line for each validation."""

    def __init__(self, console: Console, report: Report) -> None:
        self._console, self._report = console, report

    def stepped(self, run: Run[Any]) -> None:
        """Move the bar."""
        step, num_steps = run.at.step, run.schedule.num_steps
        # with a cap the share of the time may be larger than that of the steps
        done = round(num_steps * min(run.share_done, 1.0))
        seconds = run.at.elapsed_seconds / step
        self._report(done, num_steps, f"step {step} of {num_steps}, {seconds:.2f} s each")
        if run.is_validation_due and not run.has_validation:
            self._print(run, "not validated")

    def validated(self, run: Run[Any], found: Validation) -> None:
        """Print the figures."""
        self._print(run, found.summary)

    def _print(self, run: Run[Any], figures: str) -> None:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in run.at.losses.items())
        self._console.print(f"step {run.at.step}: {figures}; losses: {losses}")


def train(
    run: Run[Any],
    state: Path | None = None,
    curves: Curves | None = None,
    callbacks: Callbacks | None = None,
) -> None:
    """Do all steps that are left, with validations and saved states.

    Args:
        run: new or resumed run.
        state: file for `Run.resume`, written by the first process; None: nothing is saved.
        curves: curves that losses and figures are added to; None in all processes but the first.
        callbacks: called as the run proceeds; None in all processes but the first.
    """
    callbacks = callbacks or Callbacks()
    schedule = run.schedule

    def validate() -> None:
        found = run.validate()
        if found is not None:
            callbacks.validated(run, found)
            if curves is not None:
                curves.log(run.at.step, found.curves)

    callbacks.started(run)
    if schedule.validate_first and run.at.step == 0:
        validate()
    saved_at = time.monotonic()
    while not run.is_done:
        run.step()
        if curves is not None and (run.at.step % schedule.log_every == 0 or run.is_done):
            curves.log(run.at.step, run.curves())
        callbacks.stepped(run)
        saves = run.at.step % schedule.save_every == 0
        if run.is_validation_due:
            validate()
            saves |= schedule.save_validated
        # the last state is saved too: the checkpoint is not written yet
        saves |= run.is_done or time.monotonic() - saved_at > schedule.save_seconds
        if saves and state is not None and run.is_first:
            run.save(state)
            saved_at = time.monotonic()


def adamw(
    parts: Sequence[tuple[str, Iterable[torch.nn.Parameter], float]],
    *,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """AdamW that decays matrices only: no biases, norms or temperature.

    Args:
        parts: name, parameters and highest learning rate of each part; frozen parameters are left out.
        weight_decay: decay of the matrices.
        betas: decay of the running means of gradients and of their squares.
        eps: added to the denominator.
    """
    groups = []
    for name, parameters, rate in parts:
        trained = [p for p in parameters if p.requires_grad]
        for decay, is_matrix in ((weight_decay, True), (0.0, False)):
            chosen = [p for p in trained if (p.ndim >= 2) == is_matrix]
            if chosen:
                shared = {"weight_decay": decay, "lr": rate, "highest": rate, "name": name}
                groups.append({"params": chosen, **shared})
    return torch.optim.AdamW(groups, betas=betas, eps=eps)
