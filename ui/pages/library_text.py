"""The texts of the library page, and the check of a typed folder. Pure functions, but for the folder's existence."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanonce.storage.catalog.entries import RunCounts, Totals
from scanonce.storage.errors import ConfigError
from scanonce.storage.files import expanded
from scanonce.ui.jobs import Job
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import clock, count_text, hours_text, size_text


def check_folder(text: str, index_dir: Path) -> Path:
    """Return a folder that a person typed, absolute.

    Raises:
        ConfigError: it cannot be indexed; the message says why and what to do.
    """
    if not text.strip():
        raise ConfigError("no folder was given: type its whole path, such as /home/me/Videos.")
    folder = expanded(text.strip())
    if not folder.is_absolute():
        raise ConfigError(
            f"{text.strip()} is not a whole path: begin with / (or ~ for the server's home)."
        )
    folder = Path(os.path.abspath(folder))
    try:
        if not folder.exists():
            raise ConfigError(
                f"{folder} does not exist on the machine this server runs on: check the path, or plug its disk in."
            )
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise ConfigError(f"{folder} cannot be read by the server: check its permissions.")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder} cannot be examined ({reason}): check the path.") from error
    if folder == index_dir or index_dir in folder.parents:
        raise ConfigError(f"{folder} is inside the index itself: choose the folder of your videos.")
    return folder


def folders_text(roots: Sequence[Path], present: Sequence[Path]) -> str:
    """Return the folders of a library in a line: three of them, and the number of the others."""
    shown = [encodable(str(root)) + ("" if root in present else " (offline)") for root in roots[:3]]
    more = f" and {len(roots) - 3} more" if len(roots) > 3 else ""
    return ", ".join(shown) + more


def progress_text(job: Job) -> str | None:
    """Return the progress of a run in a line without any name in it; None if it is not known yet."""
    if job.videos_total is None:
        return None
    parts = [f"{job.videos_done:,} of {count_text(job.videos_total, 'video')}", f"{job.share:.0%}"]
    if job.rate is not None:
        parts.append(f"{job.rate:,.0f}x real time")
    if job.seconds_left is not None and job.state == "running":
        parts.append(f"{clock(job.seconds_left)} left")
    return " · ".join(parts)


def totals_text(totals: Totals, status: Mapping[str, Any] | None) -> str:
    """Return the size of the library, and the disk space an hour of it takes if ``status`` is given."""
    parts = [
        f"{count_text(totals.searchable, 'video')}, {hours_text(totals.searchable_seconds)}",
    ]
    if status is not None:
        parts.append(count_text(status["vector_index"]["clips"], "clip"))
        hours = totals.searchable_seconds / 3600
        sizes = [
            f"{size_text(status[f'{kind}_bytes'] / hours)} {kind}s"
            for kind in ("feature", "anchor", "thumbnail")
            if hours and status[f"{kind}_bytes"]
        ]
        if sizes:
            parts.append("an hour takes " + ", ".join(sizes))
    return " · ".join(parts)


_ADVICE = (
    ("crashed on it", "Play it to the end in a player; if that works, transcode it to H.264."),
    ("gave no frame", "Check its disk, or transcode it to H.264, then retry."),
    (
        "of memory",
        "Transcode it to a lower resolution, then retry, or raise indexer.decode_memory_mb.",
    ),
    (
        "of processor time",
        "Transcode it to H.264, then retry, or raise indexer.decode_cpu_seconds.",
    ),
    ("cannot be read", "Check its permissions and its disk, then retry."),
    ("decoder", "Transcode it to H.264, then retry; if it plays elsewhere, please report it."),
)


def advice(reason: str) -> str | None:
    """Return the next step for a failure; None if its reason ends with one already.

    >>> advice("the file is empty: copy or download it again") is None
    True
    """
    if ": " in reason and not reason.startswith("cannot be read"):
        return None
    return next((step for words, step in _ADVICE if words in reason), "Retry it.")


def length_text(seconds: float) -> str:
    """Return a length in seconds, whole minutes, or hours and minutes.

    >>> length_text(12), length_text(59.6), length_text(240), length_text(4200), length_text(7190)
    ('12 s', '1 min', '4 min', '1 h 10', '2 h')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours:,} h {minutes:02d}" if minutes else f"{hours:,} h"


def took_text(job: Job, counts: RunCounts) -> str:
    """Return how long an ended run took, and how much video it covered."""
    took = (job.updated_at - job.started_at).total_seconds()
    return f"took {length_text(took)} for {length_text(counts.video_seconds)} of video"
