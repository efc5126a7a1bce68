"""How the frames of a video are shown: size, shape of pixels, orientation, crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.crop import Crop, find_crop
from scanonce.media.sampling import reduced_size


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a decoded frame becomes the image that is shown."""

    width: int
    """As shown: upright, square pixels."""
    height: int
    output_width: int
    """Width of the output: as shown, or reduced."""
    output_height: int
    transpose: bool
    flip_x: bool
    """Whether left and right are exchanged, after transposing."""
    flip_y: bool
    stored_size: tuple[int, int]
    """``(width, height)`` of the first decoded frame."""
    crop: Crop
    """Sides of the decoded frame that are cut off, before it is turned."""

    @property
    def is_mirrored(self) -> bool:
        """Whether no rotation makes it upright without mirroring."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    @staticmethod
    def of(frame: VideoFrame, stream: VideoStream, min_short_side: int | None) -> Geometry:
        """Geometry from the first frame and the header of the container."""
        transpose, flip_x, flip_y = _orientation(frame)
        crop = find_crop(stream)
        width = frame.width - crop.left - crop.right
        height = frame.height - crop.top - crop.bottom
        ratio = float(stream.sample_aspect_ratio or 1)
        if 0.1 < ratio < 10 and abs(ratio - 1) > 0.01:  # encoders write 224/225 to mean square
            width = max(1, round(width * ratio))
        if transpose:
            width, height = height, width
        output_width, output_height = reduced_size(width, height, min_short_side)
        return Geometry(
            width=width,
            height=height,
            output_width=output_width,
            output_height=output_height,
            transpose=transpose,
            flip_x=flip_x,
            flip_y=flip_y,
            stored_size=(frame.width, frame.height),
            crop=crop,
        )


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """``(transpose, flip_x, flip_y)`` that make a frame upright, to a quarter turn.

    The display matrix sends a point (x, y) to (a x + c y, b x + d y); its first entries are a, b, u, c, d.
    """
    side_data = cast(Any, frame.side_data)
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(a) >= abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0
