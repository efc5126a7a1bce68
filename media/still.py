"""Still images as a source of one frame: PNG, JPEG, WebP, BMP and GIF (its first image).

    with StillSource(path) as source:
        for frame in source.frames():
            frame.image             # uint8 [height, width, 3], upright by EXIF

The indexer does not use it: to it a photo is no video. It runs in guarded children only (`media.child`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, WebPImagePlugin

from scanonce.media.sampling import SampledFrame
from scanonce.storage.errors import UnreadableVideo
from scanonce.storage.records import VideoInfo

MAX_PIXELS = 120_000_000
"""Pixels of the largest image that is decoded, some 0.5 GB as RGB with alpha; phones make at most 108 million."""

_FORMATS = ("PNG", "JPEG", WebPImagePlugin.WebPImageFile.format, "BMP", "GIF")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")


def is_still(head: bytes) -> bool:
    """Whether a file that begins with these 12 bytes claims to be an image that `StillSource` reads."""
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


class StillSource:
    """`media.sampling.FrameSource` of one frame."""

    def __init__(self, path: Path) -> None:
        """Open and decode an image.

        Raises:
            UnreadableVideo: it is no such image, is damaged, or has more than `MAX_PIXELS`.
        """
        self.problem: str | None = None
        self.end_seconds = 0.0
        Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower, and warns before it refuses
        try:
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(image)
                self._image = _rgb(image)
                codec = str(image.format).lower()
        except UnidentifiedImageError:
            raise UnreadableVideo("not an image: give a PNG, JPEG, WebP, BMP or GIF file") from None
        except UnreadableVideo:
            raise
        # Pillow's readers raise errors of many kinds about a damaged file; those of the system have a number
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
            is_from_system = isinstance(error, OSError) and error.errno is not None
            raise UnreadableVideo(
                f"the image cannot be read ({error}): export or copy it again"
            ) from (error if is_from_system else None)
        height, width = self._image.shape[:2]
        self.info = VideoInfo(0.0, width, height, 0.0, codec)

    def frames(self) -> Iterator[SampledFrame]:
        """See `media.sampling.FrameSource`."""
        yield SampledFrame(0.0, self._image)

    def close(self) -> None:
        """Nothing is open any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(
            f"the image has {width} x {height} pixels; at most {MAX_PIXELS:,} are read: make it smaller"
        )


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return ``[height, width, 3]``, upright; transparent parts are white, as on a page."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: converting would cut off all but the darkest values
        return np.repeat(
            (np.asarray(upright, np.uint32) >> 8).astype(np.uint8)[..., None], 3, axis=2
        )
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(upright.convert("RGB"))
