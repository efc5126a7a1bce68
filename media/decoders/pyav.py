"""Decoding with PyAV, the default back end.

Frames that the sampling does not request are not decoded if the file allows it: frames that no other refers to, and the
rest of a group of frames once nothing in it is wanted any more. The sampled frames are the same as of full decoding.
"""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self, cast

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.clock import Clock
from scanonce.media.container import (
    describe,
    describe_early_end,
    packet_end_seconds,
    start_offset_seconds,
    stated_end_seconds,
)
from scanonce.media.geometry import Geometry
from scanonce.media.planner import Planner
from scanonce.media.render import Renderer
from scanonce.media.sampling import SampledFrame, Sampler, Sampling
from scanonce.media.stream import StreamDecoder
from scanonce.storage.errors import UnreadableVideo


class PyAVSource:
    """`media.sampling.FrameSource` by PyAV."""

    def __init__(
        self, path: Path, sampling: Sampling, threads: int, min_short_side: int | None
    ) -> None:
        """As `media.open.open_video`."""
        self._sampling = sampling
        self._read_end_seconds = -math.inf
        self._decoder = StreamDecoder.of_video(path, threads)
        try:
            container, stream = self._decoder.container, self._decoder.stream
            # for key frames alone, the order of decoding is that of showing
            by_dts = self._decoder.orders_by_dts and sampling.mode == "uniform"
            self._clock = Clock(stream, by_dts)
            self._planner = Planner(sampling, container, stream, self._clock)
            self._decoder.on_error = self._planner.stop_skipping
            self._decoded = self._decode()
            self._first = self._first_frame()
            geometry = Geometry.of(self._first[1], stream, min_short_side)
        except BaseException:
            self.close()
            raise
        offset = start_offset_seconds(container, stream, self._first[1])
        self.info = replace(describe(container, stream, geometry), offset_seconds=offset)
        self._renderer = Renderer(geometry)
        self._stated_end_seconds = stated_end_seconds(container)

    @property
    def problem(self) -> str | None:
        """See `media.sampling.FrameSource`."""
        reasons = []
        if self._decoder.num_errors:
            reasons.append(f"{self._decoder.num_errors} damaged piece(s) could not be decoded")
        if self._decoder.gave_up:
            reasons.append("the rest was given up after too many errors in a row")
        if self._decoder.is_read_whole or self._decoder.gave_up:  # else the caller stopped early
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
        num_yielded = 0
        for seconds, frame in self._answers():
            try:
                image = self._renderer.image(frame)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                self._decoder.count_error()
                continue
            num_yielded += 1
            yield SampledFrame(seconds, image)
        if not num_yielded:
            raise UnreadableVideo(
                "its frames have a format that cannot be converted: transcode it to H.264"
            )

    def close(self) -> None:
        """See `media.sampling.FrameSource`."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` of the sampled frames."""
        sampler: Sampler[VideoFrame] = Sampler(self._sampling)
        for seconds, frame in itertools.chain([self._first], self._decoded):
            if self._is_candidate(seconds, frame) and (answer := sampler.add(seconds, frame)):
                yield answer
        if answer := sampler.finish(self.end_seconds):
            yield answer

    def _is_candidate(self, seconds: float, frame: VideoFrame) -> bool:
        return self._sampling.mode == "uniform" or frame.key_frame or seconds == 0.0

    def _first_frame(self) -> tuple[float, VideoFrame]:
        """Decode everything until a frame comes out: its time is the origin of all times."""
        first = next(self._decoded, None)
        if first is None:
            raise self._decoder.describe_no_frame()
        self._planner.start(first[1])
        return first

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` of all frames that have to be decoded, in order of time."""
        context = self._decoder.stream.codec_context
        for step in self._planner.plan(self._packets()):
            if step.after_gap:
                yield from self._decode_packet(None)
                context.flush_buffers()
            context.skip_frame = "DEFAULT" if step.wanted else "NONREF"
            yield from self._decode_packet(step.packet)
            if self._decoder.gave_up:
                break
        yield from self._decode_packet(None)

    def _decode_packet(
        self, packet: Packet[VideoStream] | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        for frame in self._decoder.decode(packet):
            yield self._clock.frame_seconds(frame), frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the video; those of other streams only show how far the file goes."""
        for packet in self._decoder.packets():
            if packet.size == 0:  # the end of a stream
                continue
            self._read_end_seconds = max(self._read_end_seconds, packet_end_seconds(packet))
            if packet.stream_index == self._decoder.stream.index:
                yield cast("Packet[VideoStream]", packet)
