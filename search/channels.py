"""One ranking of moments that were seen, said, written or named.

Each channel gives moments with a probability of its own. Moments that overlap in time become one with all of their
reasons. Parts of a query with a prefix have to be met together (`search.query_parts`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanonce.search.answer import SearchResult, Stopwatch
from scanonce.search.filters import SearchScope
from scanonce.search.line_moments import (
    LEAST_VALUE,
    LineMoment,
    joined,
    overlap,
    strongest,
    together,
)
from scanonce.search.query_parts import Part, query_parts
from scanonce.search.snapshot import Snapshot
from scanonce.storage.records import Moment, Reason, Span

_MEET_SECONDS = 3.0  # between moments that meet several parts of a query
_ALL = 200  # moments of each part that are compared
_TRACKS = {"said": "said", "subtitle": "subtitle", "written": "written"}

SearchSeen = Callable[[str, SearchScope], SearchResult]
"""Answers a text by images, among some videos."""


@dataclass(frozen=True, slots=True)
class ChannelSearch:
    """The search of one query in all of its channels."""

    snapshot: Snapshot
    top: int
    within: SearchScope
    search_seen: SearchSeen

    def answer(self, query: str, parts: Sequence[Part], seen: SearchResult | None) -> SearchResult:
        """Return the moments that meet all parts of a query.

        Args:
            query: the query as it was taken.
            parts: its parts.
            seen: what the images answer, if the query has one part that asks them.
        """
        watch = Stopwatch()
        with watch("words"):
            selected = self.snapshot.filters.apply(self.within)
            ids = None if selected is None else selected.ids.tolist()
        if len(parts) == 1:
            with watch("words"):
                found = self.snapshot.lines.find(parts[0], ids)
                moments = self._fused(seen.moments if seen else (), found, is_only=seen is None)
        else:
            moments = self._meeting(parts, ids, watch)
        took = dict(seen.timings_ms) if seen else {}
        took |= watch.took_ms
        took["total"] = sum(value for stage, value in took.items() if stage != "total")
        notes = (*(seen.notes if seen else ()), *self._notes(parts))
        num_videos = None if ids is None else len(ids)
        num_searchable = len(self.snapshot.videos)
        return SearchResult(query, moments, took, num_videos, notes, num_searchable)

    def _fused(
        self, seen: Sequence[Moment], found: Sequence[LineMoment], *, is_only: bool
    ) -> tuple[Moment, ...]:
        """Return moments by falling probability; those of images alone keep their order.

        Args:
            seen: moments of the images.
            found: moments of words.
            is_only: whether words alone were asked, so that weak moments count too.
        """
        left = [each for each in found if is_only or each.value >= LEAST_VALUE]
        plain: list[Moment] = []
        placed: list[Moment] = []
        for moment in seen:
            own = replace(moment, reasons=(Reason("seen", moment.probability),))
            same = [each for each in left if _is_same(own, each)]
            if same:
                left = [each for each in left if each not in same]
                placed.append(_with_words(own, same))
            else:
                plain.append(own)
        placed += [self._moment(each) for each in left]
        for moment in sorted(placed, key=lambda each: -each.probability):
            at = next(
                (k for k, each in enumerate(plain) if each.probability < moment.probability),
                len(plain),
            )
            plain.insert(at, moment)
        return tuple(plain[: self.top])

    def _meeting(
        self, parts: Sequence[Part], ids: list[int] | None, watch: Stopwatch
    ) -> tuple[Moment, ...]:
        """Return moments that meet several parts, words first: they say in which videos the images are searched."""
        met: list[LineMoment] | None = None
        for part in sorted(parts, key=lambda part: part.asks("seen")):
            with watch("words"):
                found = self.snapshot.lines.find(part, ids)
            if part.asks("seen"):
                with watch("moments"):
                    images = self.search_seen(part.text, ids)
                found = joined([*found, *map(_as_found, images.moments)])
            with watch("words"):
                met = found[:_ALL] if met is None else _pairs(met, found[:_ALL])
                ids = sorted({each.video_id for each in met})
        best = joined(met or [])[: self.top]
        return tuple(self._moment(each) for each in best)

    def _moment(self, found: LineMoment) -> Moment:
        video = self.snapshot.videos[found.video_id]
        return Moment(
            video.video_id, video.path, found.span, found.value, found.value, reasons=found.reasons
        )

    def _notes(self, parts: Sequence[Part]) -> tuple[str, ...]:
        if self.snapshot.lines.num_lines:
            return ()
        asked = {name for part in parts if part.channels for name in part.channels} & set(_TRACKS)
        if not asked:
            return ()
        names = ",".join(sorted(asked))
        return (f"nothing of this index is read for words: scanonce tracks add {names}",)


def parts_of(snapshot: Snapshot, query: str) -> tuple[Part, ...]:
    """Return the parts of a query. Without lines, quotes mean nothing, and a query without prefix asks the images."""
    parts = query_parts(query)
    if snapshot.lines.num_lines:
        return parts
    has_prefix = any(part.channels is not None and not part.phrases for part in parts)
    return parts if has_prefix else (Part(query, ("seen",)),)


def _is_same(moment: Moment, found: LineMoment) -> bool:
    return moment.video_id == found.video_id and overlap(moment.span, found.span) >= 0.5


def _with_words(moment: Moment, found: Sequence[LineMoment]) -> Moment:
    """Return a moment of images with the words that are there, and the span of the stronger."""
    reasons = strongest((*moment.reasons, *(reason for each in found for reason in each.reasons)))
    best = max(found, key=lambda each: each.value)
    span = best.span if best.value >= moment.probability else moment.span
    return replace(moment, reasons=reasons, probability=together(reasons), span=span)


def _as_found(moment: Moment) -> LineMoment:
    reason = Reason("seen", moment.probability)
    return LineMoment(moment.video_id, moment.span, moment.probability, (reason,))


def _pairs(one: Sequence[LineMoment], other: Sequence[LineMoment]) -> list[LineMoment]:
    """Return what two lists of moments have in common, or nearly so."""
    pairs = []
    for a in one:
        for b in other:
            gap = max(a.span.start_seconds, b.span.start_seconds) - min(
                a.span.end_seconds, b.span.end_seconds
            )
            if a.video_id == b.video_id and gap <= _MEET_SECONDS:
                value = float(np.clip(a.value * b.value, 1e-4, 1 - 1e-4))
                reasons = strongest((*a.reasons, *b.reasons))
                pairs.append(LineMoment(a.video_id, _common(a.span, b.span), value, reasons))
    return pairs


def _common(one: Span, other: Span) -> Span:
    """Return what two spans have in common; if that is nothing, all from the first to the last of both."""
    start = max(one.start_seconds, other.start_seconds)
    end = min(one.end_seconds, other.end_seconds)
    if end > start:
        return Span(start, end)
    return Span(
        min(one.start_seconds, other.start_seconds), max(one.end_seconds, other.end_seconds)
    )
