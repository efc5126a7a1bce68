"""Presentation times that only rise, whatever the time stamps of a file do."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.container import FALLBACK_FPS, MIN_FPS

MAX_GAP_SECONDS = 86_400.0  # a longer one is a damaged time stamp

_DISCONTINUOUS = ("mpegts", "mpeg")  # broadcast formats: recordings are interrupted and joined
_MAX_JUMP_SECONDS = 10.0  # the limit of FFmpeg, ``dts_delta_threshold``
_DERIVED = ("mpeg1video", "mpeg2video")  # FFmpeg takes times of presentation from the next packet
_TIMED = ("video", "audio")  # subtitles may be hours apart
_MAX_DISORDER_SECONDS = 1.0  # going back further is a new beginning of the clock
_MIN_STEP_SECONDS = 1e-3


class Clock:
    """Turns time stamps into seconds from the first frame, however damaged they are."""

    def __init__(self, stream: VideoStream, by_dts: bool) -> None:
        """Start at the first frame of a stream; ``by_dts``: frames are timed by their decoding time stamps."""
        self._time_base = stream.time_base or Fraction(1, 1000)
        rate = float(stream.guessed_rate or 0)
        self._default_step = 1.0 / (rate if rate > MIN_FPS else FALLBACK_FPS)
        self._by_dts = by_dts
        self._origin: int | None = None
        self._shift = 0.0
        self._step = self._default_step  # how long the last frame is shown
        self._last = -self._step
        self.end_seconds = 0.0
        self.is_steady = False
        """Whether times are exactly ``pts - first pts`` so far, so that packets have them too."""

    def frame_seconds(self, frame: VideoFrame) -> float:
        """Return the time of the next decoded frame: 0 for the first, rising from frame to frame."""
        stamp = frame.dts if self._by_dts or frame.pts is None else frame.pts
        if stamp is None:
            self.is_steady = False
            seconds = self._last + self._step
        else:
            if self._origin is None:
                self._origin = stamp
                self._shift = self._last + self._step
                self.is_steady = stamp == frame.pts and self._shift == 0.0
            seconds = self._repair(self._since_origin(stamp) + self._shift)
        length = self._length(frame.duration)
        self._last = seconds
        self._step = length if length <= _MAX_JUMP_SECONDS else self._default_step
        self.end_seconds = max(self.end_seconds, seconds + length)
        return seconds

    def packet_seconds(self, packet: Packet[VideoStream]) -> float | None:
        """Return the time of the frame in ``packet``; None if it is unknown before decoding."""
        if not self.is_steady or packet.pts is None:
            return None
        return self._since_origin(packet.pts)

    def pass_by(self, packet: Packet[VideoStream]) -> None:
        """Count a packet that need not be decoded towards the end of the video."""
        self.end_seconds = max(self.end_seconds, self.packet_end(packet))

    def packet_end(self, packet: Packet[VideoStream]) -> float:
        """Return the end of the frame in ``packet``; 0 if it is unknown before decoding, or not shown."""
        seconds = self.packet_seconds(packet)
        if seconds is None or packet.is_discard:
            return 0.0
        return seconds + self._length(packet.duration or 0)

    def number(self, packet: Packet[VideoStream], index: int) -> None:
        """Set the time stamp of a packet that has none to that of the ``index``-th frame at the usual rate."""
        if packet.pts is None and packet.dts is None:
            packet.pts = round(index * self._default_step / self._time_base)

    def _length(self, duration: int) -> float:
        """Return the seconds for which a frame is on screen by its stated duration."""
        return float(duration * self._time_base) if duration > 0 else self._default_step

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
        repaired = self._last + self._step
        self._shift += repaired - seconds
        return repaired


class Splices:
    """Continues the clock of a file of a broadcast format where it was set anew, as players do.

    A jump is one of all tracks: while the sound goes on, a picture may be held for as long as it likes.
    """

    def __init__(self, format_name: str) -> None:
        self._is_discontinuous = format_name in _DISCONTINUOUS
        self.shift = Fraction(0)
        """Seconds by which time stamps are shifted now."""
        self._ends: dict[int, Fraction] = {}  # of the last packet of each track
        self._delays: dict[
            int, int
        ] = {}  # from decoding to presentation, of the last packet of each track that has one
        self._announced: Fraction | None = None  # the latest presentation that a packet states

    def mend(self, packet: Packet[Any]) -> None:
        """Shift the time stamps of the next packet of the file to the clock of the first one."""
        if not self._is_discontinuous or packet.stream.type not in _TIMED:
            return
        context = packet.stream.codec_context
        if context is not None and context.name in _DERIVED:
            self._mend_presentation(packet)
        stamp = packet.pts if packet.dts is None else packet.dts
        base, index = packet.time_base, packet.stream_index
        if stamp is None:  # program streams state a time for some packets only
            if index in self._ends:
                self._ends[index] += (packet.duration or 0) * base
            return
        seconds = stamp * base + self.shift
        latest = max(self._ends.values(), default=seconds)
        # a picture held while others wait to be decoded: those after it state a time that no jump leads to
        expected = latest if self._announced is None else max(latest, self._announced)
        is_ahead = seconds - expected > _MAX_JUMP_SECONDS
        if is_ahead or seconds - self._ends.get(index, seconds) < -_MAX_JUMP_SECONDS:
            self.shift += latest - seconds
            seconds, self._announced = latest, None
        elif packet.pts is not None and packet.pts * base + self.shift > expected:
            self._announced = packet.pts * base + self.shift
        self._ends[index] = seconds + (packet.duration or 0) * base
        moved = round(self.shift / base)
        packet.pts = None if packet.pts is None else packet.pts + moved
        packet.dts = None if packet.dts is None else packet.dts + moved

    def _mend_presentation(self, packet: Packet[Any]) -> None:
        """Give the last packet before a jump its own time of presentation; FFmpeg takes it from the next packet."""
        if packet.pts is None or packet.dts is None:
            return
        delay = packet.pts - packet.dts
        if abs(delay) * packet.time_base > _MAX_JUMP_SECONDS:
            packet.pts = packet.dts + self._delays.get(packet.stream_index, 0)
        elif delay:  # B-frames have none, and FFmpeg takes none of theirs from the next packet
            self._delays[packet.stream_index] = delay
