"""The embeddings of clips as rows of one matrix, in memory or mapped, and the types of related arrays.

>>> rows = ClipRows.of([7], [np.eye(3, dtype=np.float16)])  # one video with three clips
>>> rows.ids(np.array([2])) - (7 << 20)
array([2])
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.records import ORDINAL_BITS

Scores: TypeAlias = NDArray[np.float32]
"""``[num_queries, k]``, best first, padded with ``-inf``."""
Ids: TypeAlias = NDArray[np.int64]
"""Clip ids (``video_id << 20 | ordinal``), padded with -1."""
Mask: TypeAlias = NDArray[np.bool_]
"""One truth value per row."""

ADD_ROWS = 16_384
"""Rows converted to float32 at once while an index is built: 32 MB at 512 dimensions."""


@dataclass(frozen=True, eq=False)
class ClipRows:
    """The clips of whole videos, one float16 row for each clip; a video's clips are contiguous and in order."""

    pieces: tuple[NDArray[np.float16], ...]
    """One or more arrays ``[num_rows_of_the_piece, dim]``, contiguous, usually mapped files. The rows are the rows of
    the pieces, one piece after the other."""
    videos: Ids
    """``[num_videos]``, each id once, in any order."""
    counts: NDArray[np.int64]
    """``[num_videos]``, number of clips of each video, 0 allowed; their sum is ``num_rows``."""
    starts: NDArray[np.int64] = field(init=False)
    """``[num_videos + 1]``, first row of each video, then ``num_rows``."""
    _ends: NDArray[np.int64] = field(init=False)
    """``[num_pieces]``, the row after each piece."""

    def __post_init__(self) -> None:
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        ends = np.cumsum([len(piece) for piece in self.pieces], dtype=np.int64)
        if self.videos.shape != self.counts.shape or len({p.shape[1:] for p in self.pieces}) != 1:
            raise ValueError(
                f"need rows [N, D] and one count for each video; got "
                f"{[piece.shape for piece in self.pieces]}, {self.counts.shape} and "
                f"{self.videos.shape}"
            )
        if starts[-1] != ends[-1] or (self.counts < 0).any():
            raise ValueError(f"the counts sum to {starts[-1]}, the rows are {ends[-1]}")
        if not (np.diff(self.videos) > 0).all() and len(np.unique(self.videos)) < len(self.videos):
            raise ValueError("a video id may appear once only")
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "_ends", ends)

    @classmethod
    def of(cls, videos: Iterable[int], clips: Sequence[NDArray[np.floating]]) -> "ClipRows":
        """Copy one ``[num_clips, dim]`` array for each video to memory; at least one video."""
        counts = np.array([len(rows) for rows in clips], np.int64)
        matrix = np.concatenate([rows.astype(np.float16) for rows in clips])
        return cls((matrix,), np.fromiter(videos, np.int64), counts)

    @classmethod
    def none(cls, dim: int) -> "ClipRows":
        """Return rows without clips and videos."""
        return cls.joined((), dim)

    @classmethod
    def joined(cls, parts: Sequence["ClipRows"], dim: int) -> "ClipRows":
        """Return the rows of several parts, one after the other, nothing copied."""
        if len(parts) == 1:
            return parts[0]
        pieces = [piece for part in parts for piece in part.pieces if len(piece)]
        no_ids = np.empty(0, np.int64)
        return cls(
            tuple(pieces) or (np.empty((0, dim), np.float16),),
            np.concatenate([no_ids, *(part.videos for part in parts)]),
            np.concatenate([no_ids, *(part.counts for part in parts)]),
        )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.pieces[0].shape[1])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def ids(self, rows: NDArray[np.int64]) -> Ids:
        """Return the clip ids of rows, of any shape; -1 stays -1."""
        video = np.searchsorted(self.starts, rows, side="right") - 1
        ids = self.videos[video] << ORDINAL_BITS | (rows - self.starts[video])
        return np.where(rows >= 0, ids, -1)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the stored embeddings of rows in any order, ``[len(rows), dim]``."""
        if len(self.pieces) == 1:
            return self.pieces[0][rows]
        out = np.empty((len(rows), self.dim), np.float16)
        piece_of = np.searchsorted(self._ends, rows, side="right")
        for number, piece in enumerate(self.pieces):
            mine = piece_of == number
            out[mine] = piece[rows[mine] - (self._ends[number] - len(piece))]
        return out

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of rows as float32, ``[len(rows), dim]``."""
        return self.take(rows).astype(np.float32)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield all rows in order, ``[at most ADD_ROWS, dim]`` at a time."""
        for piece in self.pieces:
            for start in range(0, len(piece), ADD_ROWS):
                yield piece[start : start + ADD_ROWS].astype(np.float32)

    def alive(self, videos: Ids) -> Mask:
        """Return ``[num_videos]``, true for its videos that are among the given ones."""
        return np.isin(self.videos, videos)

    def mask(self, videos: Ids) -> Mask:
        """Return ``[num_rows]``, true for the clips of the given videos."""
        return np.repeat(self.alive(videos), self.counts)

    def count(self, videos: Ids) -> int:
        """Return the number of clips of the given videos; unlike `mask` the cost does not grow with the rows."""
        return int(self.counts[self.alive(videos)].sum())
