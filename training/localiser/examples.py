"""Small libraries from an existing index: its stored frames and annotated sentences, nothing decoded.

    annotated = annotate(videos, read_annotations(Path("train.jsonl"), "scanonce"))
    texts = encode_sentences(encoder, [each.text for each in annotated.sentences])
    moments = StoredMoments(annotated, texts, FeatureStore(layout.features), AnchorGrid(2.0, 4, 4))
    moments.library([0, 1], [0, 1, 2])          # two videos and three sentences about them
    Drawn(moments, seed=0).library(17)          # what is trained on in a step

A short video makes a library with others, a long film makes one by itself with 32 of its queries, as in the paper
(arXiv 2303.08345). Frames are read when their library is due, so memory does not grow with the index; sentences need
4 kB each at the width of CLIP ViT-B/32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.storage.records import Span, Video
from scanonce.storage.stores.features import FeatureStore
from scanonce.training.evaluation.annotations import Annotation, match_names
from scanonce.training.localiser.batches import FilmFrames, MomentLibrary, Queries

QUERIES_OF_A_FILM = 32
"""In one library; the paper's number."""
MOST_FRAMES, MOST_QUERIES = 2048, 128
"""Of a library to train on, unless one film has more frames: 17 minutes at 2 frames a second."""
VALIDATION_FRAMES = 8192
"""Of a library of validation, likewise; it has all queries of its films."""
_SHORTEST_SECONDS = 0.05
"""What is left of an answer in its video; an answer of less cannot be found."""
_ENCODED_AT_ONCE = 256

Chunk = tuple[int, NDArray[np.int64]]
"""A film and some of its sentences, both by number."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence about a video of the index."""

    video: int
    """Position among the videos."""
    text: str
    spans: tuple[Span, ...]
    """Its right answers, at least one, all within the video."""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class AnnotatedVideos:
    """Annotations that can be trained or judged on, and what is left out."""

    videos: tuple[Video, ...]
    """Those with a sentence, by id."""
    sentences: tuple[Sentence, ...]
    missing: tuple[str, ...] = ()
    """Names of annotated videos that the index has not."""
    whole: int = 0
    """Sentences left out because they name no span."""
    outside: int = 0
    """Sentences left out because no answer lies within their video."""


def annotate(videos: Iterable[Video], annotations: Iterable[Annotation]) -> AnnotatedVideos:
    """The sentences about videos of an index.

    Args:
        videos: with at least one frame; the same content under several paths goes by each of their names.
        annotations: of a benchmark.

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
        spans = [_within(span, video.duration_seconds) for span in each.spans]
        kept = tuple(span for span in spans if span.duration_seconds >= _SHORTEST_SECONDS)
        if kept:
            inside.append((video.video_id, each, kept))
        whole += not each.spans
        outside += bool(each.spans) and not kept
    used = sorted({video_id for video_id, _, _ in inside})
    place = {video_id: number for number, video_id in enumerate(used)}
    return AnnotatedVideos(
        videos=tuple(chosen[video_id] for video_id in used),
        sentences=tuple(
            Sentence(place[video_id], each.text, spans, each.kind)
            for video_id, each, spans in inside
        ),
        missing=tuple(missing),
        whole=whole,
        outside=outside,
    )


def _within(span: Span, duration_seconds: float) -> Span:
    end = min(span.end_seconds, duration_seconds)
    return Span(min(span.start_seconds, end), end)


def split_off(
    annotated: AnnotatedVideos, share: float, *, seed: int
) -> tuple[AnnotatedVideos, AnnotatedVideos]:
    """Videos to train on and videos held out, with their sentences; a video is in one of them only.

    Args:
        annotated: both together.
        share: Of the videos, held out, at least one; with fewer than five videos none is.
        seed: Of the choice.
    """
    count = len(annotated.videos)
    num_held_out = max(1, round(count * share)) if count >= 5 else 0
    order = np.random.default_rng((seed, 61)).permutation(count)
    return (
        _only(annotated, order[num_held_out:].tolist()),
        _only(annotated, order[:num_held_out].tolist()),
    )


def _only(annotated: AnnotatedVideos, videos: Iterable[int]) -> AnnotatedVideos:
    place = {video: number for number, video in enumerate(sorted(videos))}
    return AnnotatedVideos(
        tuple(annotated.videos[video] for video in place),
        tuple(
            Sentence(place[each.video], each.text, each.spans, each.kind)
            for each in annotated.sentences
            if each.video in place
        ),
    )


@dataclass(frozen=True, eq=False)
class SentenceFeatures:
    """What an encoder makes of sentences, each of which it reads once."""

    rows: dict[str, int]
    """Row of each text below."""
    features: TextFeatures

    def of(self, texts: Iterable[str]) -> TextFeatures:
        """In this order."""
        rows = [self.rows[text] for text in texts]
        return TextFeatures(self.features.joint[rows], self.features.states[rows])


def encode_sentences(
    encoder: ClipEncoder,
    texts: Iterable[str],
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> SentenceFeatures:
    """Reads every text once.

    Args:
        encoder: Of the index.
        texts: May repeat.
        observe: Is told how many of how many are done.
    """
    unique = list(dict.fromkeys(texts))
    parts: list[TextFeatures] = []
    for first in range(0, len(unique), _ENCODED_AT_ONCE):
        parts.append(encoder.encode_text_features(unique[first : first + _ENCODED_AT_ONCE]))
        observe(min(first + _ENCODED_AT_ONCE, len(unique)), len(unique))
    features = TextFeatures(
        np.concatenate([part.joint for part in parts]),
        np.concatenate([part.states for part in parts]),
    )
    return SentenceFeatures({text: row for row, text in enumerate(unique)}, features)


class StoredMoments:
    """Annotated videos of an index, any of which can be made into a library."""

    def __init__(
        self,
        annotated: AnnotatedVideos,
        texts: SentenceFeatures,
        store: FeatureStore,
        grid: AnchorGrid,
    ) -> None:
        """``texts`` has the sentences' features; frames are those that answer the grid's times, as at search."""
        self.videos, self.sentences = annotated.videos, annotated.sentences
        self.num_frames = [grid.num_frames(video.duration_seconds) for video in self.videos]
        self._texts, self._store, self._grid = texts, store, grid

    @cached_property
    def sentences_of(self) -> list[NDArray[np.int64]]:
        """Numbers of the sentences of each video."""
        found: list[list[int]] = [[] for _ in self.videos]
        for number, sentence in enumerate(self.sentences):
            found[sentence.video].append(number)
        return [np.array(numbers, np.int64) for numbers in found]

    @cached_property
    def _same_text(self) -> dict[str, list[Sentence]]:
        """Sentences by their words: who asks them twice means either answer."""
        found: dict[str, list[Sentence]] = {}
        for sentence in self.sentences:
            found.setdefault(_words(sentence.text), []).append(sentence)
        return found

    def library(self, videos: Sequence[int], sentences: Sequence[int]) -> MomentLibrary:
        """Some videos side by side, and some of the sentences about them.

        A sentence that is also annotated elsewhere in these videos has those answers too.

        Raises:
            IndexDirectoryError: the stored features of a video are missing or damaged.
        """
        asked = [self.sentences[number] for number in sentences]
        answers = self.answers(videos, sentences)
        most = max(map(len, answers))
        padded = [each + each[:1] * (most - len(each)) for each in answers]
        meant = [frozenset(each) for each in answers]
        scenes = {answer: number for number, answer in enumerate(dict.fromkeys(meant))}
        features = self._texts.of(sentence.text for sentence in asked)
        return MomentLibrary(
            [self._film(video) for video in videos],
            Queries(
                texts=[sentence.text for sentence in asked],
                films=np.array([[film for film, _ in each] for each in padded]),
                scenes=np.array([scenes[each] for each in meant]),
                spans=np.array(
                    [[(s.start_seconds, s.end_seconds) for _, s in each] for each in padded]
                ),
                kinds=[sentence.kind for sentence in asked],
                joint=features.joint,
                states=features.states,
            ),
        )

    def answers(
        self, videos: Sequence[int], sentences: Sequence[int]
    ) -> list[list[tuple[int, Span]]]:
        """All right answers to some sentences: (place among these videos, span), its own first."""
        place = {video: number for number, video in enumerate(videos)}
        return [self._answers(self.sentences[number], place) for number in sentences]

    def _answers(self, sentence: Sentence, place: dict[int, int]) -> list[tuple[int, Span]]:
        same = [sentence, *self._same_text[_words(sentence.text)]]
        found = [
            (place[each.video], span) for each in same if each.video in place for span in each.spans
        ]
        return list(dict.fromkeys(found))

    def _film(self, number: int) -> FilmFrames:
        video = self.videos[number]
        stored = self._store.read(video.uid)
        rows = self._grid.frame_rows(stored.pts_seconds, video.duration_seconds)
        return FilmFrames(stored.frames[rows], video.duration_seconds)


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


# --- Libraries to train on ------------------------------------------------------------------------


class Drawn:
    """Libraries drawn by chance; all sentences come once before any comes again.

    It is a `training.localiser.run.Examples`: number and seed alone decide what is in a library.
    """

    def __init__(
        self,
        moments: StoredMoments,
        *,
        seed: int,
        most_frames: int = MOST_FRAMES,
        most_queries: int = MOST_QUERIES,
    ) -> None:
        """``most_frames`` and ``most_queries`` bound a library of several videos."""
        self._moments, self._seed = moments, seed
        self._most_frames, self._most_queries = most_frames, most_queries
        self._ends = [0]  # libraries before each epoch
        self._epoch = lru_cache(maxsize=2)(self._drawn)

    def num_libraries(self, epochs: int) -> int:
        """Of some epochs together."""
        while len(self._ends) <= epochs:
            self._ends.append(self._ends[-1] + len(self._epoch(len(self._ends) - 1)))
        return self._ends[epochs]

    def library(self, number: int) -> MomentLibrary:
        """See `training.localiser.run.Examples`."""
        while self._ends[-1] <= number:
            self.num_libraries(len(self._ends))
        epoch = bisect_right(self._ends, number) - 1
        chunks = self._epoch(epoch)[number - self._ends[epoch]]
        sentences = np.concatenate([numbers for _, numbers in chunks])
        return self._moments.library([film for film, _ in chunks], sentences.tolist())

    def _drawn(self, epoch: int) -> list[list[Chunk]]:
        rng = np.random.default_rng((self._seed, 67, epoch))
        chunks: list[Chunk] = []
        for film, numbers in enumerate(self._moments.sentences_of):
            shuffled = rng.permutation(numbers)
            pieces = -(-len(numbers) // QUERIES_OF_A_FILM)
            chunks += [(film, piece) for piece in np.array_split(shuffled, pieces)]
        chunks = [chunks[number] for number in rng.permutation(len(chunks))]
        libraries = packed(chunks, self._moments.num_frames, self._most_frames, self._most_queries)
        return [libraries[number] for number in rng.permutation(len(libraries))]


def packed(
    chunks: Sequence[Chunk], num_frames: Sequence[int], most_frames: int, most_queries: int
) -> list[list[Chunk]]:
    """Chunks in groups that make libraries, in order; a film of more than half the frames stays alone.

    Args:
        chunks: Films with some of their sentences; a film may come several times, in groups apart.
        num_frames: Of each film.
        most_frames: Of a group of several films.
        most_queries: Likewise.
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


class Fixed(Sequence[MomentLibrary]):
    """The libraries of validation: every video once, with all its sentences. Made anew each time they are asked for."""

    def __init__(
        self, moments: StoredMoments, *, seed: int, most_frames: int = VALIDATION_FRAMES
    ) -> None:
        """``seed``: of who is with whom."""
        self._moments = moments
        order = np.random.default_rng((seed, 71)).permutation(len(moments.videos)).tolist()
        chunks = [(film, moments.sentences_of[film]) for film in order]
        most_queries = sum(len(numbers) for _, numbers in chunks)
        self.groups = packed(chunks, moments.num_frames, most_frames, most_queries)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> MomentLibrary:  # type: ignore[override]  # no slices
        group = self.groups[number]
        sentences = np.concatenate([numbers for _, numbers in group])
        return self._moments.library([film for film, _ in group], sentences.tolist())
