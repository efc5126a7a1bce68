"""Heads on disk: ``head.json`` and ``head.safetensors`` in the folder of an encoder or of an index.

    write_head(head, folder)
    head = read_head(folder)          # None if the folder has no head: mean pooling

The manifest of an index has a digest of both files (`models.encoders.hub.head_digest`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scanonce.models.checkpoints import find_differences, write_checkpoint
from scanonce.models.clip4clip.heads import SEQUENTIAL_KINDS, Head, HeadConfig, head_class
from scanonce.models.encoders.hub import HEAD_FILES
from scanonce.storage.errors import EncoderError
from scanonce.storage.untrusted import DamagedFile, parse_object

HEAD_CONFIG, HEAD_WEIGHTS = HEAD_FILES


def write_head(head: Head | None, folder: Path) -> None:
    """Write the files of a head; for None, mean pooling, remove the files of the folder."""
    if head is not None:
        write_head_tensors(head.config, head.state_dict(), folder)
        return
    for name in HEAD_FILES:
        (folder / name).unlink(missing_ok=True)


def write_head_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write the files of a head from its tensors, each in its own number format."""
    write_checkpoint(folder / HEAD_WEIGHTS, tensors, folder / HEAD_CONFIG, asdict(config))


def read_head(folder: Path) -> Head | None:
    """Read the head in a folder, float32 in evaluation mode on the CPU; None if it has none: mean pooling.

    Raises:
        EncoderError: one of its two files is missing or cannot be read, or its tensors are not those of its
            configuration.
    """
    found = read_head_tensors(folder)
    return None if found is None else head_of(*found, str(folder / HEAD_WEIGHTS))


def read_head_tensors(folder: Path) -> tuple[HeadConfig, dict[str, Tensor]] | None:
    """Read the files of a head without comparing one with the other; None if there is no head.

    Raises:
        EncoderError: one of its two files is missing or cannot be read.
    """
    if not any((folder / name).exists() for name in HEAD_FILES):
        return None
    config = read_head_config(folder)
    try:
        return config, load_file(folder / HEAD_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{folder / HEAD_WEIGHTS} cannot be read ({error}). Fetch the folder again."
        ) from error


def read_head_config(folder: Path) -> HeadConfig:
    """Read the sizes and the kind of the head in a folder.

    Raises:
        EncoderError: ``head.json`` cannot be read.
    """
    path = folder / HEAD_CONFIG
    try:
        return HeadConfig(**parse_object(path.read_bytes()))
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}): a head is {HEAD_CONFIG} and {HEAD_WEIGHTS}. "
            "Fetch the folder again."
        ) from error
    except (DamagedFile, ValueError, TypeError) as error:  # no JSON, an unknown key, a wrong value
        raise EncoderError(
            f"{path} is not the configuration of a head: {error}. "
            f"Its keys: {', '.join(field.name for field in fields(HeadConfig))}."
        ) from error


def only_reranks(files: Sequence[Path]) -> bool:
    """Whether these files (`ClipEncoder.head_files`) are a head that cannot pool.

    Raises:
        EncoderError: its configuration cannot be read.
    """
    return bool(files) and read_head_config(files[0].parent).kind not in SEQUENTIAL_KINDS


def head_of(config: HeadConfig, tensors: Mapping[str, Tensor], source: str) -> Head:
    """Make a head of its tensors, float32 in evaluation mode.

    Args:
        config: sizes and kind of the head.
        tensors: all tensors of the head and no others.
        source: name of their file, for the error.

    Raises:
        EncoderError: lists the tensors that are missing, unknown or of another shape.
    """
    head = _without_numbers(config)
    check_tensors(source, head.state_dict(), tensors)
    head.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    return head.eval()


def check_head_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise EncoderError as `head_of` does."""
    check_tensors(source, _without_numbers(config).state_dict(), tensors)


def check_tensors(source: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise EncoderError, which lists the tensors that are missing, unknown or of another shape."""
    if differences := find_differences(wanted, given):
        raise EncoderError(
            f"{source} does not hold the tensors it should:",
            *(f"  {each}" for each in differences),
            "Fetch it again.",
        )


def _without_numbers(config: HeadConfig) -> Head:
    with torch.device("meta"):
        return head_class(config.kind)(config)
