"""A dual encoder and its head as one thing to be trained, and the checkpoint folder it becomes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.utils import logging as transformers_logging

from scanonce.models.clip4clip.build import build_head
from scanonce.models.clip4clip.head_files import read_head, write_head
from scanonce.models.clip4clip.heads import Head, TightHead, embed_frames
from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.hub import find_folder
from scanonce.models.runtime import pick_dtype
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import ConfigError, EncoderError
from scanonce.training.clip.batches import Part
from scanonce.training.clip.contrast import Embedded
from scanonce.training.clip.recipe import MAX_LOG_SCALE, Recipe

_PAIRS_AT_ONCE = 8192
"""Of texts with videos that a tight head scores together."""

_COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "*.model", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""What a checkpoint folder has beside weights and configuration, and fine-tuning leaves as it is."""


class TrainedClip(torch.nn.Module):
    """Frames and sentences become embeddings, with gradients."""

    def __init__(self, encoder: TransformersEncoder, recipe: Recipe) -> None:
        """Of an encoder in float32, which is trained in place.

        A head of the wanted kind that is beside the encoder's weights is trained on, else a new one begins.

        Raises:
            EncoderError: the model has no temperature, or a head cannot be made for it.
            ConfigError: more layers are to be frozen than there are.
        """
        super().__init__()
        self._encoder = encoder
        self._recipe = recipe
        self.module: Any = encoder.module
        if not isinstance(getattr(self.module, "logit_scale", None), torch.nn.Parameter):
            raise EncoderError(
                f"{encoder.name}: {type(self.module).__name__} has no logit_scale, which the contrastive loss needs; "
                "use CLIP or SigLIP."
            )
        self.head = _open_head(encoder, recipe)
        if self.head is not None:
            self.head.to(encoder.device)
        self.freeze(recipe)
        on_cpu = encoder.device.type == "cpu"
        if on_cpu:
            # over a few dozen tokens its way back is several times as quick there as that of the fused kernel
            self.module.set_attn_implementation("eager")
        if recipe.checkpointing:
            self.module.activation_checkpointing_enable({"use_reentrant": False})
            self.module.disable_input_require_grads()  # that is for the other way of doing it
        wanted = pick_dtype(encoder.device, recipe.precision)
        self._has_bfloat16 = wanted == torch.bfloat16

    @property
    def source_fingerprint(self) -> str:
        """Of the files it was read from."""
        return self._encoder.fingerprint

    @property
    def log_scale(self) -> torch.nn.Parameter:
        """Logarithm of the temperature's inverse, which cosines are multiplied by."""
        scale: torch.nn.Parameter = self.module.logit_scale
        return scale

    @property
    def scores_are_cosines(self) -> bool:
        """Whether scores are to be multiplied by the temperature; those of a tight head are as they are."""
        return not isinstance(self.head, TightHead)

    def texts_at_once(self, num_videos: int) -> int | None:
        """How many texts `score` takes at once beside so many videos; None: any number."""
        return None if self.scores_are_cosines else max(1, _PAIRS_AT_ONCE // num_videos)

    def embed(self, part: Part) -> Embedded:
        """Sentences and videos of a part, float32; see `embed_texts` and `embed_videos`."""
        videos, mask = self.embed_videos(part)
        return Embedded(self.embed_texts(part.texts), videos, mask)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """[B, D] of length 1; raw for a tight head."""
        with self._autocast():
            output = self.module.get_text_features(**self._encoder.tokenise(texts))
        features: torch.Tensor = output.pooler_output.float()
        return F.normalize(features, dim=-1) if self.scores_are_cosines else features

    def embed_videos(self, part: Part) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[B, D] of length 1 and None; for a tight head raw frames [B, max_frames, D] and their mask, bool [B, T]."""
        device = self._encoder.device
        images = torch.from_numpy(np.require(part.frames, requirements="W"))
        with self._autocast():
            pixels = self._encoder.preprocessing.normalise(images.to(device), torch.float32)
            output = self.module.get_image_features(pixel_values=pixels)
        features: torch.Tensor = output.pooler_output.float()  # [sum of lengths, D]
        tight = not self.scores_are_cosines
        longest = self._recipe.max_frames if tight else max(part.lengths)
        lengths = torch.tensor(part.lengths, device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]  # [B, T]
        frames = features.new_zeros(*mask.shape, features.shape[-1])
        frames = frames.masked_scatter(mask[..., None], features)  # [B, T, D]
        return (frames, mask) if tight else (embed_frames(self.head, frames, mask), None)

    def score(
        self, texts: torch.Tensor, videos: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """[Q, B] float32: cosines, or the scores of a tight head."""
        if self.scores_are_cosines:
            return texts @ videos.T
        assert isinstance(self.head, TightHead)
        with self._autocast():
            scores: torch.Tensor = self.head(texts, videos, mask)
        return scores.float()

    def clamp_temperature(self) -> None:
        """CLIP's clamp, after each step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def freeze(self, recipe: Recipe) -> None:
        """Takes gradients from what the recipe leaves as it is, in both towers.

        Raises:
            ConfigError: a tower has not so many blocks.
            EncoderError: a tower is not built of embeddings and blocks as those of CLIP and SigLIP are.
        """
        if recipe.encoder_lr == 0:
            self.module.requires_grad_(False)
        if recipe.freeze_layers == 0:
            return
        for name in ("text_model", "vision_model"):
            tower = getattr(self.module, name, None)
            blocks = getattr(getattr(tower, "encoder", None), "layers", None)
            if tower is None or blocks is None or not hasattr(tower, "embeddings"):
                raise EncoderError(
                    f"{type(self.module).__name__} has no {name} of embeddings and encoder.layers: its layers cannot "
                    "be frozen (freeze layers 0)"
                )
            if recipe.freeze_layers > len(blocks):
                raise ConfigError(
                    f"freeze layers must be 0 to {len(blocks)}, which is how many blocks the {name} has; got "
                    f"{recipe.freeze_layers}"
                )
            tower.embeddings.requires_grad_(False)
            if hasattr(tower, "pre_layrnorm"):  # so spelt in CLIP: between embeddings and blocks
                tower.pre_layrnorm.requires_grad_(False)
            blocks[: recipe.freeze_layers].requires_grad_(False)

    def optimizer(self) -> torch.optim.AdamW:
        """AdamW over what is trained; each group's ``highest`` is the learning rate it is warmed up to."""
        groups = []
        modules = [("encoder", self.module, self._recipe.encoder_lr)]
        modules += [("head", self.head, self._recipe.lr)] if self.head is not None else []
        for name, module, rate in modules:
            for is_matrix in (True, False):  # biases, norms and the temperature are none
                chosen = [p for p in module.parameters() if p.requires_grad]
                chosen = [p for p in chosen if (p.ndim >= 2) == is_matrix]
                decay = self._recipe.weight_decay if is_matrix else 0.0
                if chosen:
                    shared = {"weight_decay": decay, "lr": rate, "highest": rate, "name": name}
                    groups.append({"params": chosen, **shared})
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)

    def _autocast(self) -> torch.autocast:
        device = self._encoder.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._has_bfloat16)


def open_encoder(name: str, device: torch.device) -> TransformersEncoder:
    """The encoder of that name with float32 weights, on the device.

    Raises:
        EncoderError: it cannot be found or is no dual encoder.
    """
    settings = ModelSettings(device=str(device), dtype="float32")
    return TransformersEncoder(name, find_folder(name), settings)


def _open_head(encoder: TransformersEncoder, recipe: Recipe) -> Head | None:
    if recipe.head == "mean":
        return None
    found = read_head(find_folder(encoder.name))
    if found is not None and found.config.kind == recipe.head:
        try:
            found.config = replace(found.config, max_frames=recipe.max_frames)
        except ValueError as error:
            raise EncoderError(
                f"the head beside {encoder.name} cannot be trained with {recipe.max_frames} frames: {error}; it has "
                f"seen {found.config.max_frames} (--max-frames)"
            ) from error
        return found.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        return build_head(recipe.head, encoder.dim, recipe.max_frames, encoder.module.text_model)


def write_checkpoint(model: TrainedClip, source: Path, folder: Path) -> None:
    """Writes a plain `transformers` folder, float32, with what else of the source's files it needs, and the head.

    In float32, since what a small learning rate changes would be lost in the rounding of a shorter format.

    Args:
        model: its weights are written.
        source: folder the encoder was read from.
        folder: made, if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.module.save_pretrained(folder)
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()
    for pattern in _COPIED:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    write_head(model.head, folder)
