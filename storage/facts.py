"""The facts that a file states about its recording: when, where, with what camera, from which timecode on.

    >>> facts = facts_of({"timecode": "10:00:00;00", "camera": "ACME\\x1b X1", "place": [999.0, 0.0]})
    >>> facts.timecode, facts.camera, facts.place
    ('10:00:00;00', 'ACME X1', None)
    >>> facts_of(facts_values(facts)) == facts
    True

A file states what it likes, and a catalogue may come from others: whatever is impossible counts as not stated.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

RecordedSource = Literal["camera", "name", "container", "day"]
"""Sources of the time of a recording, most trusted first. ``camera``: the clock of the camera with its time zone
(QuickTime's creationdate); ``name``: the name of the file; ``container``: the creation time of the container, UTC by
its standard, though some cameras write their local time; ``day``: the name of the file has a day and no time, noon
stands for it."""

EARLIEST_YEAR = 1990
"""Before that no digital camera wrote files: 1904, 1970 and 1980 are the zeros of clocks that were never set."""

MAX_TRACKS, MAX_CHAPTERS = 64, 500
_MAX_CHARS = 100
_MAX_SECONDS = 1e7
_MOST_CHANNELS = 64
_TIMECODE = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])([:;])([0-9]{2})")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}")
_DAY = timedelta(days=1)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """A track of sound."""

    channels: int
    """0: unknown."""
    language: str = ""
    """Code such as ``deu``; empty: not stated."""
    codec: str = ""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of a video that has a title; seconds from the start of the file."""

    start_seconds: float
    end_seconds: float
    title: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one file. Texts are printable, in one line; a page escapes them."""

    recorded_at: datetime | None = None
    """Start of the recording, in the time zone that was stated; see ``recorded_by``."""
    recorded_by: RecordedSource | None = None
    """None with ``recorded_at``."""
    timecode: str = ""
    """Of the first frame, ``hh:mm:ss:ff``, with drop frame ``hh:mm:ss;ff``; empty: not stated."""
    camera: str = ""
    """Make and model."""
    place: tuple[float, float] | None = None
    """Latitude, -90 to 90, and longitude, -180 to 180, degrees."""
    rotation: int = 0
    """Degrees, 0 to 359, by which a player turns the stored frames counter-clockwise."""
    audio: tuple[AudioTrack, ...] = ()
    """In the order of the file, `MAX_TRACKS` at most."""
    chapters: tuple[Chapter, ...] = ()
    """By rising start, `MAX_CHAPTERS` at most."""


NO_FACTS = Facts()


def facts_values(facts: Facts) -> dict[str, Any]:
    """Return the facts as JSON values, without those that are not known; `facts_of` reads them again."""
    values: dict[str, Any] = {
        "recorded_at": facts.recorded_at and facts.recorded_at.isoformat(),
        "recorded_by": facts.recorded_by,
        "timecode": facts.timecode,
        "camera": facts.camera,
        "place": facts.place and list(facts.place),
        "rotation": facts.rotation,
        "audio": [[track.channels, track.language, track.codec] for track in facts.audio],
        "chapters": [
            [chapter.start_seconds, chapter.end_seconds, chapter.title]
            for chapter in facts.chapters
        ],
    }
    return {name: value for name, value in values.items() if value}


def facts_of(values: Any) -> Facts:
    """Return the facts of JSON values of any origin: an impossible one counts as not stated, nothing raises."""
    if not isinstance(values, dict):
        return NO_FACTS
    recorded_by = values.get("recorded_by")
    recorded_at = _recorded_at(values.get("recorded_at"))
    if recorded_at is None or recorded_by not in get_args(RecordedSource):
        recorded_at = recorded_by = None
    rotation = values.get("rotation")
    chapters = _items(values.get("chapters"), MAX_CHAPTERS, _chapter)
    return Facts(
        recorded_at,
        recorded_by,
        clean_timecode(values.get("timecode")),
        clean(values.get("camera")),
        clean_place(values.get("place")),
        rotation if type(rotation) is int and 0 <= rotation < 360 else 0,
        _items(values.get("audio"), MAX_TRACKS, _audio_track),
        tuple(sorted(chapters, key=lambda chapter: chapter.start_seconds)),
    )


@lru_cache(maxsize=1_000)
def read_facts(text: str) -> Facts:
    """Return the facts of a JSON text of any origin, such as a column of the catalogue; see `facts_of`."""
    try:
        return facts_of(json.loads(text)) if text else NO_FACTS
    except (ValueError, RecursionError):
        return NO_FACTS


def is_possible_time(when: datetime) -> bool:
    """Whether a recording may be of this time, which has a zone: no clock that was never set, and not in the future."""
    try:
        return datetime(EARLIEST_YEAR, 1, 1, tzinfo=UTC) <= when <= datetime.now(UTC) + _DAY
    except OverflowError:  # at the ends of the calendar
        return False


def clean(value: object) -> str:
    """Return a text in one printable line of at most 100 characters; empty if it is no text."""
    if not isinstance(value, str):
        return ""
    shown = (each if each.isprintable() and each != "\ufffd" else " " for each in value[:1_000])
    return " ".join("".join(shown).split())[:_MAX_CHARS].rstrip()


def clean_timecode(value: object) -> str:
    """Return a timecode with ``;`` for drop frame, however it was written; empty if it is none."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if text[8:9] in (".", ","):  # other ways to write drop frame
        text = f"{text[:8]};{text[9:]}"
    return text if _TIMECODE.fullmatch(text) else ""


def clean_place(value: object) -> tuple[float, float] | None:
    """Return latitude and longitude; None if there is no such place, or for 0, 0: that of a camera without a fix."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if not all(type(each) in (int, float) and math.isfinite(each) for each in value):
        return None
    latitude, longitude = float(value[0]), float(value[1])
    if abs(latitude) > 90 or abs(longitude) > 180 or latitude == longitude == 0:
        return None
    return latitude, longitude


def _recorded_at(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    return when if when.tzinfo is not None and is_possible_time(when) else None


def _items(value: object, most: int, make: Callable[[Any], T | None]) -> tuple[T, ...]:
    if not isinstance(value, list):
        return ()
    made = (make(each) for each in value[:most])
    return tuple(each for each in made if each is not None)


def _audio_track(value: object) -> AudioTrack | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    channels, language, codec = value
    count = channels if type(channels) is int and 0 < channels <= _MOST_CHANNELS else 0
    code = clean(language)
    is_known = _LANGUAGE.fullmatch(code) is not None and code != "und"
    return AudioTrack(count, code if is_known else "", clean(codec)[:32])


def _chapter(value: object) -> Chapter | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    start, end, title = value
    for each in (start, end):
        if type(each) not in (int, float) or not 0 <= each <= _MAX_SECONDS:
            return None
    return Chapter(float(start), max(float(start), float(end)), clean(title))
