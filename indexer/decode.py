"""Pictures of a video file at given times, by one of two back ends.

    with open_video(path, sampling=Sampling("uniform", fps=2.0)) as source:
        for frame in source.frames():
            frame.pts_seconds, frame.image  # 0.0, uint8 [height, width, 3]
        source.end_seconds, source.problem

Times are seconds from the first frame of the video. At 2 frames a second the targets are 0, 0.5, 1.0 ... and the
answer to a target is the first frame shown at or after it, whatever the frame rate, constant or not.
"""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError, UnreadableVideo
from scanonce.storage.records import VideoInfo

BACKENDS = ("pyav", "decord")
"""Names that `open_video` knows, the default first."""

_TOLERANCE_SECONDS = (
    5e-7  # a frame at 0.4999999 answers the target 0.5: binary fractions are not exact
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video are wanted."""

    mode: Literal["uniform", "keyframes"]
    """``uniform``: the first frame at or after each target ``k / fps``; ``keyframes``: the same among the frames that
    the codec stores whole, several times faster and as dense as the file happens to have them."""
    fps: float
    """Targets per second, more than 0. At most one frame is given for each."""

    def __post_init__(self) -> None:
        if self.mode not in ("uniform", "keyframes"):
            raise ConfigError(f'sampling is "uniform" or "keyframes"; got {self.mode!r}')
        if not 0.0 < self.fps < math.inf:
            raise ConfigError(f"frames per second must be more than 0 and finite; got {self.fps}")

    def next_target(self, seconds: float) -> float:
        """The first target that is later than a frame at ``seconds``, and so is not answered by it."""
        index = math.floor((seconds + _TOLERANCE_SECONDS) * self.fps) + 1
        while index / self.fps <= seconds + _TOLERANCE_SECONDS:  # rounding of the product above
            index += 1
        return index / self.fps

    def has_target(self, after_seconds: float, upto_seconds: float) -> bool:
        """Whether a frame at ``upto_seconds`` is an answer when the frame before it is at ``after_seconds``."""
        return self.next_target(after_seconds) <= upto_seconds + _TOLERANCE_SECONDS


class Sampler:
    """Picks the answers out of frames that come in order of time.

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
    """One picture of a video."""

    pts_seconds: float
    """When it is shown, seconds from the first frame."""
    image: NDArray[np.uint8]
    """``[height, width, 3]`` RGB, upright, with square pixels, C-contiguous."""


class FrameSource(Protocol):
    """An open video file. Also a context manager that closes it."""

    @property
    def info(self) -> VideoInfo:
        """What is known before decoding. A frame is ``height x width``, or less with ``min_short_side``."""

    @property
    def problem(self) -> str | None:
        """After iterating: why not all of the file could be decoded, a short phrase; None where all is well."""

    @property
    def end_seconds(self) -> float:
        """After iterating: the end of the last frame, seconds from the first one."""

    def frames(self) -> Iterator[SampledFrame]:
        """The sampled frames in order of time, all of one size, at least one. Call once.

        Damage does not raise: the frames around it are given and `problem` says what happened.
        """

    def close(self) -> None:
        """Frees the decoder; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_video(
    path: Path,
    *,
    sampling: Sampling,
    backend: str = "pyav",
    threads: int = 0,
    min_short_side: int | None = None,
) -> FrameSource:
    """Opens a local video file and decodes its first frame.

    Args:
        path: a regular file, or a link to one.
        sampling: which frames are wanted.
        backend: one of `BACKENDS`. ``decord`` does not read MPEG-TS.
        threads: decoder threads, 0 for the decoder's own choice.
        min_short_side: frames may come reduced as long as their short side keeps this many pixels, which saves
            memory and time where they are made smaller afterwards; None gives full size.

    Raises:
        UnreadableVideo: there is no video in the file that can be decoded; the message says what was found.
        MemoryError: the decoder came to a limit of memory, or a file made it ask for too much.
        ConfigError: the back end is unknown or not installed.
    """
    _check_regular_file(path)
    if backend == "pyav":
        from scanonce.indexer.decoders.pyav import PyAVSource

        return PyAVSource(path, sampling, threads, min_short_side)
    if backend == "decord":
        from scanonce.indexer.decoders.decord import DecordSource

        return DecordSource(path, sampling, threads, min_short_side)
    raise ConfigError(f"decoder is one of {', '.join(BACKENDS)}; got {backend!r}")


def reduced_size(width: int, height: int, min_short_side: int | None) -> tuple[int, int]:
    """``(width, height)`` of a frame with the short side reduced to ``min_short_side``.

    Unchanged where that is less than half: up to there, converting at full size is faster (measured at 720p).
    """
    short = min(width, height)
    if min_short_side is None or short < 2 * min_short_side:
        return width, height
    scale = min_short_side / short
    return round(width * scale), round(height * scale)


def _check_regular_file(path: Path) -> None:
    """Pipes and devices could block for ever, and an empty file needs no decoder to say so."""
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            with path.open("rb"):
                pass
    except FileNotFoundError as error:
        raise UnreadableVideo(
            "no such file, or a link to a missing one: scan the library again"
        ) from error
    except OSError as error:
        raise UnreadableVideo(
            f"the file cannot be opened ({error.strerror}): check its permissions"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableVideo(
            "not a regular file but a folder, pipe or device: give the video file itself"
        )
    if status.st_size == 0:
        raise UnreadableVideo("the file is empty: copy or download it again")
