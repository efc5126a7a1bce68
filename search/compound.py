"""Queries of several parts (`search.query`), answered from stored arrays.

Each part is looked up and located by itself. Parts that must be in one video are located in the same stretches of the
videos that fit all of them best, so a query costs about what its parts cost. What the parts found is joined by the
algebra of moments (`search.algebra`).

    answer_compound(search, "a boat -snow", parse("a boat -snow"), encode, read, Stopwatch())
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import pool_spans, unit
from scanonce.search import algebra
from scanonce.search.algebra import Found, Presence
from scanonce.search.answer import Search, Stopwatch, query_of
from scanonce.search.channels import asks_images, ids_of, unread_tracks
from scanonce.search.composing import Sought, composed
from scanonce.search.examples import stored_example
from scanonce.search.filters import FilteredLibrary
from scanonce.search.line_moments import Part, joined
from scanonce.search.localise import Candidate
from scanonce.search.localise import Query as Vectors
from scanonce.search.query import (
    And,
    Atom,
    Given,
    Like,
    Not,
    Or,
    Query,
    Text,
    Then,
    Weighted,
    atoms,
    is_wanted,
    leaves,
)
from scanonce.search.result import SearchResult
from scanonce.search.retrieve import merge
from scanonce.search.snapshot import Snapshot
from scanonce.search.unread import unread_lines
from scanonce.storage.records import Moment, Reason, Span

_LOOKED_UP = 512
"""Clips to retrieve for each part."""

_LOCATED, _LOCATED_PER_MOMENT = 40, 4
"""Moments of each part that are joined with those of others: at least this many, and this many for each shown one."""

_WINDOW_SECONDS, _HOP_SECONDS = 3.0, 1.0
"""Length and distance of the windows in which something unwanted is looked for."""

_LEFT_PER_MOMENT = 2
"""Moments without the unwanted part that are enough, for each shown one: their order may still change."""

NOTHING_GIVEN: Mapping[Given, NDArray[np.float32]] = MappingProxyType({})

Stretches = Mapping[int, tuple[tuple[float, float], ...]]
"""Seconds by video, in order, disjoint."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A text or an example of a query, looked up in the library."""

    vectors: Vectors | None
    """None: it is looked for among words only."""
    reading: Reading | None
    """How the encoder reads the text; None: it is an image, or looked for among words only."""
    candidates: Mapping[int, Candidate]
    """Videos of its best clips, best first; empty for one that is only unwanted."""
    further: Callable[[], Mapping[int, Candidate]]
    """Videos of many more clips: a clip that is nothing special alone may be right together with another part. They are
    made when they are needed."""
    words: Sequence[Found] = ()
    """Moments where it is said or written, best first."""

    @property
    def asks_images(self) -> bool:
        """Whether it is looked for in images."""
        return self.vectors is not None

    def words_in(self, video_id: int) -> list[Found]:
        """Return the moments where it is said or written in one video."""
        return [each for each in self.words if each.video_id == video_id]

    def stretches(self, video_id: int, context_seconds: float) -> list[tuple[float, float]]:
        """Return the stretches of a video where it may be; they may overlap and end after the video."""
        around = [
            (each.span.start_seconds - context_seconds, each.span.end_seconds + context_seconds)
            for each in self.words_in(video_id)
        ]
        near = self.further().get(video_id)
        return [*around, *(near.stretches if near is not None else ())]


def answer_compound(
    search: Search,
    text: str,
    query: Query,
    encode: Callable[[Sequence[str]], TextFeatures],
    read: Callable[[Sequence[str]], list[Reading]],
    given: Mapping[Given, NDArray[np.float32]] = NOTHING_GIVEN,
    watch: Stopwatch | None = None,
) -> SearchResult:
    """Answer a query of several parts.

    Args:
        search: the snapshot and what to look in.
        text: the query as it was typed.
        query: the query.
        encode: encodes texts.
        read: says how the encoder reads texts.
        given: ``[1, dim]`` of each example from outside of the library.
        watch: has the time that was spent so far.

    Raises:
        QueryError: an example is of no video of the library, or words are looked for that no index has.
    """
    watch = watch or Stopwatch()
    parts = atoms(query)
    seen = [
        part for part in parts if not isinstance(part, Text) or asks_images(search.snapshot, part)
    ]
    with watch("text"):
        vectors, readings = _vectors(search.snapshot, seen, encode, read, given)
        looked_for = [Sought(*each) for each in zip(seen, vectors, readings, strict=True)]
        asked, looked_for = composed(search.snapshot.judge, query, looked_for)
    with watch("library"):
        selected = search.snapshot.filters.apply(search.within)
        found = _looked_up(search, set(leaves(asked)), looked_for, selected)
        others = [part for part in atoms(asked) if part not in found]
        found |= _only_words(search, others, selected)
    with watch("moments"):
        best = Compound(search, found).answer(asked)
    videos = search.snapshot.videos
    moments = tuple(
        Moment(
            each.video_id,
            videos[each.video_id].path,
            each.span,
            each.probability,
            each.probability,
            each.evidence,
            each.reasons,
        )
        for each in best
    )
    lines = [f"read as: {query}"]
    for reading in readings:
        lines += [] if reading is None else unread_lines(reading)
    lines += unread_tracks(search.snapshot, [part for part in parts if isinstance(part, Text)])
    return SearchResult(
        text,
        moments,
        {**watch.took_ms, "total": sum(watch.took_ms.values())},
        None if selected is None else len(selected.ids),
        tuple(dict.fromkeys(lines)),
        len(videos),
    )


def _vectors(
    snapshot: Snapshot,
    parts: Sequence[Atom],
    encode: Callable[[Sequence[str]], TextFeatures],
    read: Callable[[Sequence[str]], list[Reading]],
    given: Mapping[Given, NDArray[np.float32]],
) -> tuple[list[TextFeatures], list[Reading | None]]:
    """Return each part as a row of vectors, and how it is read; examples are not read."""
    words = [part.words for part in parts if isinstance(part, Text)]
    encoded = encode(words) if words else None
    read_words = iter(read(words) if words else [])
    vectors: list[TextFeatures] = []
    readings: list[Reading | None] = []
    row = 0
    for part in parts:
        if not isinstance(part, Text):
            image = given[part] if isinstance(part, Given) else stored_example(snapshot, part)
            vectors.append(TextFeatures(image, np.empty((1, 0), np.float32)))
            readings.append(None)
        else:
            assert encoded is not None
            vectors.append(TextFeatures(encoded.joint[[row]], encoded.states[[row]]))
            readings.append(next(read_words))
            row += 1
    return vectors, readings


def _looked_up(
    search: Search,
    wanted: Collection[Atom],
    parts: Sequence[Sought],
    selected: FilteredLibrary | None,
) -> dict[Atom, Leaf]:
    """Look up the best clips of each part that is wanted, and where its words are."""
    if not parts:
        return {}
    joint = TextFeatures(
        np.concatenate([each.vectors.joint for each in parts]),
        np.empty((len(parts), 0), np.float32),
    )
    retrieved = search.retrieve(joint, selected, depth=_LOOKED_UP)
    usual = search.depth
    found = {}
    for k, each in enumerate(parts):
        clips, scores = retrieved.clip_ids[k], retrieved.scores[k]
        is_located = each.part in wanted
        found[each.part] = Leaf(
            query_of(each.vectors, 0, retrieved.levels[k]),
            each.reading,
            search.candidates(clips[:usual], scores[:usual]) if is_located else {},
            cache(partial(search.candidates, clips, scores)) if is_located else dict,
            _words(search, each.part, selected),
        )
    return found


def _only_words(
    search: Search, parts: Sequence[Atom], selected: FilteredLibrary | None
) -> dict[Atom, Leaf]:
    """Look up parts that no image can show: no text tower runs, and no clip is looked up."""
    return {part: Leaf(None, None, {}, dict, _words(search, part, selected)) for part in parts}


def _words(search: Search, part: Atom, selected: FilteredLibrary | None) -> Sequence[Found]:
    lines = search.snapshot.lines
    if not isinstance(part, Text) or not lines.num_lines:
        return ()
    return lines.find(Part.of(part), ids_of(selected))


class Compound:
    """Evaluates queries of several parts over one snapshot."""

    def __init__(self, search: Search, found: Mapping[Atom, Leaf]) -> None:
        """Set the library and the parts.

        Args:
            search: the snapshot, the settings and the localiser.
            found: all texts and examples of the queries.
        """
        self._search, self._leaves = search, found
        self._overlap = search.settings.nms_overlap
        self._depth = max(_LOCATED, _LOCATED_PER_MOMENT * search.top)
        self._inside: dict[tuple[Atom, int], tuple[Sequence[tuple[float, float]], list[Found]]] = {}
        """Located moments for `_presence` by part and video, with the stretches that were searched."""

    def answer(self, query: Query) -> list[Found]:
        """Return the moments of a query, best first."""
        return self._find(query, None)[: self._search.top]

    def _find(self, query: Query, scope: Stretches | None) -> list[Found]:
        """Find the moments of a query.

        Args:
            query: one with a wanted part.
            scope: where to look; None: around the best clips of each part.
        """
        match query:
            case Text() | Like() | Given():
                return self._locate(query, scope)
            case Weighted():
                return [
                    replace(each, probability=algebra.weighed(each.probability, query.weight))
                    for each in self._find(query.query, scope)
                ]
            case Or():
                parts = (self._find(part, scope) for part in query.parts)
                return algebra.union(parts, overlap=self._overlap)
            case Then():
                scope = scope or self._scope([query.first, query.second], query.within_seconds)
                first, second = (self._find(part, scope) for part in (query.first, query.second))
                joined = algebra.sequence(first, second, within_seconds=query.within_seconds)
                return algebra.union([joined], overlap=self._overlap)
            case And():
                return self._find_all(query, scope)
            case Not():
                raise AssertionError("every query has a wanted part")
            case _:
                assert_never(query)

    def _find_all(self, query: And, scope: Stretches | None) -> list[Found]:
        wanted = [part for part in query.parts if is_wanted(part)]
        if len(wanted) > 1:
            scope = scope or self._scope(wanted, 0.0)
        found = self._find(wanted[0], scope)
        for part in wanted[1:]:
            others = self._find(part, scope)
            joined = algebra.together(found, others)
            self._locate_inside(part, found)
            # What one part found counts even if the other one has its moments elsewhere.
            joined += self._also(found, part)
            found = algebra.union([joined], overlap=self._overlap)
        for part in query.parts:
            if not is_wanted(part):
                found = self._free_of(found, part)
        return found

    def _also(self, found: Sequence[Found], part: Query) -> list[Found]:
        """Multiply the probability of each moment by that of another part in it."""
        return [
            replace(
                each,
                probability=each.probability
                * float(np.average(there.probabilities, weights=np.diff(there.edges_seconds))),
            )
            for each, there in zip(found, self._presences(part, found), strict=True)
        ]

    def _free_of(self, found: Sequence[Found], part: Query) -> list[Found]:
        """Take what a part denies out of the moments, until there are enough of them."""
        inner = part.query if isinstance(part, Not) else part
        enough = _LEFT_PER_MOMENT * self._search.top
        left: list[Found] = []
        for begin in range(0, len(found), enough):
            some = found[begin : begin + enough]
            self._locate_inside(inner, some)
            rest = map(algebra.without, some, self._presences(inner, some))
            left += [each for each in rest if each is not None]
            if len(left) >= enough:
                break
        return algebra.best_first(left[:enough])

    # --- Parts ---

    def _locate(self, part: Atom, scope: Stretches | None) -> list[Found]:
        leaf = self._leaves[part]
        words = [each for each in leaf.words if scope is None or each.video_id in scope]
        candidates: Mapping[int, Candidate] = leaf.candidates
        if scope is not None and leaf.asks_images:
            snapshot = self._search.snapshot
            candidates = {
                video_id: Candidate(
                    snapshot.stored(snapshot.videos[video_id]),
                    stretches,
                    leaf.candidates[video_id].clips if video_id in leaf.candidates else (),
                )
                for video_id, stretches in scope.items()
            }
        seen = self._judged(part, leaf, candidates, self._depth) if leaf.asks_images else []
        if scope is not None and leaf.asks_images:
            self._keep_inside(part, scope, seen)
        return joined([*words, *seen]) if words else seen

    def _keep_inside(self, part: Atom, stretches: Stretches, located: Sequence[Found]) -> None:
        """Keep the moments of a part in some stretches for `_presence`."""
        by_video: dict[int, list[Found]] = defaultdict(list)
        for each in located:
            by_video[each.video_id].append(each)
        for number, searched in stretches.items():
            self._inside[part, number] = searched, by_video[number]

    def _is_inside(self, part: Atom, video_id: int, span: tuple[float, float]) -> bool:
        """Whether a part was located in all of a span before."""
        searched, _ = self._inside.get((part, video_id), ((), []))
        return any(a <= span[0] and span[1] <= b for a, b in searched)

    def _locate_inside(self, query: Query, found: Sequence[Found]) -> None:
        """Locate all parts of a query in some moments: once for a part, and not once for a moment."""
        for part in atoms(query):
            leaf = self._leaves[part]
            if not leaf.asks_images or leaf.reading is None:
                continue
            spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
            for each in found:
                span = _bounds(each.span)
                if not self._is_inside(part, each.video_id, span):
                    spans[each.video_id].append(span)
            if not spans:
                continue
            stretches = {number: tuple(merge(each)) for number, each in spans.items()}
            snapshot = self._search.snapshot
            candidates = {
                number: Candidate(snapshot.stored(snapshot.videos[number]), each)
                for number, each in stretches.items()
            }
            located = self._judged(part, leaf, candidates, self._depth + len(found))
            self._keep_inside(part, stretches, located)

    def _located_inside(self, part: Atom, found: Found) -> list[Found]:
        """Return the moments of a part in the video of a moment; at least all inside of the moment."""
        self._locate_inside(part, [found])
        return self._inside[part, found.video_id][1]

    def _judged(
        self, part: Atom, leaf: Leaf, candidates: Mapping[int, Candidate], top: int
    ) -> list[Found]:
        assert leaf.vectors is not None
        search, ids = self._search, list(candidates)
        by_image = leaf.reading is None
        localiser = search.snapshot.methods.by_frames if by_image else search.localiser
        proposals = localiser.locate(leaf.vectors, list(candidates.values()), top=top)
        text = part.words if isinstance(part, Text) else ""
        has_lines = search.snapshot.lines.num_lines > 0
        return [
            Found(
                ids[each.proposal.candidate],
                each.proposal.span,
                each.probability,
                each.evidence,
                (Reason("seen", each.probability),) if has_lines else (),
            )
            for each in search.judge(text, leaf.vectors, proposals, leaf.reading)
        ]

    def _scope(self, parts: Sequence[Query], pause_seconds: float) -> Stretches:
        """Choose the stretches in which several parts are looked for together.

        They are those of the videos whose best clips fit all parts best, as many videos as one part has.

        Args:
            parts: they must be in one video.
            pause_seconds: the stretches of a video are widened by this, so that what follows is inside.
        """
        found = [self._leaves[leaf] for part in parts for leaf in leaves(part)]
        scores: dict[int, float] = {}
        for each in found:
            best = {number: one.clips[0][1] for number, one in each.further().items()}
            level = min(best.values(), default=0.0)
            spread = max(best.values(), default=0.0) - level or 1.0
            shares = {number: (value - level) / spread for number, value in best.items()}
            for moment in each.words:
                number = moment.video_id
                shares[number] = max(shares.get(number, 0.0), moment.probability)
            for number, share in shares.items():
                scores[number] = scores.get(number, 0.0) + share
        kept = sorted(scores, key=lambda number: (-scores[number], number))
        num_usual = max(len(each.candidates) for each in found)
        kept = kept[: num_usual or self._search.depth]
        videos = self._search.snapshot.videos
        context = self._search.settings.context_seconds
        return {
            number: tuple(
                merge(
                    [
                        (
                            max(0.0, start - pause_seconds),
                            min(end + pause_seconds, videos[number].duration_seconds),
                        )
                        for each in found
                        for start, end in each.stretches(number, context)
                    ]
                )
            )
            for number in kept
        }

    # --- Presence over spans ---

    def _presences(self, query: Query, found: Sequence[Found]) -> list[Presence]:
        """How probable it is that a query is shown, over the span of each moment."""
        match query:
            case Text() | Like() | Given():
                return self._presences_of_part(query, found)
            case Not():
                inner = self._presences(query.query, found)
                return [Presence(each.edges_seconds, 1.0 - each.probabilities) for each in inner]
            case Weighted():
                weighed = []
                for each in self._presences(query.query, found):
                    values = [algebra.weighed(value, query.weight) for value in each.probabilities]
                    weighed.append(Presence(each.edges_seconds, np.array(values, np.float64)))
                return weighed
            case And() | Or():
                # one row for each part: the pieces of a span are the same for all
                parts = zip(*(self._presences(part, found) for part in query.parts), strict=True)
                joined = []
                for inside in parts:
                    rows = np.stack([each.probabilities for each in inside])
                    values = rows.prod(axis=0) if isinstance(query, And) else rows.max(axis=0)
                    joined.append(Presence(inside[0].edges_seconds, values))
                return joined
            case Then():
                return [
                    algebra.overlaid(
                        _absence(each.span),
                        self._find(query, {each.video_id: (_bounds(each.span),)}),
                    )
                    for each in found
                ]
            case _:
                assert_never(query)

    def _presences_of_part(self, part: Atom, found: Sequence[Found]) -> list[Presence]:
        leaf = self._leaves[part]
        if leaf.vectors is None:
            return [
                algebra.overlaid(_absence(each.span), leaf.words_in(each.video_id))
                for each in found
            ]
        pieces = self._pieces(found)
        pooled = [each for each in pieces if each is not None]
        judged = iter(self._judged_pieces(part, leaf, pooled))
        presences = []
        for each, own in zip(found, pieces, strict=True):
            presence = _absence(each.span)
            if own is not None:
                presence = Presence(presence.edges_seconds, next(judged))
                if leaf.reading is not None:
                    # A happening is in no single frame; the localiser finds it.
                    located = self._located_inside(part, each)
                    there = [*located, *leaf.words_in(each.video_id)]
                    presence = algebra.overlaid(presence, there)
            presences.append(presence)
        return presences

    def _pieces(self, found: Sequence[Found]) -> list[NDArray[np.float32] | None]:
        """Pool the frames of the pieces of each moment (`_windows`); the file of a video is opened once.

        Returns:
            For each moment ``[num_pieces, dim]`` of length 1; None if no frames are stored.
        """
        by_video: dict[int, list[int]] = defaultdict(list)
        for k, each in enumerate(found):
            by_video[each.video_id].append(k)
        snapshot = self._search.snapshot
        pieces: list[NDArray[np.float32] | None] = [None] * len(found)
        for number, mine in by_video.items():
            stored = snapshot.stored(snapshot.videos[number])
            read = stored.frames([_bounds(found[k].span) for k in mine])
            for k, frames in zip(mine, read, strict=True):
                if len(frames.frames):
                    _, bounds = _windows(found[k].span)
                    pieces[k] = pool_spans(
                        unit(frames.frames), frames.pts_seconds, bounds, frames.fps
                    )
        return pieces

    def _judged_pieces(
        self, part: Atom, leaf: Leaf, pieces: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float64]]:
        """Return the probabilities of a part in the pieces of some moments, by their frames alone."""
        if not pieces:
            return []
        assert leaf.vectors is not None
        judge, rows = self._search.snapshot.judge, np.concatenate(pieces)
        if leaf.reading is None:
            values = judge.alike(leaf.vectors.joint, rows)
        else:
            assert isinstance(part, Text)
            values = judge.by_frames(part.words, leaf.vectors, rows, leaf.reading)
        return np.split(values, np.cumsum([len(each) for each in pieces])[:-1])


def _bounds(span: Span) -> tuple[float, float]:
    return span.start_seconds, span.end_seconds


def _absence(span: Span) -> Presence:
    """Nothing, over a span."""
    edges, bounds = _windows(span)
    return Presence(edges, np.zeros(len(bounds)))


def _windows(span: Span) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide a span into pieces with a window around each.

    Returns:
        ``[num_pieces + 1]`` edges of the pieces and ``[num_pieces, 2]`` bounds of the windows, in seconds; all windows
        are inside the span.
    """
    start, end = span.start_seconds, span.end_seconds
    num_pieces = max(1, round((end - start) / _HOP_SECONDS))
    edges = np.linspace(start, end, num_pieces + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    half = _WINDOW_SECONDS / 2
    bounds = np.stack([np.maximum(centres - half, start), np.minimum(centres + half, end)], axis=1)
    return edges, bounds
