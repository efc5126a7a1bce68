"""`scanonce index`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.ui.commands.notes import note_inexact_times
from scanonce.ui.commands.options import (
    INTERRUPTED,
    ConfigOption,
    EncoderOption,
    IndexOption,
    KeyframesOption,
    PathsArgument,
    SampleFpsOption,
    typed_settings,
)
from scanonce.ui.commands.progress import index_progress
from scanonce.ui.commands.tracks import TracksOption, run_tracks, track_names
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import count_text, outcome_text

if TYPE_CHECKING:
    from scanonce.indexer.pipeline import IndexReport
    from scanonce.indexer.pipeline import Progress as IndexProgress
    from scanonce.indexer.scan import ScanProblem
    from scanonce.library import Library
    from scanonce.ui.config import Config

_FEW = 3  # files shown of many that are alike


def index(
    paths: PathsArgument = None,
    index_dir: IndexOption = None,
    encoder: EncoderOption = None,
    keyframes: KeyframesOption = False,
    sample_fps: SampleFpsOption = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Decode failed and partly indexed videos again.")
    ] = False,
    tracks: TracksOption = None,
    config: ConfigOption = None,
) -> None:
    """Index videos: new and changed videos are scanned, missing ones leave the index."""
    from scanonce.ui.config import read_config

    settings = read_config(config)
    wanted = settings.tracks.make if tracks is None else track_names(tracks)
    library = settings.library(index_dir)
    typed = typed_settings(keyframes, sample_fps)
    _note_own_settings(library, settings, typed)
    note_inexact_times(library)
    report = run_index(library, paths or [], encoder=encoder, typed=typed, retry=retry)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.nothing_usable:
        raise typer.Exit(1)
    if wanted:
        run_tracks(library, wanted)


def run_index(
    library: "Library",
    paths: Sequence[Path],
    *,
    encoder: str | None = None,
    typed: Mapping[str, str | float] = MappingProxyType({}),
    retry: bool = False,
) -> "IndexReport":
    """Index with a progress bar that the library page shows too, and print the result."""
    from scanonce.ui.jobs import recorded

    console = new_console()
    paths = paths or library.known_roots()
    with (
        recorded(library.root, paths, encoder=encoder, retry=retry) as recorder,
        index_progress(console) as show,
    ):

        def on_progress(progress: "IndexProgress") -> None:
            show(progress)
            recorder.on_progress(progress)

        report = library.index(
            paths,
            encoder=encoder,
            typed=typed,
            retry_failed=retry,
            on_progress=on_progress,
            on_stage=recorder.report,
        )
        recorder.finish(report)
    show_report(report, library.root, console)
    return report


def show_report(report: "IndexReport", index_dir: Path, console: Console) -> None:
    """Print every problem of a run and its result."""
    for problem, num_more in few_of_each(report.problems):
        more = (
            f" (and {num_more:,} more like this; scanonce status names failed ones)"
            if num_more
            else ""
        )
        console.print(
            f"[yellow]{verbatim(problem.path)}[/]: {verbatim(problem.reason)}{more}",
            soft_wrap=True,
        )
    if report.failed_before:
        paths = [problem.path for problem in report.failed_before]
        console.print(
            f"Failed in an earlier run and not tried again: {verbatim(few_paths(paths))}. `scanonce status` says why, "
            "`scanonce index --retry` decodes them again.",
            soft_wrap=True,
        )
    if report.other_contents:
        console.print(
            "No videos by their content, such as source code, and left out: "
            f"{verbatim(few_paths(report.other_contents))}.",
            soft_wrap=True,
        )
    console.print(f"{outcome_text(report.counts)} · index: {verbatim(index_dir)}", soft_wrap=True)
    if report.num_offline:
        console.print(
            f"{count_text(report.num_offline, 'known file')} cannot be seen now (a folder is empty, unreadable or not "
            "mounted) and stay in the index; `scanonce forget FOLDER` removes them for good."
        )
    if report.interrupted:
        console.print("Stopped. Finished videos are kept; the same command goes on from here.")
    elif not report.counts.seen:
        console.print(
            "No videos were found there; `indexer.extensions` in config.toml lists the extensions of videos."
        )


def few_of_each(problems: "Sequence[ScanProblem]") -> "Iterator[tuple[ScanProblem, int]]":
    """Yield the first few problems of each reason; with the last of them the number of those left out."""
    alike: dict[str, list[ScanProblem]] = {}
    for problem in problems:
        alike.setdefault(problem.reason, []).append(problem)
    for each in alike.values():
        shown = each[:_FEW]
        for problem in shown:
            yield problem, len(each) - len(shown) if problem is shown[-1] else 0


def few_paths(paths: Sequence[Path]) -> str:
    """Return the number of files and the first few of them."""
    names = ", ".join(map(str, paths[:_FEW]))
    more = f" and {len(paths) - _FEW:,} more" if len(paths) > _FEW else ""
    return f"{count_text(len(paths), 'file')} ({names}{more})"


def _note_own_settings(
    library: "Library", settings: "Config", typed: Mapping[str, str | float]
) -> None:
    """Print a line if the index keeps other sampling or clips than the configuration file asks for."""
    if library.manifest is None:
        return
    asked = settings.indexer.model_copy(update=typed)
    own = library.settings(typed)
    kept = [
        f"{name} = {getattr(own, name)}"
        for name in sorted(settings.indexer.model_fields_set)
        if getattr(own, name) != getattr(asked, name)
    ]
    if kept:
        new_console().print(
            f"The index at {verbatim(library.root)} keeps its own {verbatim(', '.join(kept))}; "
            "scanonce reindex changes it.",
            highlight=False,
            soft_wrap=True,
        )
