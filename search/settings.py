"""Settings of the search."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """The ``[search]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: int = Field(default=10, ge=1, le=1000, description="Moments shown for a query.")
    localiser: Literal["auto", "training-free", "clips"] = Field(
        default="auto",
        description='Localiser, which finds the moments: "auto" (the trained localiser of the index, else '
        'training-free), "training-free", or "clips" (the clips themselves).',
    )
    candidate_clips: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Number of clips taken from the vector index at least; moments are searched near them. More clips "
        "find more and are slower.",
    )
    context_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Seconds before and after a candidate clip in which a moment may be.",
    )
    longest_moment_seconds: float = Field(
        default=60.0, gt=0, description="Longest moment that is searched, seconds."
    )
    snap_seconds: float = Field(
        default=0.0,
        ge=0,
        description="The edges of a moment move to a change of shot that is no further away, seconds; 0: they stay.",
    )
    nms_overlap: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Of two moments of a video that overlap in more than this share of the shorter one, the weaker is "
        "dropped.",
    )
    cutoff: float = Field(
        default=1.0,
        ge=0,
        description="A query has a good match if its best clip stands out more than this many times as far as the best "
        "clip of texts that no image can show. Higher values refuse more queries; 0 refuses none.",
    )
    rerank: Literal["auto", "off"] = Field(
        default="auto",
        description='"auto": if the encoder of the index has a tight head, it scores the best moments found (four '
        'times as many as are shown, at most 100), and they are shown in its order; "off": they are shown as found.',
    )
    nearest_shown: int = Field(
        default=4, ge=0, description='Moments shown even if there is "no good match".'
    )
