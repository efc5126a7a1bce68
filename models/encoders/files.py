"""Model, tokenizer and head of a checkpoint folder, read without running code of it.

Every failure is an EncoderError.
"""

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from scanonce.models.clip4clip.head_files import HEAD_CONFIG, read_head_config
from scanonce.models.encoders.families import Family, family_of, open_clip_refusal
from scanonce.models.encoders.hub import HEAD_FILES, refuse_by_config, weight_files
from scanonce.storage.errors import EncoderError
from scanonce.storage.untrusted import DamagedFile

_LOADING_FAILED = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError, UnpicklingError,
)  # fmt: skip
_NOT_ENCODING = ("logit_scale", "logit_bias", "position_ids")
"""Ends of names of tensors that no vector depends on: those of the loss, and the numbers 0, 1, 2 ..."""
_HIDDEN = 3  # of missing tensors that an error names


def read_family(folder: Path, name: str = "") -> Family:
    """Return the family of a checkpoint folder.

    Raises:
        EncoderError: it is no checkpoint folder, or one that cannot be supported; the message says why.
    """
    if not (folder / "config.json").exists() or not weight_files(folder):
        if any(folder.glob("open_clip*")):
            raise EncoderError(f"{open_clip_refusal(str(folder))}.")
        raise EncoderError(
            f"{folder} is not a checkpoint folder: config.json and model.safetensors are needed. "
            'Use "bundled" to try without one.'
        )
    try:
        return family_of(refuse_by_config(folder / "config.json", name or str(folder)))
    except (OSError, DamagedFile) as error:
        raise EncoderError(
            f"{folder / 'config.json'} cannot be read: {error}. Fetch it again."
        ) from error


def read_model(folder: Path, family: Family, dtype: torch.dtype) -> Any:
    """Return the `transformers` model in evaluation mode.

    Raises:
        EncoderError: it is not a model of images and texts, or its weights are missing, damaged or of another class.
    """
    progress = transformers_logging.is_progress_bar_enabled()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it warns of tensors that are missing, which is an error here
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not hasattr(config, "text_config") or not hasattr(config, "vision_config"):
            raise EncoderError(
                f'{folder} holds a "{config.model_type}", not a dual encoder of images and texts; '
                "use a CLIP or SigLIP checkpoint."
            )
        model, info = _class_of(family).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    except ImportError as error:
        raise EncoderError(f"{folder} cannot be loaded: {_missing_package(error)}") from error
    except _LOADING_FAILED as error:
        raise EncoderError(
            f"{folder} cannot be loaded: {reason(error)}. Fetch it again."
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()
    _refuse_random_weights(folder, model, info["missing_keys"])
    return model.eval()


def _class_of(family: Family) -> Any:
    if family.model_class is None:
        return AutoModel
    import transformers

    return getattr(transformers, family.model_class)


def _refuse_random_weights(folder: Path, model: Any, missing: set[str]) -> None:
    """Refuse a model with tensors that the files do not have: `transformers` draws them at random."""
    names = sorted(name for name in missing if not name.endswith(_NOT_ENCODING))
    if names:
        shown = ", ".join(names[:_HIDDEN])
        raise EncoderError(
            f"{folder}: the weights have no {shown}{' ...' if len(names) > _HIDDEN else ''} "
            f"({len(names)} of the tensors of {type(model).__name__} are missing), so its vectors would be noise. "
            "It was saved from a model of another class: use a checkpoint for search, such as a CLIP or SigLIP."
        )


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a checkpoint.

    Raises:
        EncoderError: it or the package that reads it is missing; the message says what to do.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise EncoderError(
            f"the tokenizer in {folder} cannot be loaded: {_missing_package(error)}"
        ) from error
    except Exception as error:  # packages written in Rust raise plain Exception
        raise EncoderError(
            f"the tokenizer in {folder} cannot be loaded: {reason(error)}. "
            "Copy tokenizer.json and tokenizer_config.json from the source of the checkpoint."
        ) from error


_INSTALLED_AS = {
    "sentencepiece": "sentencepiece",
    "google.protobuf": "protobuf",
    "tiktoken": "tiktoken",
    "timm": "timm",
    "torchvision": "torchvision",
}
"""Packages that classes of `transformers` ask for, by the name of their module, with their name on PyPI."""


def _missing_package(error: ImportError) -> str:
    """Return the missing package, and the command that installs it."""
    text = str(error).lower()
    for module, package in _INSTALLED_AS.items():
        if module.split(".")[-1] in text and not _is_installed(module):
            return f"the package {package} is missing. Install it: pip install {package}"
    return f"{reason(error)}. Install what is missing."


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is blocked
        return False


def reason(error: BaseException) -> str:
    """Return the first line of an error with something on it; its class if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def files_of_head(folder: Path, dim: int) -> tuple[Path, ...]:
    """Return the files of the folder's head, empty if it has none.

    Raises:
        EncoderError: the head does not fit, or one of its files is missing.
    """
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
