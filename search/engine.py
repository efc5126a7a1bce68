"""From the text of a query to its moments.

    with SearchEngine.open("~/.scanonce") as engine:
        result = engine.search("a red car drives past at night")
        for moment in result.moments:
            print(moment.path, moment.span.start_seconds, moment.span.end_seconds, moment.score)

Everything that depends on a video alone is computed at indexing. A query runs the text tower once and reads stored
arrays; it decodes nothing.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.settings import TrackSettings
from scanonce.models.vectors import unit
from scanonce.search.answer import Search, Stopwatch, query_of
from scanonce.search.ceilings import MOST_VIDEOS, KeptTexts, ceilings
from scanonce.search.channels import with_words
from scanonce.search.compound import NOTHING_GIVEN, answer_compound
from scanonce.search.coverage import coverage
from scanonce.search.examples import Example, VisionTower, with_examples
from scanonce.search.feedback import Feedback, Piece, deep, pieces_of
from scanonce.search.filters import SearchScope
from scanonce.search.grades import GOOD
from scanonce.search.localise import Curve, Localiser, embeddings_of, frame_curve
from scanonce.search.query import Given, Query, Text, is_plain, leaves, parse, sentence
from scanonce.search.query_text import query_text
from scanonce.search.result import Coverage, SearchResult
from scanonce.search.settings import SearchSettings
from scanonce.search.snapshot import OpenIndexes, Snapshot, next_snapshot, open_snapshot
from scanonce.search.suggest import standing_out
from scanonce.storage.errors import IndexDirectoryError, QueryError
from scanonce.storage.files import expanded
from scanonce.storage.index import Index
from scanonce.storage.manifest import Manifest
from scanonce.storage.records import Line, Span, TrackName, Video

_SUGGESTED = 6

Answer = TypeVar("Answer")


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
        tracks: TrackSettings | None = None,
    ) -> None:
        """Search an open index, and close it in the end. `open` is the usual way in.

        Args:
            index: opened with the pooling of its clips.
            encoder: the text tower of the index.
            settings: settings of the search.
            models: device and number format, in case another encoder has to be loaded later.
            tracks: the text model.

        Raises:
            ScanonceError: as `open`; the index is still open then.
        """
        text_model = (tracks or TrackSettings()).text_model
        self._snapshot = open_snapshot(index, encoder, settings, models, text_model=text_model)
        self._kept = KeptTexts()
        self._is_closed = False
        self._open_indexes = OpenIndexes()
        self._open_indexes.acquire(index)  # the use of this engine; each call adds one
        self._following = Lock()
        # Tokenizers of the Rust library fail with "Already borrowed" if two threads use one at once.
        self._encoding = Lock()
        self._vision = VisionTower()
        self._suggesting = Lock()
        self._suggested: tuple[tuple[int, ...], tuple[str, ...]] | None = None

    @classmethod
    def open(
        cls,
        index_dir: str | Path,
        *,
        settings: SearchSettings | None = None,
        models: ModelSettings | None = None,
        tracks: TrackSettings | None = None,
    ) -> "SearchEngine":
        """Open an index for searching, with the encoder and the localiser it was made with.

        Args:
            index_dir: the index directory.
            settings: settings of the search.
            models: device and number format; its ``encoder`` and ``localiser`` are ignored, the index names its own.
            tracks: the text model that finds lines by their meaning.

        Raises:
            IndexDirectoryError: there is no usable index.
            EncoderError: its encoder cannot be loaded.
            LocaliserError: its localiser cannot be loaded.
            ManifestMismatch: the weights of one of them have changed since indexing.
        """
        root = Path(os.path.realpath(expanded(index_dir)))
        with ExitStack() as on_error:
            index = on_error.enter_context(Index.open(root, open_pooling, read_only=True))
            encoder = load_encoder(index.manifest.encoder, models, towers="text")
            engine = cls(index, encoder, settings or SearchSettings(), models, tracks)
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
    def is_calibrated(self) -> bool:
        """Whether the probabilities of the encoder were fitted to labelled queries."""
        return self._snapshot.judge.calibration.is_fitted

    @property
    def videos(self) -> Mapping[int, Video]:
        """Searchable videos by id."""
        return self._snapshot.videos

    @property
    def num_videos(self) -> int:
        """The number of searchable videos."""
        return len(self.videos)

    def search(
        self,
        text: str,
        *,
        examples: Sequence[Example] = (),
        more_like: Sequence[Piece] = (),
        less_like: Sequence[Piece] = (),
        top: int | None = None,
        within: SearchScope = None,
    ) -> SearchResult:
        """Find the moments that show what the text says, or where it is said or written.

        A filter restricts the clips that are searched, so a narrow one finds as many moments as a wide one, if there
        are as many. The probability of a moment is the same with every filter.

        Args:
            text: a sentence in the language of the encoder, or several with operators between them
                (`search.query`); `SearchResult.query` is the text as it was taken. It may be empty if there is an
                example, or something in ``more_like``.
            examples: images and clips that the moments must look like too (`search.examples`), decoded in a guarded
                child. `SearchResult.query` is their names if there is no text.
            more_like: moments or pieces of videos that are right: their like comes first (`search.feedback`).
            less_like: moments that are wrong: they are left out, and their like comes later.
            top: the most moments to return; by default that of the settings.
            within: the videos to search: a `search.filters.Filter` or their ids; by default all. If none passes, the
                answer is empty and `SearchResult.num_videos` is 0.

        Raises:
            QueryError: the text is empty or not UTF-8, see `search.query_text`; or it has operators that cannot be
                read, or an example that is of no video; or the file of an example cannot be used.
            EncoderError: the vision tower of the index, which examples need, cannot be loaded.
            IndexDirectoryError: the index was damaged or removed meanwhile.
        """
        if more_like or less_like:
            return _search_again(self, text, examples, (more_like, less_like), top, within)
        if not examples:
            return self.search_many([text], top=top, within=within)[0]
        query, given = with_examples(text, examples)
        shown = query_text(text) if text.strip() else str(query)

        def answer(snapshot: Snapshot) -> SearchResult:
            watch = Stopwatch()
            with watch("examples"):
                images = {part: self._vision.embed(snapshot, each) for part, each in given.items()}
            search = Search(snapshot, snapshot.methods.localiser, top, within, reranks=True)
            return self._answer_compound(search, shown, query, images, watch)

        return self._answer(answer)

    def search_many(
        self, texts: Sequence[str], *, top: int | None = None, within: SearchScope = None
    ) -> list[SearchResult]:
        """Answer several queries at once, encoded and looked up together; one result each, in their order.

        Raises:
            QueryError: as `search`; then none of them is answered.
        """
        texts = _taken(texts)
        if not texts:
            return []
        queries = [parse(text) for text in texts]

        def answer(snapshot: Snapshot) -> list[SearchResult]:
            search = Search(snapshot, snapshot.methods.localiser, top, within, reranks=True)
            return _answer_many(self, search, texts, queries)

        return self._answer(answer)

    def _answer_plain(self, search: Search, texts: Sequence[str]) -> list[SearchResult]:
        if not texts:
            return []
        watch = Stopwatch()
        with watch("text"):
            features = self._encode(search.snapshot, texts)
        with watch("judging"):
            readings = self._read(search.snapshot, texts)
        return search.answer(texts, features, watch, readings)

    def _answer_compound(
        self,
        search: Search,
        text: str,
        query: Query,
        given: Mapping[Given, NDArray[np.float32]] = NOTHING_GIVEN,
        watch: Stopwatch | None = None,
    ) -> SearchResult:
        encode, read = partial(self._encode, search.snapshot), partial(self._read, search.snapshot)
        return answer_compound(search, text, query, encode, read, given, watch)

    def lines(self, video_id: int, tracks: Collection[TrackName] | None = None) -> list[Line]:
        """Return the lines of a video, by time: a transcript. By default those of all tracks.

        Raises:
            QueryError: there is no such video.
        """

        def answer(snapshot: Snapshot) -> list[Line]:
            video = snapshot.video(video_id)
            return snapshot.index.catalog.lines.of(video.video_id, tracks)

        return self._answer(answer)

    def similar(
        self, video_id: int, span: Span, *, top: int | None = None, within: SearchScope = None
    ) -> SearchResult:
        """Find moments that look like a given one, by the embedding of its frames; the given moment is among them.

        A trained localiser and a re-ranker read text. So these moments are found by the curve of frame scores and are
        not re-ranked. Their probability is their likeness (`search.text_bank.TextBank.likeness`), 1 for the given one.

        Raises:
            QueryError: there is no such video.
        """

        def answer(snapshot: Snapshot) -> list[SearchResult]:
            video = snapshot.video(video_id)
            watch = Stopwatch()
            with watch("text"):
                bounds = np.array([(span.start_seconds, span.end_seconds)])
                (image,) = snapshot.index.embed(video, bounds)
            towards = snapshot.judge.towards(image)[None]
            features = TextFeatures(towards, np.empty((1, 0), np.float32))
            search = Search(snapshot, snapshot.methods.by_frames, top, within, reranks=False)
            return search.answer([f"like {video.path.name}"], features, watch)

        return self._answer(answer)[0]

    def coverage(self, text: str, *, within: SearchScope = None) -> Coverage:
        """Count the videos with a good match; in a library of more than 64 videos, of a random sample of 64.

        Raises:
            QueryError: the text is empty.
            IndexDirectoryError: the index was damaged or removed meanwhile.
        """
        text = sentence(query_text(text))

        def answer(snapshot: Snapshot) -> Coverage:
            features, (reading,) = self._encode(snapshot, [text]), self._read(snapshot, [text])
            query = query_of(features, 0)
            selected = snapshot.filters.apply(within)
            return coverage(snapshot, text, query, reading, selected)

        return self._answer(answer)

    def read(self, text: str) -> Reading:
        """Say how the encoder of the index reads a text.

        Raises:
            QueryError: see `search`.
        """
        text = query_text(text)
        with self.reading() as snapshot:
            return self._read(snapshot, [text])[0]

    def suggestions(self, number: int = 3) -> tuple[str, ...]:
        """Return queries that stand out in the library and have a good match, the same until the library changes.

        They are fewer than asked for if the library shows little that the bank of everyday texts knows.

        Args:
            number: the most to return.
        """
        with self.reading() as snapshot, self._suggesting:
            if self._suggested is None or self._suggested[0] != snapshot.token:
                found = self._checked(standing_out(snapshot, _SUGGESTED), _SUGGESTED)
                self._suggested = snapshot.token, found
            return self._suggested[1][:number]

    def _checked(self, texts: Sequence[str], number: int) -> tuple[str, ...]:
        """Return the first texts whose best moment is a good match."""
        found = self.search_many(texts, top=1)
        return tuple(each.query for each in found if not each.no_good_match)[:number]

    def curve(self, text: str, video_id: int) -> Curve:
        """Score each piece of a whole video with the text.

        Raises:
            QueryError: the text is empty, or there is no such video.
        """
        text = sentence(query_text(text))

        def answer(snapshot: Snapshot) -> Curve:
            stored = snapshot.stored(snapshot.video(video_id))
            features = self._encode(snapshot, [text])
            embeddings = unit(features.joint)
            levels = snapshot.frame_levels(embeddings, snapshot.clips.background(embeddings))
            return snapshot.methods.localiser.curve(query_of(features, 0, levels[0]), stored)

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

    def _read(self, snapshot: Snapshot, texts: Sequence[str]) -> list[Reading]:
        with self._encoding:
            return [snapshot.encoder.read(text) for text in texts]


def good_matches(
    engine: SearchEngine,
    texts: Sequence[str],
    *,
    top: int | None = None,
    within: SearchScope = None,
) -> dict[int, SearchResult]:
    """Answer the queries that have a good match, out of many that mostly have none.

    In few videos, all queries are judged at once (`search.ceilings`), and only those that may have a good match
    are located. Texts are encoded once for as long as the engine lives.

    Args:
        texts: the queries.
        top: as `SearchEngine.search`.
        within: as `SearchEngine.search`.

    Returns:
        Answers with a good match, by position in ``texts``.

    Raises:
        QueryError: as `SearchEngine.search`; then none of them is answered.
    """
    texts = _taken(texts)
    queries = [parse(text) for text in texts]

    def answer(snapshot: Snapshot) -> dict[int, SearchResult]:
        search = Search(snapshot, snapshot.methods.localiser, top, within, reranks=True)
        highest = _ceilings(engine, snapshot, queries, within)
        chosen = np.flatnonzero(highest >= GOOD).tolist()
        results = _answer_many(
            engine, search, [texts[k] for k in chosen], [queries[k] for k in chosen]
        )
        return {k: each for k, each in zip(chosen, results, strict=True) if each.num_good}

    return engine._answer(answer)


def ceilings_of(
    engine: SearchEngine, texts: Sequence[str], *, within: SearchScope = None
) -> NDArray[np.float64]:
    """Return the highest probability that a moment may have for each query, ``[num_texts]``; see `search.ceilings`.

    Raises:
        QueryError: as `SearchEngine.search`.
    """
    queries = [parse(text) for text in _taken(texts)]
    with engine.reading() as snapshot:
        return _ceilings(engine, snapshot, queries, within)


def _answer_many(
    engine: SearchEngine, search: Search, texts: Sequence[str], queries: Sequence[Query]
) -> list[SearchResult]:
    sentences = [text for text, query in zip(texts, queries, strict=True) if is_plain(query)]
    plain = iter(engine._answer_plain(search, sentences))
    return [
        with_words(search, next(plain))
        if is_plain(query)
        else engine._answer_compound(search, text, query)
        for text, query in zip(texts, queries, strict=True)
    ]


def probability_curve(engine: SearchEngine, text: str, video_id: int) -> Curve:
    """Give each stored frame of a video, with its neighbours, its probability, judged by the frames alone.

    The line of a good match (`search.grades.GOOD`) means the same on it as on `Moment.probability`; a moment
    that a trained localiser has found is judged by what that has seen of it, and may be more or less likely.

    Raises:
        QueryError: the text is empty, or there is no such video.
    """
    text = sentence(query_text(text))

    def answer(snapshot: Snapshot) -> Curve:
        stored = snapshot.stored(snapshot.video(video_id))
        query = query_of(engine._encode(snapshot, [text]), 0)
        (reading,) = engine._read(snapshot, [text])
        curve = frame_curve(query, stored)
        if not len(curve.scores):
            return curve
        pieces = embeddings_of(curve, stored)
        found = snapshot.judge.by_frames(text, query, pieces, reading)
        return Curve(curve.edges_seconds, found)

    return engine._answer(answer)


def _ceilings(
    engine: SearchEngine, snapshot: Snapshot, queries: Sequence[Query], within: SearchScope
) -> NDArray[np.float64]:
    selected = snapshot.filters.apply(within)
    ids = snapshot.live if selected is None else selected.ids
    if len(ids) > MOST_VIDEOS:
        return np.ones(len(queries))
    parts = [part for query in queries for part in leaves(query) if isinstance(part, Text)]
    encode, read = partial(engine._encode, snapshot), partial(engine._read, snapshot)
    texts = engine._kept.of(snapshot.encoder, [part.words for part in parts], encode, read)
    return ceilings(snapshot, queries, ids.tolist(), texts)


def _search_again(
    engine: SearchEngine,
    text: str,
    examples: Sequence[Example],
    judged: tuple[Sequence[Piece], Sequence[Piece]],
    top: int | None,
    within: SearchScope,
) -> SearchResult:
    """Answer a query with feedback: a longer answer without it, judged again."""
    more, less = pieces_of(*judged)
    asked = engine._snapshot.settings.top if top is None else top
    is_bare = not text.strip() and not examples
    if is_bare and not more:
        raise QueryError("give a text, an example, or a moment to find more like")
    first = None
    if not is_bare:
        first = engine.search(text, examples=examples, top=deep(asked), within=within)
    plain = None if first is None or examples else parse(first.query)

    def answer(snapshot: Snapshot) -> SearchResult:
        watch = Stopwatch()
        with watch("feedback"):
            feedback = Feedback(snapshot, more, less)
            methods = snapshot.methods
            alike = Search(snapshot, methods.by_frames, deep(asked), within, reranks=False)
            result = first or feedback.alike(alike)
            moments = [each for each in result.moments if each.video_id in snapshot.videos]
            if plain is not None and is_plain(plain):
                found = feedback.alike(alike).moments
                features = engine._encode(snapshot, [result.query])
                (reading,) = engine._read(snapshot, [result.query])
                moments += feedback.judged_by(found, result.query, features, reading)
            again = feedback.again(moments, asked)
        took = {**result.timings_ms, **watch.took_ms}
        took["total"] = sum(value for stage, value in took.items() if stage != "total")
        return replace(result, moments=again, timings_ms=took)

    return engine._answer(answer)


def _taken(texts: Sequence[str]) -> list[str]:
    if len(texts) == 1:
        return [query_text(texts[0])]
    return [query_text(text, f"query {number}") for number, text in enumerate(texts, start=1)]
