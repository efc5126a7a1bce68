"""Watching for a person at a terminal, or for a service: a line for each run, and for whatever it waits for."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from scanonce.indexer.models import LoadedModels, make_manifest
from scanonce.indexer.pipeline import IndexReport
from scanonce.indexer.pipeline import Progress as IndexProgress
from scanonce.indexer.plan import differing
from scanonce.indexer.scan import outermost, scan
from scanonce.indexer.watch import Survey, watch
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, create_or_check
from scanonce.storage.writer import owner
from scanonce.ui.commands.index import index_progress
from scanonce.ui.config import Config
from scanonce.ui.jobs import recorded
from scanonce.ui.views import clock, count_text


def run_watch(
    paths: Sequence[Path],
    index_dir: Path,
    *,
    encoder: str | None,
    config: Config,
    console: Console | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Keeps an index in line with folders until Ctrl-C, SIGTERM or the pause button of the library page.

    Args:
        paths: folders, or single files; none: all folders the index knows.
        index_dir: the index directory; made where it does not exist.
        encoder: of a new index; None: that of the index, else of the configuration.
        config: everything else.
        console: where to write.
        stop: ends it when set.

    Raises:
        ConfigError: a path does not exist and is no folder of the index.
        IndexDirectoryError: no paths, and there is no index or it knows no folder.
        ManifestMismatch: the index was made with other settings.
        EncoderError: the encoder cannot be loaded.
        LocaliserError: the localiser cannot be loaded, or does not fit.
    """
    console = console or Console()
    roots = _roots(paths, index_dir, config)
    indexing = _Indexing(roots, index_dir, encoder, config, console)
    indexing.check()
    with contextlib.suppress(KeyboardInterrupt), _sigterm_is_ctrl_c():
        indexing.report(
            f"watching {', '.join(map(str, outermost(roots)))} · index: {index_dir} · Ctrl-C ends it"
        )
        watch(
            roots,
            indexing,
            files=config.indexer,
            settings=config.watch,
            ignored=[index_dir],
            stop=stop,
        )
    indexing.report("stopped. What is indexed is kept; the same command goes on from here.")


def _roots(paths: Sequence[Path], index_dir: Path, config: Config) -> list[Path]:
    """What to watch, absolute: what was asked for, and folders of the index below it, whose disks come and go."""
    known: list[Path] = []
    with contextlib.suppress(IndexDirectoryError) if paths else contextlib.nullcontext():
        known = config.library(index_dir).known_roots()
    asked = [Path(os.path.abspath(path.expanduser())) for path in paths] or known
    for root in asked:
        if root not in known and not root.exists():
            raise ConfigError(f"{root} does not exist: check the path, or plug its disk in")
    outer = outermost(asked)
    inner = [
        root
        for root in known
        if not set(outer).isdisjoint(root.parents)
        and root.suffix.lower() not in config.indexer.endings
    ]
    return sorted([*outer, *inner])


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """A service manager's way to end a process ends it as cleanly as a person's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Indexing:
    """The work of `indexer.watch.watch`: ordinary runs of the indexer, with models that are loaded once."""

    def __init__(
        self,
        roots: list[Path],
        index_dir: Path,
        encoder: str | None,
        config: Config,
        console: Console,
    ) -> None:
        self.roots = roots
        self.index_dir = index_dir
        self.encoder = encoder
        self.config = config
        self.console = console
        self.library = config.library(index_dir)

    def check(self) -> None:
        """What would stop every run is an error at once."""
        layout = self.library.layout
        wanted, models = self.wanted()
        if layout.manifest.exists():
            create_or_check(layout, wanted, models.encoder.head_files)

    def busy(self) -> str | None:
        """Who else writes the index now."""
        other = owner(IndexLayout.of(self.index_dir))
        return f"{other.doing} (process {other.pid} on {other.host})" if other else None

    def survey(self, paths: Sequence[Path]) -> Survey:
        """Compares the disk with the index; opens no video."""
        settings = self.config.indexer
        layout = IndexLayout.of(self.index_dir)
        with contextlib.ExitStack() as stack:
            libraries = set(self.roots)
            catalog = None
            if layout.catalog.exists():
                catalog = stack.enter_context(Catalog.open(layout.catalog))
                libraries |= {library.root for library in catalog.libraries()}
            found = scan(
                paths,
                extensions=settings.endings,
                follow_symlinks=settings.follow_symlinks,
                libraries=libraries,
            )
            if catalog is None:
                changed = [file.path for file in found.files]
            else:
                changed = differing(catalog, found, attempts=settings.decode_attempts)
        return Survey(tuple(changed), found.problems)

    def index(self, paths: Sequence[Path]) -> None:
        """One run, which the library page shows like any other; told in a line."""
        roots = outermost(self.roots)
        with recorded(
            self.index_dir, roots, encoder=self.encoder, doing="scanonce watch"
        ) as recorder:
            self.add_libraries()
            with index_progress(self.console) as show:

                def on_progress(progress: IndexProgress) -> None:
                    show(progress)
                    recorder.on_progress(progress)

                report = self.library.index(paths, encoder=self.encoder, on_progress=on_progress)
            recorder.finish(report)
        self.show(report)
        if report.interrupted:
            raise KeyboardInterrupt

    def report(self, text: str) -> None:
        """A line with the time."""
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        self.console.print(f"{now}  {escape(text)}", soft_wrap=True, highlight=False)

    def wanted(self) -> tuple[Manifest, LoadedModels]:
        """The manifest of an index made with these models and settings, and the models."""
        models = self.library.models(self.encoder)
        settings = self.library.settings()
        return make_manifest(models.encoder, settings, models.localiser), models

    def add_libraries(self) -> None:
        """Makes the folders watched known to the index: a run is given single files below them."""
        layout = self.library.layout
        wanted, models = self.wanted()
        create_or_check(layout, wanted, models.encoder.head_files)
        with Catalog.open(layout.catalog) as catalog:
            known = {library.root for library in catalog.libraries()}
            for root in self.roots:
                if known.isdisjoint((root, *root.parents)):
                    catalog.add_library(root)

    def show(self, report: IndexReport) -> None:
        """What a run did, if anything, and every problem."""
        counts = report.counts
        for problem in report.problems:
            self.report(f"{problem.path}: {problem.reason}")
        told = {
            f"indexed ({clock(counts.video_seconds)})": counts.indexed + counts.partial,
            "there already": counts.skipped,
            "no longer there": counts.forgotten,
            "failed": counts.failed,
        }
        parts = [f"{count_text(number, 'file')} {what}" for what, number in told.items() if number]
        if parts:
            self.report(", ".join(parts))
