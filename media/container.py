"""Opening a container with PyAV: the allowed demuxers, the main video stream and its description."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from scanonce.media.geometry import Geometry
from scanonce.storage.errors import UnreadableVideo
from scanonce.storage.records import VideoInfo

_DEMUXERS = (
    *("mov", "matroska", "avi", "flv", "mpegts", "mpeg", "asf", "ogg", "mxf", "rm", "nut", "dv"),
    *("ivf", "wtv", "h264", "hevc", "obu", "m4v", "mpegvideo", "mjpeg", "yuv4mpegpipe", "gif"),
    "apng",
    *("mp3", "wav", "flac", "aac"),  # opened to report that there is only audio
)
_OPEN_OPTIONS = {  # a playlist must not lead to another file or the network
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(_DEMUXERS),
}

WELL_FORMED = ("mov", "matroska")
"""Demuxers that state the length rather than guess it, and whose packets are whole frames."""
FALLBACK_FPS = 25.0
MIN_FPS = 1e-3  # a header with less, or with a negative rate, is damaged

_ENDS_EARLY_SECONDS = 1.0
_MAX_OFFSET_SECONDS = 86_400.0  # more is a damaged time stamp


def open_container(path: Path) -> InputContainer:
    """Open a local media file of a known kind, without following it to other files.

    Raises:
        UnreadableVideo: it is no media file, or damaged at its beginning.
        MemoryError: the demuxer needs more memory than it may have.
    """
    try:
        # the prefix keeps FFmpeg from taking a name like "concat:x" for a protocol
        return av.open(
            f"file:{path.absolute()}", "r", options=_OPEN_OPTIONS, metadata_errors="replace"
        )
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise UnreadableVideo(
            f"not a video, or damaged at its beginning ({error.strerror or type(error).__name__}): "
            "copy or download it again"
        ) from error


def find_video_stream(container: InputContainer) -> VideoStream:
    """Return the main video track; a cover image is none.

    Raises:
        UnreadableVideo: there is none.
    """
    tracks = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not tracks:
        found = "only a cover image" if container.streams.video else "no video track"
        audio = " and audio" if container.streams.audio else ""
        raise UnreadableVideo(f"it has {found}{audio}: leave it out of the library")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and not _is_cover(best) else tracks[0]
    if stream.codec_context is None:
        raise UnreadableVideo("no decoder knows its video format: transcode it to H.264")
    return stream


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's short name of the format, not of the decoder."""
    return str(stream.codec_context.codec.canonical_name)


def describe(container: InputContainer, stream: VideoStream, geometry: Geometry) -> VideoInfo:
    """Return what the container states about an open video."""
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


def start_offset_seconds(
    container: InputContainer, stream: VideoStream, first: VideoFrame
) -> float:
    """Return the time of the first frame after the start of the file, which is the zero of players.

    0 if it is not known, or if the numbers are impossible.
    """
    if first.pts is None or stream.time_base is None or container.start_time is None:
        return 0.0
    offset = float(first.pts * stream.time_base) - container.start_time / av.time_base
    return offset if 0.0 < offset < _MAX_OFFSET_SECONDS else 0.0


def stated_end_seconds(container: InputContainer) -> float:
    """Stated end of the last packet of the file; minus infinity if the file does not state it."""
    if container.duration is None or not container.format.name.startswith(WELL_FORMED):
        return -math.inf
    return float(((container.start_time or 0) + container.duration) / av.time_base)


def packet_end_seconds(packet: Packet[Any]) -> float:
    """End of ``packet`` on the clock of the container; minus infinity if unknown."""
    if packet.pts is None:
        return -math.inf
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def describe_early_end(stated_seconds: float, read_seconds: float) -> str | None:
    """Problem of a file whose packets end before the stated end, as after an interrupted copy; None if they do not."""
    missing = stated_seconds - read_seconds
    return f"the file ends {missing:.1f} s early" if missing > _ENDS_EARLY_SECONDS else None


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)
