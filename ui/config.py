"""The configuration: the settings of every room, read from one TOML file (`ui.config_file`).

For each missing key the default holds.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scanonce.indexer.settings import IndexerSettings, WatchSettings
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.settings import TrackSettings
from scanonce.search.settings import SearchSettings
from scanonce.storage.errors import ConfigError
from scanonce.storage.layout import DEFAULT_INDEX, IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.ui.config_file import config_path, config_values, index_path
from scanonce.ui.console import note
from scanonce.ui.server.settings import ServeSettings

if TYPE_CHECKING:
    from scanonce.library import Library

_REMOVED = (
    ("storage", "anchor_index"),
    ("search", "retriever"),
    ("search", "cutoff"),
    ("search", "nearest_shown"),
)
"""Settings of earlier versions, which a file may still have."""


class Config(BaseModel):
    """All settings, by room."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index_dir: str = Field(
        default=DEFAULT_INDEX, description="Index directory if --index is not given."
    )
    models: ModelSettings = ModelSettings()
    indexer: IndexerSettings = IndexerSettings()
    watch: WatchSettings = WatchSettings()
    storage: StorageSettings = StorageSettings()
    search: SearchSettings = SearchSettings()
    tracks: TrackSettings = TrackSettings()
    serve: ServeSettings = ServeSettings()

    def library(self, option: Path | None) -> "Library":
        """Return the library at an index directory, or at that of the configuration, with these settings."""
        from scanonce.library import Library  # torch takes seconds to import

        return Library(
            self.index_path(option),
            models=self.models,
            indexer=self.indexer,
            storage=self.storage,
            search=self.search,
            tracks=self.tracks,
        )

    def layout(self, option: Path | None) -> IndexLayout:
        """Return the layout in use at an index directory, or at that of the configuration."""
        return IndexLayout.of(self.index_path(option))

    def index_path(self, option: Path | None) -> Path:
        """Return the given index directory, or that of the configuration, absolute.

        Raises:
            ConfigError: the path cannot be used; see `storage.files.expanded`.
        """
        return index_path({"index_dir": self.index_dir}, option)


def read_config(path: Path | None = None) -> Config:
    """Read the configuration.

    Raises:
        ConfigError: the file is missing, is not TOML, or has a key or value that is not allowed.
    """
    values, chosen = config_values(path), config_path(path)
    _drop_removed(values, chosen)
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError(f"configuration {chosen}:", *_describe(error)) from error


def _drop_removed(values: dict[str, Any], path: Path | None) -> None:
    """Drop settings of earlier versions, with a line on standard error for each."""
    for section, key in _REMOVED:
        settings = values.get(section)
        if isinstance(settings, dict) and key in settings:
            del settings[key]
            note(f"{section}.{key} in {path} is ignored: this version has no such setting.")


def _describe(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: there is no such key; scanonce config lists them all")
        else:
            lines.append(f"  {key} = {problem['input']!r}: {problem['msg']}")
    return lines
