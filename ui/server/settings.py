"""The settings of the server for programs: the one place for their defaults and bounds."""

from pydantic import BaseModel, ConfigDict, Field


class ServeSettings(BaseModel):
    """Limits of the HTTP API of `scanonce serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[str, ...] = Field(
        default=(),
        description=(
            "Absolute paths of folders at or below which a program with the scope write may have folders indexed that "
            "the index does not know yet."
        ),
    )
    parallel_searches: int = Field(
        default=2, ge=1, le=256, description="Searches of programs that are answered at once."
    )
    waiting_searches: int = Field(
        default=64,
        ge=0,
        le=10_000,
        description="Searches that may wait for that; more are refused.",
    )
    answer_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds after which an answer is given up."
    )
    upload_mb: int = Field(
        default=20, ge=1, le=2_000, description="Megabytes of the images and clips of one search."
    )
