"""How frames become one vector: CLIP4Clip's parameter-free mean pooling (arXiv 2104.08860).

The order matters and is: unit length per frame, mean over the frames of the clip, unit length again. The mean of
raw frame vectors is another vector (frames with large norms would outweigh the rest).

    >>> frames = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    >>> mean_pool(frames).round(3).tolist()
    [0.707, 0.707]
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def unit(vectors: ArrayLike) -> NDArray[np.float32]:
    """Vectors of length 1 along the last axis; a zero vector stays zero. Any shape, returns float32."""
    array = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    units: NDArray[np.float32] = array / np.maximum(norms, 1e-12)
    return units


def mean_pool(frames: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float32]:
    """One embedding of a run of frames: ``unit(masked mean(unit(frame)))``.

    Args:
        frames: ``[..., num_frames, dim]`` frame features, raw or unit.
        mask: ``[..., num_frames]``, true for frames that count; all where None.

    Returns:
        ``[..., dim]`` float32 of length 1; zero where no frame counts.
    """
    units = unit(frames)
    if mask is None:
        return unit(units.sum(axis=-2) / max(units.shape[-2], 1))
    weights = np.asarray(mask, dtype=np.float32)[..., None]
    return unit((units * weights).sum(axis=-2) / np.maximum(weights.sum(axis=-2), 1.0))


def pool_spans(
    frames: ArrayLike, pts_seconds: NDArray[np.float64], spans: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Embeddings of many spans of one video, by prefix sums: O(frames + spans).

    A span without a frame of its own (key frames can lie far apart) takes the frame on screen when it starts.

    Args:
        frames: ``[num_frames, dim]``, at least one frame.
        pts_seconds: ``[num_frames]`` rising.
        spans: ``[num_spans, 2]`` half-open, seconds.

    Returns:
        ``[num_spans, dim]`` float32 of length 1.
    """
    units = unit(frames)
    # float64: a sum over a day of frames keeps its last digits
    sums = np.concatenate(
        [np.zeros((1, units.shape[1])), np.cumsum(units, axis=0, dtype=np.float64)]
    )
    first = np.searchsorted(pts_seconds, spans[:, 0], side="left")
    last = np.searchsorted(pts_seconds, spans[:, 1], side="left")
    on_screen = np.clip(
        np.searchsorted(pts_seconds, spans[:, 0], side="right") - 1, 0, len(units) - 1
    )
    empty = last <= first
    first = np.where(empty, on_screen, first)
    last = np.where(empty, on_screen + 1, last)
    return unit((sums[last] - sums[first]) / (last - first)[:, None])
