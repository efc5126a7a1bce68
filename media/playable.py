"""Which files browsers play without conversion."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_OFFSET_SECONDS = 0.1  # if the clock starts later, browsers disagree on the position of 0
_BROWSER_VIDEO = {"mp4": {"h264", "vp9", "av1"}, "webm": {"vp8", "vp9", "av1"}}
_BROWSER_AUDIO = {"mp4": {"aac", "mp3", "opus", "flac"}, "webm": {"vorbis", "opus"}}
_BROWSER_PIXELS = {
    "h264": {"yuv420p", "yuvj420p"},
    "vp8": {"yuv420p"},
    "vp9": {"yuv420p", "yuvj420p", "yuva420p", "yuv420p10le"},
    "av1": {"yuv420p", "yuvj420p", "yuv420p10le"},
}


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """Properties of a file that decide how it can be shown."""

    container: str
    """``mp4`` (also for QuickTime), ``webm``, or FFmpeg's name of another container."""
    video_codec: str
    pixel_format: str
    audio_codec: str | None
    """None if there is no audio, or none that can be decoded."""
    width: int
    height: int
    fps: float
    duration_seconds: float
    """As the container states it; 0 if it does not."""
    offset_seconds: float
    """``currentTime`` of a browser's player at the first frame."""
    is_interlaced: bool
    """Whether the first frame is; browsers show its two fields at once, as combs."""
    is_cropped: bool
    """Whether the container crops its frames, which browsers show whole."""


def playable(facts: MediaFacts) -> bool:
    """Whether all current browsers play the file as it is; if not, show its proxy."""
    return (
        facts.offset_seconds <= _MAX_OFFSET_SECONDS
        and not facts.is_interlaced
        and not facts.is_cropped
        and facts.video_codec in _BROWSER_VIDEO.get(facts.container, ())
        and facts.pixel_format in _BROWSER_PIXELS[facts.video_codec]
        and (
            facts.audio_codec is None
            or facts.audio_codec in _BROWSER_AUDIO.get(facts.container, ())
        )
    )
