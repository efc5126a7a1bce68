"""The progress bar of all commands. It is shown on a terminal only, and removed at the end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from scanonce.indexer.pipeline import Progress as IndexProgress


class Report(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, total: float, note: str = "", title: str | None = None) -> None:
        """Show that ``done`` of ``total`` are done, with a short text; a title replaces that of the bar."""


@contextmanager
def progress_bar(
    console: Console, title: str, *, counts: Literal["items", "bytes", "none"] = "items"
) -> Iterator[Report]:
    """Show a bar with a title, counts, a note and the time left.

    Args:
        console: the terminal.
        title: text before the bar.
        counts: what is counted after the bar.

    Yields:
        The function that moves the bar.
    """
    counted = {
        "items": (MofNCompleteColumn(),),
        "bytes": (DownloadColumn(), TransferSpeedColumn()),
        "none": (),
    }
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *counted[counts],
        TextColumn("{task.fields[note]}", style="cyan"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(escape(title), total=None, note="")

        def report(done: float, total: float, note: str = "", title: str | None = None) -> None:
            description = None if title is None else escape(title)
            bar.update(task, completed=done, total=total, note=note, description=description)

        yield report


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
            report(run.bytes_done, run.bytes_total, note, _shortened(run.current))

        yield on_progress


def speed_text(video_seconds: float, elapsed_seconds: float) -> str:
    """Seconds of video per second; empty in the first second."""
    return f"{video_seconds / elapsed_seconds:.0f}x real time" if elapsed_seconds > 1 else ""


def _shortened(path: Path | None, width: int = 30) -> str:
    name = path.name if path else ""
    return name if len(name) <= width else f"{name[: width - 10]}…{name[-9:]}"
