"""The types every room shares: spans, clips, videos, moments.

Times are seconds from the start of the video as a player shows it (its first frame is at 0), spans are
half-open ``[start, end)``, scores are higher-is-better.

    >>> Span(4.0, 8.0).tiou(Span(6.0, 10.0))
    0.3333333333333333
    >>> clip_id(video_id=3, ordinal=5)
    3145733
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

ORDINAL_BITS = 20
"""Bits of a clip id that count the clip inside its video: 2**20 clips, about 330 hours at the default windows."""

MAX_ORDINAL = (1 << ORDINAL_BITS) - 1

VideoState = Literal["indexed", "partial", "failed"]
"""``indexed``: all of it is searchable; ``partial``: what could be decoded is; ``failed``: nothing is."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open piece of time, ``[start_seconds, end_seconds)``."""

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.start_seconds <= self.end_seconds < float("inf"):
            raise ValueError(
                f"a span needs 0 <= start <= end, finite; got [{self.start_seconds}, {self.end_seconds})"
            )

    @property
    def duration_seconds(self) -> float:
        """Length in seconds, 0 or more."""
        return self.end_seconds - self.start_seconds

    def tiou(self, other: "Span") -> float:
        """Temporal intersection over union, in [0, 1]; 0 for two empty spans."""
        intersection = min(self.end_seconds, other.end_seconds) - max(
            self.start_seconds, other.start_seconds
        )
        intersection = max(0.0, intersection)
        union = self.duration_seconds + other.duration_seconds - intersection
        return intersection / union if union > 0.0 else 0.0


def clip_id(video_id: int, ordinal: int) -> int:
    """The id of the ``ordinal``-th clip of a video: ``video_id << 20 | ordinal``, so it resolves without a look-up."""
    if video_id < 0 or not 0 <= ordinal <= MAX_ORDINAL:
        raise ValueError(f"clip {ordinal} of video {video_id}: ordinals go from 0 to {MAX_ORDINAL}")
    return video_id << ORDINAL_BITS | ordinal


def split_clip_id(identifier: int) -> tuple[int, int]:
    """``(video_id, ordinal)`` of a clip id."""
    return identifier >> ORDINAL_BITS, identifier & MAX_ORDINAL


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a decoder says of a video file before decoding it."""

    duration_seconds: float
    """Length as the container states it, or 0.0 where it does not."""
    width: int
    """Width in pixels as shown, rotation applied."""
    height: int
    """Height in pixels as shown, rotation applied."""
    fps: float
    """Average frames per second, or 0.0 where unknown."""
    codec: str
    """FFmpeg's short name, such as ``h264``."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the library: a content, at one or more paths."""

    video_id: int
    """Never used again after the video is gone."""
    uid: str
    """Hex digest of the content; names the feature file."""
    state: VideoState
    duration_seconds: float
    """End of the last decoded frame; spans of this video end here at the latest."""
    num_frames: int
    """Frames stored, at the index's sampling."""
    paths: tuple[Path, ...]
    """Where the content lies now, sorted; the first one is shown."""
    reason: str | None = None
    """Why it is partial or failed."""
    info: VideoInfo | None = None
    """Picture size, frame rate and codec as shown; None where nobody asked the catalogue."""
    size_bytes: int = 0
    """Of the content."""
    added_at: datetime | None = None
    """When it was indexed last, UTC."""

    @property
    def path(self) -> Path:
        """The path to show and to open."""
        return self.paths[0]


@dataclass(frozen=True, slots=True)
class Moment:
    """The answer: a span of a video with its score."""

    video_id: int
    path: Path
    span: Span
    score: float
    """Higher is better; comparable within one index only. Training-free: cosine of query and moment, in [-1, 1]. Of a
    moment that was re-ranked: what the localiser gave the one it found in that place (`search.rerank`)."""
    strength: float = 0.0
    """How far its frames rise above the library's mean for the query, measured in the furthest that sentences do
    which no picture can show: at 1 it may be chance."""
