"""The settings of what is on disk: the one place where their defaults and bounds live."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from scanonce.storage.vectors.codes import Kind
from scanonce.storage.vectors.gpu import GpuUse


class StorageSettings(BaseModel):
    """How the vector index is built; a change takes effect as clips are published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default="auto",
        description=(
            'What the vector index is: "flat" exact, "ivfpq-fastscan" 4-bit codes in memory, "ivfpq" 8-bit codes that '
            'stay on disk and that a GPU can search, "auto" by the number of clips.'
        ),
    )
    ivf_threshold: int = Field(
        default=50_000,
        ge=1_000,
        description="Clips from which the index is IVF-PQ; below it, and where kind is flat, search is exact.",
    )
    rescore_depth: int = Field(
        default=500,
        ge=10,
        le=10_000,
        description=(
            "IVF-PQ candidates scored again exactly per query: more finds more, slower. `scanonce tune` measures a "
            "better value, which is then used instead."
        ),
    )
    fold_rows: int = Field(
        default=20_000,
        ge=1,
        le=200_000,
        description="Clips that may wait in the exact delta of an IVF-PQ index before they are folded into its base.",
    )
    gpu: Literal["auto", "off"] = Field(
        default="auto",
        description=(
            "Whether an NVIDIA GPU, where FAISS finds one, trains the vector index and searches it for many queries."
        ),
    )
    gpu_memory_mb: int = Field(
        default=0,
        ge=0,
        description=(
            "MB of its memory the vector index may take; 0: four fifths of what is free. What does not fit stays on "
            "the CPU."
        ),
    )

    @property
    def gpu_use(self) -> GpuUse:
        """Whether a GPU may be used and for how much."""
        return GpuUse(enabled=self.gpu == "auto", memory_mb=self.gpu_memory_mb)
