r"""Moments for other programs: spreadsheets, subtitles, edit lists and timelines.

    >>> pick = Pick(Path("/v/night.mp4"), 25.0, 60.0, 1920, 1080, Span(2.0, 4.0), "a car", 0.83, 0.31)
    >>> print(to_edl([pick], title="Cars"), end="")
    TITLE: Cars
    FCM: NON-DROP FRAME
    <BLANKLINE>
    001  NIGHT    V     C        00:00:02:00 00:00:04:00 01:00:00:00 01:00:02:00
    * FROM CLIP NAME: night.mp4
    * SOURCE FILE: /v/night.mp4
    * LOC: 01:00:00:00 RED     a car
    * COMMENT: strong match, 83 %

Times count from the start of the video file, as players and editing programs count. All formats are text to be saved
as UTF-8. Names and labels come from people and files: nothing in them can begin a
formula, a line or a tag.

Edit lists are written here and not by OpenTimelineIO's CMX 3600 adapter (1.0.0), which writes no FCM line, always
takes 29.97 for drop frame, puts labels in capitals and fails on an empty list.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from scanonce.storage.records import Span
from scanonce.ui.safe_text import encodable, one_line
from scanonce.ui.subtitles import cue_clock, srt_text
from scanonce.ui.views import match_word, percent_text

RECORD_START_HOURS = 1
"""The timeline of an edit list begins at 01:00:00:00, as usual in editing."""

_NTSC = Fraction(1000, 1001)
_STANDARD_FPS = (
    *(24 * _NTSC, Fraction(24), Fraction(25), 30 * _NTSC, Fraction(30)),
    *(48 * _NTSC, Fraction(48), Fraction(50), 60 * _NTSC, Fraction(60)),
)
"""The rates of timecode (SMPTE ST 12-1 and 12-3), rising; its frames have two digits."""
_FORMULA_STARTS = ("=", "+", "-", "@", "−")
# Spreadsheets split a table at what their locale calls a separator, whatever the quotes, and at any line break.
_SEPARATORS = re.compile("([,;|\t\r\n\v\f\x1c-\x1f\x85\u2028\u2029،؛、，；｜])")
_UNSEEN = {
    "Zs",
    "Zl",
    "Zp",
    "Cc",
    "Cf",
    "Mn",
    "Me",
}  # categories of letters that show nothing by themselves
_FILLERS = '"\u115f\u1160\u2800\u3164\uffa0'  # and quotes, which readers take away
_COLUMNS = (
    *("file", "start", "end", "start_seconds", "end_seconds", "duration_seconds"),
    *("probability", "score", "label", "fps", "width", "height", "path"),
)


@dataclass(frozen=True, slots=True)
class Pick:
    """A moment to export."""

    path: Path
    """Absolute."""
    fps: float
    """Frame rate of the video; 0: unknown."""
    duration_seconds: float
    width: int
    height: int
    span: Span
    label: str
    """The query, or another name for the moment."""
    probability: float | None = None
    """See `Moment.probability`; None: no query found the moment."""
    score: float | None = None
    """See `Moment.score`."""
    offset_seconds: float = 0.0
    """Time of the first frame in a player; see `VideoInfo.offset_seconds`."""
    words: str = ""
    """The words said or written there; they follow the label in subtitles."""

    @property
    def played(self) -> Span:
        """The span as players and editing programs count it, from the start of the file."""
        offset = self.offset_seconds
        return Span(self.span.start_seconds + offset, self.span.end_seconds + offset)


# ---------------------------------------------------------------- frame rates and timecodes


@dataclass(frozen=True, slots=True)
class FrameRate:
    """A frame rate, and how timecodes count its frames."""

    fps: Fraction
    """Exact: 30000/1001 for "29.97"."""
    timebase: int
    """Number of frames in a second of timecode: 30 for 29.97."""
    drop: bool = False
    """Drop frame leaves out two numbers (four at 59.94) every minute except each tenth, to keep up with the clock."""

    def __post_init__(self) -> None:
        if self.drop and (self.timebase % 30 or self.fps.denominator != 1001):
            raise ValueError(f"drop frame is for 29.97 and 59.94 frames a second; got {self.fps}")

    def frames(self, seconds: float) -> int:
        """Return the number of the frame that begins nearest to a time."""
        return round(Fraction(seconds) * self.fps)

    def timecode(self, frame: int) -> str:
        """Return ``hh:mm:ss:ff`` of a frame, ``hh:mm:ss;ff`` with drop frame; after 24 hours it starts again at 0.

        >>> FrameRate(Fraction(30000, 1001), 30, drop=True).timecode(1800)
        '00:01:00;02'
        """
        if self.drop:
            from opentimelineio.opentime import RationalTime  # type: ignore[import-untyped]

            fps = float(self.fps)
            return str(RationalTime(frame, fps).to_timecode(fps, True))
        # Not by OpenTimelineIO (0.18.1): without drop frame it starts 29.97 again 86 s before the day is over, and it
        # has no timecodes for rates such as 10 or 15 frames a second.
        seconds, frames = divmod(frame, self.timebase)
        hours = seconds // 3600 % 24
        return f"{hours:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{frames:02}"

    def first_frame_of_hour(self, hour: int) -> int:
        """Return the frame whose timecode is ``hour:00:00:00``."""
        dropped = 54 * (self.timebase // 15) if self.drop else 0
        return hour * (3600 * self.timebase - dropped)


def frame_rate(fps: float, *, drop: bool = True) -> FrameRate:
    """Return the standard rate for a video: the lowest multiple of its own that is one, else the next higher one.

    25 for 12.5 and 30 for 7.5 frames a second; 29.97 for the 29.5 that a phone measures. Frames are counted from
    seconds (`FrameRate.frames`), so timecode is the clock whatever the rate.

    Args:
        fps: as a decoder states it. 0 (unknown) counts as 25; a rate above 60 may also be halved, up to three times.
        drop: whether 29.97 and 59.94 are counted with drop frame, as broadcasters do.
    """
    value = fps if 0.5 <= fps < 10_000 else 25.0
    near = (
        rate
        for factor in (*range(1, 121), 1 / 2, 1 / 4, 1 / 8)
        for rate in _STANDARD_FPS
        if abs(value * factor - rate) <= 0.01 * rate / 30
    )
    above = (rate for rate in _STANDARD_FPS if rate >= value)
    standard = next(near, None) or next(above, _STANDARD_FPS[-1])
    timebase = round(standard)
    is_drop = drop and standard.denominator > 1 and timebase in (30, 60)
    return FrameRate(standard, timebase, drop=is_drop)


# ---------------------------------------------------------------- the formats


def to_csv(picks: Iterable[Pick]) -> str:
    """Return a table with a header, one moment a line, in the given order; for programs that read UTF-8.

    A text that a spreadsheet would take for a formula gets an apostrophe in front; so does a part of a text after
    anything at which a spreadsheet may split it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for pick in picks:
        start, end = pick.played.start_seconds, pick.played.end_seconds
        numbers = [f"{value:.3f}" for value in (start, end, end - start)]
        writer.writerow(
            [
                _cell(pick.path.name),
                *(cue_clock(start, "."), cue_clock(end, "."), *numbers),
                *(_number(pick.probability), _number(pick.score), _cell(pick.label)),
                *(f"{pick.fps:g}", pick.width, pick.height),
                _cell(str(pick.path)),
            ]
        )
    return text.getvalue()


def to_srt(picks: Iterable[Pick]) -> dict[Path, str]:
    """Return subtitles for each video that show the moments, sorted by time."""
    texts = {}
    for path, own in _by_video(picks).items():
        blocks = []
        for number, pick in enumerate(sorted(own, key=lambda pick: pick.span), 1):
            start = pick.played.start_seconds
            end = max(pick.played.end_seconds, start + 0.001)
            label = srt_text(pick.label) or "moment"
            words = srt_text(pick.words)
            times = f"{cue_clock(start, ',')} --> {cue_clock(end, ',')}"
            if pick.probability is not None:
                label += f" ({percent_text(pick.probability)})"
            text = f"{label}\n{words}" if words else label
            blocks.append(f"{number}\n{times}\n{text}\n")
        texts[path] = "\n".join(blocks)
    return texts


def to_edl(
    picks: Sequence[Pick],
    *,
    title: str = "Scanonce",
    rate: FrameRate | None = None,
) -> str:
    """Return a CMX 3600 edit list: the moments one after another on a timeline from 01:00:00:00 on.

    The list has one frame rate. Times in a source count from the start of its file: a timecode stored in the file is
    ignored. A reel name has at most eight letters and digits, unique for each video; a comment has the whole name.
    Timecode ends at 24 hours: a moment after that, in its video or on the timeline, is left out with a comment.

    Args:
        picks: in the order of the timeline.
        title: title of the list.
        rate: frame rate of the timeline. Default: that of the first moment's video.
    """
    rate = rate or (frame_rate(picks[0].fps) if picks else frame_rate(25.0))
    mode = "DROP FRAME" if rate.drop else "NON-DROP FRAME"
    lines = [f"TITLE: {one_line(title)[:70]}", f"FCM: {mode}", ""]
    reels = _reels(pick.path for pick in picks)
    at, end = rate.first_frame_of_hour(RECORD_START_HOURS), rate.first_frame_of_hour(24)
    number = 0
    for pick in picks:
        first, last = _first_and_end(pick.played, rate)
        if max(last, at + last - first) >= end:
            lines += [
                f"* COMMENT: left out, since timecode ends at 24 hours: {one_line(pick.path.name)}, "
                f"{cue_clock(pick.played.start_seconds, '.')} - {cue_clock(pick.played.end_seconds, '.')}",
                "",
            ]
            continue
        number += 1
        codes = " ".join(map(rate.timecode, (first, last, at, at + last - first)))
        lines += [
            f"{number:03}  {reels[pick.path]:<8} V     C        {codes}",
            f"* FROM CLIP NAME: {one_line(pick.path.name)}",
            f"* SOURCE FILE: {one_line(str(pick.path))}",
            f"* LOC: {rate.timecode(at)} RED     {one_line(pick.label)}",
        ]
        if pick.probability is not None:
            word = match_word(pick.probability)
            lines.append(f"* COMMENT: {word} match, {percent_text(pick.probability)}")
        lines.append("")
        at += last - first
    return "\n".join(lines)


def to_otio(picks: Sequence[Pick], *, title: str = "Scanonce") -> str:
    """Return an OpenTimelineIO timeline (JSON): a clip for each moment, at the standard rate for its own video.

    Each clip has its file as media reference with the whole length as available range, the moment as source range,
    and a marker with the label. Probability, score and exact times are in the metadata ``scanonce``.
    """
    import opentimelineio as otio  # type: ignore[import-untyped]

    timeline = otio.schema.Timeline(name=one_line(title))
    track = otio.schema.Track(name="Moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for pick in picks:
        rate = frame_rate(pick.fps)
        fps = float(rate.fps)
        first, last = _first_and_end(pick.played, rate)
        length = max(last, rate.frames(pick.duration_seconds + pick.offset_seconds))
        facts = {
            "label": one_line(pick.label),
            **_known(probability=pick.probability, score=pick.score),
            "start_seconds": float(pick.played.start_seconds),
            "end_seconds": float(pick.played.end_seconds),
            "width": int(pick.width),
            "height": int(pick.height),
        }
        moment = _time_range(first, last, fps)
        marker = otio.schema.Marker(
            name=one_line(pick.label),
            marked_range=moment,
            color=otio.schema.MarkerColor.RED,
            metadata={"scanonce": facts},
        )
        reference = otio.schema.ExternalReference(
            target_url=pick.path.as_uri(), available_range=_time_range(0, length, fps)
        )
        clip = otio.schema.Clip(
            name=one_line(pick.path.name),
            media_reference=reference,
            source_range=moment,
            metadata={"scanonce": facts},
        )
        clip.markers.append(marker)
        track.append(clip)
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


# ---------------------------------------------------------------- frames, names and texts


def _first_and_end(span: Span, rate: FrameRate) -> tuple[int, int]:
    """Return the first frame of a span and the frame after its last, one frame at least."""
    first = rate.frames(span.start_seconds)
    return first, max(first + 1, rate.frames(span.end_seconds))


def _time_range(first: int, end: int, fps: float) -> Any:
    from opentimelineio.opentime import RationalTime, TimeRange

    return TimeRange(RationalTime(first, fps), RationalTime(end - first, fps))


def _by_video(picks: Iterable[Pick]) -> dict[Path, list[Pick]]:
    videos: dict[Path, list[Pick]] = {}
    for pick in picks:
        videos.setdefault(pick.path, []).append(pick)
    return videos


def _reels(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name of at most eight capitals and digits for each video, all different."""
    reels: dict[Path, str] = {}
    for path in paths:
        if path in reels:
            continue
        stem = re.sub(r"[^A-Z0-9]", "", path.stem.upper()) or "VIDEO"
        name, number = stem[:8], 1
        while name in reels.values() or name in ("AX", "BL"):  # reserved: auxiliary source, black
            number += 1
            name = f"{stem[: 8 - len(str(number))]}{number}"
        reels[path] = name
    return reels


def _cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    clean = encodable(text).replace("\0", " ")
    parts = _SEPARATORS.split(clean)
    marked = "".join(f"'{part}" if _begins_formula(part) else part for part in parts)
    return f"'{marked}" if marked.lstrip(" ").startswith(("\t", "\r", "\n")) else marked


def _begins_formula(text: str) -> bool:
    """Whether the first letter that is seen begins a formula, in any of its widths."""
    seen = (c for c in text if unicodedata.category(c) not in _UNSEEN and c not in _FILLERS)
    return unicodedata.normalize("NFKC", next(seen, "")).startswith(_FORMULA_STARTS)


def _number(value: float | None) -> str:
    """Return a number for a table; empty for None."""
    return "" if value is None else f"{value:.4f}"


def _known(**values: float | None) -> dict[str, float]:
    """Return the values that are known."""
    return {name: float(value) for name, value in values.items() if value is not None}
