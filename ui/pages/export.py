r"""What was found, for other programs: spreadsheets, subtitles, edit lists and timelines.

    >>> pick = Pick(Path("/v/night.mp4"), 25.0, 60.0, 1920, 1080, Span(2.0, 4.0), "a car", 0.83)
    >>> print(to_edl([pick], title="Cars"), end="")
    TITLE: Cars
    FCM: NON-DROP FRAME
    <BLANKLINE>
    001  NIGHT    V     C        00:00:02:00 00:00:04:00 01:00:00:00 01:00:02:00
    * FROM CLIP NAME: night.mp4
    * SOURCE FILE: /v/night.mp4
    * LOC: 01:00:00:00 RED     a car
    * COMMENT: score 0.830

Everything is text to be saved as UTF-8. Names and labels come from people and files: nothing in them can begin a
formula, a line or a tag.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from scanonce.storage.records import Span

RECORD_START_HOURS = 1
"""Where the timeline of an edit list begins, as is the custom."""

_DAY_HOURS = 24
_NTSC = Fraction(1000, 1001)
_MAX_TIMEBASE = 60  # frames have two digits
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_COLUMNS = (
    *("file", "start", "end", "start_seconds", "end_seconds", "duration_seconds", "score"),
    *("label", "fps", "width", "height", "path"),
)


@dataclass(frozen=True, slots=True)
class Pick:
    """A moment that somebody wants to take away."""

    path: Path
    """Absolute."""
    fps: float
    """Of the video; 0 where unknown."""
    duration_seconds: float
    width: int
    height: int
    span: Span
    label: str
    """The query, or what else to call it."""
    score: float


# ---------------------------------------------------------------- frame rates and timecodes


@dataclass(frozen=True, slots=True)
class FrameRate:
    """Frames a second, and how they are counted."""

    fps: Fraction
    """Exact: 30000/1001 for what is called 29.97."""
    timebase: int
    """Frames that a second of timecode counts: 30 for 29.97."""
    drop: bool = False
    """Whether two numbers (four at 59.94) are left out each minute but every tenth, to keep up with the clock."""

    def __post_init__(self) -> None:
        if self.drop and (self.timebase % 30 or self.fps.denominator != 1001):
            raise ValueError(f"drop frame is for 29.97 and 59.94 frames a second; got {self.fps}")

    def frames(self, seconds: float) -> int:
        """The number of the frame that begins nearest to a time."""
        return round(Fraction(seconds) * self.fps)

    def timecode(self, frame: int) -> str:
        """``hh:mm:ss:ff`` of a frame, ``hh:mm:ss;ff`` with drop frame; starts anew after 24 hours.

        >>> FrameRate(Fraction(30000, 1001), 30, drop=True).timecode(1800)
        '00:01:00;02'
        """
        number = frame
        if self.drop:
            dropped = self.timebase // 15
            per_minute = 60 * self.timebase - dropped
            per_ten_minutes = 10 * per_minute + dropped
            tens, rest = divmod(frame, per_ten_minutes)
            # the first minute of ten drops nothing
            minutes = max(0, rest - dropped) // per_minute
            number += dropped * (9 * tens + minutes)
        seconds, frames = divmod(number, self.timebase)
        hours = seconds // 3600 % _DAY_HOURS
        mark = ";" if self.drop else ":"
        return f"{hours:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{frames:02}"

    def first_frame_of_hour(self, hour: int) -> int:
        """The frame whose timecode is ``hour:00:00:00``."""
        dropped = 54 * (self.timebase // 15) if self.drop else 0
        return hour * (3600 * self.timebase - dropped)


def frame_rate(fps: float, *, drop: bool = True) -> FrameRate:
    """The standard rate next to a measured one; a rate of its own where none is near.

    Args:
        fps: as a decoder tells it; 0 (unknown) counts as 25, above 60 is halved until it fits.
        drop: count 29.97 and 59.94 with drop frame, as broadcasters do.
    """
    value = fps if 0.5 <= fps < 10_000 else 25.0
    while value > _MAX_TIMEBASE + 0.5:
        value /= 2
    timebase = max(1, round(value))
    whole, ntsc = Fraction(timebase), timebase * _NTSC
    if abs(value - timebase) <= 0.01:
        is_ntsc = timebase in (24, 30, 60) and abs(value - ntsc) < abs(value - timebase)
    else:
        is_ntsc = abs(value - ntsc) <= 0.01 * timebase / 30
    if is_ntsc:
        return FrameRate(ntsc, timebase, drop=drop and timebase % 30 == 0)
    near = abs(value - timebase) <= 0.01
    return FrameRate(whole if near else Fraction(value).limit_denominator(1001), timebase)


# ---------------------------------------------------------------- the formats


def to_csv(picks: Iterable[Pick]) -> str:
    """A table with a head, one moment a line, in the order given; for programs that take UTF-8.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for pick in picks:
        start, end = pick.span.start_seconds, pick.span.end_seconds
        numbers = [f"{value:.3f}" for value in (start, end, end - start)]
        writer.writerow(
            [
                _cell(pick.path.name),
                *(_clock(start, "."), _clock(end, "."), *numbers, f"{pick.score:.4f}"),
                *(_cell(pick.label), f"{pick.fps:g}", pick.width, pick.height),
                _cell(str(pick.path)),
            ]
        )
    return text.getvalue()


def to_srt(picks: Iterable[Pick]) -> dict[Path, str]:
    """Subtitles for each video that say what was found when; sorted by time."""
    texts = {}
    for path, own in _by_video(picks).items():
        blocks = []
        for number, pick in enumerate(sorted(own, key=lambda pick: pick.span), 1):
            start = pick.span.start_seconds
            end = max(pick.span.end_seconds, start + 0.001)
            # players take tags in subtitles for formatting, and an arrow for a time
            label = _line(pick.label).replace("<", "‹").replace(">", "›") or "moment"
            label = label.replace("{", "(").replace("}", ")")
            times = f"{_clock(start, ',')} --> {_clock(end, ',')}"
            blocks.append(f"{number}\n{times}\n{label} ({pick.score:.2f})\n")
        texts[path] = "\n".join(blocks)
    return texts


def to_edl(
    picks: Sequence[Pick],
    *,
    title: str = "Scanonce",
    rate: FrameRate | None = None,
) -> str:
    """A CMX3600 edit list: the moments one after another on a timeline from 01:00:00:00 on.

    Such a list has one frame rate. Times in a source count from its first frame: a timecode stored in the file is not
    looked at. Names of reels are eight letters and digits, another for each video; the whole name stands below.

    Args:
        picks: in the order of the timeline.
        title: of the list.
        rate: of the timeline. Default: that of the first moment's video.
    """
    rate = rate or (frame_rate(picks[0].fps) if picks else frame_rate(25.0))
    mode = "DROP FRAME" if rate.drop else "NON-DROP FRAME"
    lines = [f"TITLE: {_line(title)[:70]}", f"FCM: {mode}", ""]
    reels = _reels(pick.path for pick in picks)
    at = rate.first_frame_of_hour(RECORD_START_HOURS)
    for number, pick in enumerate(picks, 1):
        first = rate.frames(pick.span.start_seconds)
        last = max(first + 1, rate.frames(pick.span.end_seconds))
        times = (first, last, at, at + last - first)
        codes = " ".join(rate.timecode(frame) for frame in times)
        lines += [
            f"{number:03}  {reels[pick.path]:<8} V     C        {codes}",
            f"* FROM CLIP NAME: {_line(pick.path.name)}",
            f"* SOURCE FILE: {_line(str(pick.path))}",
            f"* LOC: {rate.timecode(at)} RED     {_line(pick.label)}",
            f"* COMMENT: score {pick.score:.3f}",
            "",
        ]
        at += last - first
    return "\n".join(lines)


def to_otio(picks: Sequence[Pick], *, title: str = "Scanonce") -> str:
    """An OpenTimelineIO timeline (JSON): a clip for each moment, at the frame rate of its own video.

    Each has its file as media reference with the whole length as available range, the moment as source range, and a
    marker with the label. Score and times to the millisecond are in the metadata ``scanonce``.
    """
    import opentimelineio as otio  # type: ignore[import-untyped]

    def time_range(first: int, last: int, fps: float) -> Any:
        opentime = otio.opentime
        return opentime.TimeRange(
            opentime.RationalTime(first, fps), opentime.RationalTime(last - first, fps)
        )

    timeline = otio.schema.Timeline(name=_line(title))
    track = otio.schema.Track(name="Moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    for pick in picks:
        rate = frame_rate(pick.fps)
        fps = float(rate.fps)
        first = rate.frames(pick.span.start_seconds)
        last = max(first + 1, rate.frames(pick.span.end_seconds))
        length = max(last, rate.frames(pick.duration_seconds))
        facts = {
            "label": _line(pick.label),
            "score": float(pick.score),
            "start_seconds": float(pick.span.start_seconds),
            "end_seconds": float(pick.span.end_seconds),
            "width": int(pick.width),
            "height": int(pick.height),
        }
        moment = time_range(first, last, fps)
        marker = otio.schema.Marker(
            name=_line(pick.label),
            marked_range=moment,
            color=otio.schema.MarkerColor.RED,
            metadata={"scanonce": facts},
        )
        reference = otio.schema.ExternalReference(
            target_url=pick.path.as_uri(), available_range=time_range(0, length, fps)
        )
        clip = otio.schema.Clip(
            name=_line(pick.path.name),
            media_reference=reference,
            source_range=moment,
            metadata={"scanonce": facts},
        )
        clip.markers.append(marker)
        track.append(clip)
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


# ---------------------------------------------------------------- small things


def _by_video(picks: Iterable[Pick]) -> dict[Path, list[Pick]]:
    videos: dict[Path, list[Pick]] = {}
    for pick in picks:
        videos.setdefault(pick.path, []).append(pick)
    return videos


def _reels(paths: Iterable[Path]) -> dict[Path, str]:
    """A name of at most eight capitals and digits for each video, no two alike."""
    reels: dict[Path, str] = {}
    for path in paths:
        if path in reels:
            continue
        stem = re.sub(r"[^A-Z0-9]", "", path.stem.upper()) or "VIDEO"
        name, number = stem[:8], 1
        while name in reels.values() or name in ("AX", "BL"):  # these mean something else
            number += 1
            name = f"{stem[: 8 - len(str(number))]}{number}"
        reels[path] = name
    return reels


def _line(text: str) -> str:
    """On one line, without control characters, and such that it can be encoded."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in clean).split())


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    return f"'{clean}" if clean.lstrip(" ").startswith(_FORMULA_STARTS) else clean


def _clock(seconds: float, mark: str) -> str:
    """``hh:mm:ss.mmm``."""
    millis = round(seconds * 1000)
    whole, rest = divmod(millis, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{rest:03}"
