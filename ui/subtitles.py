"""Transcripts as files: the lines of a video as subtitles (SRT, WebVTT) and as text. Pure functions.

    >>> from scanonce.storage.records import Line
    >>> print(to_vtt([Line(1, "said", 61.5, 63.0, "less < more & more")]), end="")
    WEBVTT
    <BLANKLINE>
    00:01:01.500 --> 00:01:03.000
    less &lt; more &amp; more

Texts come from files: nothing in them can begin a tag, a cue or a line. Lines are written in order of time; those that
overlap stay as they are, which players show together.
"""

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

from scanonce.storage.records import Line
from scanonce.ui.safe_text import one_line

TranscriptFormat = Literal["srt", "vtt", "txt"]

_LEAST_SECONDS = 0.5
"""How long a line without a length is shown: a cue that ends when it starts is shown by no player."""


def to_srt(lines: Iterable[Line], offset_seconds: float = 0.0) -> str:
    """Return lines as SubRip subtitles, numbered from 1.

    Args:
        lines: in any order.
        offset_seconds: time of the first frame in a player; see `VideoInfo.offset_seconds`.
    """
    blocks = []
    for number, (start, end, text) in enumerate(_cues(lines, offset_seconds), 1):
        times = f"{cue_clock(start, ',')} --> {cue_clock(end, ',')}"
        blocks.append(f"{number}\n{times}\n{srt_text(text)}\n")
    return "\n".join(blocks)


def to_vtt(lines: Iterable[Line], offset_seconds: float = 0.0) -> str:
    """Return lines as WebVTT (W3C); arguments as of `to_srt`."""
    blocks = ["WEBVTT\n"]
    for start, end, text in _cues(lines, offset_seconds):
        times = f"{cue_clock(start, '.')} --> {cue_clock(end, '.')}"
        blocks.append(f"{times}\n{html.escape(text, quote=False)}\n")
    return "\n".join(blocks)


def to_txt(lines: Iterable[Line], offset_seconds: float = 0.0) -> str:
    """Return lines as text, each after the time at which it begins; arguments as of `to_srt`."""
    cues = _cues(lines, offset_seconds)
    return "".join(f"{cue_clock(start, '.')[:8]}  {text}\n" for start, _, text in cues)


TRANSCRIPT_FORMATS: Mapping[TranscriptFormat, Callable[[Iterable[Line], float], str]] = {
    "srt": to_srt,
    "vtt": to_vtt,
    "txt": to_txt,
}


def cue_clock(seconds: float, mark: str) -> str:
    """Return ``hh:mm:ss.mmm``, with ``mark`` in place of the point."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"


def srt_text(text: str) -> str:
    """Return a text in one line that no player of SRT takes for formatting or for a line of times."""
    return one_line(text).translate(_NO_TAGS)


_NO_TAGS = str.maketrans("<>{}", "‹›()")


def _cues(lines: Iterable[Line], offset_seconds: float) -> Iterator[tuple[float, float, str]]:
    """Yield ``(start, end, text)`` by time, without lines that show nothing."""
    for line in sorted(lines, key=lambda each: (each.start_seconds, each.end_seconds)):
        text = one_line(line.text)
        if text:
            start = max(0.0, line.start_seconds + offset_seconds)
            end = max(start, line.end_seconds + offset_seconds)
            yield start, end if end - start >= 0.001 else start + _LEAST_SECONDS, text
