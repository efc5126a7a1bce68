"""Frames of a video file at given times, by one of two back ends.

    with open_video(path, sampling=Sampling("uniform", fps=2.0)) as source:
        for frame in source.frames():
            frame.pts_seconds, frame.image  # 0.0, uint8 [height, width, 3]
        source.end_seconds, source.problem

Times are seconds from the first frame of the video. At 2 frames a second the targets are 0, 0.5, 1.0 ... and the
answer to a target is the frame on screen then, whatever the frame rate, constant or not. A frame that is held answers
many targets; it comes once, with the time from which it is on screen.
"""

import os
import stat
from pathlib import Path

from scanonce.media.sampling import FrameSource, Sampling
from scanonce.storage.errors import ConfigError, UnreadableVideo

BACKENDS = ("pyav", "decord")
"""Names of the back ends, the default first."""


def open_video(
    path: Path,
    *,
    sampling: Sampling,
    backend: str = "pyav",
    threads: int = 0,
    min_short_side: int | None = None,
) -> FrameSource:
    """Open a local video file and decode its first frame.

    Args:
        path: a regular file, or a link to one.
        sampling: the frames to decode.
        backend: one of `BACKENDS`. ``decord`` does not read MPEG-TS.
        threads: number of decoder threads; 0 lets the decoder choose.
        min_short_side: frames may be reduced as long as their short side keeps this many pixels, which saves memory
            and time if they are made smaller afterwards; None keeps the full size.

    Raises:
        UnreadableVideo: the file has no video that can be decoded; the message says what it has.
        MemoryError: the decoder reached a memory limit, or the file made it request too much.
        ConfigError: the back end is unknown or not installed.
    """
    _check_regular_file(path)
    if backend == "pyav":
        from scanonce.media.decoders.pyav import PyAVSource

        return PyAVSource(path, sampling, threads, min_short_side)
    if backend == "decord":
        from scanonce.media.decoders.decord import DecordSource

        return DecordSource(path, sampling, threads, min_short_side)
    raise ConfigError(f"decoder is one of {', '.join(BACKENDS)}; got {backend!r}")


def _check_regular_file(path: Path) -> None:
    """Refuse pipes and devices, which could block for ever, and empty files, without starting a decoder."""
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
