"""A process of its own in which one kind of index is built, opened and asked, at a parent's word.

    python -m benchmarks.vector_worker benchmarks.vector_peers usearch

Needs numpy only, so it also runs in an environment that holds nothing but the index to be measured. Orders come as
lines of JSON on the standard input, answers leave as lines of JSON; what libraries print goes to the standard error.
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
"""Queries between opening and looking at memory."""


class Method(Protocol):
    """One kind of index over the rows of a float16 matrix."""

    name: str
    threads_of_its_own: bool
    """Queries are answered by other threads, so all of the process's time counts."""
    efforts: tuple[int, ...]
    """Values of what trades time for recall, rising; empty where nothing does."""
    within_ms: float
    """Processor time of a query up to which effort is raised where recall is below ours."""

    def build(self, clips: NDArray[np.float16], folder: Path) -> dict[str, float]:
        """Makes the files of the index in a folder that exists; figures of its own, if it has any."""

    def open(self, folder: Path, clips: NDArray[np.float16]) -> None:
        """Opens what `build` made."""

    def set_effort(self, effort: int) -> None:
        """Takes effect with the next search."""

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Rows ``[num_queries, k]`` of the matrix, best first."""


# ------------------------------------------------ in the worker


@dataclass
class _Worker:
    method: Method
    clips: NDArray[np.float16] | None = None

    def build(self, clips: str, rows: int, dim: int, folder: str) -> dict[str, float]:
        """Processor seconds of building, and bytes on disk."""
        matrix = np.memmap(clips, np.float16, "r", shape=(rows, dim))
        Path(folder).mkdir(parents=True)
        begin, wall = time.process_time(), time.perf_counter()
        own = self.method.build(matrix, Path(folder))
        cpu = time.process_time() - begin
        stats = [path.stat() for path in Path(folder).rglob("*") if path.is_file()]
        files = {stat.st_ino: stat.st_size for stat in stats}  # links count once
        return {
            "cpu_seconds": cpu,
            "wall_seconds": time.perf_counter() - wall,
            "disk_bytes": sum(files.values()),
            **own,
        }

    def open(self, clips: str, rows: int, dim: int, folder: str, queries: str) -> dict[str, float]:
        """Milliseconds until open and until the first answer; memory before and after."""
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
        """Processor milliseconds of each query asked alone; the rows go to a file."""
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
        """Seconds of all queries at once."""
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
    """Resident bytes of this process: its own, and pages of files, which the system may take back."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    sizes = {key: int(text.split()[0]) * 1024 for key, text in _pairs(lines) if "Rss" in key}
    return {"own": sizes["RssAnon"], "mapped": sizes["RssFile"] + sizes["RssShmem"]}


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(key, text) for key, _, text in (line.partition(":") for line in lines)]


def main() -> None:
    """Obeys until the input ends."""
    module, name = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
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
    """The process ended; the text is the end of what it printed."""


class Remote:
    """A worker; leaves with the ``with`` block."""

    def __init__(self, python: str, module: str, name: str, log: Path) -> None:
        """Starts it.

        Raises:
            WorkerFailed: what it needs cannot be imported.
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
                # OpenMP's threads spin while they wait for each other: beside other programs that was
                # up to four fifths of the processor time of training.
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        said = self._answer()
        self.efforts: list[int] = said["efforts"]
        self.within_ms: float = said["within_ms"]

    def do(self, order: str, **arguments: Any) -> dict[str, Any]:
        """One order; returns the answer.

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
        """Let the system end it after so many seconds of processor time."""
        resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))

    def close(self) -> None:
        """Ends the process."""
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
