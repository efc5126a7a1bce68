"""Frames of MPEG-TS and MPEG-PS from a given time on, without decoding all before it.

These files have no index, and their clock may jump at any place, so a time stamp alone does not say how much video is
before it. So a time stamp is read for every second on the way, which costs a millisecond. Where they rise as they
should, times follow from them; where they do not, the file is decoded across the jump, by the same clock as when it is
decoded as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from scanonce.media.clock import Clock
from scanonce.media.stream import StreamDecoder

WITHOUT_INDEX = ("mpegts", "mpeg")
"""Demuxers of these files."""

_STEP_SECONDS = 1.0
_FEWEST_BYTES = 2048
# between places a smallest step apart; what the clock of frames accepts as one step is more
_SMALLEST_RISE_SECONDS, _LARGEST_RISE_SECONDS = -0.5, 8.0
_MAX_FRAMES_ACROSS = 500
_NEAR_SECONDS = 0.5
_SAME_SECONDS = 1e-4


@dataclass(frozen=True, slots=True)
class Place:
    """What the clock says somewhere in a file."""

    position: int
    """In bytes."""
    stamp: int
    """Time stamp of a frame from there on."""
    seconds: float
    """Time of that frame, from the first one."""
    num_jumps: int
    """How often the clock has jumped before."""


class Places:
    """The way through a file, place by place."""

    def __init__(self, decoder: StreamDecoder, origin: int, tick: Callable[[], object]) -> None:
        """``origin`` is the pts of the first frame; ``tick`` reports progress."""
        self._decoder = decoder
        self._tick = tick
        self._time_base: Fraction = decoder.stream.time_base or Fraction(1, 90_000)
        self._passed = [Place(0, origin, 0.0, 0)]
        self._position = 0  # of the last packet

    def frames(self, start_seconds: float) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` in order of time, from a key frame at or before ``start_seconds`` on.

        Nothing if the way to it is not found; then the file has to be decoded from its beginning.
        """
        self._walk_to(start_seconds)
        for place in self._backwards():
            found = self._decode_from(place, start_seconds)
            first = next(found, None)
            if first is not None and first[0] <= start_seconds:
                yield first
                yield from found
                return

    def before(self, seconds: float) -> Place:
        """Return the last place passed that is not after ``seconds``."""
        return max(
            (place for place in self._passed if place.seconds <= seconds),
            key=lambda place: place.seconds,
            default=self._passed[0],
        )

    def _backwards(self) -> Iterator[Place]:
        """Places passed, from the last one back in growing steps to the first one: key frames may be far apart."""
        index, step = len(self._passed) - 1, 1
        while index > 0:
            yield self._passed[index]
            index -= step
            step *= 2
        yield self._passed[0]

    def _walk_to(self, seconds: float) -> None:
        """Pass places up to ``seconds``, or as far as they can be found."""
        ahead = float(_FEWEST_BYTES)
        while (left := seconds - self._passed[-1].seconds) > _STEP_SECONDS / 4:
            self._tick()
            last, rate = self._passed[-1], self._bytes_per_second()
            ahead = max(_FEWEST_BYTES, min(ahead, rate * min(left, _STEP_SECONDS)))
            found = self._next(last, round(ahead))
            if found is None:
                return
            rise = found.seconds - last.seconds
            is_smallest = ahead <= max(_FEWEST_BYTES, rate * _STEP_SECONDS / 8)
            fewest_seconds = 0.3 * ahead / rate
            if fewest_seconds <= rise <= 2 * _STEP_SECONDS or (
                is_smallest and _SMALLEST_RISE_SECONDS <= rise <= _LARGEST_RISE_SECONDS
            ):
                self._passed.append(found)
                ahead *= 1.5
            elif not is_smallest:  # more or less video in these bytes than usual, or a jump
                ahead /= 2
            else:
                across = self._cross(found)
                if across is None:
                    return
                self._passed.append(across)

    def _bytes_per_second(self) -> float:
        """Bytes of a second of video, between the last few places; infinite if there is no telling."""
        first, last = self._passed[max(0, len(self._passed) - 5)], self._passed[-1]
        seconds = last.seconds - first.seconds
        return (last.position - first.position) / seconds if seconds > 0.1 else math.inf

    def _next(self, last: Place, ahead: int) -> Place | None:
        """Return a place so many bytes on, its time taken from its stamp; None at the end of the file."""
        position = last.position + ahead
        for packet in self._packets(position):
            if packet.pts is not None:
                stamp = self._stated(packet.pts)
                return Place(position, stamp, self._seconds(last, stamp), last.num_jumps)
        return None

    def _seconds(self, place: Place, stamp: int) -> float:
        """Return the time of ``stamp`` if the clock does not jump on the way from a place."""
        return place.seconds + float((stamp - place.stamp) * self._time_base)

    def _stated(self, stamp: int) -> int:
        """Return a time stamp as the file states it: the decoder continues a clock that jumps."""
        return stamp - round(self._decoder.splices.shift / self._time_base)

    def _cross(self, found: Place) -> Place | None:
        """Decode from a key frame before the last place up to ``found``; return a place there with its true time.

        None if no such frame comes.
        """
        num_jumps = found.num_jumps + 1
        for place in self._backwards():
            num_after = 0
            last_opinion = math.nan
            for seconds, frame in self._decode_from(place):
                if self._position < found.position or frame.pts is None:
                    continue
                across = Place(self._position, self._stated(frame.pts), seconds, num_jumps)
                opinion = self._seconds(across, found.stamp)
                is_near = abs(opinion - seconds) <= _NEAR_SECONDS
                # the clock may hold some frames at the joint: two that follow each other have to agree
                if is_near and abs(opinion - last_opinion) < _SAME_SECONDS:
                    return across
                last_opinion = opinion
                num_after += 1
                if num_after > _MAX_FRAMES_ACROSS:
                    return None
        return None

    def _is_known(self, place: Place) -> bool:
        """Whether the clock is known not to jump between a place and the current position."""
        if place == self._passed[0]:  # the first key frame belongs to it
            return True
        same = (each.position for each in self._passed if each.num_jumps == place.num_jumps)
        return self._position <= max(same)

    def _decode_from(
        self, place: Place, before_seconds: float = math.inf
    ) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` from the first key frame behind a place on.

        Nothing if the time of that is not known, or not before ``before_seconds``.
        """
        clock = Clock(self._decoder.stream, by_dts=False)
        base: float | None = None
        is_decoding = False
        num_stamps = 0
        for packet in self._packets(place.position):
            num_stamps += packet.pos is not None
            if not is_decoding:
                # the first stamp may have been given to the rest of another frame
                if not packet.is_keyframe or (num_stamps < 2 and place != self._passed[0]):
                    continue
                if packet.pts is None or not self._is_known(place):
                    return
                if self._seconds(place, self._stated(packet.pts)) > before_seconds:
                    return
                is_decoding = True
            for frame in self._decoder.decode(packet if packet.size else None):
                self._tick()
                if base is None:
                    if not frame.key_frame or frame.pts is None:
                        continue  # refers to frames before the key frame
                    base = self._seconds(place, self._stated(frame.pts))
                yield base + clock.frame_seconds(frame), frame

    def _packets(self, position: int) -> Iterator[Packet[Any]]:
        """Packets of the stream from a position on; none if the file cannot be read there."""
        self._decoder.restart()
        try:
            self._decoder.container.seek(
                position, stream=self._decoder.stream, unsupported_byte_offset=True
            )
        except av.FFmpegError:
            return
        self._position = position
        for packet in self._decoder.packets():
            if packet.stream_index == self._decoder.stream.index:
                self._position = packet.pos or self._position  # not all packets state it
                yield packet
