"""Indexes of films of flat colours, for many tests."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from scanonce.indexer.pipeline import IndexReport, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.checkpoint import write_soonet
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout, switch
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from tests.colours import ColourEncoder, write_film

SETTINGS = IndexerSettings(decode_workers=1)
STORAGE = StorageSettings()


def build_index(
    layout: IndexLayout, *roots: Path, encoder: ClipEncoder | None = None, **options: Any
) -> IndexReport:
    """Index folders or files by their colours; ``options`` are those of `index_library`."""
    given = {"encoder": encoder or ColourEncoder(), "settings": SETTINGS, "storage": STORAGE}
    return index_library(roots, layout=layout, **{**given, **options})


def colour_library(root: Path, films: Mapping[str, Sequence[tuple[str, float]]]) -> IndexLayout:
    """Write films of flat colours, by their names without the ending, and index them."""
    for name, pieces in films.items():
        write_film(root / "films" / f"{name}.mp4", pieces)
    layout = IndexLayout(root / "index")
    build_index(layout, root / "films")
    return layout


def open_engine(
    location: Path | IndexLayout, encoder: ClipEncoder | None = None, **settings: Any
) -> SearchEngine:
    """Open an index for searching, with an encoder that `SearchEngine.open` could not load by its name."""
    with ExitStack() as on_error:
        index = on_error.enter_context(Index.open(location, open_pooling, read_only=True))
        engine = SearchEngine(index, encoder or ColourEncoder(), SearchSettings(**settings))
        on_error.pop_all()
    return engine


def publish_all(layout: IndexLayout, settings: StorageSettings = STORAGE) -> None:
    """Bring the vector index in line with the catalogue."""
    with Index.open(layout, open_pooling) as index:
        index.publish(settings)


def replace_index(layout: IndexLayout) -> IndexLayout:
    """Replace an index by a copy, as `scanonce restore` does."""
    ignored = shutil.ignore_patterns("writer.*", "data-*", "current")
    shutil.copytree(layout.folder, layout.staging.folder, ignore=ignored)
    switch(layout.staging)
    return layout.staging


def read_videos(layout: IndexLayout, **selection: Iterable[Any]) -> list[Video]:
    """Read videos from the catalogue; ``selection`` as for `Catalog.videos`."""
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        return catalog.videos(**selection)  # type: ignore[arg-type]


def random_localiser(folder: Path, seed: int, *, std: float | None = 0.3) -> TrainedLocaliser:
    """Write and load a random SOONet for features of the colour encoder at 2 frames per second.

    Args:
        folder: where to write it.
        seed: seed of its weights.
        std: standard deviation of all weights; None: they are initialised as for training.
    """
    torch.manual_seed(seed)
    config = SoonetConfig(
        hidden_dim=8, snippet_length=4, num_scales=2, fps=2.0, window=8, num_heads=2,
        max_positions=8, frame_dim=4, text_dim=4,
    )  # fmt: skip
    model = Soonet(config)
    if std is not None:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=std)
    write_soonet(model, folder)
    return load_localiser(str(folder))
