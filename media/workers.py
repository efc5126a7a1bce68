"""Decoding in guarded child processes: what a broken or hostile file does to its decoder costs that one file.

The parent hands paths to a few child processes (`media.child`) and receives frames that are already reduced to the
encoder's size, and thumbnails as JPEG files. A child that dies, falls silent, or takes more memory or processor time
than a file may, is replaced, and its file is reported as failed with the last of what its decoder printed. Only bytes
and JSON come back from a child, never pickles; each message has a longest length, and what it says is checked: a
decoder that has been taken over cannot run code in the parent, fill its memory, or put nonsense into the catalogue.

    with DecodePool(request, workers=2) as pool:
        for event in pool.decode(paths):
            ...
"""

import contextlib
import json
import multiprocessing
import os
import queue
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

from scanonce.media.answers import Answers, Event, Failed, Finished, printable
from scanonce.media.child import (
    MAX_PRINTED_BYTES,
    OUT_OF_MEMORY,
    serve,
)
from scanonce.media.child import DecodeRequest as DecodeRequest

_MESSAGES_AHEAD = 16  # decoded but not yet encoded: 16 x 16 frames of 224 x 224 are 38 MB
_MESSAGE_SECONDS = (
    10.0  # from the beginning of an answer to its end: nobody else is heard meanwhile
)
_MAX_TAIL_CHARS = 2000
_DENIED = "get_buffer() failed"  # FFmpeg's words; pictures that are too large for it are refused in others
_NONSENSE = "the decoder's answer made no sense"


class DecodePool:
    """Child processes that decode one file each at a time."""

    def __init__(self, request: DecodeRequest, *, workers: int) -> None:
        """Children start with the first files."""
        self.num_started = 0
        """Children so far: more than ``workers`` where some were replaced."""
        self._request = request
        self._num_workers = workers
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue(_MESSAGES_AHEAD)
        self._stop = threading.Event()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._reading: tuple[_Child, float] | None = None
        """Whose answer is being read, and since when."""

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is None:
            return
        while self._thread.is_alive():  # it may be waiting for room in the queue
            with contextlib.suppress(queue.Empty):
                self._events.get(timeout=0.05)
        self._thread.join()

    def decode(self, paths: Sequence[Path]) -> Iterator[Event]:
        """Events of all files, those of one file in order, files interleaved. Call once."""
        self._thread = threading.Thread(
            target=self._run, args=(paths,), daemon=True, name="decode-pool"
        )
        self._thread.start()
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _run(self, paths: Sequence[Path]) -> None:
        children: list[_Child] = []
        watch = threading.Thread(target=self._end_half_answers, daemon=True, name="decode-watch")
        watch.start()
        try:
            self._serve(paths, children)
            self._put(None)
        except BaseException as error:  # handed to the thread that iterates, which raises it
            self._put(error)
        finally:
            self._is_over.set()
            watch.join()
            for child in children:
                child.stop()

    def _serve(self, paths: Sequence[Path], children: list["_Child"]) -> None:
        """Keeps every child busy until all files are done."""
        waiting = list(enumerate(paths))[::-1]
        while (
            waiting or any(child.job is not None for child in children)
        ) and not self._stop.is_set():
            while waiting and (child := self._idle(children)) is not None:
                job, path = waiting.pop()
                busy = sum(other.job is not None for other in children)
                # the last files share the cores that no other file needs
                threads = max(1, self._num_workers // (busy + 1 + len(waiting)))
                child.start(job, path, threads)
            self._receive([child for child in children if child.job is not None], children)

    def _idle(self, children: list["_Child"]) -> "_Child | None":
        for child in [child for child in children if child.job is None]:
            if not child.connection.poll():
                return child
            # it died meanwhile, or says something that nobody asked for: the next file shall not pay for it
            self._discard(child, children)
        if len(children) == self._num_workers:
            return None
        children.append(_Child(self._request))
        self.num_started += 1
        return children[-1]

    def _receive(self, busy: list["_Child"], children: list["_Child"]) -> None:
        for connection in wait([child.connection for child in busy], timeout=0.5):
            child = next(child for child in busy if child.connection is connection)
            heard_at = time.monotonic()
            event = self._read(child, children)
            if isinstance(event, Finished | Failed):
                child.job = None
            self._put(event)
            child.heard_at = heard_at
            # time spent waiting for room in the queue is not the children's silence
            waited = time.monotonic() - heard_at
            for other in busy:
                other.heard_at += waited
        for child in [child for child in busy if child.job is not None]:
            if reason := child.describe_overrun(self._request.stall_seconds):
                self._put(self._give_up(child, children, reason))

    def _read(self, child: "_Child", children: list["_Child"]) -> Event:
        """The next event of a child that has begun to say something."""
        self._reading = (child, time.monotonic())
        try:
            return child.receive()
        except (EOFError, OSError):
            return self._give_up(child, children, child.describe_exit())
        except Exception:  # whatever a decoder that was taken over answers costs its file only
            return self._give_up(child, children, _NONSENSE)
        finally:
            self._reading = None

    def _end_half_answers(self) -> None:
        """Kills a child that does not end what it began to say; in a thread of its own, since the reader waits."""
        while not self._is_over.wait(1.0):
            if (reading := self._reading) is not None:
                child, since = reading
                if time.monotonic() - since > _MESSAGE_SECONDS:
                    child.kill(_NONSENSE)

    def _give_up(self, child: "_Child", children: list["_Child"], reason: str) -> Failed:
        """The end of a file that costs its child too."""
        assert child.job is not None
        failed = Failed(child.job, reason, child.printed.tail(), transient=True)
        self._discard(child, children)
        child.job = None
        return failed

    def _discard(self, child: "_Child", children: list["_Child"]) -> None:
        child.stop()
        children.remove(child)

    def _put(self, event: Event | BaseException | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._events.put(event, timeout=0.1)
                return


class _Child:
    """The parent's end of one child process."""

    def __init__(self, request: DecodeRequest) -> None:
        context = _process_context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, request), daemon=True, name="decoder"
        )
        with _without_main():
            self.process.start()
        theirs.close()
        self.printed = _Printed()
        if sys.platform != "win32":
            # it died at once, which is noticed as one that dies later
            with contextlib.suppress(OSError, RuntimeError):
                send_handle(self.connection, self.printed.fileno(), self.process.pid)
        self._request = request
        self._answers = Answers(self.connection, request, 0)
        self._killed_for: str | None = None
        self.job: int | None = None
        self.heard_at = time.monotonic()

    def start(self, job: int, path: Path, threads: int) -> None:
        self.job = job
        self._answers = Answers(self.connection, self._request, job)
        self.printed.clear()
        self.heard_at = time.monotonic()
        # a child that died meanwhile is noticed when its answer is read
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps([os.fsencode(path).hex(), threads]).encode())

    def receive(self) -> Event:
        """The next event of its file; EOFError or OSError where the child is gone, others where it makes no sense."""
        event = self._answers.receive()
        if isinstance(event, Failed):
            printed = self.printed.tail()
            if _DENIED in printed and not event.transient:
                # the decoder got no memory for a frame, and said only that the file is damaged
                return Failed(event.job, self._describe_memory(), printed, transient=True)
            return Failed(event.job, event.reason, printed, event.transient)
        self.printed.forget_much()
        return event

    def describe_overrun(self, stall_seconds: float) -> str | None:
        """Why it has to be stopped, for people; None where it goes on."""
        if self.printed.size() >= MAX_PRINTED_BYTES:
            megabytes = MAX_PRINTED_BYTES >> 20
            return f"the decoder printed {megabytes} MB of messages and was stopped"
        silent = time.monotonic() - self.heard_at
        if silent > stall_seconds and not self.connection.poll():
            return f"the decoder gave no frame for {silent:.0f} s and was stopped"
        return None

    def describe_exit(self) -> str:
        """Why the child is gone, for people."""
        self.process.join(timeout=2)
        code = self.process.exitcode
        if self._killed_for is not None or code is None:  # in the latter case it has only hung up
            return self._killed_for or _NONSENSE
        if code == OUT_OF_MEMORY:
            return self._describe_memory()
        if code >= 0:
            return f"the decoder process ended (exit code {code})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGXCPU":
            return f"it took more than {self._request.cpu_seconds} s of processor time"
        if name == "SIGKILL":
            return "the decoder was killed from outside, perhaps for want of memory"
        return f"the decoder crashed on it ({name})"

    def _describe_memory(self) -> str:
        return f"its frames need more than {self._request.memory_mb} MB"

    def kill(self, reason: str) -> None:
        """Ends the child, whose file fails for ``reason`` when that is noticed."""
        self._killed_for = reason
        with contextlib.suppress(ValueError):  # it has just been closed
            self.process.kill()

    def stop(self) -> None:
        """Ends the child, which holds nothing that would be missed."""
        self.process.kill()
        self.process.join(timeout=5)
        # one that waits for a dead network drive ends when it can
        with contextlib.suppress(ValueError):
            self.process.close()
        self.connection.close()
        self.printed.close()


class _Printed:
    """What a child prints: a file without a name that both hold, so that the end of it outlives the child."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as we do

    def fileno(self) -> int:
        return self._file.fileno()

    def size(self) -> int:
        """Bytes."""
        return os.fstat(self.fileno()).st_size

    def clear(self) -> None:
        """Forgets everything. The place where the child writes is shared too, and goes back to the beginning."""
        if self.size():
            self._file.seek(0)
            self._file.truncate()

    def forget_much(self) -> None:
        """Forgets what a decoder that gets on has complained of, so that it may go on complaining."""
        if self.size() > MAX_PRINTED_BYTES // 16:
            self.clear()

    def tail(self) -> str:
        """The last 2,000 characters, for people."""
        if sys.platform == "win32":  # where the child prints as we do
            return ""
        length = 8 * _MAX_TAIL_CHARS
        # reading at a place of our own: the child's is left alone
        data = os.pread(self.fileno(), length, max(0, self.size() - length))
        text = data.decode("utf-8", "replace")
        text = re.sub(r" @ 0x[0-9a-f]+", "", text)  # FFmpeg tells where its parts are in memory
        # Python's last word on a crash, nearly as long as all the rest
        text = re.sub(r"(?m)^Extension modules: .*$", "", text)
        return printable(text.strip()[-_MAX_TAIL_CHARS:], lines=True)

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Children started inside do not import the main module again, which may be a person's script: they need nothing
    of it, it can take seconds, and a script without ``if __name__ == "__main__"`` would start itself anew.
    """
    main = sys.modules["__main__"]
    names: dict[str, Any] = {
        name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)
    }
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(names)


def _process_context() -> Any:
    """Fork from a clean server that has torch loaded: a replaced child costs milliseconds, not seconds."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scanonce.media.child", "scanonce.media.decoders.pyav"])
    return context
