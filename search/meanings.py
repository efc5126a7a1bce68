"""The vectors of all passages of a library, and those nearest to a sentence.

    meanings = Meanings.open(catalog, model)
    meanings.nearest(vector, tracks, videos=None, depth=50)

Small libraries are compared exactly. In larger ones, the signs of the vectors, a bit for each dimension, choose the
passages that are compared (as in Yamada et al., 2021, arXiv 2106.00882).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import unit
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.lines import TrackVectors
from scanonce.storage.records import TrackName

_EXACT = 20_000  # passages that are all compared
_CHOSEN = 1_000  # passages that the signs choose
_NAMES: tuple[TrackName, ...] = ("subtitle", "said", "written", "facts")


@dataclass(frozen=True, slots=True, eq=False)
class Meanings:
    """The passages of a library, a row each."""

    steps: NDArray[np.int8]
    """``[num_passages, dim]``: vectors, each rounded to 127 steps of its own."""
    scales: NDArray[np.float32]
    """``[num_passages]``: the length of a step, so that vectors have the length 1."""
    signs: NDArray[np.uint8]
    """``[num_passages, dim / 8]``: a bit for each number that is above 0."""
    video_ids: NDArray[np.int64]
    track_ids: NDArray[np.int64]
    names: NDArray[np.int8]
    """``[num_passages]``: position of the track's name in `_NAMES`."""
    first_lines: NDArray[np.int64]
    """``[num_passages]``: position of the first line of the passage in its track."""
    num_lines: NDArray[np.int64]

    @classmethod
    def of(cls, tracks: Sequence[TrackVectors], dim: int) -> Self:
        """Return the passages of some tracks."""
        parts = [_rows(track, dim) for track in tracks]
        empty = (
            np.empty((0, dim), np.int8), np.empty(0, np.float32), np.empty((0, -(-dim // 8)), np.uint8),
            np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8),
            np.empty(0, np.int64), np.empty(0, np.int64),
        )  # fmt: skip
        return cls(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))

    def without(self, videos: Collection[int]) -> Self:
        """Return the passages of the other videos."""
        kept = ~np.isin(self.video_ids, np.fromiter(videos, np.int64, len(videos)))
        return type(self)(*(getattr(self, each.name)[kept] for each in fields(self)))

    def joined(self, other: Self) -> Self:
        """Return the passages of both."""
        return type(self)(
            *(
                np.concatenate([getattr(self, each.name), getattr(other, each.name)])
                for each in fields(self)
            )
        )

    def nearest(
        self,
        vector: NDArray[np.float32],
        tracks: Collection[TrackName],
        videos: NDArray[np.int64] | None,
        depth: int,
    ) -> list[tuple[int, float]]:
        """Return ``(row, cosine)`` of the passages nearest to a vector, the nearest first.

        Args:
            vector: ``[dim]`` of length 1.
            tracks: only passages of these.
            videos: only passages of these videos. Default: of all.
            depth: the most passages.
        """
        is_asked = np.isin(np.arange(len(_NAMES)), [_NAMES.index(name) for name in tracks])
        asked = is_asked[self.names]
        if videos is not None:
            asked &= np.isin(self.video_ids, videos)
        rows = np.flatnonzero(asked)
        if len(rows) > _EXACT:
            rows = rows[_nearest_signs(self.signs, rows, vector)]
        cosines = (self.steps[rows].astype(np.float32) @ vector) * self.scales[rows]
        best = np.argsort(-cosines, kind="stable")[:depth]
        return [(int(rows[k]), float(cosines[k])) for k in best]


def _nearest_signs(
    signs: NDArray[np.uint8], rows: NDArray[np.int64], vector: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the positions in ``rows`` of at least `_CHOSEN` rows, those whose signs differ least from a vector's."""
    chosen = signs if len(rows) == len(signs) else signs[rows]
    wanted = np.packbits(vector > 0)
    if chosen.shape[1] % 8 == 0:  # eight bytes at a time
        chosen, wanted = chosen.view(np.uint64), wanted.view(np.uint64)
    apart = np.zeros(len(rows), np.uint16)
    for column, part in zip(chosen.T, wanted, strict=True):
        apart += np.bitwise_count(column ^ part)
    # differences are few whole numbers, so counting them finds the limit faster than sorting
    limit = int(np.searchsorted(np.cumsum(np.bincount(apart)), _CHOSEN))
    return np.flatnonzero(apart <= limit)


def _rows(track: TrackVectors, dim: int) -> tuple[NDArray[np.generic], ...]:
    vectors, counts = track.passages.vectors, track.passages.num_lines.astype(np.int64)
    if vectors.shape[1] != dim:  # of a damaged catalogue: no model with this fingerprint made it
        vectors, counts = np.empty((0, dim), np.float32), counts[:0]
    number = len(vectors)
    steps = np.rint(vectors / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12) * 127)
    lengths = np.maximum(np.linalg.norm(steps, axis=1), 1e-6)
    return (
        steps.astype(np.int8),
        (1 / lengths).astype(np.float32),
        np.packbits(vectors > 0, axis=1),
        np.full(number, track.video_id, np.int64),
        np.full(number, track.track_id, np.int64),
        np.full(number, _NAMES.index(track.name), np.int8),
        np.cumsum(counts) - counts,
        counts,
    )


def open_meanings(catalog: Catalog, fingerprint: str, dim: int) -> Meanings:
    """Read the passages of all videos."""
    return Meanings.of(catalog.lines.vectors(fingerprint), dim)


def next_meanings(
    before: Meanings, catalog: Catalog, fingerprint: str, changed: Collection[int]
) -> Meanings:
    """Return the passages after a change of some videos; reads only theirs."""
    dim = before.steps.shape[1]
    return before.without(changed).joined(
        Meanings.of(catalog.lines.vectors(fingerprint, changed), dim)
    )


def as_vector(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the only row of an array, of length 1."""
    vector: NDArray[np.float32] = unit(rows)[0]
    return vector
