"""One fine-tuning: its steps, its validation, and the state from which it goes on."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError
from scanonce.storage.files import write_whole
from scanonce.training.clip.batches import Batches, ClipSet, Part, Share
from scanonce.training.clip.contrast import add_gradients
from scanonce.training.clip.model import TrainedClip
from scanonce.training.clip.recipe import Recipe
from scanonce.training.evaluation.metrics import (
    RetrievalFigures,
    retrieval_figures,
    text_to_video_ranks,
    video_to_text_ranks,
)
from scanonce.training.processes import Processes

_TEXTS_AT_ONCE = 256

_HOW_NOT_WHAT = {"batch", "accumulate", "checkpointing", "save_every"}
"""Of a recipe: they say how a step is done, not what comes out. The product of the first two counts."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a run is."""

    step: int = 0
    """Steps that lie behind."""
    elapsed_seconds: float = 0.0
    """Of steps and validations, over all processes that worked on the run one after another."""
    loss: float = math.nan
    """Of the last step, before it."""


@dataclass(frozen=True, slots=True)
class Validated:
    """Retrieval among the clips held out, by the names of the figures: R@1, R@5, R@10, MRR in [0, 1], MdR, MnR."""

    step: int
    """After which they hold; 0: before training."""
    videos: dict[str, float]
    """Each caption is a query for its clip."""
    texts: dict[str, float]
    """Each clip is a query for its best caption."""
    num_clips: int
    num_captions: int

    @property
    def goodness(self) -> float:
        """What the best weights are chosen by: the MRR of texts to videos, which is finer than R@1."""
        return self.videos["MRR"]

    def as_curves(self) -> dict[str, float]:
        """Names and values for `training.curves.Curves`."""
        shares = {f"validation/{name}": self.videos[name] for name in ("R@1", "R@5", "R@10")}
        return shares | {"validation/R@1 of captions": self.texts["R@1"]}


class Run:
    """A model being trained; every process has one and calls the same methods in the same order."""

    def __init__(
        self,
        model: TrainedClip,
        recipe: Recipe,
        clips: ClipSet,
        validation: ClipSet | None,
        processes: Processes,
        *,
        cap_seconds: float = math.inf,
    ) -> None:
        """A new run.

        Args:
            model: on the device of this process; equal in all of them.
            recipe: of the run.
            clips: to train on, the same in all processes.
            validation: held out; None for none.
            processes: who shares each batch.
            cap_seconds: ends the run earlier, with the learning rates brought down in time; what comes out then
                depends on the machine.

        Raises:
            ConfigError: a batch is larger than all there is.
        """
        self.model, self.recipe, self.processes = model, recipe, processes
        self.clips, self.validation = clips, validation
        self.batch = recipe.batch * recipe.accumulate * processes.count
        """Clips that are compared with each other in a step."""
        self._batches = Batches(clips, batch=self.batch, seed=recipe.seed, augment=recipe.augment)
        self.num_steps = recipe.epochs * self._batches.steps_per_epoch
        self.validate_every = recipe.validate_every or self._batches.steps_per_epoch
        self.at = Progressed()
        self.first: Validated | None = None
        """Before training."""
        self.last: Validated | None = None
        self.best: Validated | None = None
        """Of the weights that are kept; in the first process only, as all that validation gives."""
        self._best_weights: dict[str, torch.Tensor] | None = None
        self._optimizer = model.optimizer()
        self._cap_seconds = cap_seconds
        self._loader = ThreadPoolExecutor(1, "next batch")
        self._next: tuple[int, Future[Share]] | None = None

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self._share_done() >= 1

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates of the last step by group."""
        return {group["name"]: group["lr"] for group in self._optimizer.param_groups}

    def step(self) -> None:
        """One step over a batch of all processes.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        started = time.monotonic()
        self._set_rates()
        self._optimizer.zero_grad()
        self.model.train()
        loss = self._add_gradients(self._take(self.at.step))
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {self.at.step + 1}: the learning rates are too high for this encoder "
                "(--lr, --encoder-lr)"
            )
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        self.processes.add_up([p.grad for p in trained if p.grad is not None])
        torch.nn.utils.clip_grad_norm_(trained, self.recipe.clip_norm)
        self._optimizer.step()
        self.model.clamp_temperature()
        self.at = Progressed(self.at.step + 1, self._elapsed(started), loss)

    def _add_gradients(self, share: Share) -> float:
        model = self.model
        return add_gradients(
            share.parts,
            model.embed,
            model.score,
            model.log_scale if model.scores_are_cosines else None,
            share.right,
            self.processes,
            seed=(self.recipe.seed, self.at.step),
            texts_at_once=model.texts_at_once(self.batch),
        )

    def _take(self, step: int) -> Share:
        """The batch of a step; that of the next one is made ready meanwhile."""

        def load(step: int) -> Share:
            return self._batches.share(
                step,
                index=self.processes.index,
                count=self.processes.count,
                num_parts=self.recipe.accumulate,
            )

        ready = self._next
        share = ready[1].result() if ready is not None and ready[0] == step else load(step)
        is_last = step + 1 >= self.num_steps
        self._next = None if is_last else (step + 1, self._loader.submit(load, step + 1))
        return share

    def _share_done(self) -> float:
        """0 to 1, by steps or by time, whichever is further; all processes go by the time of the first."""
        by_steps = self.at.step / self.num_steps
        if math.isinf(self._cap_seconds):
            return by_steps
        return max(by_steps, self.processes.agree(self.at.elapsed_seconds / self._cap_seconds))

    def _set_rates(self) -> None:
        """A straight rise over the warm-up, then half a cosine down to 0."""
        done = self._share_done()
        warm = min(1.0, (done + 1 / self.num_steps) / max(self.recipe.warm_up, 1e-9))
        cool = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        for group in self._optimizer.param_groups:
            group["lr"] = group["highest"] * warm * cool

    def _elapsed(self, started: float) -> float:
        return self.at.elapsed_seconds + time.monotonic() - started

    # ------------------------------------------------ validation

    @property
    def is_validation_due(self) -> bool:
        """Whether the figures are wanted after this step."""
        if self.validation is None:
            return False
        return self.at.step % self.validate_every == 0 or self.is_done

    def validate(self) -> Validated | None:
        """Figures of the weights as they are, and keeps these if they are the best; None but in the first process."""
        if self.validation is None:
            return None
        started = time.monotonic()
        scores = score_all(self.model, self.validation, self.processes, self.recipe.batch)
        found = None
        if scores is not None:
            found = _validated(self.at.step, scores, self.validation)
            if self.at.step == 0:
                self.first = found
            elif self.best is None or found.goodness > self.best.goodness:
                self.best = found
                if self.recipe.keep == "best":
                    self._best_weights = _copied(self.model)
            self.last = found
        self.at = replace(self.at, elapsed_seconds=self._elapsed(started))
        return found

    @property
    def kept(self) -> Validated | None:
        """Figures of the weights that `take_kept` gives; None where there were none."""
        return self.best if self.recipe.keep == "best" else self.last

    def take_kept(self) -> TrainedClip:
        """The model with the weights the recipe keeps: the best ones, or where nothing was validated the last."""
        if self._best_weights is not None:
            self.model.load_state_dict(self._best_weights)
        return self.model.eval()

    # ------------------------------------------------ state

    def save(self, path: Path) -> None:
        """Writes all that a later process needs to go on, whole or not at all. For the first process."""
        state = {
            "identity": self._identity(),
            "at": asdict(self.at),
            "validated": [each and asdict(each) for each in (self.first, self.last, self.best)],
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best_weights,
        }
        write_whole(path, lambda file: torch.save(state, file))

    def resume(self, path: Path) -> None:
        """Goes on where `save` left off.

        Raises:
            ConfigError: the state cannot be read, or is of another run: says what differs.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            identity = state["identity"]
        except Exception as error:  # of many kinds, for as many ways of being broken
            raise ConfigError(
                f"{path} is not the state of a run ({type(error).__name__}): remove it and start anew"
            ) from error
        own = self._identity()
        differences = [
            f"{name.replace('_', ' ')} was {identity.get(name)}, is {own[name]}"
            for name in own
            if identity.get(name) != own[name]
        ]
        if differences:
            raise ConfigError(
                f"{path} is of another run ({'; '.join(differences)}): ask for the same, or start anew without --resume"
            )
        self.at = Progressed(**state["at"])
        validated = [each and Validated(**each) for each in state["validated"]]
        self.first, self.last, self.best = validated
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_weights = state["best"]

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a run to be the same one."""
        held = [] if self.validation is None else self.validation.captions
        words = json.dumps([[list(each) for each in part] for part in (self.clips.captions, held)])
        recipe = {name: v for name, v in asdict(self.recipe).items() if name not in _HOW_NOT_WHAT}
        return recipe | {
            "clips_in_a_batch": self.batch,
            "captions": hashlib.blake2b(words.encode(), digest_size=8).hexdigest(),
            "encoder": self.model.source_fingerprint,
        }


def score_all(
    model: TrainedClip, clips: ClipSet, processes: Processes, at_once: int
) -> NDArray[np.float32] | None:
    """Scores [M, V] of all captions, clip after clip, with all clips; each process works out a part of them.

    Args:
        model: put into evaluation mode.
        clips: V of them, with M captions.
        processes: who shares the work.
        at_once: clips embedded together.

    Returns:
        None but in the first process.
    """
    model.eval()
    texts = [caption for captions in clips.captions for caption in captions]
    with torch.no_grad():
        own = range(processes.index, len(clips), processes.count)
        embedded: list[tuple[int, Any, Any]] = []
        for numbers in _some(own, at_once):
            frames = [clips.frames(number) for number in numbers]
            part = Part(np.concatenate(frames), tuple(len(each) for each in frames), ())
            videos, mask = model.embed_videos(part)
            masks = [None] * len(numbers) if mask is None else list(mask.cpu().numpy())
            embedded += zip(numbers, videos.cpu().numpy(), masks, strict=True)
        _, every_video, every_mask = zip(
            *sorted(processes.gather_rows(embedded), key=_first), strict=True
        )
        videos = torch.from_numpy(np.stack(every_video)).to(processes.device)
        mask = None
        if every_mask[0] is not None:
            mask = torch.from_numpy(np.stack(every_mask)).to(processes.device)
        rows: list[tuple[int, Any]] = []
        together = model.texts_at_once(len(clips)) or _TEXTS_AT_ONCE
        for numbers in _some(range(processes.index, len(texts), processes.count), together):
            embeddings = model.embed_texts([texts[number] for number in numbers])
            rows += zip(numbers, model.score(embeddings, videos, mask).cpu().numpy(), strict=True)
    gathered = sorted(processes.gather_rows(rows), key=_first)
    return np.stack([row for _, row in gathered]) if processes.index == 0 else None


def _first(row: Sequence[Any]) -> int:
    return int(row[0])


def _some(numbers: range, count: int) -> list[range]:
    return [numbers[start : start + count] for start in range(0, len(numbers), count)]


def _validated(step: int, scores: NDArray[np.float32], clips: ClipSet) -> Validated:
    video_of_text = np.repeat(np.arange(len(clips)), [len(each) for each in clips.captions])
    to_videos = retrieval_figures(text_to_video_ranks(scores, video_of_text))
    to_texts = retrieval_figures(video_to_text_ranks(scores, video_of_text))
    return Validated(step, _named(to_videos), _named(to_texts), len(clips), len(scores))


def _named(figures: RetrievalFigures) -> dict[str, float]:
    named = {f"R@{cutoff}": share.value for cutoff, share in figures.recall.items()}
    ranks = {"MdR": figures.median_rank, "MnR": figures.mean_rank}
    return named | ranks | {"MRR": figures.reciprocal_rank.value}


def _copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.detach().cpu().clone() for name, each in model.state_dict().items()}
