"""Decoding with decord (the maintained ``decord2``), for those who want its speed on ordinary MP4 and Matroska files.

It is stricter than PyAV: what it is known to get wrong is refused with advice to use PyAV, and it stops at damage.
Times come from the packets, since decord's own are 32-bit floats, half a millisecond coarse after two hours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from indexer.decode import SampledFrame, Sampler, Sampling
from indexer.decoders.pyav import Geometry, describe, find_video_stream, open_container
from storage.errors import ConfigError, UnreadableVideo
from storage.records import VideoInfo

_USE_PYAV = 'set decoder = "pyav" for it'
_DEMUXERS = (
    "mov",
    "matroska",
)  # of MPEG-TS, AVI, FLV and others it gives wrong frames with right times
_MAX_RECOVERED_FRAMES = (
    2  # decord puts copies in the place of frames it cannot decode, and refuses a limit below 2
)


class _Array(Protocol):
    def asnumpy(self) -> NDArray[np.uint8]: ...


class _Reader(Protocol):
    """What we use of ``decord.VideoReader``, which has no types."""

    def __len__(self) -> int: ...
    def get_key_indices(self) -> list[int]: ...
    def get_batch(self, indices: Sequence[int]) -> _Array: ...
    def next(self) -> _Array: ...


class DecordSource:
    """`indexer.decode.FrameSource` by decord. Reads the whole file once, without decoding, to know the times."""

    def __init__(
        self, path: Path, sampling: Sampling, threads: int, min_short_side: int | None
    ) -> None:
        """As `indexer.decode.open_video`."""
        with open_container(path) as container:
            stream = find_video_stream(container)
            if not container.format.name.startswith(_DEMUXERS):
                kind = container.format.long_name or container.format.name
                raise UnreadableVideo(f"decord gives wrong frames of {kind} files: {_USE_PYAV}")
            times = _Times.of(container, stream)
            geometry = Geometry.of(_first_frame(container, stream), stream, min_short_side)
            if geometry.is_mirrored:
                raise UnreadableVideo(f"decord does not apply its mirroring: {_USE_PYAV}")
            self.info: VideoInfo = describe(container, stream, geometry)
            is_resized = (geometry.output_width, geometry.output_height) not in (
                (stream.width, stream.height),
                (stream.height, stream.width),
            )
        self._seconds = times.seconds
        self.end_seconds = times.end_seconds
        self.problem: str | None = None
        self._frame_bytes = geometry.output_width * geometry.output_height * 3
        size = (geometry.output_width, geometry.output_height) if is_resized else (-1, -1)
        self._reader: _Reader | None = _open_reader(path, size, threads)
        if len(self._reader) != len(self._seconds):
            raise UnreadableVideo(
                f"decord finds {len(self._reader)} frames where the file has {len(self._seconds)}: {_USE_PYAV}"
            )
        self._wanted = self._choose(sampling, self._reader)
        # after it has jumped into an open group of pictures (usual in HEVC) it counts the frames wrong
        self._may_jump = sampling.mode == "keyframes" or not times.has_open_groups
        self._next_index = 0

    def frames(self) -> Iterator[SampledFrame]:
        """See `indexer.decode.FrameSource`."""
        for number, index in enumerate(self._wanted):
            try:
                image = self._read(index)
            except (
                Exception
            ) as error:  # decord raises its own classes and whatever its C++ side throws
                if number == 0:
                    raise UnreadableVideo(f"decord cannot decode it: {_USE_PYAV}") from error
                self.end_seconds = self._seconds[self._wanted[number - 1] + 1]
                self.problem = (
                    f"decord stopped at damage after {self.end_seconds:.1f} s; pyav may go on"
                )
                return
            yield SampledFrame(self._seconds[index], image)

    def close(self) -> None:
        """See `indexer.decode.FrameSource`."""
        self._reader = None  # freed with the last reference

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _choose(self, sampling: Sampling, reader: _Reader) -> list[int]:
        indices: Sequence[int] = range(len(self._seconds))
        if sampling.mode == "keyframes":
            indices = reader.get_key_indices()
        sampler = Sampler(sampling)
        return [index for index in indices if sampler.wants(self._seconds[index])]

    def _read(self, index: int) -> NDArray[np.uint8]:
        """``[height, width, 3]`` RGB."""
        assert self._reader is not None, "frames() of a closed source"
        if self._may_jump:
            frame = self._reader.get_batch([index])
        else:
            while self._next_index <= index:
                frame = self._reader.next()
                self._next_index += 1
        image = frame.asnumpy().squeeze(0) if self._may_jump else frame.asnumpy()
        if image.nbytes != self._frame_bytes:
            raise ValueError(f"decord gave a frame of shape {image.shape}")
        return image


def _open_reader(path: Path, size: tuple[int, int], threads: int) -> _Reader:
    try:
        import decord
    except ImportError as error:
        raise ConfigError(
            'the decord back end needs a package: pip install decord2, or set decoder = "pyav"'
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(
            f"file:{path.absolute()}",
            width=size[0],
            height=size[1],
            num_threads=threads,
            fault_tol=_MAX_RECOVERED_FRAMES,
        )
    except Exception as error:  # RuntimeError, AssertionError and decord's own
        raise UnreadableVideo(f"decord cannot open it: {_USE_PYAV}") from error
    return cast(_Reader, reader)


@dataclass(frozen=True, slots=True)
class _Times:
    """What the packets tell without decoding."""

    seconds: list[float]
    """From the first frame, of all frames in order of showing."""
    end_seconds: float
    """End of the last one."""
    has_open_groups: bool
    """Whether frames after a key picture in the file are shown before it."""

    @staticmethod
    def of(container: InputContainer, stream: VideoStream) -> "_Times":
        """Reads the file to its end and goes back to its beginning."""
        stamps: list[int] = []
        ends: list[int] = []
        key_stamp = None
        has_open_groups = False
        for packet in _packets(container, stream):
            if packet.pts is None:
                raise UnreadableVideo(
                    f"its frames have no times that decord could use: {_USE_PYAV}"
                )
            stamps.append(packet.pts)
            ends.append(packet.pts + (packet.duration or 0))
            if packet.is_keyframe:
                key_stamp = packet.pts
            has_open_groups |= key_stamp is not None and packet.pts < key_stamp
        if not stamps or stream.time_base is None:
            raise UnreadableVideo(
                "it has a video track without pictures: copy or download it again"
            )
        stamps.sort()
        base = stream.time_base
        seconds = [float((stamp - stamps[0]) * base) for stamp in stamps]
        return _Times(seconds, float((max(ends) - stamps[0]) * base), has_open_groups)


def _packets(container: InputContainer, stream: VideoStream) -> "Iterator[Packet[VideoStream]]":
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                yield packet
        container.seek(0)
    except FFmpegError as error:
        raise UnreadableVideo(f"it is damaged, and decord would stop there: {_USE_PYAV}") from error


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """One frame, for what only a frame tells of its orientation."""
    try:
        return next(container.decode(stream))
    except (FFmpegError, StopIteration) as error:
        raise UnreadableVideo(f"its first picture cannot be decoded: {_USE_PYAV}") from error
