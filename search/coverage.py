"""How much of a library matches a query: "38 of 40 videos match"."""

import numpy as np

from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import unit
from scanonce.search.filters import FilteredLibrary
from scanonce.search.grades import GOOD
from scanonce.search.localise import Query
from scanonce.search.result import Coverage
from scanonce.search.snapshot import Snapshot
from scanonce.storage.records import split_clip_id

_SAMPLED = 64
"""Videos that are looked at in a larger library."""
_DEPTH = 4096
"""Clips of them that are ranked; a video without one of them does not match."""


def coverage(
    snapshot: Snapshot,
    text: str,
    query: Query,
    reading: Reading,
    selected: FilteredLibrary | None,
) -> Coverage:
    """Judge the best clip of each video, or of a random sample of videos.

    Args:
        snapshot: the library.
        text: the query.
        query: the query as vectors.
        reading: how the encoder reads it.
        selected: the videos that pass the filter; None: all.
    """
    ids = snapshot.live if selected is None else selected.ids
    chosen = ids
    if len(ids) > _SAMPLED:
        chosen = np.sort(np.random.default_rng(0).choice(ids, _SAMPLED, replace=False))
    _, found = snapshot.clips.search(query.joint[None], _DEPTH, allowed=snapshot.clips.mask(chosen))
    best: dict[int, int] = {}
    for identifier in found[0][found[0] >= 0].tolist():
        video_id, ordinal = split_clip_id(identifier)
        best.setdefault(video_id, ordinal)
    grid, matching = snapshot.index.manifest.grid, 0
    for video_id, ordinal in best.items():
        video = snapshot.videos[video_id]
        span = grid.span(ordinal, video.duration_seconds)
        bounds = np.array([(span.start_seconds, span.end_seconds)])
        clip = unit(snapshot.index.embed(video, bounds))
        (probability,) = snapshot.judge.by_frames(text, query, clip, reading)
        matching += bool(probability >= GOOD)
    return Coverage(matching, len(chosen), len(ids))
