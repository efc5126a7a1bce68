"""The audio of a file as samples, however its time stamps jump."""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from scanonce.media.container import open_container
from scanonce.media.seek import SEEKABLE, Entry, Ticker
from scanonce.media.stream import StreamDecoder

_AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_AUDIO_JITTER_SECONDS = 0.02  # time stamps are rounded, in Matroska to milliseconds


def audio_tracks(container: InputContainer) -> list[AudioStream]:
    """Return the audio tracks that can be decoded: the main one, then the others in their order."""
    best = container.streams.best("audio")
    tracks = sorted(container.streams.audio, key=lambda stream: stream is not best)
    return [
        stream
        for stream in tracks
        if stream.codec_context is not None
        and stream.codec_context.sample_rate
        and stream.codec_context.layout.nb_channels
    ]


class Audio:
    """The audio of a part of a file as samples without gaps: silence fills the gaps of the file."""

    def __init__(
        self,
        path: Path,
        tick: Ticker,
        entry: Entry,
        length_seconds: float,
        *,
        number: int = 0,
        rate: int | None = None,
    ) -> None:
        """Open the file, of which a decoder of frames may have another part.

        Args:
            path: the file.
            tick: is called with every piece that is decoded.
            entry: where to begin.
            length_seconds: how long to go on; infinity: to the end.
            number: of the track among those that `audio_tracks` returns.
            rate: samples a second, of one channel. Default: those of the file that AAC has too, of up to two channels.
        """
        self._tick = tick
        self._start = entry.clock_seconds
        self._container = open_container(path)
        tracks = audio_tracks(self._container)
        self.stream = tracks[number] if number < len(tracks) else None
        self.rate, self.layout, self.num_channels = 48_000, "stereo", 2
        self.num_yielded = 0
        """Samples so far, of each channel."""
        self._decoder: StreamDecoder | None = None
        if self.stream is None:
            return
        context = self.stream.codec_context
        if context.layout.nb_channels == 1 or rate is not None:
            self.layout, self.num_channels = "mono", 1
        if rate is not None:
            self.rate = rate
        elif context.sample_rate in _AAC_RATES:
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

    @property
    def num_errors(self) -> int:
        """Number of pieces so far that could not be decoded."""
        return self._decoder.num_errors if self._decoder else 0

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
        decoder = self._decoder = StreamDecoder(self._container, self.stream)
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
