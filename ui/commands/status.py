"""What is indexed, with what, and what failed."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanonce.ui.views import clock, count_text, size_text


def show_status(status: dict[str, Any], console: Console | None = None) -> None:
    """The same for people."""
    console = console or Console()
    videos, vectors = status["videos"], status["vector_index"]
    searchable = videos["indexed"] + videos["partial"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("index", escape(status["index"]))
    table.add_row(
        "videos", f"{count_text(searchable, 'video')}, {clock(status['searchable_seconds'])}"
    )
    table.add_row("folders", escape(", ".join(status["libraries"])))
    table.add_row(
        "encoder",
        f"{escape(status['encoder'])} ({status['fingerprint'][:12]}, {status['dim']} dimensions)",
    )
    table.add_row("sampling", f"{status['sampling']}, {status['sample_fps']:g} frames a second")
    table.add_row(
        "search",
        f"{vectors['kind']}, {count_text(vectors['clips'], 'clip')}, generation {vectors['generation']}",
    )
    table.add_row("localiser", escape(status["localiser"]))
    sizes = f"{size_text(status['feature_bytes'])} of features"
    if status["anchor_bytes"]:
        sizes += f", {size_text(status['anchor_bytes'])} of anchors"
    if status["thumbnail_bytes"]:
        an_hour = status["thumbnail_bytes"] / max(status["searchable_seconds"], 1.0) * 3600
        sizes += (
            f", {size_text(status['thumbnail_bytes'])} of thumbnails ({size_text(an_hour)} an hour)"
        )
    table.add_row("on disk", sizes)
    if writer := status["writer"]:
        table.add_row("written by", escape(f"process {writer['pid']}: {writer['doing']}"))
    console.print(table)
    for title, entries in (("in part", status["partial"]), ("failed", status["failures"])):
        if entries:
            console.print(f"\n[bold]{title}[/]")
            for entry in entries:
                console.print(
                    f"  {escape(entry['path'])}: {escape(entry['reason'])}", soft_wrap=True
                )
                if entry.get("detail"):
                    console.print(f"    [dim]{escape(entry['detail'])}[/]", soft_wrap=True)
