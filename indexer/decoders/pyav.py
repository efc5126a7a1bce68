"""Decoding with PyAV, the default back end.

What the sampling does not ask for is not decoded where the file allows it: pictures that no other refers to, and
the rest of a group of pictures once nothing in it is wanted any more. The frames are the same as of full decoding.
"""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from scanonce.indexer.decode import SampledFrame, Sampler, Sampling, reduced_size
from scanonce.storage.errors import UnreadableVideo
from scanonce.storage.records import VideoInfo

_DEMUXERS = (
    *(
        "mov",
        "matroska",
        "avi",
        "flv",
        "mpegts",
        "mpeg",
        "asf",
        "ogg",
        "mxf",
        "rm",
        "nut",
        "dv",
        "ivf",
    ),
    *("wtv", "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "yuv4mpegpipe", "gif", "apng"),
    *("mp3", "wav", "flac", "aac"),  # opened in order to say that there is only sound
)
_OPEN_OPTIONS = {  # a playlist must not make us read another file or the network
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(_DEMUXERS),
}
_WELL_FORMED = ("mov", "matroska")
"""Demuxers that state the length rather than guess it, and whose packets are whole pictures."""
_INDEPENDENT_GROUPS = frozenset({"h264", "hevc", "vp9", "av1"})
"""Codecs of which every packet shows one picture, and whose key pictures begin a group that can be decoded alone."""
_MAX_ERRORS_IN_A_ROW = 200
_MAX_HELD_PACKETS = 1000
_MAX_HELD_BYTES = 64 << 20
_SENSIBLE_PACKET_BYTES = 256 << 20
_MAX_GAP_SECONDS = 86_400.0  # a longer one is a damaged timestamp
_MAX_DISORDER_SECONDS = 1.0  # going back further is a new beginning of the clock
_MIN_STEP_SECONDS = 1e-3
_ENDS_EARLY_SECONDS = 1.0
_FALLBACK_FPS = 25.0
_MIN_FPS = 1e-3  # a header that says less, or less than nothing, is damaged
_IDR_SLICE = 5  # H.264 NAL unit types
_OTHER_SLICE = 1


class PyAVSource:
    """`indexer.decode.FrameSource` by PyAV."""

    def __init__(
        self, path: Path, sampling: Sampling, threads: int, min_short_side: int | None
    ) -> None:
        """As `indexer.decode.open_video`."""
        self._sampling = sampling
        self._num_damaged = 0
        self._num_damaged_in_a_row = 0
        self._gave_up = False
        self._read_end_seconds = -math.inf
        self._is_read_whole = False
        self._container = open_container(path)
        try:
            self._stream = find_video_stream(self._container)
            self._stream.thread_type = "AUTO"
            self._stream.thread_count = threads
            # AVI numbers pictures in the order of decoding, which for key pictures alone does not matter
            by_dts = self._container.format.name == "avi" and sampling.mode == "uniform"
            self._clock = _Clock(self._stream, by_dts)
            self._planner = _Planner(sampling, self._container, self._stream, self._clock)
            self._decoded = self._decode()
            self._first = self._first_frame()
            self._geometry = Geometry.of(self._first[1], self._stream, min_short_side)
        except BaseException:
            self.close()
            raise
        self.info = describe(self._container, self._stream, self._geometry)
        self._stated_end_seconds = stated_end_seconds(self._container)

    @property
    def problem(self) -> str | None:
        """See `indexer.decode.FrameSource`."""
        reasons = []
        if self._num_damaged:
            reasons.append(f"{self._num_damaged} damaged piece(s) could not be decoded")
        if self._gave_up:
            reasons.append("the rest was given up after too many errors in a row")
        if self._is_read_whole or self._gave_up:  # else it was left early
            early = describe_early_end(self._stated_end_seconds, self._read_end_seconds)
            reasons += [early] if early else []
        return "; ".join(reasons) or None

    @property
    def end_seconds(self) -> float:
        """See `indexer.decode.FrameSource`."""
        if self._sampling.mode == "keyframes" and not self._clock.is_steady:
            return max(self._clock.end_seconds, self.info.duration_seconds)
        return self._clock.end_seconds

    def frames(self) -> Iterator[SampledFrame]:
        """See `indexer.decode.FrameSource`."""
        sampler = Sampler(self._sampling)
        num_given = 0
        for seconds, frame in itertools.chain([self._first], self._decoded):
            if not self._is_candidate(seconds, frame) or not sampler.wants(seconds):
                continue
            try:
                image = self._geometry.picture(frame)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError):
                self._count_damage()
                continue
            num_given += 1
            yield SampledFrame(seconds, image)
        if not num_given:
            raise UnreadableVideo(
                "its pictures have a format that cannot be converted: transcode it to H.264"
            )

    def close(self) -> None:
        """See `indexer.decode.FrameSource`."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _is_candidate(self, seconds: float, frame: VideoFrame) -> bool:
        return self._sampling.mode == "uniform" or frame.key_frame or seconds == 0.0

    def _first_frame(self) -> tuple[float, VideoFrame]:
        """Everything is decoded until a picture comes out: its time is the origin of all times."""
        first = next(self._decoded, None)
        if first is None:
            raise UnreadableVideo(
                f"it has a {codec_name(self._stream)} video track but no picture of it can be decoded: "
                "copy or download it again"
            )
        self._planner.start(first[1])
        return first

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` of all frames that have to be decoded, in order of time."""
        context = self._stream.codec_context
        for step in self._planner.plan(self._packets()):
            if step.afresh:
                yield from self._decode_packet(None)
                context.flush_buffers()
            context.skip_frame = "DEFAULT" if step.wanted else "NONREF"
            yield from self._decode_packet(step.packet)
            if self._gave_up:
                break
        yield from self._decode_packet(None)

    def _decode_packet(
        self, packet: Packet[VideoStream] | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Frames that come out when ``packet`` goes in; None gets those that are still inside."""
        try:
            frames = self._stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            self._count_damage()
            return
        if frames:
            self._num_damaged_in_a_row = 0
        for frame in frames:
            yield self._clock.frame_seconds(frame), frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of our stream; those of the others only tell how far the file goes."""
        for packet in self._all_packets():
            if packet.size == 0:  # PyAV marks the end of each stream with one
                continue
            self._read_end_seconds = max(self._read_end_seconds, packet_end_seconds(packet))
            if packet.stream_index == self._stream.index:
                yield cast("Packet[VideoStream]", packet)

    def _all_packets(self) -> Iterator[Packet[Any]]:
        while not self._gave_up:
            try:
                yield from self._container.demux()
                self._is_read_whole = True
                return
            except (
                IndexError
            ):  # at the end, PyAV trips over a track that began in the middle of the file
                self._is_read_whole = True
                return
            except MemoryError:
                if not _has_room():
                    raise
                self._count_damage()  # a packet that claims to be larger than any
            except av.FFmpegError:  # the next packet may be readable again
                self._count_damage()

    def _count_damage(self) -> None:
        self._num_damaged += 1
        self._num_damaged_in_a_row += 1
        self._gave_up |= self._num_damaged_in_a_row >= _MAX_ERRORS_IN_A_ROW
        self._planner.stop_skipping()


class _Clock:
    """Turns time stamps into seconds from the first frame, whatever is wrong with them."""

    def __init__(self, stream: VideoStream, by_dts: bool) -> None:
        self._time_base = stream.time_base or Fraction(1, 1000)
        rate = float(stream.guessed_rate or 0)
        self._default_step = 1.0 / (rate if rate > _MIN_FPS else _FALLBACK_FPS)
        self._by_dts = by_dts
        self._origin: int | None = None
        self._shift = 0.0
        self._last = -self._default_step
        self.end_seconds = 0.0
        self.is_steady = False
        """Whether times are exactly ``pts - first pts`` so far, so that they can be told from packets."""

    def frame_seconds(self, frame: VideoFrame) -> float:
        """Time of the next decoded frame: rises from frame to frame, 0 for the first."""
        stamp = frame.dts if self._by_dts or frame.pts is None else frame.pts
        if stamp is None:
            self.is_steady = False
            seconds = self._last + self._default_step
        else:
            if self._origin is None:
                self._origin = stamp
                self._shift = self._last + self._default_step
                self.is_steady = stamp == frame.pts and self._shift == 0.0
            seconds = self._mend(self._since_origin(stamp) + self._shift)
        self._last = seconds
        self._show(seconds, frame.duration)
        return seconds

    def packet_seconds(self, packet: Packet[VideoStream]) -> float | None:
        """Time of the frame in ``packet``; None where it cannot be told before decoding."""
        if not self.is_steady or packet.pts is None:
            return None
        return self._since_origin(packet.pts)

    def pass_by(self, packet: Packet[VideoStream]) -> None:
        """Counts a packet that is not decoded towards the end of the video."""
        seconds = self.packet_seconds(packet)
        if seconds is not None and not packet.is_discard:
            self._show(seconds, packet.duration or 0)

    def number(self, packet: Packet[VideoStream], index: int) -> None:
        """Gives a packet without any time stamp the one of the ``index``-th frame at the usual rate."""
        if packet.pts is None and packet.dts is None:
            packet.pts = round(index * self._default_step / self._time_base)

    def _show(self, seconds: float, duration: int) -> None:
        """Counts a frame towards the end of the video."""
        length = float(duration * self._time_base) if duration > 0 else self._default_step
        self.end_seconds = max(self.end_seconds, seconds + length)

    def _since_origin(self, stamp: int) -> float:
        assert self._origin is not None
        return float((stamp - self._origin) * self._time_base)

    def _mend(self, seconds: float) -> float:
        """A clock that starts anew goes on where it was; one that steps back a little stands still."""
        if -_MAX_DISORDER_SECONDS <= seconds - self._last <= _MAX_GAP_SECONDS:
            if seconds > self._last:
                return seconds
            self.is_steady = False
            return self._last + _MIN_STEP_SECONDS
        self.is_steady = False
        mended = self._last + self._default_step
        self._shift += mended - seconds
        return mended


@dataclass(frozen=True, slots=True)
class _Step:
    """One packet to decode."""

    packet: Packet[VideoStream]
    wanted: bool = True
    """Otherwise it may be skipped where no other picture refers to it."""
    afresh: bool = False
    """Whether packets before it were left out, so that the decoder has to forget."""


class _Planner:
    """Decides, before decoding, which packets the sampling can do without.

    A frame is the answer to a target if a target lies after the frame shown before it and not after itself. The
    frame shown before it is looked for among the packets read so far: if it comes later in the file, an earlier one
    stands in for it, and a packet too many is decoded, never one too few.
    """

    def __init__(
        self, sampling: Sampling, container: InputContainer, stream: VideoStream, clock: _Clock
    ) -> None:
        self._sampling = sampling
        self._clock = clock
        self._codec = codec_name(stream)
        self._nal_length_bytes = count_nal_length_bytes(stream)
        self._may_skip = (
            container.format.name.startswith(_WELL_FORMED) and self._codec in _INDEPENDENT_GROUPS
        )
        self._started = False
        self._recent: deque[float] = deque(maxlen=64)  # times of the last packets
        self._last_dts: int | None = None
        self._group: list[_Step] = []  # from a key picture on, or what follows on pending
        self._pending: list[_Step] = []  # read, not needed so far
        self._held_bytes = 0
        self._afresh = False

    def start(self, first: VideoFrame) -> None:
        """Skipping begins once the first frame is known. Fields of interlaced video may be packets of their own."""
        self._started = True
        self._may_skip = self._may_skip and not first.interlaced_frame

    def stop_skipping(self) -> None:
        """From now on everything is decoded: packets cannot be trusted."""
        self._may_skip = False

    def plan(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[_Step]:
        """The packets to decode, in the order of the file."""
        if self._sampling.mode == "keyframes":
            return self._plan_key_pictures(packets)
        return self._plan_uniform(packets)

    def _plan_key_pictures(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[_Step]:
        """Each key picture alone, so that nothing between them has to be consistent."""
        last: float | None = None
        for index, packet in enumerate(packets):
            self._clock.number(packet, index)
            if not self._started:
                yield _Step(packet)
                continue
            seconds = self._clock.packet_seconds(packet)
            if not packet.is_keyframe:
                self._clock.pass_by(packet)
                continue
            if last is None or seconds is None or self._sampling.has_target(last, seconds):
                yield _Step(packet, afresh=True)
            else:
                self._clock.pass_by(packet)
            last = seconds

    def _plan_uniform(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[_Step]:
        for packet in packets:
            wanted = self._is_wanted(packet)
            if not self._started or not self._is_regular(packet):
                yield from self._release_all()
                yield _Step(packet, afresh=self._take_afresh())
                continue
            if self._begins_group(packet):
                yield from self._close_group()
            self._group.append(_Step(packet, wanted))
            self._held_bytes += packet.size
            if (
                len(self._group) + len(self._pending) > _MAX_HELD_PACKETS
                or self._held_bytes > _MAX_HELD_BYTES
            ):
                yield from self._release_all()
        yield from self._close_group()
        self._drop_pending()

    def _is_wanted(self, packet: Packet[VideoStream]) -> bool:
        """Whether the frame of ``packet`` may be the answer to a target."""
        seconds = self._clock.packet_seconds(packet)
        if seconds is None:
            return True
        if packet.is_discard:  # decoded for others, not shown
            return False
        before = max((other for other in self._recent if other < seconds), default=None)
        self._recent.append(seconds)
        return before is None or self._sampling.has_target(before, seconds)

    def _is_regular(self, packet: Packet[VideoStream]) -> bool:
        """Whether packets can still be told apart by their times; once they cannot, nothing is skipped any more."""
        dts, last = packet.dts, self._last_dts
        self._last_dts = dts
        self._may_skip = (
            self._may_skip
            and self._clock.is_steady
            and not packet.is_corrupt
            and packet.pts is not None
            and dts is not None
            and (last is None or 0 < (dts - last) * packet.time_base < _MAX_GAP_SECONDS)
        )
        return self._may_skip

    def _begins_group(self, packet: Packet[VideoStream]) -> bool:
        return begins_group(packet, self._codec, self._nal_length_bytes)

    def _close_group(self) -> Iterator[_Step]:
        """Now that the whole group is known: forgets what is pending before it, decodes what it needs."""
        if self._group and self._begins_group(self._group[0].packet):
            key_pts = self._group[0].packet.pts
            assert key_pts is not None
            if not any(step.wanted and (step.packet.pts or 0) < key_pts for step in self._group):
                self._drop_pending()
        self._pending += self._group
        self._group = []
        wanted = (index for index, step in enumerate(self._pending) if step.wanted)
        yield from self._release(1 + max(wanted, default=-1))

    def _release_all(self) -> Iterator[_Step]:
        yield from self._close_group()
        yield from self._release(len(self._pending))

    def _release(self, num_steps: int) -> Iterator[_Step]:
        steps, self._pending = self._pending[:num_steps], self._pending[num_steps:]
        self._held_bytes = sum(step.packet.size for step in self._pending)
        for step in steps:
            if not step.wanted:
                self._clock.pass_by(step.packet)
            yield replace(step, afresh=self._take_afresh())

    def _drop_pending(self) -> None:
        for step in self._pending:
            self._clock.pass_by(step.packet)
            self._afresh = True
        self._pending = []

    def _take_afresh(self) -> bool:
        afresh, self._afresh = self._afresh, False
        return afresh


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a decoded picture becomes the one that is shown."""

    width: int
    """As shown: upright, square pixels."""
    height: int
    output_width: int
    """Of the frames that are given: as shown, or reduced."""
    output_height: int
    transpose: bool
    flip_x: bool
    """Left and right change places, after transposing."""
    flip_y: bool

    @property
    def is_mirrored(self) -> bool:
        """Whether no rotation alone makes it upright."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    @staticmethod
    def of(frame: VideoFrame, stream: VideoStream, min_short_side: int | None) -> Geometry:
        """From the first frame and what the container says."""
        transpose, flip_x, flip_y = _orientation(frame)
        width, height = frame.width, frame.height
        ratio = float(stream.sample_aspect_ratio or 1)
        if 0.1 < ratio < 10 and abs(ratio - 1) > 0.01:  # encoders write 224/225 to mean square
            width = max(1, round(width * ratio))
        if transpose:
            width, height = height, width
        return Geometry(
            width, height, *reduced_size(width, height, min_short_side), transpose, flip_x, flip_y
        )

    def picture(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """``[output_height, output_width, 3]`` RGB."""
        width, height = self.output_width, self.output_height
        if self.transpose:
            width, height = height, width
        is_reduced = self.output_height < self.height
        # averaging: 43 dB from the exact path at 224 pixels, and twice as fast as bicubic
        method = "AREA" if is_reduced else "BICUBIC"
        rgb = frame.reformat(width, height, "rgb24", interpolation=method, threads=1).to_ndarray()
        image = cast("NDArray[np.uint8]", rgb)
        if self.transpose:
            image = image.transpose(1, 0, 2)
        if self.flip_x:
            image = image[:, ::-1]
        if self.flip_y:
            image = image[::-1]
        return np.ascontiguousarray(image)


def open_container(path: Path) -> InputContainer:
    """Opens a local media file of a known kind, without following it to other files.

    Raises:
        UnreadableVideo: it is none.
        MemoryError: it makes the demuxer ask for more memory than it may have.
    """
    try:
        # the prefix keeps a name like "concat:x" from being taken for an address
        return av.open(
            f"file:{path.absolute()}", "r", options=_OPEN_OPTIONS, metadata_errors="replace"
        )
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise UnreadableVideo(
            f"not a video, or damaged from its beginning ({error.strerror or type(error).__name__}): "
            "copy or download it again"
        ) from error


def find_video_stream(container: InputContainer) -> VideoStream:
    """The main video track, which is not a cover picture.

    Raises:
        UnreadableVideo: there is none.
    """
    tracks = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not tracks:
        found = "only a cover picture" if container.streams.video else "no video track"
        sound = " beside its sound" if container.streams.audio else ""
        raise UnreadableVideo(f"it has {found}{sound}: leave it out of the library")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and not _is_cover(best) else tracks[0]
    if stream.codec_context is None:
        raise UnreadableVideo("no decoder knows its video format: transcode it to H.264")
    return stream


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's short name of the format, not of the decoder."""
    return str(stream.codec_context.codec.canonical_name)


def describe(container: InputContainer, stream: VideoStream, geometry: Geometry) -> VideoInfo:
    """What is known of an open video."""
    duration = 0.0
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / av.time_base
    return VideoInfo(
        duration_seconds=max(0.0, duration),
        width=geometry.width,
        height=geometry.height,
        fps=max(0.0, float(stream.average_rate or stream.guessed_rate or 0)),
        codec=codec_name(stream),
    )


def stated_end_seconds(container: InputContainer) -> float:
    """Where the last packet of the file should end; minus infinity where the file does not state it."""
    if container.duration is None or not container.format.name.startswith(_WELL_FORMED):
        return -math.inf
    return float(((container.start_time or 0) + container.duration) / av.time_base)


def packet_end_seconds(packet: Packet[Any]) -> float:
    """Where what is in ``packet`` ends, on the clock of the container; minus infinity where unknown."""
    if packet.pts is None:
        return -math.inf
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def describe_early_end(stated_seconds: float, read_seconds: float) -> str | None:
    """What is wrong with a file whose packets end before they should, as those of an interrupted copy do."""
    missing = stated_seconds - read_seconds
    return f"the file ends {missing:.1f} s early" if missing > _ENDS_EARLY_SECONDS else None


def begins_group(packet: Packet[VideoStream], codec: str, nal_length_bytes: int) -> bool:
    """Whether nothing from ``packet`` on, but perhaps frames shown before it, refers to what came earlier."""
    if not packet.is_keyframe:
        return False
    # H.264 also marks points from which a picture gradually recovers
    return codec != "h264" or _is_idr(bytes(packet), nal_length_bytes)


def count_nal_length_bytes(stream: VideoStream) -> int:
    """How many bytes tell the length of an H.264 NAL unit; 0 where start codes divide them."""
    extradata = stream.codec_context.extradata or b""
    return (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0


def _has_room() -> bool:
    """Whether there is memory left for packets of any sensible size."""
    try:
        np.empty(_SENSIBLE_PACKET_BYTES, np.uint8)  # not written to, so nothing is really taken
    except MemoryError:
        return False
    return True


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """``(transpose, flip_x, flip_y)`` that make a picture upright, to a quarter turn.

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


def _is_idr(data: bytes, length_bytes: int) -> bool:
    """Whether an H.264 picture starts afresh; False also where that cannot be seen."""
    position = 0
    while length_bytes and position + length_bytes < len(data):
        kind = data[position + length_bytes] & 31
        if kind in (_IDR_SLICE, _OTHER_SLICE):
            return kind == _IDR_SLICE
        position += length_bytes + int.from_bytes(data[position : position + length_bytes], "big")
    return False
