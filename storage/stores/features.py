"""Frame features of each video: one safetensors file per content, memory-mapped when read.

A file holds the encoder's raw projected features in fp16 (localisers need them raw; embeddings are their unit vectors),
the exact time from which each frame is on screen, and the number of targets a second (`storage.targets`). A picture
that is held is stored once, however many targets it answers. 2 frames/s at 512 dimensions are 7.4 MB per hour of video.

Files of versions before 0.3 have no number of targets. Their frames are the first at or after each target instead of
those on screen then; each is taken to be on screen from the last target at or before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.targets import TOLERANCE_SECONDS, answering_rows, first_targets, target_bounds
from scanonce.storage.untrusted import DamagedFile


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """A run of stored frames of one video."""

    frames: NDArray[np.float16]
    """``[num_frames, dim]`` raw features."""
    pts_seconds: NDArray[np.float64]
    """``[num_frames]`` rising, the time from which each is on screen, seconds from the start of the video."""
    fps: float
    """Targets per second."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 2 or self.pts_seconds.shape != self.frames.shape[:1]:
            raise ValueError(
                f"frames [N, dim] need pts_seconds [N]; got {self.frames.shape} and {self.pts_seconds.shape}"
            )
        if not 0.0 < self.fps < np.inf:
            raise ValueError(f"targets per second must be more than 0 and finite; got {self.fps}")

    def between(self, spans: Sequence[tuple[float, float]]) -> "list[FrameFeatures]":
        """Return the frames on screen at the targets in each half-open span of seconds, at least one if there are any.

        A span between two targets has the frame on screen at the one before it.
        """
        bounds = target_bounds(np.array(spans, np.float64).reshape(-1, 2), self.fps)
        starts = first_targets(self.pts_seconds, self.fps)
        first, last = answering_rows(starts, np.stack([bounds[:, 0], bounds[:, 1] - 1]))
        return [
            FrameFeatures(
                self.frames[a : b + 1].copy(), self.pts_seconds[a : b + 1].copy(), self.fps
            )
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]


class FeatureStore(ContentFiles):
    """The ``features/`` folder of an index."""

    what = "features"
    tensors = MappingProxyType({"frames": (np.float16, 2), "pts_seconds": (np.float64, 1)})
    optional = MappingProxyType({"fps": (np.float64, 1)})

    def __init__(self, root: Path, dim: int | None = None, *, old_fps: float = 2.0) -> None:
        """Use the folder ``root``, which need not exist yet.

        Args:
            root: the folder.
            dim: length of a feature; None: not checked.
            old_fps: targets per second of files that do not have it.
        """
        super().__init__(root)
        self._dim, self._old_fps = dim, old_fps

    def write(self, uid: str, features: FrameFeatures) -> None:
        """Store the features of a video whole or not at all.

        Raises:
            IndexDirectoryError: the disk is full, read-only and the like; nothing stored is lost.
        """
        tensors: dict[str, NDArray[Any]] = {
            "frames": features.frames,
            "pts_seconds": features.pts_seconds,
            "fps": np.array([features.fps]),
        }
        self._write(uid, tensors)

    def read(self, uid: str) -> FrameFeatures:
        """Return all frames of a video; raises IndexDirectoryError if the file is missing or damaged."""
        mapped = self._mapped(uid)
        return FrameFeatures(mapped.frames.copy(), mapped.pts_seconds.copy(), mapped.fps)

    def read_between(self, uid: str, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        """Return the frames on screen in each span (`FrameFeatures.between`); only their bytes are read."""
        return self._mapped(uid).between(spans)

    def is_exact(self, uid: str) -> bool:
        """Whether the frames of a video are those on screen at the targets, not those of a version before 0.3."""
        return len(self._tensors(uid)) > len(self.tensors)

    def was_pooled_otherwise(self, uid: str) -> bool:
        """Whether a version before 0.3 counted the frames of a video otherwise: it counted one that is held once."""
        stored = self._mapped(uid)
        starts = first_targets(stored.pts_seconds, stored.fps)
        return not self.is_exact(uid) and bool((np.diff(starts) > 1).any())

    def _mapped(self, uid: str) -> FrameFeatures:
        """All frames of a video, read when they are used; raises as `read`."""
        frames, pts, *stated = self._tensors(uid)
        if len(pts) != len(frames) or self._dim not in (None, frames.shape[1]):
            reason = f"it has {len(pts)} times and frames {list(frames.shape)}"
            raise self._damaged(uid, reason if self._dim is None else f"{reason}, dim {self._dim}")
        try:
            if stated:
                return FrameFeatures(frames, pts, float(stated[0].item()))
            begins = np.floor((pts + TOLERANCE_SECONDS) * self._old_fps) / self._old_fps
            return FrameFeatures(frames, begins, self._old_fps)
        except ValueError as error:
            raise self._damaged(uid, str(error)) from error

    def problem(self, uid: str, *, dim: int, num_frames: int, values: bool = False) -> str | None:
        """Describe the fault of the stored features of a video; None if there is no fault.

        Args:
            uid: names the content.
            dim: length of an embedding of the index.
            num_frames: number of frames in the catalogue.
            values: read all features, 7.4 MB per hour of video at 512 dimensions and 2 frames a second. Default: read
                the times only, 58 kB.
        """
        try:
            frames, pts, *stated = self._examine(uid, values=values)
        except DamagedFile as error:
            return f"they cannot be read: {error}"
        if frames.ndim != 2 or pts.shape != frames.shape[:1]:
            return f"frames {frames.shape} and times {pts.shape} do not belong together"
        if frames.shape[1] != dim:
            return f"they have {frames.shape[1]} dimensions, the index has {dim}"
        if not len(pts):
            return "they hold no frame"
        if len(pts) != num_frames:
            return f"they hold {len(pts)} frames, the catalogue says {num_frames}"
        if not (np.isfinite(pts).all() and (np.diff(pts) >= 0).all()):
            return "the times of their frames do not rise"
        if any(fps.shape != (1,) or not 0.0 < fps[0] < np.inf for fps in stated):
            return "their number of targets per second is impossible"
        if values and not np.isfinite(frames).all():
            return "they hold values that are not finite"
        return None
