"""Searching an index: from the text of a query to moments.

    from scanonce.search import SearchEngine

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")

Why it is as it is: docs/decisions.md, "Search".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanonce.search.engine import SearchEngine
    from scanonce.search.result import SearchResult
    from scanonce.search.settings import SearchSettings

__all__ = ["SearchEngine", "SearchResult", "SearchSettings"]

_MODULES = {"SearchEngine": "engine", "SearchResult": "result", "SearchSettings": "settings"}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, too long for a command that reads a setting of the search
    if name in _MODULES:
        return getattr(import_module(f"scanonce.search.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'scanonce.search' has no attribute {name!r}")
