"""Reindexing: another encoder or other settings for an index that is in use.

The new index is made in staging. It begins as a copy of the catalogue in which no video is scanned, so that videos keep
their ids, and is filled by ordinary runs of the indexer. It may be stopped at any point: the same call continues.
Meanwhile searches and other writers use the old index. The switch writes one name to one file
(`storage.layout.switch`).
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
from scanonce.storage.files import write_whole
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout, remove_contents, switch
from scanonce.storage.manifest import Manifest, create_or_check, read_manifest
from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import delete_stored, writing


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """The result of reindexing."""

    runs: tuple[IndexReport, ...]
    """The long run, then a short one for the files that changed during it."""
    lost: tuple[Video, ...]
    """Videos that the old index finds and the new one does not, because their files are offline or failed."""
    switched: bool
    """Whether searches use the new index."""

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped; the same call continues."""
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
    """Scan the libraries of an index from scratch with this encoder and these settings, then replace the index.

    Args:
        layout: the index in use.
        encoder: the vision tower.
        settings: sampling, clips and decoding.
        storage: settings of the vector index.
        localiser: the localiser of the new index; None for none.
        on_progress: called with the state of the run.
        force: switch even if some videos would no longer be found.

    Raises:
        IndexDirectoryError: the index cannot be read or written, or another process reindexes it.
    """
    staging = layout.staging
    with Index.open(layout, read_only=True) as index:
        index.refuse_forged_names()
    with writing(staging, "scanonce reindex"):
        _begin(layout, staging, make_manifest(encoder, settings, localiser), encoder.head_files)

        def run() -> IndexReport:
            return index_library(
                _take_over_libraries(layout, staging),
                layout=staging,
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
            runs.append(run())  # for the files that changed during the first run
            lost = _find_lost(layout, staging)
            done = not runs[-1].interrupted and (force or not lost)
            if done:
                _take_over_texts(layout, staging)
                _take_over_calibration(layout, staging)
                _take_over_selects(layout, staging)
                switch(staging)
    return ReindexReport(tuple(runs), tuple(lost), switched=done)


def _begin(
    layout: IndexLayout, staging: IndexLayout, wanted: Manifest, head_files: Sequence[Path]
) -> None:
    """Create the new index, unless an interrupted call has begun it."""
    if staging.manifest.exists() and not read_manifest(staging).exact_times:
        remove_contents(staging)  # begun by a version whose frames are others
    try:
        create_or_check(staging, wanted, head_files)
    except ManifestMismatch:  # begun with other settings, and never used
        remove_contents(staging)
        create_or_check(staging, wanted, head_files)
    if staging.catalog.exists():
        return
    unfinished = staging.catalog.with_name(".tmp-catalog")
    with Catalog.open(layout.catalog) as catalog:
        catalog.copy_to(unfinished)
    with Catalog.open(unfinished) as copy:
        copy.mark_unscanned(f"not scanned yet with {wanted.encoder}: run `scanonce index`")
    unfinished.replace(staging.catalog)


def _take_over_libraries(layout: IndexLayout, staging: IndexLayout) -> Sequence[Path]:
    """Return the roots of the old index; remove those it no longer has from the new one."""
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        roots = [library.root for library in catalog.libraries()]
    with Catalog.open(staging.catalog) as catalog:
        given_up = [each.root for each in catalog.libraries() if each.root not in roots]
        delete_stored(staging, catalog.forget_libraries(given_up))
    return roots


def _find_lost(layout: IndexLayout, staging: IndexLayout) -> list[Video]:
    """Return the searchable videos that could not be scanned again; a video whose files are gone is not lost."""
    with Catalog.open(staging.catalog, read_only=True) as catalog:
        failed = {content_of(video.uid) for video in catalog.videos(states=["failed"])}
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        videos = catalog.videos(states=SEARCHABLE)
    return [video for video in videos if content_of(video.uid) in failed]


def _take_over_calibration(layout: IndexLayout, staging: IndexLayout) -> None:
    """Keep the calibration of the old index if the encoder is still the same."""
    same = read_manifest(layout).fingerprint == read_manifest(staging).fingerprint
    if same and layout.calibration.exists():
        content = layout.calibration.read_bytes()
        write_whole(staging.calibration, lambda file: file.write(content))


def _take_over_selects(layout: IndexLayout, staging: IndexLayout) -> None:
    """Keep the picked moments: videos keep their ids."""
    if layout.selects.exists():
        content = layout.selects.read_bytes()
        write_whole(staging.selects, lambda file: file.write(content))


def _take_over_texts(layout: IndexLayout, staging: IndexLayout) -> None:
    """Copy the labels, the saved searches and the tracks that the old index got meanwhile."""
    with (
        Catalog.open(layout.catalog, read_only=True) as before,
        Catalog.open(staging.catalog) as catalog,
    ):
        catalog.labels.take_over(before.labels)
        catalog.saved.take_over(before.saved)
        catalog.lines.take_over(before.lines)
