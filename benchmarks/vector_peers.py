"""Other indexes from PyPI, for `benchmarks.vector_worker`.

Each imports its package when it is created: an environment may have only some of them. All store their data on disk,
with the embeddings in the precision that their documentation recommends or that is their default.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.vector_worker import Method

ENVIRONMENTS = {
    "peers-venv": (
        "numpy",
        "usearch",
        "hnswlib",
        "faiss-cpu",
        "lancedb",
        "sqlite-vec",
        "pysqlite3-binary",
    ),
    # It needs a numpy below 2, which conflicts with the pyarrow of lancedb.
    "autofaiss-venv": ("pyarrow<20", "autofaiss"),
}
"""Packages by the folder of their environment."""

_DOUBLING = (100, 200, 400, 800, 1600, 3200, 6400, 12_800)
_BLOCK = 20_000
_NEIGHBOURS = 32


class _Peer:
    """Common parts of most indexes. 10 ms a query is the default limit of autofaiss."""

    name: str
    environment = "peers-venv"
    threads_of_its_own = False
    efforts: tuple[int, ...] = _DOUBLING
    within_ms = 10.0
    largest = 1_000_000
    """Number of clips up to which it is measured."""

    def __init__(self) -> None:
        self._index: Any = None

    def set_effort(self, effort: int) -> None:
        """Do nothing: there is no effort to set."""


class FaissHnsw(_Peer):
    """FAISS HNSW32 on float32, the index that autofaiss chooses up to some millions of clips."""

    name = "faiss HNSW32"

    def __init__(self) -> None:
        super().__init__()
        import faiss

        self._faiss: Any = faiss

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Build with efConstruction 40, the default of FAISS and autofaiss."""
        index = self._faiss.IndexHNSWFlat(
            clips.shape[1], _NEIGHBOURS, self._faiss.METRIC_INNER_PRODUCT
        )
        for block in blocks(clips):
            index.add(block)
        self._faiss.write_index(index, str(folder / "hnsw.faiss"))
        return {}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Read the index into memory."""
        self._index = self._faiss.read_index(str(folder / "hnsw.faiss"))

    def set_effort(self, effort: int) -> None:
        """Set efSearch."""
        self._index.hnsw.efSearch = effort

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        self._faiss.omp_set_num_threads(threads_for(queries))
        found: NDArray[np.int64] = self._index.search(queries, k)[1]
        return found


class Autofaiss(FaissHnsw):
    """The index that autofaiss builds by itself, with the search effort it chooses within 10 ms."""

    name = "autofaiss"
    environment = "autofaiss-venv"
    efforts: tuple[int, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        import autofaiss  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._autofaiss: Any = autofaiss

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Build with all defaults but the metric; return the chosen efSearch."""
        embeddings = folder / "embeddings"
        embeddings.mkdir()
        np.save(embeddings / "clips.npy", clips)
        index, _ = self._autofaiss.build_index(
            embeddings=str(embeddings),
            index_path=str(folder / "hnsw.faiss"),
            index_infos_path=str(folder / "infos.json"),
            metric_type="ip",
        )
        (embeddings / "clips.npy").unlink()
        chosen = self._faiss.downcast_index(index)
        return {"effort": chosen.hnsw.efSearch} if hasattr(chosen, "hnsw") else {}


class Usearch(_Peer):
    """usearch on float16, connectivity 32."""

    name = "usearch"

    def __init__(self) -> None:
        super().__init__()
        import usearch.index  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._usearch: Any = usearch.index

    def _empty(self, dim: int) -> Any:
        return self._usearch.Index(ndim=dim, metric="ip", dtype="f16", connectivity=_NEIGHBOURS)

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Build with expansion_add 128, the default."""
        index = self._empty(clips.shape[1])
        for start in range(0, len(clips), _BLOCK):
            block = np.ascontiguousarray(clips[start : start + _BLOCK])
            index.add(np.arange(start, start + len(block)), block)
        index.save(str(folder / "index.usearch"))
        return {}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Read the index into memory."""
        self._index = self._empty(clips.shape[1])
        self._index.load(str(folder / "index.usearch"))

    def set_effort(self, effort: int) -> None:
        """Set expansion_search."""
        self._index.expansion_search = effort

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        threads = threads_for(queries)
        found = self._index.search(queries.astype(np.float16), k, threads=threads).keys
        return np.asarray(found).reshape(len(queries), -1).astype(np.int64)


class Hnswlib(_Peer):
    """hnswlib on float32, M 32."""

    name = "hnswlib"

    def __init__(self) -> None:
        super().__init__()
        import hnswlib  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._hnswlib: Any = hnswlib

    def _empty(self, dim: int) -> Any:
        return self._hnswlib.Index(space="ip", dim=dim)

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Build with ef_construction 200, the default."""
        index = self._empty(clips.shape[1])
        index.init_index(max_elements=len(clips), M=_NEIGHBOURS, ef_construction=200)
        for block in blocks(clips):
            index.add_items(block)
        index.save_index(str(folder / "index.hnswlib"))
        return {}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Read the index into memory."""
        self._index = self._empty(clips.shape[1])
        self._index.load_index(str(folder / "index.hnswlib"))

    def set_effort(self, effort: int) -> None:
        """Set ef."""
        self._index.set_ef(effort)

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`."""
        found = self._index.knn_query(queries, k, num_threads=threads_for(queries))[0]
        return np.asarray(found).astype(np.int64)


class Lancedb(_Peer):
    """lancedb IVF_PQ, 64 codes of 8 bits a clip, with five times the number of candidates scored again."""

    name = "lancedb IVF_PQ"
    threads_of_its_own = True
    efforts: tuple[int, ...] = (20, 64, 128, 256)
    within_ms = np.inf

    def __init__(self) -> None:
        super().__init__()
        import lancedb  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._lancedb: Any = lancedb
        self._nprobes = 20

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Build about sqrt(N) lists, as recommended; from float32, its usual type: training on float16 is slow."""
        import pyarrow as pa  # type: ignore[import-not-found,import-untyped,unused-ignore]

        dim = clips.shape[1]
        schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])

        def batches() -> Iterator[Any]:
            row = 0
            for block in blocks(clips):
                vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), dim)
                rows = pa.array(np.arange(row, row + len(block)))
                yield pa.RecordBatch.from_arrays([rows, vectors], schema=schema)
                row += len(block)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        table = self._lancedb.connect(str(folder)).create_table("clips", data=reader)
        table.create_index(
            metric="dot",
            num_partitions=2 ** round(np.log2(len(clips)) / 2),
            num_sub_vectors=dim // 8,
            index_type="IVF_PQ",
        )
        return {}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Open the table."""
        self._index = self._lancedb.connect(str(folder)).open_table("clips")

    def set_effort(self, effort: int) -> None:
        """Set nprobes."""
        self._nprobes = effort

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`; one query after another."""
        return np.stack([self._search(query, k) for query in queries])

    def _search(self, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        wanted = self._index.search(query).distance_type("dot").limit(k).select(["row"])
        found = wanted.nprobes(self._nprobes).refine_factor(5).to_arrow()
        rows: NDArray[np.int64] = np.full(k, -1, np.int64)
        rows[: len(found)] = found["row"].to_numpy()
        return rows


class SqliteVec(_Peer):
    """sqlite-vec: exact, in SQL."""

    name = "sqlite-vec"
    efforts: tuple[int, ...] = ()
    largest = 100_000

    def __init__(self) -> None:
        super().__init__()
        import sqlite_vec  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._extension: Any = sqlite_vec
        self._sqlite: Any = sqlite3
        if not hasattr(sqlite3.Connection, "enable_load_extension"):  # not in all builds of Python
            import pysqlite3  # type: ignore[import-not-found,import-untyped,unused-ignore]

            self._sqlite = pysqlite3

    def _connect(self, folder: Path) -> Any:
        connection = self._sqlite.connect(str(folder / "clips.sqlite"))
        connection.enable_load_extension(True)
        self._extension.load(connection)
        return connection

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Create a virtual table of float32 vectors; it has no float16."""
        connection = self._connect(folder)
        column = f"vector float[{clips.shape[1]}] distance_metric=cosine"
        connection.execute(f"create virtual table clips using vec0({column})")
        row = 0
        for block in blocks(clips):
            numbered = [(row + n, vector.tobytes()) for n, vector in enumerate(block)]
            connection.executemany("insert into clips(rowid, vector) values (?, ?)", numbered)
            row += len(block)
        connection.commit()
        connection.close()
        return {}

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Open the file."""
        self._index = self._connect(folder)

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """See `Method.search`; one query after another."""
        wanted = "select rowid from clips where vector match ? and k = ? order by distance"
        found = [self._index.execute(wanted, (query.tobytes(), k)).fetchall() for query in queries]
        return np.array(found, np.int64).reshape(len(queries), -1)


def threads_for(queries: NDArray[np.float32]) -> int:
    """Return one thread for a query alone, all cores for many at once."""
    return len(os.sched_getaffinity(0)) if len(queries) > 1 else 1


def blocks(clips: NDArray[np.float16]) -> Iterator[NDArray[np.float32]]:
    """Yield all rows in float32, some at a time."""
    for start in range(0, len(clips), _BLOCK):
        yield clips[start : start + _BLOCK].astype(np.float32)


Peer = FaissHnsw | Autofaiss | Lancedb | SqliteVec | Usearch | Hnswlib
PEERS: tuple[type[Peer], ...] = (FaissHnsw, Autofaiss, Lancedb, SqliteVec, Usearch, Hnswlib)
METHODS: dict[str, Callable[[], Method]] = {each.name: each for each in PEERS}
