"""`scanonce repair`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.ui.commands.options import INTERRUPTED, ConfigOption, FullOption, IndexOption
from scanonce.ui.commands.progress import index_progress
from scanonce.ui.commands.verify import (
    MOST_SHOWN,
    find_differences,
    localiser_loader,
    show_difference,
    show_differences,
)
from scanonce.ui.console import new_console
from scanonce.ui.views import count_text

if TYPE_CHECKING:
    from scanonce.indexer.differences import Difference
    from scanonce.indexer.repair import RepairReport


def repair(
    index_dir: IndexOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done.")
    ] = False,
    full: FullOption = False,
    config: ConfigOption = None,
) -> None:
    """Derive missing or damaged vectors, anchors and features again. Nothing else is changed."""
    from scanonce.indexer.repair import repair
    from scanonce.models.encoders.load import load_encoder
    from scanonce.models.tracks.meaning import load_text_model
    from scanonce.storage.manifest import read_manifest
    from scanonce.ui.config import read_config

    settings = read_config(config)
    layout = settings.layout(index_dir)
    console = new_console()
    found = find_differences(layout, settings, console, full=full)
    todo = [each for each in found.differences if each.remedy == "repair"]
    if dry_run or not todo:
        show_differences(found, console)
        if todo:
            console.print(f"Nothing was changed; without --dry-run {_plan(todo)}.")
        raise typer.Exit(1 if found.differences else 0)
    console.print(f"{_plan(todo).capitalize()}.")
    with index_progress(console) as on_progress:
        report = repair(
            layout,
            settings=settings.indexer,
            storage=settings.storage,
            load_encoder=lambda: load_encoder(
                read_manifest(layout).encoder, settings.models, towers="vision"
            ),
            load_localiser=localiser_loader(layout, settings),
            text_model=lambda: load_text_model(settings.tracks.text_model),
            found=found,
            full=full,
            on_progress=on_progress,
        )
    _show(report, console)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.left:
        raise typer.Exit(1)


def _show(report: "RepairReport", console: Console) -> None:
    console.print(f"[green]{count_text(len(report.repaired), 'difference')} repaired.[/]")
    for each, reason in report.left[:MOST_SHOWN]:
        show_difference(each, reason, console)
    if len(report.left) > MOST_SHOWN:
        console.print(f"and {len(report.left) - MOST_SHOWN:,} more: `scanonce verify --json`.")
    if report.interrupted:
        console.print("Stopped. Repairs so far are kept; the same command goes on from here.")
    elif report.left:
        console.print(f"{count_text(len(report.left), 'difference')} left.")
    else:
        console.print("The index is whole.")


def _plan(todo: "Iterable[Difference]") -> str:
    """Return the steps of a repair as a clause that begins with "it"."""
    from scanonce.indexer.differences import BY_DECODING

    kinds = [each.kind for each in todo]
    decoded = {each.video_id for each in todo if each.kind in BY_DECODING}
    parts = []
    if "orphan" in kinds:
        parts.append(f"removes {count_text(kinds.count('orphan'), 'orphaned file')}")
    if decoded:
        parts.append(f"decodes {count_text(len(decoded), 'video')} again")
    if anchors := sum(kind in ("anchors missing", "anchors damaged") for kind in kinds):
        parts.append(f"derives anchors of {count_text(anchors, 'video')}")
    if any(kind.startswith("vectors") for kind in kinds):
        parts.append("derives the vector index again from the stored features")
    if "words damaged" in kinds:
        parts.append("makes the word index again")
    if "line vectors damaged" in kinds:
        number = kinds.count("line vectors damaged")
        parts.append(f"embeds the lines of {count_text(number, 'video')} again")
    return f"it {', '.join(parts)}"
