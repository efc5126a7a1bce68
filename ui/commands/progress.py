"""The progress bar of all commands. It is shown on a terminal only, and removed at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from scanonce.training import bars
from scanonce.training.bars import Counts, Report
from scanonce.ui.safe_text import visible

if TYPE_CHECKING:
    from scanonce.indexer.pipeline import Progress as IndexProgress


def progress_bar(
    console: Console, title: str, counts: Counts = "items"
) -> AbstractContextManager[Report]:
    """Show a bar on a terminal until the context ends; see `training.bars.progress_bar`."""
    return bars.progress_bar(
        title,
        console=console,
        counts=counts,
        is_transient=True,
        is_hidden=not console.is_terminal,
    )


@contextmanager
def index_progress(console: Console) -> Iterator[Callable[["IndexProgress"], None]]:
    """Show the bar of a run of the indexer: its share of the bytes, videos, speed and time left.

    Yields:
        The callback of the run.
    """
    started = time.monotonic()
    with progress_bar(console, "preparing", counts="none") as report:

        def on_progress(run: "IndexProgress") -> None:
            speed = speed_text(run.video_seconds, time.monotonic() - started)
            note = f"{run.videos_done}/{run.videos_total}  {speed}"
            report(run.bytes_done, run.bytes_total, note, shortened(run.current))

        yield on_progress


def speed_text(video_seconds: float, elapsed_seconds: float) -> str:
    """Return the seconds of video per second; empty in the first second."""
    return f"{video_seconds / elapsed_seconds:.0f}x real time" if elapsed_seconds > 1 else ""


def shortened(path: Path | None, width: int = 30) -> str:
    """Return the name of a file as it fits before a bar."""
    name = visible(path.name) if path else ""
    return name if len(name) <= width else f"{name[: width - 10]}…{name[-9:]}"
