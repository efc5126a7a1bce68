"""Inner-product search over clip embeddings, exact and IVF-PQ, behind one protocol.

    >>> rows = ClipRows.of([7], [np.eye(3, dtype=np.float16)])  # one video with three clips
    >>> scores, ids = FlatIndex(rows).search(np.array([[0.0, 1.0, 0.0]], np.float32), k=2)
    >>> scores.tolist(), (ids - (7 << 20)).tolist()
    ([[1.0, 0.0]], [[1, 0]])

Every score that leaves this module is the inner product of a float32 query with a stored float16
row, computed by one kernel, so a clip scores the same wherever it lies: base, delta, or not yet
published; and each query is answered on its own, so it is answered the same among thousands. How
rows get to disk and back is in ``storage.generations``.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.clip_rows import ADD_ROWS, ClipRows, Ids, Mask, Scores
from scanonce.storage.codes import (
    TRAINING_ROWS_PER_CELL,
    default_nprobe,
    extend_codes,
    factory,
    load_faiss,
    num_threads,
    one_thread,
    read_codes,
    train_codes,
    training_rows,
    write_codes,
)
from scanonce.storage.gpu import GpuCodes

__all__ = [
    "ADD_ROWS",
    "EXACT_ROWS",
    "TRAINING_ROWS_PER_CELL",
    "ClipRows",
    "FlatIndex",
    "Ids",
    "IndexKind",
    "IvfPqIndex",
    "Mask",
    "Scores",
    "VectorIndex",
    "best",
    "check_search",
    "default_nprobe",
    "factory",
    "read_codes",
    "search_exactly",
    "training_rows",
    "write_codes",
]

IndexKind = Literal["flat", "ivfpq"]

EXACT_ROWS, EXACT_SHARE = 10_000, 1 / 64
"""A filter that up to so many rows pass, or such a share of all, is answered exactly. Measured: .3 ms
for 1,000 passing rows, where enough probes take 4 ms for a million rows whatever passes; the usual 64
are faster and find half of the answer."""

BATCH_QUERIES = 64
"""Queries from which all cores are used. Measured on two busy cores with 200,000 clips, wall time on
one thread and on two: 32 queries 69 and 81 ms, 64 135 and 67, 128 217 and 142."""

_GPU_SHARE = 0.9  # of the clips may be found, at least, where a GPU looks them up
_EXACT_BLOCK = 65_536  # rows that `search_exactly` copies at once
# Rows that are copied at once for few queries. Measured with 10,000 rows: 3 ms, 15 ms all at once: the
# same memory serves for the next rows, where fresh memory costs more than all the rest.
_SMALL_BLOCK = 2_048
_BLOCK_QUERIES = 16  # at once on one thread: small enough that threads end together


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
            -inf and -1. Scores are exact for every kind; ``ivfpq`` may miss a clip. A query's answer
            is the same, bit for bit, whichever others are asked with it. One thread is used for few
            queries; from `BATCH_QUERIES` all cores (`storage.codes.num_threads`), and memory does not grow
            with the queries but for the answer.

        Raises:
            ValueError: a shape does not fit, a query is not finite, or k is below 1.
        """

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[num_rows_asked, dim]`` as stored (float16 precision) of the given rows."""


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
        selector = None if allowed is None else _Selector(allowed)

        def answer(part: slice) -> tuple[Scores, Ids]:
            scores, rows = _exact(self._index, queries[part], k, selector)
            return best(scores, self.rows.ids(rows), k)

        return _in_blocks(answer, len(queries), k)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]`` of rows."""
        return self.rows.gather(rows)


class IvfPqIndex:
    """Candidates from codes in inverted lists, then exact scores of the best of them.

    Measured at a million clips of 512 dimensions with 4-bit codes: 1.4 ms a query at recall@10 .98,
    151 B a clip. The forms of codes are told in `storage.codes`.
    """

    kind: IndexKind = "ivfpq"

    train = staticmethod(train_codes)
    extend = staticmethod(extend_codes)

    def __init__(
        self,
        rows: ClipRows,
        codes: Any,
        *,
        nprobe: int,
        rescore_depth: int,
        gpu: GpuCodes | None = None,
    ) -> None:
        """Search ``rows`` by ``codes``: what `train` made of them, or `read_codes` of that.

        Args:
            rows: in the order in which they were added to the codes.
            codes: a FAISS index.
            nprobe: lists a query looks into; more where a filter leaves few clips.
            rescore_depth: candidates that are scored exactly, at least as many as are asked for.
            gpu: the same codes on a GPU, to look up the candidates of many queries.

        Raises:
            ValueError: the codes are of other rows.
        """
        self.rows = rows
        self.nprobe = nprobe
        self.rescore_depth = rescore_depth
        self.gpu = gpu
        self.codes = codes
        """The FAISS index."""
        if (codes.d, codes.ntotal) != (rows.dim, len(rows)):
            raise ValueError(
                f"codes of {codes.ntotal} clips of {codes.d} dimensions do not fit "
                f"{len(rows)} rows of {rows.dim}"
            )

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.rows.dim

    @property
    def nlist(self) -> int:
        """Number of inverted lists."""
        return int(self.codes.nlist)

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
        if passing <= max(EXACT_ROWS, EXACT_SHARE * len(self), k):
            rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
            return _exactly_among(self.rows, rows, queries, k)
        look_up = self._look_up(queries, max(self.rescore_depth, k), allowed, passing)

        def answer(part: slice) -> tuple[Scores, Ids]:
            # One at a time: FAISS looks up several together, twice as fast, but in another order of
            # its lists, which decides between candidates whose codes tie at the end.
            numbers = range(*part.indices(len(queries)))
            each = [_scorer(self.rows, look_up(n), k)(queries[n : n + 1]) for n in numbers]
            return _joined(each, k)

        return _in_blocks(answer, len(queries), k)

    def candidates(
        self, queries: NDArray[np.float32], *, nprobe: int, depth: int, allowed: Mask | None = None
    ) -> Ids:
        """Ids ``[num_queries, depth]`` of the clips with the best codes, best first, -1 for none."""
        look_up = _LookUp(self.codes, min(nprobe, self.nlist), depth, allowed)
        rows = [look_up(query[None], ranked=True) for query in queries]
        return self.rows.ids(np.stack(rows)) if rows else np.empty((0, depth), np.int64)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings ``[len(rows), dim]`` of rows."""
        return self.rows.gather(rows)

    def _nprobe(self, passing: int) -> int:
        """Lists to look into where so many rows pass."""
        # The probed lists hold few passing rows under a filter. Measured recall@10 at 10 % passing:
        # .80 with 64 of 4096 lists, .95 with 1024.
        if passing < 0.1 * len(self):
            return max(self.nprobe, self.nlist // 4)
        return self.nprobe * 4 if passing < 0.5 * len(self) else self.nprobe

    def _look_up(
        self, queries: NDArray[np.float32], depth: int, allowed: Mask | None, passing: int
    ) -> Callable[[int], NDArray[np.int64]]:
        """What gives the candidates of the query of a number, rising rows."""
        nprobe = min(self._nprobe(passing), self.nlist)
        # A GPU cannot filter. Where nearly all may be found its candidates are filtered afterwards.
        few_are_out = passing >= _GPU_SHARE * len(self)
        if self.gpu is not None and len(queries) >= BATCH_QUERIES and few_are_out:
            found = self.gpu.candidates(queries, nprobe=nprobe, depth=depth)
            if allowed is not None:
                found = np.where(allowed[found], found, -1)
            return lambda number: np.sort(found[number][found[number] >= 0])
        look_up = _LookUp(self.codes, nprobe, depth, allowed)
        return lambda number: look_up(queries[number : number + 1])


class _LookUp:
    """The rows with the best codes for a query; may be called from several threads at once."""

    def __init__(self, codes: Any, nprobe: int, depth: int, allowed: Mask | None) -> None:
        self._codes, self._depth = codes, depth
        options: dict[str, Any] = {"nprobe": nprobe}
        self._selector = None if allowed is None else _Selector(allowed)
        if self._selector is not None:
            options["sel"] = self._selector.faiss
        self._params = load_faiss().SearchParametersIVF(**options)

    def __call__(self, query: NDArray[np.float32], *, ranked: bool = False) -> NDArray[np.int64]:
        """For one query ``[1, dim]``: its rows, rising; ``ranked``: ``[depth]``, best first, -1 for none."""
        with one_thread():
            _, found = self._codes.search(
                np.ascontiguousarray(query), self._depth, params=self._params
            )
        rows: NDArray[np.int64] = found[0]
        return rows if ranked else np.sort(rows[rows >= 0])


def search_exactly(
    rows: ClipRows, queries: NDArray[np.float32], k: int, *, allowed: Mask | None = None
) -> tuple[Scores, Ids]:
    """The k best of all rows for each query, as `FlatIndex.search` finds them, without its copy.

    Cost at 512 dimensions: 36 CPU milliseconds a query and million rows, and 67 MB.
    """
    found = [_nothing(queries)]
    for start in range(0, len(rows), _EXACT_BLOCK):
        some = np.arange(start, min(start + _EXACT_BLOCK, len(rows)))
        some = some if allowed is None else some[allowed[some]]
        found = [_merged([*found, _exactly_among(rows, some, queries, k)], k)]
    return _merged(found, k)


def _exactly_among(
    rows: ClipRows, some: NDArray[np.int64], queries: NDArray[np.float32], k: int
) -> tuple[Scores, Ids]:
    """The k best of some rows, their numbers rising."""
    found = [_nothing(queries)]
    step = _SMALL_BLOCK if len(queries) < BATCH_QUERIES else _EXACT_BLOCK
    for start in range(0, len(some), step):
        score = _scorer(rows, some[start : start + step], k)
        found.append(_in_blocks(_answering(score, queries), len(queries), k))
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
    """The k best of ``[num_queries, n]`` candidates, equal scores by rising id.

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
    """Refuse arguments of ``search`` that do not fit; see `VectorIndex.search`."""
    if queries.ndim != 2 or queries.shape[1] != index.dim or not np.isfinite(queries).all():
        raise ValueError(
            f"queries must be finite, [num_queries, {index.dim}]; got {list(queries.shape)}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    if allowed is not None and allowed.shape != (index.num_rows,):
        raise ValueError(f"the mask must be [{index.num_rows}]; got {list(allowed.shape)}")


def _in_blocks(
    answer: Callable[[slice], tuple[Scores, Ids]], num_queries: int, k: int
) -> tuple[Scores, Ids]:
    """The answers of all queries, some at a time; on all cores where there are many."""
    starts = range(0, num_queries, _BLOCK_QUERIES)
    blocks = [slice(start, min(start + _BLOCK_QUERIES, num_queries)) for start in starts]
    threads = min(num_threads(), len(blocks))
    if threads < 2 or num_queries < BATCH_QUERIES:
        return _joined([answer(block) for block in blocks], k)
    # Our threads, not OpenMP's: FAISS lets go of the interpreter while it works, and so a query is
    # answered by the same steps as one that is asked alone.
    with ThreadPoolExecutor(threads) as pool:
        return _joined(list(pool.map(answer, blocks)), k)


def _scorer(
    rows: ClipRows, some: NDArray[np.int64], k: int
) -> Callable[[NDArray[np.float32]], tuple[Scores, Ids]]:
    """What scores queries against some of the rows, exactly."""
    index = _fp16_index([rows.take(some)], rows.dim)

    def score(queries: NDArray[np.float32]) -> tuple[Scores, Ids]:
        scores, found = _exact(index, queries, k, None)
        return best(scores, rows.ids(some[found]), k)

    return score


def _joined(answers: list[tuple[Scores, Ids]], k: int) -> tuple[Scores, Ids]:
    none = np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    scores, ids = zip(*answers, strict=True) if answers else ([none[0]], [none[1]])
    return np.concatenate(scores), np.concatenate(ids)


class _Selector:
    """A FAISS selector together with the bits it points to, which FAISS does not keep alive."""

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
    index: Any, queries: NDArray[np.float32], k: int, selector: _Selector | None
) -> tuple[Scores, NDArray[np.int64]]:
    """Scores and rows ``[num_queries, n]`` that hold the k best, and whatever ties with the k-th."""
    faiss = load_faiss()
    if not index.ntotal or not len(queries):
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    params = None if selector is None else faiss.SearchParameters(sel=selector.faiss)
    # FAISS keeps any of the rows that tie at the end of the list. Look one further, and on for as
    # long as the last one seen still ties with the k-th, so that all of the tie is here and the
    # lowest ids can win.
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
