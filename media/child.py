"""The child's side of guarded decoding: frames and thumbnails of a file.

`media.workers` is the parent's side, `media.answers` reads the messages.
"""

import errno
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.media import guard
from scanonce.media.facts import read_facts
from scanonce.media.limits import CPU_SECONDS, FREE_MB, LONGEST_HOURS, MEMORY_MB, Limits
from scanonce.media.messages import ParentGone, send
from scanonce.media.open import open_video
from scanonce.media.sampling import FrameSource, SampledFrame, Sampling
from scanonce.media.thumbnails import ThumbnailRequest, make_thumbnail
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.runtime import use_one_thread
from scanonce.storage.errors import VideoError
from scanonce.storage.facts import facts_values

FRAMES_PER_MESSAGE = 16
MAX_THUMBNAILS = 100_000
"""Thumbnails of one video: 28 hours at one a second."""

_SEND_SECONDS = (
    1.0  # frames wait no longer for others, so that a slow decoder is seen to make progress
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """How every file is to be decoded, and the limits of the child that does it (`media.limits`)."""

    sampling: Sampling
    backend: str
    preprocessing: Preprocessing
    stall_seconds: float
    thumbnails: ThumbnailRequest | None = None
    """None makes no thumbnails."""
    memory_mb: int = MEMORY_MB
    cpu_seconds: int = CPU_SECONDS
    longest_seconds: float = LONGEST_HOURS * 3600.0
    """Frames from this time on are not decoded; a video that has some is partial."""
    seconds_per_mb: float = math.inf
    """Limits the length of a video by the size of its file, as ``longest_seconds`` does: a few bytes can claim days."""
    is_limited_by_size: bool = False
    """Whether ``longest_seconds`` follows from the size of one file (`of_size`)."""
    is_still: bool = False
    """Whether the files are still images (`media.still`), not videos."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the part of each frame that is kept, in shares of its width and height; None keeps
    all of it."""

    facts: Literal["no", "also", "only"] = "no"
    """Whether the facts of each file are read too (`media.facts`), or nothing else."""

    def of_size(self, size_bytes: int) -> "DecodeRequest":
        """Return the request for a file of this size."""
        longest = self.seconds_per_mb * (size_bytes / 1e6 + FREE_MB)
        if longest >= self.longest_seconds:
            return self
        return replace(self, longest_seconds=longest, is_limited_by_size=True)

    @property
    def limits(self) -> Limits:
        """Limits of the child: it writes to no file but its captured output."""
        return Limits(self.stall_seconds, self.memory_mb, self.cpu_seconds, guard.MAX_PRINTED_BYTES)


def serve(connection: Connection, request: DecodeRequest) -> None:
    """Decode the files whose paths arrive until the parent closes the connection: one if `guard.ONE_FILE_EACH`."""
    with guard.serving(connection, request.limits):
        use_one_thread()
        is_locked = False
        while True:
            path, threads, size_bytes = json.loads(connection.recv_bytes())
            guard.allow_cpu(request.cpu_seconds)
            name = Path(os.fsdecode(bytes.fromhex(path)))
            if not is_locked:
                guard.lock_down(connection, [name])
                is_locked = True
            _decode_one(connection, request.of_size(size_bytes), name, threads)


# ---------------------------------------------------------------- decoding


def _decode_one(connection: Connection, request: DecodeRequest, path: Path, threads: int) -> None:
    try:
        _decode(connection, request, path, threads)
    except VideoError as error:
        _send_failed(connection, str(error), transient=_is_from_outside(error.__cause__))
    except (ParentGone, MemoryError):
        raise
    except Exception as error:  # whatever a file makes a decoder raise costs that file only
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise MemoryError from error  # torch raises no MemoryError of its own
        reason = f"decoding raised {type(error).__name__}: {error}"
        _send_failed(connection, reason, transient=True)


def _is_from_outside(cause: BaseException | None) -> bool:
    """Whether a file could not be read for a reason outside of it; FFmpeg reports damage as an I/O error too."""
    return isinstance(cause, OSError) and cause.errno != errno.EIO


def _decode(connection: Connection, request: DecodeRequest, path: Path, threads: int) -> None:
    if request.facts != "no":
        send(connection, "facts", facts_values(read_facts(path)))
    if request.facts == "only":
        send(connection, "finished", {"end_seconds": 0.0, "problem": None})
        return
    with _open(request, path, threads) as source:
        send(connection, "opened", asdict(source.info))
        frames = _Batch(partial(_send_frames, connection))
        thumbnails = _Thumbnails(connection, request.thumbnails)
        for frame in source.frames():
            if frame.pts_seconds >= request.longest_seconds:
                break
            image = frame.image if request.box is None else _cropped(frame.image, request.box)
            small = request.preprocessing.resize(image[None])[0]
            frames.add(frame.pts_seconds, small)
            thumbnails.add(frame)
        end = _describe_end(source, request)
        frames.send()
        thumbnails.send(end["end_seconds"])
        send(connection, "finished", end)


def _open(request: DecodeRequest, path: Path, threads: int) -> FrameSource:
    if request.is_still:
        from scanonce.media.still import (
            StillSource,
        )  # only what searches by an image needs Pillow's readers

        return StillSource(path)
    return open_video(
        path,
        sampling=request.sampling,
        backend=request.backend,
        threads=threads,
        # of a crop fewer pixels are left
        min_short_side=None if request.box else request.preprocessing.min_short_side,
    )


def _cropped(image: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """Return the part of an image in a box, at least one pixel."""
    height, width = image.shape[:2]
    left, top = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    return np.ascontiguousarray(image[top:bottom, left:right])


def _describe_end(source: FrameSource, request: DecodeRequest) -> dict[str, Any]:
    """Values of the last message."""
    longest_seconds = request.longest_seconds
    problems = [source.problem] if source.problem else []
    if source.end_seconds > longest_seconds:
        hours = longest_seconds / 3600
        length = f"{hours:.4g} h" if hours >= 1 else f"{longest_seconds:.4g} s"
        size = (
            ": it claims to be far longer than its size allows"
            if request.is_limited_by_size
            else ""
        )
        problems.append(f"only the first {length} are indexed{size}")
    return {
        "end_seconds": min(source.end_seconds, longest_seconds),
        "problem": "; ".join(problems) or None,
    }


# ---------------------------------------------------------------- messages


class _Batch(Generic[T]):
    """Frames or thumbnails of one file that are sent several at a time."""

    def __init__(self, send_all: Callable[[list[float], list[T]], None]) -> None:
        self.num_added = 0
        self._send_all = send_all
        self._pts: list[float] = []
        self._items: list[T] = []
        self._sent_at = time.monotonic()

    def add(self, pts_seconds: float, item: T) -> None:
        """Queue an item, and send the queue if it is long or old enough."""
        self.num_added += 1
        self._pts.append(pts_seconds)
        self._items.append(item)
        waited = time.monotonic() - self._sent_at
        if len(self._items) == FRAMES_PER_MESSAGE or waited > _SEND_SECONDS:
            self.send()

    def send(self) -> None:
        """Send the queue."""
        if self._items:
            self._send_all(self._pts, self._items)
        self._pts, self._items = [], []
        self._sent_at = time.monotonic()


class _Thumbnails:
    """The thumbnails of one file: of the sampled frames, those on screen at their own targets."""

    def __init__(self, connection: Connection, request: ThumbnailRequest | None) -> None:
        self._request = request
        self._sampler = request.sampler() if request else None
        self._batch = _Batch(partial(_send_thumbnails, connection))

    def add(self, frame: SampledFrame) -> None:
        """Take the next sampled frame."""
        if self._sampler is not None:
            self._make(self._sampler.add(frame.pts_seconds, frame))

    def send(self, end_seconds: float) -> None:
        """Send what is left, at the end of the video."""
        if self._sampler is not None:
            self._make(self._sampler.finish(end_seconds))
        self._batch.send()

    def _make(self, answer: tuple[float, SampledFrame] | None) -> None:
        assert self._request is not None
        if answer is None or self._batch.num_added == MAX_THUMBNAILS:
            return
        seconds, frame = answer
        if jpeg := make_thumbnail(frame.image, self._request):
            self._batch.add(seconds, jpeg)


def _send_frames(
    connection: Connection, pts_seconds: list[float], images: list[NDArray[np.uint8]]
) -> None:
    times = np.array(pts_seconds, np.float64)
    send(connection, "frames", {}, times.tobytes(), np.stack(images).data.cast("B"))


def _send_thumbnails(connection: Connection, pts_seconds: list[float], jpegs: list[bytes]) -> None:
    values = {"pts_seconds": pts_seconds, "sizes": [len(jpeg) for jpeg in jpegs]}
    send(connection, "thumbnails", values, b"".join(jpegs))


def _send_failed(connection: Connection, reason: str, *, transient: bool) -> None:
    send(connection, "failed", {"reason": reason, "transient": transient})
