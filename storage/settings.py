"""The settings of what is on disk: the one place where their defaults and bounds live."""

from pydantic import BaseModel, ConfigDict, Field


class StorageSettings(BaseModel):
    """How the vector index is built; a change takes effect as clips are published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ivf_threshold: int = Field(
        default=50_000,
        ge=1_000,
        description="Clips from which the index is IVF-PQ; below it search is exact.",
    )
    rescore_depth: int = Field(
        default=500,
        ge=10,
        le=10_000,
        description="IVF-PQ candidates scored again exactly per query: more finds more, slower.",
    )
    fold_rows: int = Field(
        default=20_000,
        ge=1,
        le=200_000,
        description="Clips that may wait in the exact delta of an IVF-PQ index before they are folded into its base.",
    )
    anchor_index: bool = Field(
        default=False,
        description="Also keep the trained localiser's anchors as a library-wide index, which search.retriever needs.",
    )
