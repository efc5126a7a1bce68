"""A whole library as one index: the parts of a generation, and the videos that are not published yet."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.vectors.flat import BATCH_QUERIES, FlatIndex, IndexKind, best, check_search
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.rows import Ids, Mask, Scores
from scanonce.storage.vectors.segments import NOTHING_OPEN, OpenFiles


class LibraryIndex:
    """A whole library as one `VectorIndex`: each part is searched, dead videos are masked out.

    Its rows are the rows of the parts, one part after the other. `open_library` makes it.
    """

    def __init__(
        self,
        parts: Sequence[FlatIndex | IvfPqIndex],
        live_videos: Ids,
        *,
        generation: int = 0,
        open_files: OpenFiles = NOTHING_OPEN,
    ) -> None:
        """Search parts for live videos only.

        Args:
            parts: at least one, all of one dim, no video in two of them.
            live_videos: the videos whose clips may be found.
            generation: number of the generation they were opened from, 0 for none.
            open_files: its open files, to be reused when the next one is opened.
        """
        self.generation = generation
        self.open_files = open_files
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        alive = [part.rows.alive(live_videos) for part in parts]
        self.num_videos = sum(int(np.count_nonzero(videos)) for videos in alive)
        self._part_live = [
            None if videos.all() else np.repeat(videos, part.rows.counts)
            for part, videos in zip(parts, alive, strict=True)
        ]
        self._num_live = sum(
            len(part) if mask is None else int(np.count_nonzero(mask))
            for part, mask in zip(parts, self._part_live, strict=True)
        )
        self._background: tuple[tuple[int, int], NDArray[np.float32]] | None = None

    @property
    def kind(self) -> IndexKind:
        """Kind of the largest part, which comes first."""
        return self._parts[0].kind

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._parts[0].dim

    @property
    def num_rows(self) -> int:
        """Number of rows that a mask covers, those of dead videos included."""
        return int(self._ends[-1])

    def __len__(self) -> int:
        return self._num_live

    def mask(self, videos: Iterable[int]) -> Mask:
        """Return the mask of the clips of these videos, ``[num_rows]``, for ``search``. Unknown ids are no error."""
        wanted = np.fromiter(videos, np.int64)
        return np.concatenate([part.rows.mask(wanted) for part in self._parts])

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """Return the k best live clips of each query; see `VectorIndex.search`."""
        check_search(self, queries, k, allowed)
        masks: Sequence[Mask | None] = self._part_live
        if allowed is not None:
            masks = [
                mask if live is None else mask & live
                for mask, live in zip(
                    np.split(allowed, self._ends[:-1]), self._part_live, strict=True
                )
            ]
        found = [
            part.search(queries, k, allowed=mask)
            for part, mask in zip(self._parts, masks, strict=True)
        ]
        return best(
            np.concatenate([scores for scores, _ in found], axis=1),
            np.concatenate([ids for _, ids in found], axis=1),
            k,
        )

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of rows, ``[len(rows), dim]``."""
        out = np.empty((len(rows), self.dim), np.float32)
        part_of = np.searchsorted(self._ends, rows, side="right")
        first = np.concatenate([np.zeros(1, np.int64), self._ends])
        for number, part in enumerate(self._parts):
            mine = part_of == number
            out[mine] = part.gather(rows[mine] - first[number])
        return out

    def sample(self, sample: int = 4096, seed: int = 0) -> NDArray[np.float32]:
        """Return the embeddings of a fixed random sample of the live clips, ``[min(sample, len(self)), dim]``."""
        if self._background is None or self._background[0] != (sample, seed):
            chosen = np.random.default_rng(seed).choice(
                len(self), min(sample, len(self)), replace=False, shuffle=False
            )
            self._background = (sample, seed), self.gather(self._live_rows(np.sort(chosen)))
        return self._background[1]

    def background(
        self, queries: NDArray[np.float32], sample: int = 4096, seed: int = 0
    ) -> NDArray[np.float32]:
        """Return the scores of the queries for a fixed random sample of the live clips, as a reference.

        Returns:
            ``[num_queries, min(sample, len(self))]``, in any order. The sample is gathered once and cached (8 MB at
            the defaults and 512 dimensions); after that about a millisecond a query.
        """
        clips = self.sample(sample, seed)
        if len(queries) >= BATCH_QUERIES:
            return queries @ clips.T
        # numpy's product uses a second thread from 2**18 multiplications: measured 20 times slower when the machine is
        # busy. One query and 256 clips of 512 dimensions stay on one thread.
        scores = np.empty((len(queries), len(clips)), np.float32)
        for query, row in zip(queries, scores, strict=True):
            for start in range(0, len(clips), 256):
                row[start : start + 256] = clips[start : start + 256] @ query
        return scores

    def _live_rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows at these positions among the live rows."""
        if all(mask is None for mask in self._part_live):
            return positions  # no need to number ten million rows, 80 MB, for a sample
        masks = [
            np.ones(len(part), np.bool_) if mask is None else mask
            for part, mask in zip(self._parts, self._part_live, strict=True)
        ]
        return np.flatnonzero(np.concatenate(masks))[positions]
