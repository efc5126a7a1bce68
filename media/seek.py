"""Frames of a video from a given time on, and of a cut."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
from av.video.frame import VideoFrame

from scanonce.media.clock import Clock
from scanonce.media.container import FALLBACK_FPS, frames_per_second
from scanonce.media.places import WITHOUT_INDEX, Places
from scanonce.media.stream import StreamDecoder
from scanonce.storage.errors import UnreadableVideo

SNAP_SECONDS = 0.0006
"""A frame this near to an end of a cut is at it: addresses carry whole milliseconds."""
SEEKABLE = ("mov", "matroska", "avi", "flv", "asf", "mxf", "ogg")
"""Demuxers whose time stamps mean the same after a seek."""

_SEEK_BACK_SECONDS = (0.0, 5.0, 60.0)  # a seek may end after its target: then from further back
_TICK_SECONDS = 0.2
_INTERLEAVED_SECONDS = 2.0  # how far packets of one time may be apart in a file


class Ticker:
    """Reports progress a few times a second."""

    def __init__(self, report: Callable[[float], object]) -> None:
        """``report`` is called with `done_seconds`."""
        self._report = report
        self._reported_at = -math.inf
        self.done_seconds = 0.0

    def __call__(self) -> None:
        """Note that something was decoded."""
        now = time.monotonic()
        if now - self._reported_at > _TICK_SECONDS:
            self._reported_at = now
            self._report(round(self.done_seconds, 3))


@dataclass(frozen=True, slots=True)
class Entry:
    """A time of a video on the clock of its container."""

    clock_seconds: float
    position: int | None = None
    """Byte from which to read, if the container cannot seek by time; None if it has to be read from its beginning."""


class Reader:
    """The frames of a video and the times at which they are shown."""

    def __init__(self, path: Path, tick: Ticker) -> None:
        """Open a file and decode its first frame.

        Raises:
            UnreadableVideo: there is none.
        """
        self.path = path
        self.tick = tick
        self._decoder = StreamDecoder.of_video(path)
        self.container, self.stream = self._decoder.container, self._decoder.stream
        self._by_dts = self._decoder.orders_by_dts
        self._time_base = self.stream.time_base or Fraction(1, 1000)
        self._clock = Clock(self.stream, self._by_dts)
        self._decoded = self._decode()
        first = next(self._decoded, None)
        if first is None:
            self.close()
            raise self._decoder.describe_no_frame()
        self.first: VideoFrame = first
        self._origin = self._stamp(first)
        self._places: Places | None = None
        if self._origin is not None and self.container.format.name in WITHOUT_INDEX:
            self._places = Places(self._decoder, self._origin, tick)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    @property
    def origin_seconds(self) -> float:
        """Time of the first frame on the clock of the container."""
        return float((self.first.pts or 0) * self._time_base)

    def entry(self, start_seconds: float) -> Entry:
        """Where other streams have what belongs to ``start_seconds``; known once a frame from there on was yielded."""
        if self._places is None:
            return Entry(self.origin_seconds + start_seconds)
        # from there on, other streams continue the clock across jumps as the frames do
        place = self._places.before(start_seconds - _INTERLEAVED_SECONDS)
        clock_seconds = float(place.stamp * self._time_base) + start_seconds - place.seconds
        return Entry(clock_seconds, place.position or None)

    @property
    def step_seconds(self) -> float:
        """How long a frame is usually shown."""
        return 1.0 / (frames_per_second(self.stream) or FALLBACK_FPS)

    def frames(self, start_seconds: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` in order of time, from the frame shown at ``start_seconds`` on or an earlier one."""
        if start_seconds > 1.0 and self._origin is not None:
            moved = False
            for found in self._approaches(start_seconds):
                moved = True
                first = next(found, None)
                if first is not None and first[0] <= start_seconds + SNAP_SECONDS:
                    yield first
                    yield from found
                    return
            if moved:  # no seek arrived before the start: read the file from its beginning
                with Reader(self.path, self.tick) as again:
                    yield from again.frames()
                return
        clock = copy.copy(self._clock)
        for frame in itertools.chain([self.first], self._decoded):
            yield clock.frame_seconds(frame), frame

    def _approaches(self, start_seconds: float) -> Iterator[Iterator[tuple[float, VideoFrame]]]:
        """Frames from about ``start_seconds`` on, from further back with every try."""
        if self._places is not None:
            yield self._places.frames(start_seconds + SNAP_SECONDS)
        elif self.container.format.name.startswith(SEEKABLE):
            for back in _SEEK_BACK_SECONDS:
                if start_seconds - back > 1.0:
                    yield self._seek(start_seconds - back)

    def _seek(self, seconds: float) -> Iterator[tuple[float, VideoFrame]]:
        assert self._origin is not None
        stamp = self._origin + math.floor(seconds / self._time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except av.FFmpegError:
            return
        clock = Clock(self.stream, self._by_dts)
        base: float | None = None
        for frame in self._decode():
            if base is None:
                found = self._stamp(frame)
                if found is None:
                    continue
                base = float((found - self._origin) * self._time_base)
            yield base + clock.frame_seconds(frame), frame

    def _stamp(self, frame: VideoFrame) -> int | None:
        return frame.dts if self._by_dts or frame.pts is None else frame.pts

    def _decode(self) -> Iterator[VideoFrame]:
        self._decoder.restart()
        for frame in self._decoder.frames():
            self.tick()
            yield frame


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame and the time at which it is shown, in seconds from the beginning of a cut."""

    start_seconds: float
    end_seconds: float
    frame: VideoFrame


def cut(
    frames: Iterable[tuple[float, VideoFrame]], start: float, end: float, step: float
) -> Iterator[Shown]:
    """Yield the frames shown in ``[start, end)``: of frames at 0, 0.4 and 0.8, [0.5, 0.9) has 0-0.3 and 0.3-0.4.

    Args:
        frames: ``(seconds, frame)`` in order of time.
        start: seconds.
        end: seconds.
        step: seconds for which the last frame of the file is shown if it does not state a duration.

    Raises:
        UnreadableVideo: there is no frame in the span.
    """
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
    """The beginning of a cut: its first frame, or ``start`` if that frame began before it."""
    return first_seconds if first_seconds >= start - SNAP_SECONDS else start


def _duration(frame: VideoFrame, step: float) -> float:
    stated = float((frame.duration or 0) * (frame.time_base or 0))
    return stated if 0.0 < stated < 86_400.0 else step


def thin(
    frames: Iterable[tuple[float, VideoFrame]], fps: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Drop frames so that at most ``fps`` a second are left."""
    due = 0.0
    for seconds, frame in frames:
        if seconds >= due - 1e-3:
            due = max(due, seconds - 1.0 / fps) + 1.0 / fps
            yield seconds, frame
