"""One generation of the vector index, opened.

    generation = newest_generation(vectors_dir, dim=512)      # None: nothing was ever published
    generation.info.kind, len(generation.base), len(generation.delta)

How generations are written, and how a library is opened, is in `storage.vectors.publish`.
"""

import logging
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch, reported
from scanonce.storage.settings import GpuUse
from scanonce.storage.untrusted import (
    MAX_JSON_BYTES,
    DamagedFile,
    check_name,
    check_regular,
    inside,
    read_bytes,
)
from scanonce.storage.vectors.arrays import read_array
from scanonce.storage.vectors.flat import FlatIndex, IndexKind
from scanonce.storage.vectors.gpu import NO_GPU
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.list_fit import ADDED_PROBES, ListFit
from scanonce.storage.vectors.rows import ClipRows, Ids
from scanonce.storage.vectors.segments import NOTHING_OPEN, Codes, OpenFiles, Segment

logger = logging.getLogger(__name__)

CODES = "base.faiss"
TUNING_QUERIES = "tuning_queries.npy"
"""``[num_queries, dim]`` float16: the queries the search was tuned with, for the next time."""

_NUMBER_DIGITS = 10
_NUMBER = re.compile(r"[0-9]{10}")

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Dim = Annotated[int, Field(ge=1, le=1 << 16)]
Depth = Annotated[int, Field(ge=1, le=1_000_000)]


class TunedSettings(BaseModel):
    """Settings of a search in inverted lists, chosen by measuring on the library's own clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nprobe: Annotated[int, Field(ge=1, lt=1 << 31)]
    """Inverted lists that are searched for a query."""
    rescore_depth: Depth
    """Candidates that are scored exactly."""
    target_recall: float
    """Share of the ten best clips that should be found."""
    recall: float
    """Share that was found; less than the target if no setting reaches it."""
    sure_recall: float | None = None
    """Lower bound of the recall of other queries, right in nineteen of twenty cases; it was compared with the target.
    ``None`` if an earlier version has tuned the search."""
    cpu_ms: float
    """CPU milliseconds that a query took."""
    clips: Count
    """Clips in the lists then."""
    num_queries: Count
    """Number of queries measured with."""
    queries: Literal["text", "stand-in"]
    """Embeddings of texts, or `storage.vectors.recall.synthetic_queries`."""
    measured: datetime


class GenerationInfo(BaseModel):
    """The content of ``generation.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    kind: IndexKind
    dim: Dim
    segments: dict[str, Count]
    """Clips of each segment by its name; the base first, then the oldest first."""
    base_segments: Count
    """Number of segments, from the first, whose clips are in ``base.faiss``; 0 if the index is flat."""
    factory: str | None
    """FAISS's name of the base, ``None`` if the index is flat."""
    nprobe: Annotated[int, Field(ge=0, lt=1 << 31)]
    rescore_depth: Depth
    fit: ListFit | None
    """How well the base's lists fit; ``None`` if the index is flat, or of the first format."""
    tuned: TunedSettings | None = None
    """Takes precedence over ``nprobe`` and ``rescore_depth``; ``None`` if the search was never tuned."""
    created: datetime
    files: dict[str, Count]
    """Size of every other file in bytes, to notice a truncated or missing one."""


class _FirstFormat(BaseModel):
    """The first format: one file of clips for the base, exact or coded, and one for the delta."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    kind: IndexKind
    dim: Dim
    base_clips: Count
    delta_clips: Count
    factory: str | None
    nprobe: Annotated[int, Field(ge=0, lt=1 << 31)]
    rescore_depth: Depth
    created: datetime
    files: dict[str, Count]

    def info(self) -> GenerationInfo:
        """Return the same in the present format."""
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
    """Read ``generation.json``.

    Raises:
        ValueError: it has neither format.
        IndexDirectoryError: it names a file that could be none of its own.
    """
    read = _INFO.validate_json(text)
    info = read.info() if isinstance(read, _FirstFormat) else read
    for name in (*info.segments, *info.files):
        check_name(name, "the vector index names a file")
    return info


class _Damaged(Exception):
    """This generation cannot be used; the text says why."""


@dataclass(frozen=True, eq=False)
class Generation:
    """One published generation, its segments mapped."""

    path: Path
    number: int
    info: GenerationInfo
    open_files: OpenFiles

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Its clips; the base first, then the oldest first."""
        return self.open_files.segments

    @property
    def codes(self) -> Codes | None:
        """The codes of the base, ``None`` if the index is flat or it was opened without codes."""
        return self.open_files.codes

    @property
    def base_segments(self) -> tuple[Segment, ...]:
        """Segments that the codes cover."""
        return self.segments[: self.info.base_segments]

    @property
    def delta_segments(self) -> tuple[Segment, ...]:
        """Segments that are searched exactly."""
        return self.segments[self.info.base_segments :]

    @cached_property
    def base(self) -> ClipRows:
        """The clips that the codes cover; none if the index is flat."""
        return ClipRows.joined([segment.rows for segment in self.base_segments], self.info.dim)

    @cached_property
    def delta(self) -> ClipRows:
        """The clips that are searched exactly; all of them if the index is flat."""
        return ClipRows.joined([segment.rows for segment in self.delta_segments], self.info.dim)

    @property
    def videos(self) -> Ids:
        """Ids of all videos it holds, dead ones included, in any order."""
        return np.concatenate([self.base.videos, self.delta.videos])

    def indexes(self, gpu: GpuUse = NO_GPU) -> list[FlatIndex | IvfPqIndex]:
        """Return all its clips, ready to be searched, the base first; it must have been opened with codes."""
        info = self.info
        exact = [segment.index for segment in self.delta_segments]
        if info.kind == "flat":
            return [*exact]
        assert self.codes is not None
        how = info.tuned or info
        is_extended = info.fit is not None and info.fit.added_clips > 0
        base = IvfPqIndex(
            self.base,
            self.codes.faiss,
            nprobe=how.nprobe * (ADDED_PROBES if is_extended else 1),
            rescore_depth=how.rescore_depth,
            gpu=self.codes.on_gpu(gpu),
        )
        return [base, *exact]

    def tuning_queries(self) -> NDArray[np.float32] | None:
        """Return the queries the search was tuned with, ``[num_queries, dim]``.

        Returns:
            ``None`` if it was not tuned, or they are damaged.
        """
        if self.info.tuned is None:
            return None
        path = self.path / TUNING_QUERIES
        try:
            queries: NDArray[np.float32] = read_array(path, np.float16).astype(np.float32)
            if not len(queries) or queries.shape[1] != self.info.dim:
                raise DamagedFile(f"it has queries {list(queries.shape)}")
            if not np.isfinite(queries).all():
                raise DamagedFile("it has values that are not finite")
        except (OSError, DamagedFile) as error:
            logger.warning("%s cannot be used, the search is not tuned again: %s", path, error)
            return None
        return queries


def newest_number(vectors_dir: Path) -> int:
    """Return the number of the newest generation, 0 for none; a cheap way to notice a publish."""
    return max(generation_numbers(vectors_dir), default=0)


def newest_generation(
    vectors_dir: Path,
    *,
    dim: int,
    known: OpenFiles = NOTHING_OPEN,
    with_codes: bool = True,
) -> Generation | None:
    """Open the newest whole generation; a warning names each one that is skipped.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        known: files that are open already and need not be opened again.
        with_codes: open the codes too, so that it can be searched; codes that FAISS cannot read count as damage. The
            time grows with the size of the codes (see `read_codes`).

    Raises:
        ManifestMismatch: it holds embeddings of another length than ``dim``.
        IndexDirectoryError: the directory cannot be read.
    """
    numbers = generation_numbers(vectors_dir)
    for number in reversed(numbers):
        try:
            with reported(vectors_dir, "read"):
                return _open_generation(vectors_dir, number, dim, known, with_codes)
        except _Damaged as error:
            logger.warning("vector index generation %d is skipped: %s", number, error)
    # Two publishes in the meantime have removed the generations listed above: list them again.
    if generation_numbers(vectors_dir) == numbers:
        return None
    return newest_generation(vectors_dir, dim=dim, known=known, with_codes=with_codes)


def generation_numbers(vectors_dir: Path) -> list[int]:
    """Return the numbers of all generations, whole or not, rising; raises IndexDirectoryError if unreadable."""
    with reported(vectors_dir, "read"):
        try:
            names = [path.name for path in vectors_dir.iterdir()]
        except FileNotFoundError:
            return []
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def numbered(number: int) -> str:
    """Return the name of a generation's directory, and of the segment that was written with it."""
    return f"{number:0{_NUMBER_DIGITS}d}"


def _open_generation(
    vectors_dir: Path, number: int, dim: int, known: OpenFiles, with_codes: bool
) -> Generation:
    path = vectors_dir / numbered(number)
    try:
        path = inside(vectors_dir, numbered(number))
        info = read_info(read_bytes(path / "generation.json", MAX_JSON_BYTES))
        for name, size in info.files.items():
            if check_regular(path / name).st_size != size:
                raise _Damaged(f"{path / name} should have {size} bytes")
        codes = path / CODES if info.kind == "ivfpq" and with_codes else None
        files = known.open(path, info.segments, codes, info.dim)
    except (
        *(FileNotFoundError, NotADirectoryError, ValueError),
        *(DamagedFile, IndexDirectoryError),
    ) as error:
        raise _Damaged(f"{path}: {error}") from error
    generation = Generation(path, number, info, files)
    _check_counts(generation)
    if info.dim != dim:
        raise ManifestMismatch(
            f"the vector index in {vectors_dir} holds embeddings of {info.dim} dimensions, the "
            f"encoder makes {dim}: use the encoder it was made with, or another index directory"
        )
    return generation


def _check_counts(generation: Generation) -> None:
    path, info, codes = generation.path, generation.info, generation.codes
    clips = [len(segment.rows) for segment in generation.segments]
    if info.base_segments > len(clips) or (info.kind == "ivfpq") != (info.base_segments > 0):
        raise _Damaged(f"{path} is {info.kind} with {info.base_segments} of {len(clips)} segments")
    if clips != list(info.segments.values()):
        raise _Damaged(f"{path} has segments of {clips} clips, not those listed")
    if codes and (codes.faiss.d, codes.faiss.ntotal) != (info.dim, len(generation.base)):
        raise _Damaged(f"{path / CODES} belongs to other clips")
