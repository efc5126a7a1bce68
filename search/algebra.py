"""The algebra of moments: union, intersection, difference and sequence of what the parts of a query found.

Pure functions on spans with probabilities. The probability of a joined moment is that of all its parts at once, as if
they were independent: of ``a & b`` and ``a > b`` the product, of ``a | b`` the greater one, of ``a`` without ``b`` the
share of ``a`` that is not ``b``.

>>> a = [Found(1, Span(0, 10), 0.9), Found(1, Span(30, 40), 0.8)]
>>> b = [Found(1, Span(12, 20), 0.5)]
>>> sequence(a, b, within_seconds=5)
[Found(video_id=1, span=Span(start_seconds=0, end_seconds=20), probability=0.45, evidence=0.0, reasons=())]
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.search.curve import suppress_overlaps
from scanonce.storage.records import Reason, Span

_SLACK_SECONDS, _SLACK_SHARE = 1.0, 0.25
"""The first moment of a sequence may end this much after the second begins, and at most this share of its length:
edges are known to a sampling step only."""

_LEAST_SHARED = 0.5
"""Least share of the shorter of two moments that both have in common, for ``a & b``."""

_PRESENT = 0.25
"""Probability from which something that is denied counts as there: less than a good match, because it was not to be
seen at all. Chosen on the films of `benchmarks.compounds --fit`; a lower one costs moments that are wanted."""

_LEAST_LEFT_SECONDS = 1.0
"""A moment that is cut by ``-b`` keeps at least this."""


class Placed(Protocol):
    """Something with a span of a video and a probability: a `Found`, or a `storage.records.Moment`."""

    @property
    def video_id(self) -> int:
        """Its video."""

    @property
    def span(self) -> Span:
        """Its span."""

    @property
    def probability(self) -> float:
        """Its probability, 0 to 1."""


P = TypeVar("P", bound=Placed)


@dataclass(frozen=True, slots=True)
class Found:
    """A moment of a part of a query."""

    video_id: int
    span: Span
    probability: float
    evidence: float = 0.0
    """See `storage.records.Moment`."""
    reasons: tuple[Reason, ...] = ()
    """Why it is there, by channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """How probable it is that something is there, over a span."""

    edges_seconds: NDArray[np.float64]
    """``[num_pieces + 1]`` rising; the first and the last are those of the span."""
    probabilities: NDArray[np.float64]
    """``[num_pieces]``."""


def best_first(found: Iterable[P]) -> list[P]:
    """Sort by falling probability, then by video and time."""
    return sorted(found, key=lambda each: (-each.probability, each.video_id, each.span))


def union(parts: Iterable[Sequence[Found]], *, overlap: float) -> list[Found]:
    """Return what any part found, best first; of moments that overlap the best one stays.

    Args:
        parts: what each part found.
        overlap: see `search.curve.suppress_overlaps`.
    """
    return apart(chain.from_iterable(parts), overlap=overlap)


def apart(found: Iterable[P], *, overlap: float) -> list[P]:
    """Return moments best first; of those of a video that overlap the best one stays.

    Args:
        found: the moments.
        overlap: see `search.curve.suppress_overlaps`.
    """
    by_video: dict[int, list[P]] = defaultdict(list)
    for each in found:
        by_video[each.video_id].append(each)
    kept: list[P] = []
    for group in by_video.values():
        spans = np.array([(each.span.start_seconds, each.span.end_seconds) for each in group])
        scores = np.array([each.probability for each in group])
        kept += [group[k] for k in suppress_overlaps(spans, scores, overlap, len(group))]
    return best_first(kept)


def together(first: Sequence[Found], second: Sequence[Found]) -> list[Found]:
    """Return the spans in which a moment of each part is, in any order, in O(n log n + pairs)."""
    theirs = _by_video(second)
    joined = []
    for one in first:
        for other in theirs.get(one.video_id, ()):
            if other.span.start_seconds >= one.span.end_seconds:
                break
            span = _shared(one.span, other.span)
            if span is not None:
                joined.append(_both(one, other, span))
    return joined


def sequence(
    first: Sequence[Found], second: Sequence[Found], *, within_seconds: float
) -> list[Found]:
    """Return for each second moment the best first moment before it, as one span, best first; in O(n log n).

    Args:
        first: what comes first.
        second: what follows in the same video.
        within_seconds: longest time from the end of the first to the begin of the second.
    """
    before = _by_video(first)
    joined = []
    for video_id, followers in _by_video(second).items():
        leaders = sorted(before.get(video_id, ()), key=lambda each: _end(each.span))
        # Leaders that may precede the next follower, with falling probabilities: a later one that is as probable
        # stands for all before it.
        waiting: deque[Found] = deque()
        taken = 0
        for follower in sorted(followers, key=lambda each: _start(each.span)):
            start = _start(follower.span)
            while taken < len(leaders) and _end(leaders[taken].span) <= start:
                while waiting and waiting[-1].probability <= leaders[taken].probability:
                    waiting.pop()
                waiting.append(leaders[taken])
                taken += 1
            while waiting and _end(waiting[0].span) < start - within_seconds:
                waiting.popleft()
            if waiting and waiting[0].span.start_seconds < follower.span.start_seconds:
                leader = waiting[0]
                end = max(leader.span.end_seconds, follower.span.end_seconds)
                joined.append(_both(leader, follower, Span(leader.span.start_seconds, end)))
    return best_first(joined)


def without(found: Found, unwanted: Presence) -> Found | None:
    """Take out of a moment what must not be there.

    Args:
        found: the moment.
        unwanted: over the span of the moment.

    Returns:
        The longest part of the moment in which the unwanted is hardly probable; None if no part is long enough, since
        the person asked not to see it.
    """
    edges, values = unwanted.edges_seconds, unwanted.probabilities
    start, end = _longest_run(edges, values < _PRESENT)
    if end - start < min(_LEAST_LEFT_SECONDS, found.span.duration_seconds):
        return None
    inside = (edges[:-1] >= start) & (edges[1:] <= end)
    left = 1.0 - float(values[inside].max(initial=0.0))
    return replace(found, span=Span(start, end), probability=found.probability * left)


def _longest_run(edges: NDArray[np.float64], is_free: NDArray[np.bool_]) -> tuple[float, float]:
    """Begin and end of the longest run of pieces that are free; equal if none is."""
    padded = np.concatenate([[False], is_free, [False]])
    begins = np.flatnonzero(padded[1:] & ~padded[:-1])
    ends = np.flatnonzero(padded[:-1] & ~padded[1:])
    if not len(begins):
        return float(edges[0]), float(edges[0])
    longest = int(np.argmax(edges[ends] - edges[begins]))
    return float(edges[begins[longest]]), float(edges[ends[longest]])


def weighed(probability: float, weight: float) -> float:
    """Multiply the log-odds of a probability by a weight: 0.5 stays 0.5, and a weight of 2 counts it twice.

    >>> round(weighed(0.8, 2), 4), weighed(0.5, 3)
    (0.9412, 0.5)
    """
    one, other = probability**weight, (1.0 - probability) ** weight
    return one / (one + other) if one + other > 0 else probability


def overlaid(presence: Presence, found: Iterable[Found]) -> Presence:
    """Raise a presence to the probability of each moment, in the pieces that are mostly in it."""
    values = presence.probabilities.copy()
    starts, ends = presence.edges_seconds[:-1], presence.edges_seconds[1:]
    for each in found:
        shared = np.minimum(ends, each.span.end_seconds) - np.maximum(
            starts, each.span.start_seconds
        )
        inside = shared > 0.5 * (ends - starts)
        values[inside] = np.maximum(values[inside], each.probability)
    return Presence(presence.edges_seconds, values)


def _by_video(found: Sequence[Found]) -> Mapping[int, list[Found]]:
    by_video: dict[int, list[Found]] = defaultdict(list)
    for each in sorted(found, key=lambda each: each.span):
        by_video[each.video_id].append(each)
    return by_video


def _shared(one: Span, other: Span) -> Span | None:
    """The time of both, if it is most of the shorter one."""
    start = max(one.start_seconds, other.start_seconds)
    end = min(one.end_seconds, other.end_seconds)
    shorter = min(one.duration_seconds, other.duration_seconds)
    return Span(start, end) if end - start > max(0.0, _LEAST_SHARED * shorter - 1e-9) else None


def _both(one: Found, other: Found, span: Span) -> Found:
    probability = one.probability * other.probability
    reasons = (*one.reasons, *(each for each in other.reasons if each not in one.reasons))
    return Found(one.video_id, span, probability, min(one.evidence, other.evidence), reasons)


def _slack(span: Span) -> float:
    return min(_SLACK_SECONDS, _SLACK_SHARE * span.duration_seconds)


def _end(span: Span) -> float:
    return span.end_seconds - _slack(span)


def _start(span: Span) -> float:
    return span.start_seconds + _slack(span)
