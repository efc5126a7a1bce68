"""Encoders in the `transformers` format (CLIP, SigLIP, SigLIP 2, MetaCLIP 2 ...), from a local folder, on torch.

    encoder = TransformersEncoder("bundled", find_folder("bundled"), ModelSettings())
    encoder.encode_texts(["a red car at night"]).shape          # (1, 128)

Both towers return *raw* projected features; see `scanonce.models.encoders.load`. What a class of models asks for beyond
that is in `scanonce.models.encoders.families`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.models.encoders.families import Family
from scanonce.models.encoders.files import (
    files_of_head,
    read_family,
    read_model,
    read_tokenizer,
    reason,
)
from scanonce.models.encoders.hub import fingerprint_folder
from scanonce.models.encoders.patches import read_patches
from scanonce.models.encoders.preprocess import Preprocessing, read_preprocessing
from scanonce.models.encoders.protocol import TextFeatures, Towers
from scanonce.models.encoders.reading import Reading
from scanonce.models.encoders.texts import Texts
from scanonce.models.runtime import num_cores, pick_device, pick_dtype, use_one_thread
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError

_VISION_TOWERS = ("vision_model", "visual_projection", "vision_proj", "video_model", "mit")
_TEXT_TOWERS = ("text_model", "text_encoder", "text_projection", "text_proj")
_PROBE = "a"  # any text has the width of the joint space


class TransformersEncoder:
    """`ClipEncoder` of a checkpoint folder in the `transformers` format.

    Weights are read from safetensors, or from PyTorch's format with its unpickler restricted to tensors. Code in a
    checkpoint folder is never run.
    """

    def __init__(
        self, name: str, folder: Path, settings: ModelSettings, *, towers: Towers = "both"
    ) -> None:
        """Load the towers.

        Args:
            name: name to report; see `ClipEncoder.name`.
            folder: folder with config.json, weights and processor.
            settings: device and number format; the back end is ignored.
            towers: towers that are needed; the memory of the other one is released.

        Raises:
            EncoderError: the folder does not hold a usable dual encoder.
        """
        self._family = read_family(folder, name)
        self._name = name
        self._fingerprint = fingerprint_folder(folder)
        self._device = pick_device(settings.device)
        self._dtype = _pick_dtype(self._device, settings, self._family)
        self._preprocessing = _read_steps(self._family, folder)
        self._model = read_model(folder, self._family, self._dtype).to(self._device)
        _refuse_without_features(self._model, self._family, folder)
        self._texts = None if towers == "vision" else self._make_texts(read_tokenizer(folder))
        _release(self._model, towers)
        self._dim, self._text_width = self._probe_widths(folder)
        self._head_files = files_of_head(folder, self._dim)

    def _make_texts(self, tokenizer: Any) -> Texts:
        return Texts(tokenizer, self._family, self._model.config)

    @property
    def name(self) -> str:
        """Name it was loaded by."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Digest of weights and configuration."""
        return self._fingerprint

    @property
    def family(self) -> Family:
        """Family of its class of models."""
        return self._family

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self._dim

    @property
    def preprocessing(self) -> Preprocessing:
        """Resize, crop and normalisation constants of the checkpoint."""
        return self._preprocessing

    @property
    def head_files(self) -> tuple[Path, ...]:
        """Files of the head in its folder, if there is one. With a tight head, clips are still pooled by their mean."""
        return self._head_files

    @property
    def batch_frames(self) -> int:
        """32 frames on a CPU, 256 on a GPU, which needs hundreds to be busy."""
        return 32 if self._device.type == "cpu" else 256

    @property
    def max_concurrency(self) -> int:
        """One call per core on a CPU; one call on a GPU, which has a queue of its own."""
        return num_cores() if self._device.type == "cpu" else 1

    @property
    def device(self) -> torch.device:
        """Device of its weights."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of its weights."""
        return self._dtype

    @property
    def module(self) -> Any:
        """The `transformers` model, for training."""
        return self._model

    def tokenise(self, texts: Sequence[str]) -> Any:
        """Return the keyword arguments of the text tower, on its device; longer texts are cut to its context."""
        assert self._texts is not None, "loaded without its text tower"
        return self._texts.tokens(texts).to(self._device)

    def read(self, text: str) -> Reading:
        """Judge the words of a text by the tokenizer."""
        assert self._texts is not None, "loaded without its text tower"
        return self._texts.read(text)

    @torch.inference_mode()
    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode ``[N, H, W, 3]`` RGB, before or after ``preprocessing.resize``, to raw features ``[N, dim]``."""
        if not len(frames):
            return np.zeros((0, self._dim), np.float32)
        use_one_thread()  # the setting belongs to the calling thread
        images = torch.from_numpy(np.require(self._resized(frames), requirements="W"))
        if self._device.type == "cuda":
            images = images.pin_memory()  # the copy then overlaps with computing
        return to_numpy(self._image_features(images.to(self._device, non_blocking=True)))

    def _resized(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._preprocessing.resize(frames)

    def _image_features(self, images: torch.Tensor) -> torch.Tensor:
        """Features ``[N, dim]`` of resized frames ``[N, *output_size, 3]`` uint8 on the device."""
        inputs = self._preprocessing.inputs(images, self._dtype)
        if self._family.model_class is None:
            return _features(self._model.get_image_features(**inputs))
        states = self._model.vision_model(**inputs).last_hidden_state
        projected: torch.Tensor = self._model.vision_proj(states[:, 0])
        return projected

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to raw features ``[M, dim]``."""
        return self.encode_text_features(texts).joint

    @torch.inference_mode()
    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts to raw features ``[M, dim]`` and the states before the projection."""
        if not texts:
            return TextFeatures(
                np.zeros((0, self._dim), np.float32), np.zeros((0, self._text_width), np.float32)
            )
        use_one_thread()
        joint, states = self._text_features(self.tokenise(texts))
        return TextFeatures(to_numpy(joint), to_numpy(states))

    def _text_features(self, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``[M, dim]`` and states ``[M, width of the text tower]``."""
        if self._family.model_class is not None:
            first = self._model.text_encoder(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).last_hidden_state[:, 0]
            return self._model.text_proj(first), first
        states: list[torch.Tensor] = []
        # transformers 5 replaces the tower's own output by the projected features: a hook sees it before that
        hook = self._model.text_model.register_forward_hook(
            lambda _tower, _args, output: states.append(self._state_of(output))
        )
        try:
            joint = _features(self._model.get_text_features(**tokens))
        finally:
            hook.remove()
        return joint, states[0]

    def _state_of(self, output: Any) -> torch.Tensor:
        """The state of each text, ``[M, width of the text tower]``, from the output of the tower."""
        first = self._family.text_state == "first" or output.pooler_output is None
        state: torch.Tensor = output.last_hidden_state[:, 0] if first else output.pooler_output
        return state

    @torch.inference_mode()
    def _probe_widths(self, folder: Path) -> tuple[int, int]:
        """Widths of the joint space and of the states of texts, from the tower that is there.

        Configurations do not always have them. Without the text tower the second is 0.
        """
        use_one_thread()
        try:
            if self._texts is not None:
                joint, states = self._text_features(self.tokenise([_PROBE]))
                return joint.shape[1], states.shape[1]
            grey = np.full((1, 64, 64, 3), 128, np.uint8)
            images = torch.from_numpy(self._preprocessing.resize(grey)).to(self._device)
            return self._image_features(images).shape[1], 0
        except Exception as error:  # whatever a model makes of a configuration that does not fit it
            side = "vision" if self._texts is None else "text"
            raise EncoderError(
                f"{folder} cannot be used: its {side} side fails ({type(error).__name__}: {reason(error)}). "
                "Its files do not fit together: fetch all of them again."
            ) from error


def to_numpy(features: torch.Tensor) -> NDArray[np.float32]:
    """Return features as float32 on the CPU."""
    array: NDArray[np.float32] = features.to(torch.float32).cpu().numpy()
    return array


def _features(output: Any) -> torch.Tensor:
    # transformers 5 returns an object with the features [N, dim], not normalised; transformers 4 the tensor itself
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features


def _pick_dtype(device: torch.device, settings: ModelSettings, family: Family) -> torch.dtype:
    dtype = pick_dtype(device, settings.dtype)
    if dtype is not torch.float16 or family.allows_float16:
        return dtype
    if settings.dtype == "float16":
        raise EncoderError(
            f'{family.name} computes numbers beyond the range of float16: set models.dtype to "auto", "bfloat16" or '
            '"float32".'
        )
    return torch.float32


def _read_steps(family: Family, folder: Path) -> Preprocessing:
    rule = family.patches
    return read_preprocessing(folder) if rule is None else read_patches(folder, rule)


def _refuse_without_features(model: Any, family: Family, folder: Path) -> None:
    if family.model_class is not None or family.is_joint:
        return
    images = "get_video_features" if family.is_video else "get_image_features"
    if not (hasattr(model, images) and hasattr(model, "get_text_features")):
        raise EncoderError(
            f"{folder}: {type(model).__name__} has no image and text features; use CLIP or SigLIP."
        )


def _release(model: Any, towers: Towers) -> None:
    """Release the tower that is not needed."""
    unused = {"both": (), "vision": _TEXT_TOWERS, "text": _VISION_TOWERS}[towers]
    for name in unused:
        if hasattr(model, name):
            setattr(model, name, None)
