"""`scanonce search`."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.notes import note_inexact_times
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption, absolute
from scanonce.ui.views import moments_table, result_json, timings_text

if TYPE_CHECKING:
    from scanonce.search.answer import SearchResult
    from scanonce.search.filters import Filter

_BATCH = 64  # queries encoded and looked up together
_DAY = "%Y-%m-%d"


def search(
    text: Annotated[str | None, typer.Argument(help="Description of the moment.")] = None,
    index_dir: IndexOption = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Moments to show.", show_default="as in config.toml"),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="File with one query a line (- for standard input); needs --json."),
    ] = None,
    folders: Annotated[
        list[Path] | None,
        typer.Option("--in", help="Only videos at or below this folder; several: any of them."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", help="Only videos with this label; several: all of them."),
    ] = None,
    without_labels: Annotated[
        list[str] | None, typer.Option("--exclude-label", help="Only videos without this label.")
    ] = None,
    after: Annotated[
        datetime | None,
        typer.Option(formats=[_DAY], help="Only files last modified on this day or later."),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=[_DAY], help="Only files last modified on this day or earlier."),
    ] = None,
    longer: Annotated[
        float | None, typer.Option(min=0, help="Only videos of this many seconds or more.")
    ] = None,
    shorter: Annotated[
        float | None, typer.Option(min=0, help="Only videos of less than this many seconds.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find the moments that show what a text describes."""
    if (text is None) == (queries is None):
        raise typer.BadParameter("give either a text or --queries FILE")
    if queries is not None and not as_json:
        raise typer.BadParameter("--queries prints one JSON object a line: add --json")
    from scanonce.search.filters import Filter
    from scanonce.ui.config import read_config

    only = Filter(
        folders=tuple(absolute(folder) for folder in folders or ()),
        labels=frozenset(labels or ()),
        without_labels=frozenset(without_labels or ()),
        recorded_after=after.date() if after else None,
        recorded_before=before.date() if before else None,
        min_seconds=longer,
        max_seconds=shorter,
    )
    texts = read_queries(queries) if queries else [str(text)]
    with read_config(config).library(index_dir) as library:
        note_inexact_times(library)
        engine = library.engine  # a missing index is an error even if the file has no query
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            for result in engine.search_many(batch, top=top, within=only):
                _show(result, only, as_json=as_json)


def read_queries(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty; ``-`` is standard input.

    Raises:
        QueryError: the file cannot be read.
    """
    try:
        content = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise QueryError(
            f"the queries in {path} cannot be read: {reason}. Name a text file in UTF-8, one query a line"
        ) from error
    return [line.strip() for line in content.splitlines() if line.strip()]


def _show(result: "SearchResult", only: "Filter", *, as_json: bool) -> None:
    if as_json:
        shown = None if only.passes_all else only
        print(json.dumps(result_json(result, shown), ensure_ascii=False))
        return
    console = Console()
    if result.num_videos == 0:
        console.print("No video passes this filter, so nothing was searched.")
    elif result.no_good_match:
        console.print(f"No good match for [bold]{result.query!r}[/] in this library.")
        if result.moments:
            console.print("The nearest, probably not what you mean:")
    if result.moments:
        console.print(moments_table(result.moments))
    console.print(f"[dim]{timings_text(result)}[/]")
