"""Where a picture has changed, cheaply: which frames of a video are worth reading for text.

    changes = Changes()
    changes.add(image)                      # the frames in order
    changes.is_worth_reading(seconds)       # and then, if it is read
    changes.note_read()

A picture is compared in blocks, at about 480 pixels across, with the one that was read last. Only blocks with strong
edges of both kinds count, from dark to light and back, in either picture: the strokes of letters have both, the outline
of a thing that moves before a fixed camera has one. A block that still moves is waited for, so that a slide is read
after its transition; what moves on is read as it moves.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH = 480  # pixels across at which pictures are compared
_BLOCK = 8  # pixels of them along a side
_CHANGED = 6.0  # mean difference of a block in levels; compression stays below 3
_EDGE = 24.0  # levels from a pixel to the next
_EDGES = 0.05  # share of such pixels in a block of text, rising and falling ones each
_LEAST_BLOCKS = 2  # a short word covers two
_MOVING_SECONDS = 2.0  # what moves for so long is read as it moves


class Changes:
    """Compares the frames of one video with the frame that was read last."""

    def __init__(self) -> None:
        self.changed_seconds: float | None = None
        """When the picture began to differ from the one that was read last; None if it does not."""
        self.since: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        """``[rows, columns]``: the time from which on each block looks as it does now, seconds."""
        self._now: _Blocks | None = None
        self._before: _Blocks | None = None
        self._read: _Blocks | None = None

    def add(self, seconds: float, image: NDArray[np.uint8]) -> None:
        """Take the next frame, ``[height, width, 3]``."""
        self._before, self._now = self._now, _Blocks(image)
        if self._before is None or self.since.shape != self._now.shape:
            self.since = np.full(self._now.shape, seconds, np.float32)
        else:
            self.since[self._now.differs(self._before)] = seconds
        if self._read is None or self._differing().sum() < _LEAST_BLOCKS:
            self.changed_seconds = None if self._read is not None else seconds
        elif self.changed_seconds is None:
            self.changed_seconds = seconds

    def is_worth_reading(self, seconds: float, *, is_last: bool = False) -> bool:
        """Whether the newest frame, or the last of the video, shows text that was not there when one was read last."""
        if self.changed_seconds is None or self._now is None:
            return False
        if self._read is None or is_last or seconds - self.changed_seconds >= _MOVING_SECONDS:
            return True
        still = ~self._now.differs(self._before) if self._before is not None else True
        return bool((self._differing() & still).sum() >= _LEAST_BLOCKS)

    def band(self) -> tuple[float, float]:
        """Return the part of the height that has changed, 0 to 1 from the top; grown to whole rows of text."""
        if self._read is None or self._now is None or self._read.shape != self._now.shape:
            return 0.0, 1.0
        changed = np.asarray(self._differing().any(axis=1))
        text = np.asarray((self._now.edges | self._read.edges).any(axis=1))
        (rows,) = np.nonzero(changed)
        if not len(rows):
            return 0.0, 1.0
        first, last = int(rows[0]), int(rows[-1]) + 1
        while first > 0 and text[first - 1]:
            first -= 1
        while last < len(text) and text[last]:
            last += 1
        return max(0, first - 1) / len(text), min(len(text), last + 1) / len(text)

    def note_read(self) -> None:
        """Note that the newest frame is read."""
        self._read, self.changed_seconds = self._now, None

    def _differing(self) -> NDArray[np.bool_]:
        """Blocks of text that differ from the frame that was read last."""
        assert self._now is not None
        assert self._read is not None
        if self._now.shape != self._read.shape:
            return np.ones(self._now.shape, bool)
        return self._now.differs(self._read) & (self._now.edges | self._read.edges)


class _Blocks:
    """The blocks of one picture."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        step = max(1, round(image.shape[1] / _WIDTH))
        tall, wide = (length // (step * _BLOCK) * _BLOCK for length in image.shape[:2])
        if not tall or not wide:  # smaller than a block
            tall, wide, step = _BLOCK, _BLOCK, 1
            image = np.resize(image, (_BLOCK, _BLOCK, 3))
        green = image[: tall * step, : wide * step, 1].reshape(tall, step, wide, step)
        self._levels = green.mean(axis=(1, 3), dtype=np.float32)
        self.shape = tall // _BLOCK, wide // _BLOCK
        steps = np.zeros((tall, wide), np.float32)
        steps[:, 1:] = np.diff(self._levels, axis=1)
        rising, falling = (self._by_block(each > _EDGE) > _EDGES for each in (steps, -steps))
        self.edges: NDArray[np.bool_] = rising & falling

    def differs(self, other: "_Blocks") -> NDArray[np.bool_]:
        """Which blocks differ from those of another picture, ``[rows, columns]``."""
        if self.shape != other.shape:
            return np.ones(self.shape, bool)
        differs: NDArray[np.bool_] = self._by_block(np.abs(self._levels - other._levels)) > _CHANGED
        return differs

    def _by_block(self, values: NDArray[Any]) -> NDArray[np.floating]:
        rows, columns = self.shape
        means: NDArray[np.floating] = values.reshape(rows, _BLOCK, columns, _BLOCK).mean(
            axis=(1, 3)
        )
        return means
