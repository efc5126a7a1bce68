"""When a video was recorded, from the name of its file, or from the time of its last change."""

import re
from datetime import UTC, datetime
from pathlib import Path

_DAY = re.compile(
    r"(?<![0-9])((?:19|20)[0-9]{2})([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12][0-9]|3[01])(?![0-9]{3})"
)


def day_in_name(name: str) -> str | None:
    """Return the day that the name of a file states, as ``YYYY-MM-DD``; None if it states none.

    >>> day_in_name("VID_20240131_174501.mp4"), day_in_name("2023-12-24 market.mov"), day_in_name("C0009.MP4")
    ('2024-01-31', '2023-12-24', None)
    """
    for year, _, month, day in _DAY.findall(name):
        try:
            return datetime(int(year), int(month), int(day), tzinfo=UTC).date().isoformat()
        except ValueError:  # the 31st of February
            continue
    return None


def recorded_day(path: Path, changed_ns: int | None) -> str:
    """Return the day of a recording: that in the name of its file, else that of its last change; empty: unknown.

    Args:
        path: of the file.
        changed_ns: time of its last change, nanoseconds since 1970; None: unknown.
    """
    named = day_in_name(path.name)
    if named or changed_ns is None or changed_ns <= 0:
        return named or ""
    return datetime.fromtimestamp(changed_ns / 1e9, UTC).astimezone().date().isoformat()
