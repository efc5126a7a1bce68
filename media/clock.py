"""Presentation times that only rise, whatever the time stamps of a file do."""

from __future__ import annotations

from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.container import FALLBACK_FPS, MIN_FPS

MAX_GAP_SECONDS = 86_400.0  # a longer one is a damaged time stamp

_MAX_DISORDER_SECONDS = 1.0  # going back further is a new beginning of the clock
_MIN_STEP_SECONDS = 1e-3


class Clock:
    """Turns time stamps into seconds from the first frame, however damaged they are."""

    def __init__(self, stream: VideoStream, by_dts: bool) -> None:
        self._time_base = stream.time_base or Fraction(1, 1000)
        rate = float(stream.guessed_rate or 0)
        self._default_step = 1.0 / (rate if rate > MIN_FPS else FALLBACK_FPS)
        self._by_dts = by_dts
        self._origin: int | None = None
        self._shift = 0.0
        self._last = -self._default_step
        self.end_seconds = 0.0
        self.is_steady = False
        """Whether times are exactly ``pts - first pts`` so far, so that packets have them too."""

    def frame_seconds(self, frame: VideoFrame) -> float:
        """Return the time of the next decoded frame: 0 for the first, rising from frame to frame."""
        stamp = frame.dts if self._by_dts or frame.pts is None else frame.pts
        if stamp is None:
            self.is_steady = False
            seconds = self._last + self._default_step
        else:
            if self._origin is None:
                self._origin = stamp
                self._shift = self._last + self._default_step
                self.is_steady = stamp == frame.pts and self._shift == 0.0
            seconds = self._repair(self._since_origin(stamp) + self._shift)
        self._last = seconds
        self._show(seconds, frame.duration)
        return seconds

    def packet_seconds(self, packet: Packet[VideoStream]) -> float | None:
        """Return the time of the frame in ``packet``; None if it is unknown before decoding."""
        if not self.is_steady or packet.pts is None:
            return None
        return self._since_origin(packet.pts)

    def pass_by(self, packet: Packet[VideoStream]) -> None:
        """Count a packet that is not decoded towards the end of the video."""
        seconds = self.packet_seconds(packet)
        if seconds is not None and not packet.is_discard:
            self._show(seconds, packet.duration or 0)

    def number(self, packet: Packet[VideoStream], index: int) -> None:
        """Set the time stamp of a packet that has none to that of the ``index``-th frame at the usual rate."""
        if packet.pts is None and packet.dts is None:
            packet.pts = round(index * self._default_step / self._time_base)

    def _show(self, seconds: float, duration: int) -> None:
        """Count a frame towards the end of the video."""
        length = float(duration * self._time_base) if duration > 0 else self._default_step
        self.end_seconds = max(self.end_seconds, seconds + length)

    def _since_origin(self, stamp: int) -> float:
        assert self._origin is not None
        return float((stamp - self._origin) * self._time_base)

    def _repair(self, seconds: float) -> float:
        """Continue a clock that starts again at 0; hold one that steps back a little."""
        if -_MAX_DISORDER_SECONDS <= seconds - self._last <= MAX_GAP_SECONDS:
            if seconds > self._last:
                return seconds
            self.is_steady = False
            return self._last + _MIN_STEP_SECONDS
        self.is_steady = False
        repaired = self._last + self._default_step
        self._shift += repaired - seconds
        return repaired
