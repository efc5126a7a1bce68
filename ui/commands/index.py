"""Indexing for a person at a terminal: a progress bar with rate and time left, then a summary."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from scanonce.indexer.anchors import AnchorReport, derive_anchors
from scanonce.indexer.models import load_models
from scanonce.indexer.pipeline import IndexReport
from scanonce.indexer.pipeline import Progress as IndexProgress
from scanonce.indexer.reindex import ReindexReport, reindex
from scanonce.library import NOTHING_TYPED, Library
from scanonce.models.soonet.trained import choose_localiser
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.ui.config import Config
from scanonce.ui.jobs import recorded
from scanonce.ui.views import clock, count_text


class _RateColumn(ProgressColumn):
    """Seconds of video done per second."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        seconds = float(task.fields["video_seconds"])
        return Text(f"{seconds / elapsed:.0f}x real time" if elapsed > 1 else "", style="cyan")


def run_index(
    paths: Sequence[Path],
    index_dir: Path,
    *,
    encoder: str | None,
    config: Config,
    typed: Mapping[str, Any] = NOTHING_TYPED,
    retry_failed: bool = False,
    console: Console | None = None,
) -> IndexReport:
    """Indexes with a progress bar and prints what was done.

    An index that exists names its own encoder; ``encoder`` and the configuration decide for a new one, and an
    ``encoder`` that differs from an existing index's is an error. No paths are all folders the index knows.
    """
    console = console or Console()
    library = config.library(index_dir)
    paths = paths or library.known_roots()
    with (
        recorded(index_dir, paths, encoder=encoder, retry=retry_failed) as recorder,
        index_progress(console) as show,
    ):

        def on_progress(progress: IndexProgress) -> None:
            show(progress)
            recorder.observe(progress)

        report = library.index(
            paths,
            encoder=encoder,
            typed=typed,
            retry_failed=retry_failed,
            on_progress=on_progress,
            on_stage=recorder.say,
        )
        recorder.finish(report)
    summarise(report, index_dir, console)
    return report


@contextmanager
def index_progress(console: Console) -> Iterator[Callable[[IndexProgress], None]]:
    """A bar with rate and time left, on a terminal; yields what moves it."""
    with _progress_bar(console) as bar:
        task = bar.add_task("preparing", total=None, video_seconds=0.0, videos="")

        def show(progress: IndexProgress) -> None:
            bar.update(
                task,
                description=escape(_shortened(progress.current)),
                completed=progress.bytes_done,
                total=progress.bytes_total,
                video_seconds=progress.video_seconds,
                videos=f"{progress.videos_done}/{progress.videos_total}",
            )

        yield show


def _progress_bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[videos]}"),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _shortened(path: Path | None, width: int = 30) -> str:
    name = path.name if path else ""
    return name if len(name) <= width else f"{name[: width - 10]}…{name[-9:]}"


def summarise(report: IndexReport, index_dir: Path, console: Console) -> None:
    """Prints what a run did, and every problem."""
    counts = report.counts
    for problem in report.problems:
        console.print(
            f"[yellow]{escape(str(problem.path))}[/]: {escape(problem.reason)}", soft_wrap=True
        )
    parts = [
        f"{count_text(counts.indexed + counts.partial, 'video')} indexed ({clock(counts.video_seconds)})"
    ]
    if counts.partial:
        parts.append(f"{counts.partial} of them in part")
    if counts.skipped:
        parts.append(f"{counts.skipped} there already")
    if counts.forgotten:
        parts.append(f"{counts.forgotten} no longer there")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    console.print(", ".join(parts) + f" · index: {index_dir}", soft_wrap=True)
    if report.num_offline:
        console.print(
            f"{count_text(report.num_offline, 'known file')} cannot be seen now (a folder is empty, unreadable or not "
            "mounted) and stay in the index; `scanonce forget FOLDER` removes them for good."
        )
    if report.interrupted:
        console.print("Stopped. What is indexed is kept; the same command goes on from here.")
    elif not counts.seen:
        console.print(
            "No videos were found there; `indexer.extensions` in config.toml lists what counts as one."
        )


def run_reindex(
    index_dir: Path,
    *,
    encoder: str | None,
    anyway: bool,
    config: Config,
    console: Console | None = None,
) -> ReindexReport:
    """Scans everything anew beside the index, with a progress bar, and says whether searches use it now.

    Args:
        index_dir: the index in use.
        encoder: of the new index; None: the one it has (other settings have changed).
        anyway: switch also where videos would no longer be found.
        config: sampling, clips, localiser and vector index of the new index.
        console: where to write.
    """
    console = console or Console()
    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    with console.status("loading the encoder"):
        loaded = load_models(
            manifest, config.models, config.indexer, encoder=encoder, from_scratch=True
        )
    with index_progress(console) as show:
        report = reindex(
            layout,
            encoder=loaded.encoder,
            settings=config.indexer,
            storage=config.storage,
            localiser=loaded.localiser,
            on_progress=show,
            force=anyway,
        )
    summarise(report.runs[0], index_dir, console)
    if report.switched:
        console.print(
            f"Searches use {escape(loaded.encoder.name)} from now on; the old index is removed."
        )
    elif report.lost:
        for video in report.lost:
            console.print(f"[yellow]{escape(str(video.path))}[/]: {_LOST}", soft_wrap=True)
        console.print(
            f"Searches go on with the old index: {count_text(len(report.lost), 'video')} would be lost. Bring back "
            "what is missing and run the same command again, which scans only that; or switch all the same: --anyway.",
            soft_wrap=True,
        )
    return report


_LOST = "could not be scanned anew: its file is not there now, or failed"


def run_forget(
    path: Path, index_dir: Path, storage: StorageSettings, console: Console | None = None
) -> None:
    """Forgets a folder or file, its features, thumbnails and clips.

    Raises:
        IndexDirectoryError: nothing at that path is known.
    """
    count = Library(index_dir, storage=storage).forget([path])
    (console or Console()).print(f"Forgot {count_text(count, 'file')}.")


def run_localise(
    index_dir: Path,
    *,
    localiser: str | None,
    rebuild: bool,
    config: Config,
    console: Console | None = None,
) -> AnchorReport:
    """Gives an index another localiser, or what is missing of its own, from the stored features.

    Args:
        index_dir: the index.
        localiser: as ``models.localiser`` in config.toml; None: the one the index has, or where it has none the
            one of the configuration.
        rebuild: derive everything anew.
        config: device and vector index.
        console: where to write.

    Raises:
        LocaliserError: the localiser is no usable checkpoint, or does not fit the index.
    """
    console = console or Console()
    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    name = localiser or manifest.localiser or config.models.localiser
    chosen = choose_localiser(
        name,
        fingerprint=manifest.fingerprint,
        dim=manifest.dim,
        sampling=manifest.sampling,
        fps=manifest.sample_fps,
        device=config.models.device,
    )
    columns = (
        TextColumn("deriving anchors"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None, video_seconds=0.0)

        def on_video(done: int, total: int, seconds: float) -> None:
            bar.update(task, completed=done, total=total, video_seconds=seconds)

        report = derive_anchors(layout, chosen, rebuild=rebuild, on_video=on_video)
    by = f"{escape(chosen.name)} ({chosen.folder})" if chosen else "the training-free localiser"
    if report.interrupted:
        console.print(
            "Stopped. Searches go on as before; the same command goes on from here.", soft_wrap=True
        )
    else:
        console.print(
            f"Moments of {count_text(report.videos, 'video')} are found by {by}; "
            f"anchors of {report.derived} were derived, nothing was decoded.",
            soft_wrap=True,
        )
    return report
