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

Times count from the start of the video file, as players count; timecodes of a source begin with that of its file. All
formats are text to be saved as UTF-8. Names and labels come from people and files: nothing in them can begin a formula,
a line or a tag. `ui.timelines` has the formats in XML.

Edit lists are written here and not by OpenTimelineIO's CMX 3600 adapter (1.0.0), which writes no FCM line, always
takes 29.97 for drop frame, puts labels in capitals and fails on an empty list.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanonce.storage.facts import AudioTrack
from scanonce.storage.records import Recording, Span
from scanonce.ui.safe_text import encodable, one_line
from scanonce.ui.subtitles import cue_clock, srt_text
from scanonce.ui.timecode import FrameRate, frame_rate, relabelled
from scanonce.ui.views import match_word, percent_text

RECORD_START_HOURS = 1
"""The timeline of an edit list begins at 01:00:00:00, as usual in editing."""

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
MAX_CHANNELS = 16
"""Most channels of sound of a timeline."""
_FILLERS = '"\u115f\u1160\u2800\u3164\uffa0'  # and quotes, which readers take away
_COLUMNS = (
    *("file", "start", "end", "start_seconds", "end_seconds", "duration_seconds"),
    *("probability", "score", "label", "fps", "width", "height", "path"),
    *("source_start", "source_end", "recorded", "recorded_by", "camera"),
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
    timecode: str = ""
    """Of the first frame of the file; see `Facts.timecode`. Empty: timecodes count from 0."""
    audio: tuple[AudioTrack, ...] = ()
    recorded: Recording | None = None
    camera: str = ""

    @property
    def played(self) -> Span:
        """The span as players and editing programs count it, from the start of the file."""
        offset = self.offset_seconds
        return Span(self.span.start_seconds + offset, self.span.end_seconds + offset)

    @property
    def rate(self) -> FrameRate:
        """The standard rate for its own video; with drop frame if its timecode has it, or if it has none."""
        return frame_rate(self.fps, drop=";" in self.timecode or not self.timecode)

    @property
    def start_frame(self) -> int:
        """Number of the first frame by the timecode of the file, at its own rate; 0 if it states none."""
        try:
            return self.rate.number(self.timecode) if self.timecode else 0
        except ValueError:  # more frames than a second of the video has
            return 0

    @property
    def channels(self) -> int:
        """Channels of sound of the file, `MAX_CHANNELS` at most."""
        return min(sum(track.channels or 1 for track in self.audio), MAX_CHANNELS)

    def frames(self, rate: FrameRate) -> tuple[int, int, int, int]:
        """Return four frames of the source at a rate, counted by its timecode.

        Returns:
            First frame of the file, end of the file, first frame of the moment, end of the moment; an end is the frame
            after the last one.
        """
        own = self.rate
        span, start = self.played, self.start_frame

        def at(seconds: float) -> int:
            return (
                relabelled(start + own.frames(seconds), own, rate)
                if start
                else rate.frames(seconds)
            )

        first = at(span.start_seconds)
        length = rate.frames(span.end_seconds) - rate.frames(span.start_seconds)
        end = first + max(1, length)
        begin = at(0.0)
        whole = rate.frames(self.duration_seconds + self.offset_seconds)
        return min(begin, first), max(begin + whole, end), first, end


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
                *(pick.rate.timecode(frame) for frame in pick.frames(pick.rate)[2:]),
                pick.recorded.at.isoformat() if pick.recorded else "",
                pick.recorded.by if pick.recorded else "",
                _cell(pick.camera),
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

    The list has one frame rate. Times in a source are timecodes of its file, or count from its start if it has none; a
    source of another rate keeps hours, minutes, seconds and the part of the second. A reel name has at most eight
    letters and digits, unique for each video; a comment has the whole name. Timecode ends at 24 hours: a moment after
    that, in its video or on the timeline, is left out with a comment.

    Args:
        picks: in the order of the timeline.
        title: title of the list.
        rate: frame rate of the timeline. Default: that of the first moment's video.
    """
    rate = rate or rate_of(picks)
    mode = "DROP FRAME" if rate.drop else "NON-DROP FRAME"
    lines = [f"TITLE: {one_line(title)[:70]}", f"FCM: {mode}", ""]
    reels = _reels(pick.path for pick in picks)
    at, end = rate.first_frame_of_hour(RECORD_START_HOURS), rate.first_frame_of_hour(24)
    number = 0
    for pick in picks:
        _, _, first, last = pick.frames(rate)
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
            f"{number:03}  {reels[pick.path]:<8} {_channels(pick):<5} C        {codes}",
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


def to_otio(
    picks: Sequence[Pick], *, title: str = "Scanonce", rate: FrameRate | None = None
) -> str:
    """Return an OpenTimelineIO timeline (JSON): a clip for each moment, and one for each of its audio tracks.

    Each clip has its file as media reference with the whole length as available range, from its timecode on, the moment
    as source range, and a marker with the label. Probability, score and exact times are in the metadata ``scanonce``.

    Args:
        picks: in the order of the timeline.
        title: name of the timeline.
        rate: of all times; the timeline then begins at 01:00:00:00. Default: the standard rate for each video.
    """
    import opentimelineio as otio  # type: ignore[import-untyped]

    timeline = otio.schema.Timeline(name=one_line(title))
    if rate is not None:
        start = rate.first_frame_of_hour(RECORD_START_HOURS)
        timeline.global_start_time = otio.opentime.RationalTime(start, float(rate.fps))
    track = otio.schema.Track(name="Moments", kind=otio.schema.TrackKind.Video)
    timeline.tracks.append(track)
    sounds = [
        otio.schema.Track(name=f"Audio {number + 1}", kind=otio.schema.TrackKind.Audio)
        for number in range(max((len(pick.audio) for pick in picks), default=0))
    ]
    timeline.tracks.extend(sounds)
    for pick in picks:
        clip = _otio_clip(pick, rate or pick.rate)
        for number, sound in enumerate(sounds):
            if number < len(pick.audio):
                sound.append(_otio_sound(clip, pick.audio[number], number))
            else:
                sound.append(otio.schema.Gap(source_range=clip.source_range))
        track.append(clip)
    return str(otio.adapters.write_to_string(timeline, "otio_json"))


def _otio_clip(pick: Pick, rate: FrameRate) -> Any:
    import opentimelineio as otio

    fps = float(rate.fps)
    begin, whole, first, end = pick.frames(rate)
    facts = {
        "label": one_line(pick.label),
        **_known(probability=pick.probability, score=pick.score),
        "start_seconds": float(pick.played.start_seconds),
        "end_seconds": float(pick.played.end_seconds),
        "width": int(pick.width),
        "height": int(pick.height),
        "timecode": pick.timecode,
        "camera": one_line(pick.camera),
        "recorded": pick.recorded.at.isoformat() if pick.recorded else "",
    }
    moment = _time_range(first, end, fps)
    marker = otio.schema.Marker(
        name=one_line(pick.label),
        marked_range=moment,
        color=otio.schema.MarkerColor.RED,
        metadata={"scanonce": facts},
    )
    reference = otio.schema.ExternalReference(
        target_url=pick.path.as_uri(), available_range=_time_range(begin, whole, fps)
    )
    clip = otio.schema.Clip(
        name=one_line(pick.path.name),
        media_reference=reference,
        source_range=moment,
        metadata={"scanonce": facts},
    )
    clip.markers.append(marker)
    return clip


def _otio_sound(clip: Any, track: AudioTrack, number: int) -> Any:
    """Return the sound of a clip: the same span of the same file."""
    import opentimelineio as otio

    facts = {"audio_track": number + 1, "channels": track.channels, "language": track.language}
    return otio.schema.Clip(
        name=clip.name,
        media_reference=clip.media_reference.clone(),
        source_range=clip.source_range,
        metadata={"scanonce": facts},
    )


# ---------------------------------------------------------------- frames, names and texts


def rate_of(picks: Sequence[Pick]) -> FrameRate:
    """Return the rate of a timeline by default: that of its first moment."""
    return picks[0].rate if picks else frame_rate(25.0)


def _channels(pick: Pick) -> str:
    """Return the channels of an event: picture alone, with one channel of sound, or with two, the most of CMX 3600."""
    return ("V", "B", "AA/V")[min(pick.channels, 2)]


def _time_range(first: int, end: int, fps: float) -> Any:
    from opentimelineio.opentime import (  # type: ignore[import-untyped]
        RationalTime,
        TimeRange,
    )

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
