"""Inner-product search over clip embeddings, exact and IVF-PQ, behind one protocol.

    >>> rows = ClipRows.of([7], [np.eye(3, dtype=np.float16)])  # one video with three clips
    >>> scores, ids = FlatIndex(rows).search(np.array([[0.0, 1.0, 0.0]], np.float32), k=2)
    >>> scores.tolist(), (ids - (7 << 20)).tolist()
    ([[1.0, 0.0]], [[1, 0]])

Every score that leaves this module is the inner product of a float32 query with a stored float16 row, computed by one
kernel. So a clip has the same score in the base, in the delta, and before it is published. Each query is answered on
its own, so the answer does not depend on the other queries of a batch. How rows get to disk and back is in
`storage.vectors.publish`.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.vectors.codes import load_faiss, num_threads, one_thread
from scanonce.storage.vectors.rows import ClipRows, Ids, Mask, Scores

IndexKind = Literal["flat", "ivfpq"]

BATCH_QUERIES = 64
"""Number of queries from which all cores are used. Measured on two busy cores with 200,000 clips, wall time on one
thread and on two: 32 queries 69 and 81 ms, 64 135 and 67, 128 217 and 142."""

_EXACT_BLOCK = 65_536  # rows that `search_exactly` copies at once
# Rows that are copied at once for few queries. Measured with 10,000 rows: 3 ms, and 15 ms if all are copied at once.
# Fresh memory costs more than all the rest, and a small block uses the same memory again.
_SMALL_BLOCK = 2_048
_BLOCK_QUERIES = 16  # queries at once on one thread: few, so that threads end at the same time


class VectorIndex(Protocol):
    """An index of clip embeddings, searched by inner product."""

    @property
    def kind(self) -> IndexKind:
        """``flat`` is exact; ``ivfpq`` finds candidates by code, then scores them exactly."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    @property
    def num_rows(self) -> int:
        """Number of rows that a mask covers and ``gather`` reaches, clips of dead videos included."""

    def __len__(self) -> int:
        """Return the number of clips that a search can find."""

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """Return the k best clips of each query.

        Args:
            queries: ``[num_queries, dim]``, unit vectors if scores shall be cosines.
            k: at least 1; may exceed the number of clips.
            allowed: ``[num_rows]``, true for clips that may be returned; all by default.

        Returns:
            Scores and ids ``[num_queries, k]``, best first, equal scores by rising id, padded with -inf and -1. Scores
            are exact for every kind; ``ivfpq`` may miss a clip. A query's answer is the same, bit for bit, whichever
            other queries are asked with it. Few queries use one thread; from `BATCH_QUERIES` all cores are used
            (`storage.vectors.codes.num_threads`). Apart from the answer, memory does not grow with the queries.

        Raises:
            ValueError: a shape does not fit, a query is not finite, or k is below 1.
        """

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of rows as stored (float16 precision), ``[num_rows_asked, dim]``."""


class RowsIndex:
    """The part of an index that depends on its rows only."""

    rows: ClipRows

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.rows.dim

    @property
    def num_rows(self) -> int:
        """Number of rows that a mask covers."""
        return len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of rows, ``[len(rows), dim]``."""
        return self.rows.gather(rows)


class FlatIndex(RowsIndex):
    """Exact search: at 512 dimensions .4 ms a query over 10,000 clips, 5 ms over 50,000.

    FAISS's float16 kernel needs a copy in memory, 1 KB a clip: measured 6 times faster than numpy on the mapped file.
    """

    kind: IndexKind = "flat"

    def __init__(self, rows: ClipRows) -> None:
        self.rows = rows
        self._index = _fp16_index(rows.pieces, rows.dim)

    def search(
        self, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
    ) -> tuple[Scores, Ids]:
        """Return the k best clips of each query, exactly; see `VectorIndex.search`."""
        check_search(self, queries, k, allowed)
        selector = None if allowed is None else Selector(allowed)

        def answer(part: slice) -> tuple[Scores, Ids]:
            scores, rows = _exact(self._index, queries[part], k, selector)
            return best(scores, self.rows.ids(rows), k)

        return in_blocks(answer, len(queries), k)


def search_exactly(
    rows: ClipRows, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
) -> tuple[Scores, Ids]:
    """Return the k best of all rows for each query, as `FlatIndex.search` does, without its copy.

    Cost at 512 dimensions: 36 CPU milliseconds for a query and a million rows, and 67 MB.
    """
    found = [_nothing(queries)]
    for start in range(0, len(rows), _EXACT_BLOCK):
        some = np.arange(start, min(start + _EXACT_BLOCK, len(rows)))
        some = some if allowed is None else some[allowed[some]]
        found = [_merged([*found, exactly_among(rows, some, queries, k)], k)]
    return _merged(found, k)


def exactly_among(
    rows: ClipRows, some: NDArray[np.int64], queries: NDArray[np.float32], k: int
) -> tuple[Scores, Ids]:
    """Return the k best of some rows, whose numbers rise."""
    found = [_nothing(queries)]
    step = _SMALL_BLOCK if len(queries) < BATCH_QUERIES else _EXACT_BLOCK
    for start in range(0, len(some), step):
        score = scorer(rows, some[start : start + step], k)
        found.append(in_blocks(_answering(score, queries), len(queries), k))
    return _merged(found, k)


def _answering(
    score: Callable[[NDArray[np.float32]], tuple[Scores, Ids]], queries: NDArray[np.float32]
) -> Callable[[slice], tuple[Scores, Ids]]:
    return lambda part: score(queries[part])


def _nothing(queries: NDArray[np.float32]) -> tuple[Scores, Ids]:
    return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)


def _merged(found: list[tuple[Scores, Ids]], k: int) -> tuple[Scores, Ids]:
    scores, ids = zip(*found, strict=True)
    return best(np.concatenate(scores, axis=1), np.concatenate(ids, axis=1), k)


def best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    """Return the k best of ``[num_queries, n]`` candidates, equal scores by rising id.

    An id of -1 is no candidate; the answer is padded with -inf and -1 to ``[num_queries, k]``.
    """
    scores = np.where(ids >= 0, scores, np.float32(-np.inf))
    order = np.lexsort((ids, -scores), axis=-1)[:, :k]
    ranked = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    if order.shape[1] == k:
        return ranked
    padding = ((0, 0), (0, k - order.shape[1]))
    return (
        np.pad(ranked[0], padding, constant_values=-np.inf),
        np.pad(ranked[1], padding, constant_values=-1),
    )


def check_search(
    index: VectorIndex, queries: NDArray[np.float32], k: int, allowed: Mask | None
) -> None:
    """Check the arguments of ``search``; see `VectorIndex.search`."""
    if queries.ndim != 2 or queries.shape[1] != index.dim or not np.isfinite(queries).all():
        raise ValueError(
            f"queries must be finite, [num_queries, {index.dim}]; got {list(queries.shape)}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if allowed is not None and allowed.shape != (index.num_rows,):
        raise ValueError(f"the mask must be [{index.num_rows}]; got {list(allowed.shape)}")


def in_blocks(
    answer: Callable[[slice], tuple[Scores, Ids]], num_queries: int, k: int
) -> tuple[Scores, Ids]:
    """Answer all queries, some at a time, on all cores if there are many."""
    starts = range(0, num_queries, _BLOCK_QUERIES)
    blocks = [slice(start, min(start + _BLOCK_QUERIES, num_queries)) for start in starts]
    threads = min(num_threads(), len(blocks))
    if threads < 2 or num_queries < BATCH_QUERIES:
        return joined([answer(block) for block in blocks], k)
    # Our threads, not OpenMP's: FAISS releases the interpreter lock while it works, and each query takes the same
    # steps as one that is asked alone.
    with ThreadPoolExecutor(threads) as pool:
        return joined(list(pool.map(answer, blocks)), k)


def scorer(
    rows: ClipRows, some: NDArray[np.int64], k: int
) -> Callable[[NDArray[np.float32]], tuple[Scores, Ids]]:
    """Return a function that scores queries against some of the rows, exactly."""
    index = _fp16_index([rows.take(some)], rows.dim)

    def score(queries: NDArray[np.float32]) -> tuple[Scores, Ids]:
        scores, found = _exact(index, queries, k, None)
        return best(scores, rows.ids(some[found]), k)

    return score


def joined(answers: list[tuple[Scores, Ids]], k: int) -> tuple[Scores, Ids]:
    none = np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    scores, ids = zip(*answers, strict=True) if answers else ([none[0]], [none[1]])
    return np.concatenate(scores), np.concatenate(ids)


class Selector:
    """A FAISS selector with the bits it points to, which FAISS does not keep alive."""

    def __init__(self, allowed: Mask) -> None:
        faiss = load_faiss()
        self._bits = np.packbits(allowed, bitorder="little")
        self.faiss = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(self._bits))


def _fp16_index(pieces: Iterable[NDArray[np.float16]], dim: int) -> Any:
    faiss = load_faiss()
    index = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    for piece in pieces:
        if len(piece):
            index.add_sa_codes(np.ascontiguousarray(piece).view(np.uint8))
    return index


def _exact(
    index: Any, queries: NDArray[np.float32], k: int, selector: Selector | None
) -> tuple[Scores, NDArray[np.int64]]:
    """Return scores and rows ``[num_queries, n]`` that contain the k best, and all that tie with the k-th."""
    faiss = load_faiss()
    if not index.ntotal or not len(queries):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    params = None if selector is None else faiss.SearchParameters(sel=selector.faiss)
    # FAISS keeps any of the rows that tie at the end of the list. Search one row deeper, and deeper again as long as
    # the last row still ties with the k-th: then all rows of the tie are here, and the lowest ids can win.
    depth = k + 1
    with one_thread():
        while True:
            depth = min(depth, index.ntotal)
            scores, rows = index.search(np.ascontiguousarray(queries), depth, params=params)
            if depth <= k or depth == index.ntotal:
                break
            if not ((scores[:, k - 1] == scores[:, -1]) & (rows[:, -1] >= 0)).any():
                break
            depth *= 4
    return scores, rows
