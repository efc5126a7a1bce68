"""`scanonce unusual`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption, absolute
from scanonce.ui.commands.progress import progress_bar
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import count_text, span_text

if TYPE_CHECKING:
    from scanonce.search.unusual import Unusual


def unusual(
    folder: Annotated[
        Path, typer.Option("--in", help="Folder of one camera, with everything below it.")
    ],
    index_dir: IndexOption = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Most moments to show.")] = 20,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find the moments that are far from all that a camera has shown before, the most unusual first."""
    from scanonce.ui.config import read_config

    library = read_config(config).library(index_dir)
    console = new_console()
    with progress_bar(console, "reading") as report:
        found = library.unusual(
            absolute(folder), on_progress=lambda done, total: report(done, total, "videos")
        )
    if as_json:
        for moment in found[:top]:
            print_json(unusual_json(moment))
        return
    if found:
        console.print(_table(found[:top]))
    more = f"; {top} are shown" if len(found) > top else ""
    console.print(f"{count_text(len(found), 'unusual moment')}{more}.", highlight=False)


def unusual_json(moment: "Unusual") -> dict[str, Any]:
    """Return a moment in the documented schema (docs/cli.md)."""
    return {
        "video_id": moment.video.video_id,
        "path": str(moment.path),
        "start_seconds": round(moment.span.start_seconds, 3),
        "end_seconds": round(moment.span.end_seconds, 3),
        "deviations": round(moment.deviations, 2),
    }


def _table(found: "list[Unusual]") -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("moment", no_wrap=True)
    table.add_column("deviations", justify="right")
    table.add_column("video", overflow="fold")
    for moment in found:
        table.add_row(
            span_text(moment.span), f"{moment.deviations:.1f}", verbatim(str(moment.path))
        )
    return table
