"""Thumbnails of each video, made when it is indexed: one safetensors file per content, memory-mapped when read.

A page of results shows them without decoding. A file holds the JPEG files one after another (``jpegs``), the end of
each of them (``ends``) and its time (``pts_seconds``): reading one image reads its bytes only. By default there is one
for each second, in a box of 240 x 135, 13 kB at most: never more than 47 MB per hour of video, and about 14 MB for real
ones; `scanonce status` shows the size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.untrusted import DamagedFile

_JPEG_START = np.array([0xFF, 0xD8], np.uint8)


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Thumbnails of one video, in order of time."""

    pts_seconds: NDArray[np.float64]
    """``[num_thumbnails]`` rising, seconds from the start of the video."""
    jpegs: tuple[bytes, ...]
    """Whole JPEG files."""

    def __post_init__(self) -> None:
        if self.pts_seconds.shape != (len(self.jpegs),):
            raise ValueError(
                f"{len(self.jpegs)} jpegs need pts_seconds [{len(self.jpegs)}]; got {self.pts_seconds.shape}"
            )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Join parts, one after another; no parts are no thumbnails."""
        pts = np.concatenate([np.empty(0), *(part.pts_seconds for part in parts)])
        return cls(pts, tuple(jpeg for part in parts for jpeg in part.jpegs))


class ThumbnailStore(ContentFiles):
    """The ``thumbnails/`` folder of an index. A video that was indexed without thumbnails has no file."""

    what = "thumbnails"
    tensors = MappingProxyType(
        {"jpegs": (np.uint8, 1), "ends": (np.int64, 1), "pts_seconds": (np.float64, 1)}
    )

    def write(self, uid: str, thumbnails: Thumbnails) -> None:
        """Store the thumbnails of a video whole or not at all; no thumbnails are no file.

        Raises:
            IndexDirectoryError: the disk is full, read-only and the like; nothing stored is lost.
        """
        if not thumbnails.jpegs:
            self.delete(uid)
            return
        tensors: dict[str, NDArray[Any]] = {
            "jpegs": np.frombuffer(b"".join(thumbnails.jpegs), np.uint8),
            "ends": np.cumsum([len(jpeg) for jpeg in thumbnails.jpegs], dtype=np.int64),
            "pts_seconds": thumbnails.pts_seconds,
        }
        self._write(uid, tensors)

    def read(self, uid: str, seconds: float) -> bytes | None:
        """Return the JPEG file for a time: the last one at or before it, or else the first one.

        Returns:
            None if the video has no thumbnails.

        Raises:
            IndexDirectoryError: they are damaged or cannot be read.
        """
        tensors = self._map(uid)
        if tensors is None:
            return None
        jpegs, ends, pts = tensors
        index = max(0, int(np.searchsorted(pts, seconds, side="right")) - 1)
        first, last = int(ends[index - 1]) if index else 0, int(ends[index])
        if not 0 <= first < last <= len(jpegs):
            raise self._damaged(uid, "its lengths do not add up")
        return jpegs[first:last].tobytes()

    def times(self, uid: str) -> NDArray[np.float64]:
        """Return the times ``[num_thumbnails]``, seconds, rising; empty if there are none. Raises as `read` does."""
        tensors = self._map(uid)
        return np.empty(0) if tensors is None else tensors[-1].copy()

    def problem(self, uid: str, *, values: bool = False) -> str | None:
        """Describe the fault of the thumbnails of a video; None if there is no fault, or no thumbnails.

        Args:
            uid: names the content.
            values: read all of them, about 14 MB per hour of video. Default: read the first bytes of each.
        """
        if not self.has(uid):
            return None
        try:
            jpegs, ends, pts = self._examine(uid, values=values)
        except DamagedFile as error:
            return f"they cannot be read: {error}"
        if jpegs.ndim != 1 or ends.ndim != 1 or pts.shape != ends.shape or not len(ends):
            return "their parts do not belong together"
        firsts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        last = len(jpegs)
        if (firsts + len(_JPEG_START) > ends).any() or ends.max() > last or ends[-1] != last:
            return "their lengths do not add up"
        if not (np.isfinite(pts).all() and (np.diff(pts) >= 0).all()):
            return "their times do not rise"
        if (jpegs[firsts[:, None] + np.arange(len(_JPEG_START))] != _JPEG_START).any():
            return "they are no images"
        return None

    def _map(self, uid: str) -> list[NDArray[Any]] | None:
        """Map the tensors of a video, none of them empty; None if there is no file."""
        try:
            jpegs, ends, pts = self._tensors(uid)
        except IndexDirectoryError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        if jpegs.ndim != 1 or ends.ndim != 1 or pts.shape != ends.shape or not len(ends):
            raise self._damaged(uid, "its parts do not belong together")
        return [jpegs, ends, pts]
