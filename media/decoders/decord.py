"""Decoding with decord (the maintained ``decord2``), which is faster on ordinary MP4 and Matroska files.

It is stricter than PyAV: files that it is known to decode wrongly are refused with advice to use PyAV, and it stops at
damage. Times come from the packets: decord's own are 32-bit floats, half a millisecond coarse after two hours.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from scanonce.media.container import (
    codec_name,
    describe,
    describe_early_end,
    find_video_stream,
    open_container,
    packet_end_seconds,
    start_offset_seconds,
    stated_end_seconds,
)
from scanonce.media.geometry import Geometry
from scanonce.media.hdr import colours_of
from scanonce.media.planner import begins_group, count_nal_length_bytes
from scanonce.media.sampling import SampledFrame, Sampling
from scanonce.storage.errors import ConfigError, UnreadableVideo
from scanonce.storage.records import VideoInfo

_USE_PYAV = 'set decoder = "pyav" for it'
# of MPEG-TS, AVI, FLV and others it returns wrong frames with right times
_DEMUXERS = ("mov", "matroska")
# decord replaces frames that it cannot decode by copies of others, and refuses a limit below 2
_MAX_RECOVERED_FRAMES = 2


class DecordSource:
    """`media.sampling.FrameSource` by decord. Reads the whole file once, without decoding, for the times."""

    def __init__(
        self, path: Path, sampling: Sampling, threads: int, min_short_side: int | None
    ) -> None:
        """As `media.open.open_video`."""
        with open_container(path) as container:
            stream = find_video_stream(container)
            if not container.format.name.startswith(_DEMUXERS):
                kind = container.format.long_name or container.format.name
                raise UnreadableVideo(f"decord returns wrong frames of {kind} files: {_USE_PYAV}")
            times = _Times.of(container, stream)
            first = _first_frame(container, stream)
            geometry = Geometry.of(first, stream, min_short_side)
            if ignored := _what_is_ignored(first, geometry):
                raise UnreadableVideo(f"decord does not apply {ignored}: {_USE_PYAV}")
            offset = start_offset_seconds(container, stream, first)
            info = describe(container, stream, geometry)
            self.info: VideoInfo = replace(info, offset_seconds=offset)
            is_resized = (geometry.output_width, geometry.output_height) not in (
                (stream.width, stream.height),
                (stream.height, stream.width),
            )
        self._seconds = times.seconds
        self.end_seconds = times.end_seconds
        self.problem = times.problem
        self._frame_bytes = geometry.output_width * geometry.output_height * 3
        size = (geometry.output_width, geometry.output_height) if is_resized else (-1, -1)
        self._reader: Any = _open_reader(path, size, threads)
        if len(self._reader) != len(self._seconds):
            raise UnreadableVideo(
                f"decord finds {len(self._reader)} frames, but the file has {len(self._seconds)}: {_USE_PYAV}"
            )
        self._wanted = times.choose(sampling)
        # after a jump into an open group of pictures (usual in HEVC) it miscounts the frames
        self._may_jump = not times.has_open_groups
        self._next_index = 0

    def frames(self) -> Iterator[SampledFrame]:
        """See `media.sampling.FrameSource`."""
        for number, index in enumerate(self._wanted):
            try:
                image = self._read(index)
            except MemoryError:
                raise
            except Exception as error:  # decord's own classes and whatever its C++ side throws
                if number == 0:
                    raise UnreadableVideo(f"decord cannot decode it: {_USE_PYAV}") from error
                self.end_seconds = self._seconds[self._wanted[number - 1] + 1]
                self.problem = (
                    f"decord stopped at damage after {self.end_seconds:.1f} s; pyav may go on"
                )
                return
            yield SampledFrame(self._seconds[index], image)

    def close(self) -> None:
        """See `media.sampling.FrameSource`."""
        self._reader = None  # freed with the last reference

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, index: int) -> NDArray[np.uint8]:
        """``[height, width, 3]`` RGB."""
        if self._may_jump:
            frame = self._reader.get_batch([index])  # [1, height, width, 3]
        else:
            while self._next_index <= index:
                frame = self._reader.next()
                self._next_index += 1
        image: NDArray[np.uint8] = frame.asnumpy()
        if image.nbytes != self._frame_bytes:
            raise ValueError(f"decord returned a frame of shape {image.shape}")
        return image.reshape(image.shape[-3:])


def _open_reader(path: Path, size: tuple[int, int], threads: int) -> Any:
    try:
        import decord
    except ImportError as error:
        raise ConfigError(
            'the decord back end needs a package: pip install decord2, or set decoder = "pyav"'
        ) from error
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return decord.VideoReader(
            f"file:{path.absolute()}",
            width=size[0],
            height=size[1],
            num_threads=threads,
            fault_tol=_MAX_RECOVERED_FRAMES,
        )
    except MemoryError:
        raise
    except Exception as error:  # RuntimeError, AssertionError and decord's own
        raise UnreadableVideo(f"decord cannot open it: {_USE_PYAV}") from error


@dataclass(frozen=True, slots=True)
class _Times:
    """Times of all frames, read from the packets without decoding."""

    seconds: list[float]
    """Times from the first frame, in the order of showing."""
    end_seconds: float
    """End of the last frame."""
    key_indices: list[int]
    """Indices in ``seconds`` of the key frames; decord's own are in the order of decoding."""
    has_open_groups: bool
    """Whether a frame after a key frame, in the file, is shown before it or may refer to frames before it."""
    problem: str | None
    """Problem of the file as a whole; None if there is none."""

    def choose(self, sampling: Sampling) -> list[int]:
        """Indices of the sampled frames."""
        is_uniform = sampling.mode == "uniform"
        indices: Sequence[int] = range(len(self.seconds)) if is_uniform else self.key_indices
        begins = [self.seconds[index] for index in indices]
        begins[:1] = [0.0]  # nothing is on screen before the first one
        return [
            index
            for index, begin, end in zip(
                indices, begins, [*begins[1:], self.end_seconds], strict=True
            )
            if sampling.answers(begin, end)
        ]

    @staticmethod
    def of(container: InputContainer, stream: VideoStream) -> "_Times":
        """Read the file to its end and return to its beginning."""
        codec, length_bytes = codec_name(stream), count_nal_length_bytes(stream)
        stamps: list[int] = []
        ends: list[int] = []
        read_end = -math.inf
        key_stamps: list[int] = []
        has_open_groups = False
        for packet in _packets(container):
            read_end = max(read_end, packet_end_seconds(packet))
            if packet.stream_index != stream.index or packet.is_discard:
                continue
            if packet.pts is None:
                raise UnreadableVideo(
                    f"its frames have no times that decord could use: {_USE_PYAV}"
                )
            stamps.append(packet.pts)
            ends.append(packet.pts + (packet.duration or 0))
            if packet.is_keyframe:
                key_stamps.append(packet.pts)
                has_open_groups |= not begins_group(packet, codec, length_bytes)
            has_open_groups |= bool(key_stamps) and packet.pts < key_stamps[-1]
        if not stamps or stream.time_base is None:
            raise UnreadableVideo("it has a video track without frames: copy or download it again")
        stamps.sort()
        base = stream.time_base
        return _Times(
            seconds=[float((stamp - stamps[0]) * base) for stamp in stamps],
            end_seconds=float((max(ends) - stamps[0]) * base),
            key_indices=[bisect_left(stamps, stamp) for stamp in key_stamps],
            has_open_groups=has_open_groups,
            problem=describe_early_end(stated_end_seconds(container), read_end),
        )


def _packets(container: InputContainer) -> "Iterator[Packet[Any]]":
    """Yield all packets of the file, then return to its beginning."""
    try:
        for packet in container.demux():
            if packet.size:
                yield packet
        container.seek(0)
    except MemoryError:  # also one of FFmpeg's
        raise
    except FFmpegError as error:
        raise UnreadableVideo(f"it is damaged, and decord would stop there: {_USE_PYAV}") from error


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Decode one frame: the orientation is known from frames only."""
    try:
        return next(container.decode(stream))
    except MemoryError:
        raise
    except (FFmpegError, StopIteration) as error:
        raise UnreadableVideo(f"its first frame cannot be decoded: {_USE_PYAV}") from error


def _what_is_ignored(first: VideoFrame, geometry: Geometry) -> str | None:
    """What decord's frames of a video lack to be as they are shown; None if nothing."""
    if geometry.is_mirrored:
        return "its mirroring"
    if geometry.crop:
        return "its crop"
    if first.interlaced_frame:
        return "deinterlacing, which its frames need"
    if colours_of(first) is not None:
        return "the mapping of its HDR or wide-gamut colours to those of a screen"
    return None
