"""Progress bars in a terminal.

with progress_bar("rendering frames") as report:
    report(250, 1000, "83 frames/s")
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

OnProgress = Callable[[int, int], None]
"""Called with (items done, items in all)."""


class Report(Protocol):
    """Moves a bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` items are done, with a short text."""


@contextmanager
def progress_bar(
    title: str,
    *,
    console: Console | None = None,
    is_transient: bool = False,
    is_hidden: bool = False,
) -> Iterator[Report]:
    """A bar with its title, counts, a note and the time left.

    Args:
        title: text before the bar.
        console: terminal of the bar; None: standard output.
        is_transient: remove the bar at the end.
        is_hidden: show nothing.
    """
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=is_transient, disable=is_hidden) as progress:
        task = progress.add_task("", total=None, note="")

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield report
