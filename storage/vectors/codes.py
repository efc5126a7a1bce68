"""Codes of clips in inverted lists, made by FAISS: their forms, their training, and their file.

    form = coded_form("auto", num_rows=1_000_000)             # "ivfpq-fastscan"
    codes = train_codes(rows, form)                           # a FAISS index: IVF4096,PQ256x4fs
    write_codes(codes, "base.faiss")
    codes = read_codes("base.faiss")                          # to be searched; mapped if FAISS can map them

Two forms, measured at a million clips of 512 dimensions (recall@10 of text queries, CPU time of a query, bytes of a
clip):

    ivfpq-fastscan   IVF4096,PQ256x4fs   .982   1.4 ms   151 B   read into memory
    ivfpq            IVF4096,PQ64np      .966   2.6 ms    81 B   stays on disk, mapped
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import IndexDirectoryError, ScanonceError, reported
from scanonce.storage.settings import Kind
from scanonce.storage.untrusted import DamagedFile, check_regular
from scanonce.storage.vectors.rows import ClipRows

CodedForm = Literal["ivfpq-fastscan", "ivfpq"]
"""4-bit codes that are scanned in registers, or 8-bit codes that are looked up in tables."""

MAPPED_ROWS = 4_000_000
"""Number of clips from which ``auto`` leaves the codes on disk. FAISS copies 4-bit codes into every process that opens
them: measured 30 ms and 151 MB a million, so 1.5 GB and .3 s at ten million. It maps 8-bit codes: 3 ms and 1 MB a
million, and a query reads only the lists it searches. With fewer clips, the 4-bit codes find more in half the time and
fit into memory."""

HNSW_CELLS = 16_384
"""Number of cells from which the nearest ones are looked up in a graph of the centroids. Comparing a query with all
centroids would cost 8 million products at 512 dimensions, more than scanning the lists."""

TRAINING_ROWS_PER_CELL = 40
"""FAISS wants at least 39. At a million clips, k-means took 77 CPU seconds with 40."""

HELD_OUT_SHARE, HELD_OUT_ROWS, FEWEST_HELD_OUT = 0.02, 4_096, 8
"""Share and number of clips held out of training at most, and the fewest videos these must come from. Lists fit the
videos they are trained on: another clip of such a video is nearer to a centroid (cosine .92 at 60,000 clips) than a new
video about the same things (.78), and a search of few lists finds held-out clips a little less often."""

_HNSW_LINKS, _HNSW_SEARCH = (
    32,
    64,
)  # FAISS's default of 16 misses the nearest centroid of some clips

# Numbers of sub-quantisers that FAISS has kernels for on a GPU.
_PLAIN_M = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)


def coded_form(kind: Kind, num_rows: int, *, gpu: bool = False) -> CodedForm:
    """Return the form of codes for a number of clips; ``flat`` is treated as ``auto``.

    Args:
        kind: the configured kind.
        num_rows: number of clips.
        gpu: a GPU shall search them: it has no kernel for 4-bit codes.
    """
    if kind == "ivfpq-fastscan" or kind == "ivfpq":
        return kind
    return "ivfpq" if gpu or num_rows >= MAPPED_ROWS else "ivfpq-fastscan"


def form_of(factory_name: str) -> CodedForm:
    """Return the form of an index, given FAISS's name of it."""
    return "ivfpq-fastscan" if factory_name.endswith("x4fs") else "ivfpq"


def factory(rows: ClipRows, form: CodedForm = "ivfpq-fastscan") -> str:
    """Return FAISS's name of the index for these rows: ``IVF4096,PQ256x4fs`` for [1_000_000, 512].

    There are 4 sqrt(N) cells, rounded to a power of two. Fastscan: a 4-bit code for every two dimensions, measured at a
    million clips as good as 8-bit PQ128 in less than half its time. Plain: an 8-bit code for every eight dimensions.
    ``np``: without polysemous training, which costs 105 CPU seconds and is not used.
    """
    nlist = 2 ** round(math.log2(4 * math.sqrt(len(rows))))
    cells = f"IVF{nlist}_HNSW{_HNSW_LINKS}" if nlist >= HNSW_CELLS else f"IVF{nlist}"
    if form == "ivfpq":
        m = next(m for m in _PLAIN_M if m <= max(1, rows.dim // 8) and rows.dim % m == 0)
        return f"{cells},PQ{m}np"
    m = next(m for m in range(max(1, rows.dim // 2), 0, -1) if rows.dim % m == 0)
    return f"{cells},PQ{m}x4fs"


def default_nprobe(nlist: int) -> int:
    """Return the number of lists to search: measured recall@10 .995 with 64 of 1024, .98 with 128 of 4096."""
    return min(nlist, max(64, nlist // 32))


def training_rows(rows: ClipRows, nlist: int) -> NDArray[np.int64]:
    """Return the rows that ``nlist`` lists are trained on, rising; the same at every call."""
    trained = np.flatnonzero(np.repeat(~_is_held_out(rows), rows.counts))
    wanted = min(len(trained), TRAINING_ROWS_PER_CELL * nlist)
    chosen = np.random.default_rng(0).choice(len(trained), wanted, replace=False)
    return trained[np.sort(chosen)]


def held_out_rows(rows: ClipRows) -> NDArray[np.int64]:
    """Return the rows of whole videos that lists are never trained on, rising: new videos fit the lists as these do.

    Empty if there are too few videos to hold some out.
    """
    return np.flatnonzero(np.repeat(_is_held_out(rows), rows.counts))


def _is_held_out(rows: ClipRows) -> NDArray[np.bool_]:
    """Return ``[num_videos]``, true for drawn videos, up to `HELD_OUT_SHARE` of the rows and `HELD_OUT_ROWS`."""
    order = np.random.default_rng(1).permutation(len(rows.videos))
    room = min(HELD_OUT_ROWS, HELD_OUT_SHARE * len(rows))
    chosen = order[np.cumsum(rows.counts[order]) <= room]
    held_out = np.zeros(len(order), np.bool_)
    held_out[chosen] = len(chosen) >= FEWEST_HELD_OUT
    return held_out


def train_codes(rows: ClipRows, form: CodedForm = "ivfpq-fastscan") -> Any:
    """Train a FAISS index and add ``rows``; all cores are used.

    Cost at a million clips: about 130 CPU seconds and 400 MB; at ten million, where the training sample alone takes
    1.3 GB, about ten times as much.

    Args:
        rows: at least 16 (``ivfpq-fastscan``) or 256 (``ivfpq``).
        form: form of the codes.
    """
    index = untrained_codes(rows, form)
    index.train(rows.gather(training_rows(rows, index.nlist)))
    extend_codes(index, rows)
    return index


def untrained_codes(rows: ClipRows, form: CodedForm) -> Any:
    """Return an empty FAISS index for these rows."""
    faiss = load_faiss()
    index = faiss.index_factory(rows.dim, factory(rows, form), faiss.METRIC_INNER_PRODUCT)
    quantizer = faiss.downcast_index(index.quantizer)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efSearch = _HNSW_SEARCH
    index.cp.niter = (
        10  # k-means has converged by then; FAISS's default of 25 costs 2.5 times as much
    )
    # FAISS would print warnings about a small library.
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    return index


def extend_codes(codes: Any, rows: ClipRows) -> None:
    """Append rows to ``codes``, which must be in memory, not mapped.

    Lists and codec stay as they were trained; `storage.vectors.list_fit` notices when they no longer fit. Cost for
    20,000 clips into 4096 lists: about 1.5 CPU seconds, whatever the size of the lists.
    """
    for block in rows.blocks():
        codes.add(block)


def read_codes(path: str, *, mapped: bool = True) -> Any:
    """Open a FAISS file.

    Args:
        path: path of the file.
        mapped: open it for searching only. Plain codes then stay on disk: 3 milliseconds and 1 MB of memory for a
            million clips. FAISS copies fastscan codes nevertheless: 30 milliseconds and 151 MB at 512 dimensions, half
            the time of reading them.

    Raises:
        IndexDirectoryError: FAISS cannot read it.
    """
    faiss = load_faiss()
    try:
        check_regular(Path(path))
        codes = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except (RuntimeError, MemoryError, DamagedFile) as error:
        raise IndexDirectoryError(f"{path} is not a readable FAISS index: {error}") from error
    if not isinstance(codes, (faiss.IndexIVFPQ, faiss.IndexIVFPQFastScan)):
        raise IndexDirectoryError(
            f"{path} is a FAISS index of another kind: {type(codes).__name__}"
        )
    return codes


def write_codes(codes: Any, path: str) -> None:
    """Write a FAISS index to a file.

    Raises:
        IndexDirectoryError: it cannot be written, for example because the disk is full.
    """
    with reported(Path(path), "written", RuntimeError):  # the type of all errors of FAISS
        load_faiss().write_index(codes, path)


def load_faiss() -> Any:
    """Import the faiss package.

    Raises:
        ScanonceError: it is not installed; the message has the command.
    """
    try:
        import faiss
    except ImportError as error:
        raise ScanonceError(
            "faiss is not installed: pip install faiss-cpu, or install scanonce with its extra "
            "'cpu' or 'gpu' (one of them, never both)"
        ) from error
    return faiss


def num_threads() -> int:
    """Return the number of threads for many queries: the cores of this process, or fewer by OMP_NUM_THREADS.

    OpenMP itself is not asked. Torch shares it, and in a thread that has set torch to one core (`models.runtime`) it
    returns one.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, max(1, int(wanted))) if wanted.isdecimal() else cores


@contextmanager
def one_thread() -> Iterator[None]:
    """Have FAISS use one OpenMP thread for calls of this thread: two were measured 60 times slower for single queries
    on a busy machine."""
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
