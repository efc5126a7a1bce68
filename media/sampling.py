"""Sampling of frames by time, and the protocol of decoders."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import VideoInfo

_TOLERANCE_SECONDS = 5e-7  # a frame at 0.4999999 answers the target 0.5: floats are not exact


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video are sampled."""

    mode: Literal["uniform", "keyframes"]
    """``uniform``: the first frame at or after each target ``k / fps``; ``keyframes``: the same among the key
    frames, several times faster and as dense as they happen to be in the file."""
    fps: float
    """Targets per second, more than 0. Each is answered by one frame at most."""

    def __post_init__(self) -> None:
        if self.mode not in ("uniform", "keyframes"):
            raise ConfigError(f'sampling is "uniform" or "keyframes"; got {self.mode!r}')
        if not 0.0 < self.fps < math.inf:
            raise ConfigError(f"frames per second must be more than 0 and finite; got {self.fps}")

    def next_target(self, seconds: float) -> float:
        """Return the first target that is later than a frame at ``seconds`` and so not answered by it."""
        index = math.floor((seconds + _TOLERANCE_SECONDS) * self.fps) + 1
        while index / self.fps <= seconds + _TOLERANCE_SECONDS:  # rounding of the product above
            index += 1
        return index / self.fps

    def has_target(self, after_seconds: float, upto_seconds: float) -> bool:
        """Whether a frame at ``upto_seconds`` is an answer if the frame before it is at ``after_seconds``."""
        return self.next_target(after_seconds) <= upto_seconds + _TOLERANCE_SECONDS


class Sampler:
    """Selects the answers from frames in order of time.

    At 2 targets a second, of frames at 0, 0.4, 0.8, 1.2, 1.6, 3.1 it wants 0, 0.8, 1.2, 1.6 and 3.1.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._target = 0.0

    def wants(self, pts_seconds: float) -> bool:
        """Whether the next frame, at ``pts_seconds``, answers a target that no earlier frame has answered."""
        if pts_seconds + _TOLERANCE_SECONDS < self._target:
            return False
        self._target = self._sampling.next_target(pts_seconds)
        return True


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrame:
    """One frame of a video."""

    pts_seconds: float
    """Time at which it is shown, seconds from the first frame."""
    image: NDArray[np.uint8]
    """``[height, width, 3]`` RGB, upright, with square pixels, C-contiguous."""


class FrameSource(Protocol):
    """An open video file. Also a context manager that closes it."""

    @property
    def info(self) -> VideoInfo:
        """Description of the video before decoding. A frame is ``height x width``, or less with ``min_short_side``."""

    @property
    def problem(self) -> str | None:
        """After iterating: why not all of the file could be decoded, a short phrase; None if all of it was."""

    @property
    def end_seconds(self) -> float:
        """After iterating: the end of the last frame, in seconds from the first one."""

    def frames(self) -> Iterator[SampledFrame]:
        """Yield the sampled frames in order of time, all of one size, at least one. Call once.

        Damage does not raise: the frames around it are yielded, and `problem` describes it.
        """

    def close(self) -> None:
        """Free the decoder; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def reduced_size(width: int, height: int, min_short_side: int | None) -> tuple[int, int]:
    """Return ``(width, height)`` of a frame with the short side reduced to ``min_short_side``.

    Unchanged if the short side is not at least twice that: then converting at full size is faster (measured at 720p).
    """
    short = min(width, height)
    if min_short_side is None or short < 2 * min_short_side:
        return width, height
    scale = min_short_side / short
    return round(width * scale), round(height * scale)
