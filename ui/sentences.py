"""The sentences spoken in a video, so that a cut begins and ends between them. Pure functions.

>>> from scanonce.storage.records import Line
>>> said = [Line(1, "said", 0.0, 4.0, "One. We met"), Line(1, "said", 4.0, 6.0, "on Discord.")]
>>> widened(Span(4.5, 5.0), sentences(said))
Span(start_seconds=1.4545454545454546, end_seconds=6.0)
"""

from collections.abc import Iterable, Iterator, Sequence

from scanonce.search.line_moments import SENTENCE_END
from scanonce.storage.records import Line, Span, TrackName

PAUSE_SECONDS = 2.0
"""A pause this long ends a sentence that has no full stop."""
LONGEST_SECONDS = 30.0
"""Speech models may leave out full stops for minutes: a sentence ends with the line that makes it as long as this."""

_TOUCH_SECONDS = 0.05  # a cut that enters a sentence by less ends before it


def talk(lines: Iterable[Line]) -> list[Line]:
    """Return the lines of speech, else of subtitles; text in the image has no sentences."""
    found: dict[TrackName, list[Line]] = {"said": [], "subtitle": []}
    for line in lines:
        if line.track in found:
            found[line.track].append(line)
    return found["said"] or found["subtitle"]


def sentences(lines: Iterable[Line]) -> list[Span]:
    """Return the times of the sentences in some lines of talk, by start.

    A sentence may go over several lines, and end within one: how far into its time is taken from the letters before it.
    """
    found: list[Span] = []
    start = end = 0.0
    is_open = False
    for begins, ends, is_end in _pieces(lines):
        if is_open and begins - end >= PAUSE_SECONDS:
            found.append(Span(start, end))
            is_open = False
        start, end = (start, max(end, ends)) if is_open else (begins, ends)
        is_open = not is_end and end - start < LONGEST_SECONDS
        if not is_open:
            found.append(Span(start, end))
    if is_open:
        found.append(Span(start, end))
    return found


def widened(span: Span, spans: Sequence[Span]) -> Span:
    """Return a span with the whole of each sentence that it touches; it is never shortened.

    Args:
        span: the cut.
        spans: see `sentences`.
    """
    margin = min(_TOUCH_SECONDS, span.duration_seconds / 4)
    first, last = span.start_seconds + margin, span.end_seconds - margin
    touched = [each for each in spans if each.start_seconds < last and each.end_seconds > first]
    return Span(
        min([span.start_seconds, *(each.start_seconds for each in touched)]),
        max([span.end_seconds, *(each.end_seconds for each in touched)]),
    )


def _pieces(lines: Iterable[Line]) -> Iterator[tuple[float, float, bool]]:
    """Yield start and end of the parts of lines between full stops, and whether a sentence ends with the part."""
    for line in sorted(lines, key=lambda each: (each.start_seconds, each.end_seconds)):
        text = line.text.strip()
        length = line.end_seconds - line.start_seconds
        at, done = line.start_seconds, 0
        for match in SENTENCE_END.finditer(text):
            done = match.end()
            end = line.start_seconds + length * done / len(text)
            yield at, end, True
            at = end
        if done < len(text):
            yield at, line.end_seconds, False
