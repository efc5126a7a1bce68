"""Generated test videos whose frames show their own number.

Each frame has its number as black and white blocks, large enough to survive any codec, and a red upper left corner on
a grey ground, so that a test sees which frame it got and whether it is upright.
"""

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.indexer.hashing import BLOCK_BYTES, NUM_BLOCKS

WIDTH, HEIGHT = 128, 96
_COLUMNS, _ROWS = 4, 3
_NUM_BITS = _COLUMNS * _ROWS - 1  # the first block is the red corner
_GROUND = 110


@dataclass(frozen=True, slots=True)
class TestVideo:
    """A file and its contents."""

    __test__ = False  # not a class of tests

    path: Path
    pts_seconds: tuple[float, ...]
    """Times of frame 0, 1, 2 ... from the first one, in order."""
    width: int
    height: int
    """As shown, like the width."""
    key_frames: tuple[int, ...]
    """Numbers of the key frames."""


def draw_number(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return ``[height, width, 3]``: ``number``, 0 to 2047, in blocks, and a red upper left corner."""
    image = np.full((height, width, 3), _GROUND, np.uint8)
    for block in range(_COLUMNS * _ROWS):
        rows, columns = _block(block, height, width)
        white = number >> (block - 1) & 1 if block else 0
        image[rows, columns] = (220, 30, 30) if block == 0 else (255 if white else 0)
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """Return the number in a decoded, upright frame; AssertionError if its upper left corner is not red."""
    height, width = image.shape[:2]
    corner = _middle(image, 0, height, width)
    assert corner[0] > max(corner[1], corner[2]) + 60, f"no red corner: {corner}"
    bits = [_middle(image, block, height, width).mean() > 128 for block in range(1, _NUM_BITS + 1)]
    return sum(1 << index for index, bit in enumerate(bits) if bit)


def write_video(
    path: Path,
    *,
    num_frames: int = 30,
    fps: Fraction | int = 30,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    group: int = 12,
    rotation: int = 0,
    flip: bool = False,
    pixel_aspect: Fraction | None = None,
    with_audio: bool = False,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> TestVideo:
    """Write frames 0, 1, 2 ... at ``pts`` in units of ``time_base``, or at a constant ``fps``.

    Args:
        path: its ending chooses the container unless ``container_format`` is given.
        size: (width, height) of the frames as they are stored.
        group: frames from one key frame to the next.
        rotation: degrees, counter-clockwise, by which a player has to turn the stored frame; it is drawn turned the
            other way, so that it is upright when shown.
        flip: the player also has to exchange left and right.
        pixel_aspect: ratio of width to height of a pixel.
        with_audio: there is silence from 0 to the end of the last frame.

    The test is skipped if this build of PyAV cannot write the codec.
    """
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV cannot write {codec}")
    base = time_base or 1 / Fraction(fps)
    stamps = list(range(num_frames)) if pts is None else list(pts)
    with av.open(
        str(path), "w", options=container_options or {}, format=container_format
    ) as output:
        stream: Any = output.add_stream(
            codec, rate=Fraction(fps), options=_fixed_groups(codec, options)
        )
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = base
        stream.codec_context.gop_size = group
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation or flip:
            stream.set_display_rotation(rotation, hflip=flip)
        audio = output.add_stream("aac", rate=8000, layout="mono") if with_audio else None
        sounded = 0.0  # seconds of audio so far
        for number, stamp in enumerate(stamps):
            shown = size[::-1] if rotation % 180 else size
            image = np.fliplr(draw_number(number, *shown)) if flip else draw_number(number, *shown)
            image = np.ascontiguousarray(np.rot90(image, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, base
            if audio is not None:  # up to this frame: tracks alternate in the file
                _write_silence(output, audio, sounded, float(stamp * base))
                sounded = float(stamp * base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if audio is not None:
            _write_silence(output, audio, sounded, sounded + float(base))
            output.mux(audio.encode())
    if codec == "libsvtav1" and sys.platform == "linux":
        # as root it makes this process a real-time one, before which all others of the machine must wait
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    width, height = size
    if pixel_aspect is not None:
        width = round(width * pixel_aspect)
    if rotation % 180:
        width, height = height, width
    seconds = tuple(float((stamp - stamps[0]) * base) for stamp in stamps)
    return TestVideo(path, seconds, width, height, tuple(range(0, len(stamps), group)))


def write_audio(path: Path, *, cover: bool = False) -> Path:
    """Write a file without video: a second of silence and, if asked, a cover image."""
    with av.open(str(path), "w") as output:
        audio = output.add_stream("aac", rate=8000, layout="mono")
        image: Any = None
        if cover:
            image = output.add_stream("mjpeg", rate=1)
            image.width, image.height, image.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            image.disposition = av.stream.Disposition.attached_pic
        _write_silence(output, audio, 0.0, 1.0)
        output.mux(audio.encode())
        if cover:
            encode_images(output, image, [draw_number(1)])
    return path


def write_garbage(path: Path) -> Path:
    """Write a file that is neither a video nor text."""
    path.write_bytes(b"\0no video" * 100)
    return path


def write_images(
    path: Path,
    images: Iterable[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    fps: int = 10,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write ``[height, width, 3]`` images of one size at a constant rate."""
    images = iter(images)
    first = next(images)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixel_format
        encode_images(output, stream, itertools.chain([first], images))
    return path


def write_noise(path: Path) -> Path:
    """Write a video of 1.9 MB, of which a fast hash reads only a part."""
    images = np.random.default_rng(0).integers(0, 256, (60, 180, 320, 3), np.uint8)
    return write_images(path, images, options={"preset": "veryfast", "g": "5"})


def between_samples(data: bytes, *, first: int = 4, last: int = 9) -> bytes:
    """Return the bytes of a file with zeros in some of the stretches that a fast hash does not read."""
    starts = [
        number * (len(data) - BLOCK_BYTES) // (NUM_BLOCKS - 1) for number in range(NUM_BLOCKS)
    ]
    holed = bytearray(data)
    for number in range(first, last + 1):
        start, end = starts[number] + BLOCK_BYTES, starts[number + 1]
        holed[start:end] = bytes(end - start)
    return bytes(holed)


def encode_images(output: Any, stream: Any, images: Iterable[NDArray[np.uint8]]) -> None:
    """Encode all frames of a video stream into an open container."""
    for number, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = number
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def _write_silence(output: Any, stream: Any, start_seconds: float, end_seconds: float) -> None:
    """Encode silence, mono at 8000 Hz, into an open container: the packets that begin in a span."""
    first, last = (-(-round(seconds * 8000) // 1024) for seconds in (start_seconds, end_seconds))
    for number in range(first, last):
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, number * 1024
        output.mux(stream.encode(frame))


def cut(source: Path, target: Path, share: float) -> Path:
    """Write the first ``share`` of the bytes of ``source``, as an interrupted copy does."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def _fixed_groups(codec: str, options: dict[str, str] | None) -> dict[str, str]:
    """Options that keep encoders from adding key frames at the hard cuts between our frames."""
    defaults = {
        "libx264": {"sc_threshold": "0", "preset": "veryfast"},
        "libx265": {"x265-params": "scenecut=0:log-level=none", "preset": "ultrafast"},
        "libsvtav1": {"preset": "12", "svtav1-params": "scd=0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    }
    return {**defaults.get(codec, {}), **(options or {})}


def _block(index: int, height: int, width: int) -> tuple[slice, slice]:
    row, column = divmod(index, _COLUMNS)
    rows = slice(row * height // _ROWS + 2, (row + 1) * height // _ROWS - 2)
    return rows, slice(column * width // _COLUMNS + 2, (column + 1) * width // _COLUMNS - 2)


def _middle(image: NDArray[np.uint8], index: int, height: int, width: int) -> NDArray[np.float64]:
    """Mean colour of the inner part of a block."""
    rows, columns = _block(index, height, width)
    inner = image[rows, columns]
    border_y, border_x = inner.shape[0] // 4, inner.shape[1] // 4
    return np.asarray(inner[border_y:-border_y, border_x:-border_x].mean(axis=(0, 1)), np.float64)
