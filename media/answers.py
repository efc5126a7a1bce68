"""What a decoding child may answer, and the checks that none of it is believed without."""

import json
import math
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from scanonce.media.child import FRAMES_PER_MESSAGE, MAX_THUMBNAILS
from scanonce.media.child import DecodeRequest as DecodeRequest
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails

MAX_HEADER_BYTES = 1 << 20


MAX_REASON_CHARS = 500


_MAX_SIDE = 1 << 26  # FFmpeg allows 2^21 pixels, and their shape may stretch them


_MAX_NUMBER = 1e15  # of seconds, or frames a second, in a header: 63 bits of microseconds are less


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
    """The last of what its decoder printed, at most 2,000 printable characters; a file may make it print anything."""
    transient: bool = False
    """Whether another run may get further: not where the file itself is no video, but where its decoder crashed, hung,
    met a limit or answered nonsense, and where the file could not be read."""


Event = Opened | Frames | NewThumbnails | Finished | Failed


class Answers:
    """Reads what a child answers to one file, and believes none of it.

    What is said out of turn, too large, or of a value that cannot be raises an error.
    """

    def __init__(self, connection: Connection, request: DecodeRequest, job: int) -> None:
        self._connection = connection
        self._request = request
        self._job = job
        self._is_open = False
        max_frames = math.ceil(request.longest_seconds * request.sampling.fps) + 1
        self._frames = _Times(max_frames, request.longest_seconds)
        self._thumbnails = _Times(MAX_THUMBNAILS, request.longest_seconds)

    def receive(self) -> Event:
        """The next event of the file; EOFError or OSError where the child is gone."""
        header = json.loads(self._take(MAX_HEADER_BYTES))
        kind, values = header["kind"], header["values"]
        if kind == "failed":
            return self._read_failed(**values)
        if self._is_open == (kind == "opened"):
            raise ValueError(f"{kind} out of turn")
        if kind == "opened":
            self._is_open = True
            return Opened(self._job, _read_info(**values))
        if kind == "frames":
            return self._receive_frames()
        if kind == "thumbnails":
            return self._receive_thumbnails(**values)
        if kind == "finished":
            return self._read_finished(**values)
        raise ValueError(f"no such kind: {kind}")

    def _receive_frames(self) -> Frames:
        shape = (*self._request.preprocessing.output_size, 3)
        pts = np.frombuffer(self._take(8 * FRAMES_PER_MESSAGE), np.float64)
        images = np.frombuffer(self._take(FRAMES_PER_MESSAGE * prod(shape)), np.uint8)
        self._frames.add(pts)
        return Frames(self._job, pts, images.reshape(len(pts), *shape))

    def _receive_thumbnails(self, pts_seconds: list[float], sizes: list[int]) -> NewThumbnails:
        """Thumbnails that are what was asked for; whether they are pictures is seen by who shows them."""
        asked = self._request.thumbnails
        if asked is None or not 0 < len(sizes) <= FRAMES_PER_MESSAGE:
            raise ValueError(f"{len(sizes)} thumbnails")
        sizes = [_integer(size, asked.max_bytes) for size in sizes]
        pts = np.array(pts_seconds, np.float64)
        if pts.shape != (len(sizes),):
            raise ValueError(f"{len(sizes)} thumbnails at {pts_seconds}")
        self._thumbnails.add(pts)
        data = self._take(sum(sizes))
        if len(data) != sum(sizes):
            raise ValueError(f"{len(data)} bytes of thumbnails that have {sum(sizes)}")
        ends = accumulate(sizes)
        jpegs = tuple(data[end - size : end] for end, size in zip(ends, sizes, strict=True))
        return NewThumbnails(self._job, Thumbnails(pts, jpegs))

    def _read_finished(self, end_seconds: object, problem: object) -> Finished:
        end = _number(end_seconds, self._request.longest_seconds)
        if end < self._frames.last_seconds:
            raise ValueError(f"an end at {end} s, after a frame at {self._frames.last_seconds} s")
        return Finished(self._job, end, None if problem is None else _text(problem))

    def _read_failed(self, reason: object, transient: object) -> Failed:
        return Failed(self._job, _text(reason), transient=transient is True)

    def _take(self, max_bytes: int) -> bytes:
        """The next message; ValueError, and nothing of it is read, where it is longer."""
        try:
            message: bytes = self._connection.recv_bytes(max_bytes)
        except OSError as error:
            if error.args == ("bad message length",):
                raise ValueError(f"a message of more than {max_bytes} bytes") from error
            raise
        return message


class _Times:
    """Checks times that come in turn: finite, from 0, rising, and no more than there can be."""

    def __init__(self, max_count: int, longest_seconds: float) -> None:
        self._num_left = max_count
        self._longest_seconds = longest_seconds
        self.last_seconds = -math.inf

    def add(self, pts_seconds: NDArray[np.float64]) -> None:
        """ValueError where these cannot be the next ones."""
        self._num_left -= len(pts_seconds)
        if self._num_left < 0 or not len(pts_seconds) or not np.isfinite(pts_seconds).all():
            raise ValueError(f"too many times, or none: {pts_seconds}")
        rises = pts_seconds[0] > self.last_seconds and (np.diff(pts_seconds) > 0).all()
        if not rises or pts_seconds[0] < 0 or pts_seconds[-1] >= self._longest_seconds:
            raise ValueError(f"times that cannot be after {self.last_seconds}: {pts_seconds}")
        self.last_seconds = float(pts_seconds[-1])


def _read_info(
    duration_seconds: object, width: object, height: object, fps: object, codec: object
) -> VideoInfo:
    return VideoInfo(
        duration_seconds=_number(duration_seconds, _MAX_NUMBER),
        width=_integer(width, _MAX_SIDE),
        height=_integer(height, _MAX_SIDE),
        fps=_number(fps, _MAX_NUMBER),
        codec=_text(codec)[:32],
    )


def _number(value: object, highest: float) -> float:
    """``value``, a number from 0 to ``highest``; ValueError where it is anything else, NaN included."""
    if type(value) not in (int, float) or not 0 <= value <= highest:  # type: ignore[operator]
        raise ValueError(f"{value!r} is no number from 0 to {highest}")
    return float(value)  # type: ignore[arg-type]


def _integer(value: object, highest: int) -> int:
    """``value``, a whole number from 1 to ``highest``; ValueError where it is anything else."""
    if type(value) is not int or not 0 < value <= highest:
        raise ValueError(f"{value!r} is no whole number from 1 to {highest}")
    return value


def _text(value: object) -> str:
    """One line of text, shortened; ValueError where it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return printable(value[:MAX_REASON_CHARS])


def printable(text: str, *, lines: bool = False) -> str:
    """Nothing that would move a cursor or turn the direction of writing; spaces stand for it."""
    return "".join(each if each.isprintable() or (lines and each == "\n") else " " for each in text)
