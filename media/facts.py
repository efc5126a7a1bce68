"""Reading the facts that a container states about its recording; see `storage.facts`.

>>> parse_place("+48.8577+002.2950+035/"), parse_place("+4851.462+00217.70/")
((48.8577, 2.295), (48.8577, 2.295))
>>> parse_time("2024-01-31T15:22:33+0100").isoformat()
'2024-01-31T15:22:33+01:00'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from scanonce.media.container import find_video_stream, open_container
from scanonce.storage.facts import (
    MAX_CHAPTERS,
    MAX_TRACKS,
    NO_FACTS,
    Facts,
    RecordedSource,
    clean,
    clean_place,
    clean_timecode,
    facts_of,
    is_possible_time,
)

_ZONED_KEYS = ("com.apple.quicktime.creationdate",)
_CONTAINER_KEYS = ("creation_time", "date_recorded", "date", "modification_date")
_PLACE_KEYS = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_MAKE_KEYS = ("com.apple.quicktime.make", "com.android.manufacturer", "make", "company_name")
_MODEL_KEYS = ("com.apple.quicktime.model", "com.android.model", "model", "product_name")
_PLACE = re.compile(
    r"([+-])(\d{2,6}(?:\.\d{1,12})?)([+-])(\d{3,7}(?:\.\d{1,12})?)(?:[+-][\d.]{1,12})?(?:CRS\w{0,20})?/?"
)
_TURNING = ("mov", "matroska")  # demuxers whose files can say that a player has to turn the frames
_FIRST_PACKETS = 60  # the first frame is in the first packet of the video, which is near the start

Tags = Mapping[str, str]


def read_facts(path: Path) -> Facts:
    """Return the facts of a file; none if it cannot be opened, which its decoder will report. Decodes one frame.

    Args:
        path: untrusted; call it in a guarded child.
    """
    try:
        with open_container(path) as container:
            return _facts(container)
    except MemoryError:
        raise
    except (
        Exception
    ):  # whatever a header makes FFmpeg or PyAV raise costs the facts only, not the video
        return NO_FACTS


def _facts(container: InputContainer) -> Facts:
    video = find_video_stream(container)
    others = islice((each for each in container.streams if each is not video), MAX_TRACKS)
    tags = [
        _lowered(each)
        for each in (container.metadata, video.metadata, *(s.metadata for s in others))
    ]
    recorded_at, recorded_by = _recorded(tags)
    values: dict[str, Any] = {
        "recorded_at": None if recorded_at is None else recorded_at.isoformat(),
        "recorded_by": recorded_by,
        "timecode": next(
            (code for each in tags if (code := clean_timecode(each.get("timecode")))), ""
        ),
        "camera": _camera(tags[:2]),
        "place": next(
            (place for text in _texts(tags, _PLACE_KEYS) if (place := parse_place(text))), None
        ),
        "audio": [
            [stream.channels, str(stream.language or ""), str(stream.codec_context.name)]
            for stream in container.streams.audio[:MAX_TRACKS]
            if stream.codec_context is not None
        ],
        "chapters": list(_chapters(container)),
        "rotation": _rotation(container, video),
    }
    return facts_of(values)


def _lowered(tags: Tags) -> dict[str, str]:
    return {str(name).lower(): str(value) for name, value in islice(tags.items(), 1_000)}


def _texts(tags: Iterable[Tags], names: Iterable[str]) -> Iterator[str]:
    """Yield the values of tags: of the first name in all of them, then of the next one."""
    known = list(tags)
    return (each[name] for name in names for each in known if each.get(name))


def _recorded(tags: list[dict[str, str]]) -> tuple[datetime | None, RecordedSource | None]:
    for text in _texts(tags, _ZONED_KEYS):
        if (when := parse_time(text)) is not None:
            return when, "camera"
    for text in _texts(tags, _CONTAINER_KEYS):
        if (when := parse_time(text)) is not None:
            return when, "container"
    return None, None


def _camera(tags: list[dict[str, str]]) -> str:
    make = clean(next(_texts(tags, _MAKE_KEYS), ""))
    model = clean(next(_texts(tags, _MODEL_KEYS), ""))
    if make == "FFmpeg":  # it writes itself into MXF
        return ""
    return model if model.casefold().startswith(make.casefold()) else clean(f"{make} {model}")


def _chapters(container: InputContainer) -> Iterator[list[Any]]:
    origin = (container.start_time or 0) / av.time_base
    for chapter in islice(container.chapters(), MAX_CHAPTERS):
        base = float(chapter["time_base"] or 0)
        start, end = (max(0.0, chapter[name] * base - origin) for name in ("start", "end"))
        yield [start, end, str(chapter["metadata"].get("title", ""))]


def _rotation(container: InputContainer, video: Any) -> int:
    """Degrees by the display matrix of the first frame; PyAV shows that of no stream."""
    if not container.format.name.startswith(_TURNING):
        return 0
    video.thread_type = "NONE"
    try:
        for packet in islice(container.demux(video), _FIRST_PACKETS):
            for frame in packet.decode():
                return int(frame.rotation) % 360
    except av.FFmpegError:  # the decoder will report it
        pass
    return 0


def parse_time(text: str) -> datetime | None:
    """Return a day with a time, in its zone or UTC; None if it is none, or not possible as the time of a recording."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if len(text.strip()) <= len("2024-01-31"):  # the day of a release, not of a recording
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return when if is_possible_time(when) else None


def parse_place(text: str) -> tuple[float, float] | None:
    """Return latitude and longitude of an ISO 6709 text: degrees, degrees and minutes, or also seconds; else None."""
    found = _PLACE.fullmatch(text.strip())
    if found is None:
        return None
    latitude = _degrees(found[1], found[2], 2)
    longitude = _degrees(found[3], found[4], 3)
    return None if latitude is None or longitude is None else clean_place([latitude, longitude])


def _degrees(sign: str, digits: str, width: int) -> float | None:
    """Return the degrees of an angle whose whole degrees have ``width`` digits; minutes and seconds follow with two."""
    whole, _, fraction = digits.partition(".")
    parts = [whole[:width], *(whole[at : at + 2] for at in range(width, len(whole), 2))]
    if len(whole) not in (width, width + 2, width + 4):
        return None
    numbers = [float(part) for part in parts]
    numbers[-1] += float(f"0.{fraction or 0}")
    if any(each >= 60 for each in numbers[1:]):
        return None
    value = sum((number / 60.0**power for power, number in enumerate(numbers)), 0.0)
    return -value if sign == "-" else value
