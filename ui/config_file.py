"""The file of the configuration, as plain values: reading it takes milliseconds; `ui.config` checks it.

The file is that of the ``--config`` option, else that in ``SCANONCE_CONFIG``, else the ``config.toml`` of the program's
own folder (in a checkout: the repository's).
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from scanonce.storage.errors import ConfigError
from scanonce.storage.files import expanded
from scanonce.storage.layout import DEFAULT_INDEX

_CHECKOUT_CONFIG = Path(__file__).parent.parent / "config.toml"  # scanonce/config.toml


def config_path(path: Path | None = None) -> Path | None:
    """Return the file of the configuration; None: there is none, and the defaults hold."""
    named = path or (
        Path(os.environ["SCANONCE_CONFIG"]) if os.environ.get("SCANONCE_CONFIG") else None
    )
    if named is not None:
        return named
    return _CHECKOUT_CONFIG if _CHECKOUT_CONFIG.exists() else None


def config_values(path: Path | None = None) -> dict[str, Any]:
    """Return the values of the configuration, not checked; none if there is no file.

    Raises:
        ConfigError: the file is missing, or is not TOML.
    """
    chosen = config_path(path)
    if chosen is None:
        return {}
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"configuration {chosen} cannot be read: {error.strerror}. Check --config."
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: not UTF-8, not TOML, a number too long
        raise ConfigError(f"configuration {chosen} is not valid TOML: {error}") from error


def index_path(values: dict[str, Any], option: Path | None) -> Path:
    """Return the given index directory, or that of the configuration, absolute; see `ui.config.Config.index_path`."""
    chosen = option or values.get("index_dir", DEFAULT_INDEX)
    return Path(os.path.realpath(expanded(chosen)))
