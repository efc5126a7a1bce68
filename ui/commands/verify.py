"""`scanonce verify`."""

import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from scanonce.ui.commands.options import ConfigOption, FullOption, IndexOption, JsonOption
from scanonce.ui.commands.progress import progress_bar
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import count_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanonce.indexer.differences import Difference
    from scanonce.indexer.verify import Verification
    from scanonce.models.soonet.trained import TrainedLocaliser
    from scanonce.storage.layout import IndexLayout
    from scanonce.ui.config import Config

MOST_SHOWN = 50  # differences on a terminal; --json names all

_HELP = {
    "index": "scanonce index FOLDER",
    "repair": "scanonce repair",
    "localise": "scanonce localise",
    "restore": "scanonce restore BACKUP --replace",
    "none": "nothing to be done here",
}
"""The command for each remedy (`indexer.verify.Remedy`), in the order in which they are best run."""


def verify(
    index_dir: IndexOption = None,
    full: FullOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Compare files, catalogue, features and vectors, and name every difference."""
    from scanonce.ui.config import read_config

    settings = read_config(config)
    layout = settings.layout(index_dir)
    found = find_differences(layout, settings, new_console(stderr=as_json), full=full)
    if as_json:
        print_json({"index": str(layout.root), **_as_json(found)})
    else:
        show_differences(found, new_console())
    if found.differences:
        raise typer.Exit(1)


def find_differences(
    layout: "IndexLayout", settings: "Config", console: Console, *, full: bool
) -> "Verification":
    """Verify an index with a progress bar; see `indexer.verify.verify`."""
    from scanonce.indexer.verify import verify

    started = time.monotonic()
    with progress_bar(console, "verifying") as report_progress:

        def on_checked(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-3)
            report_progress(done, total, f"{rate:,.0f}/s")

        load = localiser_loader(layout, settings)
        return verify(
            layout,
            full=full,
            files=settings.indexer,
            load_localiser=load,
            on_checked=on_checked,
        )


def localiser_loader(layout: "IndexLayout", settings: "Config") -> "Callable[[], TrainedLocaliser]":
    """Return a function that loads the trained localiser of an index."""
    from scanonce.models.soonet.trained import load_localiser
    from scanonce.storage.manifest import read_manifest

    return lambda: load_localiser(
        str(read_manifest(layout).localiser), device=settings.models.device
    )


def show_differences(found: "Verification", console: Console) -> None:
    """Print the differences, grouped by remedy, and the next step."""
    checked = f"{count_text(found.videos, 'video')}, {count_text(found.files, 'file')}"
    if found.pending:
        console.print(
            f"{count_text(found.pending, 'difference')} left to the command that writes the index now."
        )
    if found.sampled_only:
        console.print(
            f"{count_text(found.sampled_only, 'video')} with no hash of the whole file on record: only 1.1 MB of each "
            "was compared. Scanning records the hash: `touch` the file, then `scanonce index`.",
            soft_wrap=True,
        )
    if found.without_thumbnails:
        console.print(f"{count_text(found.without_thumbnails, 'video')} without thumbnails.")
    if not found.differences:
        console.print(
            f"[green]Nothing differs[/]: {checked}; all values of {found.compared} compared."
        )
        return
    console.print(_counts(found.differences))
    for each in found.differences[:MOST_SHOWN]:
        show_difference(each, each.detail, console)
    if len(found.differences) > MOST_SHOWN:
        console.print(f"and {len(found.differences) - MOST_SHOWN:,} more; --json names them all.")
    needed = {each.remedy for each in found.differences} - {"none"}
    steps = [command for remedy, command in _HELP.items() if remedy in needed]
    next_step = f" Next: {verbatim(', then '.join(steps))}" if steps else ""
    console.print(
        f"{count_text(len(found.differences), 'difference')} in {checked}.{next_step}",
        soft_wrap=True,
    )


def show_difference(each: "Difference", detail: str, console: Console) -> None:
    """Print one difference in a line."""
    subject = f"[yellow]{verbatim(each.subject)}[/]"
    console.print(f"{subject}: {each.kind}: {verbatim(detail)}", soft_wrap=True)


def _counts(differences: "tuple[Difference, ...]") -> Table:
    """Return the number of differences of each kind, in the order of their remedies."""
    order = list(_HELP)
    counts = Counter((order.index(each.remedy), each.kind) for each in differences)
    table = Table(box=None, pad_edge=False)
    table.add_column("difference")
    table.add_column("", justify="right")
    table.add_column("remedy", style="cyan")
    for (remedy, kind), count in sorted(counts.items()):
        table.add_row(kind, f"{count:,}", verbatim(_HELP[order[remedy]]))
    return table


def _as_json(found: "Verification") -> dict[str, object]:
    """Return the documented schema (docs/cli.md), without the index."""
    return {
        "videos": found.videos,
        "files": found.files,
        "compared": found.compared,
        "sampled_only": found.sampled_only,
        "without_thumbnails": found.without_thumbnails,
        "pending": found.pending,
        "differences": [
            {**asdict(each), "subject": str(each.subject)} for each in found.differences
        ],
    }
