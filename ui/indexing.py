"""Indexing for a person at a terminal: a progress bar with rate and time left, then a summary."""

from collections.abc import Sequence
from pathlib import Path

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

from indexer.anchors import AnchorReport, derive_anchors, publish_anchors
from indexer.pipeline import IndexReport, index_library, publish_clips
from indexer.pipeline import Progress as IndexProgress
from models.encoder import load_encoder
from models.localiser import NO_LOCALISER, choose_localiser, load_localiser
from storage.anchors import AnchorStore
from storage.catalog import Catalog
from storage.errors import IndexDirectoryError
from storage.features import FeatureStore
from storage.layout import IndexLayout, read_manifest
from storage.settings import StorageSettings
from storage.thumbnails import ThumbnailStore
from ui.config import Config
from ui.jobs import Recorder, recorded
from ui.views import clock, count_text


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
    retry_failed: bool = False,
    console: Console | None = None,
) -> IndexReport:
    """Indexes with a progress bar and prints what was done.

    An index that exists names its own encoder; ``encoder`` and the configuration decide for a new one, and an
    ``encoder`` that differs from an existing index's is an error.
    """
    console = console or Console()
    with recorded(index_dir, paths, encoder=encoder, retry=retry_failed) as recorder:
        report = _index(paths, index_dir, encoder, config, retry_failed, console, recorder)
        recorder.finish(report)
    _summarise(report, index_dir, console)
    return report


def _index(
    paths: Sequence[Path],
    index_dir: Path,
    encoder: str | None,
    config: Config,
    retry_failed: bool,
    console: Console,
    recorder: Recorder,
) -> IndexReport:
    layout = IndexLayout(index_dir)
    known = read_manifest(layout) if layout.manifest.exists() else None
    name = encoder or (known.encoder if known else config.models.encoder)
    recorder.say(f"loading the encoder {name}")
    with console.status(f"loading encoder {escape(name)}"):
        loaded = load_encoder(name, config.models, towers="vision")
        # of another encoder than the index's nothing needs to fit: indexing will say so
        fits = known is None or known.fingerprint == loaded.fingerprint
        named = (known.localiser or NO_LOCALISER) if known else config.models.localiser
        localiser = choose_localiser(
            named if fits else NO_LOCALISER,
            fingerprint=loaded.fingerprint,
            dim=loaded.dim,
            sampling=config.indexer.sampling,
            fps=config.indexer.sample_fps,
            device=config.models.device,
        )
    recorder.say("looking for new videos")
    with _progress_bar(console) as bar:
        task = bar.add_task("looking", total=None, video_seconds=0.0, videos="")

        def observe(progress: IndexProgress) -> None:
            bar.update(
                task,
                description=escape(_shortened(progress.current)),
                completed=progress.bytes_done,
                total=progress.bytes_total,
                video_seconds=progress.video_seconds,
                videos=f"{progress.videos_done}/{progress.videos_total}",
            )
            recorder.observe(progress)

        return index_library(
            paths,
            layout=layout,
            encoder=loaded,
            settings=config.indexer,
            storage=config.storage,
            localiser=localiser,
            observe=observe,
            retry_failed=retry_failed,
        )


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


def _summarise(report: IndexReport, index_dir: Path, console: Console) -> None:
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
        parts.append(f"{counts.forgotten} gone and forgotten")
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


def run_forget(
    path: Path, index_dir: Path, storage: StorageSettings, console: Console | None = None
) -> None:
    """Forgets a folder or file, its features, thumbnails and clips.

    Raises:
        IndexDirectoryError: nothing at that path is known.
    """
    layout = IndexLayout(index_dir)
    manifest = read_manifest(layout)
    root = path.expanduser().absolute()
    features, thumbnails = FeatureStore(layout.features), ThumbnailStore(layout.thumbnails)
    anchors = AnchorStore(layout.anchors / manifest.anchors) if manifest.anchors else None
    with Catalog.open(layout.catalog) as catalog:
        known = catalog.files_under(root)
        if not known:
            raise IndexDirectoryError(
                f"nothing at {root} is in the index {index_dir}; `scanonce status` lists its folders."
            )
        for video in catalog.forget_library(root):
            features.delete(video.uid)
            thumbnails.delete(video.uid)
            if anchors is not None:
                anchors.delete(video.uid)
        publish_clips(catalog, features, layout, manifest.grid, manifest.dim, storage)
        if anchors is not None and anchors.vectors.exists():
            localiser = load_localiser(str(manifest.localiser))
            publish_anchors(catalog, anchors, localiser, storage)
    (console or Console()).print(f"Forgot {count_text(len(known), 'file')}.")


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
    layout = IndexLayout(index_dir)
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

        def observe(done: int, total: int, seconds: float) -> None:
            bar.update(task, completed=done, total=total, video_seconds=seconds)

        report = derive_anchors(
            layout, chosen, storage=config.storage, rebuild=rebuild, observe=observe
        )
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
