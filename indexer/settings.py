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
_EXCLUDE = (
    "@eaDir", "@Recently-Snapshot", "@Recycle", "@SynoEAStream", "@tmp", "#recycle", "#snapshot", "~snapshot",
    "$RECYCLE.BIN", "RECYCLER", "System Volume Information", "FOUND.[0-9][0-9][0-9]", "lost+found",
    ".Trash*", "trashbox", "files_trashbin", "files_versions", "Network Trash Folder", "Temporary Items",
    "TheVolumeSettingsFolder", "__MACOSX", "node_modules",
)
# fmt: on


class IndexerSettings(BaseModel):
    """The ``[indexer]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extensions: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=_EXTENSIONS,
        description="File name extensions of videos, in lower case, without the dot.",
    )
    exclude: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=_EXCLUDE,
        description=(
            "Files and folders that are left out, as globs in any case: of a name, or of the end of a path if there is "
            "a / in it. Files that were indexed before are forgotten. By default recycle bins and helper folders of "
            "network drives and systems. Also left out: names that start with a dot, folders with a file .nomedia, and "
            "indexes."
        ),
    )
    follow_symlinks: bool = Field(
        default=True, description="Whether symbolic links are followed. Loops are reported."
    )
    sampling: Literal["uniform", "keyframes"] = Field(
        default="uniform",
        description=(
            '(index) "uniform": sample_fps frames per second are encoded. "keyframes": only the frames that the codec '
            "stores whole, which is faster and coarser."
        ),
    )
    sample_fps: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description=(
            "(index) Frames per second of video that are encoded; with key frames, the most that are."
        ),
    )
    decoder: Literal["pyav", "decord"] = Field(
        default="pyav", description="The decoder that reads the files."
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
        description="(index) Step from one clip to the next, as a share of their length.",
    )
    thumbnail_seconds: float = Field(
        default=1.0,
        ge=0,
        le=3600,
        description="Seconds of video per stored thumbnail. 0: no thumbnails are stored.",
    )
    thumbnail_width: int = Field(
        default=240,
        ge=32,
        le=640,
        description=(
            "Width in pixels of the 16:9 box that thumbnails fit into. A width of 240 takes about 14 MB per hour of "
            "video, at most 47 MB."
        ),
    )
    decode_workers: int = Field(
        default=0, ge=0, le=1024, description="Number of decoding processes. 0: one per core."
    )
    batch_frames: int = Field(
        default=0,
        ge=0,
        description=(
            "Number of frames encoded at once, from one or more videos. 0: 32 on a CPU, 256 on a GPU."
        ),
    )
    stall_seconds: float = Field(
        default=60.0,
        gt=0,
        description=(
            "If a decoder returns no frame for this many seconds, its file fails and it is replaced."
        ),
    )
    decode_memory_mb: int = Field(
        default=limits.MEMORY_MB,
        ge=256,
        description="Memory in MB that one decoding process may take; a file that needs more fails.",
    )
    decode_cpu_seconds: int = Field(
        default=limits.CPU_SECONDS,
        ge=1,
        description="Processor seconds that one file may take; a file that needs more fails.",
    )
    decode_attempts: int = Field(
        default=3,
        ge=1,
        description=(
            "Number of runs that decode a file whose decoder crashed, hung or exceeded these limits. After that, only "
            "`scanonce index --retry` decodes it, until the file changes."
        ),
    )
    longest_video_hours: float = Field(
        default=limits.LONGEST_HOURS,
        gt=0,
        le=240,
        description="Hours of a video that are indexed; the rest of a longer one is left out and reported.",
    )
    publish_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds between two updates of the vector index while videos are being indexed.",
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
        description=(
            "Seconds for which the size and modification time of a file have to stay the same before `scanonce watch` "
            "indexes it."
        ),
    )
    rescan_minutes: float = Field(
        default=60.0,
        gt=0,
        description="Minutes between two checks of all files, since the system may drop events.",
    )
    force_polling: bool = Field(
        default=False,
        description=(
            "Check for changes every few seconds instead of waiting for events of the system; for network drives."
        ),
    )
    command: tuple[str, ...] = Field(
        default=(),
        description=(
            "Program and arguments that `scanonce watch` runs, without a shell, if a saved search has a good match in "
            "a new video; the match is JSON on its standard input. --exec comes first."
        ),
    )
    webhook: str = Field(
        default="", description='Address to which the same JSON is posted. "": none.'
    )
    webhook_secret: str = Field(
        default="",
        repr=False,
        description=(
            "Key that signs a posted message, by HMAC-SHA256; SCANONCE_WEBHOOK_SECRET in the environment comes first. "
            '"": nothing is signed.'
        ),
    )
    webhook_private: bool = Field(
        default=False,
        description="Whether the webhook may be on this machine or in a private network.",
    )
