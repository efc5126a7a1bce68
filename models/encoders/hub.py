"""Where the files of a checkpoint are (bundled, a folder, the hub or its cache), and their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from scanonce.storage.errors import EncoderError, EncoderUnavailable

BUNDLED_NAME = "bundled"


BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled" / "clip"


HEAD_FILES = ("head.json", "head.safetensors")
"""What `models.clip4clip.heads` writes into an encoder's folder beside the files of `transformers`."""


_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


_HUB_TIMEOUT_SECONDS = 5.0


_META_FILES = ["*.json", "merges.txt", "vocab.txt", "*.model"]


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
