"""Near-duplicates: re-encoded, scaled, trimmed, letterboxed copies and excerpts, with the spans they share.

    for duplicate in find_duplicates(index):
        print(duplicate.first.path, duplicate.second.path, duplicate.matches[0].first)

Candidates come from the vector index: the nearest clips of each clip vote for a pair of videos and an offset in time.
So the cost grows with the clips and the depth of a look-up, not with the pairs of videos. Each candidate is then
decided by its stored frames (`search.alignment`), and by its thumbnails if there are any: an encoder hardly sees that a
picture is mirrored.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import unit
from scanonce.search.alignment import Limits, Run, align
from scanonce.search.filters import LibraryFilters, SearchScope
from scanonce.search.looks import Look, is_same_picture, look_of
from scanonce.search.snapshot import open_clips
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.index import Index
from scanonce.storage.records import Span, Video, split_clip_id
from scanonce.storage.targets import shown_at

logger = logging.getLogger(__name__)

TICKS_PER_SECOND = 2.0
"""Frames of all videos are compared at this rate, whatever the sampling of the index."""

_DEPTH = 64
"""Nearest clips of a clip that vote."""
_MAX_PARTNERS = 32
"""Most videos that one video is compared with frame by frame."""
_MAX_GUESSES = 3
"""Most offsets at which two videos are compared."""
_VOTE_SECONDS = 2.0
_LOOKS = 12
"""Most pairs of thumbnails that are compared for a run."""
_LOOK_SECONDS = 1.0
"""Longest time between two thumbnails that are compared."""
_SURE = 0.85
"""Likeness from which a match needs no thumbnails, if there are none, and less of a correlation, if there are."""
_CORRELATION, _HIGH_CORRELATION = 0.7, 0.85
"""Least correlation of the thumbnails of a match that is sure by its frames, and of one that is not. Half a second of
movement costs a tenth; different pictures of the rendered world reach .75."""
_CACHED = 16
"""Videos whose frames are kept: 29 MB each for two hours at 512 dimensions."""

OnCompared = Callable[[int, int], None]
"""Called with the number of videos that were compared, and of all."""


@dataclass(frozen=True, slots=True)
class Match:
    """A span of one video and the span of another that shows the same."""

    first: Span
    second: Span
    likeness: float
    """Mean cosine of their frames, less what all frames of the library share; 1 for identical frames."""


@dataclass(frozen=True)
class Duplicate:
    """Two videos that share at least one span."""

    first: Video
    second: Video
    matches: tuple[Match, ...]
    """By rising start in ``first``; they do not overlap there."""

    @property
    def likeness(self) -> float:
        """Mean likeness of the matches by their length."""
        weights = [match.first.duration_seconds for match in self.matches]
        return float(np.average([match.likeness for match in self.matches], weights=weights))

    @property
    def shared_seconds(self) -> float:
        """Length of all matches."""
        return sum(match.first.duration_seconds for match in self.matches)

    @cached_property
    def lesser(self) -> Video:
        """The one to do without: the shorter, if they differ by a second; else that with fewer pixels or bytes."""
        seconds = self.first.duration_seconds - self.second.duration_seconds
        if abs(seconds) >= 1.0:
            return self.second if seconds > 0 else self.first
        return min(
            self.second, self.first, key=lambda video: (_num_pixels(video), video.size_bytes)
        )

    @property
    def covered(self) -> float:
        """Share of the lesser video that the other one has too, 0 to 1."""
        return min(1.0, self.shared_seconds / max(self.lesser.duration_seconds, 1e-9))


def find_duplicates(
    index: Index,
    *,
    within: SearchScope = None,
    limits: Limits | None = None,
    on_progress: OnCompared = lambda done, total: None,
) -> Iterator[Duplicate]:
    """Find the pairs of videos that share a span of some seconds.

    Args:
        index: opened with the pooling of its clips.
        within: only pairs of which both videos pass; by default all.
        limits: the demands on a match.
        on_progress: called after each video.

    Yields:
        Pairs, in any order, as soon as they are found.

    Raises:
        IndexDirectoryError: the vector index cannot be read. A video whose files cannot be read is left out, with a
            warning.
        QueryError: a folder or a label of the filter is not known.
    """
    videos = {video.video_id: video for video in index.catalog.videos(states=SEARCHABLE)}
    live = np.fromiter(videos, np.int64, len(videos))
    if not len(live):
        return
    comparison = _Comparison(index, videos, live, within, limits or Limits())
    judged: set[tuple[int, int]] = set()
    for number, video_id in enumerate(comparison.ids.tolist(), start=1):
        for other_id, guesses in comparison.candidates(video_id).items():
            pair = min(video_id, other_id), max(video_id, other_id)
            if pair not in judged:
                judged.add(pair)
                duplicate = comparison.compare(video_id, other_id, guesses)
                if duplicate is not None:
                    yield duplicate
        on_progress(number, len(comparison.ids))


class _Comparison:
    """The parts of one run of `find_duplicates`."""

    def __init__(
        self,
        index: Index,
        videos: Mapping[int, Video],
        live: NDArray[np.int64],
        within: SearchScope,
        limits: Limits,
    ) -> None:
        self.index, self.videos, self.limits = index, videos, limits
        self.clips, _ = open_clips(index, videos, live)
        selected = LibraryFilters(index.catalog, live, self.clips).apply(within)
        self.ids = live if selected is None else selected.ids
        self.allowed = self.clips.mask(self.ids)
        sample = self.clips.sample() if len(self.clips) else np.zeros((1, self.clips.dim))
        self.mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.frames = lru_cache(maxsize=_CACHED)(self._frames)
        self.times = lru_cache(maxsize=_CACHED)(self._times)
        self.unreadable: set[int] = set()

    def _frames(self, video_id: int) -> NDArray[np.float32]:
        """Return the frames on screen at the ticks, ``[num_ticks, dim]`` units less the mean of the library.

        There are none if they cannot be read.
        """
        video = self.videos[video_id]
        try:
            stored = self.index.features.read(video.uid)
        except IndexDirectoryError as error:
            self._warn(video_id, error)
            return np.empty((0, self.clips.dim), np.float32)
        _, rows = shown_at(
            stored.pts_seconds, TICKS_PER_SECOND, 0.0, max(video.duration_seconds, 1e-3)
        )
        return unit(unit(stored.frames) - self.mean)[rows]

    def candidates(self, video_id: int) -> dict[int, list[int]]:
        """Return the videos with clips near those of a video, and the likeliest offsets in ticks, best first."""
        video, grid = self.videos[video_id], self.index.manifest.grid
        spans = grid.spans(video.duration_seconds)[: grid.counts(video.duration_seconds)[0]]
        if not len(spans):
            return {}
        try:
            clips = self.index.embed(video, spans)
        except IndexDirectoryError as error:
            self._warn(video_id, error)
            return {}
        allowed = self.allowed & ~self.clips.mask([video_id])
        scores, ids = self.clips.search(clips, _DEPTH, allowed=allowed)
        votes: dict[int, Counter[int]] = {}
        for span, row, found in zip(spans, scores, ids, strict=True):
            best: dict[int, int] = {}
            for identifier in found[row > -np.inf].tolist():
                other_id, ordinal = split_clip_id(identifier)
                best.setdefault(other_id, ordinal)
            for other_id, ordinal in best.items():
                there = grid.span(ordinal, self.videos[other_id].duration_seconds)
                middle = (there.start_seconds + there.end_seconds) / 2
                offset = round((middle - span.mean()) / _VOTE_SECONDS)
                votes.setdefault(other_id, Counter())[offset] += 1
        step = round(_VOTE_SECONDS * TICKS_PER_SECOND)
        most = sorted(votes, key=lambda other: -votes[other].most_common(1)[0][1])[:_MAX_PARTNERS]
        return {
            other: [offset * step for offset, _ in votes[other].most_common(_MAX_GUESSES)]
            for other in most
        }

    def compare(self, video_id: int, other_id: int, guesses: list[int]) -> Duplicate | None:
        """Decide a candidate by its frames and its thumbnails."""
        runs = align(self.frames(video_id), self.frames(other_id), guesses, self.limits)
        first, second = self.videos[video_id], self.videos[other_id]
        matches = [_match(run, first, second) for run in runs]
        looked = tuple(match for match in matches if self._looks_the_same(first, second, match))
        return Duplicate(first, second, looked) if looked else None

    def _looks_the_same(self, first: Video, second: Video, match: Match) -> bool:
        """Compare thumbnails of the same moments."""
        shift = match.second.start_seconds - match.first.start_seconds
        here, there = self.times(first.video_id), self.times(second.video_id)
        here = here[(here >= match.first.start_seconds) & (here < match.first.end_seconds)]
        if len(here) > _LOOKS:
            here = here[np.linspace(0, len(here) - 1, _LOOKS).round().astype(int)]
        pairs = []
        for seconds in here.tolist() if len(there) else ():
            nearest = float(there[np.abs(there - seconds - shift).argmin()])
            if abs(nearest - seconds - shift) <= _LOOK_SECONDS:
                one, other = self._look(first, seconds), self._look(second, nearest)
                if one is not None and other is not None:
                    pairs.append((one, other))
        is_sure = match.likeness >= _SURE
        if not pairs:
            return is_sure
        return is_same_picture(pairs, _CORRELATION if is_sure else _HIGH_CORRELATION)

    def _times(self, video_id: int) -> NDArray[np.float64]:
        """Return the times of the thumbnails of a video; none if they cannot be read."""
        try:
            return self.index.thumbnails.times(self.videos[video_id].uid)
        except IndexDirectoryError as error:
            self._warn(video_id, error)
            return np.empty(0)

    def _look(self, video: Video, seconds: float) -> Look | None:
        try:
            jpeg = self.index.thumbnails.read(video.uid, seconds)
        except IndexDirectoryError as error:
            self._warn(video.video_id, error)
            return None
        return None if jpeg is None else look_of(jpeg)

    def _warn(self, video_id: int, error: IndexDirectoryError) -> None:
        """Warn once of each video."""
        if video_id not in self.unreadable:
            self.unreadable.add(video_id)
            path = self.videos[video_id].path
            logger.warning(
                "%s is not compared, or not fully: run `scanonce verify`: %s", path, error
            )


def _match(run: Run, first: Video, second: Video) -> Match:
    def span(start: int, end: int, video: Video) -> Span:
        last = video.duration_seconds
        return Span(min(start / TICKS_PER_SECOND, last), min(end / TICKS_PER_SECOND, last))

    here = span(run.start, run.end, first)
    there = span(run.start + run.offset, run.end + run.offset, second)
    return Match(here, there, run.likeness)


def _num_pixels(video: Video) -> int:
    return video.info.width * video.info.height if video.info else 0
