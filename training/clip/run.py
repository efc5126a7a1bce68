"""The run of a fine-tuning: its steps and its validation by retrieval among held-out clips."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError
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
from scanonce.training.loop import Run, Schedule, Validation
from scanonce.training.processes import Processes

_TEXTS_AT_ONCE = 256
_SECONDS_BETWEEN_SAVES = 600.0

_NOT_OF_THE_RESULT = {"batch", "accumulate", "checkpointing", "save_every"}
"""Fields of a recipe that may differ when a run is resumed: they change the computation, not its result. The product of
the first two, times the number of processes, does count."""


@dataclass(frozen=True, slots=True)
class Validated(Validation):
    """Retrieval among the held-out clips: R@1, R@5, R@10, MRR in [0, 1], MdR and MnR, by name.

    The selection metric is the MRR of text to video, which has finer steps than R@1.
    """

    videos: dict[str, float]
    """Figures with captions as queries for their clips."""
    texts: dict[str, float]
    """Figures with clips as queries for their best captions."""
    num_clips: int
    num_captions: int


class ClipRun(Run[Validated]):
    """A fine-tuning; figures of validations are in the first process only."""

    model: TrainedClip

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
        """Start a new run.

        Args:
            model: model on the device of this process; equal in all processes.
            recipe: recipe of the run.
            clips: clips to train on, the same in all processes.
            validation: held-out clips; None: no validation.
            processes: processes that share each batch.
            cap_seconds: end the run earlier, see `training.loop.Schedule`.

        Raises:
            ConfigError: a batch is larger than the number of clips.
        """
        self.recipe, self.clips, self.validation = recipe, clips, validation
        self.batch = recipe.batch * recipe.accumulate * processes.count
        """Clips that are compared with each other in a step."""
        self._batches = Batches(clips, batch=self.batch, seed=recipe.seed, augment=recipe.augment)
        steps_per_epoch = self._batches.steps_per_epoch
        super().__init__(
            model,
            model.optimizer(),
            Schedule(
                num_steps=recipe.epochs * steps_per_epoch,
                cap_seconds=cap_seconds,
                warm_up_share=recipe.warm_up,
                max_norm=recipe.clip_norm,
                validate_every=recipe.validate_every or steps_per_epoch,
                validate_first=True,
                save_every=recipe.save_every,
                save_seconds=_SECONDS_BETWEEN_SAVES,
            ),
            processes,
            validation_type=Validated,
            keep_best=recipe.keep == "best",
        )
        self._loader = ThreadPoolExecutor(1, "next batch")
        self._next: tuple[int, Future[Share]] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Recipe, data and encoder."""
        held = [] if self.validation is None else self.validation.captions
        words = json.dumps([[list(each) for each in part] for part in (self.clips.captions, held)])
        recipe = {n: v for n, v in asdict(self.recipe).items() if n not in _NOT_OF_THE_RESULT}
        return recipe | {
            "clips_in_a_batch": self.batch,
            "captions": hashlib.blake2b(words.encode(), digest_size=8).hexdigest(),
            "encoder": self.model.source_fingerprint,
        }

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates of the last step, of the encoder and of the head."""
        return {group["name"]: group["lr"] for group in self.optimizer.param_groups}

    def curves(self) -> dict[str, float]:
        """Return loss and learning rates."""
        return super().curves() | {f"rate/{name}": rate for name, rate in self.rates.items()}

    def _compute_step(self) -> dict[str, float]:
        loss = self._add_gradients(self._take(self.at.step))
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {self.at.step + 1}: the learning rates are too high for this encoder "
                "(--lr, --encoder-lr)"
            )
        self._update_weights()
        self.model.clamp_temperature()
        return {"train": loss}

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
        """Return the batch of a step, while a thread prepares the next one."""

        def load(step: int) -> Share:
            return self._batches.share(
                step,
                index=self.processes.index,
                count=self.processes.count,
                num_parts=self.recipe.accumulate,
            )

        ready = self._next
        share = ready[1].result() if ready is not None and ready[0] == step else load(step)
        is_last = step + 1 >= self.schedule.num_steps
        self._next = None if is_last else (step + 1, self._loader.submit(load, step + 1))
        return share

    @property
    def has_validation(self) -> bool:
        """Whether clips are held out."""
        return self.validation is not None

    def _compute_validation(self) -> Validated | None:
        assert self.validation is not None
        clips = self.validation
        scores = score_all(self.model, clips, self.processes, self.recipe.batch)
        if scores is None:
            return None
        video_of_text = np.repeat(np.arange(len(clips)), [len(each) for each in clips.captions])
        videos = _by_name(retrieval_figures(text_to_video_ranks(scores, video_of_text)))
        texts = _by_name(retrieval_figures(video_to_text_ranks(scores, video_of_text)))
        recalls = {name: videos[name] for name in ("R@1", "R@5", "R@10")}
        curves = {f"validation/{name}": share for name, share in recalls.items()}
        summary = ", ".join(f"{name} {share:.3f}" for name, share in recalls.items())
        return Validated(
            self.at.step,
            videos["MRR"],
            curves | {"validation/R@1 of captions": texts["R@1"]},
            f"{summary}, MdR {videos['MdR']:g} of {len(clips):,} clips",
            videos,
            texts,
            len(clips),
            len(scores),
        )

    def take_kept(self) -> TrainedClip:
        """Load `kept_weights` into the model, and return it in evaluation mode."""
        self.model.load_state_dict(self.kept_weights)
        return self.model.eval()


def score_all(
    model: TrainedClip, clips: ClipSet, processes: Processes, at_once: int
) -> NDArray[np.float32] | None:
    """Scores [M, V] of all captions, clip after clip, with all clips; the processes share the work.

    Args:
        model: model, which is put into evaluation mode.
        clips: V clips with M captions.
        processes: processes that share the work.
        at_once: clips embedded together.

    Returns:
        The scores in the first process, None in the others.
    """
    model.eval()
    texts = [caption for captions in clips.captions for caption in captions]
    with torch.no_grad():
        own = range(processes.index, len(clips), processes.count)
        embedded: list[tuple[int, Any, Any]] = []
        for numbers in _chunks(own, at_once):
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
        for numbers in _chunks(range(processes.index, len(texts), processes.count), together):
            embeddings = model.embed_texts([texts[number] for number in numbers])
            rows += zip(numbers, model.score(embeddings, videos, mask).cpu().numpy(), strict=True)
    gathered = sorted(processes.gather_rows(rows), key=_first)
    return np.stack([row for _, row in gathered]) if processes.index == 0 else None


def _first(row: Sequence[Any]) -> int:
    return int(row[0])


def _chunks(numbers: range, count: int) -> list[range]:
    return [numbers[start : start + count] for start in range(0, len(numbers), count)]


def _by_name(figures: RetrievalFigures) -> dict[str, float]:
    named = {f"R@{cutoff}": share.value for cutoff, share in figures.recall.items()}
    ranks = {"MdR": figures.median_rank, "MnR": figures.mean_rank}
    return named | ranks | {"MRR": figures.reciprocal_rank.value}
