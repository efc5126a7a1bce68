"""`scanonce status`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption, absolute
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.fact_text import fact_rows, video_json
from scanonce.ui.track_text import track_text
from scanonce.ui.views import (
    INEXACT_TIMES,
    calibration_text,
    clock,
    count_text,
    size_text,
    status_json,
)

if TYPE_CHECKING:
    from scanonce.storage.catalog.catalog import Catalog

_MOST_SHOWN = 10  # files of a list on a terminal


VideoArgument = Annotated[
    Path | None, typer.Argument(help="A video of the index: show its facts instead.")
]


def status(
    video: VideoArgument = None,
    index_dir: IndexOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the videos of an index, its models and sizes, and the files that failed."""
    from scanonce.storage.index import Index
    from scanonce.ui.config import read_config

    root = read_config(config).index_path(index_dir)
    with Index.open(root, read_only=True) as index:  # `Library` would import torch, for seconds
        if video is not None:
            _show_video(index.catalog, absolute(video), as_json)
            return
        found = status_json(root, index.status())
    if as_json:
        print_json(found)
    else:
        _show(found, new_console())


def _show_video(catalog: "Catalog", path: Path, as_json: bool) -> None:
    """Show the facts of one video.

    Raises:
        QueryError: the index does not have it.
    """
    found = {record.stamp.path: record.video_id for record in catalog.files_under(path)}
    number = found.get(path)
    videos = [] if number is None else catalog.videos([number])
    if not videos:
        raise QueryError(
            f"the index has no video {path}: name a file as `scanonce search` shows it"
        )
    (video,) = videos
    chapters = catalog.chapters(video.video_id)
    console = new_console()
    if as_json:
        labels = catalog.labels.of([video.video_id]).get(video.video_id, ())
        print_json({**video_json(video, labels), "chapters": [asdict(each) for each in chapters]})
        return
    rows = {"video": str(path), "length": clock(video.duration_seconds)}
    if video.info is not None:
        info = video.info
        rows["picture"] = (
            f"{info.width}x{info.height}, {info.fps:.4g} frames a second, {info.codec}"
        )
    _table({**rows, **fact_rows(video)}, console)
    for chapter in chapters:
        console.print(f"  {clock(chapter.start_seconds)} {verbatim(chapter.title)}", soft_wrap=True)


def _table(rows: Mapping[str, str], console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, verbatim(value))
    console.print(table)


def _show(status: dict[str, Any], console: Console) -> None:
    videos, vectors = status["videos"], status["vector_index"]
    searchable = videos["indexed"] + videos["partial"]
    sizes = f"{size_text(status['feature_bytes'])} of features"
    if status["anchor_bytes"]:
        sizes += f", {size_text(status['anchor_bytes'])} of anchors"
    if status["thumbnail_bytes"]:
        an_hour = status["thumbnail_bytes"] / max(status["searchable_seconds"], 1.0) * 3600
        sizes += (
            f", {size_text(status['thumbnail_bytes'])} of thumbnails ({size_text(an_hour)} an hour)"
        )
    rows = {
        "index": status["index"],
        "videos": f"{count_text(searchable, 'video')}, {clock(status['searchable_seconds'])}",
        "folders": ", ".join(status["libraries"]),
        "encoder": f"{status['encoder']} ({status['fingerprint'][:12]}, {status['dim']} dimensions)",
        "sampling": f"{status['sampling']}, {status['sample_fps']:g} frames a second",
        "search": f"{vectors['kind']}, {count_text(vectors['clips'], 'clip')}, generation {vectors['generation']}",
        "localiser": status["localiser"],
        "calibration": calibration_text(status["calibration"]),
        "on disk": sizes,
    }
    if status["tracks"]:
        rows["tracks"] = "; ".join(track_text(each, searchable) for each in status["tracks"])
    if not status["exact_times"]:
        rows["times"] = INEXACT_TIMES
    if writer := status["writer"]:
        rows["written by"] = f"process {writer['pid']}: {writer['doing']}"
    _table(rows, console)
    for title, entries in (
        ("in part", status["partial"]),
        ("failed", status["failures"]),
        ("tracks with a note", status["track_notes"]),
    ):
        if entries:
            console.print(f"\n[bold]{title}[/]: {count_text(len(entries), 'file')}")
        for entry in entries[:_MOST_SHOWN]:
            console.print(
                f"  {verbatim(entry['path'])}: {verbatim(entry['reason'])}", soft_wrap=True
            )
            if entry.get("detail"):
                console.print(f"    [dim]{verbatim(entry['detail'])}[/]", soft_wrap=True)
        if len(entries) > _MOST_SHOWN:
            console.print(f"  and {len(entries) - _MOST_SHOWN:,} more; --json names them all.")
