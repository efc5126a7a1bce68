"""Frame features of each video: one safetensors file per content, memory-mapped when read.

A file holds the encoder's raw projected features in fp16 (localisers need them raw; embeddings are their unit vectors)
and the exact time of each frame. 2 frames/s at 512 dimensions are 7.4 MB per hour of video.
"""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.untrusted import DamagedFile


@dataclass(frozen=True, slots=True)
class FrameFeatures:
    """A run of stored frames of one video."""

    frames: NDArray[np.float16]
    """``[num_frames, dim]`` raw features."""
    pts_seconds: NDArray[np.float64]
    """``[num_frames]`` rising, seconds from the start of the video."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 2 or self.pts_seconds.shape != self.frames.shape[:1]:
            raise ValueError(
                f"frames [N, dim] need pts_seconds [N]; got {self.frames.shape} and {self.pts_seconds.shape}"
            )


class FeatureStore(ContentFiles):
    """The ``features/`` folder of an index."""

    what = "features"
    tensors = MappingProxyType({"frames": (np.float16, 2), "pts_seconds": (np.float64, 1)})

    def __init__(self, root: Path, dim: int | None = None) -> None:
        """Use the folder ``root``, which need not exist yet.

        Args:
            root: the folder.
            dim: length of a feature; None: not checked.
        """
        super().__init__(root)
        self._dim = dim

    def write(self, uid: str, features: FrameFeatures) -> None:
        """Store the features of a video whole or not at all.

        Raises:
            IndexDirectoryError: the disk is full, read-only and the like; nothing stored is lost.
        """
        self._write(uid, {"frames": features.frames, "pts_seconds": features.pts_seconds})

    def read(self, uid: str) -> FrameFeatures:
        """Return all frames of a video; raises IndexDirectoryError if the file is missing or damaged."""
        return self.read_between(uid, [(0.0, np.inf)])[0]

    def read_between(self, uid: str, spans: list[tuple[float, float]]) -> list[FrameFeatures]:
        """Return the frames inside each half-open span of seconds; only their bytes are read.

        Raises:
            IndexDirectoryError: the file is missing or damaged.
        """
        frames, pts = self._tensors(uid)
        if len(pts) != len(frames) or self._dim not in (None, frames.shape[1]):
            reason = f"it has {len(pts)} times and frames {list(frames.shape)}"
            raise self._damaged(uid, reason if self._dim is None else f"{reason}, dim {self._dim}")
        bounds = [np.searchsorted(pts, span, side="left") for span in spans]
        return [FrameFeatures(frames[a:b].copy(), pts[a:b].copy()) for a, b in bounds]

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
            frames, pts = self._examine(uid, values=values)
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
        if values and not np.isfinite(frames).all():
            return "they hold values that are not finite"
        return None
