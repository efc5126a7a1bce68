"""A sentence in, moments out: the whole way of a query.

    engine = SearchEngine.open("~/.scanonce")
    result = engine.search("a red car drives past at night")
    for moment in result.moments:
        print(moment.path, moment.span.start_seconds, moment.span.end_seconds, moment.score)

Everything that depends on a video alone was computed when it was indexed: a query reads stored arrays, runs the
text tower once, and decodes nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from models.clip4clip import pool_spans, unit
from models.encoder import ClipEncoder, load_encoder
from models.settings import ModelSettings
from search.curve import find_spans, z_scores
from search.rank import BACKGROUND_SENTENCES, background_level, margins
from search.retrieve import neighbourhoods
from search.settings import SearchSettings
from storage.catalog import SEARCHABLE, Catalog
from storage.errors import ManifestMismatch, QueryError
from storage.features import FeatureStore
from storage.generations import open_library
from storage.layout import IndexLayout, read_manifest
from storage.records import Moment, Video

_SPANS_PER_STRETCH = 8
_CLIPS_PER_MOMENT = 5


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a query found."""

    query: str
    moments: tuple[Moment, ...]
    """Best first."""
    no_good_match: bool
    """Nothing in the library stands out for the query; ``moments`` are then merely the nearest."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall milliseconds by stage: ``text``, ``library``, ``moments``, and their ``total``. Queries that were asked
    together share ``text`` and ``library`` evenly."""


class SearchEngine:
    """An open index and its text encoder. Use from one thread at a time."""

    def __init__(
        self, layout: IndexLayout, catalog: Catalog, encoder: ClipEncoder, settings: SearchSettings
    ) -> None:
        """`open` is the usual way in."""
        self.manifest = read_manifest(layout)
        if encoder.fingerprint != self.manifest.fingerprint:
            raise ManifestMismatch(
                f"the index at {layout.root} was made with encoder {self.manifest.encoder} "
                f"({self.manifest.fingerprint[:12]}), loaded is {encoder.name} ({encoder.fingerprint[:12]}). "
                "Put the same weights back, or index again into a new folder with --index."
            )
        self._layout = layout
        self._catalog = catalog
        self._encoder = encoder
        self._settings = settings
        self._features = FeatureStore(layout.features)
        self._videos: dict[int, Video] = {}
        self._no_picture = unit(encoder.encode_texts(BACKGROUND_SENTENCES))
        self._seen = catalog.change_token()
        self._open_library()

    @classmethod
    def open(
        cls,
        index_dir: str | Path,
        *,
        settings: SearchSettings | None = None,
        models: ModelSettings | None = None,
    ) -> "SearchEngine":
        """Opens an index for searching, with the encoder it was made with.

        Args:
            index_dir: the index directory.
            settings: how to search.
            models: device and number format; its ``encoder`` is not looked at, the index names its own.

        Raises:
            IndexDirectoryError: there is no usable index.
            EncoderError: its encoder cannot be loaded.
            ManifestMismatch: the encoder's weights have changed since indexing.
        """
        layout = IndexLayout(Path(index_dir).expanduser().resolve())
        manifest = read_manifest(layout)
        encoder = load_encoder(manifest.encoder, models, towers="text")
        catalog = Catalog.open(layout.catalog, read_only=True)
        try:
            return cls(layout, catalog, encoder, settings or SearchSettings())
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

    def search(self, text: str, *, top: int | None = None) -> SearchResult:
        """The moments that show what the sentence says.

        Args:
            text: a sentence in the language of the encoder.
            top: at most so many moments; the setting where None.

        Raises:
            QueryError: the sentence is empty.
            IndexDirectoryError: the index was damaged or removed meanwhile.
        """
        return self.search_many([text], top=top)[0]

    def search_many(self, texts: Sequence[str], *, top: int | None = None) -> list[SearchResult]:
        """Several sentences at once: encoded together and looked up together, one result each, in their order."""
        if empty := [position for position, text in enumerate(texts) if not text.strip()]:
            raise QueryError(
                f'query {empty[0] + 1} is empty; write what the moment shows, such as "a red car at night"'
            )
        if not texts:
            return []
        self._follow_changes()
        begin = time.perf_counter()
        queries = unit(self._encoder.encode_texts(texts))
        encoded = time.perf_counter()
        wanted = self._settings.top if top is None else top
        # clips of all scales overlap: several of them name one moment
        num_clips = max(self._settings.candidate_clips, _CLIPS_PER_MOMENT * wanted)
        scores, ids = self._library.search(queries, num_clips)
        backgrounds = self._library.background(queries)
        shared = {
            "text": (encoded - begin) * 1e3 / len(texts),
            "library": (time.perf_counter() - encoded) * 1e3 / len(texts),
        }
        return [
            self._answer(
                text,
                query,
                clip_ids[np.isfinite(clip_scores)],
                clip_scores,
                background,
                wanted,
                shared,
            )
            for text, query, clip_ids, clip_scores, background in zip(
                texts, queries, ids, scores, backgrounds, strict=True
            )
        ]

    def _answer(
        self,
        text: str,
        query: NDArray[np.float32],
        clip_ids: NDArray[np.int64],
        clip_scores: NDArray[np.float32],
        background: NDArray[np.float32],
        top: int,
        shared: Mapping[str, float],
    ) -> SearchResult:
        """Candidate clips of one query to its moments."""
        begin = time.perf_counter()
        mean, std = background_level(background)
        found: list[Moment] = []
        stretches = neighbourhoods(
            clip_ids.tolist(), self._videos, self.manifest.grid, self._settings.context_seconds
        )
        for video_id, pieces in stretches.items():
            found += self._moments(self._videos[video_id], pieces, query, mean, std)
        found.sort(key=lambda moment: (-moment.score, moment.video_id, moment.span))
        margin = float(margins(clip_scores[:1], background[None])[0]) if len(clip_ids) else 0.0
        nothing = not len(clip_ids) or margin <= self._settings.cutoff * self._chance_margin
        if nothing:
            top = min(top, self._settings.nearest_shown)
        moments_ms = (time.perf_counter() - begin) * 1e3
        timings = {**shared, "moments": moments_ms, "total": sum(shared.values()) + moments_ms}
        return SearchResult(text, tuple(found[:top]), nothing, timings)

    def _moments(
        self,
        video: Video,
        pieces: list[tuple[float, float]],
        query: NDArray[np.float32],
        mean: float,
        std: float,
    ) -> list[Moment]:
        """The moments in the given stretches of a video: spans by contrast, scores as of a clip with that span."""
        moments: list[Moment] = []
        for (_, end), stored in zip(
            pieces, self._features.read_between(video.uid, pieces), strict=True
        ):
            units = unit(stored.frames)
            found = find_spans(
                z_scores(units @ query, mean, std),
                stored.pts_seconds,
                end_seconds=end,
                longest_seconds=self._settings.longest_moment_seconds,
                top=_SPANS_PER_STRETCH,
                overlap=self._settings.nms_overlap,
            )
            if found:
                bounds = np.array(
                    [(each.span.start_seconds, each.span.end_seconds) for each in found]
                )
                scores = pool_spans(units, stored.pts_seconds, bounds) @ query
                moments += [
                    Moment(video.video_id, video.path, each.span, score)
                    for each, score in zip(found, scores.tolist(), strict=True)
                ]
        return moments

    def _follow_changes(self) -> None:
        """Reopens the library when a writer has changed it since."""
        token = (
            self._catalog.change_token()
        )  # taken first: a commit in between is then seen the next time
        if token != self._seen:
            self._seen = token
            self._open_library()

    def _open_library(self) -> None:
        self._videos = {video.video_id: video for video in self._catalog.videos(states=SEARCHABLE)}
        self._library = open_library(
            self._layout.vectors,
            dim=self.manifest.dim,
            live_videos=list(self._videos),
            load_clips=self._load_clips,
        )
        best, _ = self._library.search(self._no_picture, 1)
        chance = margins(best[:, 0], self._library.background(self._no_picture))
        self._chance_margin = float(chance.max())

    def _load_clips(self, video_id: int) -> NDArray[np.float32]:
        """Clip embeddings of a video that is searchable but not in the vector index yet."""
        video = self._videos[video_id]
        stored = self._features.read(video.uid)
        return pool_spans(
            unit(stored.frames),
            stored.pts_seconds,
            self.manifest.grid.spans(video.duration_seconds),
        )
