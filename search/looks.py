"""Whether two thumbnails are of one picture, in other light, size or with bars around it, and not of its mirror image.

An encoder knows the contents of a picture. Two different pictures with the same contents, and a picture and its mirror
image, are about alike to it; their grey levels are not.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Look = NDArray[np.float32]
"""``[18, 32]`` grey levels with mean 0 and standard deviation 1."""

_SIZE = 32, 18
_LARGEST = 1024
"""Pixels along a side; thumbnails have fewer (`indexer.settings`)."""
_BLACK, _FLAT = 24.0, 6.0
"""Grey levels, 0 to 255, that a bar has at most, and standard deviation under which a picture has no features."""


def look_of(jpeg: bytes) -> Look | None:
    """Return the look of a thumbnail; None if it cannot be read, or is of one colour."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) > _LARGEST:
                return None
            grey = np.asarray(image.convert("L"), np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return normalised(without_bars(grey))


def without_bars(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture without black bars at opposite edges; unchanged if it is black all over.

    Args:
        grey: ``[height, width]`` grey levels, 0 to 255.
    """
    for axis in (1, 0):
        bright = np.flatnonzero(np.quantile(grey, 0.95, axis=axis) > _BLACK)
        if not len(bright):
            return grey
        bar = min(int(bright[0]), grey.shape[1 - axis] - 1 - int(bright[-1]))
        grey = grey[bar : grey.shape[0] - bar] if axis else grey[:, bar : grey.shape[1] - bar]
    return grey


def normalised(grey: NDArray[np.float32]) -> Look | None:
    """Return grey levels ``[height, width]`` in one size, mean 0 and deviation 1; None if the picture is flat."""
    small = np.asarray(Image.fromarray(grey).resize(_SIZE, Image.Resampling.BOX), np.float32)
    deviation = float(small.std())
    if deviation < _FLAT:
        return None
    look: Look = (small - small.mean()) / deviation
    return look


def is_same_picture(pairs: Sequence[tuple[Look, Look]], least: float) -> bool:
    """Whether pairs of looks are of the same pictures, the right way round.

    Args:
        pairs: at least one.
        least: correlation that they have on average.
    """
    straight, mirrored = correlations(pairs)
    return straight >= max(least, mirrored)


def correlations(pairs: Sequence[tuple[Look, Look]]) -> tuple[float, float]:
    """Return the mean correlation of the pairs, and that of the pairs with one of the two mirrored."""
    straight = float(np.mean([(one * other).mean() for one, other in pairs]))
    mirrored = float(np.mean([(one * other[:, ::-1]).mean() for one, other in pairs]))
    return straight, mirrored
