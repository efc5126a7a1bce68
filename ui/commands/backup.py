"""`scanonce backup` and `scanonce restore`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.ui.commands.options import ConfigOption, IndexOption, absolute
from scanonce.ui.commands.progress import progress_bar
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import count_text, size_text

if TYPE_CHECKING:
    from scanonce.storage.backup.index_copy import CopyProgress, CopyReport
    from scanonce.storage.layout import IndexLayout
    from scanonce.storage.settings import StorageSettings


def backup(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the backup; made, or brought up to date.")
    ],
    index_dir: IndexOption = None,
    config: ConfigOption = None,
) -> None:
    """Copy the index to a folder; it may be searched and written meanwhile."""
    from scanonce.storage.backup.backup import backup
    from scanonce.ui.config import read_config

    settings = read_config(config)
    layout, target = settings.layout(index_dir), absolute(folder)
    console = new_console()
    with _copying(console, "backing up") as on_progress:
        complete = _completion(settings.storage)
        report = backup(layout, target, complete=complete, on_progress=on_progress)
    _show(report, f"in the backup {target}", console)
    if report.damaged or report.missing:
        console.print(
            "A part of the index is damaged, which scanonce verify names; the backup keeps its older copy of that.",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(
        f"Search it with --index {verbatim(target)}; put it back with: scanonce restore {verbatim(target)}",
        soft_wrap=True,
    )


def restore(
    backup_dir: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="Folder that `scanonce backup` made.")
    ],
    index_dir: IndexOption = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing index.")] = False,
    config: ConfigOption = None,
) -> None:
    """Restore a backup as the index, in one step."""
    from scanonce.storage.backup.backup import restore
    from scanonce.ui.config import read_config

    settings = read_config(config)
    source, index = absolute(backup_dir), settings.index_path(index_dir)
    console = new_console()
    with _copying(console, "restoring") as on_progress:
        complete = _completion(settings.storage)
        report = restore(source, index, replace=replace, complete=complete, on_progress=on_progress)
    _show(report, f"restored to {index}", console)
    if report.missing:
        console.print("To scan the missing videos again: scanonce repair")
    console.print(
        "The videos on the disk may have changed since the backup: scanonce index FOLDER brings it up to date."
    )
    if report.damaged or report.missing:
        raise typer.Exit(1)


def _completion(settings: "StorageSettings") -> "Callable[[IndexLayout], None]":
    """Return a function that publishes the missing vectors of a copy of an index."""
    from scanonce.models.clip4clip.pooling import open_pooling
    from scanonce.storage.index import Index

    def complete(layout: "IndexLayout") -> None:
        with Index.open(layout, open_pooling) as index:
            index.publish(settings)

    return complete


@contextmanager
def _copying(console: Console, title: str) -> "Iterator[Callable[[CopyProgress], None]]":
    with progress_bar(console, title, counts="bytes") as report:
        yield lambda progress: report(progress.bytes_done, progress.bytes_total)


def _show(report: "CopyReport", where: str, console: Console) -> None:
    for path in report.damaged:
        console.print(f"[yellow]{verbatim(path)}[/]: damaged, not copied", soft_wrap=True)
    for path in report.missing:
        console.print(f"[yellow]{verbatim(path)}[/]: its features are in neither", soft_wrap=True)
    copied = f"{count_text(report.files_copied, 'file')} copied ({size_text(report.bytes_copied)})"
    console.print(
        f"{count_text(report.videos, 'video')} {verbatim(where)}: {copied}, {report.files_kept:,} there already.",
        soft_wrap=True,
    )
