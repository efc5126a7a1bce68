"""Settings of the search."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """The ``[search]`` section of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: int = Field(default=10, ge=1, le=1000, description="Number of moments shown for a query.")
    localiser: Literal["auto", "training-free", "clips"] = Field(
        default="auto",
        description=(
            'What finds the moments: "auto" is the trained localiser of the index, or "training-free" if it has none. '
            '"clips" returns the clips of the vector index unchanged.'
        ),
    )
    candidate_clips: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description=(
            "Least number of clips taken from the vector index; moments are searched around them. More clips find "
            "more and take longer."
        ),
    )
    context_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Seconds searched before and after each of these clips.",
    )
    longest_moment_seconds: float = Field(
        default=60.0, gt=0, description="Length of the longest moment, seconds."
    )
    snap_seconds: float = Field(
        default=0.0,
        ge=0,
        description="The edges of a moment move to a change of shot within these seconds. 0: they stay.",
    )
    nms_overlap: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description=(
            "If two moments of a video share more than this part of the shorter one, the weaker moment is dropped."
        ),
    )
    rerank: Literal["auto", "off"] = Field(
        default="auto",
        description=(
            '"auto": if the encoder of the index has a tight head, that head scores the best moments (four times the '
            'number shown, at most 100) and decides their order. "off": the localiser decides the order.'
        ),
    )
