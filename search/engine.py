"""From the text of a query to its moments.

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")
        for moment in result.moments:
            print(moment.path, moment.span.start_seconds, moment.span.end_seconds, moment.score)

Everything that depends on a video alone is computed at indexing. A query runs the text tower once and reads stored
arrays; it decodes nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.search.filters import FilteredLibrary, SearchScope
from scanonce.search.localise import Candidate, Curve, Localiser, Proposal, Query
from scanonce.search.rank import background_level, margins
from scanonce.search.rerank import num_located, rerank
from scanonce.search.retrieve import stretches_around
from scanonce.search.settings import SearchSettings
from scanonce.search.snapshot import OpenIndexes, Snapshot, next_snapshot, open_snapshot
from scanonce.storage.errors import IndexDirectoryError, QueryError
from scanonce.storage.index import Index
from scanonce.storage.manifest import Manifest
from scanonce.storage.records import Moment, Span, Video, split_clip_id

_CLIPS_PER_MOMENT = 5
"""Clips to retrieve per shown moment: clips of all scales overlap, so several of them belong to one moment."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to a query."""

    query: str
    moments: tuple[Moment, ...]
    """Best first, in the order of the re-ranker if the index has one (`search.rerank`)."""
    no_good_match: bool
    """Nothing in the library matches the query better than chance; ``moments`` are then merely the nearest."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall milliseconds by stage: ``text``, ``library``, ``moments``, ``rerank`` if there is a re-ranker, and their
    ``total``. Queries that are answered together share ``text`` and ``library`` evenly."""
    num_videos: int | None = None
    """Number of videos that passed the filter; None without a filter. If it is 0 there are no moments, and
    ``no_good_match`` is set for that reason alone."""


class SearchEngine:
    """An open index and its text encoder. May be shared by threads.

    Each call answers from one snapshot of the library (`search.snapshot`), which has all commits before the call and
    none during it.
    """

    def __init__(
        self,
        index: Index,
        encoder: ClipEncoder,
        settings: SearchSettings,
        models: ModelSettings | None = None,
    ) -> None:
        """Search an open index, and close it in the end. `open` is the usual way in.

        Args:
            index: opened with the pooling of its clips.
            encoder: the text tower of the index.
            settings: settings of the search.
            models: device and number format, in case another encoder has to be loaded later.

        Raises:
            ScanonceError: as `open`; the index is still open then.
        """
        self._snapshot = open_snapshot(index, encoder, settings, models)
        self._is_closed = False
        self._open_indexes = OpenIndexes()
        self._open_indexes.acquire(index)  # the use of this engine; each call adds one
        self._following = Lock()
        # Tokenizers of the Rust library fail with "Already borrowed" if two threads use one at once.
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
            settings: settings of the search.
            models: device and number format; its ``encoder`` and ``localiser`` are ignored, the index names its own.

        Raises:
            IndexDirectoryError: there is no usable index.
            EncoderError: its encoder cannot be loaded.
            LocaliserError: its localiser cannot be loaded.
            ManifestMismatch: the weights of one of them have changed since indexing.
        """
        root = Path(index_dir).expanduser().resolve()
        with ExitStack() as on_error:
            index = on_error.enter_context(Index.open(root, open_pooling, read_only=True))
            encoder = load_encoder(index.manifest.encoder, models, towers="text")
            engine = cls(index, encoder, settings or SearchSettings(), models)
            on_error.pop_all()
        return engine

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
        """Close the index as soon as the calls that run in other threads are done. A second call does nothing."""
        with self._following:
            if not self._is_closed:
                self._is_closed = True
                self._open_indexes.release(self._snapshot.index)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the index."""
        return self._snapshot.index.manifest

    @property
    def localiser(self) -> Localiser:
        """The localiser for text."""
        return self._snapshot.methods.localiser

    @property
    def videos(self) -> Mapping[int, Video]:
        """Searchable videos by id."""
        return self._snapshot.videos

    @property
    def num_videos(self) -> int:
        """The number of searchable videos."""
        return len(self.videos)

    def search(
        self, text: str, *, top: int | None = None, within: SearchScope = None
    ) -> SearchResult:
        """Find the moments that show what the text says.

        A filter restricts the clips that are searched. It does not remove moments from the result, so a narrow filter
        finds as many moments as a wide one, if there are as many. Whether there is a good match, and the strength of
        a moment, is still measured against the whole library: all or none of the few clips that pass may show the
        query.

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
        self, texts: Sequence[str], *, top: int | None = None, within: SearchScope = None
    ) -> list[SearchResult]:
        """Answer several queries at once, encoded and looked up together; one result each, in their order."""
        _refuse_empty(texts)
        if not texts:
            return []

        def answer(snapshot: Snapshot) -> list[SearchResult]:
            watch = Stopwatch()
            with watch("text"):
                features = self._encode(snapshot, texts)
            search = _Search(snapshot, snapshot.methods.localiser, top, within, reranks=True)
            return search.answer(texts, features, watch)

        return self._answer(answer)

    def similar(
        self, video_id: int, span: Span, *, top: int | None = None, within: SearchScope = None
    ) -> SearchResult:
        """Find moments that look like a given one, by the embedding of its frames; the given moment is among them.

        A trained localiser and a re-ranker read text. So these moments are found by the curve of frame scores and are
        not re-ranked.

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

        return self._answer(answer)[0]

    def curve(self, text: str, video_id: int) -> Curve:
        """Score each piece of a whole video with the text.

        Raises:
            QueryError: the text is empty, or there is no such video.
        """
        _refuse_empty([text])

        def answer(snapshot: Snapshot) -> Curve:
            video = _video(snapshot, video_id)
            features = self._encode(snapshot, [text])
            embeddings = unit(features.joint)
            levels = snapshot.frame_levels(embeddings, snapshot.clips.background(embeddings))
            query = _query(features, 0, levels[0])
            return snapshot.methods.localiser.curve(query, snapshot.stored(video))

        return self._answer(answer)

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Give the library as it is now, with its index open until the block ends.

        Raises:
            IndexDirectoryError: the index was damaged or removed.
            ValueError: the engine is closed.
        """
        with ExitStack() as use:
            with (
                self._following
            ):  # one thread takes in a change; the others wait for it and then share its snapshot
                self._follow()
                snapshot = self._snapshot
                use.enter_context(self._open_indexes.using(snapshot.index))
            yield snapshot

    def _follow(self) -> None:
        if self._is_closed:
            raise ValueError("this search engine is closed; open a new one")
        before = self._snapshot
        self._snapshot = next_snapshot(before)
        if self._snapshot.index.catalog is not before.index.catalog:
            self._open_indexes.acquire(self._snapshot.index)
            self._open_indexes.release(before.index)

    def _answer(self, answer: Callable[[Snapshot], Answer]) -> Answer:
        """Answer from the library as it is now."""
        with self.reading() as snapshot:
            try:
                return answer(snapshot)
            except IndexDirectoryError:
                # A later commit may have removed files of this snapshot; its successor does without them.
                with self.reading() as newer:
                    if newer is snapshot:
                        raise
                    return answer(newer)

    def _encode(self, snapshot: Snapshot, texts: Sequence[str]) -> TextFeatures:
        with self._encoding:
            return snapshot.encoder.encode_text_features(texts)


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
class _Retrieved:
    """The clips that the vector index found for several queries."""

    scores: NDArray[np.float32]
    """``[num_queries, depth]`` cosines of the best clips, -inf beyond the last one."""
    clip_ids: NDArray[np.int64]
    backgrounds: NDArray[np.float32]
    """``[num_queries, num_clips]`` cosines of a sample of the clips of the whole library."""
    levels: NDArray[np.float32]
    """``[num_queries, num_clips]`` cosines of a sample of clips that are means of frames."""


class _Search:
    """The search of one call: the vector index once for all its queries, then the moments of each query."""

    def __init__(
        self,
        snapshot: Snapshot,
        localiser: Localiser,
        top: int | None,
        within: SearchScope,
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
        """Return one result for each query."""
        with watch("library"):
            selected = self.snapshot.filters.apply(self.within)
            found = self.retrieve(features, selected)
        num_videos = None if selected is None else len(selected.ids)
        shared = {stage: took / len(texts) for stage, took in watch.took_ms.items()}
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
            is_chance = self.is_chance(found.scores[k], found.backgrounds[k])
            shown = min(self.top, self.settings.nearest_shown) if is_chance else self.top
            moments = self.moments(proposals[:shown], list(by_video), found.backgrounds[k])
            took = {**shared, **watch.took_ms}
            timings = {**took, "total": sum(took.values())}
            results.append(SearchResult(text, moments, is_chance, timings, num_videos))
        return results

    def retrieve(self, features: TextFeatures, selected: FilteredLibrary | None) -> _Retrieved:
        """Look up the best clips for each query, and score samples of clips."""
        embeddings = unit(features.joint)
        depth = max(self.settings.candidate_clips, _CLIPS_PER_MOMENT * self.top)
        clips = self.snapshot.clips
        # Filtered inside the search: clips that do not pass take up none of the depth.
        allowed = None if selected is None else selected.clips
        scores, clip_ids = clips.search(embeddings, depth, allowed=allowed)
        # Sampled from all clips: a good match means the same with every filter.
        backgrounds = clips.background(embeddings)
        levels = self.snapshot.frame_levels(embeddings, backgrounds)
        return _Retrieved(scores, clip_ids, backgrounds, levels)

    def num_located(self) -> int:
        """Return how many moments the localiser finds: more than are shown if they are re-ranked."""
        return self.top if self.reranker is None else num_located(self.top)

    def candidates(
        self, ids: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> dict[int, Candidate]:
        """Return the videos of the retrieved clips by id, best clip first, with the stretches around the clips."""
        snapshot, grid = self.snapshot, self.snapshot.index.manifest.grid
        found: list[tuple[int, Span]] = []
        clips: dict[int, list[tuple[Span, float]]] = {}
        real = np.isfinite(scores)
        for identifier, score in zip(ids[real].tolist(), scores[real].tolist(), strict=True):
            video_id, ordinal = split_clip_id(identifier)
            span = grid.span(ordinal, snapshot.videos[video_id].duration_seconds)
            found.append((video_id, span))
            clips.setdefault(video_id, []).append((span, score))
        by_video = stretches_around(found, snapshot.videos, self.settings.context_seconds)
        return {
            video_id: Candidate(
                snapshot.stored(snapshot.videos[video_id]), stretches, tuple(clips[video_id])
            )
            for video_id, stretches in by_video.items()
        }

    def is_chance(self, best_clips: NDArray[np.float32], background: NDArray[np.float32]) -> bool:
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
    ) -> tuple[Moment, ...]:
        """Turn proposals into moments with their strength."""
        level, _ = background_level(background)
        margin = max(self.snapshot.chance.margin, 1e-6)
        moments = []
        for each in proposals:
            video = self.snapshot.videos[video_ids[each.candidate]]
            strength = (each.cosine - level) / margin
            moments.append(Moment(video.video_id, video.path, each.span, each.score, strength))
        return tuple(moments)


def _video(snapshot: Snapshot, video_id: int) -> Video:
    if video_id not in snapshot.videos:
        raise QueryError(f"there is no video {video_id}; search again, it may have been forgotten")
    return snapshot.videos[video_id]


def _query(features: TextFeatures, k: int, background: NDArray[np.float32]) -> Query:
    """Return one of several queries, with its level over the library."""
    mean, std = background_level(background)
    return Query(unit(features.joint[k]), features.joint[k], features.states[k], mean, std)


def _refuse_empty(texts: Sequence[str]) -> None:
    if empty := [position for position, text in enumerate(texts) if not text.strip()]:
        raise QueryError(
            f'query {empty[0] + 1} is empty; describe the moment, such as "a red car at night"'
        )
