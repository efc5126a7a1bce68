"""Generated test videos whose frames tell their own number.

Each picture carries its number as black and white blocks, large enough to survive any codec, and a red upper left
corner on a grey ground, so that a test sees which frame it got and which way up it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 128, 96
_COLUMNS, _ROWS = 4, 3
_NUM_BITS = _COLUMNS * _ROWS - 1  # the first block is the red corner
_GROUND = 110


@dataclass(frozen=True, slots=True)
class TestVideo:
    """A file and what is in it."""

    __test__ = False  # not a class of tests

    path: Path
    pts_seconds: tuple[float, ...]
    """Of frame 0, 1, 2 ... from the first one, in order."""
    width: int
    height: int
    """As shown."""
    key_frames: tuple[int, ...] | None = None
    """Numbers of the frames that are stored whole, where they were forced."""


def draw_number(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """``[height, width, 3]``: ``number``, 0 to 2047, in blocks, and a red upper left corner."""
    image = np.full((height, width, 3), _GROUND, np.uint8)
    for block in range(_COLUMNS * _ROWS):
        rows, columns = _block(block, height, width)
        white = number >> (block - 1) & 1 if block else 0
        image[rows, columns] = (220, 30, 30) if block == 0 else (255 if white else 0)
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """The number in a decoded, upright picture; AssertionError where its corner is not the red one."""
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
    with_sound: bool = False,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> TestVideo:
    """Writes frames 0, 1, 2 ... at ``pts`` in units of ``time_base``, or at a constant ``fps``.

    Args:
        path: its ending chooses the container unless ``container_format`` is given.
        size: (width, height) of the pictures as they are stored.
        group: frames from one key picture to the next.
        rotation: degrees, counter-clockwise, by which a player has to turn the stored picture; the stored picture is
            drawn turned the other way, so that it is upright when shown.
        flip: the player also has to exchange left and right.
        pixel_aspect: width of a pixel to its height.
    """
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
        sound = output.add_stream("aac", rate=8000, layout="mono") if with_sound else None
        for number, stamp in enumerate(stamps):
            shown = size[::-1] if rotation % 180 else size
            image = np.fliplr(draw_number(number, *shown)) if flip else draw_number(number, *shown)
            image = np.ascontiguousarray(np.rot90(image, -rotation // 90))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound is not None:
            write_silence(output, sound, seconds=float((stamps[-1] + 1 - stamps[0]) * base))
    width, height = size
    if pixel_aspect is not None:
        width = round(width * pixel_aspect)
    if rotation % 180:
        width, height = height, width
    seconds = tuple(float((stamp - stamps[0]) * base) for stamp in stamps)
    return TestVideo(path, seconds, width, height, tuple(range(0, len(stamps), group)))


def write_sound(path: Path, *, cover: bool = False, seconds: float = 1.0) -> Path:
    """A file without video: silence and, if asked, a cover picture."""
    with av.open(str(path), "w") as output:
        sound = output.add_stream("aac", rate=8000, layout="mono")
        picture: Any = None
        if cover:
            picture = output.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        write_silence(output, sound, seconds=seconds)
        if picture is not None:
            frame = av.VideoFrame.from_ndarray(draw_number(1), format="rgb24")
            frame.pts = 0
            output.mux(picture.encode(frame))
            output.mux(picture.encode())
    return path


def write_silence(output: Any, stream: Any, *, seconds: float) -> None:
    """Encodes ``seconds`` of silence, mono at 8000 Hz, into an open container."""
    for start in range(0, round(seconds * 8000), 1024):
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def has_encoder(name: str) -> bool:
    """Whether this build of PyAV can write the format."""
    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def cut(source: Path, target: Path, share: float) -> Path:
    """The first ``share`` of the bytes of ``source``, as an interrupted copy leaves them."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def _fixed_groups(codec: str, options: dict[str, str] | None) -> dict[str, str]:
    """Encoders put no key pictures of their own at the hard cuts between our pictures."""
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
