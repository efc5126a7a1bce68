"""`scanonce label`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption, absolute
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import count_text


def label(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Videos, or folders of them.", show_default="shows all labels"),
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="Add this label to them.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Remove this label from them.")] = None,
    index_dir: IndexOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Label videos, to filter searches; without --add and --remove, show their labels."""
    if (add or remove) and not paths:
        raise typer.BadParameter("name the videos, or folders of them, for --add or --remove")
    from scanonce.storage.index import Index
    from scanonce.ui.config import read_config

    library = read_config(config).library(index_dir)
    roots = [absolute(path) for path in paths or ()]
    if add or remove:
        _refuse_unknown(library.root, remove or ())
        added, removed = library.label(roots, add=add or (), remove=remove or ())
        if not as_json:
            new_console().print(f"{count_text(added, 'label')} added, {removed:,} removed.")
            return
    with Index.open(library.root, read_only=True) as index:
        if not roots:
            _show_counts(index.catalog.labels.counts(), as_json=as_json)
            return
        videos = index.catalog.videos(index.searchable_at(roots))
        labels = index.catalog.labels.of(video.video_id for video in videos)
    if not as_json:
        rows = ((", ".join(labels.get(each.video_id, ())), str(each.path)) for each in videos)
        new_console().print(_table(rows, "video"))
        return
    for video in videos:
        names = list(labels.get(video.video_id, ()))
        line = {"video_id": video.video_id, "path": str(video.path), "labels": names}
        print_json(line)


def _refuse_unknown(root: Path, labels: Iterable[str]) -> None:
    """Raise QueryError if no video has one of the labels that are to be removed."""
    from scanonce.storage.catalog.known import nearest
    from scanonce.storage.catalog.label_names import folded
    from scanonce.storage.errors import QueryError
    from scanonce.storage.index import Index

    if not (wanted := {folded(label): label for label in labels}):
        return
    with Index.open(root, read_only=True) as index:
        used = {folded(label): label for label in index.catalog.labels.counts()}
    for key, label in wanted.items():
        if key not in used:
            near = nearest(key, used)
            hint = f"the nearest is {used[near]!r}" if near else "no video has a label yet"
            raise QueryError(f"no video has the label {label!r}: {hint}")


def _show_counts(labels: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"labels": labels})
    elif not labels:
        new_console().print("No video has a label yet: scanonce label PATH --add NAME")
    else:
        rows = ((name, f"{count:,}") for name, count in labels.items())
        new_console().print(_table(rows, "videos"))


def _table(rows: Iterable[tuple[str, str]], second: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("label", overflow="fold")
    table.add_column(second, overflow="fold")
    for label, other in rows:
        table.add_row(verbatim(label), verbatim(other))
    return table
