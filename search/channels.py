"""One ranking of moments that were seen, said, written or named.

Each channel gives moments with a probability of its own. Moments that overlap in time become one with all of their
reasons.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from scanonce.search.algebra import Found
from scanonce.search.answer import Search, Stopwatch
from scanonce.search.filters import FilteredLibrary
from scanonce.search.line_moments import (
    LEAST_VALUE,
    Part,
    overlap,
    strongest,
    together,
)
from scanonce.search.query import Text
from scanonce.search.result import SearchResult
from scanonce.search.snapshot import Snapshot
from scanonce.storage.records import Moment, Reason

_TRACKS = ("said", "subtitle", "written")


def with_words(search: Search, seen: SearchResult) -> SearchResult:
    """Add to the answer of the images what words find; the same answer if the index has no lines."""
    lines = search.snapshot.lines
    if not lines.num_lines:
        return seen
    watch = Stopwatch()
    with watch("words"):
        selected = search.snapshot.filters.apply(search.within)
        found = lines.find(Part.of(Text(seen.query)), ids_of(selected))
        left = [each for each in found if each.probability >= LEAST_VALUE]
        moments = _fused(search.snapshot, seen.moments, left)[: search.top]
    took = {**seen.timings_ms, **watch.took_ms}
    took["total"] = sum(value for stage, value in took.items() if stage != "total")
    return replace(seen, moments=moments, timings_ms=took)


def ids_of(selected: FilteredLibrary | None) -> Collection[int] | None:
    """Return the ids of the videos that pass a filter; None: all pass."""
    return None if selected is None else selected.ids.tolist()


def unread_tracks(snapshot: Snapshot, parts: Iterable[Text]) -> tuple[str, ...]:
    """Say how words could be found, if a query asks for them and the index has none."""
    if snapshot.lines.num_lines:
        return ()
    asked = {each for part in parts if part.channel for each in Part.of(part).channels}
    names = ",".join(sorted(asked.intersection(_TRACKS)))
    return (
        (f"nothing of this index is read for words: scanonce tracks add {names}",) if names else ()
    )


def asks_images(snapshot: Snapshot, text: Text) -> bool:
    """Whether a text is looked for in images. Without lines, quotation marks mean nothing."""
    return Part.of(text).asks("seen") or (not text.channel and not snapshot.lines.num_lines)


def _fused(
    snapshot: Snapshot, seen: Sequence[Moment], found: Sequence[Found]
) -> tuple[Moment, ...]:
    """Return moments by falling probability; those of images alone keep their order."""
    left = list(found)
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
    placed += [_moment(snapshot, each) for each in left]
    for moment in sorted(placed, key=lambda each: -each.probability):
        at = next(
            (k for k, each in enumerate(plain) if each.probability < moment.probability),
            len(plain),
        )
        plain.insert(at, moment)
    return tuple(plain)


def _moment(snapshot: Snapshot, found: Found) -> Moment:
    path = snapshot.videos[found.video_id].path
    probability = found.probability
    return Moment(found.video_id, path, found.span, probability, probability, reasons=found.reasons)


def _is_same(moment: Moment, found: Found) -> bool:
    return moment.video_id == found.video_id and overlap(moment.span, found.span) >= 0.5


def _with_words(moment: Moment, found: Sequence[Found]) -> Moment:
    """Return a moment of images with the words that are there, and the span of the stronger."""
    reasons = strongest((*moment.reasons, *(reason for each in found for reason in each.reasons)))
    best = max(found, key=lambda each: each.probability)
    span = best.span if best.probability >= moment.probability else moment.span
    return replace(moment, reasons=reasons, probability=together(reasons), span=span)
