"""The unusual: moments that are far from all that their camera has shown before.

    for moment in find_unusual(index, Path("/cameras/door"))[:10]:
        print(moment.path, moment.span, moment.deviations)

A folder is a camera. Each clip is compared with the clips of the folder that came before it, by the distance to the
nearest of them, as in anomaly detection by nearest neighbours (Ramaswamy et al., SIGMOD 2000). A robust z-score says
how unusual a distance is for this camera. Stored features are read; nothing is decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.errors import QueryError
from scanonce.storage.index import Index
from scanonce.storage.records import Span, Video

UNUSUAL = 3.5
"""Robust z-score from which a clip is unusual: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993."""

_NEIGHBOURS = 3
"""Nearest clips whose mean distance counts: one look-alike may be chance."""
_LEAST_PAST = 32
"""Clips that a camera has to have shown before the next one is judged."""
_MOST_PAST = 20_000
"""Most clips that a clip is compared with; of a longer past, a random part."""
_RECENT_SECONDS = 30.0
"""The last seconds of the same video are no past: an event that goes on is not made usual by its own beginning."""
_MAD_TO_STD = 1.4826
"""A normal distribution's standard deviation, divided by its median absolute deviation."""
_LEAST_SPREAD = 1e-3
"""Distances that differ by less are the same: features are stored with 11 bits."""
_BATCH = 256

OnRead = Callable[[int, int], None]
"""Called with the number of videos that were read, and of all."""


@dataclass(frozen=True, slots=True)
class Unusual:
    """A moment that is far from its camera's past."""

    video: Video
    span: Span
    deviations: float
    """Robust z-score of its distance: `UNUSUAL` or more."""

    @property
    def path(self) -> Path:
        """The path of its video."""
        return self.video.path


def find_unusual(
    index: Index, folder: Path, *, on_progress: OnRead = lambda done, total: None
) -> list[Unusual]:
    """Find the moments of a folder that are far from all before them, the most unusual first.

    Videos come one after another by the time at which their files were last written.

    Args:
        index: opened with the pooling of its clips.
        folder: absolute; everything below it is of one camera.
        on_progress: called after each video.

    Returns:
        Moments that do not overlap; none if nothing is unusual, or the folder shows less than `_LEAST_PAST` clips.

    Raises:
        QueryError: no video of the index is at or below the folder.
        IndexDirectoryError: stored features cannot be read.
    """
    videos = _in_order(index, folder)
    if not videos:
        raise QueryError(
            f"no video of the index is at or below {folder}: name a folder that was indexed"
        )
    pooled, spans, numbers = [], [], []
    for number, video in enumerate(videos):
        grid = index.manifest.grid
        # the finest windows: those of the other scales cover the same frames again
        bounds = grid.spans(video.duration_seconds)[: grid.counts(video.duration_seconds)[0]]
        pooled.append(index.embed(video, bounds))
        spans.append(bounds)
        numbers.append(np.full(len(bounds), number))
        on_progress(number + 1, len(videos))
    clips = Clips(np.concatenate(pooled), np.concatenate(spans), np.concatenate(numbers))
    scores = deviations(distances(clips))
    return [Unusual(videos[number], span, score) for number, span, score in moments(clips, scores)]


def _in_order(index: Index, folder: Path) -> list[Video]:
    """Return the searchable videos below a folder by the times of their files."""
    times: dict[int, tuple[int, Path]] = {}
    for place in index.catalog.spelled(folder):
        for file in index.catalog.files_under(place):
            if file.video_id is not None:
                when = file.stamp.mtime_ns, file.stamp.path
                times[file.video_id] = min(when, times.get(file.video_id, when))
    found = index.catalog.videos(list(times), states=SEARCHABLE)
    return sorted(found, key=lambda video: times[video.video_id])


# ---------------------------------------------------------------- arithmetic


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """The clips of a camera in the order of time."""

    embeddings: NDArray[np.float32]
    """``[num_clips, dim]`` of length 1."""
    spans: NDArray[np.float64]
    """``[num_clips, 2]`` seconds in their video."""
    videos: NDArray[np.int64]
    """``[num_clips]`` position of the video of each, never falling."""


def distances(clips: Clips) -> NDArray[np.float64]:
    """Return the mean cosine distance of each clip to its nearest earlier clips.

    Returns:
        ``[num_clips]`` from 0 to 2; NaN for the first clips, which have no past.
    """
    num_clips = len(clips.embeddings)
    rng = np.random.default_rng(0)
    found = np.full(num_clips, np.nan)
    ends, starts = clips.spans[:, 1], clips.spans[:, 0]
    for begin in range(0, num_clips, _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, num_clips))
        past = np.arange(rows[-1])
        if len(past) > _MOST_PAST:
            past = np.sort(rng.choice(past, _MOST_PAST, replace=False))
        cosines = clips.embeddings[rows] @ clips.embeddings[past].T
        is_same_video = clips.videos[past][None] == clips.videos[rows][:, None]
        is_recent = ends[past][None] > starts[rows][:, None] - _RECENT_SECONDS
        is_later = past[None] >= rows[:, None]
        is_past = ~is_later & ~(is_same_video & is_recent)
        cosines[~is_past] = -np.inf
        best = (
            -np.partition(-cosines, min(_NEIGHBOURS, cosines.shape[1]) - 1, axis=1)
            if len(past)
            else cosines
        )
        enough = is_past.sum(axis=1) >= _LEAST_PAST
        found[rows[enough]] = 1.0 - best[enough, :_NEIGHBOURS].mean(axis=1)
    return found


def deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return robust z-scores: the distance from the median in units of the spread, by the median absolute deviation.

    NaN stays NaN.

    >>> deviations(np.array([0.1, 0.11, 0.12, 0.13, 0.9])).round(1)
    array([-1.3, -0.7,  0. ,  0.7, 52.6])
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return values
    median = np.median(known)
    spread = _MAD_TO_STD * np.median(np.abs(known - median))
    scores: NDArray[np.float64] = (values - median) / max(float(spread), _LEAST_SPREAD)
    return scores


def moments(clips: Clips, scores: NDArray[np.float64]) -> list[tuple[int, Span, float]]:
    """Return the moments of unusual clips, the highest score first; clips that touch are one moment.

    Returns:
        The position of the video, the span and the highest score of each.
    """
    is_unusual = np.nan_to_num(scores, nan=-np.inf) >= UNUSUAL
    found: list[tuple[int, Span, float]] = []
    for k in np.flatnonzero(is_unusual).tolist():
        video, (start, end), score = int(clips.videos[k]), clips.spans[k].tolist(), float(scores[k])
        if found and found[-1][0] == video and start <= found[-1][1].end_seconds:
            _, last, highest = found.pop()
            start, end, score = last.start_seconds, max(last.end_seconds, end), max(highest, score)
        found.append((video, Span(start, end), score))
    return sorted(found, key=lambda each: (-each[2], each[0], each[1]))
