"""The types all packages share: spans, clips, videos, moments.

Times are seconds from the first frame of a video. They count from the start of the file, as players do, only in files
for other programs: `VideoInfo.offset_seconds` is the difference. Spans are half-open
``[start, end)``. Higher scores are better.

    >>> Span(4.0, 8.0).tiou(Span(6.0, 10.0))
    0.3333333333333333
    >>> clip_id(video_id=3, ordinal=5)
    3145733
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from scanonce.storage.facts import Facts, RecordedSource, read_facts

ORDINAL_BITS = 20
"""Bits of a clip id that number the clip within its video: 2**20 clips, about 330 hours at the default windows."""

MAX_ORDINAL = (1 << ORDINAL_BITS) - 1

VideoState = Literal["indexed", "partial", "failed"]
"""``indexed``: all of it is searchable; ``partial``: the decodable part is; ``failed``: nothing is."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open interval of time, ``[start_seconds, end_seconds)``."""

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

    @property
    def middle_seconds(self) -> float:
        """The time half-way."""
        return (self.start_seconds + self.end_seconds) / 2

    @property
    def millis(self) -> tuple[int, int]:
        """Start and end in whole milliseconds, as in addresses and names."""
        return round(1000 * self.start_seconds), round(1000 * self.end_seconds)

    def tiou(self, other: "Span") -> float:
        """Return the temporal intersection over union, in [0, 1]; 0 for two empty spans."""
        intersection = min(self.end_seconds, other.end_seconds) - max(
            self.start_seconds, other.start_seconds
        )
        intersection = max(0.0, intersection)
        union = self.duration_seconds + other.duration_seconds - intersection
        return intersection / union if union > 0.0 else 0.0


def span_key(video_id: int, span: Span) -> str:
    """Return the name of a span of a video between server and browser, and in files.

    >>> span_key(3, Span(1.5, 2.0))
    '3-1500-2000'
    """
    start, end = span.millis
    return f"{video_id}-{start}-{end}"


def clip_id(video_id: int, ordinal: int) -> int:
    """Return the id of the ``ordinal``-th clip of a video: ``video_id << 20 | ordinal``, so no look-up is needed."""
    if video_id < 0 or not 0 <= ordinal <= MAX_ORDINAL:
        raise ValueError(f"clip {ordinal} of video {video_id}: ordinals go from 0 to {MAX_ORDINAL}")
    return video_id << ORDINAL_BITS | ordinal


def split_clip_id(identifier: int) -> tuple[int, int]:
    """Split a clip id into ``(video_id, ordinal)``."""
    return identifier >> ORDINAL_BITS, identifier & MAX_ORDINAL


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video file that are known before it is decoded."""

    duration_seconds: float
    """Length by the container, or 0.0 if it states none."""
    width: int
    """Width in pixels as shown, rotation applied."""
    height: int
    """Height in pixels as shown, rotation applied."""
    fps: float
    """Average frames per second, or 0.0 if unknown."""
    codec: str
    """FFmpeg's short name, such as ``h264``."""
    offset_seconds: float = 0.0
    """Time of the first frame after the start of the file. Players count from the start of the file, which may begin
    with sound alone or with pictures that cannot be decoded; everything here counts from the first frame."""


@dataclass(frozen=True, slots=True)
class Recording:
    """When a recording began."""

    at: datetime
    """In the time zone of the camera if that is known, else in UTC or the local one."""
    by: RecordedSource | Literal["file"]
    """Its source; ``file`` is the time of the last change of the file, which a copy or an edit may have set."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the library: a content at one or more paths."""

    video_id: int
    """Never used again after the video is removed."""
    uid: str
    """Hex digest of the content; names the feature file."""
    state: VideoState
    duration_seconds: float
    """End of the last decoded frame; spans of this video end here at the latest."""
    num_frames: int
    """Frames stored, at the index's sampling."""
    paths: tuple[Path, ...]
    """Current paths of the content, sorted; the first one is shown."""
    reason: str | None = None
    """Why it is partial or failed."""
    info: VideoInfo | None = None
    """Image size, frame rate and codec; None for a removed video."""
    size_bytes: int = 0
    """Size of the content."""
    added_at: datetime | None = None
    """Time of its last indexing, UTC."""
    stated: str = ""
    """JSON of ``facts``, which is read when it is asked for."""
    changed_ns: int | None = None
    """When its oldest file was last changed, nanoseconds since 1970; None for a removed video."""

    @property
    def facts(self) -> Facts:
        """The facts that its file states, without chapters (`Catalog.chapters` has these)."""
        return read_facts(self.stated)

    @property
    def recording(self) -> "Recording | None":
        """When it was recorded, and what says so; the time of the last change of its file if nothing else does."""
        facts = self.facts
        if facts.recorded_at is not None and facts.recorded_by is not None:
            return Recording(facts.recorded_at, facts.recorded_by)
        if self.changed_ns is None or self.changed_ns <= 0:
            return None
        return Recording(datetime.fromtimestamp(self.changed_ns / 1e9, UTC).astimezone(), "file")

    @property
    def path(self) -> Path:
        """The path to show and to open."""
        return self.paths[0]


TrackName = Literal["subtitle", "said", "written", "facts"]
"""``subtitle``: texts inside the file or in files such as film.srt; ``said``: speech; ``written``: text in the image;
``facts``: the title and the chapters that the file states."""

MadeTrack = Literal["subtitle", "said", "written"]
"""Tracks that can be made; ``facts`` come with the first of them."""


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of text with the time at which it is said or shown."""

    video_id: int
    track: TrackName
    start_seconds: float
    end_seconds: float
    text: str
    """One line of printable text. It comes from a file: a page escapes it."""
    confidence: float = 1.0
    """Probability that the text is right, 0 to 1, by the model that read it; 1 for subtitles."""
    language: str | None = None
    """Code such as ``en``, if it is known."""

    @property
    def span(self) -> Span:
        """Its time as a span."""
        return Span(self.start_seconds, self.end_seconds)


Channel = Literal["seen", "said", "written", "subtitle", "name"]
"""What can find a moment: its images, or words of a track; ``name`` is the path, the title or a chapter."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a moment is in an answer."""

    channel: Channel
    value: float
    """Probability of the moment by this channel alone, in (0, 1)."""
    text: str = ""
    """The words that were said or are written there; empty for ``seen``."""
    marks: tuple[tuple[int, int], ...] = ()
    """Parts of ``text`` that the query has too, as half-open ranges of characters, rising."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The answer: a span of a video with its score."""

    video_id: int
    path: Path
    span: Span
    score: float
    """Score of the localiser, as it is: comparable within one index and one query only."""
    probability: float
    """Estimated probability, in (0, 1), that the moment shows what was asked (`search.calibration`). It depends on
    query and moment alone, and falls from the first moment of an answer to the last."""
    evidence: float = 0.0
    """How far the query is above a bank of everyday texts on this moment, in standard deviations of the bank
    (`search.text_bank`)."""
    reasons: tuple[Reason, ...] = ()
    """What found it, the strongest first; `probability` is that of all together. Empty if the images alone were
    searched."""
