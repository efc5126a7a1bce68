"""When a video was recorded, for people; see `Video.recording`."""

from scanonce.storage.records import Video


def recorded_day(video: Video) -> str:
    """Return the day of a recording, as ``YYYY-MM-DD``; empty: unknown."""
    recording = video.recording
    return "" if recording is None else recording.at.date().isoformat()
