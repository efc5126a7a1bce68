"""Progress bars in a terminal.

with progress_bar("rendering frames") as report:
    report(250, 1000, "83 frames/s")
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

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

OnProgress = Callable[[int, int], None]
"""Called with (items done, items in all)."""

Counts = Literal["items", "bytes", "none"]
"""The unit of the counts after a bar."""


class Report(Protocol):
    """Moves a bar."""

    def __call__(self, done: float, total: float, note: str = "", title: str | None = None) -> None:
        """Show that ``done`` of ``total`` are done, with a short text; a title replaces that of the bar."""


@contextmanager
def progress_bar(
    title: str,
    *,
    console: Console | None = None,
    counts: Counts = "items",
    is_transient: bool = False,
    is_hidden: bool = False,
) -> Iterator[Report]:
    """A bar with its title, counts, a note and the time left.

    Args:
        title: text before the bar.
        console: terminal of the bar; None: standard output.
        counts: unit of the counts after the bar.
        is_transient: remove the bar at the end.
        is_hidden: show nothing.

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
        TextColumn("{task.fields[note]}"),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=is_transient, disable=is_hidden) as progress:
        task = progress.add_task(escape(title), total=None, note="")

        def report(done: float, total: float, note: str = "", title: str | None = None) -> None:
            description = None if title is None else escape(title)
            progress.update(task, completed=done, total=total, note=note, description=description)

        yield report
