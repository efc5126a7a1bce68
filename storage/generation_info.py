"""What a generation of the vector index says of itself, in the present format and the first one."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from scanonce.storage.list_fit import ListFit
from scanonce.storage.vectors import IndexKind


class TunedSettings(BaseModel):
    """How the inverted lists are searched, chosen by measuring on the library's own clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nprobe: int
    """Lists that a query looks into."""
    rescore_depth: int
    """Candidates that are scored exactly."""
    target_recall: float
    """Share of the ten best clips that was to be found."""
    recall: float
    """Share that was found; less than the target where no setting reaches it."""
    sure_recall: float | None = None
    """Share that other queries find at least, nineteen times in twenty; what the target was held against. ``None``
    where an earlier version has tuned."""
    cpu_ms: float
    """Milliseconds of one processor that a query took."""
    clips: int
    """Clips in the lists then; measured again past twice as many."""
    num_queries: int
    """Queries that were asked."""
    queries: Literal["text", "stand-in"]
    """Embeddings of sentences, or `storage.recall.stand_in_queries`."""
    measured: datetime


class GenerationInfo(BaseModel):
    """What ``generation.json`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    kind: IndexKind
    dim: int
    segments: dict[str, int]
    """Clips of each segment by its name; the base first, then the oldest first."""
    base_segments: int
    """So many of them, from the first, are in ``base.faiss``; 0 where the index is flat."""
    factory: str | None
    """FAISS's name of the base, ``None`` where the index is flat."""
    nprobe: int
    rescore_depth: int
    fit: ListFit | None
    """How well the base's lists fit; ``None`` where flat, and where the first format left it out."""
    tuned: TunedSettings | None = None
    """Goes before ``nprobe`` and ``rescore_depth``; ``None`` where they were never tuned."""
    created: datetime
    files: dict[str, int]
    """Size of every other file in bytes, to notice one that is cut off or missing."""


class _FirstFormat(BaseModel):
    """The first format: one file of clips for the base, exact or coded, and one for the delta."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    kind: IndexKind
    dim: int
    base_clips: int
    delta_clips: int
    factory: str | None
    nprobe: int
    rescore_depth: int
    created: datetime
    files: dict[str, int]

    def info(self) -> GenerationInfo:
        """The same in the present format."""
        same = self.model_dump(exclude={"format", "base_clips", "delta_clips"})
        return GenerationInfo(
            segments={"base": self.base_clips, "delta": self.delta_clips},
            base_segments=1 if self.kind == "ivfpq" else 0,
            fit=None,
            **same,
        )


_INFO: TypeAdapter[GenerationInfo | _FirstFormat] = TypeAdapter(
    Annotated[GenerationInfo | _FirstFormat, Field(discriminator="format")]
)


def read_info(text: bytes) -> GenerationInfo:
    """What ``generation.json`` says.

    Raises:
        ValueError: it is of neither format.
    """
    info = _INFO.validate_json(text)
    return info.info() if isinstance(info, _FirstFormat) else info
