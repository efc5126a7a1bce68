"""The frames of a video from a time on, and those of a cut."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.clock import Clock
from scanonce.media.container import codec_name, find_video_stream, open_container
from scanonce.storage.errors import UnreadableVideo

SNAP_SECONDS = 0.0006
"""A frame this near to an end of a cut is at it: addresses carry whole milliseconds."""


SEEKABLE = ("mov", "matroska", "avi", "flv", "asf")
"""Demuxers whose time stamps mean the same after a seek."""


_SEEK_BACK_SECONDS = (0.0, 5.0, 60.0)


MAX_ERRORS_IN_A_ROW = 200


class Ticker:
    """Tells the parent, a few times a second, how far we are."""

    def __init__(self, say: Callable[[float], object]) -> None:
        self._say = say
        self._said_at = -math.inf
        self.done_seconds = 0.0

    def __call__(self) -> None:
        """Something was decoded."""
        now = time.monotonic()
        if now - self._said_at > 0.2:
            self._said_at = now
            self._say(round(self.done_seconds, 3))


class Reader:
    """The frames of a video and when they are shown."""

    def __init__(self, path: Path, tick: Ticker) -> None:
        self.path = path
        self.tick = tick
        self.container = open_container(path)
        self.stream = find_video_stream(self.container)
        self.stream.thread_type = "AUTO"
        self._by_dts = self.container.format.name == "avi"
        self._time_base = self.stream.time_base or Fraction(1, 1000)
        self._num_errors = 0
        self._clock = Clock(self.stream, self._by_dts)
        self._decoded = self._decode()
        self.first = next(self._decoded, None)
        if self.first is None:
            raise UnreadableVideo(
                f"no picture of its {codec_name(self.stream)} track can be decoded: "
                "copy or download it again"
            )
        self._origin = self._stamp(self.first)

    def close(self) -> None:
        self.container.close()

    @property
    def origin_seconds(self) -> float:
        """The time of the first frame on the clock of the container."""
        return float((self.first.pts or 0) * self._time_base) if self.first else 0.0

    @property
    def step_seconds(self) -> float:
        """How long a frame is usually shown."""
        return 1.0 / float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def frames(self, start_seconds: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` in order of time, at the latest from the one shown at ``start_seconds`` on."""
        assert self.first is not None
        moved = False
        if self._origin is not None and self.container.format.name.startswith(SEEKABLE):
            for back in _SEEK_BACK_SECONDS:
                if start_seconds - back <= 1.0:
                    break
                moved = True
                found = self._seek(start_seconds - back)
                first = next(found, None)
                if first is not None and first[0] <= start_seconds + SNAP_SECONDS:
                    yield first
                    yield from found
                    return
        if moved:
            afresh = Reader(self.path, self.tick)
            try:
                yield from afresh.frames()
            finally:
                afresh.close()
            return
        clock = copy.copy(self._clock)
        for frame in itertools.chain([self.first], self._decoded):
            yield clock.frame_seconds(frame), frame

    def _seek(self, seconds: float) -> Iterator[tuple[float, VideoFrame]]:
        assert self._origin is not None
        stamp = self._origin + math.floor(seconds / self._time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except av.FFmpegError:
            return
        last = -math.inf
        for frame in self._decode():
            found = self._stamp(frame)
            if found is not None:
                shown = float((found - self._origin) * self._time_base)
                if shown > last:
                    last = shown
                    yield shown, frame

    def _stamp(self, frame: VideoFrame) -> int | None:
        return frame.dts if self._by_dts or frame.pts is None else frame.pts

    def _decode(self) -> Iterator[VideoFrame]:
        self._num_errors = 0
        for packet in self._packets():
            yield from self._decode_packet(packet if packet.size else None)

    def _decode_packet(self, packet: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._num_errors += 1
            return
        for frame in frames:
            self._num_errors = 0
            self.tick()
            yield frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Also the empty one that marks the end."""
        while self._num_errors < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self.container.demux(self.stream):
                    yield packet
                    if self._num_errors >= MAX_ERRORS_IN_A_ROW:
                        return
                return
            except av.FFmpegError:  # the next packet may be readable again
                self._num_errors += 1


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame and when it is shown, from the beginning of a cut."""

    start_seconds: float
    end_seconds: float
    frame: VideoFrame


def cut(
    frames: Iterable[tuple[float, VideoFrame]], start: float, end: float, step: float
) -> Iterator[Shown]:
    """What is shown in ``[start, end)``: of frames at 0, 0.4 and 0.8, [0.5, 0.9) is 0-0.3 and 0.3-0.4."""
    zero: float | None = None
    held: tuple[float, VideoFrame] | None = None
    stop: float | None = None
    for seconds, frame in frames:
        if seconds >= end - SNAP_SECONDS:
            stop = seconds if seconds <= end + SNAP_SECONDS else end
            break
        if held is not None and seconds > start + SNAP_SECONDS:
            zero = _zero(held[0], start) if zero is None else zero
            yield Shown(max(0.0, held[0] - zero), seconds - zero, held[1])
        held = (seconds, frame)
    if held is not None:
        zero = _zero(held[0], start) if zero is None else zero
        stop = min(end, held[0] + _duration(held[1], step)) if stop is None else stop
    if held is None or zero is None or stop is None or stop <= zero:
        raise UnreadableVideo(
            f"nothing of it can be decoded between {start:.3f} and {end:.3f} s: "
            "choose a span inside the video"
        )
    yield Shown(max(0.0, held[0] - zero), stop - zero, held[1])


def _zero(first_seconds: float, start: float) -> float:
    """Where a cut begins: with its first frame, or inside of it."""
    return first_seconds if first_seconds >= start - SNAP_SECONDS else start


def _duration(frame: VideoFrame, step: float) -> float:
    stated = float((frame.duration or 0) * (frame.time_base or 0))
    return stated if 0.0 < stated < 86_400.0 else step


def thin(
    frames: Iterable[tuple[float, VideoFrame]], fps: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Leaves out frames so that no more than ``fps`` a second are left."""
    due = 0.0
    for seconds, frame in frames:
        if seconds >= due - 1e-3:
            due = max(due, seconds - 1.0 / fps) + 1.0 / fps
            yield seconds, frame
