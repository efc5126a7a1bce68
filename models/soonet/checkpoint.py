"""SOONet checkpoints: a folder with ``config.json`` and ``model.safetensors``, or the published ``.pth`` file.

    model = read_soonet(Path("SOONet_MAD_VIT-B-32_4Scale_10C.pth"))
    write_soonet(model, Path("my-localiser"))

The published file contains no configuration; `PUBLISHED` is the one of its authors' code.
"""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scanonce.models.checkpoints import find_differences, write_checkpoint
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.storage.errors import LocaliserError
from scanonce.storage.untrusted import DamagedFile, parse_object

PUBLISHED = SoonetConfig(stage2_pool="max", legacy_mask=True)
"""The model for MAD that the authors of the paper publish, as their loading code computes it."""

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_ALLOWED = f"Give a folder with {_CONFIG} and {_WEIGHTS}, or the published .pth file"


def read_soonet(path: Path, config: SoonetConfig = PUBLISHED) -> Soonet:
    """Read a model in evaluation mode, float32 on the CPU.

    Args:
        path: a folder of `write_soonet`, or the published ``.pth`` file.
        config: configuration of the ``.pth`` file, which contains none; ignored for a folder.

    Raises:
        LocaliserError: there is no such checkpoint, it cannot be read, or its tensors are not those of its config.
    """
    if path.is_dir():
        config = _read_config(path / _CONFIG)
        tensors = _read_tensors(path / _WEIGHTS)
    else:
        tensors = _read_tensors(path)
    with torch.device("meta"):  # shapes without numbers
        model = Soonet(config)
    if differences := find_differences(model.state_dict(), tensors):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise LocaliserError(
            f"the tensors of {path} are not those of its configuration: {'; '.join(differences[:3])}{more}. "
            "Use the configuration of its training."
        )
    model.load_state_dict({name: _as_float(each) for name, each in tensors.items()}, assign=True)
    return model.eval()


def write_soonet(model: Soonet, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; a model in half precision makes a file of half the size."""
    config = asdict(model.config)
    write_checkpoint(folder / _WEIGHTS, model.state_dict(), folder / _CONFIG, config)


def fingerprint_soonet(path: Path) -> str:
    """Hex digest of the configuration and weights at a path for `read_soonet`: equal digests mean equal scores.

    Raises:
        LocaliserError: the checkpoint cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            digest.update(json.dumps(asdict(_read_config(path / _CONFIG))).encode())
            path = path / _WEIGHTS
        else:
            digest.update(json.dumps(asdict(PUBLISHED)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise LocaliserError(f"{path} cannot be read ({error.strerror}). {_ALLOWED}.") from error
    return digest.hexdigest()


def _read_config(path: Path) -> SoonetConfig:
    try:
        return SoonetConfig(**parse_object(path.read_bytes()))
    except OSError as error:
        raise LocaliserError(
            f"{path.parent} is not a localiser: {_CONFIG} cannot be read ({error.strerror}). {_ALLOWED}."
        ) from error
    except (DamagedFile, ValueError, TypeError) as error:  # no JSON, an unknown key, a wrong value
        raise LocaliserError(
            f"{path} is not the configuration of a localiser: {error}. Allowed keys: "
            f"{', '.join(field.name for field in fields(SoonetConfig))}."
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # errors of pickle, zip, safetensors and the system: no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LocaliserError(
            f"{path} cannot be read as the weights of a localiser ({reason}). {_ALLOWED}; if it was downloaded, "
            "fetch it again."
        ) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise LocaliserError(
            f'{path} holds no weights under the key "model", as SOONet\'s published file does. '
            "Check that it is SOONet's checkpoint and not another model's."
        )
    return tensors


def _as_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
