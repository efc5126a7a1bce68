"""The answer to a query as values, without what makes them: importing this file takes milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scanonce.search.grades import GOOD
from scanonce.storage.records import Moment


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a query. Nothing is left out of it because it is uncertain: each moment has its probability."""

    query: str
    moments: tuple[Moment, ...]
    """Best first, with falling probabilities; in the order of the re-ranker if the index has one
    (`search.rerank`)."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall milliseconds by stage: ``text``, ``judging``, ``library``, ``moments``, ``rerank`` if there is a
    re-ranker, and their ``total``. Queries that are answered together share ``text`` and ``library`` evenly."""
    num_videos: int | None = None
    """Number of videos that passed the filter; None without a filter. If it is 0 there are no moments."""
    notes: tuple[str, ...] = ()
    """What the encoder cannot read in the query, and logic that it does not follow (`search.notes`)."""
    num_searchable: int | None = None
    """Number of searchable videos of the whole library; if it is 0, the index is empty."""

    @property
    def num_good(self) -> int:
        """Number of moments above the line; they are the first ones."""
        return sum(moment.probability >= GOOD for moment in self.moments)

    @property
    def no_good_match(self) -> bool:
        """Whether no moment is above the line."""
        return self.num_good == 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of some videos with a good match, by the best clip of each."""

    num_matching: int
    num_judged: int
    num_videos: int
    """Number of videos; all are judged, or a random part of them."""

    @property
    def is_estimate(self) -> bool:
        """Whether only a part of the videos was judged."""
        return self.num_judged < self.num_videos

    @property
    def share(self) -> float:
        """Share of the judged videos that match, 0 to 1."""
        return self.num_matching / self.num_judged if self.num_judged else 0.0
