"""A separate process in which one kind of index is built, opened and searched, by orders of a parent.

    python -m benchmarks.vector_worker benchmarks.vector_peers usearch

It needs numpy only, so it also runs in an environment with nothing but the measured index. Orders arrive as lines of
JSON on the standard input, answers leave as lines of JSON; the output of libraries goes to the standard error.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

WARM_UP = 50
"""Queries between opening and measuring memory."""


class Method(Protocol):
    """One kind of index over the rows of a float16 matrix."""

    name: str
    threads_of_its_own: bool
    """Other threads answer queries, so all of the process's CPU time counts."""
    efforts: tuple[int, ...]
    """Values of the parameter that trades time for recall, rising; empty if there is none."""
    within_ms: float
    """CPU time of a query up to which effort is raised if recall is below ours."""

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Write the files of the index to an existing folder; return its figures, if it has any."""

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Open the index that `build` wrote."""

    def set_effort(self, effort: int) -> None:
        """Set the effort of the next searches."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return rows of the matrix, ``[num_queries, k]``, best first."""


# ------------------------------------------------ in the worker


@dataclass
class _Worker:
    method: Method
    clips: NDArray[np.float16] | None = None

    def build(self, clips: str, rows: int, dim: int, folder: str) -> dict[str, float]:
        """Return the CPU seconds of building, and the bytes on disk."""
        matrix = np.memmap(clips, np.float16, "r", shape=(rows, dim))
        Path(folder).mkdir(parents=True)
        begin, wall = time.process_time(), time.perf_counter()
        own = self.method.build(matrix, Path(folder))
        cpu = time.process_time() - begin
        stats = [path.stat() for path in Path(folder).rglob("*") if path.is_file()]
        files = {stat.st_ino: stat.st_size for stat in stats}  # hard links count once
        return {
            "cpu_seconds": cpu,
            "wall_seconds": time.perf_counter() - wall,
            "disk_bytes": sum(files.values()),
            **own,
        }

    def open(self, clips: str, rows: int, dim: int, folder: str, queries: str) -> dict[str, float]:
        """Return the milliseconds until open and until the first answer, and the memory before and after."""
        warm_up = np.load(queries)[:WARM_UP]
        matrix = np.memmap(clips, np.float16, "r", shape=(rows, dim))
        before = memory()
        begin = time.perf_counter()
        self.method.open(Path(folder), matrix)
        opened = time.perf_counter()
        if self.method.efforts:
            self.method.set_effort(self.method.efforts[0])
        self.method.search(warm_up[:1], 10)
        answered = time.perf_counter()
        for query in warm_up:
            self.method.search(query[None], 10)
        after = memory()
        return {
            "open_ms": 1e3 * (opened - begin),
            "first_ms": 1e3 * (answered - opened),
            **{f"{kind}_bytes": after[kind] - before[kind] for kind in after},
            "process_bytes": sum(after.values()),
        }

    def ask(self, queries: str, k: int, effort: int, answers: str) -> dict[str, Any]:
        """Return the CPU milliseconds of each query asked alone; write the rows to a file."""
        if effort:
            self.method.set_effort(effort)
        clock: Callable[[], float] = (
            time.process_time if self.method.threads_of_its_own else time.thread_time
        )
        times, rows = [], []
        vectors = np.load(queries)
        for query in vectors:
            begin = clock()
            rows.append(self.method.search(query[None], k))
            times.append(1e3 * (clock() - begin))
        np.save(answers, np.concatenate(rows))
        return {"cpu_ms": times}

    def batch(self, queries: str, k: int, effort: int) -> dict[str, float]:
        """Return the seconds of all queries at once."""
        if effort:
            self.method.set_effort(effort)
        vectors = np.load(queries)
        cpu, wall = time.process_time(), time.perf_counter()
        self.method.search(vectors, k)
        return {
            "cpu_seconds": time.process_time() - cpu,
            "wall_seconds": time.perf_counter() - wall,
            "queries": len(vectors),
        }


def memory() -> dict[str, int]:
    """Return the resident bytes of this process: private, and pages of files, which the system may take back."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {key: int(text.split()[0]) * 1024 for key, text in _pairs(lines) if "Rss" in key}
    return {"own": sizes["RssAnon"], "mapped": sizes["RssFile"] + sizes["RssShmem"]}


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(key, text) for key, _, text in (line.partition(":") for line in lines)]


def main() -> None:
    """Execute orders until the input ends."""
    module, name = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    method: Method = importlib.import_module(module).METHODS[name]()
    worker = _Worker(method)
    print(
        json.dumps({"efforts": method.efforts, "within_ms": method.within_ms}), file=out, flush=True
    )
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(worker, order.pop("do"))(**order)
        print(json.dumps(answer), file=out, flush=True)


# ------------------------------------------------ in the parent


class WorkerFailed(Exception):
    """The process ended; the text is the end of its output."""


class Remote:
    """A worker process; it ends with the ``with`` block."""

    def __init__(self, python: str, module: str, name: str, log: Path) -> None:
        """Start it.

        Raises:
            WorkerFailed: a module it needs cannot be imported.
        """
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.vector_worker", module, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=Path(__file__).resolve().parents[1],
                # OpenMP's threads spin while they wait for each other: next to other programs that was
                # up to four fifths of the processor time of training.
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        said = self._answer()
        self.efforts: list[int] = said["efforts"]
        self.within_ms: float = said["within_ms"]

    def do(self, order: str, **arguments: Any) -> dict[str, Any]:
        """Send one order; return the answer.

        Raises:
            WorkerFailed: there was none.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps({"do": order, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._process.wait()
        return self._answer()

    def limit(self, cpu_seconds: int) -> None:
        """Have the system end it after a number of CPU seconds."""
        resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise WorkerFailed(lines[-1] if lines else f"it ended with status {status}")


if __name__ == "__main__":
    main()
