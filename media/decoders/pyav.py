"""Decoding with PyAV, the default back end.

What the sampling does not ask for is not decoded where the file allows it: pictures that no other refers to, and
the rest of a group of pictures once nothing in it is wanted any more. The frames are the same as of full decoding.
"""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.clock import Clock
from scanonce.media.container import (
    Geometry,
    codec_name,
    describe,
    describe_early_end,
    find_video_stream,
    open_container,
    packet_end_seconds,
    stated_end_seconds,
)
from scanonce.media.planner import Planner
from scanonce.media.sampling import SampledFrame, Sampler, Sampling
from scanonce.storage.errors import UnreadableVideo

_MAX_ERRORS_IN_A_ROW = 200
_SENSIBLE_PACKET_BYTES = 256 << 20


class PyAVSource:
    """`media.sampling.FrameSource` by PyAV."""

    def __init__(
        self, path: Path, sampling: Sampling, threads: int, min_short_side: int | None
    ) -> None:
        """As `media.open.open_video`."""
        self._sampling = sampling
        self._num_damaged = 0
        self._num_damaged_in_a_row = 0
        self._gave_up = False
        self._read_end_seconds = -math.inf
        self._is_read_whole = False
        self._container = open_container(path)
        try:
            self._stream = find_video_stream(self._container)
            self._stream.thread_type = "AUTO"
            self._stream.thread_count = threads
            # AVI numbers pictures in the order of decoding, which for key pictures alone does not matter
            by_dts = self._container.format.name == "avi" and sampling.mode == "uniform"
            self._clock = Clock(self._stream, by_dts)
            self._planner = Planner(sampling, self._container, self._stream, self._clock)
            self._decoded = self._decode()
            self._first = self._first_frame()
            self._geometry = Geometry.of(self._first[1], self._stream, min_short_side)
        except BaseException:
            self.close()
            raise
        self.info = describe(self._container, self._stream, self._geometry)
        self._stated_end_seconds = stated_end_seconds(self._container)

    @property
    def problem(self) -> str | None:
        """See `media.sampling.FrameSource`."""
        reasons = []
        if self._num_damaged:
            reasons.append(f"{self._num_damaged} damaged piece(s) could not be decoded")
        if self._gave_up:
            reasons.append("the rest was given up after too many errors in a row")
        if self._is_read_whole or self._gave_up:  # else it was left early
            early = describe_early_end(self._stated_end_seconds, self._read_end_seconds)
            reasons += [early] if early else []
        return "; ".join(reasons) or None

    @property
    def end_seconds(self) -> float:
        """See `media.sampling.FrameSource`."""
        if self._sampling.mode == "keyframes" and not self._clock.is_steady:
            return max(self._clock.end_seconds, self.info.duration_seconds)
        return self._clock.end_seconds

    def frames(self) -> Iterator[SampledFrame]:
        """See `media.sampling.FrameSource`."""
        sampler = Sampler(self._sampling)
        num_given = 0
        for seconds, frame in itertools.chain([self._first], self._decoded):
            if not self._is_candidate(seconds, frame) or not sampler.wants(seconds):
                continue
            try:
                image = self._geometry.picture(frame)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                self._count_damage()
                continue
            num_given += 1
            yield SampledFrame(seconds, image)
        if not num_given:
            raise UnreadableVideo(
                "its pictures have a format that cannot be converted: transcode it to H.264"
            )

    def close(self) -> None:
        """See `media.sampling.FrameSource`."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _is_candidate(self, seconds: float, frame: VideoFrame) -> bool:
        return self._sampling.mode == "uniform" or frame.key_frame or seconds == 0.0

    def _first_frame(self) -> tuple[float, VideoFrame]:
        """Everything is decoded until a picture comes out: its time is the origin of all times."""
        first = next(self._decoded, None)
        if first is None:
            raise UnreadableVideo(
                f"it has a {codec_name(self._stream)} video track but no picture of it can be decoded: "
                "copy or download it again"
            )
        self._planner.start(first[1])
        return first

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` of all frames that have to be decoded, in order of time."""
        context = self._stream.codec_context
        for step in self._planner.plan(self._packets()):
            if step.afresh:
                yield from self._decode_packet(None)
                context.flush_buffers()
            context.skip_frame = "DEFAULT" if step.wanted else "NONREF"
            yield from self._decode_packet(step.packet)
            if self._gave_up:
                break
        yield from self._decode_packet(None)

    def _decode_packet(
        self, packet: Packet[VideoStream] | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Frames that come out when ``packet`` goes in; None gets those that are still inside."""
        try:
            frames = self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            self._count_damage()
            return
        if frames:
            self._num_damaged_in_a_row = 0
        for frame in frames:
            yield self._clock.frame_seconds(frame), frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of our stream; those of the others only tell how far the file goes."""
        for packet in self._all_packets():
            if packet.size == 0:  # PyAV marks the end of each stream with one
                continue
            self._read_end_seconds = max(self._read_end_seconds, packet_end_seconds(packet))
            if packet.stream_index == self._stream.index:
                yield cast("Packet[VideoStream]", packet)

    def _all_packets(self) -> Iterator[Packet[Any]]:
        while not self._gave_up:
            try:
                yield from self._container.demux()
                self._is_read_whole = True
                return
            except (
                IndexError
            ):  # at the end, PyAV trips over a track that began in the middle of the file
                self._is_read_whole = True
                return
            except MemoryError:
                if not _has_room():
                    raise
                self._count_damage()  # a packet that claims to be larger than any
            except av.FFmpegError:  # the next packet may be readable again
                self._count_damage()

    def _count_damage(self) -> None:
        self._num_damaged += 1
        self._num_damaged_in_a_row += 1
        self._gave_up |= self._num_damaged_in_a_row >= _MAX_ERRORS_IN_A_ROW
        self._planner.stop_skipping()


def _has_room() -> bool:
    """Whether there is memory left for packets of any sensible size."""
    try:
        np.empty(_SENSIBLE_PACKET_BYTES, np.uint8)  # not written to, so nothing is really taken
    except MemoryError:
        return False
    return True
