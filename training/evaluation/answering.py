"""Answers of an index to the queries of a benchmark: from the library, from the right video, and their speed.

    asked = ask_index(Path("index"), queries)
    asked.answers["12"].library[0]  # Prediction("film_a", Span(3.5, 9.0), .41)
    asked.missing                   # names of videos that are not in the index

This measures finding; `training.evaluation.belief` measures the probabilities.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.search.engine import SearchEngine
from scanonce.search.localise import Curve
from scanonce.search.settings import SearchSettings
from scanonce.storage.files import expanded
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span, Video
from scanonce.training.evaluation.annotations import Query, match_names
from scanonce.training.evaluation.metrics import BothDirections, Prediction, both_directions
from scanonce.training.evaluation.predictions import MOST_PREDICTIONS, Answer

SALIENCY_SECONDS = 2.0
"""Length of the pieces that QVHighlights scores."""

_PAST_END_SECONDS = 3600.0
_BATCH = 64  # queries that are searched together
_TIMED = 200  # queries that are timed one by one
_SAMPLES = 4  # samples of the curve in each piece


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of answers."""

    p50_ms: float
    """Median wall time of a single query, text encoding included; the first query is not counted."""
    p95_ms: float
    num_timed: int
    hours: float
    """Hours of searchable video."""
    bytes_per_hour: dict[str, float]
    """Size of the index on disk per hour of video: its parts, and their ``total``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers of an index."""

    answers: dict[str, Answer]
    """Answers by the id of the query; queries without an indexed video were not asked."""
    videos: Mapping[str, Video]
    """Right videos by their names in the queries."""
    missing: tuple[str, ...]
    """Names of right videos that are not in the index."""
    speed: Speed | None
    retrieval: BothDirections | None
    """Retrieval by queries about whole videos, with pooled frames; None if there are no such queries."""


def ask_index(
    index_dir: Path,
    queries: Sequence[Query],
    *,
    settings: SearchSettings | None = None,
    models: ModelSettings | None = None,
    with_saliency: bool = False,
    timed: int = _TIMED,
) -> Asked:
    """Ask an index all queries whose video it has.

    Args:
        index_dir: folder of the index.
        queries: queries of a benchmark.
        settings: settings of the search; ``top`` is ignored.
        models: device and number format of the encoder.
        with_saliency: also score each 2 s of the right video, for QVHighlights.
        timed: queries that are timed one by one; 0: none, and `Asked.speed` is None.

    Raises:
        IndexDirectoryError: there is no usable index.
        EncoderError: its encoder cannot be loaded.
        ConfigError: two of its videos have the name of one annotated video.
    """
    index_dir = expanded(index_dir).resolve()
    usual = settings or SearchSettings()
    with SearchEngine.open(index_dir, settings=usual, models=models) as engine:
        videos, missing = find_videos(engine, queries)
        asked = [query for query in queries if not query.videos.isdisjoint(videos)]
        library = _ask_library(engine, asked, videos)
        in_video = _ask_in_video(engine, asked, videos)
        saliency = _saliency(engine, asked, videos) if with_saliency else {}
        speed = None
        if timed and asked:
            texts = [query.text for query in asked]
            speed = _measure(engine, IndexLayout.of(index_dir), texts, timed, usual.top)
    answers = {
        query.id: Answer(library[query.id], in_video.get(query.id), saliency.get(query.id, ()))
        for query in asked
    }
    return Asked(answers, videos, missing, speed, _whole_videos(index_dir, asked, videos, models))


def find_videos(
    engine: SearchEngine, queries: Iterable[Query]
) -> tuple[dict[str, Video], tuple[str, ...]]:
    """Return the indexed video of each right video's name, and the names without one."""
    # files with the same content and the same name are one video
    by_path = {
        path: video
        for video in engine.videos.values()
        for path in {path.stem: path for path in video.paths}.values()
    }
    names = [name for query in queries for name in sorted(query.videos)]
    found, missing = match_names(names, by_path)
    return {name: by_path[path] for name, path in found.items()}, tuple(missing)


def pooled_retrieval(
    index_dir: Path,
    texts: Sequence[str],
    parts: Sequence[tuple[Video, Span | None]],
    part_of_text: Sequence[int],
    *,
    models: ModelSettings | None = None,
) -> BothDirections:
    """Text-video retrieval as in papers: texts against pooled frames, nothing else.

    Args:
        index_dir: folder of the index; its stored frames are pooled like its clips, by their mean or its head.
        texts: M texts.
        parts: V videos of the index, or spans of them.
        part_of_text: number of the part that each text is about.
        models: device and number format of the encoder.
    """
    with Index.open(index_dir, open_pooling, read_only=True) as index:
        encoder = load_encoder(index.manifest.encoder, models, towers="text")
        pooled = []
        for video, span in parts:
            # past the end: the last frame is inside, too
            whole = span or Span(0.0, video.duration_seconds + _PAST_END_SECONDS)
            bounds = np.array([(whole.start_seconds, whole.end_seconds)])
            pooled.append(index.embed(video, bounds)[0])
    embeddings = [
        encoder.encode_texts(texts[first : first + _BATCH])
        for first in range(0, len(texts), _BATCH)
    ]
    similarity = unit(np.concatenate(embeddings)) @ np.stack(pooled).T
    return both_directions(similarity, np.asarray(part_of_text, np.int64))


# ---------------------------------------------------------------- asking


def _ask_library(
    engine: SearchEngine,
    queries: Sequence[Query],
    videos: Mapping[str, Video],
    within: frozenset[int] | None = None,
) -> dict[str, tuple[Prediction, ...]]:
    """Ask all queries in the library, or only in the videos of these ids."""
    named = _Names(videos)
    answers = {}
    for first in range(0, len(queries), _BATCH):
        some = queries[first : first + _BATCH]
        texts = [query.text for query in some]
        results = engine.search_many(texts, top=MOST_PREDICTIONS, within=within)
        for query, result in zip(some, results, strict=True):
            answers[query.id] = named.predictions(result.moments, query)
    return answers


def _ask_in_video(
    engine: SearchEngine, queries: Sequence[Query], videos: Mapping[str, Video]
) -> dict[str, tuple[Prediction, ...]]:
    """Ask each query about parts of videos in its right videos only."""
    by_videos: dict[frozenset[int], list[Query]] = {}
    for query in queries:
        if query.has_spans:
            ids = frozenset(videos[name].video_id for name in query.videos if name in videos)
            by_videos.setdefault(ids, []).append(query)
    answers: dict[str, tuple[Prediction, ...]] = {}
    for ids, of_these in by_videos.items():
        answers |= _ask_library(engine, of_these, videos, ids)
    return answers


def _saliency(
    engine: SearchEngine, queries: Sequence[Query], videos: Mapping[str, Video]
) -> dict[str, tuple[float, ...]]:
    scores = {}
    for query in queries:
        name = min(name for name in query.videos if name in videos)
        curve = engine.curve(query.text, videos[name].video_id)
        scores[query.id] = tuple(_by_piece(curve).round(6).tolist())
    return scores


def _by_piece(curve: Curve) -> NDArray[np.float64]:
    """Mean of the curve in each complete piece of `SALIENCY_SECONDS`."""
    count = round(float(curve.edges_seconds[-1]) / SALIENCY_SECONDS)
    seconds = (np.arange(count * _SAMPLES) + 0.5) * SALIENCY_SECONDS / _SAMPLES
    piece = np.searchsorted(curve.edges_seconds, seconds, side="right") - 1
    sampled = curve.scores[np.clip(piece, 0, len(curve.scores) - 1)]
    means: NDArray[np.float64] = sampled.reshape(count, _SAMPLES).mean(axis=1)
    return means


class _Names:
    """Turns moments into predictions, with the benchmark's names of their videos."""

    def __init__(self, videos: Mapping[str, Video]) -> None:
        self._names: dict[int, list[str]] = {}
        for name, video in videos.items():
            self._names.setdefault(video.video_id, []).append(name)

    def predictions(self, moments: Iterable[Moment], query: Query) -> tuple[Prediction, ...]:
        """Return predictions in the order of the moments, best first."""
        return tuple(
            Prediction(self._name(moment, query), moment.span, moment.score) for moment in moments
        )

    def _name(self, moment: Moment, query: Query) -> str:
        # a benchmark may have the same content under two names: the name in the query is meant
        names = self._names.get(moment.video_id, [moment.path.stem])
        return next((name for name in names if name in query.videos), names[0])


# ---------------------------------------------------------------- figures of an index


def _whole_videos(
    index_dir: Path,
    queries: Sequence[Query],
    videos: Mapping[str, Video],
    models: ModelSettings | None,
) -> BothDirections | None:
    """Retrieval by the queries about one whole video, among these videos."""
    about = [query for query in queries if not query.has_spans and len(query.videos) == 1]
    if not about:
        return None
    ids = [videos[min(query.videos)].video_id for query in about]
    number = {video_id: n for n, video_id in enumerate(dict.fromkeys(ids))}
    by_id = {video.video_id: video for video in videos.values()}
    return pooled_retrieval(
        index_dir,
        [query.text for query in about],
        [(by_id[video_id], None) for video_id in number],
        [number[video_id] for video_id in ids],
        models=models,
    )


def _measure(
    engine: SearchEngine, layout: IndexLayout, texts: Sequence[str], count: int, top: int
) -> Speed:
    positions = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    engine.search(texts[0], top=top)
    took = []
    for position in positions.tolist():
        begin = time.perf_counter()
        engine.search(texts[position], top=top)
        took.append((time.perf_counter() - begin) * 1e3)
    p50, p95 = np.quantile(took, [0.5, 0.95])
    hours = sum(video.duration_seconds for video in engine.videos.values()) / 3600
    sizes = {part: size / hours for part, size in index_bytes(layout).items()}
    return Speed(float(p50), float(p95), len(took), hours, sizes)


def index_bytes(layout: IndexLayout) -> dict[str, int]:
    """Return the bytes on disk of the parts of an index, and their ``total``; hard links count once."""
    parts = {
        "features": layout.features,
        "vectors": layout.vectors,
        "anchors": layout.anchors,
        "thumbnails": layout.thumbnails,
    }
    sizes = {part: _folder_bytes(folder) for part, folder in parts.items()}
    sizes["catalogue"] = layout.catalog.stat().st_size
    return sizes | {"total": sum(sizes.values())}


def _folder_bytes(folder: Path) -> int:
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())
