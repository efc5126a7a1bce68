"""A head on disk: its configuration and its tensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from scanonce.models.encoders.hub import HEAD_FILES
from scanonce.storage.errors import EncoderError

HEAD_CONFIG, HEAD_WEIGHTS = HEAD_FILES

HeadKind = Literal["mean", "transformer", "lstm", "tight"]
"""How the frames of a clip become one vector, or with ``tight`` one score."""


SEQUENTIAL_KINDS = ("transformer", "lstm")
"""Kinds with one vector of a video, whatever is asked: these can be indexed."""


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What decides the shapes and the arithmetic of a head."""

    kind: HeadKind
    dim: int
    """Width of frame features and of what comes out."""
    max_frames: int
    """Frames of a clip it was trained on; of longer ones as many are taken, evenly spread."""
    positions: int
    """Position vectors there are."""
    layers: int = 4
    """Transformer blocks; the LSTM has one layer."""
    heads: int = 8
    """Attention heads of a block."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(HeadKind) or self.kind == "mean":
            raise ValueError(f'kind must be "transformer", "lstm" or "tight"; got {self.kind!r}')
        for name in ("dim", "max_frames", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        needed = self.max_frames + (self.kind == "tight")
        if self.positions < needed:
            raise ValueError(f"positions must be {needed} or more; got {self.positions}")
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim {self.dim}; got {self.heads}")


def write_head_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """The same of the tensors of a head, each in its own number format."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{HEAD_WEIGHTS}.part"
    unfinished.write_bytes(save({name: each.contiguous().cpu() for name, each in tensors.items()}))
    unfinished.replace(folder / HEAD_WEIGHTS)
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / HEAD_CONFIG).write_text(text, encoding="utf-8")


def read_head_tensors(folder: Path) -> tuple[HeadConfig, dict[str, Tensor]] | None:
    """What `write_head_tensors` wrote, not checked against each other. Raises EncoderError where it cannot be read."""
    if not (folder / HEAD_CONFIG).exists() and not (folder / HEAD_WEIGHTS).exists():
        return None
    config = read_head_config(folder)
    try:
        return config, load_file(folder / HEAD_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{folder / HEAD_WEIGHTS} cannot be read ({error}). Fetch the folder again."
        ) from error


def read_head_config(folder: Path) -> HeadConfig:
    """The sizes and the kind of the head in a folder. Raises EncoderError where they cannot be read."""
    path = folder / HEAD_CONFIG
    try:
        return HeadConfig(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}): a head is {HEAD_CONFIG} and {HEAD_WEIGHTS}. "
            "Fetch the folder again."
        ) from error
    except (ValueError, TypeError) as error:  # not JSON, an unknown key, a value not allowed
        raise EncoderError(
            f"{path} is not the configuration of a head: {error}. "
            f"Its keys: {', '.join(field.name for field in fields(HeadConfig))}."
        ) from error


def only_reranks(files: Sequence[Path]) -> bool:
    """Whether these files, of `models.encoders.load.ClipEncoder.head_files`, are a head that cannot pool.

    Raises:
        EncoderError: its configuration cannot be read.
    """
    return bool(files) and read_head_config(files[0].parent).kind not in SEQUENTIAL_KINDS


def check_tensors(source: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises EncoderError, which lists them all, where tensors are missing, unknown or of another shape."""
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"unknown: {name}" for name in given if name not in wanted]
    problems += [
        f"{name}: shape {list(given[name].shape)}, should be {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if problems:
        raise EncoderError(
            f"{source} does not hold what it should:\n  "
            + "\n  ".join(problems)
            + "\nFetch it again."
        )
