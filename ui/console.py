"""What the commands write to the terminal. All of it passes here, so that no name of a file or a label is obeyed by it.

    console = new_console()
    console.print(f"[yellow]{verbatim(path)}[/]: {verbatim(reason)}", soft_wrap=True)
    print_json({"path": str(path)})

`verbatim` is for each text from outside, which stays in its line; whatever is printed without it loses its control
characters too, but not its line breaks.
"""

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from scanonce.ui.safe_text import json_line, visible


class _SafeConsole(Console):
    """A console that writes no control characters but its own."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else _safe(segment)


def _safe(segment: Segment) -> Segment:
    text, style, _ = segment
    if text.replace("\n", "").isprintable():
        return segment
    return Segment("\n".join(visible(line) for line in text.split("\n")), style)


def new_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console for standard output.

    Args:
        stderr: write to standard error instead.
        quiet: write nothing.
    """
    return _SafeConsole(stderr=stderr, quiet=quiet, emoji=False)


def verbatim(text: object) -> str:
    """Return any text as rich markup that shows it, in one line; see `safe_text.visible`."""
    return escape(visible(text))


def print_json(value: object) -> None:
    """Print a value as one line of JSON, see `safe_text.json_line`."""
    print(json_line(value, sys.stdout.encoding or "utf-8"))


def note(*lines: object) -> None:
    """Print lines of plain text on standard error, the first after the name of the program."""
    for line, text in enumerate(lines):
        print(f"{'' if line else 'scanonce: '}{visible(text)}", file=sys.stderr, flush=True)


def write_anything(*files: TextIO) -> None:
    r"""Let files take any text: a letter that their encoding lacks is written as an escape, such as ``\u4e2d``."""
    for file in files:
        if reconfigure := getattr(file, "reconfigure", None):  # not of a file in memory
            reconfigure(errors="backslashreplace")
