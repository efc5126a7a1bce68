"""Trains the bundled checkpoint: a small CLIP, from scratch, on our own rendered world.

What comes out is an ordinary `transformers` CLIPModel folder. Phase one pairs pictures with
captions; phase two pairs whole scenes, pooled as CLIP4Clip's meanP, with captions that say what
happens, so that the words of time are known too. Nothing of a held-out (thing, colour) pair
(`training.world.films.is_held_out`) is ever trained on.

    python -m scanonce.training.bundled.clip models/bundled/clip
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from scanonce.training.bundled.clip_examples import (
    ExamplePlan,
    Pool,
    example_painter,
    render_pools,
    squeeze,
)
from scanonce.training.clip.recipe import MAX_LOG_SCALE
from scanonce.training.world.scene import (
    FILM_SIZE,
    HAPPENINGS,
    SceneSpec,
    draw_picture,
    random_scene,
    view_at,
)
from scanonce.training.world.words import FACTS, Caption, picture_caption, true_facts

PAD, BOS, UNK, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
# In this order EOS gets id 3: with id 2 CLIPTextModel would fall back to its oldest rule and pool
# at the highest id of a text, whatever that is, instead of at EOS.
SPECIAL_TOKENS = (PAD, BOS, UNK, EOS)

PIXEL_MEAN = PIXEL_STD = 0.5
"""Pixels of 0 to 1 become -1 to 1."""

ACTIVATION = "gelu_pytorch_tanh"
"""One operation forwards and one backwards; CLIP's "quick_gelu" is four, a third of a step."""

FACT_AXES: dict[str, list[int]] = {
    axis: [i for i, fact in enumerate(FACTS) if fact.startswith(f"{axis}:")]
    for axis in dict.fromkeys(fact.split(":")[0] for fact in FACTS)
}
"""The columns of a table of facts, by the question they answer."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, with the values the bundled checkpoint was made with."""

    seed: int = 0
    image_size: int = 96
    patch_size: int = 16
    embed_dim: int = 128
    vision_width: int = 128
    vision_layers: int = 5
    text_width: int = 128
    text_layers: int = 3
    vocab_size: int = 768
    max_tokens: int = 48
    num_pictures: int = 36_000
    """Rendered for phase one and met again and again."""
    num_scenes: int = 4_000
    """Rendered for phase two, `frames_per_scene` frames each."""
    frames_per_scene: int = 4
    batch_pictures: int = 128
    batch_scenes: int = 24
    picture_steps: int = 3_000
    scene_steps: int = 1_500
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    facts_weight: float = 0.5
    """Of the auxiliary loss that reads the facts off both embeddings."""

    @property
    def examples(self) -> ExamplePlan:
        """What is rendered to train on."""
        return ExamplePlan(
            seed=self.seed,
            image_size=self.image_size,
            num_pictures=self.num_pictures,
            num_scenes=self.num_scenes,
            frames_per_scene=self.frames_per_scene,
        )


# --- Tokenizer and model ------------------------------------------------------------------------


def build_tokenizer(texts: Iterator[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE: any text has tokens, unknown words fall into pieces."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=20,  # words by chance are not worth a token
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        unk_token=UNK,
        eos_token=EOS,
        model_max_length=recipe.max_tokens,
    )


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> CLIPModel:
    """An untrained CLIP of the recipe's sizes, float32."""
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "max_position_embeddings": recipe.max_tokens,
            "hidden_size": recipe.text_width,
            "hidden_act": ACTIVATION,
            "intermediate_size": 4 * recipe.text_width,
            "num_hidden_layers": recipe.text_layers,
            "num_attention_heads": recipe.text_width // 32,
            "projection_dim": recipe.embed_dim,
            **ids,
        },
        vision_config={
            "image_size": recipe.image_size,
            "patch_size": recipe.patch_size,
            "hidden_size": recipe.vision_width,
            "hidden_act": ACTIVATION,
            "intermediate_size": 4 * recipe.vision_width,
            "num_hidden_layers": recipe.vision_layers,
            "num_attention_heads": recipe.vision_width // 32,
            "projection_dim": recipe.embed_dim,
        },
        projection_dim=recipe.embed_dim,
        **ids,
    )
    torch.manual_seed(recipe.seed)
    # Eager attention: over a few dozen tokens its backward pass is several times as quick on a
    # CPU as that of the fused kernel. It is a choice of this process, not of the checkpoint.
    return CLIPModel._from_config(config, attn_implementation="eager")


def save_checkpoint(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes model (float16), tokenizer and preprocessing as an ordinary CLIP folder."""
    folder.mkdir(parents=True, exist_ok=True)
    halved = CLIPModel(model.config).half()
    halved.load_state_dict(model.state_dict())
    halved.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = model.config.vision_config.image_size
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": False,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [PIXEL_MEAN] * 3,
        "image_std": [PIXEL_STD] * 3,
    }
    text = json.dumps(preprocessing, indent=2)
    (folder / "preprocessor_config.json").write_text(f"{text}\n", encoding="utf-8")


# --- Losses -------------------------------------------------------------------------------------


def embed_frames(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Unit embeddings [N, D] of normalised pixels [N, 3, S, S]."""
    return F.normalize(model.get_image_features(pixels).pooler_output.float(), dim=-1)


def embed_texts(model: CLIPModel, tokens: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Unit embeddings [N, D] of token ids [N, L], padded on the right."""
    output = model.get_text_features(tokens, attention_mask=(tokens != pad_id).long())
    return F.normalize(output.pooler_output.float(), dim=-1)


def mean_pool(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """CLIP4Clip's meanP: masked mean of unit frames [B, T, D] by mask [B, T], made unit, [B, D]."""
    weights = mask.to(frames.dtype)[..., None]  # [B, T, 1]
    mean = (frames * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1)


def contrastive_loss(
    logits: torch.Tensor, named: torch.Tensor, facts: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE in which every caption that is true of a picture is right for it.

    Args:
        logits: [captions, pictures], scaled cosines.
        named: float [captions, FACTS], what each caption states.
        facts: float [pictures, FACTS], what is true of each picture.
    """
    right = (named @ facts.T >= named.sum(dim=1, keepdim=True)).float()  # [captions, pictures]
    by_caption = F.cross_entropy(logits, right / right.sum(dim=1, keepdim=True))
    by_picture = F.cross_entropy(logits.T, (right / right.sum(dim=0, keepdim=True)).T)
    return (by_caption + by_picture) / 2


def facts_loss(scores: torch.Tensor, facts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every question that a row of facts answers.

    Args:
        scores: [N, FACTS], unscaled logits.
        facts: float [N, FACTS]; a question with no fact set is open and costs nothing.
    """
    total = scores.new_zeros(())
    for columns in FACT_AXES.values():
        asked = facts[:, columns]
        known = asked.sum(dim=1)  # 0 or 1 per row
        log_shares = F.log_softmax(scores[:, columns], dim=1)
        total = total - (asked * log_shares).sum() / known.sum().clamp(min=1)
    return total / len(FACT_AXES)


# --- Training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Examples of one kind, as tensors."""

    pixels: torch.Tensor
    """float32 [B, T, 3, S, S], normalised."""
    mask: torch.Tensor
    """bool [B, T], which frames count."""
    tokens: torch.Tensor
    """int64 [B, L]."""
    named: torch.Tensor
    """float32 [B, FACTS]."""
    facts: torch.Tensor
    """float32 [B, FACTS]."""


class Batches:
    """Endless random batches of a pool, the same for the same seed."""

    def __init__(self, pool: Pool, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
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
        """The next batch, without an example twice in it."""
        pool, rng = self._pool, self._rng
        rows = rng.choice(len(pool.frames), min(batch_size, len(pool.frames)), replace=False)
        which = rng.integers(self._tokens.shape[1], size=len(rows))
        tokens = self._tokens[rows, which]
        longest = int((tokens != self._pad_id).sum(axis=1).max())
        return Batch(
            pixels=self._augmented(pool.frames[rows]),
            mask=torch.from_numpy(self._mask(len(rows))),
            tokens=torch.from_numpy(tokens[:, :longest]),
            named=torch.from_numpy(pool.named[rows, which].astype(np.float32)),
            facts=torch.from_numpy(pool.facts[rows].astype(np.float32)),
        )

    def _mask(self, size: int) -> NDArray[np.bool_]:
        """Clips are of any length: some frames at random do not count, one at least does."""
        num_frames = self._pool.frames.shape[1]
        kept = self._rng.integers((num_frames + 1) // 2, num_frames + 1, size=(size, 1))
        order = self._rng.random((size, num_frames)).argsort(axis=1)
        return np.asarray(order < kept)

    def _augmented(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Frames a little shifted, brighter or darker, and some with a fade's ghost in them.

        All in place and in few passes: this runs between two steps, on the same cores.
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
        # From 0..255 to normalised, with a contrast and a brightness of its own per example.
        contrast, brightness = per_example(0.93, 1.07), per_example(-0.03, 0.03)
        pixels.mul_(contrast / 255 / PIXEL_STD).add_((brightness - PIXEL_MEAN) / PIXEL_STD)
        pixels.clamp_(-PIXEL_MEAN / PIXEL_STD, (1 - PIXEL_MEAN) / PIXEL_STD)
        return pixels.permute(0, 1, 4, 2, 3)


@dataclass(frozen=True)
class Progressed:
    """How far training is, told after every step."""

    step: int
    steps: int
    loss: float
    """Mean over the last steps."""


def share_done(step: int, steps: int, started: float, cap_seconds: float) -> float:
    """How much of the training lies behind, 0 to 1, by steps or by time, whichever is further.

    By time, so that a slow machine comes to a well-cooled end too. Then, and only then, the
    outcome depends on the machine.
    """
    return max(step / steps, (time.monotonic() - started) / cap_seconds)


def train(
    recipe: Recipe,
    pictures: Pool,
    scenes: Pool,
    tokenizer: PreTrainedTokenizerBase,
    *,
    cap_seconds: float = math.inf,
    report: Callable[[CLIPModel, Progressed], None] = lambda model, progressed: None,
) -> CLIPModel:
    """Trains a new model through both phases; the scenes come in for the last `scene_steps`.

    Args:
        recipe: Sizes, steps and rates.
        pictures: Examples of one frame.
        scenes: Examples of several frames.
        tokenizer: From `build_tokenizer`.
        cap_seconds: Ends earlier, with the learning rate cooled down in time, when reached.
        report: Called after each step.

    Returns:
        The model, float32, in evaluation mode.
    """
    model = build_model(recipe, tokenizer).train()
    head = torch.nn.Linear(recipe.embed_dim, len(FACTS))  # of the auxiliary loss, thrown away
    optimizer = _optimizer([model, head], recipe)
    picture_batches = Batches(pictures, tokenizer, recipe)
    scene_batches = Batches(scenes, tokenizer, recipe)
    steps = recipe.picture_steps + recipe.scene_steps
    recent: list[float] = []
    started = time.monotonic()
    for step in range(steps):
        done = share_done(step, steps, started, cap_seconds)
        if done >= 1:
            break
        _set_rate(optimizer, recipe, step, done)
        if done < recipe.picture_steps / steps:
            batches = [picture_batches.draw(recipe.batch_pictures)]
        else:
            batches = [
                picture_batches.draw(recipe.batch_pictures // 2),
                scene_batches.draw(recipe.batch_scenes),
            ]
        losses = [_loss(model, head, batch, tokenizer.pad_token_id, recipe) for batch in batches]
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOG_SCALE)
        recent = [*recent[-49:], loss.item()]
        report(model, Progressed(step + 1, steps, float(np.mean(recent))))
    return model.eval()


def _optimizer(modules: list[torch.nn.Module], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases, norms or the temperature."""
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _set_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, done: float) -> None:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    cool = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * warm * cool


def _loss(
    model: CLIPModel, head: torch.nn.Linear, batch: Batch, pad_id: int, recipe: Recipe
) -> torch.Tensor:
    size, num_frames = batch.mask.shape
    with torch.autocast("cpu", torch.bfloat16):
        frames = embed_frames(model, batch.pixels.flatten(0, 1))  # [B * T, D]
        texts = embed_texts(model, batch.tokens, pad_id)  # [B, D]
    videos = mean_pool(frames.view(size, num_frames, -1), batch.mask)
    logits = model.logit_scale.exp() * texts @ videos.T
    contrast = contrastive_loss(logits, batch.named, batch.facts)
    # Unit vectors are small; scaled by the root of their width they have entries of about 1.
    grow = math.sqrt(recipe.embed_dim)
    read_videos = facts_loss(head(videos * grow), batch.facts)
    read_texts = facts_loss(head(texts * grow), batch.named)
    return contrast + recipe.facts_weight * (read_videos + read_texts)


# --- The figure it is judged by -----------------------------------------------------------------


def held_out_pictures(num_pictures: int, seed: int) -> tuple[list[SceneSpec], list[Caption]]:
    """Stills of pairs that training never saw, each with its full caption."""
    rng = np.random.default_rng((seed, 37))
    scenes = [
        random_scene(rng, held_out=True, happening=HAPPENINGS[0]) for _ in range(num_pictures)
    ]
    return scenes, [picture_caption(true_facts(scene, 0.0), rng, full=True) for scene in scenes]


@torch.inference_mode()
def top1_of(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerBase,
    frames: NDArray[np.uint8],
    scenes: list[SceneSpec],
    captions: list[Caption],
) -> float:
    """How often the picture nearest to a caption has every attribute the caption names.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        frames: uint8 [N, S, S, 3], one squeezed still of each scene at its start.
        scenes: N scenes.
        captions: N captions, one of each scene.

    Returns:
        A share, 0 to 1.
    """
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255)
    encoded = tokenizer([c.text for c in captions], padding=True, return_tensors="pt")
    pictures = embed_frames(model, (pixels - PIXEL_MEAN) / PIXEL_STD)
    texts = embed_texts(model, encoded["input_ids"], tokenizer.pad_token_id)
    nearest = (texts @ pictures.T).argmax(dim=1).tolist()
    facts = [true_facts(scene, 0.0) for scene in scenes]
    return float(np.mean([c.facts <= facts[n] for c, n in zip(captions, nearest, strict=True)]))


def held_out_top1(encoder_folder: Path, *, num_pictures: int = 400, seed: int = 0) -> float:
    """Caption to frame top-1 of a saved checkpoint, on pairs never seen in training.

    Pictures are drawn at a film's full size and squeezed as frames are at search time.

    Args:
        encoder_folder: Written by `save_checkpoint`.
        num_pictures: How many pictures compete; drawing one costs up to 0.1 s.
        seed: Of pictures and captions.

    Returns:
        The share of captions whose nearest picture has all attributes named, 0 to 1.
    """
    model = CLIPModel.from_pretrained(encoder_folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    scenes, captions = held_out_pictures(num_pictures, seed)
    side = model.config.vision_config.image_size
    stills = (Image.fromarray(draw_picture(scene, FILM_SIZE)) for scene in scenes)
    frames = np.stack([squeeze(still, side) for still in stills])
    return top1_of(model, tokenizer, frames, scenes, captions)


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Of everything.")] = Recipe.seed,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of phase one, on pictures.")
    ] = Recipe.picture_steps,
    scene_steps: Annotated[
        int, typer.Option(min=0, help="Steps of phase two, on scenes too.")
    ] = Recipe.scene_steps,
    pictures: Annotated[
        int, typer.Option(min=1, help="Pictures rendered to train on.")
    ] = Recipe.num_pictures,
    scenes: Annotated[
        int, typer.Option(min=1, help="Scenes rendered to train on.")
    ] = Recipe.num_scenes,
    minutes_cap: Annotated[
        float, typer.Option(min=0.1, help="End training after so many minutes.")
    ] = 27.0,
    threads: Annotated[int, typer.Option(min=1, help="Processes that render, threads.")] = 2,
) -> None:
    """Train a small CLIP on our rendered world and print its held-out figure."""
    recipe = Recipe(
        seed=seed,
        picture_steps=steps,
        scene_steps=scene_steps,
        num_pictures=pictures,
        num_scenes=scenes,
    )
    started = time.monotonic()
    torch.set_num_threads(threads)
    picture_pool, scene_pool = render_pools(recipe.examples, workers=threads)
    typer.echo(f"rendered in {time.monotonic() - started:.0f} s")
    texts = (text for pool in (picture_pool, scene_pool) for each in pool.captions for text in each)
    tokenizer = build_tokenizer(texts, recipe)
    cap_seconds = 60 * minutes_cap - (time.monotonic() - started)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        report = _Reporter(progress, tokenizer, recipe)
        model = train(
            recipe, picture_pool, scene_pool, tokenizer, cap_seconds=cap_seconds, report=report
        )
    save_checkpoint(model, tokenizer, out)
    minutes = (time.monotonic() - started) / 60
    typer.echo(f"trained {report.steps_done} steps and saved after {minutes:.1f} min")
    typer.echo(f"held-out top-1 among 400 pictures: {held_out_top1(out):.3f}")


class _Reporter:
    """Moves the progress bar, and every so often prints a line with the held-out figure."""

    def __init__(
        self, progress: Progress, tokenizer: PreTrainedTokenizerBase, recipe: Recipe
    ) -> None:
        self._progress, self._tokenizer, self._started = progress, tokenizer, time.monotonic()
        self.steps_done = 0
        steps = recipe.picture_steps + recipe.scene_steps
        self._task = progress.add_task("training", total=steps, note="")
        self._scenes, self._captions = held_out_pictures(400, seed=1)
        painter = example_painter(recipe.examples.draw_size)
        self._frames = np.stack(
            [squeeze(painter.paint(view_at(s, 0.0)), recipe.image_size) for s in self._scenes]
        )

    def __call__(self, model: CLIPModel, progressed: Progressed) -> None:
        self.steps_done = progressed.step
        note = f"loss {progressed.loss:.3f}"
        self._progress.update(self._task, completed=progressed.step, note=note)
        if progressed.step % 250 and progressed.step != progressed.steps:
            return
        model.eval()
        top1 = top1_of(model, self._tokenizer, self._frames, self._scenes, self._captions)
        model.train()
        seconds = time.monotonic() - self._started
        self._progress.console.print(
            f"step {progressed.step} of {progressed.steps}: {note}, "
            f"held-out top-1 {top1:.3f}, {seconds:.0f} s"
        )


if __name__ == "__main__":
    typer.run(main)
