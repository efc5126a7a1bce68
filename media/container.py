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

_USUAL_FPS = 1000.0
_STILL = Disposition.still_image | Disposition.timed_thumbnails
_IMAGE_CODECS = ("mjpeg", "png", "bmp", "webp", "tiff", "gif")
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
    moving = [stream for stream in tracks if not _is_still(stream)] or tracks
    best = container.streams.best("video")
    stream = best if best in moving else max(moving, key=lambda each: each.width * each.height)
    if stream.codec_context is None:
        raise UnreadableVideo("no decoder knows its video format: transcode it to H.264")
    return stream


def frames_per_second(stream: VideoStream) -> float:
    """Return the average rate of a track; 0 if it states none."""
    average = float(stream.average_rate or 0)
    guessed = max(0.0, float(stream.guessed_rate or 0))
    is_odd = not 0.0 < average <= _USUAL_FPS  # raw DV states 60,000
    return guessed if is_odd and 0.0 < guessed <= _USUAL_FPS else max(0.0, average) or guessed


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's short name of the format, not of the decoder."""
    return str(stream.codec_context.codec.canonical_name)


def describe(container: InputContainer, stream: VideoStream, geometry: Geometry) -> VideoInfo:
    """Return what the container states about an open video."""
    duration = 0.0
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        start = max(0, container.start_time or 0) if _states_end(container) else 0
        duration = (container.duration - start) / av.time_base
    return VideoInfo(
        duration_seconds=max(0.0, duration),
        width=geometry.width,
        height=geometry.height,
        fps=frames_per_second(stream),
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
    start = container.start_time or 0
    if _states_end(container):
        start = 0
    return float((start + container.duration) / av.time_base)


def _states_end(container: InputContainer) -> bool:
    """Whether the length that a file states is from the zero of its clock, not from its first packet."""
    return str(container.format.name).startswith("matroska")


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


def _is_still(stream: VideoStream) -> bool:
    """Whether a track is a single image, or thumbnails: a cover that is not marked as one.

    Matroska does not state the number of frames, so a format of images is taken for one if there is a format of video.
    """
    return (
        stream.frames == 1
        or bool(stream.disposition & _STILL)
        or (stream.codec_context is not None and codec_name(stream) in _IMAGE_CODECS)
    )
