"""Another encoder, or other settings, for an index that is in use: everything is scanned anew beside it.

The new index begins as a copy of the catalogue in which no video is scanned yet, so that a video keeps its number, and
is filled by ordinary runs of the indexer: stop it at any point, the same call goes on. Searches, and runs that write
the old index, go on meanwhile. The switch is one name written to one file (`storage.layout.switch`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scanonce.indexer.models import make_manifest
from scanonce.indexer.pipeline import IndexReport, OnProgress, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.entries import content_of
from scanonce.storage.errors import ManifestMismatch
from scanonce.storage.layout import IndexLayout, remove_contents, switch
from scanonce.storage.manifest import Manifest, create_or_check
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import delete_stored, writing


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What scanning anew came to."""

    runs: tuple[IndexReport, ...]
    """The long run, then a short one for what changed meanwhile."""
    lost: tuple[Video, ...]
    """Videos that the old index finds and the new one does not: their files cannot be seen now, or failed."""
    switched: bool
    """Searches use the new index."""

    @property
    def interrupted(self) -> bool:
        """It was stopped; the same call goes on."""
        return any(run.interrupted for run in self.runs)


def reindex(
    layout: IndexLayout,
    *,
    encoder: ClipEncoder,
    settings: IndexerSettings,
    storage: StorageSettings,
    localiser: TrainedLocaliser | None = None,
    on_progress: OnProgress = lambda _: None,
    force: bool = False,
) -> ReindexReport:
    """Scans the libraries of an index anew with this encoder and these settings, then takes its place.

    Args:
        layout: the index in use.
        encoder: its vision tower is used.
        settings: sampling, clips, decoding.
        storage: the vector index.
        localiser: of the new index; None where it has none.
        on_progress: called with the state of the run.
        force: switch even if videos would no longer be found.

    Raises:
        IndexDirectoryError: the index cannot be read or written, or is being scanned anew already.
    """
    beside = layout.beside
    with writing(beside, "scanonce reindex"):
        _begin(layout, beside, make_manifest(encoder, settings, localiser), encoder.head_files)

        def run() -> IndexReport:
            return index_library(
                _take_over_libraries(layout, beside),
                layout=beside,
                encoder=encoder,
                settings=settings,
                storage=storage,
                localiser=localiser,
                on_progress=on_progress,
            )

        runs = [run()]
        if runs[0].interrupted:
            return ReindexReport(tuple(runs), (), switched=False)
        with writing(layout, "scanonce reindex"):
            runs.append(run())  # what came while the first one went on
            lost = _lost(layout, beside)
            done = not runs[-1].interrupted and (force or not lost)
            if done:
                _take_over_labels(layout, beside)
                switch(beside)
    return ReindexReport(tuple(runs), tuple(lost), switched=done)


def _begin(
    layout: IndexLayout, beside: IndexLayout, wanted: Manifest, head_files: Sequence[Path]
) -> None:
    """The new index as far as it has come, or its beginning."""
    try:
        create_or_check(beside, wanted, head_files)
    except ManifestMismatch:  # begun with yet other settings, and never used
        remove_contents(beside)
        create_or_check(beside, wanted, head_files)
    if beside.catalog.exists():
        return
    unfinished = beside.catalog.with_name(".tmp-catalog")
    with Catalog.open(layout.catalog) as catalog:
        catalog.copy_to(unfinished)
    with Catalog.open(unfinished) as copy:
        copy.mark_unscanned(f"not scanned yet with {wanted.encoder}: run `scanonce index`")
    unfinished.replace(beside.catalog)


def _take_over_libraries(layout: IndexLayout, beside: IndexLayout) -> Sequence[Path]:
    """The roots of the old index; what was forgotten there since is forgotten in the new one too."""
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        roots = [library.root for library in catalog.libraries()]
    with Catalog.open(beside.catalog) as catalog:
        for library in catalog.libraries():
            if library.root not in roots:
                delete_stored(beside, catalog.forget_library(library.root))
    return roots


def _lost(layout: IndexLayout, beside: IndexLayout) -> list[Video]:
    """What is gone from the disk is not lost, what could not be scanned is."""
    with Catalog.open(beside.catalog, read_only=True) as catalog:
        failed = {content_of(video.uid) for video in catalog.videos(states=["failed"])}
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = catalog.videos(states=SEARCHABLE)
    return [video for video in videos if content_of(video.uid) in failed]


def _take_over_labels(layout: IndexLayout, beside: IndexLayout) -> None:
    """Labelling does not wait for runs: labels given meanwhile are in the old index only."""
    with (
        Catalog.open(layout.catalog, read_only=True) as before,
        Catalog.open(beside.catalog) as catalog,
    ):
        catalog.labels.take_over(before.labels)
