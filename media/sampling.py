"""Sampling of frames by time, and the protocol of decoders."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import VideoInfo
from scanonce.storage.targets import is_shown_at_target

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video are sampled."""

    mode: Literal["uniform", "keyframes"]
    """``uniform``: the frame on screen at each target ``k / fps``, the last that begins at or before it;
    ``keyframes``: the same among the key frames, several times faster and as dense as they happen to be in the file."""
    fps: float
    """Targets per second, more than 0. Each is answered by one frame; a frame may answer many."""

    def __post_init__(self) -> None:
        if self.mode not in ("uniform", "keyframes"):
            raise ConfigError(f'sampling is "uniform" or "keyframes"; got {self.mode!r}')
        if not 0.0 < self.fps < math.inf:
            raise ConfigError(f"frames per second must be more than 0 and finite; got {self.fps}")

    def answers(self, begin_seconds: float, end_seconds: float) -> bool:
        """Whether a frame on screen in ``[begin_seconds, end_seconds)`` is on screen at a target."""
        return is_shown_at_target(begin_seconds, end_seconds, self.fps)


class Sampler(Generic[Item]):
    """Selects the answers from frames in order of time; each is known when the next frame comes.

    At 2 targets a second, of frames at 0, 0.4, 0.8, 1.2, 1.6, 3.1 that end at 3.2 it selects 0, 0.4, 0.8, 1.2 and 1.6.
    Frames may be left out of the input if they answer no target: the selection is the same.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._held: tuple[float, Item] | None = None

    def add(self, pts_seconds: float, item: Item) -> tuple[float, Item] | None:
        """Take the next frame; return the one before it if that is an answer."""
        answer = self.finish(pts_seconds)
        self._held = (pts_seconds, item)
        return answer

    def finish(self, end_seconds: float) -> tuple[float, Item] | None:
        """Return the last frame, which is on screen until ``end_seconds``, if it is an answer."""
        held, self._held = self._held, None
        return held if held and self._sampling.answers(held[0], end_seconds) else None


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrame:
    """One frame of a video."""

    pts_seconds: float
    """Time from which it is on screen, seconds from the first frame."""
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
