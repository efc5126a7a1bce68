"""`scanonce tracks`, `scanonce tracks add` and `scanonce tracks remove`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from scanonce.storage.records import MadeTrack
from scanonce.ui.commands.options import INTERRUPTED, ConfigOption, IndexOption, JsonOption
from scanonce.ui.commands.progress import progress_bar, shortened, speed_text
from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.track_text import coverage_lines
from scanonce.ui.views import count_text, status_json

if TYPE_CHECKING:
    from scanonce.indexer.tracks import TrackProgress, TracksReport
    from scanonce.library import Library

_FEW = 10  # notes that are shown

TracksOption = Annotated[
    str | None,
    typer.Option(
        "--tracks",
        help="Then read these, separated by commas: subtitle, said (speech), written (text in the image).",
        show_default="tracks.make of config.toml",
    ),
]
TracksArgument = Annotated[
    str,
    typer.Argument(
        metavar="TRACKS",
        help="Separated by commas: subtitle (in the file or next to it), said (speech), written (text in the image).",
    ),
]


def show_tracks(
    context: typer.Context,
    index_dir: IndexOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show of how many videos speech, text in the image and subtitles are read."""
    if context.invoked_subcommand is not None:
        return
    from scanonce.ui.config import read_config

    library = read_config(config).library(index_dir)
    status = status_json(library.root, library.status())
    if as_json:
        print_json({name: status[name] for name in ("index", "tracks", "track_notes")})
        return
    console = new_console()
    searchable = status["videos"]["indexed"] + status["videos"]["partial"]
    for text in coverage_lines(status["tracks"], searchable):
        console.print(text, highlight=False, soft_wrap=True)
    for note in status["track_notes"][:_FEW]:
        console.print(f"  {verbatim(note['path'])}: {verbatim(note['reason'])}", soft_wrap=True)


def add_tracks(
    tracks: TracksArgument,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Only videos at or below these.", show_default="all videos"),
    ] = None,
    index_dir: IndexOption = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Read files again that could not be read before.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Read all files again, as with another model.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Read these tracks of all indexed videos that do not have them yet."""
    from scanonce.ui.config import read_config

    names = track_names(tracks)
    library = read_config(config).library(index_dir)
    run_tracks(library, names, paths or [], retry=retry, again=again)


def remove_track(
    tracks: TracksArgument, index_dir: IndexOption = None, config: ConfigOption = None
) -> None:
    """Remove tracks from the index."""
    from scanonce.ui.config import read_config

    library = read_config(config).library(index_dir)
    console = new_console()
    for name in track_names(tracks):
        removed = library.remove_track(name)
        console.print(f"{name}: removed from {count_text(removed, 'video')}", highlight=False)


def track_names(text: str) -> list[MadeTrack]:
    """Return the tracks of a list with commas.

    Raises:
        typer.BadParameter: one of them is unknown.
    """
    known = get_args(MadeTrack)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"tracks are {', '.join(known)}; got {name!r}")
    return [name for name in known if name in names]


def run_tracks(
    library: "Library",
    names: Sequence[MadeTrack],
    paths: Sequence[Path] = (),
    *,
    retry: bool = False,
    again: bool = False,
) -> None:
    """Read tracks with a progress bar, and print the result."""
    console = new_console()
    started = time.monotonic()
    with progress_bar(console, "reading", counts="none") as report:

        def on_progress(run: "TrackProgress") -> None:
            speed = speed_text(run.seconds_done, time.monotonic() - started)
            note = f"{run.track} {run.videos_done}/{run.videos_total}  {speed}"
            report(run.seconds_done, run.seconds_total, note, shortened(run.current))

        made = library.make_tracks(names, paths, retry=retry, again=again, on_progress=on_progress)
    show_tracks_report(made, console)
    if made.interrupted:
        raise typer.Exit(INTERRUPTED)


def show_tracks_report(report: "TracksReport", console: Console) -> None:
    """Print every note of a run and its result."""
    for note in report.notes:
        console.print(f"[yellow]{verbatim(note.path)}[/]: {verbatim(note.reason)}", soft_wrap=True)
    console.print(tracks_outcome(report), highlight=False)
    if report.num_offline:
        console.print(f"{count_text(report.num_offline, 'video')} cannot be seen now.")
    if report.interrupted:
        console.print("Stopped. What was read is kept; the same command goes on from here.")


def tracks_outcome(report: "TracksReport") -> str:
    """Return the result of a run as a line."""
    parts = [f"{name}: {count_text(count, 'video')} read" for name, count in report.made.items()]
    if report.num_embedded:
        parts.append(f"vectors of {count_text(report.num_embedded, 'earlier track')}")
    if report.num_pictures:
        parts.append(f"text of {count_text(report.num_pictures, 'frame')}")
    return f"{', '.join(parts) or 'nothing read'} · {count_text(report.num_lines, 'line')}"
