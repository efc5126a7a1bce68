"""When something was recorded, for people; see `Video.recording`. Pure functions.

>>> at = datetime.fromisoformat("2024-01-31T14:22:33+01:00")
>>> wall_clock(Recording(at, "camera"), 75.5)
'2024-01-31 14:23:48'
>>> wall_clock(Recording(at, "day"), 75.5), wall_clock(Recording(at, "file"), 75.5), wall_clock(None, 75.5)
('2024-01-31', 'file of 2024-01-31', '')
"""

from datetime import datetime, timedelta

from scanonce.storage.records import Recording


def wall_clock(recording: Recording | None, seconds: float) -> str:
    """Return when something in a video happened, as the clocks showed it there.

    Args:
        recording: of the video.
        seconds: time in the video.

    Returns:
        Day and time to the second; the day alone if no time is stated; the day of the file, named so, if nothing says
        when it was recorded; empty if nothing is known.
    """
    if recording is None:
        return ""
    if recording.by in ("day", "file"):
        day = _there(recording).date().isoformat()
        return day if recording.by == "day" else f"file of {day}"
    try:
        at = _there(recording) + timedelta(seconds=seconds)
    except OverflowError:  # past the year 9999
        return _there(recording).date().isoformat()
    return at.replace(tzinfo=None).isoformat(" ", "seconds")


def _there(recording: Recording) -> datetime:
    """The begin by the clock of the camera; by that of this machine if it was written in UTC or without a zone."""
    return recording.at if recording.by == "camera" else recording.at.astimezone()
