"""Makes derived data again: vectors and anchors from features, features by decoding, words and vectors from lines.

    report = repair(layout, settings=IndexerSettings(), storage=StorageSettings(), load_encoder=..., load_localiser=...)
    report.repaired, report.left

Repairs the differences that `indexer.verify` found, in the order in which one kind of data is derived from another.
Nothing else changes, and nothing is deleted before its replacement is there, but damaged vectors of lines: searches
fail with them and work without. Models are loaded only if they are needed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from scanonce.indexer.anchors import scan_anchors
from scanonce.indexer.differences import BY_DECODING, Difference, Kind
from scanonce.indexer.hashing import is_unchanged
from scanonce.indexer.passages import embed_tracks
from scanonce.indexer.pipeline import OnProgress, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.verify import LoadLocaliser, OnChecked, Verification, verify
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.tracks.meaning import TextModel
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.errors import IndexDirectoryError, ScanonceError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import remove_leftovers, writing

Reasons = dict[tuple[Kind, Path], str]
"""Why differences could not be repaired, by kind and subject."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The result of a repair."""

    repaired: tuple[Difference, ...]
    left: tuple[tuple[Difference, str], ...]
    """The differences that remain, each with the reason or the next step."""
    interrupted: bool = False
    """It was stopped while it decoded videos; the same call continues."""


def repair(
    layout: IndexLayout,
    *,
    settings: IndexerSettings,
    storage: StorageSettings,
    load_encoder: Callable[[], ClipEncoder],
    load_localiser: LoadLocaliser,
    text_model: Callable[[], TextModel | None] = lambda: None,
    found: Verification | None = None,
    full: bool = False,
    on_progress: OnProgress = lambda _: None,
    on_checked: OnChecked = lambda *_: None,
) -> RepairReport:
    """Repair the differences whose remedy is ``repair``, then verify the whole index again.

    Costs what `verify` does, and decoding if features or thumbnails are missing or damaged. A video that is decoded
    again gets another id.

    Args:
        layout: the index in use.
        settings: settings of decoding; the index has its own sampling and clips.
        storage: settings of the vector index.
        load_encoder: loads the encoder of the index.
        load_localiser: loads its localiser, if it has one.
        text_model: loads the model of the vectors of lines; None: there is none, and lines are found by words alone.
        found: the result of `verify` just now; None: verify first.
        full: verify as `verify` with ``full`` does, before and after.
        on_progress: called with the state of decoding.
        on_checked: called with the state of verifying.

    Raises:
        IndexDirectoryError: there is no usable index, another process writes it, or it cannot be written.
    """
    load_localiser = cache(load_localiser)
    check = partial(
        verify,
        layout,
        full=full,
        files=settings,
        load_localiser=load_localiser,
        on_checked=on_checked,
        holds_lock=True,
    )
    reasons: Reasons = {}
    interrupted = False
    with writing(layout, "scanonce repair"):
        found = found or check()
        todo = [each for each in found.differences if each.remedy == "repair"]
        if todo:  # a damaged manifest or catalogue, which could not be opened, needs another remedy
            with Index.open(layout, open_pooling) as index:
                run = _Repair(
                    index, settings, storage, load_encoder, load_localiser, text_model, on_progress
                )
                run.repair(todo)
                reasons, interrupted = run.reasons, run.interrupted
        after = check()
    remaining = {(each.kind, each.subject) for each in after.differences}
    return RepairReport(
        tuple(each for each in todo if (each.kind, each.subject) not in remaining),
        tuple((each, _why_left(each, reasons)) for each in after.differences),
        interrupted,
    )


def _why_left(each: Difference, reasons: Reasons) -> str:
    """Return why a difference remains, or the next step."""
    if (each.kind, each.subject) in reasons:
        return reasons[each.kind, each.subject]
    return {
        "index": "run `scanonce index`",
        "localise": "run `scanonce localise`",
        "restore": "its file is not at hand: plug its disk in and repair again, or restore a backup",
        "repair": "run `scanonce repair` again",
        "none": each.detail,
    }[each.remedy]


class _Repair:
    """One repair, and the reasons why differences are left."""

    def __init__(
        self,
        index: Index,
        settings: IndexerSettings,
        storage: StorageSettings,
        load_encoder: Callable[[], ClipEncoder],
        load_localiser: LoadLocaliser,
        text_model: Callable[[], TextModel | None],
        on_progress: OnProgress,
    ) -> None:
        self.target, self.storage, self.on_progress = index, storage, on_progress
        self.settings = index.manifest.settle(settings)
        self.load_encoder, self.load_localiser = load_encoder, load_localiser
        self.text_model = text_model
        self.reasons: Reasons = {}
        self.interrupted = False

    def repair(self, todo: Sequence[Difference]) -> None:
        """Repair in the order of derivation: vectors come last because they follow from everything else."""
        self.attempt(_of_kinds(todo, "words damaged"), self.rebuild_words)
        self.attempt(_of_kinds(todo, "line vectors damaged"), self.embed_lines)
        self.attempt(_of_kinds(todo, "orphan"), lambda _: remove_leftovers(self.target.layout))
        self.attempt(_of_kinds(todo, *BY_DECODING), self.decode_again)
        self.attempt(_of_kinds(todo, "anchors missing", "anchors damaged"), self.derive_anchors)
        vectors = _of_kinds(todo, "vectors damaged", "vectors missing", "vectors differ")
        self.attempt(vectors, self.publish_again)

    def attempt(
        self, todo: Sequence[Difference], step: Callable[[Sequence[Difference]], object]
    ) -> None:
        """Take one step; if it fails, keep the reason so that the next steps are taken all the same."""
        if not todo or self.interrupted:
            return
        try:
            step(todo)
        except ScanonceError as error:
            for each in todo:
                self.reasons[each.kind, each.subject] = str(error)

    def rebuild_words(self, _: Sequence[Difference]) -> None:
        """Make the words of lines and paths again."""
        self.target.catalog.lines.rebuild_words()

    def embed_lines(self, _: Sequence[Difference]) -> None:
        """Drop the vectors of lines that are wrong, and embed these lines again if the text model is at hand."""
        lines = self.target.catalog.lines
        tracks = [each.track_id for each in lines.vector_problems()]
        lines.drop_vectors(tracks)
        model = self.text_model()
        if model is not None:
            embed_tracks(lines, tracks, model)

    def decode_again(self, todo: Sequence[Difference]) -> None:
        """Scan videos again from files that are unchanged. The new scan of each replaces the old one in one commit."""
        catalog, manifest = self.target.catalog, self.target.manifest
        ids = {each.video_id for each in todo if each.video_id is not None}
        paths = [path for video in catalog.videos(ids) for path in video.paths]
        records = [record for path in paths for record in catalog.files_under(path)]
        roots = [record.stamp.path for record in records if is_unchanged(record.stamp)]
        if not roots:
            raise IndexDirectoryError("its file is missing or has changed: run `scanonce index`")
        report = index_library(
            roots,
            layout=self.target.layout,
            encoder=self.load_encoder(),
            settings=self.settings,
            storage=self.storage,
            localiser=self.load_localiser() if manifest.anchors else None,
            on_progress=self.on_progress,
            again=ids,
        )
        self.interrupted = report.interrupted
        problems = {problem.path: problem.reason for problem in report.problems}
        for each in todo:
            if each.subject in problems:
                self.reasons[each.kind, each.subject] = problems[each.subject]

    def derive_anchors(self, todo: Sequence[Difference]) -> None:
        """Derive the anchors of some videos from their features."""
        index, localiser = self.target, self.load_localiser()
        assert index.anchors is not None, "anchors were found missing or damaged"
        kinds = {each.video_id: each.kind for each in todo if each.video_id is not None}
        for video in index.catalog.videos(kinds, states=SEARCHABLE):
            try:
                stored = index.features.read(video.uid)
                arrays = scan_anchors(localiser, stored, video.duration_seconds)
                index.anchors.write(video.uid, arrays)
            except IndexDirectoryError as error:
                self.reasons[kinds[video.video_id], video.path] = str(error)

    def publish_again(self, todo: Sequence[Difference]) -> None:
        """Publish the missing vectors; if the vector index is damaged or wrong, derive all of it again."""
        if _of_kinds(todo, "vectors damaged", "vectors differ"):
            self.target.clips.rebuild(self.target.catalog, self.storage)
        else:
            self.target.publish(self.storage)


def _of_kinds(todo: Iterable[Difference], *kinds: Kind) -> list[Difference]:
    return [each for each in todo if each.kind in kinds]
