"""Small libraries from an existing index: its stored frames and annotated queries; nothing is decoded.

    annotated = annotate(videos, read_annotations(Path("train.jsonl"), "scanonce"))
    texts = encode_texts(encoder, [each.text for each in annotated.queries])
    moments = StoredMoments(annotated, texts, FeatureStore(layout.features), AnchorGrid(2.0, 4, 4))
    moments.library([0, 1], [0, 1, 2])               # two videos and three queries about them
    RandomLibraries(moments, seed=0).library(17)     # a library to train on

A short video is in a library with others; a long film is a library by itself with 32 of its queries, as in the paper
(arXiv 2303.08345). Frames are read when their library is needed, so memory does not grow with the index; queries need
4 kB each at the width of CLIP ViT-B/32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.storage.records import Span, Video
from scanonce.storage.stores.features import FeatureStore
from scanonce.training.bars import OnProgress
from scanonce.training.evaluation.annotations import Annotation, match_names
from scanonce.training.evaluation.rows import plain_text
from scanonce.training.localiser.batches import FilmFrames, MomentLibrary, Queries

QUERIES_OF_A_FILM = 32
"""Queries of a film in one library; the paper's number."""
MOST_FRAMES, MOST_QUERIES = 2048, 128
"""Bounds of a library to train on, unless one film has more frames: 17 minutes at 2 frames a second."""
VALIDATION_FRAMES = 8192
"""Bound of a library of validation; it has all queries of its films."""
_SHORTEST_SECONDS = 0.05
"""Shortest part of an answer within its video; shorter ones cannot be found."""
_ENCODED_AT_ONCE = 256

Chunk = tuple[int, NDArray[np.int64]]
"""A film and some of its queries, both by number."""


@dataclass(frozen=True, slots=True)
class AnnotatedQuery:
    """A query about a video of the index."""

    video: int
    """Position of the video among all videos."""
    text: str
    spans: tuple[Span, ...]
    """Its correct answers, at least one, all within the video."""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class AnnotatedVideos:
    """Annotations for training or validation, and those that are left out."""

    videos: tuple[Video, ...]
    """Videos with a query, by id."""
    queries: tuple[AnnotatedQuery, ...]
    missing: tuple[str, ...] = ()
    """Names of annotated videos that are not in the index."""
    whole: int = 0
    """Number of queries left out because they have no span."""
    outside: int = 0
    """Number of queries left out because no answer is within their video."""


def annotate(videos: Iterable[Video], annotations: Iterable[Annotation]) -> AnnotatedVideos:
    """Match annotations with videos of an index.

    Args:
        videos: videos with at least one frame; a video with several paths is found by the name of each.
        annotations: annotations of a benchmark.

    Raises:
        ConfigError: two videos have the name of one annotated video.
    """
    annotations = list(annotations)
    by_path: dict[Path, Video] = {}
    for video in videos:
        by_path |= dict.fromkeys({path.stem: path for path in video.paths}.values(), video)
    paths, missing = match_names((each.video for each in annotations), by_path)
    found = {name: by_path[path] for name, path in paths.items()}
    chosen = {video.video_id: video for video in found.values()}
    inside: list[tuple[int, Annotation, tuple[Span, ...]]] = []
    whole = outside = 0
    for each in annotations:
        if each.video not in found:
            continue
        video = found[each.video]
        spans = [_clip(span, video.duration_seconds) for span in each.spans]
        kept = tuple(span for span in spans if span.duration_seconds >= _SHORTEST_SECONDS)
        if kept:
            inside.append((video.video_id, each, kept))
        whole += not each.spans
        outside += bool(each.spans) and not kept
    used = sorted({video_id for video_id, _, _ in inside})
    position = {video_id: number for number, video_id in enumerate(used)}
    return AnnotatedVideos(
        videos=tuple(chosen[video_id] for video_id in used),
        queries=tuple(
            AnnotatedQuery(position[video_id], each.text, spans, each.kind)
            for video_id, each, spans in inside
        ),
        missing=tuple(missing),
        whole=whole,
        outside=outside,
    )


def _clip(span: Span, duration_seconds: float) -> Span:
    end = min(span.end_seconds, duration_seconds)
    return Span(min(span.start_seconds, end), end)


def split_off(
    annotated: AnnotatedVideos, share: float, *, seed: int
) -> tuple[AnnotatedVideos, AnnotatedVideos]:
    """Split videos, with their queries, into those to train on and those held out.

    Args:
        annotated: all videos.
        share: share of held-out videos, at least one; none if there are fewer than five videos.
        seed: seed of the choice.
    """
    count = len(annotated.videos)
    num_held_out = max(1, round(count * share)) if count >= 5 else 0
    order = np.random.default_rng((seed, 61)).permutation(count)
    return (
        _select(annotated, order[num_held_out:].tolist()),
        _select(annotated, order[:num_held_out].tolist()),
    )


def _select(annotated: AnnotatedVideos, videos: Iterable[int]) -> AnnotatedVideos:
    position = {video: number for number, video in enumerate(sorted(videos))}
    return AnnotatedVideos(
        tuple(annotated.videos[video] for video in position),
        tuple(
            AnnotatedQuery(position[each.video], each.text, each.spans, each.kind)
            for each in annotated.queries
            if each.video in position
        ),
    )


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Features of texts, each of which is encoded once."""

    rows: dict[str, int]
    """Row of each text in ``features``."""
    features: TextFeatures

    def of(self, texts: Iterable[str]) -> TextFeatures:
        """Return the features of texts, in this order."""
        rows = [self.rows[text] for text in texts]
        return TextFeatures(self.features.joint[rows], self.features.states[rows])


def encode_texts(
    encoder: ClipEncoder,
    texts: Iterable[str],
    on_progress: OnProgress = lambda done, total: None,
) -> EncodedTexts:
    """Encode every text once.

    Args:
        encoder: encoder of the index.
        texts: texts; may repeat.
        on_progress: called with the number of texts that are done, and of all texts.
    """
    unique = list(dict.fromkeys(texts))
    parts: list[TextFeatures] = []
    for first in range(0, len(unique), _ENCODED_AT_ONCE):
        parts.append(encoder.encode_text_features(unique[first : first + _ENCODED_AT_ONCE]))
        on_progress(min(first + _ENCODED_AT_ONCE, len(unique)), len(unique))
    features = TextFeatures(
        np.concatenate([part.joint for part in parts]),
        np.concatenate([part.states for part in parts]),
    )
    return EncodedTexts({text: row for row, text in enumerate(unique)}, features)


class StoredMoments:
    """Annotated videos of an index, from which libraries are made."""

    def __init__(
        self,
        annotated: AnnotatedVideos,
        texts: EncodedTexts,
        store: FeatureStore,
        grid: AnchorGrid,
    ) -> None:
        """Hold annotated videos.

        Args:
            annotated: videos and queries.
            texts: features of the queries.
            store: stored frames of the videos.
            grid: grid whose times decide the frames, as at search.
        """
        self.videos, self.queries = annotated.videos, annotated.queries
        self.num_frames = [grid.num_frames(video.duration_seconds) for video in self.videos]
        self._texts, self._store, self._grid = texts, store, grid

    @cached_property
    def queries_of(self) -> list[NDArray[np.int64]]:
        """Numbers of the queries of each video."""
        found: list[list[int]] = [[] for _ in self.videos]
        for number, query in enumerate(self.queries):
            found[query.video].append(number)
        return [np.array(numbers, np.int64) for numbers in found]

    @cached_property
    def _same_text(self) -> dict[str, list[AnnotatedQuery]]:
        """Queries by their text; each has the answers of all with the same text."""
        found: dict[str, list[AnnotatedQuery]] = {}
        for query in self.queries:
            found.setdefault(plain_text(query.text), []).append(query)
        return found

    def library(self, videos: Sequence[int], queries: Sequence[int]) -> MomentLibrary:
        """Make a library of videos and some of the queries about them, both by number.

        Queries with the same text about these videos have the answers of all of them.

        Raises:
            IndexDirectoryError: the stored features of a video are missing or damaged.
        """
        asked = [self.queries[number] for number in queries]
        answers = self.answers(videos, queries)
        most = max(map(len, answers))
        padded = [each + each[:1] * (most - len(each)) for each in answers]
        answer_sets = [frozenset(each) for each in answers]
        scenes = {answer: number for number, answer in enumerate(dict.fromkeys(answer_sets))}
        features = self._texts.of(query.text for query in asked)
        return MomentLibrary(
            [self._film(video) for video in videos],
            Queries(
                texts=[query.text for query in asked],
                films=np.array([[film for film, _ in each] for each in padded]),
                scenes=np.array([scenes[each] for each in answer_sets]),
                spans=np.array(
                    [[(s.start_seconds, s.end_seconds) for _, s in each] for each in padded]
                ),
                kinds=[query.kind for query in asked],
                joint=features.joint,
                states=features.states,
            ),
        )

    def answers(
        self, videos: Sequence[int], queries: Sequence[int]
    ) -> list[list[tuple[int, Span]]]:
        """Return all answers to queries: (position among these videos, span), the query's own first."""
        position = {video: number for number, video in enumerate(videos)}
        return [self._answers(self.queries[number], position) for number in queries]

    def _answers(self, query: AnnotatedQuery, position: dict[int, int]) -> list[tuple[int, Span]]:
        same = [query, *self._same_text[plain_text(query.text)]]
        found = [
            (position[each.video], span)
            for each in same
            if each.video in position
            for span in each.spans
        ]
        return list(dict.fromkeys(found))

    def _film(self, number: int) -> FilmFrames:
        video = self.videos[number]
        stored = self._store.read(video.uid)
        rows = self._grid.frame_rows(stored.pts_seconds, video.duration_seconds)
        return FilmFrames(stored.frames[rows], video.duration_seconds)

    def library_of(self, chunks: Sequence[Chunk]) -> MomentLibrary:
        """Make a library of films with these of their queries."""
        queries = np.concatenate([numbers for _, numbers in chunks])
        return self.library([film for film, _ in chunks], queries.tolist())


# --- Libraries to train and to validate on ---


class RandomLibraries:
    """Random libraries; all queries occur once before any is repeated.

    It is a `training.localiser.run.Examples`: number and seed alone decide the contents of a library.
    """

    def __init__(
        self,
        moments: StoredMoments,
        *,
        seed: int,
        most_frames: int = MOST_FRAMES,
        most_queries: int = MOST_QUERIES,
    ) -> None:
        """Draw from ``moments``; ``most_frames`` and ``most_queries`` bound a library of several videos."""
        self._moments, self._seed = moments, seed
        self._most_frames, self._most_queries = most_frames, most_queries
        self._ends = [0]  # libraries before each epoch
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def num_libraries(self, epochs: int) -> int:
        """Return the number of libraries of these epochs together."""
        while len(self._ends) <= epochs:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)))
        return self._ends[epochs]

    def library(self, number: int) -> MomentLibrary:
        """See `training.localiser.run.Examples`."""
        while self._ends[-1] <= number:
            self.num_libraries(len(self._ends))
        epoch = bisect_right(self._ends, number) - 1
        return self._moments.library_of(self._epoch(epoch)[number - self._ends[epoch]])

    def _draw(self, epoch: int) -> list[list[Chunk]]:
        rng = np.random.default_rng((self._seed, 67, epoch))
        chunks: list[Chunk] = []
        for film, numbers in enumerate(self._moments.queries_of):
            shuffled = rng.permutation(numbers)
            pieces = -(-len(numbers) // QUERIES_OF_A_FILM)
            chunks += [(film, piece) for piece in np.array_split(shuffled, pieces)]
        chunks = [chunks[number] for number in rng.permutation(len(chunks))]
        libraries = pack_libraries(
            chunks, self._moments.num_frames, self._most_frames, self._most_queries
        )
        return [libraries[number] for number in rng.permutation(len(libraries))]


class ValidationLibraries(Sequence[MomentLibrary]):
    """The libraries of validation: every video once, with all its queries. They are made at each access."""

    def __init__(
        self, moments: StoredMoments, *, seed: int, most_frames: int = VALIDATION_FRAMES
    ) -> None:
        """Group the videos of ``moments``; the grouping depends on ``seed``."""
        self._moments = moments
        order = np.random.default_rng((seed, 71)).permutation(len(moments.videos)).tolist()
        chunks = [(film, moments.queries_of[film]) for film in order]
        most_queries = sum(len(numbers) for _, numbers in chunks)
        self.groups = pack_libraries(chunks, moments.num_frames, most_frames, most_queries)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> MomentLibrary:  # type: ignore[override]  # no slices
        return self._moments.library_of(self.groups[number])


def pack_libraries(
    chunks: Sequence[Chunk], num_frames: Sequence[int], most_frames: int, most_queries: int
) -> list[list[Chunk]]:
    """Group chunks into libraries, in order; films with more than half of the frames are libraries by themselves.

    Args:
        chunks: films with some of their queries; a film may occur several times, in different groups.
        num_frames: frames of each film.
        most_frames: bound of a group of several films.
        most_queries: bound of a group of several films.
    """
    alone = [[chunk] for chunk in chunks if num_frames[chunk[0]] > most_frames / 2]
    groups: list[list[Chunk]] = []
    frames = queries = 0
    films: set[int] = set()
    for film, numbers in chunks:
        if num_frames[film] > most_frames / 2:
            continue
        frames, queries = frames + num_frames[film], queries + len(numbers)
        if not groups or frames > most_frames or queries > most_queries or film in films:
            groups.append([])
            films = set()
            frames, queries = num_frames[film], len(numbers)
        groups[-1].append((film, numbers))
        films.add(film)
    return alone + groups
