"""Text in, moments out: the whole way of a query.

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")
        for moment in result.moments:
            print(moment.path, moment.span.start_seconds, moment.span.end_seconds, moment.score)

Everything that depends on a video alone was computed at indexing: a query reads stored arrays, runs the text tower
once, and decodes nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.search.filters import Passing, Within
from scanonce.search.localise import Candidate, Curve, Localiser, Proposal, Query
from scanonce.search.rank import background_level, margins
from scanonce.search.rerank import num_located, rerank
from scanonce.search.retrieve import neighbourhoods
from scanonce.search.settings import SearchSettings
from scanonce.search.snapshot import Snapshot, next_snapshot, open_snapshot
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, QueryError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest
from scanonce.storage.records import Moment, Span, Video, split_clip_id

_CLIPS_PER_MOMENT = 5


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a query."""

    query: str
    moments: tuple[Moment, ...]
    """Best first, in the order of the re-ranker if the index has one (`search.rerank`)."""
    no_good_match: bool
    """Nothing in the library stands out for the query; ``moments`` are then merely the nearest."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall milliseconds by stage: ``text``, ``library``, ``moments``, ``rerank`` if there is a re-ranker, and their
    ``total``. Queries asked together share ``text`` and ``library`` evenly."""
    num_videos: int | None = None
    """Videos that passed the filter; None without a filter. If it is 0 there are no moments, and ``no_good_match``
    means only that."""


class SearchEngine:
    """An open index and its text encoder. May be shared by threads.

    Each call answers from one snapshot of the library (`search.snapshot`): what was committed before the call is in
    it, what is committed during the call is not.
    """

    def __init__(
        self,
        layout: IndexLayout,
        catalog: Catalog,
        encoder: ClipEncoder,
        settings: SearchSettings,
        models: ModelSettings | None = None,
    ) -> None:
        """`open` is the usual way in."""
        index = Index(layout, read_manifest(layout), catalog, open_pooling)
        self._snapshot = open_snapshot(index, encoder, settings, models)
        self._following = Lock()
        # tokenizers of the Rust library fail with "Already borrowed" in two threads at once
        self._encoding = Lock()

    @classmethod
    def open(
        cls,
        index_dir: str | Path,
        *,
        settings: SearchSettings | None = None,
        models: ModelSettings | None = None,
    ) -> "SearchEngine":
        """Open an index for searching, with the encoder and the localiser it was made with.

        Args:
            index_dir: the index directory.
            settings: how to search.
            models: device and number format; its ``encoder`` and ``localiser`` are ignored, the index names its own.

        Raises:
            IndexDirectoryError: there is no usable index.
            EncoderError: its encoder cannot be loaded.
            LocaliserError: its localiser cannot be loaded.
            ManifestMismatch: the weights of one of them have changed since indexing.
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
        """Close the catalogue. Calls still running in other threads may fail."""
        self._snapshot.index.catalog.close()

    @property
    def manifest(self) -> Manifest:
        """What the index was made with."""
        return self._snapshot.index.manifest

    @property
    def localiser(self) -> Localiser:
        """The localiser that finds the moments of text."""
        return self._snapshot.methods.localiser

    @property
    def videos(self) -> Mapping[int, Video]:
        """Searchable videos by id."""
        return self._snapshot.videos

    @property
    def num_videos(self) -> int:
        """The number of searchable videos."""
        return len(self.videos)

    def search(self, text: str, *, top: int | None = None, within: Within = None) -> SearchResult:
        """Find the moments that show what the text says.

        A filter decides which clips are searched, not which of those found are shown: a narrow one gives as many
        moments as a wide one, if they are there. Whether there is a good match, and how strong a moment is, is still
        judged by the whole library: the few clips that pass may all show the query, or none of them.

        Args:
            text: a query in the language of the encoder.
            top: the most moments to return; by default that of the settings.
            within: the videos to search: a `search.filters.Filter` or their ids; by default all. If none passes, the
                answer is empty and `SearchResult.num_videos` is 0.

        Raises:
            QueryError: the text is empty.
            IndexDirectoryError: the index was damaged or removed meanwhile.
        """
        return self.search_many([text], top=top, within=within)[0]

    def search_many(
        self, texts: Sequence[str], *, top: int | None = None, within: Within = None
    ) -> list[SearchResult]:
        """Answer several queries at once: encoded and looked up together, one result each, in their order."""
        _refuse_empty(texts)
        if not texts:
            return []

        def answer(snapshot: Snapshot) -> list[SearchResult]:
            watch = Stopwatch()
            with watch("text"):
                features = self._encode(snapshot, texts)
            search = _Search(snapshot, snapshot.methods.localiser, top, within, reranks=True)
            return search.answer(texts, features, watch)

        return self._answered(answer)

    def similar(
        self, video_id: int, span: Span, *, top: int | None = None, within: Within = None
    ) -> SearchResult:
        """Find moments that look like this one, which is among them, by the embedding of its own frames.

        A trained localiser and a re-ranker read text, so these moments are found by the curve of frame scores and
        stay in that order.

        Raises:
            QueryError: there is no such video.
        """

        def answer(snapshot: Snapshot) -> list[SearchResult]:
            video = _video(snapshot, video_id)
            watch = Stopwatch()
            with watch("text"):
                bounds = np.array([(span.start_seconds, span.end_seconds)])
                image = snapshot.index.embed(video, bounds)
            features = TextFeatures(image, np.empty((1, 0), np.float32))
            search = _Search(snapshot, snapshot.methods.by_frames, top, within, reranks=False)
            return search.answer([f"like {video.path.name}"], features, watch)

        return self._answered(answer)[0]

    def curve(self, text: str, video_id: int) -> Curve:
        """Score each piece of a video by how well it fits the text, over the whole video.

        Raises:
            QueryError: the text is empty, or there is no such video.
        """
        _refuse_empty([text])
        snapshot = self.follow()
        video = _video(snapshot, video_id)
        features = self._encode(snapshot, [text])
        embeddings = unit(features.joint)
        levels = snapshot.frame_levels(embeddings, snapshot.clips.background(embeddings))
        query = _query(features, 0, levels[0])
        return snapshot.methods.localiser.curve(query, snapshot.stored(video))

    def _encode(self, snapshot: Snapshot, texts: Sequence[str]) -> TextFeatures:
        with self._encoding:
            return snapshot.encoder.encode_text_features(texts)

    def _answered(self, answer: Callable[[Snapshot], list[SearchResult]]) -> list[SearchResult]:
        """The answer from the library as it is now."""
        snapshot = self.follow()
        try:
            return answer(snapshot)
        except IndexDirectoryError:
            # files of this snapshot may have been removed by a later commit
            newer = self.follow()
            if newer is snapshot:
                raise
            return answer(newer)

    def follow(self) -> Snapshot:
        """Return the library as it is now. One thread at a time takes in what a writer has changed."""
        with self._following:
            self._snapshot = next_snapshot(self._snapshot)
            return self._snapshot


class Stopwatch:
    """Wall milliseconds by stage."""

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begin = time.perf_counter()
        yield
        self.took_ms[stage] = self.took_ms.get(stage, 0.0) + (time.perf_counter() - begin) * 1e3


@dataclass(frozen=True, slots=True)
class _Found:
    """What the vector index found for several queries."""

    scores: NDArray[np.float32]
    """``[num_queries, depth]`` cosines of the best clips, -inf where there are fewer."""
    clip_ids: NDArray[np.int64]
    backgrounds: NDArray[np.float32]
    """``[num_queries, num_clips]`` cosines of clips drawn from the whole library."""
    levels: NDArray[np.float32]
    """``[num_queries, num_clips]`` the same for means of frames."""


class _Search:
    """One call: the library once for all its queries, then each query by itself."""

    def __init__(
        self,
        snapshot: Snapshot,
        localiser: Localiser,
        top: int | None,
        within: Within,
        *,
        reranks: bool,
    ) -> None:
        self.snapshot, self.localiser = snapshot, localiser
        self.settings = snapshot.settings
        self.top = self.settings.top if top is None else top
        self.within = within
        self.reranker = snapshot.methods.reranker if reranks else None

    def answer(
        self, texts: Sequence[str], features: TextFeatures, watch: Stopwatch
    ) -> list[SearchResult]:
        """One result for each query."""
        with watch("library"):
            passing = self.snapshot.filters.passing(self.within)
            found = self.look_up(features, passing)
        shared = {stage: took / len(texts) for stage, took in watch.took_ms.items()}
        num_videos = None if passing is None else len(passing.ids)
        results = []
        for k, text in enumerate(texts):
            watch = Stopwatch()
            with watch("moments"):
                query = _query(features, k, found.levels[k])
                by_video = self.candidates(found.clip_ids[k], found.scores[k])
                candidates = list(by_video.values())
                proposals = self.localiser.locate(query, candidates, top=self.num_located())
            if self.reranker is not None:
                with watch("rerank"):
                    stored = [each.video for each in candidates]
                    scoring = self.reranker[1]
                    proposals = rerank(proposals, stored, query.features, scoring, top=self.top)
            nothing = self.nothing_stands_out(found.scores[k], found.backgrounds[k])
            moments = self.moments(proposals, list(by_video), found.backgrounds[k], nothing=nothing)
            took = {**shared, **watch.took_ms}
            timings = {**took, "total": sum(took.values())}
            results.append(SearchResult(text, moments, nothing, timings, num_videos))
        return results

    def look_up(self, features: TextFeatures, passing: Passing | None) -> _Found:
        """The best clips of the library for each query, and scores of clips drawn at random."""
        embeddings = unit(features.joint)
        # clips of all scales overlap: several of them are one moment
        depth = max(self.settings.candidate_clips, _CLIPS_PER_MOMENT * self.top)
        clips = self.snapshot.clips
        # of the clips that pass: the others take no part of the depth
        allowed = None if passing is None else passing.clips
        scores, clip_ids = clips.search(embeddings, depth, allowed=allowed)
        # of all clips, whatever passes: a yardstick that is the same for every filter
        backgrounds = clips.background(embeddings)
        levels = self.snapshot.frame_levels(embeddings, backgrounds)
        return _Found(scores, clip_ids, backgrounds, levels)

    def num_located(self) -> int:
        """How many moments the localiser is asked for: more than shown if they are re-ranked."""
        return self.top if self.reranker is None else num_located(self.top)

    def candidates(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> dict[int, Candidate]:
        """The videos of the clips found by id, in the order of their best clip, and the stretches around the clips."""
        snapshot, grid = self.snapshot, self.snapshot.index.manifest.grid
        found: list[tuple[int, Span]] = []
        clips: dict[int, list[tuple[Span, float]]] = {}
        real = np.isfinite(scores)
        for identifier, score in zip(ids[real].tolist(), scores[real].tolist(), strict=True):
            video_id, ordinal = split_clip_id(identifier)
            span = grid.span(ordinal, snapshot.videos[video_id].duration_seconds)
            found.append((video_id, span))
            clips.setdefault(video_id, []).append((span, score))
        context = self.settings.context_seconds
        return {
            video_id: Candidate(
                snapshot.stored(snapshot.videos[video_id]), stretches, tuple(clips[video_id])
            )
            for video_id, stretches in neighbourhoods(found, snapshot.videos, context).items()
        }

    def nothing_stands_out(
        self, best_clips: NDArray[np.float32], background: NDArray[np.float32]
    ) -> bool:
        """Whether the best clip is no better than chance; see `search.rank`."""
        if not np.isfinite(best_clips[0]):
            return True
        margin = float(margins(best_clips[:1], background[None])[0])
        return margin <= self.settings.cutoff * self.snapshot.chance.margin

    def moments(
        self,
        proposals: Sequence[Proposal],
        video_ids: Sequence[int],
        background: NDArray[np.float32],
        *,
        nothing: bool,
    ) -> tuple[Moment, ...]:
        """The proposals that are shown, with their strength."""
        level, _ = background_level(background)
        margin = max(self.snapshot.chance.margin, 1e-6)
        shown = min(self.top, self.settings.nearest_shown) if nothing else self.top
        moments = []
        for each in proposals[:shown]:
            video = self.snapshot.videos[video_ids[each.candidate]]
            strength = (each.cosine - level) / margin
            moments.append(Moment(video.video_id, video.path, each.span, each.score, strength))
        return tuple(moments)


def _video(snapshot: Snapshot, video_id: int) -> Video:
    if video_id not in snapshot.videos:
        raise QueryError(f"there is no video {video_id}; search again, it may be forgotten")
    return snapshot.videos[video_id]


def _query(features: TextFeatures, k: int, background: NDArray[np.float32]) -> Query:
    """One of several queries, with its level over the library."""
    mean, std = background_level(background)
    return Query(unit(features.joint[k]), features.joint[k], features.states[k], mean, std)


def _refuse_empty(texts: Sequence[str]) -> None:
    if empty := [position for position, text in enumerate(texts) if not text.strip()]:
        raise QueryError(
            f'query {empty[0] + 1} is empty; write what the moment shows, such as "a red car at night"'
        )
