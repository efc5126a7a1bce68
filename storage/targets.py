"""The times at which a video is sampled, and the stored frame that is on screen at each of them.

Target ``k`` is at ``k / fps`` seconds. It is answered by the picture on screen then: the last one that begins at or
before it. A picture that is held answers many targets and is stored once, with the time at which it begins.

    >>> shown_at(np.array([0.0, 1.2]), 2.0, 0.5, 2.0)      # frames that begin at 0 and at 1.2 seconds
    (array([0.5, 1. , 1.5]), array([0, 0, 1]))
"""

import math

import numpy as np
from numpy.typing import NDArray

TOLERANCE_SECONDS = 5e-7
"""A picture that begins at 0.5000001 answers the target 0.5: floats are not exact."""


def is_shown_at_target(begin_seconds: float, end_seconds: float, fps: float) -> bool:
    """Whether there is a target while a picture is on screen, ``[begin_seconds, end_seconds)``."""
    first = math.ceil((begin_seconds - TOLERANCE_SECONDS) * fps)
    return first / fps < end_seconds - TOLERANCE_SECONDS


def first_targets(seconds: NDArray[np.float64], fps: float) -> NDArray[np.int64]:
    """Return the number of the first target at or after each time, in the shape of ``seconds``."""
    numbers: NDArray[np.int64] = np.ceil((seconds - TOLERANCE_SECONDS) * fps).astype(np.int64)
    return numbers


def target_bounds(spans: NDArray[np.float64], fps: float) -> NDArray[np.int64]:
    """Return the first and one past the last target of half-open spans, both of shape ``[num_spans, 2]``.

    A span between two targets has the one before it, so that every span has a target.
    """
    bounds = first_targets(spans, fps)
    empty = bounds[:, 0] >= bounds[:, 1]
    bounds[empty, 1] = bounds[empty, 0]
    bounds[empty, 0] -= 1
    return bounds


def answering_rows(starts: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of the stored frame that answers each target.

    Args:
        starts: ``[num_frames]`` rising, the first target that each frame answers (`first_targets`), at least one.
        targets: numbers of targets, in any shape. Before the first frame, the first one answers.
    """
    rows: NDArray[np.int64] = np.searchsorted(starts, targets, side="right") - 1
    return np.maximum(rows, 0)


def shown_at(
    pts_seconds: NDArray[np.float64], fps: float, start_seconds: float, end_seconds: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the times of the targets in ``[start_seconds, end_seconds)`` and the row of the frame on screen at each.

    Args:
        pts_seconds: ``[num_frames]`` rising, the time at which each stored frame begins, at least one.
        fps: targets per second.
        start_seconds: start of the span.
        end_seconds: end of the span, finite. A span between two targets has one time, its start.

    Returns:
        ``[num_targets]`` seconds and ``[num_targets]`` rows, at least one of each.
    """
    ((first, last),) = target_bounds(np.array([[start_seconds, end_seconds]]), fps).tolist()
    targets = np.arange(first, last)
    rows = answering_rows(first_targets(pts_seconds, fps), targets)
    return np.maximum(targets / fps, start_seconds), rows
