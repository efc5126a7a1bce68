"""One state of a library, frozen: all that a query reads, and the step to the next state.

    snapshot = open_snapshot(index, encoder, SearchSettings(), ModelSettings())
    snapshot = next_snapshot(snapshot)      # the same object if no writer has changed anything

Any number of threads may read one snapshot. A step costs as much as what changed: a library grows by thousands of
commits, and each of them is followed by a query.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.models.vectors import unit
from scanonce.search.filters import FilterMasks
from scanonce.search.frame_level import draw_means
from scanonce.search.localise import FixedClips, Localiser
from scanonce.search.rank import BACKGROUND_SENTENCES, margins
from scanonce.search.rerank import Scoring, open_scoring
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.catalog.entries import ChangeMark, VideoChanges
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import check_encoder, read_manifest
from scanonce.storage.records import ORDINAL_BITS, Video
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
        return self.features.read_between(self.video.uid, list(spans))

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        """See `search.localise.StoredVideo`."""
        return None if self.store is None else self.store.read_rows(self.video.uid, rows)


@dataclass(frozen=True, slots=True)
class Methods:
    """How moments are found and ordered: the localisers and the re-ranker of an index."""

    trained: TrainedLocaliser | None
    localiser: Localiser
    """The one that answers text."""
    by_frames: TrainingFree
    """The one that answers images: a trained localiser reads text only."""
    reranker: tuple[str, Scoring] | None
    """Digest of its files and the re-ranker; None if the index has none or the settings leave it out."""


@dataclass(frozen=True, slots=True)
class Chance:
    """How well the library answers text that no video can show (`search.rank`)."""

    embeddings: NDArray[np.float32]
    """``[num_sentences, dim]`` of `search.rank.BACKGROUND_SENTENCES`."""
    scores: NDArray[np.float32]
    """``[num_sentences, 1]`` cosine of the nearest clip of each."""
    clip_ids: NDArray[np.int64]
    """``[num_sentences, 1]`` those clips."""
    margin: float
    """The largest margin of any of them: what a good match must exceed."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A library as it is after one commit. `open_snapshot` and `next_snapshot` make it; nothing changes it."""

    index: Index
    encoder: ClipEncoder
    settings: SearchSettings
    models: ModelSettings | None
    token: tuple[int, ...]
    """Changes with every commit and every new manifest."""
    mark: ChangeMark
    """Position in the list of changes of the catalogue."""
    videos: Mapping[int, Video]
    """Searchable videos by id."""
    live: Ids
    """Their ids, rising."""
    clips: LibraryIndex
    waiting: Mapping[int, NDArray[np.float32]]
    """Embeddings of videos that are not published yet, by id."""
    filters: FilterMasks
    methods: Methods
    chance: Chance
    frame_means: NDArray[np.float32] | None
    """``[num_clips, dim]`` means of clips drawn from the library (`search.frame_level`), if its clips are pooled by a
    head; None if they are means themselves."""
    num_drawn: int
    """Videos of the library when ``frame_means`` were drawn."""

    def stored(self, video: Video) -> StoredFrames:
        """The stored frames and anchors of a video."""
        return StoredFrames(video, self.index.features, self.index.anchors)

    def frame_levels(
        self, embeddings: NDArray[np.float32], backgrounds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores ``[num_queries, num_clips]`` of means of clips: the clips of the library, unless a head pools them."""
        means = self.frame_means
        return backgrounds if means is None or not len(means) else embeddings @ means.T


def open_snapshot(
    index: Index,
    encoder: ClipEncoder,
    settings: SearchSettings,
    models: ModelSettings | None,
) -> Snapshot:
    """Open the library as it is now.

    Args:
        index: opened with the pooling of its clips; its catalogue for reading only.
        encoder: with the text tower of the index.
        settings: how to search.
        models: device and number format, should another encoder have to be loaded later.

    Raises:
        ManifestMismatch: the encoder or the localiser is not the one the index was made with.
        LocaliserError: the localiser of the index cannot be loaded.
    """
    check_encoder(index.layout, index.manifest, encoder.name, encoder.fingerprint)
    token = _token(index)  # first: a commit in between is then seen the next time
    changes = index.catalog.searchable_changes()
    videos = {video.video_id: video for video in changes.videos}
    methods = _open_methods(index, settings, previous=None)
    embeddings = unit(encoder.encode_texts(BACKGROUND_SENTENCES))
    live = np.fromiter(videos, np.int64, len(videos))
    clips, waiting = _open_clips(index, videos, live)
    nearest = clips.search(embeddings, 1)
    return Snapshot(
        index=index,
        encoder=encoder,
        settings=settings,
        models=models,
        token=token,
        mark=changes.mark,
        videos=videos,
        live=live,
        clips=clips,
        waiting=waiting,
        filters=FilterMasks(index.catalog, live, clips),
        methods=methods,
        chance=_chance(embeddings, *nearest, clips),
        frame_means=_draw_means(index, videos),
        num_drawn=len(videos),
    )


def next_snapshot(snapshot: Snapshot) -> Snapshot:
    """The library as it is now; the same object if nothing has changed.

    Raises:
        IndexDirectoryError: the index was damaged or removed; the old snapshot can still be read.
    """
    while True:
        layout = IndexLayout.of(snapshot.index.layout.root)
        if layout != snapshot.index.layout:
            return _switched(snapshot, layout)
        token = _token(snapshot.index)
        if token == snapshot.token:
            return snapshot
        try:
            return _changed(snapshot, token)
        except IndexDirectoryError:
            # what was being read may have been forgotten in between: then there is a newer state to read
            if _token(snapshot.index) == token:
                raise


def _switched(snapshot: Snapshot, layout: IndexLayout) -> Snapshot:
    """Another index has taken the place of the open one, perhaps with another encoder."""
    index = Index.open(layout, open_pooling, read_only=True)
    encoder = snapshot.encoder
    try:
        if index.manifest.fingerprint != encoder.fingerprint:
            encoder = load_encoder(index.manifest.encoder, snapshot.models, towers="text")
        return open_snapshot(index, encoder, snapshot.settings, snapshot.models)
    except BaseException:
        index.close()
        raise


def _changed(snapshot: Snapshot, token: tuple[int, ...]) -> Snapshot:
    """The snapshot after the commits since; reads nothing but what has changed."""
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
    after = replace(
        before, index=index, token=token, mark=changes.mark, videos=videos, methods=methods
    )
    if np.array_equal(live, before.live) and not _is_outdated(before):
        # labels, perhaps, or the name of a file
        return replace(after, filters=FilterMasks(index.catalog, live, before.clips))
    return _with_clips(after, live)


def _with_clips(snapshot: Snapshot, live: Ids) -> Snapshot:
    """The snapshot with these live videos, ids rising, instead of those it had; their records are in it."""
    index, videos = snapshot.index, snapshot.videos
    clips, waiting = _open_clips(index, videos, live, snapshot)
    new = live[~np.isin(live, snapshot.live)]
    nearest = _nearest_after(snapshot.chance, clips, live, new)
    means, num_drawn = snapshot.frame_means, snapshot.num_drawn
    if abs(len(videos) - num_drawn) > num_drawn // 10:
        means, num_drawn = _draw_means(index, videos), len(videos)
    return replace(
        snapshot,
        live=live,
        clips=clips,
        waiting=waiting,
        filters=FilterMasks(index.catalog, live, clips),
        chance=_chance(snapshot.chance.embeddings, *nearest, clips),
        frame_means=means,
        num_drawn=num_drawn,
    )


# ---------------------------------------------------------------- parts of a snapshot


def _token(index: Index) -> tuple[int, ...]:
    manifest = index.layout.manifest.stat()
    return index.catalog.change_token(), manifest.st_ino, manifest.st_mtime_ns


def _is_outdated(snapshot: Snapshot) -> bool:
    """Whether a generation was published after the one that is open."""
    return newest_number(snapshot.index.layout.vectors) != snapshot.clips.generation


def _open_clips(
    index: Index, videos: Mapping[int, Video], live: Ids, previous: Snapshot | None = None
) -> tuple[LibraryIndex, dict[int, NDArray[np.float32]]]:
    """The clips of these videos as one index, and the embeddings of those that are not published yet."""
    waiting: dict[int, NDArray[np.float32]] = {}
    known = previous.waiting if previous else {}

    def load(video_id: int) -> NDArray[np.float32]:
        # frames of a searchable video are never written again: scanned again, it gets another id
        try:
            embeddings = known.get(video_id)
            waiting[video_id] = (
                index.embed_clips(videos[video_id]) if embeddings is None else embeddings
            )
        except IndexDirectoryError as error:
            # all others are searched, and this one is tried again at the next change
            logger.warning("video %d is not searched, run `scanonce verify`: %s", video_id, error)
            return np.empty((0, index.manifest.dim), np.float32)
        return waiting[video_id]

    return index.clips.open(live, load, previous.clips if previous else None), waiting


def _nearest_after(
    chance: Chance, clips: LibraryIndex, live: Ids, new: Ids
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The clip nearest to each background sentence: only new videos, and those that lost theirs, are searched."""
    if len(new) == len(live):
        return clips.search(chance.embeddings, 1)
    scores, ids = chance.scores.copy(), chance.clip_ids.copy()
    lost = ~np.isin(ids[:, 0] >> ORDINAL_BITS, live)
    if lost.any():
        scores[lost], ids[lost] = clips.search(chance.embeddings[lost], 1)
    if len(new):
        new_scores, new_ids = clips.search(chance.embeddings, 1, allowed=clips.mask(new))
        better = new_scores > scores
        scores[better], ids[better] = new_scores[better], new_ids[better]
    return scores, ids


def _chance(
    embeddings: NDArray[np.float32],
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    clips: LibraryIndex,
) -> Chance:
    margin = float(margins(scores[:, 0], clips.background(embeddings)).max())
    return Chance(embeddings, scores, ids, margin)


def _draw_means(index: Index, videos: Mapping[int, Video]) -> NDArray[np.float32] | None:
    if index.manifest.head is None:
        return None
    return draw_means(list(videos.values()), index.features, index.manifest.grid)


def _open_methods(index: Index, settings: SearchSettings, previous: Methods | None) -> Methods:
    """The localisers and the re-ranker that the index and the settings name; those open already are kept."""
    trained = _open_localiser(index, previous.trained if previous else None)
    by_frames = TrainingFree(
        longest_seconds=settings.longest_moment_seconds,
        overlap=settings.nms_overlap,
        snap_seconds=settings.snap_seconds,
        pooling=None if index.manifest.head is None else index.pooling,
    )
    return Methods(
        trained,
        _choose_localiser(settings, trained, by_frames),
        by_frames,
        _open_reranker(index, settings, previous.reranker if previous else None),
    )


def _open_localiser(index: Index, open_one: TrainedLocaliser | None) -> TrainedLocaliser | None:
    name, anchors = index.manifest.localiser, index.manifest.anchors
    if name is None or anchors is None:
        return None
    if open_one is not None and anchors.startswith(open_one.folder):
        return open_one
    trained = load_localiser(name)
    if not anchors.startswith(trained.folder):
        raise ManifestMismatch(
            f"the anchors of {index.layout.root} were made by another version of the localiser {name}. "
            "Run `scanonce localise`: it derives them again, without decoding."
        )
    return trained


def _choose_localiser(
    settings: SearchSettings, trained: TrainedLocaliser | None, by_frames: TrainingFree
) -> Localiser:
    if settings.localiser == "clips":
        return FixedClips(overlap=settings.nms_overlap)
    if settings.localiser == "training-free" or trained is None:
        return by_frames
    return SoonetLocaliser(
        trained,
        overlap=settings.nms_overlap,
        longest_seconds=settings.longest_moment_seconds,
        snap_seconds=settings.snap_seconds,
    )


def _open_reranker(
    index: Index, settings: SearchSettings, open_one: tuple[str, Scoring] | None
) -> tuple[str, Scoring] | None:
    digest = index.manifest.reranker if settings.rerank == "auto" else None
    if digest is None or (open_one is not None and open_one[0] == digest):
        return open_one if digest else None
    return digest, open_scoring(index.layout.head, digest)


def _live_after(live: Ids, changes: VideoChanges) -> Ids:
    """Ids of the searchable videos, rising, after some changes."""
    if not changes.videos and not changes.gone:
        return live
    kept = live[~np.isin(live, changes.gone)]
    changed = np.array([video.video_id for video in changes.videos], np.int64)
    new = changed[~np.isin(changed, kept)]
    return np.insert(kept, np.searchsorted(kept, new), new)
