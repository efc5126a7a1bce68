"""Settings of the indexer."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scanonce.media import limits


class IndexerSettings(BaseModel):
    """The ``[indexer]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extensions: tuple[str, ...] = Field(
        default=(
            *(
                "3gp",
                "asf",
                "avi",
                "flv",
                "m2ts",
                "m4v",
                "mkv",
                "mov",
                "mp4",
                "mpeg",
                "mpg",
                "mts",
                "mxf",
            ),
            *("ogv", "ts", "vob", "webm", "wmv"),
        ),
        description="file name endings that are videos, without the dot, in lower case",
    )
    follow_symlinks: bool = Field(
        default=True, description="also look behind symbolic links; loops are reported"
    )
    sampling: Literal["uniform", "keyframes"] = Field(
        default="uniform",
        description="uniform: sample_fps frames a second; keyframes: only the frames a codec stores whole, faster",
    )
    sample_fps: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="frames per second of video that are encoded (keyframes: at most)",
    )
    decoder: Literal["pyav", "decord"] = Field(
        default="pyav", description="which decoder reads the files"
    )
    clip_scales_seconds: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(4.0, 8.0, 16.0),
        min_length=1,
        description="lengths of the clips that are searched, seconds, rising",
    )
    clip_stride_ratio: float = Field(
        default=0.5, gt=0, le=1, description="step between clips, as a share of their length"
    )
    thumbnail_seconds: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        description="seconds of video for which a small picture is stored; 0: none are",
    )
    thumbnail_width: int = Field(
        default=240,
        ge=32,
        le=640,
        description="pixels, of the box of 16:9 that small pictures fit into",
    )
    decode_workers: int = Field(default=0, ge=0, description="decoding processes; 0: one per core")
    batch_frames: int = Field(
        default=0,
        ge=0,
        description="frames encoded at once, across videos; 0: 32 on a CPU, 256 on a GPU",
    )
    stall_seconds: float = Field(
        default=60.0,
        gt=0,
        description="seconds without a new frame after which a file is given up, and its decoder replaced",
    )
    decode_memory_mb: int = Field(
        default=limits.MEMORY_MB,
        ge=256,
        description="memory one decoding process may take for a file; one that asks for more fails",
    )
    decode_cpu_seconds: int = Field(
        default=limits.CPU_SECONDS,
        ge=1,
        description="processor seconds one file may take; one that takes more fails",
    )
    decode_attempts: int = Field(
        default=3,
        ge=1,
        description="runs that try a file whose decoder crashed, hung or ran out of its limits, until it changes",
    )
    longest_video_hours: float = Field(
        default=limits.LONGEST_HOURS,
        gt=0,
        le=240,
        description="hours of a video that are indexed; the rest of a longer one is left out, and that is told",
    )
    publish_seconds: float = Field(
        default=60.0,
        gt=0,
        description="seconds after which a running index makes its new videos part of the vector index",
    )

    @property
    def endings(self) -> frozenset[str]:
        """``extensions`` with their dots, as `indexer.plan.scan` takes them."""
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
        description="seconds a file has to keep its size and time of change before it is indexed",
    )
    rescan_minutes: float = Field(
        default=60.0,
        gt=0,
        description="minutes between two looks at everything: the system may drop events",
    )
    force_polling: bool = Field(
        default=False,
        description="look for changes every few seconds instead of being told; for network drives",
    )
