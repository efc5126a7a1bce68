"""A query becomes moments.

from search import SearchEngine

with SearchEngine.open("~/.scanonce") as engine:
    result = engine.search("a red car drives past at night")
"""

from search.engine import SearchEngine, SearchResult
from search.settings import SearchSettings

__all__ = ["SearchEngine", "SearchResult", "SearchSettings"]
