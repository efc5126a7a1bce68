"""Joint embedding models: one network for images and texts, with a prompt around what it reads.

    encoder = JointEncoder("google/embeddinggemma-2@256", folder, ModelSettings(), width=256)

EmbeddingGemma 2 takes the mean of all tokens, Qwen3-VL-Embedding the last one (arXiv 2601.04720). Both were trained so
that the first numbers of a vector are a vector themselves (Matryoshka, arXiv 2205.13147): ``width`` keeps that many.
Their own processors need torchvision; what they do with an image is done here, and compared with them in the tests.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.families import Family
from scanonce.models.encoders.patches import PatchPreprocessing
from scanonce.models.encoders.protocol import Towers
from scanonce.models.encoders.texts import Texts
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError


@dataclass(frozen=True, slots=True)
class _Prompts:
    """The words around a query and around an image, as in the training for retrieval."""

    query: str
    image: str


_CHAT = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_PROMPTS = {
    "embedding_gemma2": _Prompts("task: search result | query: {}", "{}"),
    "qwen3_vl": _Prompts(
        _CHAT.format("Retrieve images or text relevant to the user's query.", "{}"),
        _CHAT.format("Represent the user's input.", "{}"),
    ),
}


class JointEncoder(TransformersEncoder):
    """`ClipEncoder` of a joint embedding model. Both "towers" are one network, so none is ever released."""

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: ModelSettings,
        *,
        towers: Towers = "both",
        width: int | None = None,
    ) -> None:
        """Load the model; for the arguments see `TransformersEncoder`.

        Args:
            name: name to report, with the width if one was asked for.
            folder: see `TransformersEncoder`.
            settings: see `TransformersEncoder`.
            towers: ignored.
            width: numbers of a vector to keep; None: all.

        Raises:
            EncoderError: the folder does not hold a usable model, or it has fewer numbers than ``width``.
        """
        super().__init__(name, folder, settings)
        if width is None:
            return
        if width > self._dim:
            raise EncoderError(
                f'encoder "{name}": its vectors have {self._dim} numbers, not {width}. '
                f"Set models.dim to at most {self._dim}, or to 0 for all."
            )
        self._dim = width
        self._fingerprint = hashlib.sha256(f"{self._fingerprint}@{width}".encode()).hexdigest()

    def _make_texts(self, tokenizer: Any) -> Texts:
        return _PromptedTexts(tokenizer, self._family, self._model.config)

    def _text_features(self, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
        whole = self._pool(self._model(**tokens), tokens["attention_mask"])
        return whole[:, : self._width], whole

    def _image_features(self, images: torch.Tensor) -> torch.Tensor:
        steps = self._preprocessing
        assert isinstance(steps, PatchPreprocessing)
        grids = steps.grids(images)
        counts = grids.prod(dim=1) // steps.multiple**2
        tokens = self._image_tokens(counts.tolist())
        patches = steps.normalise(images, self._dtype)
        if steps.rule == "gemma":
            inputs = {"pixel_values": patches, "image_position_ids": _positions(grids, patches)}
        else:
            inputs = {
                "pixel_values": _merged(patches, grids, self._model.config.vision_config),
                "image_grid_thw": torch.nn.functional.pad(grids, (1, 0), value=1),
                "mm_token_type_ids": (
                    tokens["input_ids"] == self._model.config.image_token_id
                ).int(),
            }
        output = self._model(**tokens, **inputs)
        return self._pool(output, tokens["attention_mask"])[:, : self._width]

    def _image_tokens(self, counts: Sequence[int]) -> Any:
        """Tokens of images that take these numbers of tokens."""
        config = self._model.config
        assert self._texts is not None
        tokenizer = self._texts.tokenizer
        begin, end = (
            (config.boi_token_id, config.eoi_token_id)
            if self._family.pools_mean
            else (config.vision_start_token_id, config.vision_end_token_id)
        )
        opened, image, closed = tokenizer.convert_ids_to_tokens([begin, config.image_token_id, end])
        prompt = _PROMPTS[config.model_type].image
        texts = [prompt.format(f"{opened}{image * count}{closed}") for count in counts]
        tokens = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        return _without_types(tokens).to(self._device)

    def _pool(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """Features ``[N, whole width]`` of states ``[N, num_tokens, whole width]``."""
        states: torch.Tensor = output.last_hidden_state
        if self._family.pools_mean:
            weights = mask.to(states.dtype)[..., None]
            return (states * weights).sum(dim=1) / weights.sum(dim=1)
        return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]

    @property
    def _width(self) -> int | None:
        """Numbers of a vector to keep; None while the model is being loaded: all."""
        return getattr(self, "_dim", None)


class _PromptedTexts(Texts):
    """Queries with the prompt of retrieval around them."""

    def __init__(self, tokenizer: Any, family: Family, config: Any) -> None:
        super().__init__(tokenizer, family, config)
        self._prompt = _PROMPTS[config.model_type].query

    def tokens(self, texts: Sequence[str]) -> Any:
        """Return the keyword arguments of the model; a longer text is cut, its prompt is not."""
        prompted = [self._prompt.format(self._cut(text)) for text in texts]
        tokens = self.tokenizer(prompted, padding=True, padding_side="right", return_tensors="pt")
        return _without_types(tokens)

    def _cut(self, text: str) -> str:
        pieces = self.tokenizer.encode(text, add_special_tokens=False)
        if len(pieces) <= self.max_tokens:
            return text
        cut: str = self.tokenizer.decode(pieces[: self.max_tokens])
        return cut


def _without_types(tokens: Any) -> Any:
    tokens.pop("token_type_ids", None)
    return tokens


def _positions(grids: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Return (column, row) of each patch, ``[N, max_patches, 2]``; -1 for patches that are not there."""
    numbers = torch.arange(patches.shape[1], device=patches.device)[None]
    rows, columns = grids[:, :1], grids[:, 1:]
    places = torch.stack([numbers % columns, numbers // columns], dim=2)
    return torch.where((numbers < rows * columns)[..., None], places, -1)


def _merged(patches: torch.Tensor, grids: torch.Tensor, config: Any) -> torch.Tensor:
    """Return all patches of a batch as Qwen's vision tower takes them, ``[num_patches, 3 * frames * patch * patch]``.

    The patches of a token follow each other, and each is repeated for the two frames that the tower reads at once.
    """
    merge, side, frames = config.spatial_merge_size, config.patch_size, config.temporal_patch_size
    parts = []
    for cells, (rows, columns) in zip(patches, grids.tolist(), strict=True):
        grid = cells[: rows * columns].reshape(
            rows // merge, merge, columns // merge, merge, side, side, 3
        )
        tokens = grid.permute(
            0, 2, 1, 3, 6, 4, 5
        )  # row, column, both within a token, channel, y, x
        flat = tokens.reshape(rows * columns, 3, 1, side * side)
        parts.append(flat.expand(-1, -1, frames, -1).reshape(rows * columns, -1))
    return torch.cat(parts)
