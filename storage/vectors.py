"""Inner-product search over clip embeddings, exact and IVF-PQ, behind one protocol.

    >>> rows = ClipRows.of([7], [np.eye(3, dtype=np.float16)])  # one video with three clips
    >>> scores, ids = FlatIndex(rows).search(np.array([[0.0, 1.0, 0.0]], np.float32), k=2)
    >>> scores.tolist(), (ids - (7 << 20)).tolist()
    ([[1.0, 0.0]], [[1, 0]])

Every score that leaves this module is the inner product of a float32 query with a stored float16
row, computed by one kernel, so a clip scores the same wherever it lies: base, delta, or not yet
published. How rows get to disk and back is in ``storage.generations``.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from storage.errors import IndexDirectoryError, ScanonceError
from storage.records import ORDINAL_BITS

Scores: TypeAlias = NDArray[np.float32]
"""``[num_queries, k]``, best first, ``-inf`` where there are fewer than k."""
Ids: TypeAlias = NDArray[np.int64]
"""Clip ids (``video_id << 20 | ordinal``), -1 where there are fewer than asked."""
Mask: TypeAlias = NDArray[np.bool_]
"""One truth value per row."""
IndexKind = Literal["flat", "ivfpq"]

EXACT_ROWS = 10_000
"""Up to so many passing rows a filter is answered exactly. Measured with 1 % of a million passing:
9 ms, as long as enough probes take; the usual 64 are faster and find half of the answer."""

TRAINING_ROWS_PER_CELL = 40
"""FAISS asks for 39. At a million clips these were measured to take 77 CPU seconds of k-means."""

ADD_ROWS = 16_384
"""Rows turned to float32 at once while an index is built: 32 MB at 512 dimensions."""


class VectorIndex(Protocol):
    """Search by inner product over unit clip embeddings."""

    @property
    def kind(self) -> IndexKind:
        """``flat`` is exact; ``ivfpq`` finds candidates by code, then scores those exactly."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def num_rows(self) -> int:
        """Rows that a mask covers and ``gather`` reaches, clips of dead videos included."""

    def __len__(self) -> int:
        """Clips that a search can find."""

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """The k best clips of each query.

        Args:
            queries: ``[num_queries, dim]``, unit vectors if scores are to be cosines.
            k: at least 1; may be more than there are clips.
            allowed: ``[num_rows]``, true where a clip may be returned; all by default.

        Returns:
            Scores and ids ``[num_queries, k]``, best first, equal scores by rising id, padded with
            -inf and -1. Scores are exact for every kind; ``ivfpq`` may miss a clip. One thread is
            used.

        Raises:
            ValueError: a shape does not fit, a query is not finite, or k is below 1.
        """

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[num_rows_asked, dim]`` as stored (float16 precision) of the given rows."""


@dataclass(frozen=True, eq=False)
class ClipRows:
    """The clips of whole videos, one float16 row a clip; a video's clips lie together, in order."""

    pieces: tuple[NDArray[np.float16], ...]
    """At least one of ``[num_rows_of_the_piece, dim]``, contiguous; usually mappings of files. The
    rows are those of the pieces, one piece after the other."""
    videos: Ids
    """``[num_videos]``, each id once, in any order."""
    counts: NDArray[np.int64]
    """``[num_videos]``, clips of each video, 0 allowed; they sum to ``num_rows``."""
    starts: NDArray[np.int64] = field(init=False)
    """``[num_videos + 1]``, first row of each video, then ``num_rows``."""
    _ends: NDArray[np.int64] = field(init=False)
    """``[num_pieces]``, the row after each piece."""

    def __post_init__(self) -> None:
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        ends = np.cumsum([len(piece) for piece in self.pieces], dtype=np.int64)
        if self.videos.shape != self.counts.shape or len({p.shape[1:] for p in self.pieces}) != 1:
            raise ValueError(
                f"need rows [N, D] and as many counts as videos; got "
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
        """Rows in memory from one ``[num_clips, dim]`` array for each video, at least one video."""
        counts = np.array([len(rows) for rows in clips], np.int64)
        matrix = np.concatenate([rows.astype(np.float16) for rows in clips])
        return cls((matrix,), np.fromiter(videos, np.int64), counts)

    @classmethod
    def none(cls, dim: int) -> "ClipRows":
        """No clips of no videos."""
        return cls.joined((), dim)

    @classmethod
    def joined(cls, parts: Sequence["ClipRows"], dim: int) -> "ClipRows":
        """The rows of several, one after the other, nothing copied."""
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
        """Clip ids of rows, of any shape; -1 stays -1."""
        video = np.searchsorted(self.starts, rows, side="right") - 1
        ids = self.videos[video] << ORDINAL_BITS | (rows - self.starts[video])
        return np.where(rows >= 0, ids, -1)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Embeddings ``[len(rows), dim]`` of the given rows, in any order."""
        if len(self.pieces) == 1:
            return self.pieces[0][rows]
        out = np.empty((len(rows), self.dim), np.float16)
        piece_of = np.searchsorted(self._ends, rows, side="right")
        for number, piece in enumerate(self.pieces):
            mine = piece_of == number
            out[mine] = piece[rows[mine] - (self._ends[number] - len(piece))]
        return out

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]``."""
        return self.take(rows).astype(np.float32)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All rows in order, ``[at most ADD_ROWS, dim]`` at a time."""
        for piece in self.pieces:
            for start in range(0, len(piece), ADD_ROWS):
                yield piece[start : start + ADD_ROWS].astype(np.float32)

    def alive(self, videos: Ids) -> Mask:
        """``[num_videos]``, true for those of its videos that are among the given ones."""
        return np.isin(self.videos, videos)

    def mask(self, videos: Ids) -> Mask:
        """``[num_rows]``, true for the clips of the given videos."""
        return np.repeat(self.alive(videos), self.counts)

    def count(self, videos: Ids) -> int:
        """Clips of the given videos; unlike `mask` it does not grow with the rows."""
        return int(self.counts[self.alive(videos)].sum())


class FlatIndex:
    """Exact search: at 512 dimensions .4 ms a query over 10,000 clips, 5 ms over 50,000.

    FAISS's float16 kernel works on a copy in memory, 1 KB a clip: measured 6 times faster than
    numpy on the mapped file.
    """

    kind: IndexKind = "flat"

    def __init__(self, rows: ClipRows) -> None:
        self.rows = rows
        self._index = _fp16_index(rows.pieces, rows.dim)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.rows.dim

    @property
    def num_rows(self) -> int:
        """Rows that a mask covers."""
        return len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """The k best clips of each query, exactly; see `VectorIndex.search`."""
        check_search(self, queries, k, allowed)
        scores, rows = _exact(self._index, queries, k, allowed)
        return best(scores, self.rows.ids(rows), k)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]`` of rows."""
        return self.rows.gather(rows)


class IvfPqIndex:
    """Candidates from 4-bit codes in inverted lists, then exact scores of the best of them.

    Measured at a million clips of 512 dimensions: 1.4 ms a query at recall@10 .98, 151 B a clip.
    """

    kind: IndexKind = "ivfpq"

    def __init__(self, rows: ClipRows, codes: Any, *, nprobe: int, rescore_depth: int) -> None:
        """Search ``rows`` by ``codes``: what `train` made of them, or `read_codes` of that.

        Raises:
            ValueError: the codes are of other rows.
        """
        self.rows = rows
        self.nprobe = nprobe
        self.rescore_depth = rescore_depth
        self._codes = codes
        if (codes.d, codes.ntotal) != (rows.dim, len(rows)):
            raise ValueError(
                f"codes of {codes.ntotal} clips of {codes.d} dimensions do not fit "
                f"{len(rows)} rows of {rows.dim}"
            )

    @staticmethod
    def train(rows: ClipRows) -> Any:
        """A FAISS index over ``rows``; at least 16 of them, and all cores are used.

        Cost at a million clips: about 130 CPU seconds and 400 MB.
        """
        faiss = _faiss()
        index = faiss.index_factory(rows.dim, factory(rows), faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 10  # k-means settles by then; FAISS's 25 cost 2.5 times as much
        # A small library is no reason to print warnings.
        index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
        index.train(rows.gather(training_rows(len(rows), index.nlist)))
        IvfPqIndex.extend(index, rows)
        return index

    @staticmethod
    def extend(codes: Any, rows: ClipRows) -> None:
        """Add rows behind those that ``codes`` holds, which must be in memory, not mapped.

        Lists and codec stay as they were trained; `storage.list_fit` notices when that no longer does. Cost
        for 20,000 clips into 4096 lists: about 1.5 CPU seconds, whatever the lists hold already.
        """
        for block in rows.blocks():
            codes.add(block)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.rows.dim

    @property
    def num_rows(self) -> int:
        """Rows that a mask covers."""
        return len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """The k best clips of each query; see `VectorIndex.search`. Exact where few rows pass."""
        check_search(self, queries, k, allowed)
        passing = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if passing <= max(EXACT_ROWS, k):
            rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            return self._score(queries, rows, k)
        candidates = self._candidates(queries, max(self.rescore_depth, k), allowed, passing)
        scored = [
            self._score(query[None], np.sort(rows[rows >= 0]), k)
            for query, rows in zip(queries, candidates, strict=True)
        ]
        if not scored:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        return np.concatenate([s for s, _ in scored]), np.concatenate([i for _, i in scored])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]`` of rows."""
        return self.rows.gather(rows)

    def _candidates(
        self, queries: NDArray[np.float32], depth: int, allowed: Mask | None, passing: int
    ) -> NDArray[np.int64]:
        faiss = _faiss()
        nlist = self._codes.nlist
        nprobe = self.nprobe
        # The probed lists hold few passing rows under a filter. Measured recall@10 at 10 % passing:
        # .80 with 64 of 4096 lists, .95 with 1024.
        if passing < 0.1 * len(self):
            nprobe = max(nprobe, nlist // 4)
        elif passing < 0.5 * len(self):
            nprobe *= 4
        options = {"nprobe": min(nprobe, nlist)}
        selector = None if allowed is None else _Selector(allowed)
        if selector is not None:
            options["sel"] = selector.faiss
        with _one_thread():
            _, rows = self._codes.search(
                np.ascontiguousarray(queries), depth, params=faiss.SearchParametersIVF(**options)
            )
        found: NDArray[np.int64] = rows
        return found

    def _score(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64], k: int
    ) -> tuple[Scores, Ids]:
        scores, found = _exact(_fp16_index([self.rows.take(rows)], self.dim), queries, k, None)
        return best(scores, self.rows.ids(rows[found]), k)


def training_rows(num_rows: int, nlist: int) -> NDArray[np.int64]:
    """The rows that ``nlist`` lists are trained on, rising; the same at every call."""
    wanted = min(num_rows, TRAINING_ROWS_PER_CELL * nlist)
    return np.sort(np.random.default_rng(0).choice(num_rows, wanted, replace=False))


def factory(rows: ClipRows) -> str:
    """FAISS's name of the IVF-PQ index for these rows: ``IVF4096,PQ256x4fs`` at [1_000_000, 512].

    Cells are 4 sqrt(N), as a power of two. A 4-bit code for every two dimensions, scanned in
    registers: measured at a million clips as good as 8-bit PQ128 in less than half its time.
    """
    nlist = 2 ** round(math.log2(4 * math.sqrt(len(rows))))
    m = next(m for m in range(max(1, rows.dim // 2), 0, -1) if rows.dim % m == 0)
    return f"IVF{nlist},PQ{m}x4fs"


def default_nprobe(nlist: int) -> int:
    """Lists to look into: measured recall@10 .995 with 64 of 1024, .98 with 128 of 4096."""
    return min(nlist, max(64, nlist // 32))


def best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    """The k best of ``[num_queries, n]`` candidates, equal scores by rising id.

    An id of -1 is no candidate; the answer is padded with -inf and -1 to ``[num_queries, k]``.
    """
    scores = np.where(ids >= 0, scores, np.float32(-np.inf))
    order = np.lexsort((ids, -scores), axis=-1)[:, :k]
    padding = ((0, 0), (0, max(0, k - order.shape[1])))
    return (
        np.pad(np.take_along_axis(scores, order, 1), padding, constant_values=-np.inf),
        np.pad(np.take_along_axis(ids, order, 1), padding, constant_values=-1),
    )


def check_search(
    index: VectorIndex, queries: NDArray[np.float32], k: int, allowed: Mask | None
) -> None:
    """Refuse arguments of ``search`` that do not fit; see `VectorIndex.search`."""
    if queries.ndim != 2 or queries.shape[1] != index.dim or not np.isfinite(queries).all():
        raise ValueError(
            f"queries must be finite, [num_queries, {index.dim}]; got {list(queries.shape)}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if allowed is not None and allowed.shape != (index.num_rows,):
        raise ValueError(f"the mask must be [{index.num_rows}]; got {list(allowed.shape)}")


def read_codes(path: str, *, mapped: bool = True) -> Any:
    """Open a FAISS file.

    Args:
        path: of the file.
        mapped: to be searched only, half the time of reading it. FAISS copies these codes all the
            same: 30 milliseconds and 151 MB for a million clips of 512 dimensions.

    Raises:
        IndexDirectoryError: FAISS cannot read it.
    """
    faiss = _faiss()
    try:
        return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise IndexDirectoryError(f"{path} is not a readable FAISS index: {error}") from error


def write_codes(codes: Any, path: str) -> None:
    """Write a FAISS index to a file.

    Raises:
        IndexDirectoryError: it cannot be written, for example because the disk is full.
    """
    try:
        _faiss().write_index(codes, path)
    except RuntimeError as error:
        raise IndexDirectoryError(
            f"cannot write {path}: {error}; check free space and permissions, then run again"
        ) from error


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ScanonceError(
            "faiss is not installed: pip install faiss-cpu, or install scanonce with its extra "
            "'cpu' or 'gpu' (one of them, never both)"
        ) from error
    return faiss


@contextmanager
def _one_thread() -> Iterator[None]:
    """One OpenMP thread: two were measured 60 times slower for single queries on a busy machine."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class _Selector:
    """A FAISS selector together with the bits it points to, which FAISS does not keep alive."""

    def __init__(self, allowed: Mask) -> None:
        faiss = _faiss()
        self._bits = np.packbits(allowed, bitorder="little")
        self.faiss = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(self._bits))


def _fp16_index(pieces: Iterable[NDArray[np.float16]], dim: int) -> Any:
    faiss = _faiss()
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    for piece in pieces:
        if len(piece):
            index.add_sa_codes(np.ascontiguousarray(piece).view(np.uint8))
    return index


def _exact(
    index: Any, queries: NDArray[np.float32], k: int, allowed: Mask | None
) -> tuple[Scores, NDArray[np.int64]]:
    """Scores and rows ``[num_queries, n]`` that hold the k best, and whatever ties with the k-th."""
    faiss = _faiss()
    if not index.ntotal or not len(queries):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    selector = None if allowed is None else _Selector(allowed)
    params = None if selector is None else faiss.SearchParameters(sel=selector.faiss)
    # FAISS keeps any of the rows that tie at the end of the list. Look one further, and on for as
    # long as the last one seen still ties with the k-th, so that all of the tie is here and the
    # lowest ids can win.
    depth = k + 1
    with _one_thread():
        while True:
            depth = min(depth, index.ntotal)
            scores, rows = index.search(np.ascontiguousarray(queries), depth, params=params)
            if depth <= k or depth == index.ntotal:
                break
            if not ((scores[:, k - 1] == scores[:, -1]) & (rows[:, -1] >= 0)).any():
                break
            depth *= 4
    return scores, rows
