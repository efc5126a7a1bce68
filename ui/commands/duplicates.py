"""`scanonce duplicates`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from scanonce.ui.commands.filter_options import (
    AfterOption,
    BeforeOption,
    CameraOption,
    FoldersOption,
    LabelsOption,
    LongerOption,
    NearOption,
    ShorterOption,
    WithoutLabelsOption,
    new_filter,
)
from scanonce.ui.commands.options import ConfigOption, IndexOption, JsonOption
from scanonce.ui.commands.progress import progress_bar
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import count_text, percent_text, span_text

if TYPE_CHECKING:
    from scanonce.search.duplicates import Duplicate
    from scanonce.storage.records import Span, Video

LABELLED = 0.8
"""Least share of a video that the other one has before it is labelled: a common title sequence is no copy."""


def duplicates(
    index_dir: IndexOption = None,
    folders: FoldersOption = None,
    labels: LabelsOption = None,
    without_labels: WithoutLabelsOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    longer: LongerOption = None,
    shorter: ShorterOption = None,
    camera: CameraOption = None,
    near: NearOption = None,
    apply_label: Annotated[
        str | None,
        typer.Option(
            help="Label the shorter or smaller video of each pair, if the other one has most of it."
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find videos that are copies or excerpts of each other: re-encoded, scaled, trimmed, letterboxed."""
    from scanonce.storage.catalog.label_names import normal_label
    from scanonce.ui.config import read_config

    only = new_filter(folders, labels, without_labels, after, before, longer, shorter, camera, near)
    label = None if apply_label is None else normal_label(apply_label)
    library = read_config(config).library(index_dir)
    console = new_console()
    lesser: dict[int, Path] = {}
    number = 0
    with progress_bar(console, "comparing") as report:
        found = library.duplicates(
            within=only, on_progress=lambda done, total: report(done, total, "videos")
        )
        for duplicate in found:
            number += 1
            if duplicate.covered >= LABELLED:
                lesser[duplicate.lesser.video_id] = duplicate.lesser.path
            if as_json:
                print_json(duplicate_json(duplicate))
            else:
                _show(duplicate, console)
    if label is not None:
        added, _ = library.label(lesser.values(), add=[label]) if lesser else (0, 0)
    if as_json:
        return
    console.print(f"{count_text(number, 'pair')} of near-duplicates.", highlight=False)
    if label is not None:
        console.print(f"{count_text(added, 'video')} labelled {verbatim(label)}.", highlight=False)


def duplicate_json(duplicate: "Duplicate") -> dict[str, Any]:
    """Return a pair in the documented schema (docs/cli.md)."""
    return {
        "first": _video_json(duplicate.first),
        "second": _video_json(duplicate.second),
        "likeness": round(duplicate.likeness, 4),
        "shorter_or_smaller": duplicate.lesser.video_id,
        "covered": round(duplicate.covered, 4),
        "matches": [
            {
                "first": _span_json(match.first),
                "second": _span_json(match.second),
                "likeness": round(match.likeness, 4),
            }
            for match in duplicate.matches
        ],
    }


def _video_json(video: "Video") -> dict[str, Any]:
    return {"video_id": video.video_id, "path": str(video.path)}


def _span_json(span: "Span") -> list[float]:
    return [round(span.start_seconds, 3), round(span.end_seconds, 3)]


def _show(duplicate: "Duplicate", console: Console) -> None:
    """Print a pair for people."""
    for match in duplicate.matches:
        console.print(
            f"{span_text(match.first)}  {verbatim(duplicate.first.path)}\n"
            f"{span_text(match.second)}  {verbatim(duplicate.second.path)}  "
            f"[dim]alike {percent_text(match.likeness)}[/]",
            highlight=False,
            soft_wrap=True,
        )
    console.print()
