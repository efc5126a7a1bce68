"""Encoders in the `transformers` format (CLIP, SigLIP, SigLIP 2, MetaCLIP 2 ...), from a local folder, on torch.

    encoder = TransformersEncoder("bundled", find_folder("bundled"), ModelSettings())
    encoder.encode_texts(["a red car at night"]).shape          # (1, 128)

Both towers return *raw* projected features; see `scanonce.models.encoders.load`.
"""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from scanonce.models.clip4clip.head_files import HEAD_CONFIG, read_head_config
from scanonce.models.encoders.hub import HEAD_FILES, fingerprint_folder, weight_files
from scanonce.models.encoders.preprocess import Preprocessing, read_preprocessing
from scanonce.models.encoders.protocol import TextFeatures, Towers
from scanonce.models.encoders.reading import Reading, read_text
from scanonce.models.runtime import num_cores, pick_device, pick_dtype, use_one_thread
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError

# SigLIP was trained on texts padded to full length and reads the last position: shorter padding changes the vector.
_FULL_LENGTH_MODELS = {"siglip", "siglip2"}


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
        if not (folder / "config.json").exists() or not weight_files(folder):
            raise EncoderError(
                f"{folder} is not a checkpoint folder: config.json and model.safetensors are needed. "
                'Use "bundled" to try without one.'
            )
        self._name = name
        self._fingerprint = fingerprint_folder(folder)
        self._preprocessing = read_preprocessing(folder)
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(self._device, settings.dtype)
        self._model = _load_model(folder, self._dtype, towers).to(self._device)
        self._tokenizer = None if towers == "vision" else _load_tokenizer(folder)
        config = self._model.config
        text = config.text_config
        self._text_width = int(text.hidden_size)
        self._dim = int(getattr(config, "projection_dim", None) or text.projection_size)
        self._head_files = _files_of_head(folder, self._dim)
        self._max_tokens = int(text.max_position_embeddings)
        self._padding = "max_length" if config.model_type in _FULL_LENGTH_MODELS else "longest"

    @property
    def name(self) -> str:
        """Name it was loaded by."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Digest of weights and configuration."""
        return self._fingerprint

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
        assert self._tokenizer is not None, "loaded without its text tower"
        tokens = self._tokenizer(
            list(texts),
            padding=self._padding,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        return tokens.to(self._device)

    def read(self, text: str) -> Reading:
        """Judge the words of a text by the tokenizer."""
        assert self._tokenizer is not None, "loaded without its text tower"
        return read_text(self._tokenizer, text, self._max_tokens)

    @torch.inference_mode()
    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode ``[N, H, W, 3]`` RGB, before or after ``preprocessing.resize``, to raw features ``[N, dim]``."""
        if not len(frames):
            return np.zeros((0, self._dim), np.float32)
        use_one_thread()  # the setting belongs to the calling thread
        images = torch.from_numpy(np.require(self._preprocessing.resize(frames), requirements="W"))
        if self._device.type == "cuda":
            images = images.pin_memory()  # the copy then overlaps with computing
        pixels = self._preprocessing.normalise(
            images.to(self._device, non_blocking=True), self._dtype
        )
        return _to_numpy(self._model.get_image_features(pixel_values=pixels))

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
        tokens = self.tokenise(texts)
        states: list[torch.Tensor] = []
        # transformers 5 replaces the tower's own output by the projected features: a hook sees it before that
        hook = self._model.text_model.register_forward_hook(
            lambda _tower, _args, output: states.append(output.pooler_output)
        )
        try:
            joint = self._model.get_text_features(**tokens)
        finally:
            hook.remove()
        return TextFeatures(_to_numpy(joint), _to_numpy(states[0]))


def _to_numpy(output: Any) -> NDArray[np.float32]:
    # transformers 5 returns an object with the features [N, dim], not normalised; transformers 4 the tensor itself
    features: torch.Tensor = getattr(output, "pooler_output", output)
    return features.to(torch.float32).cpu().numpy()


def _files_of_head(folder: Path, dim: int) -> tuple[Path, ...]:
    """Return the files of the folder's head, empty if it has none."""
    if not any((folder / name).exists() for name in HEAD_FILES):
        return ()
    config = read_head_config(folder)
    if config.dim != dim:
        raise EncoderError(
            f"{folder}: its head is for frames of {config.dim} dimensions, its encoder has {dim}. "
            f"Copy {' and '.join(HEAD_FILES)} from the source of the encoder, or remove both to do without a head."
        )
    files = tuple(folder / name for name in HEAD_FILES)
    if missing := [path.name for path in files if not path.exists()]:
        raise EncoderError(
            f"{folder} has {HEAD_CONFIG} but no {missing[0]}: a head needs both. Fetch it again."
        )
    return files


def _load_model(folder: Path, dtype: torch.dtype, towers: Towers) -> Any:
    """Return the model in evaluation mode, without the tower that is not needed."""
    progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not hasattr(config, "text_config") or not hasattr(config, "vision_config"):
            raise EncoderError(
                f'{folder} holds a "{config.model_type}", not a dual encoder of images and texts; '
                "use a CLIP or SigLIP checkpoint."
            )
        model = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UnpicklingError) as error:
        raise EncoderError(
            f"{folder} cannot be loaded: {str(error).splitlines()[0]}. Fetch it again."
        ) from error
    finally:
        if progress:
            transformers_logging.enable_progress_bar()
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise EncoderError(
            f"{folder}: {type(model).__name__} has no image and text features; use CLIP or SigLIP."
        )
    unused = {"both": None, "vision": "text_model", "text": "vision_model"}[towers]
    if unused and hasattr(model, unused):
        setattr(model, unused, None)
    return model.eval()


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"the tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}. "
            "Copy tokenizer.json and tokenizer_config.json from the source of the checkpoint."
        ) from error
