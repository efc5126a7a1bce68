"""A process that has everything imported and forks a child for each task.

Importing torch takes seconds. So one process imports everything and runs the story once; each task after that runs in a
fork of it, which costs milliseconds and shares nothing. Decoding is replaced by generated frames (`tests.numbered`).
"""

import gc
import importlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import scanonce.indexer.pipeline
import scanonce.search.snapshot
from tests.numbered import LOCALISER, GeneratedDecoders
from tests.story import NOTHING, Case, find_leftovers, find_problems, run_story

_PRELOADED = ("tests.fault_tasks", "tests.promises")
"""Modules with tasks, imported before the first fork."""


@dataclass
class Outcome:
    """The reports of a child and how it ended."""

    reports: list[tuple[str, Any]] = field(default_factory=list)
    status: int = 0
    """Status of `os.waitpid`."""

    @property
    def killed(self) -> bool:
        """Whether it was ended by SIGKILL."""
        return os.WIFSIGNALED(self.status) and os.WTERMSIG(self.status) == signal.SIGKILL

    def values(self, kind: str) -> list[Any]:
        """Return the values of all reports of a kind."""
        return [value for each, value in self.reports if each == kind]


class Lab:
    """The process that forks, and connections to it, each of which runs one child at a time."""

    def __init__(self, *, max_concurrency: int = 2) -> None:
        """Allow this many children at a time."""
        self._max_concurrency = max_concurrency
        self._free: queue.Queue[socket.socket] = queue.Queue()

    def __enter__(self) -> Self:
        pairs = [socket.socketpair() for _ in range(self._max_concurrency)]
        theirs = [pair[1].fileno() for pair in pairs]
        # No other thread may ever have run in that process, because a fork takes only the current one along.
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab", *map(str, theirs)],
            pass_fds=theirs,
            cwd=Path(__file__).parents[1],
            env={**os.environ, **alone},
        )
        for ours, other in pairs:
            other.close()
            self._free.put(ours)
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(self._max_concurrency):
            self._free.get().close()
        self._process.wait()

    def run(
        self, task: Callable[..., None], *, kill_after: float | None = None, **values: Any
    ) -> Outcome:
        """Run a task in a child and wait for its end. Threads may share the lab.

        Args:
            task: a function of a module that takes a `Report` and then named values that JSON can hold.
            kill_after: seconds after which the child is killed.
            values: the named values.
        """
        connection = self._free.get()
        try:
            call = [task.__module__, task.__name__, values, kill_after]
            connection.sendall(json.dumps(call).encode() + b"\n")
            outcome = Outcome()
            with connection.makefile("rb") as lines:
                for line in lines:
                    kind, value = json.loads(line)
                    if kind == "exit":
                        outcome.status = value
                        return outcome
                    outcome.reports.append((kind, value))
            raise RuntimeError("the process that forks has died")
        finally:
            self._free.put(connection)


def _serve(connection: socket.socket) -> None:
    """Fork a child for each line."""
    with connection.makefile("rb") as lines:
        for line in lines:
            module, task, values, kill_after = json.loads(line)
            child = os.fork()
            if not child:
                _be_child(connection, getattr(importlib.import_module(module), task), values)
            status = _end_of(child, kill_after)
            connection.sendall(json.dumps(["exit", status]).encode() + b"\n")


def _end_of(child: int, kill_after: float | None) -> int:
    """Wait for a child, or kill it when its time is over; return its status."""
    if kill_after is not None:
        over = time.monotonic() + kill_after
        while time.monotonic() < over:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _be_child(
    connection: socket.socket, task: Callable[..., None], values: Mapping[str, Any]
) -> NoReturn:
    def report(kind: str, value: Any) -> None:
        connection.sendall(json.dumps([kind, value]).encode() + b"\n")

    status = 1
    try:
        task(report, **values)
        status = 0
    except BaseException:
        report("problem", traceback.format_exc())
    finally:
        os._exit(status)


def _put(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


def main(*descriptors: str) -> None:
    """Be the process that forks: import everything, and run the story once so that nothing remains to be loaded."""
    _put(scanonce.indexer.pipeline._Run, "decoders", lambda *_: GeneratedDecoders())
    _put(scanonce.indexer.pipeline, "_REPORT_SECONDS", 0.0)  # so that every video is reported
    _put(scanonce.search.snapshot, "load_localiser", lambda *_, **__: LOCALISER)
    for name in _PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder))
        run_story(case, lambda *_: None)
        find_problems(case, NOTHING)
        find_leftovers(case.index)
    gc.collect()
    gc.disable()  # in a short life it would only touch, and so copy, memory that all share
    servers = []
    for number, descriptor in enumerate(descriptors, start=1):
        if not (server := os.fork()):
            for later in descriptors[number:]:
                os.close(int(later))
            with socket.socket(fileno=int(descriptor)) as connection:
                _serve(connection)
            os._exit(0)
        servers.append(server)
        os.close(int(descriptor))
    for server in servers:
        os.waitpid(server, 0)


if __name__ == "__main__":
    # Under its own name, not as __main__, so that modules that import this one share its state.
    importlib.import_module("tests.lab").main(*sys.argv[1:])
