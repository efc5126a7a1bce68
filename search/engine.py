"""A sentence in, moments out: the whole way of a query.

    engine = SearchEngine.open("~/.scanonce")
    result = engine.search("a red car drives past at night")
    for moment in result.moments:
        print(moment.path, moment.span.start_seconds, moment.span.end_seconds, moment.score)

Everything that depends on a video alone was computed when it was indexed: a query reads stored arrays, runs the
text tower once, and decodes nothing.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.trained import TrainedLocaliser, load_localiser
from scanonce.models.vectors import unit
from scanonce.search.filters import FilterMasks, Within
from scanonce.search.frame_level import draw_means
from scanonce.search.localise import Candidate, Curve, FixedClips, Localiser, Query, StoredVideo
from scanonce.search.rank import BACKGROUND_SENTENCES, background_level, margins
from scanonce.search.rerank import Scoring, num_located, open_scoring, rerank
from scanonce.search.retrieve import neighbourhoods
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import ChangeMark, VideoChanges
from scanonce.storage.errors import ConfigError, IndexDirectoryError, ManifestMismatch, QueryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import check_encoder, read_manifest
from scanonce.storage.records import ORDINAL_BITS, Moment, Span, Video, split_clip_id
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.vectors.generation import newest_number
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.publish import open_library

_CLIPS_PER_MOMENT = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a query found."""

    query: str
    moments: tuple[Moment, ...]
    """Best first, by the re-ranker of the index where it has one (`search.rerank`)."""
    no_good_match: bool
    """Nothing in the library stands out for the query; ``moments`` are then merely the nearest."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall milliseconds by stage: ``text``, ``library``, ``moments``, ``rerank`` where a re-ranker was asked, and their
    ``total``. Queries that were asked together share ``text`` and ``library`` evenly."""
    num_videos: int | None = None
    """Videos that the filter let pass, None where there was none to ask. With 0 there are no moments, and
    ``no_good_match`` says only that."""


class SearchEngine:
    """An open index and its text encoder. Use from one thread at a time."""

    def __init__(
        self,
        layout: IndexLayout,
        catalog: Catalog,
        encoder: ClipEncoder,
        settings: SearchSettings,
        models: ModelSettings | None = None,
    ) -> None:
        """`open` is the usual way in."""
        self._settings = settings
        self._models = models
        self._videos: dict[int, Video] = {}
        self._live = np.empty(0, np.int64)
        self._mark: ChangeMark | None = None
        self._waiting: dict[int, NDArray[np.float32]] = {}
        self._trained: TrainedLocaliser | None = None
        self._anchors: LibraryIndex | None = None
        self._means: tuple[int, NDArray[np.float32]]
        self._reranker: tuple[str, Scoring] | None = None
        self._take(layout, catalog, encoder)

    @classmethod
    def open(
        cls,
        index_dir: str | Path,
        *,
        settings: SearchSettings | None = None,
        models: ModelSettings | None = None,
    ) -> "SearchEngine":
        """Opens an index for searching, with the encoder and the localiser it was made with.

        Args:
            index_dir: the index directory.
            settings: how to search.
            models: device and number format; its ``encoder`` and ``localiser`` are not looked at, the index names
                its own.

        Raises:
            IndexDirectoryError: there is no usable index.
            EncoderError: its encoder cannot be loaded.
            LocaliserError: its localiser cannot be loaded.
            ManifestMismatch: the weights of one of them have changed since indexing.
            ConfigError: the settings ask for a localiser or retriever that the index does not have.
        """
        layout = IndexLayout.of(Path(index_dir).expanduser().resolve())
        encoder = load_encoder(read_manifest(layout).encoder, models, towers="text")
        catalog = Catalog.open(layout.catalog, read_only=True)
        try:
            return cls(layout, catalog, encoder, settings or SearchSettings(), models)
        except BaseException:
            catalog.close()
            raise

    def __enter__(self) -> "SearchEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the catalogue."""
        self._catalog.close()

    @property
    def num_videos(self) -> int:
        """Searchable videos."""
        return len(self._videos)

    @property
    def localiser(self) -> Localiser:
        """What finds the moments."""
        return self._localiser

    @property
    def videos(self) -> Mapping[int, Video]:
        """Searchable videos by id."""
        return self._videos

    def search(self, text: str, *, top: int | None = None, within: Within = None) -> SearchResult:
        """The moments that show what the sentence says.

        A filter decides which clips are looked at, not which of those found are shown: a narrow one gives as many
        moments as a wide one, if they are there. Whether there is a good match, and how strong a moment is, is still
        judged by the whole library: the few clips that pass may all show what was asked, or none of them.

        Args:
            text: a sentence in the language of the encoder.
            top: at most so many moments; the setting where None.
            within: which videos to look in: a `search.filters.Filter` or their ids; all where None. Where none
                passes the answer is empty, and `SearchResult.num_videos` is 0.

        Raises:
            QueryError: the sentence is empty.
            IndexDirectoryError: the index was damaged or removed meanwhile.
        """
        return self.search_many([text], top=top, within=within)[0]

    def search_many(
        self,
        texts: Sequence[str],
        *,
        top: int | None = None,
        within: Within = None,
    ) -> list[SearchResult]:
        """Several sentences at once: encoded together and looked up together, one result each, in their order."""
        _refuse_empty(texts)
        if not texts:
            return []

        def answer() -> list[SearchResult]:
            begin = time.perf_counter()
            features = self._encoder.encode_text_features(texts)
            text_ms = (time.perf_counter() - begin) * 1e3
            return self._answer(
                texts, features, self._localiser, top, within, text_ms, reranks=True
            )

        return self._retried(answer)

    def similar(
        self,
        video_id: int,
        span: Span,
        *,
        top: int | None = None,
        within: Within = None,
    ) -> SearchResult:
        """Moments that look like this one, which is among them: by the embedding of its own frames.

        A trained localiser and a re-ranker read sentences, so these are found by the curve of frame scores and stay in
        that order.

        Raises:
            QueryError: there is no such video.
        """

        def answer() -> list[SearchResult]:
            begin = time.perf_counter()
            video = self._video(video_id)
            (stored,) = self._features.read_between(video.uid, [(0.0, np.inf)])
            bounds = np.array([(span.start_seconds, span.end_seconds)])
            picture = self._pooling.embed_spans(stored.frames, stored.pts_seconds, bounds)
            read_ms = (time.perf_counter() - begin) * 1e3
            text = f"like {video.path.name}"
            features = TextFeatures(picture, np.empty((1, 0), np.float32))
            return self._answer([text], features, self._by_frames, top, within, read_ms)

        return self._retried(answer)[0]

    def curve(self, text: str, video_id: int) -> Curve:
        """How well each piece of a video fits a sentence, over the whole of it.

        Raises:
            QueryError: the sentence is empty, or there is no such video.
        """
        _refuse_empty([text])
        self._follow_changes()
        video = self._video(video_id)
        features = self._encoder.encode_text_features([text])
        embeddings = unit(features.joint)
        levels = self._frame_levels(embeddings, self._library.background(embeddings))
        return self._localiser.curve(_query(features, 0, levels[0]), self._stored(video))

    def _video(self, video_id: int) -> Video:
        if video_id not in self._videos:
            raise QueryError(f"there is no video {video_id}; search again, it may be forgotten")
        return self._videos[video_id]

    def _retried(self, answer: Callable[[], list[SearchResult]]) -> list[SearchResult]:
        """The answer from the library as it is now."""
        self._follow_changes()
        try:
            return answer()
        except IndexDirectoryError:
            # another localiser's arrays may have taken the place of those just looked for
            if not self._follow_changes():
                raise
            return answer()

    def _answer(
        self,
        texts: Sequence[str],
        features: TextFeatures,
        localiser: Localiser,
        top: int | None,
        within: Within,
        encoding_ms: float,
        *,
        reranks: bool = False,
    ) -> list[SearchResult]:
        """Library once for all queries, then each on its own."""
        begin = time.perf_counter()
        top = self._settings.top if top is None else top
        embeddings = unit(features.joint)
        # clips of all scales overlap: several of them name one moment
        depth = max(self._settings.candidate_clips, _CLIPS_PER_MOMENT * top)
        passing = self._filters.passing(within)
        allowed = None if passing is None else passing.clips
        # of the clips that pass: those that do not take no place in the depth
        best_clips, clip_ids = self._library.search(embeddings, depth, allowed=allowed)
        # of all clips, whatever passes: a yardstick that is the same for every filter
        backgrounds = self._library.background(embeddings)
        levels = self._frame_levels(embeddings, backgrounds)
        by_anchors = self._anchors is not None and localiser is self._localiser
        found, ids = best_clips, clip_ids
        if self._anchors is not None and by_anchors:
            vectors = self._trained_or_fail().query_vectors(features)
            allowed = None if passing is None else passing.anchors
            found, ids = self._anchors.search(vectors, depth, allowed=allowed)
        shared = {
            "text": encoding_ms / len(texts),
            "library": (time.perf_counter() - begin) * 1e3 / len(texts),
        }
        num_videos = None if passing is None else len(passing.ids)
        results = []
        for k, text in enumerate(texts):
            begin = time.perf_counter()
            query = _query(features, k, levels[k])
            level, _ = background_level(backgrounds[k])
            real = np.isfinite(found[k])
            candidates = self._candidates(ids[k][real], found[k][real], by_anchors=by_anchors)
            looked_at = list(candidates.values())
            reranking: dict[str, float] = {}
            if self._reranker is None or not reranks:
                proposals = localiser.locate(query, looked_at, top=top)
            else:
                proposals = localiser.locate(query, looked_at, top=num_located(top))
                begin_rerank = time.perf_counter()
                stored = [each.video for each in looked_at]
                _, scoring = self._reranker
                proposals = rerank(proposals, stored, query.features, scoring, top=top)
                reranking["rerank"] = (time.perf_counter() - begin_rerank) * 1e3
            nothing = self._nothing_stands_out(best_clips[k], backgrounds[k])
            shown = min(top, self._settings.nearest_shown) if nothing else top
            videos = [self._videos[video_id] for video_id in candidates]

            def strength(cosine: float, mean: float = level) -> float:
                return (cosine - mean) / max(self._chance_margin, 1e-6)

            moments = tuple(
                Moment(video.video_id, video.path, each.span, each.score, strength(each.cosine))
                for each in proposals[:shown]
                for video in [videos[each.candidate]]
            )
            moments_ms = (time.perf_counter() - begin) * 1e3 - sum(reranking.values())
            took = {**shared, "moments": moments_ms, **reranking}
            timings = {**took, "total": sum(took.values())}
            results.append(SearchResult(text, moments, nothing, timings, num_videos))
        return results

    def _candidates(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32], *, by_anchors: bool
    ) -> dict[int, Candidate]:
        """The videos that were found and where to look in them, by video id."""
        found: list[tuple[int, Span]] = []
        clips: dict[int, list[tuple[Span, float]]] = {}
        for identifier, score in zip(ids.tolist(), scores.tolist(), strict=True):
            video_id, ordinal = split_clip_id(identifier)
            duration = self._videos[video_id].duration_seconds
            if by_anchors:
                span = self._trained_or_fail().grid.span_of(ordinal, duration)
            else:
                span = self.manifest.grid.span(ordinal, duration)
            found.append((video_id, span))
            clips.setdefault(video_id, []).append((span, score))
        # anchors were ranked by the localiser itself: nothing better can lie beside the best of them
        context = 0.0 if by_anchors else self._settings.context_seconds
        return {
            video_id: Candidate(
                self._stored(self._videos[video_id]), stretches, tuple(clips[video_id])
            )
            for video_id, stretches in neighbourhoods(found, self._videos, context).items()
        }

    def _frame_levels(
        self, embeddings: NDArray[np.float32], backgrounds: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores ``[num_queries, num_clips]`` of means of clips: of the library's own, unless a head made those."""
        if self.manifest.head is None:
            return backgrounds
        num_videos, means = self._means
        if abs(len(self._videos) - num_videos) > num_videos // 10:
            means = draw_means(list(self._videos.values()), self._features, self.manifest.grid)
            self._means = len(self._videos), means
        return embeddings @ means.T if len(means) else backgrounds

    def _nothing_stands_out(
        self, best_clips: NDArray[np.float32], background: NDArray[np.float32]
    ) -> bool:
        """Whether the best clip is no better than chance; see `search.rank`."""
        if not np.isfinite(best_clips[0]):
            return True
        margin = float(margins(best_clips[:1], background[None])[0])
        return margin <= self._settings.cutoff * self._chance_margin

    def _stored(self, video: Video) -> StoredVideo:
        return _Stored(video, self._features, self._anchor_store)

    def _take(self, layout: IndexLayout, catalog: Catalog, encoder: ClipEncoder) -> None:
        """Searches this index from here on."""
        self.manifest = read_manifest(layout)
        check_encoder(layout, self.manifest, encoder.name, encoder.fingerprint)
        self._layout = layout
        self._catalog = catalog
        self._encoder = encoder
        self._features = FeatureStore(layout.features)
        self._pooling = open_pooling(layout.head, self.manifest.head)
        self._reranker = None  # that of another folder
        self._means = 0, np.zeros((0, 0), np.float32)
        self._no_picture = unit(encoder.encode_texts(BACKGROUND_SENTENCES))
        seen = self._change_token()
        self._open_library(previous=None)
        self._seen = seen

    def _change_token(self) -> tuple[int, ...]:
        """Another one where a writer has changed the catalogue or the manifest."""
        manifest = self._layout.manifest.stat()
        return self._catalog.change_token(), manifest.st_ino, manifest.st_mtime_ns

    def _follow_changes(self) -> bool:
        """Takes in what a writer has changed since; whether one has."""
        layout = IndexLayout.of(self._layout.root)
        if layout != self._layout:
            self._follow_switch(layout)
            return True
        token = self._change_token()  # taken first: a commit in between is then seen the next time
        if token == self._seen:
            return False
        try:
            self._take_changes()
        except IndexDirectoryError:
            if self._change_token() == token:
                raise
            return self._follow_changes()  # what was looked for may have been forgotten meanwhile
        self._seen = token  # only now: where that failed, the next query tries again
        return True

    def _take_changes(self) -> None:
        """Takes in what has changed, and looks at nothing else: a library grows by thousands of commits, and each is
        followed by somebody's query.
        """
        changes = self._catalog.searchable_changes(self._mark)
        if changes.is_all or read_manifest(self._layout) != self.manifest:
            self._open_library(previous=self._library)
            return
        self._videos.update((video.video_id, video) for video in changes.videos)
        for video_id in changes.gone:
            self._videos.pop(video_id, None)
        live = _live_after(self._live, changes)
        if len(live) != len(self._live) or (live != self._live).any() or self._is_outdated():
            self._search_videos(live, previous=self._library)
        else:  # perhaps labels, or the name of a file
            self._filters = FilterMasks(self._catalog, live, self._library, self._anchors)
        self._mark = changes.mark

    def _follow_switch(self, layout: IndexLayout) -> None:
        """Another index has taken the place of the one that was open, perhaps with another encoder."""
        manifest = read_manifest(layout)
        encoder = self._encoder
        if manifest.fingerprint != encoder.fingerprint:
            encoder = load_encoder(manifest.encoder, self._models, towers="text")
        before = self._catalog
        self._take(layout, Catalog.open(layout.catalog, read_only=True), encoder)
        before.close()

    def _open_library(self, previous: LibraryIndex | None) -> None:
        """Opens the library as it is now; files that are open in ``previous`` are taken from there."""
        changes = self._catalog.searchable_changes()
        self.manifest = read_manifest(self._layout)
        self._open_reranker()
        self._videos = {video.video_id: video for video in changes.videos}
        self._live, self._waiting = np.empty(0, np.int64), {}
        live = np.fromiter(self._videos, np.int64, len(self._videos))
        self._search_videos(live, previous)
        self._mark = changes.mark

    def _search_videos(self, live: NDArray[np.int64], previous: LibraryIndex | None) -> None:
        """Searches these videos from here on, ids rising; all of them are known."""
        waiting: dict[int, NDArray[np.float32]] = {}

        def load(video_id: int) -> NDArray[np.float32]:
            # nobody writes the frames of a searchable video again: scanned anew it gets another id
            known = self._waiting.get(video_id)
            try:
                waiting[video_id] = self._load_clips(video_id) if known is None else known
            except IndexDirectoryError as error:
                return self._nothing_of(video_id, self.manifest.dim, error)
            return waiting[video_id]

        self._library = open_library(
            self._layout.vectors,
            dim=self.manifest.dim,
            live_videos=live,
            load_clips=load,
            previous=previous,
        )
        self._waiting = waiting
        self._note_nearest(live, new=live[~np.isin(live, self._live)])
        chance = margins(self._nearest[0][:, 0], self._library.background(self._no_picture))
        self._chance_margin = float(chance.max())
        self._open_localiser(live)
        self._filters = FilterMasks(self._catalog, live, self._library, self._anchors)
        self._live = live

    def _note_nearest(self, live: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        """The clip nearest to each sentence that no picture can show: of all, or of new videos beside those known."""
        if len(new) == len(live):
            self._nearest = self._library.search(self._no_picture, 1)
            return
        scores, ids = self._nearest
        lost = ~np.isin(ids[:, 0] >> ORDINAL_BITS, live)
        if lost.any():
            scores[lost], ids[lost] = self._library.search(self._no_picture[lost], 1)
        if len(new):
            among_new = self._library.search(self._no_picture, 1, allowed=self._library.mask(new))
            better = among_new[0] > scores
            scores[better], ids[better] = among_new[0][better], among_new[1][better]

    def _is_outdated(self) -> bool:
        """Whether something was published after it was opened."""
        newest = newest_number(self._layout.vectors)
        if newest != self._library.generation or self._anchors is None:
            return newest != self._library.generation
        assert self._anchor_store is not None
        return newest_number(self._anchor_store.vectors) != self._anchors.generation

    def _open_localiser(self, live: NDArray[np.int64]) -> None:
        """The localiser that index and settings name, and the library of its anchors where that is searched."""
        settings, manifest = self._settings, self.manifest
        self._anchor_store: AnchorStore | None = None
        if manifest.localiser is None or manifest.anchors is None:
            self._trained = None
        elif self._trained is None or not manifest.anchors.startswith(self._trained.folder):
            self._trained = load_localiser(manifest.localiser)
            if not manifest.anchors.startswith(self._trained.folder):
                raise ManifestMismatch(
                    f"the anchors of {self._layout.root} were made by another version of the localiser "
                    f"{manifest.localiser}. Run `scanonce localise`: it derives them again, without decoding."
                )
        if manifest.anchors is not None:
            self._anchor_store = AnchorStore(self._layout.anchors / manifest.anchors)
        self._by_frames = TrainingFree(
            longest_seconds=settings.longest_moment_seconds,
            overlap=settings.nms_overlap,
            snap_seconds=settings.snap_seconds,
            pooling=None if self.manifest.head is None else self._pooling,
        )
        self._localiser = self._choose_localiser()
        self._anchors = self._open_anchors(live) if settings.retriever == "anchors" else None

    def _open_reranker(self) -> None:
        """The re-ranker that the index names, unless settings do without; one that is open already stays so."""
        digest = self.manifest.reranker if self._settings.rerank == "auto" else None
        if digest is None:
            self._reranker = None
        elif self._reranker is None or self._reranker[0] != digest:
            self._reranker = digest, open_scoring(self._layout.head, digest)

    def _choose_localiser(self) -> Localiser:
        settings = self._settings
        if settings.localiser == "clips":
            return FixedClips(overlap=settings.nms_overlap)
        if settings.localiser == "training-free" or self._trained is None:
            return self._by_frames
        return SoonetLocaliser(
            self._trained,
            overlap=settings.nms_overlap,
            longest_seconds=settings.longest_moment_seconds,
            snap_seconds=settings.snap_seconds,
        )

    def _open_anchors(self, live: NDArray[np.int64]) -> LibraryIndex:
        trained, store = self._trained, self._anchor_store
        if self._settings.localiser != "auto" or trained is None or store is None:
            raise ConfigError(
                'search.retriever is "anchors", which needs a trained localiser; '
                f"the index at {self._layout.root} is searched by {self._localiser.name}. "
                'Set it to "clips", or give the index a localiser: scanonce localise --localiser FOLDER'
            )
        if not trained.ranks_by_vectors or not store.vectors.exists():
            why = (
                f"{trained.name} pools its second stage by its maximum, which is no inner product"
                if not trained.ranks_by_vectors
                else "they were not made; set storage.anchor_index to true and run `scanonce localise`"
            )
            raise ConfigError(
                f'search.retriever is "anchors", but the index at {self._layout.root} has no library of anchors: {why}'
                ', or set it to "clips".'
            )

        def load_anchors(video_id: int) -> NDArray[np.float32]:
            try:
                return store.read(self._videos[video_id].uid).vectors.astype(np.float32)
            except IndexDirectoryError as error:
                return self._nothing_of(video_id, trained.width, error)

        return open_library(
            store.vectors,
            dim=trained.width,
            live_videos=live,
            load_clips=load_anchors,
            previous=self._anchors,
        )

    def _trained_or_fail(self) -> TrainedLocaliser:
        assert self._trained is not None, "anchors are searched with the localiser that made them"
        return self._trained

    def _nothing_of(
        self, video_id: int, width: int, error: IndexDirectoryError
    ) -> NDArray[np.float32]:
        """No vectors, [0, width], of a video of which nothing can be read: all others are searched. It is tried again
        at the next change; it may just have been forgotten.
        """
        logger.warning(
            "video %d is not searched, `scanonce verify` tells more: %s", video_id, error
        )
        return np.empty((0, width), np.float32)

    def _load_clips(self, video_id: int) -> NDArray[np.float32]:
        """Clip embeddings of a video that is searchable but not in the vector index yet."""
        video = self._videos[video_id]
        stored = self._features.read(video.uid)
        spans = self.manifest.grid.spans(video.duration_seconds)
        return self._pooling.embed_spans(stored.frames, stored.pts_seconds, spans)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A `StoredVideo` of the index directory."""

    video: Video
    features: FeatureStore
    store: AnchorStore | None

    @property
    def duration_seconds(self) -> float:
        return self.video.duration_seconds

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        return self.features.read_between(self.video.uid, list(spans))

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        return None if self.store is None else self.store.read_rows(self.video.uid, rows)


def _query(features: TextFeatures, k: int, background: NDArray[np.float32]) -> Query:
    """One of several sentences, with its level over the library."""
    mean, std = background_level(background)
    return Query(unit(features.joint[k]), features.joint[k], features.states[k], mean, std)


def _live_after(live: NDArray[np.int64], changes: VideoChanges) -> NDArray[np.int64]:
    """Ids of the searchable videos, rising, after some changes."""
    if not changes.videos and not changes.gone:
        return live
    kept = live[~np.isin(live, changes.gone)]
    changed = np.array([video.video_id for video in changes.videos], np.int64)
    new = changed[~np.isin(changed, kept)]
    return np.insert(kept, np.searchsorted(kept, new), new)


def _refuse_empty(texts: Sequence[str]) -> None:
    if empty := [position for position, text in enumerate(texts) if not text.strip()]:
        raise QueryError(
            f'query {empty[0] + 1} is empty; write what the moment shows, such as "a red car at night"'
        )
