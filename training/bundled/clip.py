"""Training of the bundled encoder: a small CLIP, from scratch, on our own rendered world.

The result is an ordinary `transformers` CLIPModel folder. Phase one pairs images with captions. Phase two adds scenes,
pooled as in CLIP4Clip's meanP, with captions of what happens, so that words of time are learnt too. No held-out
(thing, colour) pair (`training.world.scene.is_held_out`) is trained on.

    python -m scanonce.training.bundled.clip models/bundled/clip
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from rich.console import Console
from transformers import CLIPModel, PreTrainedTokenizerBase

from scanonce.training.bars import progress_bar
from scanonce.training.bundled.clip_examples import Pool, render_pools
from scanonce.training.bundled.clip_model import (
    HELD_OUT_IMAGES,
    PIXEL_MEAN,
    PIXEL_STD,
    BundledClipRecipe,
    HeldOutImages,
    build_model,
    build_tokenizer,
    embed_frames,
    embed_texts,
    held_out_top1,
    save_checkpoint,
)
from scanonce.training.clip.contrast import info_nce
from scanonce.training.clip.recipe import MAX_LOG_SCALE
from scanonce.training.loop import (
    ConsoleCallbacks,
    Progress,
    Run,
    Schedule,
    Validation,
    adamw,
    train,
)
from scanonce.training.processes import OneProcess
from scanonce.training.world.words import FACTS

FACT_AXES: dict[str, list[int]] = {
    axis: [i for i, fact in enumerate(FACTS) if fact.startswith(f"{axis}:")]
    for axis in dict.fromkeys(fact.split(":")[0] for fact in FACTS)
}
"""Columns of a table of facts, by the question they answer."""


# --- Losses ---


def mean_pool(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """CLIP4Clip's meanP of unit frames: the masked mean of [B, T, D] by mask [B, T], of length 1, [B, D]."""
    # `models.clip4clip.heads.mean_pool_tensors` would normalise the frames a second time, which changes last bits, and
    # so the result of the recorded recipe
    weights = mask.to(frames.dtype)[..., None]  # [B, T, 1]
    mean = (frames * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1)


def contrastive_loss(
    logits: torch.Tensor, named: torch.Tensor, facts: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE in which every caption that is true of an image is a positive of it.

    Args:
        logits: [captions, images], scaled cosines.
        named: float [captions, FACTS], facts that each caption states.
        facts: float [images, FACTS], facts that are true of each image.
    """
    return info_nce(logits, named @ facts.T >= named.sum(dim=1, keepdim=True))


def facts_loss(scores: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every question that a row of facts answers.

    Args:
        scores: [N, FACTS], unscaled logits.
        facts: float [N, FACTS]; a question without a fact is open and adds nothing.
    """
    total = scores.new_zeros(())
    for columns in FACT_AXES.values():
        asked = facts[:, columns]
        known = asked.sum(dim=1)  # 0 or 1 per row
        log_shares = F.log_softmax(scores[:, columns], dim=1)
        total = total - (asked * log_shares).sum() / known.sum().clamp(min=1)
    return total / len(FACT_AXES)


# --- Training ---


@dataclass(frozen=True)
class Batch:
    """Examples of one kind, as tensors."""

    pixels: torch.Tensor
    """float32 [B, T, 3, S, S], normalised."""
    mask: torch.Tensor
    """bool [B, T], frames that count."""
    tokens: torch.Tensor
    """int64 [B, L]."""
    named: torch.Tensor
    """float32 [B, FACTS]."""
    facts: torch.Tensor
    """float32 [B, FACTS]."""


class PoolBatches:
    """Endless random batches of a pool, the same for the same seed."""

    def __init__(
        self, pool: Pool, tokenizer: PreTrainedTokenizerBase, recipe: BundledClipRecipe
    ) -> None:
        self._pool = pool
        flat = [text for captions in pool.captions for text in captions]
        encoded = tokenizer(
            flat, padding="max_length", truncation=True, max_length=recipe.max_tokens
        )
        ids = np.array(encoded["input_ids"], np.int64)
        self._tokens = ids.reshape(len(pool.captions), -1, recipe.max_tokens)
        self._pad_id = tokenizer.pad_token_id
        self._rng = np.random.default_rng((recipe.seed, 31, pool.frames.shape[1]))

    def draw(self, batch_size: int) -> Batch:
        """Return the next batch; no example is in it twice."""
        pool, rng = self._pool, self._rng
        rows = rng.choice(len(pool.frames), min(batch_size, len(pool.frames)), replace=False)
        which = rng.integers(self._tokens.shape[1], size=len(rows))
        tokens = self._tokens[rows, which]
        longest = int((tokens != self._pad_id).sum(axis=1).max())
        return Batch(
            pixels=self._augment(pool.frames[rows]),
            mask=torch.from_numpy(self._draw_mask(len(rows))),
            tokens=torch.from_numpy(tokens[:, :longest]),
            named=torch.from_numpy(pool.named[rows, which].astype(np.float32)),
            facts=torch.from_numpy(pool.facts[rows].astype(np.float32)),
        )

    def _draw_mask(self, size: int) -> NDArray[np.bool_]:
        """At least half of the frames of each example, since clips are of any length."""
        num_frames = self._pool.frames.shape[1]
        kept = self._rng.integers((num_frames + 1) // 2, num_frames + 1, size=(size, 1))
        order = self._rng.random((size, num_frames)).argsort(axis=1)
        return np.asarray(order < kept)

    def _augment(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Shift frames a little, change contrast and brightness, and blend some with others as in a fade.

        In place and in few passes, since this runs between two steps on the same cores.
        """
        rng, (size, num_frames) = self._rng, frames.shape[:2]
        down, right = (int(n) for n in rng.integers(-2, 3, size=2))
        pixels = torch.from_numpy(frames).roll((down, right), dims=(2, 3)).float()

        def per_example(low: float, high: float) -> torch.Tensor:
            values = rng.uniform(low, high, size=(size, 1, 1, 1, 1))
            return torch.from_numpy(values.astype(np.float32))

        faded, at = (torch.from_numpy(n) for n in np.nonzero(rng.random((size, num_frames)) < 0.1))
        strength = float(rng.uniform(0.0, 0.25))
        ghosts = pixels[(faded + 1) % size, at]
        pixels[faded, at] = torch.lerp(pixels[faded, at], ghosts, strength)
        # from 0..255 to normalised, with a contrast and a brightness for each example
        contrast, brightness = per_example(0.93, 1.07), per_example(-0.03, 0.03)
        pixels.mul_(contrast / 255 / PIXEL_STD).add_((brightness - PIXEL_MEAN) / PIXEL_STD)
        pixels.clamp_(-PIXEL_MEAN / PIXEL_STD, (1 - PIXEL_MEAN) / PIXEL_STD)
        return pixels.permute(0, 1, 4, 2, 3)


class BundledClipRun(Run[Validation]):
    """Training through both phases; scenes are added for the last `scene_steps`."""

    model: CLIPModel

    def __init__(
        self,
        recipe: BundledClipRecipe,
        images: Pool,
        scenes: Pool,
        tokenizer: PreTrainedTokenizerBase,
        *,
        cap_seconds: float = math.inf,
        held_out: HeldOutImages | None = None,
    ) -> None:
        """Start a new run.

        Args:
            recipe: sizes, steps and rates.
            images: examples of one frame.
            scenes: examples of several frames.
            tokenizer: tokenizer from `build_tokenizer`.
            cap_seconds: end earlier after this time, which includes building the model.
            held_out: images whose top-1 is reported every 250 steps.
        """
        started = time.monotonic()
        model = build_model(recipe, tokenizer)
        self._head = torch.nn.Linear(recipe.embed_dim, len(FACTS))  # of the auxiliary loss only
        parameters = [*model.parameters(), *self._head.parameters()]
        super().__init__(
            model,
            adamw(
                [("", parameters, recipe.learning_rate)],
                weight_decay=recipe.weight_decay,
                betas=(0.9, 0.98),
            ),
            Schedule(
                num_steps=recipe.image_steps + recipe.scene_steps,
                cap_seconds=cap_seconds,
                warm_up_steps=recipe.warm_up_steps,
                lowest_rate=0.01,
                validate_every=250,
            ),
            OneProcess(torch.device("cpu")),
            validation_type=Validation,
            keep_best=False,
        )
        self._recipe, self._tokenizer, self._held_out = recipe, tokenizer, held_out
        self._images = PoolBatches(images, tokenizer, recipe)
        self._scenes = PoolBatches(scenes, tokenizer, recipe)
        self._recent: list[float] = []
        self.at = Progress(elapsed_seconds=time.monotonic() - started)

    @property
    def identity(self) -> dict[str, Any]:
        """Values of the recipe; the batches have a state of their own, so a saved run cannot be resumed exactly."""
        return asdict(self._recipe)

    def _compute_step(self) -> dict[str, float]:
        recipe = self._recipe
        if self.share_done < recipe.image_steps / self.schedule.num_steps:
            batches = [self._images.draw(recipe.batch_images)]
        else:
            batches = [
                self._images.draw(recipe.batch_images // 2),
                self._scenes.draw(recipe.batch_scenes),
            ]
        loss = torch.stack([self._loss(batch) for batch in batches]).mean()
        torch.autograd.backward(loss)
        self._update_weights()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOG_SCALE)
        self._recent = [*self._recent[-49:], loss.item()]
        return {"train": float(np.mean(self._recent))}

    def _loss(self, batch: Batch) -> torch.Tensor:
        model, size = self.model, self._recipe.embed_dim
        num_examples, num_frames = batch.mask.shape
        with torch.autocast("cpu", torch.bfloat16):
            frames = embed_frames(model, batch.pixels.flatten(0, 1))  # [B * T, D]
            texts = embed_texts(model, batch.tokens, self._tokenizer.pad_token_id)  # [B, D]
        videos = mean_pool(frames.view(num_examples, num_frames, -1), batch.mask)
        logits = model.logit_scale.exp() * texts @ videos.T
        contrast = contrastive_loss(logits, batch.named, batch.facts)
        # the entries of unit vectors are small; times the root of their width they are about 1
        grow = math.sqrt(size)
        read_videos = facts_loss(self._head(videos * grow), batch.facts)
        read_texts = facts_loss(self._head(texts * grow), batch.named)
        return contrast + self._recipe.facts_weight * (read_videos + read_texts)

    @property
    def has_validation(self) -> bool:
        """Whether there are held-out images."""
        return self._held_out is not None

    def _compute_validation(self) -> Validation | None:
        assert self._held_out is not None
        top1 = self._held_out.top1(self.model.eval(), self._tokenizer)
        summary = f"held-out top-1 {top1:.3f}, {self.at.elapsed_seconds:.0f} s"
        return Validation(self.at.step, top1, {"validation/top-1": top1}, summary)


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = BundledClipRecipe.seed,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of phase one, on images.")
    ] = BundledClipRecipe.image_steps,
    scene_steps: Annotated[
        int, typer.Option(min=0, help="Steps of phase two, on images and scenes.")
    ] = BundledClipRecipe.scene_steps,
    pictures: Annotated[
        int, typer.Option(min=1, help="Images rendered to train on.")
    ] = BundledClipRecipe.num_images,
    scenes: Annotated[
        int, typer.Option(min=1, help="Scenes rendered to train on.")
    ] = BundledClipRecipe.num_scenes,
    minutes_cap: Annotated[
        float, typer.Option(min=0.1, help="Minutes after which training ends, rendering included.")
    ] = 27.0,
    threads: Annotated[
        int, typer.Option(min=1, help="Processes that render, and threads of a step.")
    ] = 2,
) -> None:
    """Train a small CLIP on our rendered world and print its held-out figure."""
    recipe = BundledClipRecipe(
        seed=seed,
        image_steps=steps,
        scene_steps=scene_steps,
        num_images=pictures,
        num_scenes=scenes,
    )
    started = time.monotonic()
    console = Console()
    torch.set_num_threads(threads)
    pools = render_pools(recipe.examples, workers=threads)
    console.print(f"rendered in {time.monotonic() - started:.0f} s")
    texts = (text for pool in pools for each in pool.captions for text in each)
    tokenizer = build_tokenizer(texts, recipe)
    side, size = recipe.image_size, recipe.examples.draw_size
    held_out = HeldOutImages.draw(HELD_OUT_IMAGES, 1, side, draw_size=size)
    cap_seconds = 60 * minutes_cap - (time.monotonic() - started)
    run = BundledClipRun(recipe, *pools, tokenizer, cap_seconds=cap_seconds, held_out=held_out)
    with progress_bar("training", console=console) as report:
        train(run, callbacks=ConsoleCallbacks(console, report))
    save_checkpoint(run.model.eval(), tokenizer, out)
    minutes = (time.monotonic() - started) / 60
    console.print(f"trained {run.at.step} steps and saved after {minutes:.1f} min")
    console.print(f"held-out top-1 among {HELD_OUT_IMAGES} images: {held_out_top1(out):.3f}")


if __name__ == "__main__":
    typer.run(main)
