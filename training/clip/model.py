"""A dual encoder and its head as one trainable module, and the checkpoint folder of the result."""

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
from scanonce.models.encoders.patches import PatchPreprocessing
from scanonce.models.runtime import pick_dtype
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import ConfigError, EncoderError
from scanonce.training.clip.batches import Part
from scanonce.training.clip.contrast import Embedded
from scanonce.training.clip.recipe import MAX_LOG_SCALE, Recipe
from scanonce.training.loop import adamw

_PAIRS_AT_ONCE = 8192
"""Pairs of a text and a video that a tight head scores together."""

_COPIED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "*.model", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Files of a checkpoint folder, next to weights and configuration, that fine-tuning does not change."""


class TrainedClip(torch.nn.Module):
    """Embeds frames and texts, with gradients."""

    def __init__(self, encoder: TransformersEncoder, recipe: Recipe) -> None:
        """Train an encoder in float32, in place.

        A head of the wanted kind in the encoder's folder is trained further; otherwise there is a new one.

        Raises:
            EncoderError: the model has no temperature, or a head cannot be made for it.
            ConfigError: the recipe freezes more layers than there are.
        """
        super().__init__()
        self._encoder = encoder
        self._recipe = recipe
        self.module: Any = encoder.module
        if isinstance(encoder.preprocessing, PatchPreprocessing):
            raise EncoderError(
                f"{encoder.name}: encoders of frames of any shape cannot be fine-tuned here. Use one of a fixed size, "
                'such as "google/siglip2-base-patch16-224".'
            )
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
            # over a few dozen tokens its backward pass is several times as fast as that of the fused kernel
            self.module.set_attn_implementation("eager")
        if recipe.checkpointing:
            self.module.activation_checkpointing_enable({"use_reentrant": False})
            self.module.disable_input_require_grads()  # only the reentrant variant needs these
        wanted = pick_dtype(encoder.device, recipe.precision)
        self._has_bfloat16 = wanted == torch.bfloat16

    @property
    def source_fingerprint(self) -> str:
        """Fingerprint of the files of the encoder."""
        return self._encoder.fingerprint

    @property
    def log_scale(self) -> torch.nn.Parameter:
        """Logarithm of the inverse temperature, the factor of the cosines."""
        scale: torch.nn.Parameter = self.module.logit_scale
        return scale

    @property
    def scores_are_cosines(self) -> bool:
        """Whether scores need the temperature; those of a tight head do not."""
        return not isinstance(self.head, TightHead)

    def texts_at_once(self, num_videos: int) -> int | None:
        """Return the number of texts that `score` takes at once with this number of videos; None: any number."""
        return None if self.scores_are_cosines else max(1, _PAIRS_AT_ONCE // num_videos)

    def embed(self, part: Part) -> Embedded:
        """Embed texts and videos of a part, float32; see `embed_texts` and `embed_videos`."""
        videos, mask = self.embed_videos(part)
        return Embedded(self.embed_texts(part.texts), videos, mask)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed texts, [B, D] of length 1; raw features for a tight head."""
        with self._autocast():
            output = self.module.get_text_features(**self._encoder.tokenise(texts))
        features: torch.Tensor = output.pooler_output.float()
        return F.normalize(features, dim=-1) if self.scores_are_cosines else features

    def embed_videos(self, part: Part) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embed videos.

        Returns:
            [B, D] of length 1, and None; for a tight head raw frames [B, max_frames, D] and their mask, bool [B, T].
        """
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
        """Score texts with videos, [Q, B] float32: cosines, or the scores of a tight head."""
        if self.scores_are_cosines:
            return texts @ videos.T
        assert isinstance(self.head, TightHead)
        with self._autocast():
            scores: torch.Tensor = self.head(texts, videos, mask)
        return scores.float()

    def clamp_temperature(self) -> None:
        """Clamp the temperature as CLIP does, after each step."""
        with torch.no_grad():
            self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def freeze(self, recipe: Recipe) -> None:
        """Switch gradients off for the layers that the recipe freezes, in both towers.

        Raises:
            ConfigError: a tower has fewer blocks.
            EncoderError: a tower does not consist of embeddings and blocks as those of CLIP and SigLIP do.
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
                    f"freeze layers must be 0 to {len(blocks)}, the number of blocks of the {name}; got "
                    f"{recipe.freeze_layers}"
                )
            tower.embeddings.requires_grad_(False)
            if hasattr(tower, "pre_layrnorm"):  # CLIP's spelling; between embeddings and blocks
                tower.pre_layrnorm.requires_grad_(False)
            blocks[: recipe.freeze_layers].requires_grad_(False)

    def optimizer(self) -> torch.optim.AdamW:
        """AdamW over all parameters that are not frozen, in groups named encoder and head."""
        recipe = self._recipe
        parts = [("encoder", self.module.parameters(), recipe.encoder_lr)]
        parts += [("head", self.head.parameters(), recipe.lr)] if self.head is not None else []
        return adamw(parts, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), eps=1e-6)

    def _autocast(self) -> torch.autocast:
        device = self._encoder.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._has_bfloat16)


def open_encoder(name: str, device: torch.device) -> TransformersEncoder:
    """Open an encoder by name with float32 weights, on the device.

    Raises:
        EncoderError: it cannot be found or is not a dual encoder.
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
                f"the head of {encoder.name} cannot be trained with {recipe.max_frames} frames: {error}; it was "
                f"trained with {found.config.max_frames} (--max-frames)"
            ) from error
        return found.train()
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        return build_head(recipe.head, encoder.dim, recipe.max_frames, encoder.module.text_model)


def write_checkpoint(model: TrainedClip, source: Path, folder: Path) -> None:
    """Write a plain `transformers` folder, float32, with tokenizer and preprocessing of the source, and the head.

    In float32, since the changes of a small learning rate would be lost in the rounding of a shorter format.

    Args:
        model: model to be written.
        source: folder of the encoder that training started from.
        folder: folder to be written; made if it is missing.
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
