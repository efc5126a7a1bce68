"""`scanonce watch`: a line for each run of the indexer, for a person at a terminal or the log of a service."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.storage.records import MadeTrack
from scanonce.ui.commands.index import few_of_each
from scanonce.ui.commands.options import (
    ConfigOption,
    EncoderOption,
    IndexOption,
    PathsArgument,
    absolute,
)
from scanonce.ui.commands.progress import index_progress
from scanonce.ui.commands.tracks import TracksOption, track_names, tracks_outcome
from scanonce.ui.console import new_console, verbatim
from scanonce.ui.views import outcome_text

if TYPE_CHECKING:
    from scanonce.indexer.models import LoadedModels
    from scanonce.indexer.pipeline import IndexReport
    from scanonce.indexer.pipeline import Progress as IndexProgress
    from scanonce.indexer.selection import Selection
    from scanonce.indexer.tracks import TracksReport
    from scanonce.indexer.watch import Survey
    from scanonce.indexer.watch_tracks import TracksInBackground
    from scanonce.library import Library
    from scanonce.storage.manifest import Manifest
    from scanonce.ui.config import Config

_BUSY_SECONDS = 1.0  # until a track is stored, if another process writes the index


def watch(
    paths: PathsArgument = None,
    index_dir: IndexOption = None,
    encoder: EncoderOption = None,
    tracks: TracksOption = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            help="Program to run, without a shell, if a saved search matches a new video; JSON on its standard input.",
            show_default="as in config.toml",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Keep the index in line with folders: a file is indexed once it has stopped growing. Ctrl-C ends it."""
    from scanonce.indexer.scan import outermost
    from scanonce.indexer.watch import watch
    from scanonce.ui.config import read_config
    from scanonce.ui.matches import places, reporting_matches

    settings = read_config(config)
    wanted = settings.tracks.make if tracks is None else track_names(tracks)
    library = settings.library(index_dir)
    roots = _roots(paths or [], library, settings)
    watched = _WatchedLibrary(roots, library, encoder, settings, wanted)
    sends = places(settings.watch, command)
    watched.check()
    with (
        contextlib.suppress(KeyboardInterrupt),
        _sigterm_is_ctrl_c(),
        watched.reading_tracks(),
        reporting_matches(library, sends, watched.report) as watched.look,
    ):
        watched.report(
            f"watching {', '.join(map(str, outermost(roots)))} · index: {library.root} · Ctrl-C ends it"
        )
        watch(
            roots,
            watched,
            files=settings.indexer,
            settings=settings.watch,
            ignored=[library.root],
        )
    watched.report("stopped. Finished videos are kept; the same command goes on from here.")


def _roots(paths: Sequence[Path], library: "Library", settings: "Config") -> list[Path]:
    """Return the folders to watch, absolute: those given, and folders of the index inside them, which may be disks.

    Raises:
        ConfigError: a path is no folder of the index, and does not exist or cannot be indexed.
        IndexDirectoryError: no paths were given, and there is no index or it knows no folder.
    """
    from scanonce.indexer.scan import outermost
    from scanonce.indexer.selection import Selection

    known: list[Path] = []
    with contextlib.suppress(IndexDirectoryError) if paths else contextlib.nullcontext():
        known = library.known_roots()
    asked = [absolute(path) for path in paths] or known
    selection = Selection(settings.indexer, [library.root])
    for root in asked:
        if root not in known:
            _check_root(root, selection)
    outer = outermost(asked)
    inner = [
        root
        for root in known
        if not set(outer).isdisjoint(root.parents)
        and root.suffix.lower() not in settings.indexer.endings
    ]
    return sorted([*outer, *inner])


def _check_root(root: Path, selection: "Selection") -> None:
    """Refuse a path that `scanonce index` would not add to the folders of the index."""
    if not root.exists():
        raise ConfigError(f"{root} does not exist: check the path, or plug its disk in")
    if left_out := selection.why_left_out(root, [root]):
        raise ConfigError(f"{left_out.path}: {left_out.reason}; name another folder")
    if not root.is_dir() and not selection.is_video(str(root)):
        raise ConfigError(f"{root} is not a video by its extension: name a folder or a video")
    if not os.access(root, os.R_OK):
        raise ConfigError(f"{root} cannot be read: check its permissions")


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, with which a service manager ends a process, end it as cleanly as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _WatchedLibrary:
    """The index of `indexer.watch.watch` (a `WatchedIndex`): ordinary runs, with models that are loaded once."""

    def __init__(
        self,
        roots: list[Path],
        library: "Library",
        encoder: str | None,
        settings: "Config",
        tracks: Sequence[MadeTrack] = (),
    ) -> None:
        """Set the folders to watch; nothing is loaded yet.

        Args:
            roots: the folders watched.
            library: the index, which need not exist yet.
            encoder: of a new index; None: that of the index, else of the configuration.
            settings: the configuration.
            tracks: the tracks to read of each video after its images are searchable.
        """
        self.roots = roots
        self.library = library
        self.encoder = encoder
        self.settings = settings.indexer
        self.tracks = tracks
        self.again_seconds = 60 * settings.watch.rescan_minutes
        self.console = new_console()
        self.look: Callable[[], object] = lambda: None
        """Called as soon as there may be new videos; returns at once."""
        self.reader: TracksInBackground | None = None
        self.turn = threading.Lock()
        """Held while this process writes the index, by whichever of its threads."""

    @contextmanager
    def reading_tracks(self) -> Iterator[None]:
        """Read the tracks, if there are any, in a thread while the block runs."""
        from scanonce.indexer.watch_tracks import TracksInBackground

        if not self.tracks:
            yield
            return
        self.reader = TracksInBackground(
            lambda on_progress: self.library.make_tracks(
                self.tracks, on_progress=on_progress, committing=self._committing
            ),
            self._show_tracks,
            self.report,
            again_seconds=self.again_seconds,
        )
        with self.reader:
            yield

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Lock the index for one commit of a track, once nobody else writes it."""
        from scanonce.storage.writer import writing

        while self.busy() is not None:
            if self.reader is not None and self.reader.is_stopping:
                raise KeyboardInterrupt
            time.sleep(_BUSY_SECONDS)
        with self.turn, writing(self.library.layout, "scanonce watch"):
            yield

    def check(self) -> None:
        """Raise now any error that would stop every run, such as an encoder that cannot be loaded."""
        from scanonce.storage.manifest import create_or_check

        self.library.check_tracks(self.tracks)
        layout = self.library.layout
        wanted, models = self._wanted()
        if layout.manifest.exists():
            create_or_check(layout, wanted, models.encoder.head_files)

    def busy(self) -> str | None:
        """Return the other process that writes the index now, as a text; None if there is none."""
        from scanonce.storage.writer import owner

        with self.turn:
            other = owner(self.library.layout)
        return f"{other.doing} (process {other.pid} on {other.host})" if other else None

    def survey(self, paths: Sequence[Path]) -> "Survey":
        """Compare the disk with the index; opens no video."""
        from scanonce.indexer.plan import differing
        from scanonce.indexer.scan import scan
        from scanonce.indexer.selection import Selection
        from scanonce.indexer.watch import Survey
        from scanonce.storage.catalog.catalog import Catalog

        layout = self.library.layout
        with contextlib.ExitStack() as stack:
            libraries = set(self.roots)
            catalog = None
            if layout.catalog.exists():
                catalog = stack.enter_context(Catalog.open(layout.catalog))
                libraries |= {library.root for library in catalog.libraries()}
            found = scan(paths, Selection(self.settings, [self.library.root]), libraries=libraries)
            if catalog is None:
                changed = [file.path for file in found.files]
            else:
                changed = differing(catalog, found, attempts=self.settings.decode_attempts)
        return Survey(tuple(changed), found.problems)

    def index(self, paths: Sequence[Path]) -> None:
        """Run the indexer, visible on the library page like any other run, and print a line.

        Raises:
            KeyboardInterrupt: the run was stopped.
        """
        from scanonce.indexer.scan import outermost
        from scanonce.ui.jobs import recorded

        roots = outermost(self.roots)
        with (
            self.turn,
            recorded(
                self.library.root, roots, encoder=self.encoder, doing="scanonce watch"
            ) as recorder,
        ):
            self._add_libraries()
            with index_progress(self.console) as show:
                num_done = 0

                def on_progress(progress: "IndexProgress") -> None:
                    nonlocal num_done
                    if progress.videos_done != num_done:
                        num_done = progress.videos_done
                        self.look()
                    show(progress)
                    recorder.on_progress(progress)

                report = self.library.index(paths, encoder=self.encoder, on_progress=on_progress)
            recorder.finish(report)
        self.look()
        self._show(report)
        if report.interrupted:
            raise KeyboardInterrupt
        if self.reader is not None:
            self.reader.wake()

    def report(self, text: str) -> None:
        """Print a line with the time."""
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        self.console.print(f"{now}  {verbatim(text)}", soft_wrap=True, highlight=False)

    def _wanted(self) -> "tuple[Manifest, LoadedModels]":
        """Return the manifest of an index made with these models and settings, and the models."""
        from scanonce.indexer.models import make_manifest

        models = self.library.models(self.encoder)
        return make_manifest(models.encoder, self.library.settings(), models.localiser), models

    def _add_libraries(self) -> None:
        """Add the folders watched to the index: a run is given single files inside them."""
        from scanonce.storage.catalog.catalog import Catalog
        from scanonce.storage.manifest import create_or_check

        layout = self.library.layout
        wanted, models = self._wanted()
        create_or_check(layout, wanted, models.encoder.head_files)
        with Catalog.open(layout.catalog) as catalog:
            known = {library.root for library in catalog.libraries()}
            for root in self.roots:
                if known.isdisjoint((root, *root.parents)):
                    catalog.add_library(root)

    def _show(self, report: "IndexReport") -> None:
        """Print every problem of a run, and its result if there is any."""
        for problem, num_more in few_of_each(report.problems):
            more = f" (and {num_more:,} more like this)" if num_more else ""
            self.report(f"{problem.path}: {problem.reason}{more}")
        if report.counts.seen or report.counts.forgotten:
            self.report(outcome_text(report.counts))

    def _show_tracks(self, report: "TracksReport") -> None:
        """Print every note of a run that read tracks, and its result if there is any."""
        for note in report.notes:
            self.report(f"{note.path}: {note.reason}")
        if any(report.made.values()) or report.num_embedded:
            self.report(tracks_outcome(report))
