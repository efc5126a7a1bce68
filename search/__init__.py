"""Searching an index: from the text of a query to moments.

    from scanonce.search import SearchEngine

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")

Why it is as it is: docs/decisions.md, "Search".
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scanonce.search.engine import SearchEngine

__all__ = ["SearchEngine"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, too long for a command that reads a setting of the search
    if name == "SearchEngine":
        from scanonce.search.engine import SearchEngine

        return SearchEngine
    raise AttributeError(f"module 'scanonce.search' has no attribute {name!r}")
