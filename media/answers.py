"""Events of guarded decoding, and the checks of the messages that report them."""

import math
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from scanonce.media.child import FRAMES_PER_MESSAGE, MAX_THUMBNAILS, DecodeRequest
from scanonce.media.messages import (
    integer,
    number,
    receive_bytes,
    receive_header,
    record,
    text,
)
from scanonce.storage.facts import Facts, facts_of
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened and is being decoded."""

    job: int
    """Position of the file in the list given to `DecodePool.decode`."""
    info: VideoInfo


@dataclass(frozen=True, slots=True)
class FactsRead:
    """The facts of a file were read, before it is opened."""

    job: int
    facts: Facts


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
    """A file was decoded to its end, or as far as it could be."""

    job: int
    end_seconds: float
    problem: str | None
    """Why not all of it could be decoded; None if all of it was."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing of a file is usable; frames that came before it no longer count."""

    job: int
    reason: str
    detail: str = ""
    """Last output of its decoder, at most 2,000 printable characters; a file may make it print anything."""
    transient: bool = False
    """Whether another run may get further: yes if its decoder crashed, stalled, reached a limit or sent nonsense, or
    if the file could not be read; no if the file itself is no video."""


Event = FactsRead | Opened | Frames | NewThumbnails | Finished | Failed


class Answers:
    """Reads and checks the messages of a child about one file.

    A message that is out of turn or too long, or that has an impossible value, raises an error of any kind.
    """

    def __init__(self, connection: Connection, request: DecodeRequest, job: int) -> None:
        self._connection = connection
        self._request = request
        self._job = job
        self._is_open = False
        self._awaits_facts = request.facts != "no"
        max_frames = math.ceil(request.longest_seconds * request.sampling.fps) + 1
        self._frames = _Times(max_frames, request.longest_seconds)
        self._thumbnails = _Times(MAX_THUMBNAILS, request.longest_seconds)

    def receive(self) -> Event:
        """Return the next event of the file; EOFError or OSError if the child is gone."""
        kind, values = receive_header(self._connection)
        if kind == "failed":
            return self._read_failed(**values)
        if kind == "facts" and self._awaits_facts:
            self._awaits_facts = False
            return FactsRead(self._job, facts_of(values))
        if self._request.facts == "only" and kind == "finished":
            return Finished(self._job, 0.0, None)
        if self._is_open == (kind == "opened"):
            raise ValueError(f"{kind} out of turn")
        if kind == "opened":
            self._is_open = True
            return Opened(self._job, record(VideoInfo, values))
        if kind == "frames":
            return self._receive_frames()
        if kind == "thumbnails":
            return self._receive_thumbnails(**values)
        if kind == "finished":
            return self._read_finished(**values)
        raise ValueError(f"no such kind: {kind}")

    def _receive_frames(self) -> Frames:
        shape = (*self._request.preprocessing.output_size, 3)
        pts = np.frombuffer(receive_bytes(self._connection, 8 * FRAMES_PER_MESSAGE), np.float64)
        images = np.frombuffer(
            receive_bytes(self._connection, FRAMES_PER_MESSAGE * prod(shape)), np.uint8
        )
        self._frames.add(pts)
        return Frames(self._job, pts, images.reshape(len(pts), *shape))

    def _receive_thumbnails(self, pts_seconds: list[float], sizes: list[int]) -> NewThumbnails:
        """Thumbnails of the number and size that were requested; they are not checked to be JPEG files."""
        asked = self._request.thumbnails
        if asked is None or not 0 < len(sizes) <= FRAMES_PER_MESSAGE:
            raise ValueError(f"{len(sizes)} thumbnails")
        sizes = [integer(size, asked.max_bytes) for size in sizes]
        pts = np.array(pts_seconds, np.float64)
        if pts.shape != (len(sizes),):
            raise ValueError(f"{len(sizes)} thumbnails at {pts_seconds}")
        self._thumbnails.add(pts)
        data = receive_bytes(self._connection, sum(sizes))
        if len(data) != sum(sizes):
            raise ValueError(f"{len(data)} bytes of thumbnails that have {sum(sizes)}")
        ends = accumulate(sizes)
        jpegs = tuple(data[end - size : end] for end, size in zip(ends, sizes, strict=True))
        return NewThumbnails(self._job, Thumbnails(pts, jpegs))

    def _read_finished(self, end_seconds: object, problem: object) -> Finished:
        end = number(end_seconds, self._request.longest_seconds)
        if end < self._frames.last_seconds:
            raise ValueError(f"an end at {end} s, after a frame at {self._frames.last_seconds} s")
        return Finished(self._job, end, None if problem is None else text(problem))

    def _read_failed(self, reason: object, transient: object) -> Failed:
        return Failed(self._job, text(reason), transient=transient is True)


class _Times:
    """Checks that times are finite, not below 0, rising, and not too many."""

    def __init__(self, max_count: int, longest_seconds: float) -> None:
        self._num_left = max_count
        self._longest_seconds = longest_seconds
        self.last_seconds = -math.inf

    def add(self, pts_seconds: NDArray[np.float64]) -> None:
        """Check the next times; ValueError if they are impossible."""
        self._num_left -= len(pts_seconds)
        if self._num_left < 0 or not len(pts_seconds) or not np.isfinite(pts_seconds).all():
            raise ValueError(f"too many times, or none: {pts_seconds}")
        rises = pts_seconds[0] > self.last_seconds and (np.diff(pts_seconds) > 0).all()
        if not rises or pts_seconds[0] < 0 or pts_seconds[-1] >= self._longest_seconds:
            raise ValueError(f"times that cannot be after {self.last_seconds}: {pts_seconds}")
        self.last_seconds = float(pts_seconds[-1])
