"""The settings of the index on disk: the one place for their defaults and bounds."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["auto", "flat", "ivfpq-fastscan", "ivfpq"]
"""The configured kind of a vector index; ``auto`` decides by the number of clips."""


@dataclass(frozen=True)
class GpuUse:
    """Whether a GPU may be used, and how much of its memory."""

    enabled: bool
    memory_mb: int = 0
    """Limit for the codes with FAISS's scratch memory; 0: four fifths of the free memory."""


class StorageSettings(BaseModel):
    """How the vector index is built; a change takes effect when clips are published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default="auto",
        description=(
            'Kind of the vector index: "flat" (exact), "ivfpq-fastscan" (4-bit codes in memory), "ivfpq" (8-bit codes '
            'that stay on disk and that a GPU can search), "auto" (by the number of clips). A change takes effect with '
            "the next run."
        ),
    )
    ivf_threshold: int = Field(
        default=50_000,
        ge=1_000,
        description=(
            'Number of clips from which the vector index is IVF-PQ. With fewer clips, or if kind is "flat", search is '
            "exact."
        ),
    )
    rescore_depth: int = Field(
        default=500,
        ge=10,
        le=10_000,
        description=(
            "Number of IVF-PQ candidates of a query that are scored again exactly. More of them find more and are "
            "slower. `scanonce tune` measures a better value, which is then used instead."
        ),
    )
    fold_rows: int = Field(
        default=20_000,
        ge=1,
        le=200_000,
        description=(
            "Number of clips that may wait in the exact delta of an IVF-PQ index before they are merged into its base."
        ),
    )
    gpu: Literal["auto", "off"] = Field(
        default="auto",
        description=(
            '"auto": if FAISS finds an NVIDIA GPU, it trains the vector index and searches it for many queries; '
            '"off": the CPU does.'
        ),
    )
    gpu_memory_mb: int = Field(
        default=0,
        ge=0,
        description=(
            "GPU memory in MB that the vector index may take; 0: four fifths of the free memory. If the codes do not "
            "fit, they stay on the CPU."
        ),
    )

    @property
    def gpu_use(self) -> GpuUse:
        """Whether a GPU may be used, and how much of its memory."""
        return GpuUse(enabled=self.gpu == "auto", memory_mb=self.gpu_memory_mb)
