"""Decoding in guarded child processes: a broken or hostile file costs that one file only.

The parent sends paths to a few children (`media.child`) and receives frames that are already reduced to the encoder's
size, and thumbnails as JPEG files. A child that crashes, stalls or exceeds its limits (`media.guard`) is replaced, and
its file is reported as failed, with the last output of its decoder. On Linux each file has a child of its own, which
can read nothing else; forking it costs some 50 ms.

    with DecodePool(request, workers=2) as pool:
        for event in pool.decode(paths):
            ...
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path

from scanonce.media import guard
from scanonce.media.answers import Answers, Event, Failed, Finished
from scanonce.media.child import DecodeRequest, serve
from scanonce.storage.errors import DecoderCrashed

_MESSAGES_AHEAD = 16  # decoded but not yet encoded: 16 x 16 frames of 224 x 224 are 38 MB
_MAX_THREADS = 16  # more make FFmpeg no faster, and of thousands it cannot start any
_PRELOADED = ("scanonce.media.child", "scanonce.media.decoders.pyav")


class DecodePool:
    """Child processes that decode one file each."""

    def __init__(self, request: DecodeRequest, *, workers: int) -> None:
        """Children start with the first files."""
        self.num_replaced = 0
        """Children so far that were stopped before the end of a file, or were gone before its beginning."""
        self._request = request
        self._num_workers = workers
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue(_MESSAGES_AHEAD)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

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
        """Yield the events of all files: those of one file in order, files interleaved. Call once."""
        self._thread = threading.Thread(
            target=self._run, args=(paths,), daemon=True, name="decode-pool"
        )
        self._thread.start()
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _run(self, paths: Sequence[Path]) -> None:
        children: list[_Decoder] = []
        try:
            self._serve(paths, children)
            self._put(None)
        except BaseException as error:  # raised by the thread that iterates
            self._put(error)
        finally:
            for child in children:
                child.stop()

    def _serve(self, paths: Sequence[Path], children: list["_Decoder"]) -> None:
        """Keep every child busy until all files are done."""
        waiting = list(enumerate(paths))[::-1]
        while (
            waiting or any(child.job is not None for child in children)
        ) and not self._stop.is_set():
            while waiting and (child := self._idle(children)) is not None:
                job, path = waiting.pop()
                busy = sum(other.job is not None for other in children)
                # the last files share the cores that no other file needs
                threads = self._num_workers // (busy + 1 + len(waiting))
                threads = min(max(1, threads), _MAX_THREADS)
                child.start(job, path, threads)
            self._receive([child for child in children if child.job is not None], children)

    def _idle(self, children: list["_Decoder"]) -> "_Decoder | None":
        for child in [child for child in children if child.job is None]:
            if not child.connection.poll():
                return child
            # it died meanwhile, or sends what nobody requested: the next file must not pay for it
            self._discard(child, children)
            self.num_replaced += 1
        if len(children) == self._num_workers:
            return None
        children.append(_Decoder(self._request))
        return children[-1]

    def _receive(self, busy: list["_Decoder"], children: list["_Decoder"]) -> None:
        for connection in wait([child.connection for child in busy], timeout=0.5):
            child = next(child for child in busy if child.connection is connection)
            try:
                event = child.receive()
            except DecoderCrashed as error:
                event = self._give_up(child, children, str(error))
            if isinstance(event, Finished | Failed):
                child.job = None
                if guard.ONE_FILE_EACH and child in children:
                    self._discard(child, children)
            self._put(event)
            # time spent waiting for room in the queue does not count as the children's silence
            waited = time.monotonic() - child.heard_at
            for other in busy:
                other.heard_at += waited
        for child in [child for child in busy if child.job is not None]:
            try:
                child.check_progress()
            except DecoderCrashed as error:
                self._put(self._give_up(child, children, str(error)))

    def _give_up(self, child: "_Decoder", children: list["_Decoder"], reason: str) -> Failed:
        """End a file together with its child."""
        assert child.job is not None
        failed = Failed(child.job, reason, child.printed.tail(), transient=True)
        self._discard(child, children)
        self.num_replaced += 1
        child.job = None
        return failed

    def _discard(self, child: "_Decoder", children: list["_Decoder"]) -> None:
        child.stop()
        children.remove(child)

    def _put(self, event: Event | BaseException | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._events.put(event, timeout=0.1)
                return


class _Decoder(guard.Child):
    """One child and the file it decodes."""

    def __init__(self, request: DecodeRequest) -> None:
        super().__init__(*guard.fork(serve, request, preload=_PRELOADED), request.limits)
        self._request = request
        self._answers = Answers(self.connection, request, 0)
        self.job: int | None = None
        """Position of its file; None while it is idle."""

    def start(self, job: int, path: Path, threads: int) -> None:
        """Begin a file."""
        self.job = job
        size_bytes = _size_bytes(path)
        self._answers = Answers(self.connection, self._request.of_size(size_bytes), job)
        # hex: a name may have bytes that are no text
        self.send([os.fsencode(path).hex(), threads, size_bytes])

    def receive(self) -> Event:
        """Return the next event of its file, which has begun to arrive.

        Raises:
            DecoderCrashed: see `media.guard.Child.read`.
        """
        event = self.read(self._answers.receive)
        if not isinstance(event, Failed):
            self.printed.drop_much()
            return event
        if not event.transient and self.was_denied_memory():
            return Failed(event.job, self.describe_memory(), self.printed.tail(), transient=True)
        return Failed(event.job, event.reason, self.printed.tail(), event.transient)


def _size_bytes(path: Path) -> int:
    """Return the size of a file; 0 if it cannot be read, which its decoder will report."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
