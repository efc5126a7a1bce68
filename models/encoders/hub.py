"""Files of a checkpoint: finding and fetching them (bundled, a folder, the hub or its cache), and their digests.

    folder = find_folder("openai/clip-vit-base-patch32")       # downloaded on first use
    fingerprint_folder(folder)                                 # 64 hex digits

The manifest of an index has the fingerprint of its encoder: encoders with other fingerprints cannot extend it.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from scanonce.models.encoders.families import open_clip_refusal, refusal
from scanonce.models.offline_weights import (
    CONCEPTS_NAME,
    IMAGENET,
    INSTALL_COMMAND,
    SENTENCES,
    are_installed,
)
from scanonce.storage.errors import EncoderError, EncoderUnavailable, reported
from scanonce.storage.files import expanded
from scanonce.storage.untrusted import DamagedFile, parse_object

BUNDLED_NAME = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled" / "clip"

HEAD_FILES = ("head.json", "head.safetensors")
"""Files of a CLIP4Clip head (`models.clip4clip.head_files`) in the folder of an encoder."""

_BUNDLED_COMMAND = f"        scanonce index VIDEOS --encoder {BUNDLED_NAME}"
_PART = r"(?![.-])[\w.-]{1,96}(?<![.-])"
_HUB_ID = re.compile(rf"(?!.*(--|\.\.)){_PART}(/{_PART})?", re.ASCII)
_WIDTH = re.compile(r"(.+)@([1-9][0-9]{0,4})")
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
    name = split_width(name)[0]
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
    return find_cached(name) or _from_hub(name)


def split_width(name: str) -> tuple[str, int | None]:
    """Split the width of the vectors off the name of an encoder.

    >>> split_width("google/embeddinggemma-2@256")
    ('google/embeddinggemma-2', 256)
    >>> split_width("openai/clip-vit-base-patch32")
    ('openai/clip-vit-base-patch32', None)
    """
    match = _WIDTH.fullmatch(name)
    if match is None or expanded(name).is_dir():
        return name, None
    return match[1], int(match[2])


def with_width(name: str, width: int) -> str:
    """Return the name of an encoder with this width of its vectors; a name that has one keeps it. 0: all of them."""
    return name if not width or split_width(name)[1] else f"{name}@{width}"


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


def find_cached(name: str) -> Path | None:
    """Return the folder of a model of the hub in the cache of this machine; None if it is not there."""
    from huggingface_hub import snapshot_download

    if not _has_cache():
        return None
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except OSError:  # it is not there, or the cache cannot be read
        return None
    # an interrupted download leaves a folder without weights
    return folder if (folder / "config.json").exists() and weight_files(folder) else None


def _has_cache() -> bool:
    """Whether the cache of the hub has a place: it is in the home folder, unless HF_HOME names another."""
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        Path(HF_HUB_CACHE).expanduser()
    except RuntimeError:
        return False
    return True


def fetch(name: str, to: Path) -> None:
    """Write the files of a model of the hub that an offline machine needs into a folder. A stopped call goes on.

    Raises:
        EncoderUnavailable: the hub cannot be reached.
        EncoderError: there is no such model, or it cannot be used here; nothing large was downloaded then.
    """
    if name in (BUNDLED_NAME, CONCEPTS_NAME):
        raise EncoderError(
            f'the encoder "{name}" is not on the hub, so there is nothing to fetch. Use it as it is:',
            *(offered_concepts() if name == CONCEPTS_NAME else [_BUNDLED_COMMAND]),
        )
    if not _HUB_ID.fullmatch(name):
        raise EncoderError(
            f'"{name}" is not the id of a model on the hub, such as "openai/clip-vit-base-patch32".'
        )
    with reported(to, "written"):
        to.mkdir(parents=True, exist_ok=True)
    _download(name, to)
    with reported(to, "written"):
        shutil.rmtree(to / ".cache", ignore_errors=True)  # notes of the download


def _from_hub(name: str) -> Path:
    return _download(name, None)


def _download(name: str, to: Path | None) -> Path:
    """Download the needed files into the cache, or into a folder, and return where they are."""
    if not _has_cache():
        raise EncoderUnavailable(
            f'the weights of "{name}" have no place on this machine, because the home folder is not known. Set HOME, '
            "or HF_HOME to a folder for downloads; or",
            *ways_out(name),
        )
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
        _refuse_unusable(name, files)
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
                local_dir=to,
            )
        )
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f'encoder "{name}": the hub has no such model, or it is private. Check the id.'
        ) from error
    except (HTTPError, OSError) as error:  # OSError: no network, offline mode, a broken download
        if isinstance(error, OSError) and error.filename is not None:
            raise EncoderError(
                f'the weights of "{name}" cannot be fetched: {error.filename}: {error.strerror}. Make room or check '
                "the permissions, or set HF_HOME to another folder for downloads."
            ) from error
        raise EncoderUnavailable(
            f'the weights of "{name}" are not on this machine and the hub cannot be reached '
            f"({type(error).__name__}). Either",
            *ways_out(name),
        ) from error


def ways_out(name: str) -> tuple[str, ...]:
    """Return the lines that say what to do without the hub."""
    return (
        f"  (a) fetch it on a machine with a network, bring the folder here and point to it: "
        f"scanonce fetch {name} --to FOLDER",
        "        scanonce index VIDEOS --encoder /path/to/folder",
        "  (b) or try everything with the bundled checkpoint, which understands our cartoon world only:",
        _BUNDLED_COMMAND,
        "  (c) or understand real videos without the hub: objects, animals and scenes, but not actions or names:",
        *offered_concepts(),
    )


def _refuse_unusable(name: str, files: Sequence[str]) -> None:
    """Refuse a model that cannot be used here, by its configuration, before its weights are downloaded.

    Args:
        name: id on the hub.
        files: names of its files there.
    """
    from huggingface_hub import hf_hub_download

    if "config.json" not in files:
        if any(file.startswith("open_clip") for file in files):
            raise EncoderError(f"{open_clip_refusal(name)}.")
        raise EncoderError(
            f'encoder "{name}": it has no config.json, so it is not in the format of transformers. '
            'Use one that is, such as "openai/clip-vit-base-patch32".'
        )
    path = Path(hf_hub_download(name, "config.json", etag_timeout=_HUB_TIMEOUT_SECONDS))
    try:
        refuse_by_config(path, name)
    except DamagedFile as error:
        raise EncoderError(f'encoder "{name}": its config.json is damaged: {error}.') from error


def refuse_by_config(path: Path, name: str) -> str:
    """Return the ``model_type`` of a config.json.

    Raises:
        EncoderError: no encoder of this type can be supported; the message says why.
        DamagedFile: it is not a JSON object.
        OSError: it cannot be read.
    """
    values = parse_object(path.read_bytes())
    model_type = str(values.get("model_type", ""))
    sentence = refusal(model_type, name=name, has_own_code=bool(values.get("auto_map")))
    if sentence:
        raise EncoderError(f"{name}: {sentence}.")
    return model_type
