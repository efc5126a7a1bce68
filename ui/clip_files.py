"""Names of files of clips."""

from pathlib import Path

from scanonce.storage.records import Span
from scanonce.ui.safe_text import printable

MAX_NAME = 120
"""Characters of a name; file systems allow 255 bytes."""


def clip_name(path: Path, span: Span) -> str:
    """Return the name of the file of a clip.

    >>> clip_name(Path("/films/night.mkv"), Span(61.5, 70.0))
    'night 0h01m01.500-0h01m10.000.mp4'
    """
    start, end = map(_time, span.millis)
    return f"{stem_of(path)} {start}-{end}.mp4"


def stem_of(path: Path) -> str:
    """Return the name of a video without its ending, as the beginning of another file's name."""
    return printable(path.stem).replace("\\", "_").strip()[:MAX_NAME] or "clip"


def _time(millis: int) -> str:
    """Return 61500 as 0h01m01.500: not every file system allows colons in names."""
    seconds, rest = divmod(millis, 1000)
    return f"{seconds // 3600}h{seconds // 60 % 60:02}m{seconds % 60:02}.{rest:03}"
