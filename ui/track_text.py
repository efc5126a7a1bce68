"""How much of a library is read for words, for people. Pure functions."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from scanonce.storage.records import MadeTrack
from scanonce.ui.views import count_text


def track_text(track: Mapping[str, Any], num_videos: int) -> str:
    """Return how much a track of `status_json` covers.

    >>> track_text({"track": "said", "videos": 3, "problems": 0, "lines": 1200}, 4)
    'said: 3 of 4 videos, 1,200 lines'
    """
    read = f"{track['videos']:,} of {count_text(num_videos, 'video')}"
    return f"{track['track']}: {read}, {count_text(track['lines'], 'line')}"


def not_read(tracks: Collection[str]) -> list[MadeTrack]:
    """Return the tracks that no video has.

    >>> not_read(["facts", "said"])
    ['subtitle', 'written']

    Args:
        tracks: names of those that videos have.
    """
    return [name for name in get_args(MadeTrack) if name not in tracks]


def next_track_command(tracks: Sequence[str]) -> str:
    """Return the command that reads tracks.

    >>> next_track_command(["said", "written"])
    'scanonce tracks add said,written'
    """
    return f"scanonce tracks add {','.join(tracks)}"


def coverage_lines(tracks: Sequence[Mapping[str, Any]], num_videos: int) -> list[str]:
    """Return the tracks of a library, read and unread, each with the command that reads it.

    >>> coverage_lines([{"track": "said", "videos": 3, "problems": 1, "lines": 1200}], 4)[0]
    'said: 3 of 4 videos, 1,200 lines (1 with a note). Next: scanonce tracks add said'

    Args:
        tracks: of `ui.views.status_json`.
        num_videos: that can be searched.
    """
    lines = []
    for track in tracks:
        if track["track"] == "facts":  # come with the others
            continue
        note = f" ({track['problems']:,} with a note)" if track["problems"] else ""
        rest = track["videos"] < num_videos
        command = f". Next: {next_track_command([track['track']])}" if rest else ""
        lines.append(f"{track_text(track, num_videos)}{note}{command}")
    missing = not_read([track["track"] for track in tracks])
    if missing:
        lines.append(f"not read: {', '.join(missing)}. Next: {next_track_command(missing)}")
    return lines
