"""The packets that have to be decoded for the sampled frames."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, replace

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.clock import MAX_GAP_SECONDS, Clock
from scanonce.media.container import WELL_FORMED, codec_name
from scanonce.media.sampling import Sampling

_INDEPENDENT_GROUPS = frozenset({"h264", "hevc", "vp9", "av1"})
"""Codecs whose packets show one frame each, and whose key frames begin a group that can be decoded alone."""
_MAX_HELD_PACKETS = 1000
_MAX_HELD_BYTES = 64 << 20
_MAX_TIMES = 64  # more than a codec has frames out of order
_IDR_SLICE = 5  # H.264 NAL unit types
_OTHER_SLICE = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One packet to decode."""

    packet: Packet[VideoStream]
    wanted: bool = True
    """If not, it may be skipped unless other frames refer to it."""
    after_gap: bool = False
    """Whether packets before it were left out, so that the decoder has to be flushed."""


class Planner:
    """Decides, before decoding, which packets the sampling can do without.

    A frame answers a target if it is on screen then: the target is not before the frame and is before the next frame
    shown. The next frame is searched among the packets read so far, which include the first one of the next group. If
    it comes later in the file, a later frame stands in for it: then a packet too many is decoded, never one too few.
    """

    def __init__(
        self, sampling: Sampling, container: InputContainer, stream: VideoStream, clock: Clock
    ) -> None:
        self._sampling = sampling
        self._clock = clock
        self._codec = codec_name(stream)
        self._nal_length_bytes = count_nal_length_bytes(stream)
        self._may_skip = (
            container.format.name.startswith(WELL_FORMED) and self._codec in _INDEPENDENT_GROUPS
        )
        self._started = False
        self._times: list[
            float
        ] = []  # rising: of the packets held back, and of those read after them
        self._end_seconds = math.inf  # of the last frame, once all packets are read
        self._last_dts: int | None = None
        self._group: list[Step] = []  # from a key frame on, or the continuation of pending
        self._pending: list[Step] = []  # read, not needed so far
        self._held_bytes = 0
        self._after_gap = False

    def start(self, first: VideoFrame) -> None:
        """Begin to skip, now that the first frame is known. Fields of interlaced video may be separate packets."""
        self._started = True
        self._may_skip = self._may_skip and not first.interlaced_frame

    def stop_skipping(self) -> None:
        """Decode everything from now on: packets cannot be trusted."""
        self._may_skip = False

    def plan(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Step]:
        """Yield the packets to decode, in the order of the file."""
        if self._sampling.mode == "keyframes":
            return self._plan_key_frames(packets)
        return self._plan_uniform(packets)

    def _plan_key_frames(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Step]:
        """Decode each key frame alone, so that nothing between them has to be consistent."""
        held: Packet[VideoStream] | None = None
        for index, packet in enumerate(packets):
            self._clock.number(packet, index)
            if not self._started:
                yield Step(packet)
                continue
            if not packet.is_keyframe:
                self._clock.pass_by(packet)
                continue
            if held is not None:
                yield from self._key_frame(held, self._clock.packet_seconds(packet))
            held = packet
        if held is not None:
            yield Step(held, after_gap=True)

    def _key_frame(self, packet: Packet[VideoStream], next_seconds: float | None) -> Iterator[Step]:
        """Decode a key frame if it answers a target before the next one, or if that is not known."""
        seconds = self._clock.packet_seconds(packet)
        if seconds is None or next_seconds is None or self._sampling.answers(seconds, next_seconds):
            yield Step(packet, after_gap=True)
        else:
            self._clock.pass_by(packet)

    def _plan_uniform(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Step]:
        for packet in packets:
            self._note_time(packet)
            if not self._started or not self._is_regular(packet):
                yield from self._release_all()
                yield Step(packet, after_gap=self._take_gap())
                continue
            if self._begins_group(packet):
                yield from self._close_group()
            self._group.append(Step(packet))
            self._held_bytes += packet.size
            if (
                len(self._group) + len(self._pending) > _MAX_HELD_PACKETS
                or self._held_bytes > _MAX_HELD_BYTES
            ):
                yield from self._release_all()
        ends = [self._clock.packet_end(step.packet) for step in self._pending + self._group]
        self._end_seconds = max(self._clock.end_seconds, *ends, 0.0)
        yield from self._close_group()
        self._drop_pending()

    def _note_time(self, packet: Packet[VideoStream]) -> None:
        """Remember when the frame of ``packet`` is shown."""
        seconds = self._clock.packet_seconds(packet)
        if seconds is not None and not packet.is_discard:
            insort(self._times, seconds)

    def _is_wanted(self, packet: Packet[VideoStream]) -> bool:
        """Whether the frame of ``packet`` may be the answer to a target."""
        seconds = self._clock.packet_seconds(packet)
        if seconds is None:
            return True
        if packet.is_discard:  # decoded for other frames, not shown
            return False
        after = bisect_right(self._times, seconds)
        end = self._times[after] if after < len(self._times) else self._end_seconds
        return self._sampling.answers(seconds, end)

    def _is_regular(self, packet: Packet[VideoStream]) -> bool:
        """Whether times of packets can still be trusted; once they cannot, nothing is skipped any more."""
        dts, last = packet.dts, self._last_dts
        self._last_dts = dts
        self._may_skip = (
            self._may_skip
            and self._clock.is_steady
            and not packet.is_corrupt
            and packet.pts is not None
            and dts is not None
            and (last is None or 0 < (dts - last) * packet.time_base < MAX_GAP_SECONDS)
        )
        return self._may_skip

    def _begins_group(self, packet: Packet[VideoStream]) -> bool:
        return begins_group(packet, self._codec, self._nal_length_bytes)

    def _close_group(self) -> Iterator[Step]:
        """Drop pending packets that the group does not need, and release those that it needs."""
        self._group = [replace(each, wanted=self._is_wanted(each.packet)) for each in self._group]
        del self._times[:-_MAX_TIMES]
        if self._group and self._begins_group(self._group[0].packet):
            key_pts = self._group[0].packet.pts
            assert key_pts is not None
            if not any(step.wanted and (step.packet.pts or 0) < key_pts for step in self._group):
                self._drop_pending()
        self._pending += self._group
        self._group = []
        wanted = (index for index, step in enumerate(self._pending) if step.wanted)
        yield from self._release(1 + max(wanted, default=-1))

    def _release_all(self) -> Iterator[Step]:
        yield from self._close_group()
        yield from self._release(len(self._pending))

    def _release(self, num_steps: int) -> Iterator[Step]:
        steps, self._pending = self._pending[:num_steps], self._pending[num_steps:]
        self._held_bytes = sum(step.packet.size for step in self._pending)
        for step in steps:
            if not step.wanted:
                self._clock.pass_by(step.packet)
            yield replace(step, after_gap=self._take_gap())

    def _drop_pending(self) -> None:
        for step in self._pending:
            self._clock.pass_by(step.packet)
            self._after_gap = True
        self._pending = []

    def _take_gap(self) -> bool:
        after_gap, self._after_gap = self._after_gap, False
        return after_gap


def begins_group(packet: Packet[VideoStream], codec: str, nal_length_bytes: int) -> bool:
    """Whether no frame from ``packet`` on refers to earlier packets; frames shown before it may."""
    if not packet.is_keyframe:
        return False
    # H.264 also marks points from which the image recovers gradually
    return codec != "h264" or _is_idr(bytes(packet), nal_length_bytes)


def count_nal_length_bytes(stream: VideoStream) -> int:
    """Number of bytes of the length of an H.264 NAL unit; 0 if start codes separate them."""
    extradata = stream.codec_context.extradata or b""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _is_idr(data: bytes, length_bytes: int) -> bool:
    """Whether an H.264 frame needs none before it; False also if its kind is not found."""
    position = 0
    while length_bytes and position + length_bytes < len(data):
        kind = data[position + length_bytes] & 31
        if kind in (_IDR_SLICE, _OTHER_SLICE):
            return kind == _IDR_SLICE
        position += length_bytes + int.from_bytes(data[position : position + length_bytes], "big")
    return False
