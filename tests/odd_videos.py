"""Odd videos: HDR, cropped by the container, interlaced, with a clock of their own."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from numpy.typing import NDArray
from PIL import Image

from scanonce.media.filters import FrameFilter
from tests.videos import HEIGHT, WIDTH, draw_number, encode_images

FPS = 10
"""Frames a second of `write_numbers`."""

Transfer = Literal["pq", "hlg"]

_FROM_BT709 = np.array(  # BT.2087
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_TAGS = {"pq": ColorTrc.SMPTE2084, "hlg": ColorTrc.ARIB_STD_B67}
_CROP_IDS = {"left": 0x54CC, "top": 0x54BB, "right": 0x54DD, "bottom": 0x54AA}


def pq_codes(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return codes in [0, 1] of light in cd/m2 (SMPTE ST 2084)."""
    power = (nits / 10_000) ** (2610 / 16384)
    return np.asarray(
        ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    )


def hlg_codes(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return codes in [0, 1] for ``[..., 3]`` light of a screen of 1,000 cd/m2 (BT.2100)."""
    screen = nits / 1000
    luma = np.maximum(screen @ _LUMA_2020, 1e-12)[..., None]
    scene = screen * luma ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    upper = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.asarray(np.clip(np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper), 0, 1))


def as_hdr(image: NDArray[np.uint8], transfer: Transfer) -> NDArray[np.uint16]:
    """Return ``[height, width, 3]`` HDR codes, 16 bit, of an SDR image whose white is 203 cd/m2 (BT.2408)."""
    nits = 203 * (image / 255) ** 2.4 @ _FROM_BT709.T
    codes = pq_codes(nits) if transfer == "pq" else hlg_codes(nits)
    return np.round(codes * 65535).astype(np.uint16)


def write_hdr(
    path: Path,
    images: Iterable[NDArray[np.uint16]],
    transfer: Transfer,
    *,
    codec: str = "libx265",
    fps: int = 2,
) -> Path:
    """Write HDR codes, ``[height, width, 3]``, as 10 bit video of BT.2020 primaries, tagged."""
    options = {"x265-params": "log-level=none", "crf": "12"} if codec == "libx265" else {}
    first, *others = images
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = _TAGS[transfer], ColorPrimaries.BT2020
        context.colorspace, context.color_range = Colorspace.BT2020, 1
        for number, codes in enumerate([first, *others]):
            frame = av.VideoFrame.from_ndarray(codes, format="rgb48le").reformat(
                format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range="MPEG"
            )
            frame.color_trc, frame.color_primaries = _TAGS[transfer], ColorPrimaries.BT2020
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def crop_matroska(path: Path, side: str, pixels: int) -> None:
    """Have a Matroska file cut up to 127 ``pixels`` off the left, top, right or bottom."""
    unit, crop = b"\x54\xb2\x81\x04", struct.pack(">HBB", _CROP_IDS[side], 0x81, pixels)
    data = path.read_bytes()
    assert data.count(unit) == 1  # an element of the same length, which says nothing
    path.write_bytes(data.replace(unit, crop))


def crop_mov(path: Path, left: int, top: int, right: int, bottom: int) -> None:
    """Add ``clap``, the clean aperture, to an H.264 track of `WIDTH` x `HEIGHT` whose index is behind the frames."""
    data = bytearray(path.read_bytes())
    offsets = (right - left, bottom - top)  # of the centre, in halves, to the left and up
    numbers = (WIDTH - left - right, 1, HEIGHT - top - bottom, 1, -offsets[0], 2, -offsets[1], 2)
    start, end = 0, len(data)
    parents = []
    header_bytes = {b"stsd": 16, b"avc1": 86}
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        while bytes(data[start + 4 : start + 8]) != name:
            start += int.from_bytes(data[start : start + 4], "big")
            assert start < end
        parents.append(start)
        end = start + int.from_bytes(data[start : start + 4], "big")
        start += header_bytes.get(name, 8)
    box = struct.pack(">I4s8i", 40, b"clap", *numbers)
    for parent in parents:
        size = int.from_bytes(data[parent : parent + 4], "big") + len(box)
        data[parent : parent + 4] = size.to_bytes(4, "big")
    data[end:end] = box
    path.write_bytes(data)


def stripes(at: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return ``[height, width, 3]``: upright white stripes on black, ``at`` pixels from the left."""
    columns = ((np.arange(width) - at) // 16 % 2 * 200 + 20).astype(np.uint8)
    return np.broadcast_to(columns[None, :, None], (height, width, 3)).copy()


def weave(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the interlaced frame of two pictures: its upper field from the first."""
    woven = first.copy()
    woven[1::2] = second[1::2]
    return woven


def combs(image: NDArray[np.uint8]) -> float:
    """Return how much rows differ from their neighbours: 0 for `stripes`, tens for woven ones that moved."""
    return float(np.abs(np.diff(image.astype(np.float64), axis=0)).mean())


def write_interlaced(
    path: Path, images: Sequence[NDArray[np.uint8]], *, codec: str = "mpeg2video", fps: int = 25
) -> Path:
    """Write woven frames, marked as interlaced, upper field first."""
    options = {
        "mpeg2video": {"flags": "+ilme+ildct", "qscale": "2", "g": "12"},
        "libx264": {"x264-params": "tff=1:log=-1", "flags": "+ilme+ildct", "crf": "10", "bf": "0"},
    }
    mark = FrameFilter(("setfield", "tff"))
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options[codec])
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame = mark(frame)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_numbers(
    path: Path,
    numbers: Sequence[int],
    *,
    clock_seconds: float = 0.0,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: int = FPS,
    group: int = 20,
) -> Path:
    """Write numbered frames whose clock begins at ``clock_seconds``, with a key frame every ``group`` frames."""
    kind = "ogg" if path.suffix == ".ogv" else None
    with av.open(str(path), "w", format=kind) as output:
        stream: Any = output.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.gop_size = group
        first = round(clock_seconds * fps)
        for index, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
            frame.pts, frame.time_base = first + index, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def write_with_still(path: Path, num_frames: int, disposition: Disposition) -> Path:
    """Write numbered frames behind a larger track of one image, number 7, that is not marked as a cover."""
    with av.open(str(path), "w") as output:
        still: Any = output.add_stream("mjpeg", rate=FPS)
        still.width, still.height, still.pix_fmt = 512, 384, "yuvj420p"
        still.disposition = disposition
        moving: Any = output.add_stream("libx264", rate=FPS)
        moving.width, moving.height, moving.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        encode_images(output, still, [draw_number(7, 512, 384)])
        encode_images(output, moving, map(draw_number, range(num_frames)))
    return path


def image_in(jpeg: bytes) -> NDArray[np.uint8]:
    """Return ``[height, width, 3]``."""
    return np.asarray(Image.open(io.BytesIO(jpeg)))
