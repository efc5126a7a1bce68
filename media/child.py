"""The child's side of guarded decoding: decodes the files it is told under limits (`media.workers` is the parent's).

An answer is a JSON header, ``{"kind": ..., "values": ...}``, and for frames and thumbnails bytes after it. What ends
the process instead of being answered: a crash, the processor limit (SIGXCPU), and memory (`OUT_OF_MEMORY`).
"""

import contextlib
import errno
import faulthandler
import json
import math
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanonce.media import limits
from scanonce.media.open import open_video
from scanonce.media.sampling import FrameSource, SampledFrame, Sampling
from scanonce.media.thumbnails import ThumbnailRequest, make_thumbnail
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.runtime import use_one_thread
from scanonce.storage.errors import VideoError

FRAMES_PER_MESSAGE = 16
MAX_THUMBNAILS = 100_000
"""Of one video: 28 hours at one a second."""
MAX_PRINTED_BYTES = 16 << 20
"""What a child may print between two answers."""
OUT_OF_MEMORY = 77
"""Exit code of a child that came to its memory limit."""

_SEND_SECONDS = (
    1.0  # frames wait no longer than this for others: a slow decoder shows that it goes on
)


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How every file is to be decoded."""

    sampling: Sampling
    backend: str
    preprocessing: Preprocessing
    stall_seconds: float
    """Wall time without an answer after which a child is killed."""
    thumbnails: ThumbnailRequest | None = None
    """None: no thumbnails are made."""
    memory_mb: int = limits.MEMORY_MB
    """What a child may take beyond what it has at its start. Limited on Linux only."""
    cpu_seconds: int = limits.CPU_SECONDS
    """Processor time of one file, all threads together. Not limited on Windows."""
    longest_seconds: float = limits.LONGEST_HOURS * 3600.0
    """Frames from here on are not decoded; a video that has some is partial."""


class _ParentGone(Exception):
    """Nobody is there to answer."""


def serve(connection: Connection, request: DecodeRequest) -> None:
    """Decodes the files it is told, one after another, until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        _print_to_parent(connection)
        _limit_process(request.memory_mb)
        use_one_thread()
        while True:
            path, threads = json.loads(connection.recv_bytes())
            _allow_cpu(request.cpu_seconds)
            _decode_one(connection, request, Path(os.fsdecode(bytes.fromhex(path))), threads)
    except (_ParentGone, EOFError, OSError):
        return
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # telling it, or ending in order, would need memory


# ---------------------------------------------------------------- limits


def _print_to_parent(connection: Connection) -> None:
    """What any library prints goes to the file that the parent hands over, and libav's errors are printed."""
    if sys.platform == "win32":
        return
    import av.logging

    descriptor = recv_handle(connection)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    faulthandler.enable(2)
    # FFmpeg's own way of printing: PyAV's takes Python's lock in decoder threads
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)


def _limit_process(memory_mb: int) -> None:
    """Memory, core dumps and file sizes, once and for all; what the system does not know is left out."""
    if sys.platform == "win32":
        return
    import resource

    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, MAX_PRINTED_BYTES)  # it writes to no other file
    if sys.platform == "linux":
        # private writable mappings; the address space would count what torch only reserves
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        _lower(resource.RLIMIT_DATA, pages * resource.getpagesize() + (memory_mb << 20))


def _lower(kind: int, wanted: int) -> None:
    """Sets a limit that cannot be raised again, unless a lower one is set."""
    assert sys.platform != "win32"
    import resource

    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (limit, limit))


def _allow_cpu(seconds: int) -> None:
    """Gives the process so much more processor time, after which SIGXCPU ends it."""
    if sys.platform == "win32":
        return
    import resource

    used = math.ceil(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = used + seconds if hard == resource.RLIM_INFINITY else min(used + seconds, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


# ---------------------------------------------------------------- decoding


def _decode_one(connection: Connection, request: DecodeRequest, path: Path, threads: int) -> None:
    try:
        _decode(connection, request, path, threads)
    except VideoError as error:
        _send_failed(connection, str(error), transient=_is_from_outside(error.__cause__))
    except (_ParentGone, MemoryError):
        raise
    except Exception as error:  # whatever a file makes a decoder raise costs that file only
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise MemoryError from error  # torch's way to say it
        reason = f"decoding raised {type(error).__name__}: {error}"
        _send_failed(connection, reason, transient=True)


def _is_from_outside(cause: BaseException | None) -> bool:
    """Whether a file could not be read for a reason that is not in it; FFmpeg calls damage an I/O error too."""
    return isinstance(cause, OSError) and cause.errno != errno.EIO


def _decode(connection: Connection, request: DecodeRequest, path: Path, threads: int) -> None:
    with open_video(
        path,
        sampling=request.sampling,
        backend=request.backend,
        threads=threads,
        min_short_side=request.preprocessing.min_short_side,
    ) as source:
        _send(connection, "opened", asdict(source.info))
        frames = _FrameSender(connection, request.preprocessing)
        thumbnails = _ThumbnailSender(connection, request.thumbnails)
        for frame in source.frames():
            if frame.pts_seconds >= request.longest_seconds:
                break
            frames.add(frame)
            thumbnails.add(frame)
        frames.send()
        thumbnails.send()
        _send(connection, "finished", _describe_end(source, request.longest_seconds))


def _describe_end(source: FrameSource, longest_seconds: float) -> dict[str, Any]:
    """Values of the last answer."""
    problems = [source.problem] if source.problem else []
    if source.end_seconds > longest_seconds:
        hours = longest_seconds / 3600
        length = f"{hours:g} h" if hours >= 1 else f"{longest_seconds:g} s"
        problems.append(f"only the first {length} are indexed")
    return {
        "end_seconds": min(source.end_seconds, longest_seconds),
        "problem": "; ".join(problems) or None,
    }


# ---------------------------------------------------------------- answers


class _FrameSender:
    """The child's end of a file's frames."""

    def __init__(self, connection: Connection, preprocessing: Preprocessing) -> None:
        self._connection = connection
        self._preprocessing = preprocessing
        self._pts: list[float] = []
        self._images: list[NDArray[np.uint8]] = []
        self._sent_at = time.monotonic()

    def add(self, frame: SampledFrame) -> None:
        """Reduces a frame and hands it over, sooner or later."""
        self._images.append(self._preprocessing.resize(frame.image[None])[0])
        self._pts.append(frame.pts_seconds)
        if (
            len(self._images) == FRAMES_PER_MESSAGE
            or time.monotonic() - self._sent_at > _SEND_SECONDS
        ):
            self.send()

    def send(self) -> None:
        """Hands over those that wait."""
        if self._images:
            images = np.stack(self._images)
            _send(self._connection, "frames", {})
            _send_bytes(self._connection, np.array(self._pts, np.float64).tobytes())
            _send_bytes(self._connection, images.data.cast("B"))
        self._pts, self._images = [], []
        self._sent_at = time.monotonic()


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
        if self._wanted is None or self._sampler is None or self._num_made == MAX_THUMBNAILS:
            return
        if self._sampler.wants(frame.pts_seconds) and (
            jpeg := make_thumbnail(frame.image, self._wanted)
        ):
            self._num_made += 1
            self._pts.append(frame.pts_seconds)
            self._jpegs.append(jpeg)
        if len(self._jpegs) == FRAMES_PER_MESSAGE:
            self.send()

    def send(self) -> None:
        """Hands over those that were made since."""
        if self._jpegs:
            sizes = [len(jpeg) for jpeg in self._jpegs]
            _send(self._connection, "thumbnails", {"pts_seconds": self._pts, "sizes": sizes})
            _send_bytes(self._connection, b"".join(self._jpegs))
        self._pts, self._jpegs = [], []


def _send_failed(connection: Connection, reason: str, *, transient: bool) -> None:
    _send(connection, "failed", {"reason": reason, "transient": transient})


def _send(connection: Connection, kind: str, values: dict[str, Any]) -> None:
    _send_bytes(connection, json.dumps({"kind": kind, "values": values}).encode())


def _send_bytes(connection: Connection, data: bytes | memoryview) -> None:
    try:
        connection.send_bytes(data)
    except OSError as error:  # told apart from those that a decoder may raise
        raise _ParentGone from error
