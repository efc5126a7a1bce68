"""The two towers of a checkpoint behind one narrow interface, and how one is found by name.

    encoder = load_encoder("bundled")
    frames = encoder.encode_frames(images)          # [N, H, W, 3] uint8 -> [N, dim]
    query = unit(encoder.encode_texts(["a red car at night"]))

Both return *raw* projected features, as the published SOONet wants its frames; `models.clip4clip.unit` makes
embeddings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError, EncoderUnavailable

if TYPE_CHECKING:
    from scanonce.models.preprocess import (
        Preprocessing,  # torch: not for those who only read settings
    )

BUNDLED_NAME = "bundled"
BUNDLED_FOLDER = Path(__file__).parent / "bundled" / "clip"

Towers = Literal["both", "vision", "text"]

HEAD_FILES = ("head.json", "head.safetensors")
"""What `models.heads` writes into an encoder's folder beside the files of `transformers`."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT_SECONDS = 5.0
_META_FILES = ["*.json", "merges.txt", "vocab.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Sentences as the text tower sees them, before and after the projection."""

    joint: NDArray[np.float32]
    """``[M, dim]`` raw features in the space of the pictures; what `ClipEncoder.encode_texts` gives."""
    states: NDArray[np.float32]
    """``[M, width of the text tower]``: the state at the end of each text after the last layer norm, not projected.
    Localisers read these: the projection keeps what pictures can show and drops the rest, such as an order in time."""


class ClipEncoder(Protocol):
    """A dual encoder: pictures and sentences in one space."""

    @property
    def name(self) -> str:
        """What it was loaded by: ``bundled``, a hub id or a folder."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights and configuration: equal means the same vectors."""

    @property
    def dim(self) -> int:
        """Width of the joint space."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What frames go through first; `encode_frames` takes them before or after its ``resize``."""

    @property
    def head_files(self) -> Sequence[Path]:
        """The files of its head (`models.heads`): one that pools the frames of a clip, or a tight one, which re-ranks
        what is found. None: clips are means, and nothing re-ranks.
        """

    @property
    def batch_frames(self) -> int:
        """How many frames at once its device likes best."""

    @property
    def lanes(self) -> int:
        """How many calls of `encode_frames` at once, from as many threads, its device likes best."""

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``[N, H, W, 3]`` RGB to raw features ``[N, dim]``."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to raw features ``[M, dim]``; what is longer than the encoder reads is cut."""

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """The same together with the states before the projection, at the same cost."""


def load_encoder(
    name: str, settings: ModelSettings | None = None, *, towers: Towers = "both"
) -> ClipEncoder:
    """The encoder of that name, ready on its device.

    Args:
        name: ``bundled``, a local folder, or a hub id such as ``openai/clip-vit-base-patch32``.
        settings: device, number format and what computes the vision tower.
        towers: what is needed; the other tower's memory is given back.

    Raises:
        EncoderUnavailable: not on this machine, and the hub cannot be reached.
        EncoderError: the folder is not a dual encoder we can use, or the OpenVINO asked for is not installed.
    """
    folder = find_folder(name)
    settings = settings or ModelSettings()
    # torch and transformers take seconds to import
    if settings.backend == "openvino" and towers != "text":  # the text tower is torch's anyway
        from scanonce.models.openvino import OpenVinoEncoder

        return OpenVinoEncoder(name, folder, settings, towers=towers)
    from scanonce.models.clip import TransformersEncoder

    return TransformersEncoder(name, folder, settings, towers=towers)


def find_folder(name: str) -> Path:
    """The folder with the checkpoint's files, fetched from the hub on first use only."""
    if name == BUNDLED_NAME:
        return BUNDLED_FOLDER
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not _HUB_ID.fullmatch(name) or name.startswith((".", "~")):
        raise EncoderError(
            f'encoder "{name}": there is no such folder. Give a folder with config.json and model.safetensors, '
            'a hub id such as "openai/clip-vit-base-patch32", or "bundled".'
        )
    return _from_cache(name) or _from_hub(name)


def fingerprint_folder(folder: Path) -> str:
    """Hex digest over everything that decides the vectors: weights, configuration, processor, tokenizer."""
    names = {
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "vocab.json",
        "merges.txt",
    }
    names |= {"tokenizer.json", "tokenizer_config.json", *HEAD_FILES}
    files = [
        path for path in folder.iterdir() if path.name in names or path in weight_files(folder)
    ]
    return _digest(files)


def weight_files(folder: Path) -> list[Path]:
    """The weights: safetensors where there are any, else PyTorch's own format."""
    safe = [path for path in folder.glob("*.safetensors") if path.name not in HEAD_FILES]
    return sorted(safe) or sorted(folder.glob("pytorch_model*.bin"))


def head_digest(files: Sequence[Path]) -> str | None:
    """Hex digest of a head's files, by their names and contents; None where there are none.

    Raises:
        OSError: one cannot be read.
    """
    return _digest(files) if files else None


def _digest(files: Iterable[Path]) -> str:
    """Hex digest of files of one folder, by their names and contents."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _from_cache(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if (folder / "config.json").exists() and weight_files(folder) else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,  # of whichever HTTP client it uses
        RepositoryNotFoundError,
    )

    try:
        files = [
            entry.rfilename
            for entry in HfApi().model_info(name, timeout=_HUB_TIMEOUT_SECONDS).siblings or []
        ]
        safe = any(
            file.endswith(".safetensors") and "/" not in file and file not in HEAD_FILES
            for file in files
        )
        weights = "*.safetensors" if safe else "pytorch_model*.bin"
        return Path(
            snapshot_download(
                name,
                allow_patterns=[*_META_FILES, *HEAD_FILES, weights],
                ignore_patterns=["*/*"],
                etag_timeout=_HUB_TIMEOUT_SECONDS,
            )
        )
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f'encoder "{name}": the hub has no such model, or it is private. Check the id.'
        ) from error
    except (HTTPError, OSError) as error:  # OSError: no network, offline mode, a download cut off
        raise EncoderUnavailable(
            f'the weights of "{name}" are not on this machine and the hub cannot be reached '
            f"({type(error).__name__}). Either\n"
            "  (a) point to a folder that holds them (config.json, model.safetensors, tokenizer files):\n"
            "        scanonce index VIDEOS --encoder /path/to/folder\n"
            "  (b) or try everything with the bundled checkpoint, which knows our cartoon world only:\n"
            "        scanonce index VIDEOS --encoder bundled"
        ) from error
