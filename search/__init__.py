"""Searching an index: from the text of a query to moments.

    from scanonce.search import SearchEngine

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")

Why it is as it is: docs/decisions.md, "Search".
"""

from scanonce.search.answer import SearchResult
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings

__all__ = ["SearchEngine", "SearchResult", "SearchSettings"]
