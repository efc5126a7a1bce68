"""Settings of the indexer and of watching."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scanonce.media import limits

# fmt: off
_EXTENSIONS = (
    "3gp", "asf", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4",
    "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob", "webm", "wmv",
)
# fmt: on


class IndexerSettings(BaseModel):
    """The ``[indexer]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extensions: tuple[str, ...] = Field(
        default=_EXTENSIONS,
        description="File name extensions of videos, in lower case, without the dot.",
    )
    follow_symlinks: bool = Field(
        default=True, description="Follow symbolic links. Loops are reported."
    )
    sampling: Literal["uniform", "keyframes"] = Field(
        default="uniform",
        description='(index) Frames that are used: "uniform", sample_fps frames a second; "keyframes", only the frames '
        "that the codec stores whole, which is faster and less precise.",
    )
    sample_fps: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="(index) Frames per second of video that are encoded; with key frames, at most.",
    )
    decoder: Literal["pyav", "decord"] = Field(
        default="pyav", description='Decoder of the video files: "pyav" or "decord".'
    )
    clip_scales_seconds: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(4.0, 8.0, 16.0),
        min_length=1,
        description="(index) Lengths of the clips that are searched, seconds, rising.",
    )
    clip_stride_ratio: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="(index) Step between clips, as a share of their length.",
    )
    thumbnail_seconds: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        description="Seconds of video between the thumbnails that are stored for the pages; 0: none are stored.",
    )
    thumbnail_width: int = Field(
        default=240,
        ge=32,
        le=640,
        description="Width in pixels of the 16:9 box into which thumbnails fit. 240 takes about 14 MB per hour of "
        "video, at most 47 MB.",
    )
    decode_workers: int = Field(default=0, ge=0, description="Decoding processes; 0: one per core.")
    batch_frames: int = Field(
        default=0,
        ge=0,
        description="Frames encoded at once, across videos; 0: 32 on a CPU, 256 on a GPU.",
    )
    stall_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds without a new frame after which a file has failed and its decoder is replaced.",
    )
    decode_memory_mb: int = Field(
        default=limits.MEMORY_MB,
        ge=256,
        description="Most memory of a decoding process for one file, MB. A file that needs more fails.",
    )
    decode_cpu_seconds: int = Field(
        default=limits.CPU_SECONDS,
        ge=1,
        description="Most processor time for one file, seconds. A file that needs more fails.",
    )
    decode_attempts: int = Field(
        default=3,
        ge=1,
        description="Runs that try a file whose decoder crashed, hung or exceeded these limits, unless it changes; "
        "after that only `scanonce index --retry` does.",
    )
    longest_video_hours: float = Field(
        default=limits.LONGEST_HOURS,
        gt=0,
        le=240,
        description="Hours of a video that are indexed. The rest of a longer video is left out, with a message.",
    )
    publish_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a run publishes its new videos in the vector index.",
    )

    @property
    def endings(self) -> frozenset[str]:
        """``extensions`` with their dots, as `indexer.scan.scan` takes them."""
        return frozenset(f".{extension}" for extension in self.extensions)

    @model_validator(mode="after")
    def _check(self) -> Self:
        scales = self.clip_scales_seconds
        if any(a >= b for a, b in pairwise(scales)):
            raise ValueError(
                f"clip_scales_seconds must rise, such as [4, 8, 16]; got {list(scales)}"
            )
        if any(ending != ending.lower().lstrip(".") for ending in self.extensions):
            raise ValueError('extensions are written in lower case without the dot, such as "mp4"')
        return self


class WatchSettings(BaseModel):
    """The ``[watch]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settle_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="Seconds for which a file must keep its size and modification time before `scanonce watch` "
        "indexes it.",
    )
    rescan_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Minutes between two comparisons of all files with the index, since the system may drop events.",
    )
    force_polling: bool = Field(
        default=False,
        description="Look for changes every few seconds instead of waiting for the system's events: for network "
        "drives.",
    )
