"""Makes again what can be derived: vectors from features, anchors from features, features by decoding again.

    report = repair(layout, settings=IndexerSettings(), storage=StorageSettings(), load_encoder=..., load_localiser=...)
    report.mended, report.left

What `indexer.verify` names is mended in the order in which one follows from the other. Nothing else is touched, and
nothing is deleted before what takes its place is there. Encoder and localiser are loaded only where they are needed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from scanonce.indexer.anchors import scan_anchors
from scanonce.indexer.pipeline import OnProgress, index_library
from scanonce.indexer.plan import is_unchanged
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.verify import Difference, Kind, OnChecked, Verification, verify
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import IndexDirectoryError, ScanonceError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import clear_leavings, writing

BY_DECODING: frozenset[Kind] = frozenset(
    ("features missing", "features damaged", "thumbnails damaged", "file replaced")
)
"""Differences that are mended by decoding a video again."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What repairing came to."""

    mended: tuple[Difference, ...]
    left: tuple[tuple[Difference, str], ...]
    """What is still there, with the reason or the next step."""
    interrupted: bool = False
    """It was stopped while videos were decoded; the same call goes on."""


def repair(
    layout: IndexLayout,
    *,
    settings: IndexerSettings,
    storage: StorageSettings,
    load_encoder: Callable[[], ClipEncoder],
    load_localiser: Callable[[], TrainedLocaliser],
    found: Verification | None = None,
    full: bool = False,
    on_progress: OnProgress = lambda _: None,
    on_checked: OnChecked = lambda *_: None,
) -> RepairReport:
    """Mends the differences whose remedy is ``repair``, then looks at the whole index again.

    Costs what `verify` does, and decoding where features or thumbnails are missing or damaged. A video decoded again
    gets another id.

    Args:
        layout: the index in use.
        settings: how to decode; sampling and clips are those of the index.
        storage: the vector index.
        load_encoder: loads the encoder of the index.
        load_localiser: loads its localiser, where it has one.
        found: what `verify` found just now; None: look first.
        full: look, before and after, as `verify` does with ``full``.
        on_progress: called with the state of decoding.
        on_checked: called with the state of verifying.

    Raises:
        IndexDirectoryError: there is no usable index, somebody else writes it, or it cannot be written.
    """
    load_localiser = cache(load_localiser)
    look = partial(
        verify,
        layout,
        full=full,
        load_localiser=load_localiser,
        on_checked=on_checked,
        alone=True,
    )
    with writing(layout, "scanonce repair"):
        found = found or look()
        todo = [each for each in found.differences if each.remedy == "repair"]
        run = _Repair(layout, settings, storage, load_encoder, load_localiser, on_progress)
        if todo:
            run.repair(todo)
        after = look()
    remaining = {(each.kind, each.subject) for each in after.differences}
    return RepairReport(
        tuple(each for each in todo if (each.kind, each.subject) not in remaining),
        tuple((each, run.why_left(each)) for each in after.differences),
        run.interrupted,
    )


class _Repair:
    """One repair, and why what it could not mend is left."""

    def __init__(
        self,
        layout: IndexLayout,
        settings: IndexerSettings,
        storage: StorageSettings,
        load_encoder: Callable[[], ClipEncoder],
        load_localiser: Callable[[], TrainedLocaliser],
        on_progress: OnProgress,
    ) -> None:
        self.layout, self.storage, self.on_progress = layout, storage, on_progress
        self.manifest = read_manifest(layout)
        self.settings = self.manifest.settle(settings)
        self.load_encoder, self.load_localiser = load_encoder, load_localiser
        self.reasons: dict[tuple[Kind, Path], str] = {}
        self.interrupted = False

    def repair(self, todo: Sequence[Difference]) -> None:
        """What nobody needs goes first; vectors come last, they follow from all else."""
        self.attempt(_of_kinds(todo, "stray"), lambda _: clear_leavings(self.layout))
        self.attempt([each for each in todo if each.kind in BY_DECODING], self.decode_again)
        self.attempt(_of_kinds(todo, "anchors missing", "anchors damaged"), self.scan_again)
        vectors = _of_kinds(todo, "vectors damaged", "vectors lacking", "vectors differ")
        self.attempt(vectors, self.publish_again)

    def attempt(
        self, todo: Sequence[Difference], mend: Callable[[Sequence[Difference]], object]
    ) -> None:
        """Mends some differences; what stands in the way of these does not stand in that of others."""
        if not todo or self.interrupted:
            return
        try:
            mend(todo)
        except ScanonceError as error:
            for each in todo:
                self.reasons[each.kind, each.subject] = str(error)

    def decode_again(self, todo: Sequence[Difference]) -> None:
        """Scans videos again from a file that is as it was; the old ones go as each new one is recorded."""
        ids = {each.video_id for each in todo if each.video_id is not None}
        with Catalog.open(self.layout.catalog) as catalog:
            paths = [path for video in catalog.videos(ids) for path in video.paths]
            records = [record for path in paths for record in catalog.files_under(path)]
        roots = [record.stamp.path for record in records if is_unchanged(record.stamp)]
        if not roots:
            raise IndexDirectoryError("its file is not there, or has changed: run `scanonce index`")
        encoder = self.load_encoder()
        report = index_library(
            roots,
            layout=self.layout,
            encoder=encoder,
            settings=self.settings,
            storage=self.storage,
            localiser=self.load_localiser() if self.manifest.anchors else None,
            on_progress=self.on_progress,
            again=ids,
        )
        self.interrupted = report.interrupted
        problems = {problem.path: problem.reason for problem in report.problems}
        for each in todo:
            if each.subject in problems:
                self.reasons[each.kind, each.subject] = problems[each.subject]

    def scan_again(self, todo: Sequence[Difference]) -> None:
        """Derives anchors of some videos from their features."""
        localiser = self.load_localiser()
        ids = [each.video_id for each in todo if each.video_id is not None]
        kinds = {each.video_id: each.kind for each in todo}
        with Index.open(self.layout) as index:
            store = index.anchors
            assert store is not None, "anchors were found missing or damaged"
            for video in index.catalog.videos(ids, states=SEARCHABLE):
                try:
                    stored = index.features.read(video.uid)
                    store.write(video.uid, scan_anchors(localiser, stored, video.duration_seconds))
                except IndexDirectoryError as error:
                    self.reasons[kinds[video.video_id], video.path] = str(error)

    def publish_again(self, todo: Sequence[Difference]) -> None:
        """Add the vectors that are missing; an index that is damaged or wrong is derived again from the stores."""
        with Index.open(self.layout, open_pooling) as index:
            if _of_kinds(todo, "vectors damaged", "vectors differ"):
                index.clips.rebuild(index.catalog, self.storage)
            else:
                index.publish(self.storage)

    def why_left(self, each: Difference) -> str:
        """Why a difference is still there, or what helps."""
        if (each.kind, each.subject) in self.reasons:
            return self.reasons[each.kind, each.subject]
        return {
            "index": "run `scanonce index`",
            "localise": "run `scanonce localise`",
            "restore": "its file is not at hand: plug its disk in and repair again, or restore a backup",
            "repair": "run `scanonce repair` again",
            "none": each.detail,
        }[each.remedy]


def _of_kinds(todo: Iterable[Difference], *kinds: Kind) -> list[Difference]:
    return [each for each in todo if each.kind in kinds]
