"""When a video was recorded, by the name of its file.

>>> time_in_name("VID_20240131_142233.mp4").replace(tzinfo=None).isoformat()
'2024-01-31T14:22:33'
>>> time_in_name("PXL_20240131_142233123.mp4").isoformat()          # a Pixel writes UTC
'2024-01-31T14:22:33+00:00'
>>> time_in_name("GOPR0001.MP4") is None, day_in_name("VID-20240131-WA0007.mp4")
(True, '2024-01-31')
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, time

from scanonce.storage.facts import Facts, is_possible_time

_DAY = re.compile(
    r"(?<![0-9])((?:19|20)[0-9]{2})([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01])(?![0-9]{3})"
)
_TIME = re.compile(
    r"(?<![0-9])((?:19|20)[0-9]{2})([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01])"
    r"(?:[-_ T.]|\sat\s)?([01][0-9]|2[0-3])([-_.:hH]?)([0-5][0-9])[-_.:mM]?([0-5][0-9])"
)
_IN_UTC = ("PXL_",)


def day_in_name(name: str) -> str | None:
    """Return the day that the name of a file states, as ``YYYY-MM-DD``; None if it states none."""
    for year, _, month, day in _DAY.findall(name):
        try:
            return datetime(int(year), int(month), int(day), tzinfo=UTC).date().isoformat()
        except ValueError:  # the 31st of February
            continue
    return None


def time_in_name(name: str) -> datetime | None:
    """Return the second that the name of a file states, in the local time zone; None if it states none.

    Phones (VID_, PXL_), DJI's drones (DJI_20240131142233_0001.MP4) and recorders of screens write it.
    """
    for year, _, month, day, hour, _, minute, second in _TIME.findall(name):
        parts = [int(part) for part in (year, month, day, hour, minute, second)]
        try:
            when = datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError:
            continue
        when = when if name.startswith(_IN_UTC) else when.replace(tzinfo=None).astimezone()
        if is_possible_time(when):
            return when
    return None


def with_name(facts: Facts, name: str) -> Facts:
    """Return the facts with what the name of the file adds: a time goes before the container's, a day after it."""
    if facts.recorded_by == "camera":
        return facts
    if (when := time_in_name(name)) is not None:
        return replace(facts, recorded_at=when, recorded_by="name")
    if facts.recorded_by is None and (day := day_in_name(name)) is not None:
        noon = datetime.combine(datetime.fromisoformat(day), time(12)).astimezone()
        if is_possible_time(noon):
            return replace(facts, recorded_at=noon, recorded_by="day")
    return facts
