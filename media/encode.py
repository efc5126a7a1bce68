"""Frames and audio of a video written as H.264 and AAC in an mp4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from scanonce.media.audio import Audio
from scanonce.media.filters import deinterlaced
from scanonce.media.geometry import Geometry
from scanonce.media.render import Renderer
from scanonce.media.seek import Reader, Shown, Ticker, cut, thin

_TICKS = 90_000  # per second, in the output


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of an mp4."""

    crf: int
    preset: str
    audio_bits: int
    """Bits per second of stereo; mono has half of them."""
    max_short_side: int | None = None
    max_fps: float | None = None


CLIP = Quality(crf=18, preset="veryfast", audio_bits=160_000)
PROXY = Quality(crf=27, preset="superfast", audio_bits=96_000, max_fps=30.0)


def encode(
    source: Path, out: Path, quality: Quality, start: float, end: float, tick: Ticker
) -> None:
    """Write ``[start, end)`` in seconds: frames in order, and after each the audio up to it."""
    reader = Reader(source, tick)
    frames = deinterlaced(reader.frames(start))
    if quality.max_fps is not None:
        frames = thin(frames, quality.max_fps)
    shown_frames = cut(frames, start, end, reader.step_seconds)
    first = next(shown_frames)
    audio = Audio(source, tick, reader.entry(start), end - start)
    writer = _Writer(out, first.frame, reader, audio, quality)
    chunks = audio.chunks() if audio.stream is not None else iter(())
    for shown in itertools.chain([first], shown_frames):
        writer.add_frame(shown)
        tick.done_seconds = shown.end_seconds
        while audio.num_yielded < shown.end_seconds * audio.rate:
            chunk = next(chunks, None)
            if chunk is None:
                break
            writer.add_audio(chunk)
    writer.close()
    audio.close()
    reader.close()


class _Writer:
    """An mp4 that is being written."""

    def __init__(
        self, out: Path, first: VideoFrame, reader: Reader, audio: Audio, quality: Quality
    ) -> None:
        geometry = Geometry.of(first, reader.stream, None)
        self._renderer = Renderer(geometry, threads=0)
        width, height = geometry.width, geometry.height
        scale = min(1.0, (quality.max_short_side or math.inf) / min(width, height))
        self._size = (_even(width * scale), _even(height * scale))
        self._output = av.open(f"file:{out}", "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(1 / reader.step_seconds).limit_denominator(1001)
        options = {"crf": str(quality.crf), "preset": quality.preset, "bf": "0"}
        self._video: Any = self._output.add_stream(
            "libx264", rate=min(max(rate, Fraction(1)), Fraction(120)), options=options
        )
        self._video.width, self._video.height = self._size
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = Fraction(1, _TICKS)
        self._video.codec_context.gop_size = max(12, min(250, round(2 * rate)))  # two seconds
        converted = self._renderer.yuv420(first, *self._size)
        context = self._video.codec_context
        context.colorspace, context.color_range = converted.colorspace, 1
        context.color_primaries = converted.color_primaries
        context.color_trc = converted.color_trc
        self._durations: dict[int, int] = {}
        self._last_pts = -1
        self._audio: Any = None
        self._pending: list[NDArray[np.float32]] = []
        self._num_pending = 0
        self._num_written = 0
        self._rate, self._layout = audio.rate, audio.layout
        if audio.stream is not None:
            self._audio = self._output.add_stream("aac", rate=audio.rate, layout=audio.layout)
            self._audio.codec_context.bit_rate = quality.audio_bits * audio.num_channels // 2

    def add_frame(self, shown: Shown) -> None:
        """Write the next frame."""
        frame = self._renderer.yuv420(shown.frame, *self._size)
        frame.pts = max(self._last_pts + 1, round(shown.start_seconds * _TICKS))
        frame.time_base = Fraction(1, _TICKS)
        self._last_pts = frame.pts
        self._durations[frame.pts] = max(1, round(shown.end_seconds * _TICKS) - frame.pts)
        self._mux_frames(self._video.encode(frame))

    def add_audio(self, samples: NDArray[np.float32]) -> None:
        """Write the next samples, ``[num_channels, num_samples]``; AAC takes 1024 at a time."""
        self._pending.append(samples)
        self._num_pending += samples.shape[1]
        if self._num_pending >= 1024:
            joined = np.concatenate(self._pending, axis=1)
            whole = self._num_pending // 1024 * 1024
            for start in range(0, whole, 1024):
                self._encode_audio(joined[:, start : start + 1024])
            self._pending = [joined[:, whole:]]
            self._num_pending -= whole

    def close(self) -> None:
        """Write the rest, and move the index to the beginning."""
        self._mux_frames(self._video.encode())
        if self._audio is not None:
            if self._num_pending:
                self._encode_audio(np.concatenate(self._pending, axis=1))
            self._output.mux(self._audio.encode())
        self._output.close()

    def _mux_frames(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(cast(int, packet.pts), packet.duration)
            self._output.mux(packet)

    def _encode_audio(self, samples: NDArray[np.float32]) -> None:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._layout
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._num_written, Fraction(1, self._rate)
        self._num_written += samples.shape[1]
        self._output.mux(self._audio.encode(frame))


def _even(length: float) -> int:
    """H.264 with 4:2:0 has even sides: 321 becomes 320."""
    return max(2, 2 * int(round(length) // 2))
