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

from scanonce.media.container import Geometry, open_container
from scanonce.media.seek import MAX_ERRORS_IN_A_ROW, SEEKABLE, Reader, Shown, Ticker, cut, thin

_TICKS = 90_000  # per second, in what is written


_AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)


_SOUND_JITTER_SECONDS = 0.02


_PROXY_MAX_FPS = 30.0


def _upright(frame: VideoFrame, geometry: Geometry, width: int, height: int) -> VideoFrame:
    """The frame as it is shown, ``height x width`` and 8 bit; its colours keep their matrix."""
    stored = (height, width) if geometry.transpose else (width, height)
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0", "p2", "p4"))
    limited = frame.reformat(
        *stored,
        format="yuv420p",
        interpolation="BICUBIC",
        dst_colorspace=None if is_yuv else "ITU709",
        dst_color_range="MPEG",
    )
    if not (geometry.transpose or geometry.flip_x or geometry.flip_y):
        return limited
    data = limited.to_ndarray().reshape(-1)
    areas = (stored[0] * stored[1], stored[0] * stored[1] // 4)
    y, u, v = np.split(data, (areas[0], areas[0] + areas[1]))
    planes = [y.reshape(stored[1], stored[0])]
    planes += [plane.reshape(stored[1] // 2, stored[0] // 2) for plane in (u, v)]
    turned = [_turn(plane, geometry).reshape(-1) for plane in planes]
    upright = np.concatenate(turned).reshape(height * 3 // 2, width)
    result = VideoFrame.from_ndarray(np.ascontiguousarray(upright), format="yuv420p")
    result.colorspace, result.color_range = limited.colorspace, limited.color_range
    return result


def _turn(plane: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    if geometry.transpose:
        plane = plane.T
    if geometry.flip_x:
        plane = plane[:, ::-1]
    return plane[::-1] if geometry.flip_y else plane


def find_sound(container: InputContainer) -> AudioStream | None:
    best = container.streams.best("audio")
    if isinstance(best, AudioStream) and best.codec_context is not None:
        usable = best.codec_context.sample_rate and best.codec_context.layout.nb_channels
        return best if usable else None
    return None


class _Sound:
    """The sound of a cut as samples without gaps: where the file has none there is silence."""

    def __init__(self, path: Path, tick: Ticker, start_seconds: float, end_seconds: float) -> None:
        """Times are those of the container; a file of its own, so that pictures need not wait."""
        self._tick = tick
        self._start = start_seconds
        self._container = open_container(path)
        self.stream = find_sound(self._container)
        self.rate, self.layout, self.num_channels = 48_000, "stereo", 2
        self.num_given = 0
        if self.stream is None:
            return
        context = self.stream.codec_context
        if context.layout.nb_channels == 1:
            self.layout, self.num_channels = "mono", 1
        if context.sample_rate in _AAC_RATES:
            self.rate = context.sample_rate
        length = end_seconds - start_seconds
        self._num_wanted = math.inf if math.isinf(length) else round(length * self.rate)
        if start_seconds > 1.0 and self._container.format.name.startswith(SEEKABLE):
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(round((start_seconds - 1.0) * av.time_base))

    def close(self) -> None:
        self._container.close()

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """``[num_channels, num_samples]``, one after another."""
        for seconds, samples in self._resampled():
            index = self.num_given
            if seconds is not None:
                index = round((seconds - self._start) * self.rate)
            late = index - self.num_given
            if self.num_given and abs(late) <= _SOUND_JITTER_SECONDS * self.rate:
                late = 0
            if late > 0:
                yield from self._silence(late)
            kept = samples[:, max(0, -late) :]
            kept = kept[:, : int(min(kept.shape[1], self._num_wanted - self.num_given))]
            if kept.shape[1]:
                self.num_given += kept.shape[1]
                yield kept
            if self.num_given >= self._num_wanted:
                return

    def _silence(self, count: int) -> Iterator[NDArray[np.float32]]:
        count = int(min(count, self._num_wanted - self.num_given))
        while count > 0:
            part = min(count, self.rate)
            self.num_given += part
            count -= part
            yield np.zeros((self.num_channels, part), np.float32)

    def _resampled(self) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
        resampler: AudioResampler | None = None
        form: tuple[Any, ...] = ()
        for frame in itertools.chain(self._decoded(), [None]):
            if frame is not None:
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

    def _decoded(self) -> Iterator[AudioFrame]:
        assert self.stream is not None
        num_errors = 0
        while num_errors < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self._container.demux(self.stream):
                    try:
                        frames = self.stream.codec_context.decode(packet if packet.size else None)
                    except av.FFmpegError:
                        num_errors += 1
                        continue
                    for frame in frames:
                        num_errors = 0
                        self._tick()
                        yield frame
                return
            except av.FFmpegError:
                num_errors += 1


@dataclass(frozen=True, slots=True)
class _Quality:
    """How an mp4 is written."""

    crf: int
    preset: str
    sound_bits: int
    max_short_side: int | None = None
    max_fps: float | None = None


CLIP = _Quality(crf=18, preset="veryfast", sound_bits=160_000)


PROXY = _Quality(crf=27, preset="superfast", sound_bits=96_000, max_fps=_PROXY_MAX_FPS)


def encode(
    source: Path, out: Path, quality: _Quality, start: float, end: float, tick: Ticker
) -> None:
    """Writes ``[start, end)``: pictures in order, and after each the sound up to it."""
    reader = Reader(source, tick)
    frames = reader.frames(start)
    if quality.max_fps is not None:
        frames = thin(frames, quality.max_fps)
    pictures = cut(frames, start, end, reader.step_seconds)
    picture = next(pictures)
    zero = reader.origin_seconds
    sound = _Sound(source, tick, zero + start, zero + end)
    writer = _Writer(out, picture.frame, reader, sound, quality)
    chunks = sound.chunks() if sound.stream is not None else iter(())
    for shown in itertools.chain([picture], pictures):
        writer.add_picture(shown)
        tick.done_seconds = shown.end_seconds
        while sound.num_given < shown.end_seconds * sound.rate:
            chunk = next(chunks, None)
            if chunk is None:
                break
            writer.add_sound(chunk)
    writer.close()
    sound.close()
    reader.close()


class _Writer:
    """An mp4 in the making."""

    def __init__(
        self, out: Path, first: VideoFrame, reader: Reader, sound: _Sound, quality: _Quality
    ) -> None:
        self._geometry = Geometry.of(first, reader.stream, None)
        width, height = self._geometry.width, self._geometry.height
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
        converted = _upright(first, self._geometry, *self._size)
        context = self._video.codec_context
        context.colorspace, context.color_range = converted.colorspace, 1
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        self._durations: dict[int, int] = {}
        self._last_pts = -1
        self._audio: Any = None
        self._pending: list[NDArray[np.float32]] = []
        self._num_pending = 0
        self._num_written = 0
        self._sound_rate, self._sound_layout = sound.rate, sound.layout
        if sound.stream is not None:
            self._audio = self._output.add_stream("aac", rate=sound.rate, layout=sound.layout)
            self._audio.codec_context.bit_rate = quality.sound_bits * sound.num_channels // 2

    def add_picture(self, shown: Shown) -> None:
        """The next frame."""
        frame = _upright(shown.frame, self._geometry, *self._size)
        frame.pts = max(self._last_pts + 1, round(shown.start_seconds * _TICKS))
        frame.time_base = Fraction(1, _TICKS)
        self._last_pts = frame.pts
        self._durations[frame.pts] = max(1, round(shown.end_seconds * _TICKS) - frame.pts)
        self._mux_pictures(self._video.encode(frame))

    def add_sound(self, samples: NDArray[np.float32]) -> None:
        """The next samples, ``[num_channels, num_samples]``; AAC takes 1024 at a time."""
        self._pending.append(samples)
        self._num_pending += samples.shape[1]
        if self._num_pending >= 1024:
            joined = np.concatenate(self._pending, axis=1)
            whole = self._num_pending // 1024 * 1024
            for start in range(0, whole, 1024):
                self._encode_sound(joined[:, start : start + 1024])
            self._pending = [joined[:, whole:]]
            self._num_pending -= whole

    def close(self) -> None:
        """Writes what is left, and the index before everything."""
        self._mux_pictures(self._video.encode())
        if self._audio is not None:
            if self._num_pending:
                self._encode_sound(np.concatenate(self._pending, axis=1))
            self._output.mux(self._audio.encode())
        self._output.close()

    def _mux_pictures(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(cast(int, packet.pts), packet.duration)
            self._output.mux(packet)

    def _encode_sound(self, samples: NDArray[np.float32]) -> None:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._sound_layout
        )
        frame.sample_rate = self._sound_rate
        frame.pts, frame.time_base = self._num_written, Fraction(1, self._sound_rate)
        self._num_written += samples.shape[1]
        self._output.mux(self._audio.encode(frame))


def _even(length: float) -> int:
    """H.264 with 4:2:0 has even sides: 321 becomes 320."""
    return max(2, 2 * int(round(length) // 2))
