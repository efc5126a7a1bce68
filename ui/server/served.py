"""The library that this process serves: one for the pages and the HTTP API, so that its models are loaded once."""

from pathlib import Path

from scanonce.library import Library
from scanonce.ui.config import read_config

_served: dict[Path, Library] = {}


def served_library(root: Path, config: Path | None) -> Library:
    """Return the library of an index directory, which the server closes, and let the pages share it."""
    return _served.setdefault(root, read_config(config).library(root))


def find_served(root: Path) -> Library | None:
    """Return the library of an index directory if this process serves it."""
    return _served.get(root)
