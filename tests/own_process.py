"""decord in a process of its own: its native threads must not share one with torch, which encodes from many threads."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from scanonce.media.open import open_video
from scanonce.media.sampling import FrameSource, SampledFrame
from scanonce.storage.records import VideoInfo


@dataclass(frozen=True)
class Decoded:
    """A `FrameSource` of which everything was read in another process."""

    info: VideoInfo
    problem: str | None
    end_seconds: float
    images: tuple[SampledFrame, ...]

    def frames(self) -> Iterator[SampledFrame]:
        return iter(self.images)

    def close(self) -> None:
        """It was closed twice already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_isolated(path: Path, *, backend: str = "pyav", **options: Any) -> FrameSource:
    """`open_video`; for decord everything happens in another process, which all tests of this one share."""
    if backend != "decord":
        return open_video(path, backend=backend, **options)
    return _executor().submit(_decode, path, options).result()


def _decode(path: Path, options: dict[str, Any]) -> Decoded:
    with open_video(path, backend="decord", **options) as source:
        info, images = source.info, tuple(source.frames())
        decoded = Decoded(info, source.problem, source.end_seconds, images)
        source.close()
    return decoded


@cache
def _executor() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
