"""What the `label` command does: give videos names of one's own, to filter searches by."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
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
        added, removed = change_labels(paths, index_dir, add=add, remove=remove)
        if not as_json:
            console.print(f"{count_text(added, 'label')} added, {removed:,} taken away.")
            return
    layout = _layout(index_dir)
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        if not paths:
            _show_counts(catalog.labels.counts(), console, as_json=as_json)
            return
        videos = catalog.videos(_videos_at(catalog, paths, index_dir))
        labels = catalog.labels.of(video.video_id for video in videos)
    _show_videos(videos, labels, console, as_json=as_json)


def change_labels(
    paths: Sequence[Path], index_dir: Path, *, add: Sequence[str], remove: Sequence[str]
) -> tuple[int, int]:
    """Changes the labels of the videos at or below some paths; how many were added and taken away.

    It does not wait for a run that writes the index for hours: one short transaction, which SQLite puts between those
    of the run. Whichever comes first, a video that is scanned again hands its labels on, and one that is forgotten is
    passed over.

    Raises:
        IndexDirectoryError: there is no index, or nothing searchable at one of the paths.
        QueryError: a label is empty, too long, or has control characters.
    """
    while True:
        layout = _layout(index_dir)
        with Catalog.open(layout.catalog) as catalog:
            ids = _videos_at(catalog, paths, index_dir)
            changed = catalog.labels.add(ids, add), catalog.labels.remove(ids, remove)
        if layout == IndexLayout.of(index_dir):
            return changed
        # another index took its place meanwhile: there too


def _layout(index_dir: Path) -> IndexLayout:
    layout = IndexLayout.of(index_dir)
    read_manifest(layout)  # says how to make an index where there is none
    return layout


def _videos_at(catalog: Catalog, paths: Sequence[Path], index_dir: Path) -> list[int]:
    """Ids, rising, of all videos at or below the paths; each path has one at least."""
    found: set[int] = set()
    for path in paths:
        here = catalog.matching_videos(under=[path]).tolist()
        if not here:
            raise IndexDirectoryError(
                f"nothing searchable at {path} is in the index {index_dir}; "
                "`scanonce status` lists its folders."
            )
        found.update(here)
    return sorted(found)


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
