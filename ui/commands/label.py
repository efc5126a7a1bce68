"""What the `label` command does: give videos names of one's own, to filter searches by."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanonce.storage.index import Index, change_labels
from scanonce.storage.records import Video
from scanonce.ui.views import count_text


def run_label(
    paths: Sequence[Path],
    index_dir: Path,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    as_json: bool = False,
    console: Console | None = None,
) -> None:
    """Changes the labels of the videos at or below some paths, or shows them; without a path, all labels there are.

    Args:
        paths: absolute.
        index_dir: the index.
        add: labels they get.
        remove: labels they lose; after ``add``.
        as_json: print the documented schema (docs/cli.md).
        console: where to write.

    Raises:
        IndexDirectoryError: there is no index, or nothing searchable at one of the paths.
        QueryError: a label is empty, too long, or has control characters.
    """
    console = console or Console()
    if add or remove:
        added, removed = change_labels(index_dir, paths, add=add, remove=remove)
        if not as_json:
            console.print(f"{count_text(added, 'label')} added, {removed:,} taken away.")
            return
    with Index.open(index_dir, read_only=True) as index:
        if not paths:
            _show_counts(index.catalog.labels.counts(), console, as_json=as_json)
            return
        videos = index.catalog.videos(index.searchable_at(paths))
        labels = index.catalog.labels.of(video.video_id for video in videos)
    _show_videos(videos, labels, console, as_json=as_json)


def _show_counts(labels: Mapping[str, int], console: Console, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"labels": dict(labels)}, ensure_ascii=False))
    elif not labels:
        console.print("No video has a label yet: scanonce label PATH --add NAME")
    else:
        console.print(_table([(label, f"{count:,}") for label, count in labels.items()], "videos"))


def _show_videos(
    videos: Sequence[Video],
    labels: Mapping[int, Sequence[str]],
    console: Console,
    *,
    as_json: bool,
) -> None:
    if as_json:
        for video in videos:
            names = list(labels.get(video.video_id, ()))
            line = {"video_id": video.video_id, "path": str(video.path), "labels": names}
            print(json.dumps(line, ensure_ascii=False))
        return
    rows = [(", ".join(labels.get(video.video_id, ())), str(video.path)) for video in videos]
    console.print(_table(rows, "video"))


def _table(rows: Sequence[tuple[str, str]], second: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("label", overflow="fold")
    table.add_column(second, overflow="fold")
    for label, other in rows:
        table.add_row(escape(label), escape(other))
    return table
