"""One frozen state of a library: everything that a query reads, and the step to the next state.

    snapshot = open_snapshot(index, encoder, SearchSettings(), ModelSettings())
    snapshot = next_snapshot(snapshot)      # the same object if no writer has changed anything

Any number of threads may read one snapshot. The cost of a step depends on the change, not on the library: a library
grows by thousands of commits, and each of them may be followed by a query.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.models.tracks.meaning import load_text_model
from scanonce.search.calibration import find_calibration
from scanonce.search.filters import LibraryFilters
from scanonce.search.frame_level import draw_means
from scanonce.search.judging import Judge
from scanonce.search.line_moments import LineFinder
from scanonce.search.localise import FixedClips, Localiser
from scanonce.search.meanings import next_meanings, open_meanings
from scanonce.search.rerank import Scoring, open_scoring
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.text_bank import TextBank, open_bank
from scanonce.search.training_free import TrainingFree
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import ChangeMark, VideoChanges
from scanonce.storage.errors import (
    IndexDirectoryError,
    ManifestMismatch,
    NoSuchVideo,
    TrackError,
    reported,
)
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import check_encoder, read_manifest
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.vectors.generation import newest_number
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.rows import Ids

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """A `search.localise.StoredVideo` of the index directory."""

    video: Video
    features: FeatureStore
    store: AnchorStore | None

    @property
    def duration_seconds(self) -> float:
        """Length of the video."""
        return self.video.duration_seconds

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        """See `search.localise.StoredVideo`."""
        return self.features.read_between(self.video.uid, spans)

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        """See `search.localise.StoredVideo`."""
        return None if self.store is None else self.store.read_rows(self.video.uid, rows)


@dataclass(frozen=True, slots=True)
class Methods:
    """The localisers and the re-ranker of an index."""

    trained: TrainedLocaliser | None
    localiser: Localiser
    """The localiser for text."""
    by_frames: TrainingFree
    """The localiser for images; a trained localiser reads text only."""
    reranker: tuple[str, Scoring] | None
    """Digest of its files and the re-ranker; None if the index has none or the settings switch it off."""
    anchors: AnchorStore | None
    """Anchors for the trained localiser; None if the index has none."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A library as it is after one commit. `open_snapshot` and `next_snapshot` make it; nothing changes it."""

    index: Index
    encoder: ClipEncoder
    settings: SearchSettings
    models: ModelSettings | None
    text_model: str
    """Name of the model that finds lines by their meaning, as `models.tracks.meaning.load_text_model` takes it."""
    token: tuple[int, ...]
    """Changes with every commit and every new manifest."""
    mark: ChangeMark
    """Position in the list of changes of the catalogue."""
    videos: Mapping[int, Video]
    """Searchable videos by id."""
    live: Ids
    """Ids of those videos, rising."""
    clips: LibraryIndex
    waiting: Mapping[int, NDArray[np.float32]]
    """Embeddings of videos that are not published yet, by id."""
    filters: LibraryFilters
    lines: LineFinder
    """The search for words of tracks and of names."""
    methods: Methods
    judge: Judge
    frame_means: NDArray[np.float32] | None
    """``[num_clips, dim]`` means of a sample of clips (`search.frame_level`) if a head pools the clips of the index;
    None if they are means themselves."""
    num_sampled: int
    """Number of videos when ``frame_means`` were sampled."""

    def video(self, video_id: int) -> Video:
        """Return a searchable video.

        Raises:
            NoSuchVideo: there is none with this id.
        """
        found = self.videos.get(video_id)
        if found is None:
            raise NoSuchVideo(
                f"there is no video {video_id}; search again, it may have been forgotten"
            )
        return found

    def stored(self, video: Video) -> StoredFrames:
        """Return the stored frames and anchors of a video."""
        return StoredFrames(video, self.index.features, self.methods.anchors)

    def frame_levels(
        self, embeddings: NDArray[np.float32], backgrounds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Score queries with clips that are means of frames.

        Args:
            embeddings: ``[num_queries, dim]`` of the queries.
            backgrounds: ``[num_queries, num_clips]`` their scores with a sample of the clips of the index.

        Returns:
            ``[num_queries, num_clips]``; ``backgrounds`` if the clips of the index are means of frames.
        """
        means = self.frame_means
        return backgrounds if means is None or not len(means) else embeddings @ means.T


class OpenIndexes:
    """Counts the users of open indexes and closes each index when its last user is done. Thread-safe.

    A query that is running when `scanonce reindex` or `restore` replaces its index still reads the old catalogue.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users: Counter[Catalog] = Counter()

    def acquire(self, index: Index) -> None:
        """Keep an index open until `release`."""
        with self._lock:
            self._users[index.catalog] += 1

    def release(self, index: Index) -> None:
        """End one use of an index; the last one closes it."""
        with self._lock:
            self._users[index.catalog] -= 1
            is_last = not self._users[index.catalog]
            if is_last:
                del self._users[index.catalog]
        if is_last:
            index.close()

    @contextmanager
    def using(self, index: Index) -> Iterator[None]:
        """Keep an index open during a block."""
        self.acquire(index)
        try:
            yield
        finally:
            self.release(index)


def open_snapshot(
    index: Index,
    encoder: ClipEncoder,
    settings: SearchSettings,
    models: ModelSettings | None,
    bank: TextBank | None = None,
    text_model: str = "auto",
) -> Snapshot:
    """Open the library as it is now.

    Args:
        index: opened with the pooling of its clips, its catalogue read-only.
        encoder: the text tower of the index.
        settings: settings of the search.
        models: device and number format, in case another encoder has to be loaded later.
        bank: the text bank of this encoder; None: it is read from the cache, or embedded.
        text_model: name of the model that finds lines by their meaning.

    Raises:
        ManifestMismatch: the encoder or the localiser is not the one the index was made with.
        LocaliserError: the localiser of the index cannot be loaded.
    """
    check_encoder(index.layout, index.manifest, encoder.name, encoder.fingerprint)
    token = _token(index)  # before anything is read: a later commit then changes the token
    changes = index.catalog.searchable_changes()
    videos = {video.video_id: video for video in changes.videos}
    methods = _open_methods(index, settings, previous=None)
    bank = bank or open_bank(encoder)
    live = np.fromiter(videos, np.int64, len(videos))
    clips, waiting = open_clips(index, videos, live)
    means = _sample_means(index, videos)
    calibration = find_calibration(index.layout, encoder.fingerprint)
    judge = Judge(bank, calibration, bank.centre(_sample(clips, means)))
    return Snapshot(
        index=index,
        encoder=encoder,
        settings=settings,
        models=models,
        text_model=text_model,
        token=token,
        mark=changes.mark,
        videos=videos,
        live=live,
        clips=clips,
        waiting=waiting,
        filters=LibraryFilters(index.catalog, live, clips),
        lines=_open_lines(index, videos, text_model),
        methods=methods,
        judge=judge,
        frame_means=means,
        num_sampled=len(videos),
    )


def next_snapshot(snapshot: Snapshot) -> Snapshot:
    """Return the library as it is now; the same object if nothing has changed.

    If another index has replaced the one of ``snapshot``, the result has that one open; the old one stays open too.

    Raises:
        IndexDirectoryError: the index was damaged or removed; the old snapshot can still be read.
    """
    while True:
        index = snapshot.index
        layout = IndexLayout.of(index.layout.root)
        if layout != index.layout:
            return _switched(snapshot, layout)
        token = None
        try:
            token = _token(index)
            return snapshot if token == snapshot.token else _changed(snapshot, token)
        except IndexDirectoryError:
            # A file that was being read may have been removed by a later commit or a switch: then there is a newer
            # state to read.
            if index.is_current and (token is None or _token(index) == token):
                raise


def _switched(snapshot: Snapshot, layout: IndexLayout) -> Snapshot:
    """Open the index that has replaced that of a snapshot, perhaps with another encoder."""
    index = Index.open(layout, open_pooling, read_only=True)
    encoder, bank = snapshot.encoder, None
    try:
        if index.manifest.fingerprint == encoder.fingerprint:
            # Another thread may be encoding its query: a text tower is not thread-safe.
            bank = snapshot.judge.bank
        else:
            encoder = load_encoder(index.manifest.encoder, snapshot.models, towers="text")
        settings, models = snapshot.settings, snapshot.models
        return open_snapshot(index, encoder, settings, models, bank, snapshot.text_model)
    except BaseException:
        index.close()
        raise


def _changed(snapshot: Snapshot, token: tuple[int, ...]) -> Snapshot:
    """Return the snapshot after the commits since; reads only what has changed."""
    index = snapshot.index
    changes = index.catalog.searchable_changes(snapshot.mark)
    manifest = read_manifest(index.layout)
    methods, before = snapshot.methods, snapshot
    if manifest != index.manifest:
        index = index.with_manifest(manifest)
        methods = _open_methods(index, snapshot.settings, previous=methods)
    if changes.is_all:
        videos = {video.video_id: video for video in changes.videos}
        live = np.fromiter(videos, np.int64, len(videos))
        before = replace(snapshot, live=np.empty(0, np.int64), waiting={})
    else:
        videos = {**snapshot.videos, **{video.video_id: video for video in changes.videos}}
        for video_id in changes.gone:
            videos.pop(video_id, None)
        live = _live_after(snapshot.live, changes)
    calibration = find_calibration(index.layout, snapshot.encoder.fingerprint)
    after = replace(
        before,
        index=index,
        token=token,
        mark=changes.mark,
        videos=videos,
        lines=_next_lines(before.lines, index, videos, changes, snapshot.text_model),
        methods=methods,
        judge=replace(snapshot.judge, calibration=calibration),
    )
    is_same = np.array_equal(live, before.live) and not changes.is_all
    if is_same and not _is_outdated(before):
        # Only labels or paths have changed.
        return replace(after, filters=LibraryFilters(index.catalog, live, before.clips))
    return _with_clips(after, live)


def _with_clips(snapshot: Snapshot, live: Ids) -> Snapshot:
    """Return a snapshot with other searchable videos.

    Args:
        snapshot: has the records of the new videos, but still the ids and clips of the old ones.
        live: ids of the new videos, rising.
    """
    index, videos = snapshot.index, snapshot.videos
    clips, waiting = open_clips(index, videos, live, snapshot)
    means, num_sampled = snapshot.frame_means, snapshot.num_sampled
    if abs(len(videos) - num_sampled) > num_sampled // 10:
        means, num_sampled = _sample_means(index, videos), len(videos)
    return replace(
        snapshot,
        live=live,
        clips=clips,
        waiting=waiting,
        filters=LibraryFilters(index.catalog, live, clips),
        judge=replace(snapshot.judge, centre=snapshot.judge.bank.centre(_sample(clips, means))),
        frame_means=means,
        num_sampled=num_sampled,
    )


# ---------------------------------------------------------------- parts of a snapshot


def _token(index: Index) -> tuple[int, ...]:
    with reported(index.layout.manifest, "read"):
        manifest = index.layout.manifest.stat()
    return index.catalog.change_token(), manifest.st_ino, manifest.st_mtime_ns


def _is_outdated(snapshot: Snapshot) -> bool:
    """Whether a generation was published after the one that is open."""
    return newest_number(snapshot.index.layout.vectors) != snapshot.clips.generation


def open_clips(
    index: Index, videos: Mapping[int, Video], live: Ids, previous: Snapshot | None = None
) -> tuple[LibraryIndex, dict[int, NDArray[np.float32]]]:
    """Open the clips of these videos; return them and the embeddings of videos that are not published yet."""
    waiting: dict[int, NDArray[np.float32]] = {}
    known = previous.waiting if previous else {}

    def load(video_id: int) -> NDArray[np.float32]:
        # The frames of a searchable video never change: a video that is scanned again gets another id.
        try:
            embeddings = known.get(video_id)
            waiting[video_id] = (
                index.embed_clips(videos[video_id]) if embeddings is None else embeddings
            )
        except IndexDirectoryError as error:
            # The other videos are searched; this one is tried again at the next change.
            logger.warning("video %d is not searched, run `scanonce verify`: %s", video_id, error)
            return np.empty((0, index.manifest.dim), np.float32)
        return waiting[video_id]

    return index.clips.open(live, load, previous.clips if previous else None), waiting


def _open_lines(index: Index, videos: Mapping[int, Video], text_model: str) -> LineFinder:
    """Open the lines of a library; one without lines loads no model."""
    finder = LineFinder(index.catalog, videos, None, None)
    if not finder.num_lines:
        return finder
    try:
        model = load_text_model(text_model)
    except TrackError as error:
        logger.warning("lines are found by their words only: %s", error)
        model = None
    if model is None:
        return finder
    meanings = open_meanings(index.catalog, model.fingerprint, model.dim)
    return LineFinder(index.catalog, videos, meanings, model)


def _next_lines(
    before: LineFinder,
    index: Index,
    videos: Mapping[int, Video],
    changes: VideoChanges,
    text_model: str,
) -> LineFinder:
    """Return the lines after a change; reads only those of changed videos."""
    if changes.is_all or before.model is None or before.meanings is None:
        return _open_lines(index, videos, text_model)
    changed = {*(video.video_id for video in changes.videos), *changes.gone}
    if not changed:
        return before
    model = before.model
    meanings = next_meanings(before.meanings, index.catalog, model.fingerprint, changed)
    return LineFinder(index.catalog, videos, meanings, model)


def _sample(clips: LibraryIndex, means: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return a sample of clips that are means of frames, ``[num_clips, dim]``."""
    return clips.sample() if means is None or not len(means) else means


def _sample_means(index: Index, videos: Mapping[int, Video]) -> NDArray[np.float32] | None:
    if index.manifest.head is None:
        return None
    return draw_means(list(videos.values()), index.features, index.manifest.grid)


def _open_methods(index: Index, settings: SearchSettings, previous: Methods | None) -> Methods:
    """Open the localisers and the re-ranker of the index; keep those of ``previous`` that still fit."""
    trained = _open_localiser(index, previous.trained if previous else None)
    by_frames = TrainingFree(
        longest_seconds=settings.longest_moment_seconds,
        overlap=settings.nms_overlap,
        snap_seconds=settings.snap_seconds,
        pooling=None if index.manifest.head is None else index.pooling,
    )
    return Methods(
        trained,
        _choose_localiser(index, settings, trained, by_frames),
        by_frames,
        _open_reranker(index, settings, previous.reranker if previous else None),
        index.anchors,
    )


def _open_localiser(index: Index, previous: TrainedLocaliser | None) -> TrainedLocaliser | None:
    name, anchors = index.manifest.localiser, index.manifest.anchors
    if name is None or anchors is None:
        return None
    if previous is not None and anchors.startswith(previous.folder):
        return previous
    trained = load_localiser(name)
    if not anchors.startswith(trained.folder):
        raise ManifestMismatch(
            f"the anchors of {index.layout.root} were made by another version of the localiser {name}. "
            "Run `scanonce localise`: it derives them again, without decoding."
        )
    return trained


def _choose_localiser(
    index: Index,
    settings: SearchSettings,
    trained: TrainedLocaliser | None,
    by_frames: TrainingFree,
) -> Localiser:
    if settings.localiser == "clips":
        return FixedClips(overlap=settings.nms_overlap, pooling=index.pooling)
    if settings.localiser == "training-free" or trained is None:
        return by_frames
    return SoonetLocaliser(
        trained,
        overlap=settings.nms_overlap,
        longest_seconds=settings.longest_moment_seconds,
        snap_seconds=settings.snap_seconds,
    )


def _open_reranker(
    index: Index, settings: SearchSettings, previous: tuple[str, Scoring] | None
) -> tuple[str, Scoring] | None:
    digest = index.manifest.reranker if settings.rerank == "auto" else None
    if digest is None:
        return None
    if previous is not None and previous[0] == digest:
        return previous
    return digest, open_scoring(index.layout.head, digest)


def _live_after(live: Ids, changes: VideoChanges) -> Ids:
    """Apply changes to the ids of the searchable videos, which stay sorted."""
    if not changes.videos and not changes.gone:
        return live
    kept = live[~np.isin(live, changes.gone)]
    changed = np.array([video.video_id for video in changes.videos], np.int64)
    new = changed[~np.isin(changed, kept)]
    return np.insert(kept, np.searchsorted(kept, new), new)
