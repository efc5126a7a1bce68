"""Decoding in guarded child processes: what a broken or hostile file does to its decoder costs that one file.

The parent hands paths to a few child processes and receives frames that are already reduced to the encoder's size,
and thumbnails as JPEG files. A child that dies or falls silent is replaced, and its file is reported as failed. Only
bytes and JSON come back from a child, never pickles, and each message has a longest length: a decoder that has been
taken over cannot run code in the parent or fill its memory with one.

    with DecodePool(request, workers=2) as pool:
        for event in pool.decode(paths):
            ...
"""

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from math import prod
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.decode import SampledFrame, Sampling, open_video
from indexer.thumbnails import ThumbnailRequest, make_thumbnail
from models.preprocess import Preprocessing
from models.runtime import use_one_thread
from storage.errors import VideoError
from storage.records import VideoInfo
from storage.thumbnails import Thumbnails

_FRAMES_PER_MESSAGE = 16
_MESSAGES_AHEAD = 16  # decoded but not yet encoded: 16 x 16 frames of 224 x 224 are 38 MB
_MAX_HEADER_BYTES = 1 << 20
_MAX_THUMBNAILS = 100_000  # of one video: 28 hours at one a second


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How every file is to be decoded."""

    sampling: Sampling
    backend: str
    preprocessing: Preprocessing
    stall_seconds: float
    thumbnails: ThumbnailRequest | None = None
    """None: no thumbnails are made."""
    memory_mb: int = 4096
    """That a child may take for a file."""
    cpu_seconds: int = 21_600
    """Processor time that one file may take."""
    longest_seconds: float = 48 * 3600
    """Of a video that are decoded."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened and is being decoded."""

    job: int
    """Position of the file in the list given to `DecodePool.decode`."""
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class Frames:
    """The next frames of a file, in order."""

    job: int
    pts_seconds: NDArray[np.float64]
    images: NDArray[np.uint8]
    """``[num_frames, height, width, 3]`` at the encoder's size."""


@dataclass(frozen=True, slots=True)
class NewThumbnails:
    """The next thumbnails of a file, in order."""

    job: int
    thumbnails: Thumbnails


@dataclass(frozen=True, slots=True)
class Finished:
    """A file came to its end, perhaps before its time."""

    job: int
    end_seconds: float
    problem: str | None
    """Why not all of it could be decoded."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of a file is usable; frames that came before count no more."""

    job: int
    reason: str
    detail: str = ""
    """The end of what the decoder printed."""
    transient: bool = False
    """It crashed, hung or met a limit: another run may have more luck."""


Event = Opened | Frames | NewThumbnails | Finished | Failed


class DecodePool:
    """Child processes that decode one file each at a time."""

    def __init__(self, request: DecodeRequest, *, workers: int) -> None:
        """Children start with the first files."""
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
        try:
            self._serve(paths, children)
            self._put(None)
        except BaseException as error:  # handed to the thread that iterates, which raises it
            self._put(error)
        finally:
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
        for child in children:
            if child.job is None:
                return child
        if len(children) == self._num_workers:
            return None
        children.append(_Child(self._request))
        return children[-1]

    def _receive(self, busy: list["_Child"], children: list["_Child"]) -> None:
        for connection in wait([child.connection for child in busy], timeout=0.5):
            child = next(child for child in busy if child.connection is connection)
            try:
                event = child.receive()
            except (EOFError, OSError):
                self._replace(child, children, child.describe_exit())
                continue
            except Exception:  # whatever a decoder that was taken over answers costs its file only
                self._replace(child, children, "the decoder's answer made no sense")
                continue
            child.heard_at = time.monotonic()
            if isinstance(event, Finished | Failed):
                child.job = None
            self._put(event)
            # time spent waiting for room in the queue is not the children's silence
            waited = time.monotonic() - child.heard_at
            for other in busy:
                other.heard_at += waited
        for child in busy:
            silent = time.monotonic() - child.heard_at
            if (
                child.job is not None
                and silent > self._request.stall_seconds
                and not child.connection.poll()
            ):
                self._replace(
                    child, children, f"the decoder gave no frame for {silent:.0f} s and was stopped"
                )

    def _replace(self, child: "_Child", children: list["_Child"], reason: str) -> None:
        assert child.job is not None
        self._put(Failed(child.job, reason))
        child.stop()
        child.job = None
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
        self.process.start()
        theirs.close()
        self._request = request
        self._num_thumbnails = 0
        self._last_thumbnail = -1.0
        self.job: int | None = None
        self.heard_at = time.monotonic()

    def start(self, job: int, path: Path, threads: int) -> None:
        self.job = job
        self._num_thumbnails, self._last_thumbnail = 0, -1.0
        self.heard_at = time.monotonic()
        # a child that died meanwhile is noticed when its answer is read
        with contextlib.suppress(OSError):
            self.connection.send_bytes(json.dumps([os.fsencode(path).hex(), threads]).encode())

    def receive(self) -> Event:
        """The next event of its file; EOFError or OSError where the child is gone, others where it makes no sense."""
        assert self.job is not None
        header = json.loads(self._take(_MAX_HEADER_BYTES))
        kind, values = header["kind"], header["values"]
        if kind == "frames":
            return self._receive_frames()
        if kind == "thumbnails":
            return self._receive_thumbnails(**values)
        if kind == "opened":
            return Opened(self.job, VideoInfo(**values))
        if kind == "finished":
            return Finished(self.job, **values)
        return Failed(self.job, **values)

    def _receive_frames(self) -> Frames:
        assert self.job is not None
        shape = (*self._request.preprocessing.output_size, 3)
        pts = np.frombuffer(self._take(8 * _FRAMES_PER_MESSAGE), np.float64)
        images = np.frombuffer(self._take(_FRAMES_PER_MESSAGE * prod(shape)), np.uint8)
        if not len(pts):
            raise ValueError("no frames")
        return Frames(self.job, pts, images.reshape(len(pts), *shape))

    def _receive_thumbnails(self, pts_seconds: list[float], sizes: list[int]) -> NewThumbnails:
        """Thumbnails that are what was asked for; whether they are pictures is seen by who shows them."""
        assert self.job is not None
        asked = self._request.thumbnails
        if asked is None or not 0 < len(sizes) <= _FRAMES_PER_MESSAGE:
            raise ValueError(f"{len(sizes)} thumbnails")
        if not all(isinstance(size, int) and 0 < size <= asked.max_bytes for size in sizes):
            raise ValueError(f"thumbnails of {sizes} bytes")
        pts = np.array(pts_seconds, np.float64)
        steps = np.diff(pts, prepend=self._last_thumbnail)
        if len(pts) != len(sizes) or not np.isfinite(pts).all() or not (steps > 0).all():
            raise ValueError(f"thumbnails at {pts_seconds}")
        self._last_thumbnail = float(pts[-1])
        self._num_thumbnails += len(sizes)
        data = self._take(sum(sizes))
        if len(data) != sum(sizes) or self._num_thumbnails > _MAX_THUMBNAILS:
            raise ValueError(f"{self._num_thumbnails} thumbnails, the last ones {len(data)} bytes")
        ends = accumulate(sizes)
        jpegs = tuple(data[end - size : end] for end, size in zip(ends, sizes, strict=True))
        return NewThumbnails(self.job, Thumbnails(pts, jpegs))

    def _take(self, max_bytes: int) -> bytes:
        """The next message; ValueError, and nothing of it is read, where it is longer."""
        try:
            message: bytes = self.connection.recv_bytes(max_bytes)
        except OSError as error:
            if error.args == ("bad message length",):
                raise ValueError(f"a message of more than {max_bytes} bytes") from error
            raise
        return message

    def describe_exit(self) -> str:
        """Why the child is gone, for people."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"the decoder crashed on it ({signal.Signals(-code).name})"
        return f"the decoder process ended (exit code {code})"

    def stop(self) -> None:
        """Ends the child, gently where it is idle."""
        self.connection.close()
        if self.job is not None:
            self.process.kill()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


def _process_context() -> Any:
    """Fork from a clean server that has torch loaded: a replaced child costs milliseconds, not seconds."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["indexer.workers"])
    return context


def serve(connection: Connection, request: DecodeRequest) -> None:
    """The child: decodes the files it is told, one after another, until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    use_one_thread()
    with contextlib.suppress(EOFError, OSError):
        while True:
            path, threads = json.loads(connection.recv_bytes())
            _decode_one(connection, request, Path(os.fsdecode(bytes.fromhex(path))), threads)


def _decode_one(connection: Connection, request: DecodeRequest, path: Path, threads: int) -> None:
    try:
        with open_video(
            path,
            sampling=request.sampling,
            backend=request.backend,
            threads=threads,
            min_short_side=request.preprocessing.min_short_side,
        ) as source:
            _send(connection, "opened", asdict(source.info))
            batch: list[NDArray[np.uint8]] = []
            pts: list[float] = []
            thumbnails = _ThumbnailSender(connection, request.thumbnails)
            for frame in source.frames():
                batch.append(request.preprocessing.resize(frame.image[None])[0])
                pts.append(frame.pts_seconds)
                thumbnails.add(frame)
                if len(batch) == _FRAMES_PER_MESSAGE:
                    _send_frames(connection, pts, batch)
            if batch:
                _send_frames(connection, pts, batch)
            thumbnails.send()
            _send(
                connection,
                "finished",
                {"end_seconds": source.end_seconds, "problem": source.problem},
            )
    except VideoError as error:
        _send(connection, "failed", {"reason": str(error)})
    except MemoryError:
        _send(connection, "failed", {"reason": "its frames do not fit in memory"})
    except (EOFError, OSError):  # the parent is gone or has closed the connection
        raise
    except (
        Exception
    ) as error:  # whatever a file makes a decoder raise costs that file only, and is told
        _send(connection, "failed", {"reason": f"decoding raised {type(error).__name__}: {error}"})


def _send_frames(connection: Connection, pts: list[float], batch: list[NDArray[np.uint8]]) -> None:
    images = np.stack(batch)
    _send(connection, "frames", {})
    connection.send_bytes(np.array(pts, np.float64).tobytes())
    connection.send_bytes(images.data.cast("B"))
    batch.clear()
    pts.clear()


class _ThumbnailSender:
    """The child's end of a file's thumbnails."""

    def __init__(self, connection: Connection, wanted: ThumbnailRequest | None) -> None:
        self._connection = connection
        self._wanted = wanted
        self._sampler = wanted.sampler() if wanted else None
        self._num_made = 0
        self._pts: list[float] = []
        self._jpegs: list[bytes] = []

    def add(self, frame: SampledFrame) -> None:
        """Makes a thumbnail of a sampled frame, if there is to be one."""
        if self._wanted is None or self._sampler is None or self._num_made == _MAX_THUMBNAILS:
            return
        if self._sampler.wants(frame.pts_seconds) and (
            jpeg := make_thumbnail(frame.image, self._wanted)
        ):
            self._num_made += 1
            self._pts.append(frame.pts_seconds)
            self._jpegs.append(jpeg)
        if len(self._jpegs) == _FRAMES_PER_MESSAGE:
            self.send()

    def send(self) -> None:
        """Hands over those that were made since."""
        if self._jpegs:
            sizes = [len(jpeg) for jpeg in self._jpegs]
            _send(self._connection, "thumbnails", {"pts_seconds": self._pts, "sizes": sizes})
            self._connection.send_bytes(b"".join(self._jpegs))
        self._pts, self._jpegs = [], []


def _send(connection: Connection, kind: str, values: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps({"kind": kind, "values": values}).encode())
