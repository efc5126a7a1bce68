"""The part of a picture that is to be shown: PixelCrop of Matroska, ``clap`` of QuickTime and MP4."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.video.stream import VideoStream

_CROPPING = ("mov", "matroska")  # demuxers
# ids of EBML elements of Matroska
_TRACK_PARTS = (0x18538067, 0x1654AE6B, 0xAE, 0xE0)  # segment, tracks, track, video
_CLUSTER = 0x1F43B675
_BOTTOM, _TOP, _LEFT, _RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD


@dataclass(frozen=True, slots=True)
class Crop:
    """Pixels at the sides of stored frames that are not shown."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any((self.left, self.top, self.right, self.bottom))


def find_crop(stream: VideoStream) -> Crop:
    """Return what the container of a video track crops; nothing if not one pixel were left.

    PyAV hands packets and frames on, but not this property of a track. FFmpeg's Matroska muxer writes it into the
    header of a file, whatever kind of file it came from, so a header without frames is written into memory and read.
    """
    if not stream.container.format.name.startswith(_CROPPING):
        return Crop()
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as output:
            output.add_stream_from_template(stream, opaque=True)
            output.start_encoding()
            written = header.getvalue()
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError):  # a codec that Matroska cannot hold
        return Crop()
    values = dict(_numbers(written, 0, len(written)))
    crop = Crop(*(values.get(side, 0) for side in (_LEFT, _TOP, _RIGHT, _BOTTOM)))
    is_sane = crop.left + crop.right < stream.width and crop.top + crop.bottom < stream.height
    return crop if is_sane else Crop()


def _numbers(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """``(id, value)`` of the elements of the video track, each read as an unsigned number."""
    while start < end:
        element, start = _vint(data, start, marked=True)
        size, start = _vint(data, start)
        stop = min(start + size, end)
        if element == _CLUSTER:
            return
        if element in _TRACK_PARTS:
            yield from _numbers(data, start, stop)
        else:
            yield element, int.from_bytes(data[start:stop], "big")
        start = stop


def _vint(data: bytes, start: int, *, marked: bool = False) -> tuple[int, int]:
    """``(value, position behind it)`` of a number whose first bits say how many bytes it has."""
    length = 9 - data[start].bit_length()
    value = int.from_bytes(data[start : start + length], "big")
    return value if marked else value & ((1 << 7 * length) - 1), start + length
