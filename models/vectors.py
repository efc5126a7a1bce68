"""Arithmetic on embeddings in float32: unit vectors, cosines, and means of the frames of spans.

The order of mean pooling matters: unit length per frame, mean over the frames of the clip, unit length again (meanP of
CLIP4Clip, arXiv 2104.08860). The mean of raw frame vectors is another vector, in which frames with large norms
outweigh the rest.

    >>> frames = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    >>> mean_pool(frames).round(3)
    array([0.707, 0.707], dtype=float32)
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanonce.storage.targets import answering_rows, first_targets, target_bounds

_FEW_NUMBERS = 10_000  # too few to pay for the detour through torch


def unit(vectors: ArrayLike) -> NDArray[np.float32]:
    """Vectors of length 1 along the last axis; a zero vector stays zero. Any shape, returns float32."""
    array = as_float32(vectors)
    units: NDArray[np.float32] = np.divide(array, _norms(array)[..., None], dtype=np.float32)
    return units


def cosines_with(query: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines ``[N]`` of a unit vector ``[dim]`` with vectors ``[N, dim]`` of any length; 0 with a zero vector."""
    cosines: NDArray[np.float32] = np.divide(vectors @ query, _norms(vectors), dtype=np.float32)
    return cosines


def as_float32(vectors: ArrayLike) -> NDArray[np.float32]:
    """Convert to float32; many float16 numbers by torch, which is five times as fast as numpy."""
    array = np.asarray(vectors)
    if array.dtype == np.float16 and array.size > _FEW_NUMBERS:
        import torch  # slow to import

        writeable = np.require(array, requirements=["C", "W"])
        floats: NDArray[np.float32] = torch.from_numpy(writeable).float().numpy()
        return floats
    return np.asarray(array, dtype=np.float32)


def _norms(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths along the last axis, never 0."""
    # einsum makes no copy of the squares, unlike np.linalg.norm
    squares: NDArray[np.float32] = np.einsum("...i,...i->...", array, array)
    return np.maximum(np.sqrt(squares), np.float32(1e-12))


def mean_pool(frames: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float32]:
    """Pool runs of frames to one embedding each: ``unit(masked mean(unit(frame)))``.

    Args:
        frames: ``[..., num_frames, dim]`` frame features, raw or unit.
        mask: ``[..., num_frames]``, true for frames that count; None: all count.

    Returns:
        ``[..., dim]`` float32 of length 1; zero if no frame counts.
    """
    units = unit(frames)
    if mask is None:
        return unit(units.sum(axis=-2) / max(units.shape[-2], 1))
    weights = np.asarray(mask, dtype=np.float32)[..., None]
    return unit((units * weights).sum(axis=-2) / np.maximum(weights.sum(axis=-2), 1.0))


def pool_spans(
    units: NDArray[np.float32],
    pts_seconds: NDArray[np.float64],
    spans: NDArray[np.float64],
    fps: float,
) -> NDArray[np.float32]:
    """Pool many spans of one video: `mean_pool` of the frames on screen at the targets in each (`storage.targets`).

    Args:
        units: ``[num_frames, dim]`` unit vectors of the frames, at least one.
        pts_seconds: ``[num_frames]`` rising, the time from which each is on screen.
        spans: ``[num_spans, 2]`` half-open, seconds; one between two targets has the frame of the one before it.
        fps: targets per second.

    Returns:
        ``[num_spans, dim]`` float32 of length 1.
    """
    starts = first_targets(pts_seconds, fps)
    bounds = target_bounds(spans, fps)
    first, last = answering_rows(starts, np.stack([bounds[:, 0], bounds[:, 1] - 1]))
    # Frames between the first and the last of a span count for all of their targets, these two for those in the span.
    inner = units * np.diff(starts, append=starts[-1:]).astype(np.float32)[:, None]
    sums = _sums_between(inner, first + 1, last)
    ends = np.minimum(bounds[:, 1], np.append(starts, np.iinfo(np.int64).max)[first + 1])
    sums += (ends - bounds[:, 0]).astype(np.float32)[:, None] * units[first]
    is_other = np.where(last > first, bounds[:, 1] - starts[last], 0)
    sums += is_other.astype(np.float32)[:, None] * units[last]
    return unit(sums)


def _sums_between(
    rows: NDArray[np.float32], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sums of the rows ``first`` to ``last - 1``, ``[len(first), dim]``; zero where there are none."""
    # reduceat sums the rows from each position to the next. Of the positions first, last, first, last ... every second
    # sum is that of a span. A position must be less than the number of rows, so there is one row more.
    padded = np.concatenate([rows, np.zeros_like(rows[:1])])
    positions = np.stack([np.minimum(first, len(rows)), np.minimum(last, len(rows))], axis=1)
    sums: NDArray[np.float32] = np.add.reduceat(padded, positions.ravel())[::2]
    sums[first >= last] = 0.0
    return sums
