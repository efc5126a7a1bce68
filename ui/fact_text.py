"""The facts of a video, and what its file states about the recording: for people and for programs. Pure functions.

>>> from datetime import datetime
>>> recording_text(Recording(datetime.fromisoformat("2024-01-31T14:22:33+01:00"), "camera"))
'2024-01-31 14:22:33 +01:00, by the clock of the camera'
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scanonce.storage.facts import AudioTrack
from scanonce.storage.records import Recording, Video
from scanonce.ui.safe_text import one_line

_SAYS: Mapping[str, str] = {
    "camera": "by the clock of the camera",
    "name": "by the name of the file",
    "container": "by the container of the file",
    "day": "by the name of the file",
    "file": "the file was last changed then; nothing says when it was recorded",
}
_CHANNELS: Mapping[int, str] = {1: "mono", 2: "stereo"}


def fact_rows(video: Video) -> dict[str, str]:
    """Return the facts of the recording of a video, by name; texts of the file are one printable line each."""
    facts, recording = video.facts, video.recording
    rows = {
        "recorded": "" if recording is None else recording_text(recording),
        "timecode": facts.timecode,
        "camera": facts.camera,
        "place": "" if facts.place is None else "{:.5f}, {:.5f}".format(*facts.place),
        "rotation": f"{facts.rotation} degrees" if facts.rotation else "",
        "audio": "; ".join(map(_track_text, facts.audio)),
    }
    return {name: one_line(text) for name, text in rows.items() if text}


def recording_text(recording: Recording) -> str:
    """Return when a recording began, and what says so."""
    shown = recording.at.isoformat(" ", "seconds")
    when = shown[:10] if recording.by == "day" else f"{shown[:19]} {shown[19:]}"
    return f"{when}, {_SAYS[recording.by]}"


def _track_text(track: AudioTrack) -> str:
    channels = _CHANNELS.get(track.channels, f"{track.channels} channels" if track.channels else "")
    return " ".join(part for part in (track.codec, channels, track.language) if part)


# ---------------------------------------------------------------- for programs


def video_json(video: Video, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return the facts of a video."""
    info = video.info
    return {
        "video_id": video.video_id,
        "path": str(video.path),
        "paths": [str(path) for path in video.paths],
        "state": video.state,
        "duration_seconds": round(video.duration_seconds, 3),
        "width": info.width if info else 0,
        "height": info.height if info else 0,
        "fps": info.fps if info else 0.0,
        "codec": info.codec if info else "",
        "size_bytes": video.size_bytes,
        "indexed_at": video.added_at.isoformat() if video.added_at else None,
        "labels": list(labels),
        **facts_json(video),
    }


def facts_json(video: Video) -> dict[str, Any]:
    """Return what the file of a video states about its recording; null is not stated."""
    facts, recording = video.facts, video.recording
    latitude, longitude = facts.place or (None, None)
    return {
        "recorded_at": recording and recording.at.isoformat(),
        "recorded_by": recording and recording.by,
        "timecode": facts.timecode or None,
        "camera": facts.camera or None,
        "latitude": latitude,
        "longitude": longitude,
        "rotation": facts.rotation,
        "audio": [asdict(track) for track in facts.audio],
    }
