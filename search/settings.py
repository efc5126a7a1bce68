"""Settings of the search."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """The ``[search]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: int = Field(default=10, ge=1, le=1000, description="moments shown for a query")
    localiser: Literal["auto", "training-free", "clips"] = Field(
        default="auto",
        description="what finds the moments: auto is the trained localiser of the index, else training-free; clips "
        "gives the clips as they are",
    )
    candidate_clips: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="clips taken from the vector index at least, near which moments are looked for",
    )
    context_seconds: float = Field(
        default=30.0,
        ge=0,
        description="seconds either side of a candidate clip in which a moment may lie",
    )
    longest_moment_seconds: float = Field(
        default=60.0, gt=0, description="longest span that is looked for"
    )
    snap_seconds: float = Field(
        default=0.0,
        ge=0,
        description="edges of moments move to a change of shot that is this near; 0: they stay",
    )
    nms_overlap: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="of two moments of a video that share more than this part of the shorter, the weaker is dropped",
    )
    cutoff: float = Field(
        default=1.0,
        ge=0,
        description="a query has a good match when its best clip stands out more than this many times as far as "
        "that of sentences which no picture can show; 0: always",
    )
    rerank: Literal["auto", "off"] = Field(
        default="auto",
        description="auto: the re-ranker of the index, where it has one, puts the best of the moments found into its "
        "own order; off: they are shown as found",
    )
    nearest_shown: int = Field(
        default=4, ge=0, description='moments shown all the same when there is "no good match"'
    )
