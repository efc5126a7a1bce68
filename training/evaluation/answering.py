"""An index answers the queries of a benchmark: of the whole library, of the right video, and how fast.

    asked = ask_index(Path("index"), queries)
    asked.answers["12"].library[0]  # Prediction("film_a", Span(3.5, 9.0), .41)
    asked.missing                   # names of videos that are not in the index

The engine's cut-off is switched off: what is measured here is finding, not refusing.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span, Video
from scanonce.training.evaluation.annotations import Query, match_names
from scanonce.training.evaluation.metrics import BothDirections, Prediction, both_directions
from scanonce.training.evaluation.predictions import MOST_PREDICTIONS, Answer

SALIENCY_SECONDS = 2.0
"""QVHighlights scores pieces of this length."""

_PAST_END_SECONDS = 3600.0
_BATCH = 64  # queries that are looked up together
_TIMED = 200  # queries that are asked one by one for their time
_SAMPLES = 4  # of the curve in each piece of saliency


@dataclass(frozen=True, slots=True)
class Speed:
    """What answers cost."""

    p50_ms: float
    """Median wall time of a query that is asked alone, encoding the sentence included; the first one is not counted."""
    p95_ms: float
    num_timed: int
    hours: float
    """Of searchable video."""
    bytes_per_hour: dict[str, float]
    """Of the index on disk for an hour of video: its parts, and their ``total``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an index answered."""

    answers: dict[str, Answer]
    """By id of the query; queries none of whose videos is in the index were not asked."""
    videos: Mapping[str, Video]
    """Right videos of the queries by the names they have there."""
    missing: tuple[str, ...]
    """Names of right videos that are not in the index."""
    speed: Speed | None
    retrieval: BothDirections | None
    """Of sentences about whole videos, by their pooled frames; None where there are none."""


def ask_index(
    index_dir: Path,
    queries: Sequence[Query],
    *,
    settings: SearchSettings | None = None,
    models: ModelSettings | None = None,
    with_saliency: bool = False,
    timed: int = _TIMED,
) -> Asked:
    """Asks an index all queries whose video it has.

    Args:
        index_dir: the index.
        queries: of a benchmark.
        settings: how to search; ``cutoff``, ``nearest_shown`` and ``top`` are not looked at.
        models: device and number format of the encoder.
        with_saliency: also score each 2 s of the right video, as QVHighlights wants it.
        timed: queries asked one by one for their time; 0: none, and `Asked.speed` is None.

    Raises:
        IndexDirectoryError: there is no usable index.
        EncoderError: its encoder cannot be loaded.
        ConfigError: two of its videos have the name of one annotated video.
    """
    index_dir = index_dir.expanduser().resolve()
    usual = settings or SearchSettings()
    all_shown = {"cutoff": 0.0, "nearest_shown": MOST_PREDICTIONS}
    with SearchEngine.open(
        index_dir, settings=usual.model_copy(update=all_shown), models=models
    ) as engine:
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
    """The indexed video of each right video's name, and the names that have none."""
    # several files of one content that have one name are one video
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
    """Text-video retrieval as papers have it: sentences against pooled frames, nothing else.

    Args:
        index_dir: the index, whose stored frames are pooled as its clips are: by their mean, or its head.
        texts: M sentences.
        parts: V videos of the index, or spans of them.
        part_of_text: of each sentence, the number of the part it is about.
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
    sentences = [
        encoder.encode_texts(texts[first : first + _BATCH])
        for first in range(0, len(texts), _BATCH)
    ]
    similarity = unit(np.concatenate(sentences)) @ np.stack(pooled).T
    return both_directions(similarity, np.asarray(part_of_text, np.int64))


# ---------------------------------------------------------------- asking


def _ask_library(
    engine: SearchEngine, queries: Sequence[Query], videos: Mapping[str, Video]
) -> dict[str, tuple[Prediction, ...]]:
    named = _Names(videos)
    answers = {}
    for some in _groups(queries):
        results = engine.search_many([query.text for query in some], top=MOST_PREDICTIONS)
        for query, result in zip(some, results, strict=True):
            answers[query.id] = named.predictions(result.moments, query)
    return answers


def _ask_in_video(
    engine: SearchEngine, queries: Sequence[Query], videos: Mapping[str, Video]
) -> dict[str, tuple[Prediction, ...]]:
    """Each query about parts of videos, asked of its right videos alone."""
    named = _Names(videos)
    by_videos: dict[frozenset[int], list[Query]] = {}
    for query in queries:
        if query.has_spans:
            ids = frozenset(videos[name].video_id for name in query.videos if name in videos)
            by_videos.setdefault(ids, []).append(query)
    answers = {}
    for ids, of_these in by_videos.items():
        for some in _groups(of_these):
            texts = [query.text for query in some]
            results = engine.search_many(texts, top=MOST_PREDICTIONS, within=ids)
            for query, result in zip(some, results, strict=True):
                answers[query.id] = named.predictions(result.moments, query)
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
    """Mean of the curve in each whole piece of `SALIENCY_SECONDS`."""
    count = round(float(curve.edges_seconds[-1]) / SALIENCY_SECONDS)
    seconds = (np.arange(count * _SAMPLES) + 0.5) * SALIENCY_SECONDS / _SAMPLES
    piece = np.searchsorted(curve.edges_seconds, seconds, side="right") - 1
    sampled = curve.scores[np.clip(piece, 0, len(curve.scores) - 1)]
    means: NDArray[np.float64] = sampled.reshape(count, _SAMPLES).mean(axis=1)
    return means


class _Names:
    """Moments under the names that the benchmark has for their videos."""

    def __init__(self, videos: Mapping[str, Video]) -> None:
        self._names: dict[int, list[str]] = {}
        for name, video in videos.items():
            self._names.setdefault(video.video_id, []).append(name)

    def predictions(self, moments: Iterable[Moment], query: Query) -> tuple[Prediction, ...]:
        """Best first, as the moments are."""
        return tuple(
            Prediction(self._name(moment, query), moment.span, moment.score) for moment in moments
        )

    def _name(self, moment: Moment, query: Query) -> str:
        # one content may be two videos of a benchmark: the one that was asked for is meant
        names = self._names.get(moment.video_id, [moment.path.stem])
        return next((name for name in names if name in query.videos), names[0])


def _groups(queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
    for first in range(0, len(queries), _BATCH):
        yield queries[first : first + _BATCH]


# ---------------------------------------------------------------- figures of an index


def _whole_videos(
    index_dir: Path,
    queries: Sequence[Query],
    videos: Mapping[str, Video],
    models: ModelSettings | None,
) -> BothDirections | None:
    """Retrieval by the sentences that are about one whole video, among these videos."""
    about = [query for query in queries if not query.has_spans and len(query.videos) == 1]
    if not about:
        return None
    ids = [videos[min(query.videos)].video_id for query in about]
    number = {video_id: place for place, video_id in enumerate(dict.fromkeys(ids))}
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
    places = np.linspace(0, len(texts) - 1, min(count, len(texts))).round().astype(int)
    engine.search(texts[0], top=top)
    took = []
    for place in places.tolist():
        begin = time.perf_counter()
        engine.search(texts[place], top=top)
        took.append((time.perf_counter() - begin) * 1e3)
    p50, p95 = np.quantile(took, [0.5, 0.95])
    hours = sum(video.duration_seconds for video in engine.videos.values()) / 3600
    sizes = {part: size / hours for part, size in index_bytes(layout).items()}
    return Speed(float(p50), float(p95), len(took), hours, sizes)


def index_bytes(layout: IndexLayout) -> dict[str, int]:
    """Bytes on disk of the parts of an index, and their ``total``; what two generations share counts once."""
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
