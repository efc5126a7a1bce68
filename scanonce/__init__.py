"""Semantic video search: each video is scanned once, then a query finds its moments in milliseconds.

import scanonce

with scanonce.open("~/.scanonce") as library:
    library.index(["~/Videos"])
    result = library.search("a red car drives past at night")
"""

from typing import TYPE_CHECKING, Any

from scanonce.storage.layout import DEFAULT_INDEX

if TYPE_CHECKING:
    from scanonce.indexer.settings import IndexerSettings
    from scanonce.library import AnyPath, Library
    from scanonce.models.settings import ModelSettings
    from scanonce.search.examples import Example
    from scanonce.search.settings import SearchSettings
    from scanonce.storage.settings import StorageSettings

__all__ = ["DEFAULT_INDEX", "Example", "Library", "open"]


def open(
    root: "AnyPath" = DEFAULT_INDEX,
    *,
    models: "ModelSettings | None" = None,
    indexer: "IndexerSettings | None" = None,
    storage: "StorageSettings | None" = None,
    search: "SearchSettings | None" = None,
) -> "Library":
    """Open a library of videos by its index directory, which need not exist yet.

    Args:
        root: the index directory.
        models: encoder and localiser of a new index; device and number format of any index.
        indexer: sampling and clips of a new index; decoding.
        storage: settings of the vector index.
        search: settings of the search.
    """
    from scanonce.library import (
        Library,  # torch takes seconds to import, too long for `scanonce --help`
    )

    return Library(root, models=models, indexer=indexer, storage=storage, search=search)


def __getattr__(name: str) -> Any:
    if name == "Library":
        from scanonce.library import Library

        return Library
    if name == "Example":
        from scanonce.search.examples import Example

        return Example
    raise AttributeError(f"module 'scanonce' has no attribute {name!r}")
