"""Moments that are found by words: of speech, of text in the image, of subtitles and of names.

    finder = LineFinder(catalog, videos, counts, meanings, model)
    finder.find(Part.of(Text('met on Discord')), selected=None)                 # [Found], best first

**Words.** The rarest words of a part of a query choose lines (BM25). A line is judged together with its neighbours, by
the share of the query's words that are there, weighted by how rare they are, and by their weight alone: all rare words
near each other are certain, a single common word is little.
**Meaning.** The sentence is compared with the passages of the library (`search.meanings`), which finds other words for
the same. Both become probabilities by weights fitted once (`benchmarks.lines`).
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np

from scanonce.models.tracks.meaning import TextModel
from scanonce.search.algebra import Found
from scanonce.search.calibration import as_probabilities
from scanonce.search.meanings import Meanings, as_vector
from scanonce.search.query import Text
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.lines import FoundLine
from scanonce.storage.catalog.words import matching, word_spans, words
from scanonce.storage.records import Channel, Line, Reason, Span, TrackName, Video

_CHANNELS: dict[str, tuple[Channel, ...]] = {
    "": ("seen", "said", "subtitle", "written", "name"),
    "seen": ("seen",),
    "said": ("said", "subtitle"),
    "written": ("written",),
    "name": ("name",),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a query that one or more channels answer."""

    text: str
    channels: tuple[Channel, ...]
    """The channels that are asked."""
    is_restricted: bool
    """Whether the query names them."""
    phrases: tuple[str, ...] = ()
    """Words that have to follow each other as they do here."""

    @classmethod
    def of(cls, text: Text) -> "Part":
        """Take a text of a query. Words in quotation marks ask for words, not for images."""
        channels = _CHANNELS[text.channel]
        if not text.exact:
            return cls(text.words, channels, bool(text.channel))
        words_only = tuple(
            each for each in channels if text.channel or each not in ("seen", "name")
        )
        return cls(text.words, words_only, bool(text.channel), (text.words,))

    def asks(self, channel: Channel) -> bool:
        """Whether a channel is asked."""
        return channel in self.channels


LEAST_VALUE = 0.1
"""Moments below are no answer to a query that asks the images too."""

SENTENCE_END = re.compile(r"[.?!…。？！][\"'”’)]*(?=\s|$)")
"""A full stop or what stands for one, with the quotation marks after it."""

_HITS = 60  # lines that the word index returns
_JUDGED = 24  # of them, those that are read with their neighbours
_RAREST = 6  # words of a query that choose lines
_RARE_LINES = 2_000  # lines with a word that is rare
_PASSAGES = 30
_NEAR_SECONDS = 6.0  # how far apart words are still near each other
_MOST_LINES = 6  # lines of talk that one moment has
_BACK_SECONDS, _ON_SECONDS = 4.0, 6.0  # how far a sentence goes beyond its lines with words
_SURE = 1e-4
_NAME_SURE, _NAME_GUESSED = 0.9, 0.6

# Logits. Coverage is 0 to 1; the weight of the words found is in nats of rarity, of which more than six say no more.
_WORD_BIAS, _WORD_COVERAGE, _WORD_WEIGHT, _WORD_MOST = -8.0, 7.5, 0.6, 6.0
_LEAST_SURENESS = 0.1  # of a recogniser that says next to nothing of how sure it is
# Cosines of all-MiniLM-L6-v2: another subject has 0.0 to 0.3, the same in other words 0.5 to 0.8.
_MEANING_BIAS, _MEANING_SLOPE = -6.3, 14.0

_TALK = ("said", "subtitle")
_TRACKS: dict[Channel, tuple[TrackName, ...]] = {
    "said": ("said",),
    "subtitle": ("subtitle",),
    "written": ("written",),
    "name": ("facts",),
}


@dataclass(eq=False)
class LineFinder:
    """The lines of one state of a library."""

    catalog: Catalog
    videos: Mapping[int, Video]
    meanings: Meanings | None
    model: TextModel | None
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers of lines by word, as far as they were needed."""

    @cached_property
    def num_lines(self) -> int:
        """Number of lines; 0 if the library has no track."""
        return self.catalog.lines.num_lines()

    def find(self, part: Part, selected: Collection[int] | None) -> list[Found]:
        """Return the moments that a part of a query finds by words, best first; those that overlap are one.

        Args:
            part: the part.
            selected: ids of the videos that pass the filter. Default: all.
        """
        query = _Query.of(part, self._rarity)
        found = []
        tracks = [name for channel in _TRACKS for name in _TRACKS[channel] if part.asks(channel)]
        if tracks and query.words:
            found += self._by_words(query, tracks, selected)
        texts = [name for name in tracks if name != "facts"]
        # one word has no meaning that its line would have in other words
        has_meaning = len(query.words) > 1 and not part.phrases
        if texts and self.model is not None and self.meanings is not None and has_meaning:
            found += self._by_meaning(part, query, texts, selected)
        if part.asks("name") and query.words:
            found += self._by_name(part, query, selected)
        return joined(found)

    # ------------------------------------------------ words

    def _rarity(self, word: str) -> float:
        """Return how much a word says, in nats: its inverse frequency among the lines."""
        if word not in self.counts:
            self.counts[word] = self.catalog.lines.count(matching([word]))
        return max(0.0, math.log((self.num_lines + 1) / (self.counts[word] + 0.5)))

    def _by_words(
        self, query: "_Query", tracks: Sequence[TrackName], selected: Collection[int] | None
    ) -> list[Found]:
        known = (each for each in self._hits(query, tracks, selected) if self._knows(each))
        hits = list(islice(known, _JUDGED))
        asked = []
        for hit in hits:
            around = _NEAR_SECONDS if hit.line.track in _TALK else 0.01
            asked.append((hit, hit.line.start_seconds - around, hit.line.start_seconds + around))
        moments: list[Found] = []
        done: dict[int, list[Span]] = {}
        for hit, found in zip(hits, self.catalog.lines.near(asked), strict=True):
            spans = done.setdefault(hit.track_id, [])
            at = hit.line.start_seconds
            if any(each.start_seconds <= at < each.end_seconds for each in spans):
                continue
            moment = self._judged(query, hit.line, [each.line for each in found])
            if moment is not None:
                spans.append(moment.span)
                moments.append(moment)
        return moments

    def _knows(self, hit: FoundLine) -> bool:
        return hit.line.video_id in self.videos

    def _hits(
        self, query: "_Query", tracks: Sequence[TrackName], selected: Collection[int] | None
    ) -> Iterator[FoundLine]:
        """Yield lines with words of the query, the most promising first.

        First those with all words, then the best of those with a rare one. A common word alone chooses lines only if
        there is no other: to rank all lines that have it takes long, and says little.
        """
        known = [word for word in query.weights if self.counts[word]]
        rarest = sorted(known, key=lambda word: -query.weights[word])[:_RAREST]
        rare = [word for word in rarest if self.counts[word] <= _RARE_LINES]
        find = partial(self.catalog.lines.find, tracks=tracks, videos=selected, limit=_HITS)
        known_ids = set()
        searches = []
        if len(rarest) > 1 or (rarest and not rare):
            searches.append((" AND ".join(matching([word]) for word in rarest), False))
        if rare:
            searches.append((matching(rare), True))
        elif len(rarest) > 1:
            searches.append((f"{matching(rarest[:1])} AND ({matching(rarest[1:])})", False))
        for expression, is_ranked in searches:
            for hit in find(expression, ranked=is_ranked):
                if hit.line_id not in known_ids:
                    known_ids.add(hit.line_id)
                    yield hit

    def _judged(self, query: "_Query", line: Line, near: Sequence[Line]) -> Found | None:
        """Return the moment around a line."""
        is_talk = line.track in _TALK
        chosen = _best_run(query, near, line) if is_talk else _best_set(query, near, line)
        text = " ".join(each.text for each in chosen)
        if not query.has_phrases(text):
            return None
        coverage, weight = query.judge(text)
        # words that were heard or read for sure are there; of others, the odds are lower
        sureness = sum(each.confidence for each in chosen) / len(chosen)
        value = float(
            as_probabilities(
                _WORD_BIAS
                + _WORD_COVERAGE * coverage
                + _WORD_WEIGHT * min(weight, _WORD_MOST)
                + math.log(max(sureness, _LEAST_SURENESS))
            )
        )
        if query.phrases and coverage == 1.0:
            value = max(value, _NAME_SURE)
        video = self.videos[line.video_id]
        whole = _sentence(query, chosen, near) if is_talk else _together(chosen)
        reason = Reason(_channel(line.track), value, text, query.marks(text))
        span = _inside(whole, video)
        return None if span is None else Found(line.video_id, span, value, reasons=(reason,))

    # ------------------------------------------------ meaning

    def _by_meaning(
        self,
        part: Part,
        query: "_Query",
        tracks: Sequence[TrackName],
        selected: Collection[int] | None,
    ) -> list[Found]:
        assert self.model is not None
        assert self.meanings is not None
        if not len(self.meanings.steps):
            return []
        vector = as_vector(self.model.embed([part.text]))
        videos = None if selected is None else np.fromiter(selected, np.int64, len(selected))
        moments = []
        for row, cosine in self.meanings.nearest(vector, tracks, videos, _PASSAGES):
            value = float(as_probabilities(_MEANING_BIAS + _MEANING_SLOPE * cosine))
            if value < LEAST_VALUE / 2:
                break
            first, count = int(self.meanings.first_lines[row]), int(self.meanings.num_lines[row])
            track_id = int(self.meanings.track_ids[row])
            lines = [each.line for each in self.catalog.lines.in_track(track_id, first, count)]
            video = self.videos.get(int(self.meanings.video_ids[row]))
            if not lines or video is None:
                continue
            text = " ".join(line.text for line in lines)
            is_talk = lines[0].track in _TALK
            whole = Span(lines[0].start_seconds, max(line.end_seconds for line in lines))
            span = _inside(whole if is_talk else _together(lines), video)
            if span is not None:
                reason = Reason(_channel(lines[0].track), value, text, query.marks(text))
                moments.append(Found(video.video_id, span, value, reasons=(reason,)))
        return moments

    # ------------------------------------------------ names

    def _by_name(
        self, part: Part, query: "_Query", selected: Collection[int] | None
    ) -> list[Found]:
        """Return whole videos whose paths have all words."""
        expression = " AND ".join(matching([word]) for word in query.weights)
        is_asked = part.is_restricted
        value = _NAME_SURE if is_asked else _NAME_GUESSED
        if not is_asked and max(map(len, query.words)) < 3:
            return []
        moments = []
        for video_id, path in self.catalog.lines.find_paths(
            expression, videos=selected, limit=_HITS
        ):
            video = self.videos.get(video_id)
            if video is not None and video.duration_seconds > 0:
                reason = Reason("name", value, path, query.marks(path))
                span = Span(0.0, video.duration_seconds)
                moments.append(Found(video_id, span, value, reasons=(reason,)))
        return moments


# ---------------------------------------------------------------- the words of a query


@dataclass(frozen=True, slots=True)
class _Query:
    """The words of a part of a query."""

    words: tuple[str, ...]
    """In order, each as the index compares it."""
    weights: Mapping[str, float]
    """How much each word says, in nats."""
    phrases: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, part: Part, rarity: Callable[[str], float]) -> "_Query":
        """Take the words of a part."""
        found = words(part.text)
        phrases = tuple(tuple(words(each)) for each in part.phrases)
        weights = {word: rarity(word) for word in dict.fromkeys(found)}
        return cls(tuple(found), weights, tuple(each for each in phrases if each))

    def judge(self, text: str) -> tuple[float, float]:
        """Return the share of the words that a text has, by weight, and the weight of those it has."""
        has = set(words(text))
        return self.share(has), sum(each for word, each in self.weights.items() if word in has)

    def share(self, has: Collection[str]) -> float:
        """Return the share of the words of the query among some words, by weight."""
        total = sum(self.weights.values())
        found = sum(weight for word, weight in self.weights.items() if word in has)
        return found / total if total > 0 else 0.0

    def has_phrases(self, text: str) -> bool:
        """Whether a text has all phrases."""
        own = words(text) if self.phrases else []
        return all(
            any(tuple(own[k : k + len(each)]) == each for k in range(len(own)))
            for each in self.phrases
        )

    def marks(self, text: str) -> tuple[tuple[int, int], ...]:
        """Return where a text has words of the query; neighbours are one mark."""
        marks: list[tuple[int, int]] = []
        for begin, end, word in word_spans(text):
            if word not in self.weights:
                continue
            if marks and not text[marks[-1][1] : begin].strip():
                marks[-1] = marks[-1][0], end
            else:
                marks.append((begin, end))
        return tuple(marks)


def _best_run(query: _Query, near: Sequence[Line], hit: Line) -> list[Line]:
    """Return the lines in a row, with the hit among them, that have the most of the query in the fewest lines."""
    at = next((k for k, line in enumerate(near) if line == hit), None)
    if at is None:
        return [hit]
    parts = [frozenset(words(line.text)) & query.weights.keys() for line in near]
    best: tuple[float, list[Line]] = (-1.0, [hit])
    for first in range(max(0, at - _MOST_LINES + 1), at + 1):
        for last in range(at, min(len(near), first + _MOST_LINES)):
            run = list(near[first : last + 1])
            coverage = query.share(frozenset().union(*parts[first : last + 1]))
            if query.has_phrases(" ".join(line.text for line in run)):
                coverage += 1.0
            if (score := coverage - 0.03 * len(run)) > best[0]:
                best = score, run
    return best[1]


def _best_set(query: _Query, near: Sequence[Line], hit: Line) -> list[Line]:
    """Return the hit and the lines on screen with it that have more words of the query."""
    chosen = [hit]
    has = {word for word in words(hit.text) if word in query.weights}
    for line in near:
        more = {word for word in words(line.text) if word in query.weights} - has
        if line != hit and more:
            chosen.append(line)
            has |= more
    return [line for line in near if line in chosen] or chosen


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with a text.

    >>> ends_sentence('He said: "Go."  '), ends_sentence("It is 5. A")
    (True, False)
    """
    text = text.rstrip()
    return any(match.end() == len(text) for match in SENTENCE_END.finditer(text))


def _sentence(query: _Query, chosen: Sequence[Line], near: Sequence[Line]) -> Span:
    """Return the span of the sentence around the words: to the end of a sentence on either side, if it is near."""
    first, last = chosen[0], chosen[-1]
    start, end = first.start_seconds, last.end_seconds
    marks = query.marks(first.text)
    before = first.text[: marks[0][0]] if marks else ""
    ends = list(SENTENCE_END.finditer(before))
    if ends:  # the sentence begins within the line
        share = ends[-1].end() / max(1, len(first.text))
        start += share * (first.end_seconds - first.start_seconds)
    else:
        for line in reversed([each for each in near if each.end_seconds <= start + 0.05]):
            is_far = first.start_seconds - line.start_seconds > _BACK_SECONDS
            if is_far or ends_sentence(line.text):
                break
            start = line.start_seconds
    following = [each for each in near if each.start_seconds >= end - 0.05 and each is not last]
    text = last.text
    for line in following:
        if ends_sentence(text) or line.end_seconds - end > _ON_SECONDS:
            break
        end, text = line.end_seconds, line.text
    return Span(start, max(start, end))


def _together(lines: Sequence[Line]) -> Span:
    """Return the time at which all of some lines are on screen; that of the first if there is none."""
    start = max(line.start_seconds for line in lines)
    end = min(line.end_seconds for line in lines)
    return Span(start, end) if end > start else lines[0].span


# ---------------------------------------------------------------- moments


def joined(moments: Iterable[Found]) -> list[Found]:
    """Return moments best first; those of a video that overlap by half are one, with the span of the strongest."""
    kept: list[Found] = []
    for moment in sorted(moments, key=lambda each: -each.probability):
        same = next(
            (
                k
                for k, each in enumerate(kept)
                if each.video_id == moment.video_id and overlap(each.span, moment.span) >= 0.5
            ),
            None,
        )
        if same is None:
            kept.append(moment)
        else:
            reasons = strongest((*kept[same].reasons, *moment.reasons))
            kept[same] = replace(kept[same], reasons=reasons, probability=together(reasons))
    return sorted(kept, key=lambda each: -each.probability)


def overlap(one: Span, other: Span) -> float:
    """Return the share of the shorter span that both have in common; 0 if only one of them is a whole video."""
    start = max(one.start_seconds, other.start_seconds)
    end = min(one.end_seconds, other.end_seconds)
    longer, shorter = sorted((one.duration_seconds, other.duration_seconds), reverse=True)
    if longer > 60.0 and longer > 10 * shorter:
        return 0.0
    return max(0.0, end - start) / shorter if shorter > 0 else float(start <= end)


def strongest(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """Return the strongest reason of each channel, the strongest first."""
    best: dict[Channel, Reason] = {}
    for reason in sorted(reasons, key=lambda each: -each.value):
        best.setdefault(reason.channel, reason)
    return tuple(best.values())


def together(reasons: Iterable[Reason]) -> float:
    """Return the probability of a moment by all of its reasons: that not all of them are wrong.

    Subtitles and speech have the same words, so they count once.
    """
    by_kind: dict[str, float] = {}
    for reason in reasons:
        kind = "said" if reason.channel == "subtitle" else reason.channel
        by_kind[kind] = max(by_kind.get(kind, 0.0), reason.value)
    wrong = math.prod(1.0 - value for value in by_kind.values())
    return min(max(1.0 - wrong, _SURE), 1.0 - _SURE)


def _channel(track: TrackName) -> Channel:
    return "name" if track == "facts" else track


def _inside(span: Span, video: Video) -> Span | None:
    """Return the part of a span inside its video; None if there is none."""
    start, end = span.start_seconds, min(span.end_seconds, video.duration_seconds)
    return Span(start, end) if end > start else None
