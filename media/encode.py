"""Frames and audio of a video written as H.264 and AAC in an mp4."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from scanonce.media.container import open_container
from scanonce.media.filters import deinterlaced
from scanonce.media.geometry import Geometry
from scanonce.media.render import Renderer
from scanonce.media.seek import SEEKABLE, Entry, Reader, Shown, Ticker, cut, thin
from scanonce.media.stream import StreamDecoder

_TICKS = 90_000  # per second, in the output
_AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_AUDIO_JITTER_SECONDS = 0.02  # time stamps are rounded, in Matroska to milliseconds


def find_audio(container: InputContainer) -> AudioStream | None:
    """Return the main audio track; None if there is none that can be decoded."""
    best = container.streams.best("audio")
    if isinstance(best, AudioStream) and best.codec_context is not None:
        usable = best.codec_context.sample_rate and best.codec_context.layout.nb_channels
        return best if usable else None
    return None


class _Audio:
    """The audio of a cut as samples without gaps: silence fills the gaps of the file."""

    def __init__(self, path: Path, tick: Ticker, entry: Entry, length_seconds: float) -> None:
        """Open the file a second time, so that frames need not wait."""
        self._tick = tick
        self._start = entry.clock_seconds
        self._container = open_container(path)
        self.stream = find_audio(self._container)
        self.rate, self.layout, self.num_channels = 48_000, "stereo", 2
        self.num_yielded = 0
        """Samples so far, of each channel."""
        if self.stream is None:
            return
        context = self.stream.codec_context
        if context.layout.nb_channels == 1:
            self.layout, self.num_channels = "mono", 1
        if context.sample_rate in _AAC_RATES:
            self.rate = context.sample_rate
        endless = math.isinf(length_seconds)
        self._num_wanted = math.inf if endless else round(length_seconds * self.rate)
        self._seek(entry)

    def _seek(self, entry: Entry) -> None:
        """Go to a little before the entry; if that fails, all before it is read and dropped."""
        with contextlib.suppress(av.FFmpegError):
            if entry.position is not None:
                self._container.seek(entry.position, unsupported_byte_offset=True)
            elif self._start > 1.0 and self._container.format.name.startswith(SEEKABLE):
                self._container.seek(round((self._start - 1.0) * av.time_base))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield ``[num_channels, num_samples]``, one after another."""
        for seconds, samples in self._resampled():
            index = self.num_yielded
            if seconds is not None:
                index = round((seconds - self._start) * self.rate)
            late = index - self.num_yielded
            if self.num_yielded and abs(late) <= _AUDIO_JITTER_SECONDS * self.rate:
                late = 0
            if late > 0:
                yield from self._silence(late)
            kept = samples[:, max(0, -late) :]
            kept = kept[:, : int(min(kept.shape[1], self._num_wanted - self.num_yielded))]
            if kept.shape[1]:
                self.num_yielded += kept.shape[1]
                yield kept
            if self.num_yielded >= self._num_wanted:
                return

    def _silence(self, count: int) -> Iterator[NDArray[np.float32]]:
        count = int(min(count, self._num_wanted - self.num_yielded))
        while count > 0:
            self._tick()  # hours of it are encoded without a frame
            part = min(count, self.rate)
            self.num_yielded += part
            count -= part
            yield np.zeros((self.num_channels, part), np.float32)

    def _resampled(self) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
        """``(seconds, samples)`` at our rate; the format of the file may change in the middle."""
        resampler: AudioResampler | None = None
        form: tuple[Any, ...] = ()
        decoder = StreamDecoder(self._container, self.stream)
        for frame in itertools.chain(decoder.frames(), [None]):  # None flushes the resampler
            if frame is not None:
                self._tick()
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None or now != form:
                    form = now
                    resampler = AudioResampler("fltp", self.layout, self.rate)
            if resampler is None:
                return
            try:
                parts = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                resampler = None
                continue
            for part in parts:
                seconds = None
                if part.pts is not None and part.time_base is not None:
                    seconds = float(part.pts * part.time_base)
                yield seconds, cast("NDArray[np.float32]", part.to_ndarray())


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
    audio = _Audio(source, tick, reader.entry(start), end - start)
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
        self, out: Path, first: VideoFrame, reader: Reader, audio: _Audio, quality: Quality
    ) -> None:
        geometry = Geometry.of(first, reader.stream, None)
        self._renderer = Renderer(geometry, threads=0)
        width, height = geometry.width, geometry.height
        scale = min(1.0, (quality.max_short_side or math.inf) / min(width, height))
        self._size = (_even(width * scale), _even(height * scale))
        self._output = av.open(f"file:{out}", "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(reader.stream.average_rate or 25).limit_denominator(1001)
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
