"""A check of an encoder before hours are spent on it: both sides compute, and their vectors belong together.

    encoder = load_encoder(name, settings, towers="vision")
    check_encoder(encoder, lambda: load_encoder(name, settings, towers="text"))

Indexing needs the vision side alone, so a missing package of the tokenizer would be found out by the first search. The
check takes about a second. It is remembered by the fingerprint of the encoder and the versions of the packages that
compute, in the cache of the Hugging Face hub.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.kept import kept_file
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError, IndexDirectoryError
from scanonce.storage.files import write_whole

logger = logging.getLogger(__name__)

_SENTENCES = ("a red car at night", "two dogs play on a beach", "a man opens a door " * 200)
"""Two that mean different things, and one that no encoder reads to its end."""
_LEAST_LENGTH = 1e-8
"""Of a raw vector; less means that its numbers are what rounding left."""
_COMPUTING = ("transformers", "tokenizers", "sentencepiece", "protobuf", "torch", "openvino")


def check_encoder(encoder: ClipEncoder, load_text: Callable[[], ClipEncoder]) -> None:
    """Check an encoder, unless it was checked on this machine before.

    Args:
        encoder: the encoder with its vision tower.
        load_text: loads the same encoder with its text tower, which is released after the check.

    Raises:
        EncoderError: a side fails, or the sides do not belong together. The message names the encoder, what is wrong
            and what to do.
    """
    if was_checked(encoder.fingerprint):
        return
    check_sides(encoder, load_text)
    _remember(encoder.fingerprint)


def check_named(name: str, settings: ModelSettings) -> ClipEncoder:
    """Load an encoder with both towers, check it, whatever was checked before, and return it.

    Raises:
        EncoderError: see `check_encoder`.
        EncoderUnavailable: it is not on this machine, and the hub cannot be reached.
    """
    encoder = load_encoder(name, settings)
    check_sides(encoder, lambda: encoder)
    _remember(encoder.fingerprint)
    return encoder


def check_sides(encoder: ClipEncoder, load_text: Callable[[], ClipEncoder]) -> None:
    """Encode a grey image and a few sentences, and check the vectors; for the arguments see `check_encoder`."""
    name = encoder.name
    try:
        text = load_text()
    except EncoderError as error:
        raise EncoderError(
            f'encoder "{name}" cannot read queries, so every search would fail: {error}'
        ) from error
    grey = encoder.preprocessing.resize(np.full((1, 90, 160, 3), 128, np.uint8))
    images = _encode(name, "vision", lambda: encoder.encode_frames(grey), encoder.dim)
    texts = _encode(name, "text", lambda: text.encode_texts(_SENTENCES), encoder.dim)
    if images.shape[1] != texts.shape[1]:
        raise _unusable(
            name,
            f"its images have {images.shape[1]} numbers and its texts {texts.shape[1]}",
            "Its files are of two models: fetch all of them again.",
        )
    if np.allclose(texts[0], texts[1], rtol=1e-3, atol=1e-6):
        raise _unusable(
            name,
            "it gives two different sentences the same vector",
            "Its tokenizer does not belong to it: fetch the tokenizer's files again.",
        )


def was_checked(fingerprint: str) -> bool:
    """Whether an encoder was checked on this machine, with the packages that are installed now."""
    path = _mark(fingerprint)
    return path is not None and path.exists()


def _encode(
    name: str, side: str, encode: Callable[[], NDArray[np.float32]], dim: int
) -> NDArray[np.float32]:
    """Return the vectors of a side; every failure of the computation becomes an EncoderError."""
    try:
        vectors = encode()
    except EncoderError:
        raise
    except Exception as error:  # whatever a network makes of weights that do not fit it
        first = (str(error).splitlines() or [""])[0]
        raise _unusable(
            name,
            f"its {side} side fails ({type(error).__name__}: {first})",
            "Fetch all its files again, or use another encoder.",
        ) from error
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise _unusable(
            name,
            f"its {side} side computes vectors of shape {list(vectors.shape)} where {dim} numbers each were expected",
            "Fetch all its files again.",
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all() or lengths.min() < _LEAST_LENGTH:
        raise _unusable(
            name,
            f"its {side} side computes vectors that are not numbers, or zero",
            'Set models.dtype to "float32"; if that does not help, fetch all its files again.',
        )
    return vectors


def _unusable(name: str, what: str, advice: str) -> EncoderError:
    return EncoderError(f'encoder "{name}" cannot be used: {what}. {advice}')


def _mark(fingerprint: str) -> Path | None:
    """Return the file that remembers the check; None if the cache of this machine cannot be written."""
    versions = "\n".join(_versions(_COMPUTING))
    return kept_file("checked", fingerprint, hashlib.sha256(versions.encode()).hexdigest()[:12])


def _versions(packages: Sequence[str]) -> list[str]:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is missing")
    return found


def _remember(fingerprint: str) -> None:
    path = _mark(fingerprint)
    if path is None:
        return
    try:
        write_whole(path, lambda file: file.write(b""))
    except IndexDirectoryError as error:
        logger.warning("the encoder is checked again next time: %s", error)
