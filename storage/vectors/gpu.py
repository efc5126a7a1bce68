"""An NVIDIA GPU for the vector index: it trains, adds, and looks up candidates for many queries.

    use = GpuUse(enabled=True, memory_mb=0)
    on_gpu = load_on_gpu(codes, use)            # None: they stay on the CPU, and the log says why once
    rows = on_gpu.candidates(queries, nprobe=64, depth=500)

Codes are always stored in the CPU's form, so an index moves between machines with and without a GPU. FAISS has no 4-bit
kernel for GPUs: `storage.vectors.codes.coded_form` takes plain 8-bit codes if a GPU shall search. Scores are always
computed on the CPU, by the one kernel that computes all scores. So an answer does not depend on where its candidates
were looked up, except for candidates that tie at the end of the list.

`GpuCodes` and `train_on_gpu` HAVE NEVER RUN ON A GPU. There was none when they were written; they follow the
documentation of FAISS 1.15. The tests marked ``needs_cuda`` and ``python -m benchmarks.gpu`` run them. The decision
whether codes go to a GPU (`codes_bytes`, `why_not`) is pure arithmetic and is tested.
"""

import logging
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.settings import GpuUse
from scanonce.storage.vectors.codes import (
    CodedForm,
    load_faiss,
    train_codes,
    training_rows,
    untrained_codes,
)
from scanonce.storage.vectors.rows import ClipRows

logger = logging.getLogger(__name__)

MOST_CANDIDATES = 2_048
"""Limit of FAISS's GPU indexes for one query."""

_BATCH = 1_024  # queries at once: bounds the tables of a search
_SCRATCH_BYTES = 512 << 20  # memory that FAISS reserves for its own work
_SHARE_OF_FREE = 0.8  # of the free memory, if no limit is configured


NO_GPU = GpuUse(enabled=False)


def num_gpus() -> int:
    """Return the number of GPUs that FAISS can use; 0 with faiss-cpu."""
    return int(load_faiss().get_num_gpus())


def searches_on_gpu(use: GpuUse) -> bool:
    """Return whether a new index should have codes that a GPU can search."""
    return use.enabled and num_gpus() > 0


def codes_bytes(num_rows: int, dim: int, m: int, nlist: int) -> int:
    """Return the memory that 8-bit codes take on a GPU: codes and 8-byte ids, centroids, lists, scratch memory.

    A million clips at ``m`` 64 and 512 dimensions: 72 MB, 8 MB, some, and 512 MB.
    """
    grown = 256  # a list's memory is rounded up
    return num_rows * (m + 8) + nlist * (4 * dim + grown) + _SCRATCH_BYTES


def why_not(use: GpuUse, *, gpus: int, nbits: int, need_bytes: int, free_bytes: int) -> str | None:
    """Return why codes stay on the CPU, for people; ``None`` if they go to the GPU.

    Args:
        use: the configured use.
        gpus: number of GPUs.
        nbits: bits of a code.
        need_bytes: memory of the codes, by `codes_bytes`.
        free_bytes: free memory of the GPU.
    """
    if not use.enabled:
        return "storage.gpu is off"
    if not gpus:
        return "FAISS finds no GPU"
    if nbits != 8:
        return f'a GPU cannot search {nbits}-bit codes; storage.kind = "ivfpq" makes others'
    limit = use.memory_mb << 20 if use.memory_mb else int(_SHARE_OF_FREE * free_bytes)
    limit = min(limit, free_bytes)
    if need_bytes > limit:
        return f"the codes take {need_bytes >> 20} MB there, {limit >> 20} MB may be used"
    return None


def load_on_gpu(codes: Any, use: GpuUse) -> "GpuCodes | None":
    """Return the codes on the first GPU, or ``None`` with a line in the log if they stay on the CPU."""
    if not use.enabled or not num_gpus():  # nothing to report: nobody asked for a GPU
        return None
    need = codes_bytes(codes.ntotal, codes.d, codes.pq.M, codes.nlist)
    reason = why_not(
        use, gpus=num_gpus(), nbits=codes.pq.nbits, need_bytes=need, free_bytes=_free_bytes()
    )
    if reason is not None:
        logger.info("the vector index stays on the CPU: %s", reason)
        return None
    return GpuCodes(codes)


class GpuCodes:
    """Plain 8-bit codes on the first GPU. Never run on one; see above."""

    def __init__(self, codes: Any) -> None:
        self._resources, self._index = _to_gpu(codes)
        self._one_at_a_time = threading.Lock()  # its scratch memory is shared

    def candidates(
        self, queries: NDArray[np.float32], *, nprobe: int, depth: int
    ) -> NDArray[np.int64]:
        """Return rows ``[num_queries, min(depth, MOST_CANDIDATES)]``, best first, -1 for none."""
        params = load_faiss().SearchParametersIVF(nprobe=nprobe)
        depth = min(depth, MOST_CANDIDATES)
        found = [np.empty((0, depth), np.int64)]
        with self._one_at_a_time:
            for start in range(0, len(queries), _BATCH):
                batch = np.ascontiguousarray(queries[start : start + _BATCH])
                found.append(self._index.search(batch, depth, params=params)[1])
        return np.concatenate(found)


def build_codes(rows: ClipRows, form: CodedForm, use: GpuUse) -> Any:
    """Train codes as `train_codes` does, on a GPU if one may be used and the codes fit into its memory.

    Returns:
        A FAISS index for the CPU, in either case.
    """
    if form == "ivfpq" and searches_on_gpu(use):
        index = untrained_codes(rows, form)
        need = codes_bytes(len(rows), rows.dim, index.pq.M, index.nlist)
        reason = why_not(use, gpus=num_gpus(), nbits=8, need_bytes=need, free_bytes=_free_bytes())
        if reason is None:
            sample = rows.gather(training_rows(rows, index.nlist))
            return train_on_gpu(index, sample, rows)
        logger.info("the vector index is trained on the CPU: %s", reason)
    return train_codes(rows, form)


def train_on_gpu(index: Any, sample: NDArray[np.float32], rows: ClipRows) -> Any:
    """Train an empty 8-bit FAISS index and add rows on the first GPU. Never run on one; see above.

    Args:
        index: as `faiss.index_factory` makes it.
        sample: ``[num, dim]``, the training vectors.
        rows: the rows to add.

    Returns:
        The index, for the CPU.
    """
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    index.clustering_index = faiss.index_cpu_to_gpu(resources, 0, faiss.IndexFlatIP(rows.dim))
    index.train(sample)
    index.clustering_index = None
    resources, on_gpu = _to_gpu(index)
    for block in rows.blocks():
        on_gpu.add(block)
    return faiss.index_gpu_to_cpu(on_gpu)


def _to_gpu(codes: Any) -> tuple[Any, Any]:
    """Return FAISS's resources, which must live as long as the index, and the index."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_SCRATCH_BYTES)
    options = faiss.GpuClonerOptions()
    options.useFloat16 = (
        True  # for the tables: with 56 sub-quantisers or more, float32 does not fit
    )
    options.allowCpuCoarseQuantizer = True  # a graph of the centroids stays on the CPU
    return resources, faiss.index_cpu_to_gpu(resources, 0, codes, options)


def _free_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info(0)[0])
