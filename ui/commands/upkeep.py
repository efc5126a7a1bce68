"""Looking after an index, for a person at a terminal: verify, repair, back up, restore.

Each function prints, and returns the exit code of the command.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from scanonce.indexer.differences import BY_DECODING, Difference, Remedy
from scanonce.indexer.verify import Verification, verify
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.storage.backup.backup import backup, restore
from scanonce.storage.backup.index_copy import CopyProgress, CopyReport
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.ui.config import Config
from scanonce.ui.views import count_text, size_text

_SHOWN = 50  # differences on a terminal; --json names all

_HELP: dict[Remedy, str] = {
    "index": "scanonce index FOLDER",
    "repair": "scanonce repair",
    "localise": "scanonce localise",
    "restore": "scanonce restore BACKUP --replace",
    "none": "nothing to be done here",
}
"""The command that helps, in the order in which they are best run."""


class _RateColumn(ProgressColumn):
    """Files and videos looked at per second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.0f}/s" if rate else "", style="cyan")


# ---------------------------------------------------------------- verify and repair


def run_verify(
    index_dir: Path,
    *,
    full: bool,
    config: Config,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """Names everything that differs, grouped by what helps.

    Args:
        index_dir: the index.
        full: read all values, and into the video files.
        config: the device on which the localiser is loaded.
        as_json: print the documented schema (docs/cli.md) and nothing else.
        console: where to write; the bar of ``as_json`` goes to standard error.

    Returns:
        0 where nothing differs, 1 where something does.

    Raises:
        IndexDirectoryError: there is no usable index.
    """
    console = console or Console()
    found = _verify(index_dir, full, config, Console(stderr=True) if as_json else console)
    if as_json:
        print(json.dumps(_verification_json(found, index_dir), ensure_ascii=False))
    else:
        _show_verification(found, console)
    return 1 if found.differences else 0


def _verify(index_dir: Path, full: bool, config: Config, console: Console) -> Verification:
    layout = IndexLayout.of(index_dir)
    with _looking(console) as on_checked:
        return verify(
            layout, full=full, load_localiser=_localiser_of(layout, config), on_checked=on_checked
        )


def _verification_json(found: Verification, index_dir: Path) -> dict[str, Any]:
    """The documented schema (docs/cli.md)."""
    return {
        "index": str(index_dir),
        "videos": found.videos,
        "files": found.files,
        "compared": found.compared,
        "without_thumbnails": found.without_thumbnails,
        "pending": found.pending,
        "differences": [
            {**asdict(each), "subject": str(each.subject)} for each in found.differences
        ],
    }


def _show_verification(found: Verification, console: Console) -> None:
    """What differs, by what helps, and the next step."""
    looked = f"{count_text(found.videos, 'video')}, {count_text(found.files, 'file')}"
    if found.pending:
        console.print(
            f"{count_text(found.pending, 'difference')} left to the command that writes the index now."
        )
    if found.without_thumbnails:
        console.print(f"{count_text(found.without_thumbnails, 'video')} without thumbnails.")
    if not found.differences:
        console.print(
            f"[green]Nothing differs[/]: {looked}; all values of {found.compared} compared."
        )
        return
    console.print(_counts(found.differences))
    for each in found.differences[:_SHOWN]:
        console.print(
            f"[yellow]{escape(str(each.subject))}[/]: {each.kind}: {escape(each.detail)}",
            soft_wrap=True,
        )
    if len(found.differences) > _SHOWN:
        console.print(f"and {len(found.differences) - _SHOWN:,} more; --json names them all.")
    steps = [_HELP[each] for each in _HELP if each != "none" and each in _remedies(found)]
    next_step = f" Next: {escape(', then '.join(steps))}" if steps else ""
    console.print(
        f"{count_text(len(found.differences), 'difference')} in {looked}.{next_step}",
        soft_wrap=True,
    )


def run_repair(
    index_dir: Path,
    *,
    dry_run: bool,
    full: bool,
    config: Config,
    console: Console | None = None,
) -> int:
    """Mends what can be derived, and says what was mended, what not, and why.

    Args:
        index_dir: the index.
        dry_run: only say what would be done.
        full: look as ``verify --full`` does, before and after.
        config: decoding, vector index and device.
        console: where to write.

    Returns:
        0 where nothing is left to be done; 1; 130 where it was stopped.

    Raises:
        IndexDirectoryError: there is no usable index, or somebody else writes it.
    """
    console = console or Console()
    found = _verify(index_dir, full, config, console)
    todo = [each for each in found.differences if each.remedy == "repair"]
    if dry_run or not todo:
        _show_verification(found, console)
        if todo:
            console.print(f"Nothing was changed; without --dry-run {_plan(todo)}.")
        return 1 if found.differences else 0
    from scanonce.indexer.repair import repair  # it imports what decodes and encodes
    from scanonce.ui.commands.index import index_progress

    console.print(f"{_plan(todo).capitalize()}.")
    layout = IndexLayout.of(index_dir)
    with index_progress(console) as show:
        report = repair(
            layout,
            settings=config.indexer,
            storage=config.storage,
            load_encoder=partial(_encoder_of, layout, config),
            load_localiser=_localiser_of(layout, config),
            found=found,
            full=full,
            on_progress=show,
        )
    console.print(f"[green]{count_text(len(report.repaired), 'difference')} mended.[/]")
    for each, why in report.left[:_SHOWN]:
        console.print(
            f"[yellow]{escape(str(each.subject))}[/]: {each.kind}: {escape(why)}", soft_wrap=True
        )
    if len(report.left) > _SHOWN:
        console.print(f"and {len(report.left) - _SHOWN:,} more: `scanonce verify --json`.")
    if report.interrupted:
        console.print("Stopped. What is mended is kept; the same command goes on from here.")
        return 130
    if report.left:
        console.print(f"{count_text(len(report.left), 'difference')} left.")
        return 1
    console.print("The index is whole.")
    return 0


def _plan(todo: Iterable[Difference]) -> str:
    """What repairing means, in words."""
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
    return f"it {', '.join(parts)}"


def _remedies(found: Verification) -> set[Remedy]:
    return {each.remedy for each in found.differences}


def _counts(differences: Iterable[Difference]) -> Table:
    """How many there are of each kind, grouped by what helps."""
    order = list(_HELP)
    rows = sorted((order.index(each.remedy), each.kind) for each in differences)
    table = Table(box=None, pad_edge=False)
    table.add_column("what differs")
    table.add_column("", justify="right")
    table.add_column("what helps", style="cyan")
    for (remedy, kind), group in groupby(rows):
        table.add_row(kind, f"{len(list(group)):,}", escape(_HELP[order[remedy]]))
    return table


def _localiser_of(layout: IndexLayout, config: Config) -> Callable[[], TrainedLocaliser]:
    def load() -> TrainedLocaliser:
        name = str(read_manifest(layout).localiser)
        return load_localiser(name, device=config.models.device)

    return load


def _publish(layout: IndexLayout, settings: StorageSettings) -> None:
    """Add what the vector index lacks, as after a copy of a library that was being indexed."""
    with Index.open(layout, open_pooling) as index:
        index.publish(settings)


def _encoder_of(layout: IndexLayout, config: Config) -> ClipEncoder:
    return load_encoder(read_manifest(layout).encoder, config.models, towers="vision")


# ---------------------------------------------------------------- backup and restore


def run_backup(
    index_dir: Path, target: Path, *, config: Config, console: Console | None = None
) -> int:
    """Copies an index, which may be searched and written meanwhile.

    Returns:
        0; 1 where something of the index is damaged and could not be copied.

    Raises:
        IndexDirectoryError: there is no index, or nothing can be copied there.
    """
    console = console or Console()
    complete = partial(_publish, settings=config.storage)
    with _copying(console, "backing up") as on_progress:
        report = backup(
            IndexLayout.of(index_dir), target, complete=complete, on_progress=on_progress
        )
    _show_copy(report, f"in the backup {target}", console)
    if report.damaged or report.missing:
        console.print(
            "Some of the index is damaged: scanonce verify names it; the backup keeps what it had of that.",
            soft_wrap=True,
        )
        return 1
    console.print(
        f"Search it with --index {target}; put it back with: scanonce restore {target}",
        soft_wrap=True,
        markup=False,
    )
    return 0


def run_restore(
    source: Path,
    index_dir: Path,
    *,
    replace: bool,
    config: Config,
    console: Console | None = None,
) -> int:
    """Puts a backup in the place of an index, or where there is none.

    Returns:
        0; 1 where the backup lacks something.

    Raises:
        IndexDirectoryError: there is no whole backup, or an index is there and ``replace`` is false.
    """
    console = console or Console()
    complete = partial(_publish, settings=config.storage)
    with _copying(console, "restoring") as on_progress:
        report = restore(
            source, index_dir, replace=replace, complete=complete, on_progress=on_progress
        )
    _show_copy(report, f"restored to {index_dir}", console)
    if report.missing:
        console.print("To scan what is lacking again: scanonce repair")
    console.print(
        "The videos on the disk may have changed since the backup: scanonce index FOLDER brings it up to date."
    )
    return 1 if report.damaged or report.missing else 0


def _show_copy(report: CopyReport, where: str, console: Console) -> None:
    for path in report.damaged:
        console.print(f"[yellow]{escape(str(path))}[/]: damaged, not copied", soft_wrap=True)
    for path in report.missing:
        console.print(
            f"[yellow]{escape(str(path))}[/]: its features are in neither", soft_wrap=True
        )
    copied = f"{count_text(report.files_copied, 'file')} copied ({size_text(report.bytes_copied)})"
    console.print(
        f"{count_text(report.videos, 'video')} {escape(where)}: {copied}, {report.files_kept:,} there already.",
        soft_wrap=True,
    )


# ---------------------------------------------------------------- bars


@contextmanager
def _looking(console: Console) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("looking"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _copying(
    console: Console, what: Literal["backing up", "restoring"]
) -> Iterator[Callable[[CopyProgress], None]]:
    columns = (
        TextColumn(what),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)

        def observe(progress: CopyProgress) -> None:
            bar.update(task, completed=progress.bytes_done, total=progress.bytes_total)

        yield observe
