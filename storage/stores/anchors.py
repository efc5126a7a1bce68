"""Anchors of each video, computed once by a trained localiser: one safetensors file per content, mapped when read.

    anchors/3f9c0a51d2e7-0/        anchors of one localiser; the manifest names the folder in use
        ab/<uid>.safetensors       vectors [num_anchors, width] fp16, norms [num_anchors] fp32

Anchors are derived from the stored frame features and can be derived again at any time without decoding a video. At the
published sizes (5 frames/s, 4 scales, 512 dimensions) an hour of video takes 6.9 MB.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.stores.content_files import ContentFiles
from scanonce.storage.untrusted import DamagedFile


@dataclass(frozen=True, slots=True)
class AnchorArrays:
    """Anchors of one video, or some of them."""

    vectors: NDArray[np.float16]
    """``[num_anchors, width]``, to be multiplied with a query."""
    norms: NDArray[np.float32]
    """``[num_anchors]`` lengths of the context features before they were normalised."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.norms.shape != self.vectors.shape[:1]:
            raise ValueError(
                f"vectors [A, width] need norms [A]; got {self.vectors.shape} and {self.norms.shape}"
            )


class AnchorStore(ContentFiles):
    """The folder of one localiser in an index."""

    what = "anchors"
    tensors = MappingProxyType({"vectors": (np.float16, 2), "norms": (np.float32, 1)})
    next_step = (
        "Run `scanonce repair`: it derives them again, without decoding; "
        "`scanonce localise --rebuild` does that for all videos."
    )

    def write(self, uid: str, arrays: AnchorArrays) -> None:
        """Store the anchors of a video whole or not at all; raises IndexDirectoryError if that fails."""
        self._write(uid, {"vectors": arrays.vectors, "norms": arrays.norms})

    def read(self, uid: str) -> AnchorArrays:
        """Return all anchors of a video."""
        return self.read_rows(uid, None)

    def read_rows(self, uid: str, rows: NDArray[np.int64] | None) -> AnchorArrays:
        """Return the given rows (rising), or all; only their bytes are read.

        Raises:
            IndexDirectoryError: the file is missing or damaged, or has no such row.
        """
        vectors, norms = self._tensors(uid)
        if len(vectors) != len(norms):
            raise self._damaged(uid, f"it has {len(vectors)} vectors and {len(norms)} norms")
        if rows is None:
            return AnchorArrays(vectors.copy(), norms.copy())
        if len(rows) and not 0 <= rows[0] <= rows[-1] < len(norms):
            reason = f"there are {len(norms)} anchors, its video has another number"
            raise self._damaged(uid, reason)
        return AnchorArrays(vectors[rows], norms[rows])

    def problem(
        self, uid: str, *, num_anchors: int | None, width: int | None, values: bool = False
    ) -> str | None:
        """Describe the fault of the stored anchors of a video; None if there is no fault.

        Args:
            uid: names the content.
            num_anchors: number of anchors of a video of its length; None: not known.
            width: length of a vector; None: not known.
            values: read all of them, 6.9 MB per hour of video at the published sizes.
        """
        try:
            vectors, norms = self._examine(uid, values=values)
        except DamagedFile as error:
            return f"they cannot be read: {error}"
        if vectors.ndim != 2 or norms.shape != vectors.shape[:1]:
            return f"vectors {vectors.shape} and norms {norms.shape} do not belong together"
        if num_anchors is not None and len(norms) != num_anchors:
            return f"there are {len(norms)} of them, a video of its length has {num_anchors}"
        if width is not None and vectors.shape[1] != width:
            return f"they have {vectors.shape[1]} numbers each, the localiser makes {width}"
        if values and not (np.isfinite(vectors).all() and np.isfinite(norms).all()):
            return "they hold values that are not finite"
        return None
