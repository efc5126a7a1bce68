"""The configuration: defaults of every room, overridden by a config.toml. Nothing else reads that file.

Looked for, in this order: the ``--config`` option, the path in ``SCANONCE_CONFIG``, ``config.toml`` beside the
program's own folders (in a checkout: the repository's), else the defaults.
"""

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scanonce.indexer.settings import IndexerSettings, WatchSettings
from scanonce.models.settings import ModelSettings
from scanonce.search.settings import SearchSettings
from scanonce.storage.errors import ConfigError
from scanonce.storage.settings import StorageSettings

if TYPE_CHECKING:
    from scanonce.library import Library

_CHECKOUT_CONFIG = Path(__file__).parent.parent / "config.toml"  # scanonce/config.toml


class Config(BaseModel):
    """Everything that can be set, by room."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index_dir: str = Field(
        default="~/.scanonce", description="the index directory, where --index is not given"
    )
    models: ModelSettings = ModelSettings()
    indexer: IndexerSettings = IndexerSettings()
    watch: WatchSettings = WatchSettings()
    storage: StorageSettings = StorageSettings()
    search: SearchSettings = SearchSettings()

    def library(self, index_dir: Path) -> "Library":
        """The library at an index directory, with these settings."""
        from scanonce.library import Library  # torch takes seconds to import

        return Library(
            index_dir,
            models=self.models,
            indexer=self.indexer,
            storage=self.storage,
            search=self.search,
        )

    def index_path(self, option: Path | None) -> Path:
        """The index directory to use, absolute."""
        return Path(option or self.index_dir).expanduser().resolve()


def read_config(path: Path | None = None) -> Config:
    """The configuration in effect.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a key or value that is not allowed.
    """
    chosen = path or (
        Path(os.environ["SCANONCE_CONFIG"]) if os.environ.get("SCANONCE_CONFIG") else None
    )
    if chosen is None:
        if not _CHECKOUT_CONFIG.exists():
            return Config()
        chosen = _CHECKOUT_CONFIG
    try:
        values = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"configuration {chosen} cannot be read: {error.strerror}. Check --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {chosen} is not valid TOML: {error}") from error
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(f"configuration {chosen}:\n{_describe(error)}") from error


def _describe(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(
                f"  {key}: there is no such key; config.toml in the repository lists them all"
            )
        else:
            lines.append(f"  {key} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)
