"""Where in a stretch of video a moment begins and ends, from the curve of frame scores alone.

Needs no training and works with any encoder whose frames and sentences share a space. It takes two steps:

1. How much each frame belongs to a moment: its score as a share of the best score around it, squashed, so that a
   scene that is merely similar does not count half.
2. Inside minus outside, over windows of many lengths, judged as a change of level is in statistics, so that one
   bright frame does not beat a whole scene:

       contrast = (mean inside - mean outside) * sqrt(n_inside * n_outside / (n_inside + n_outside))

   with twice as many frames outside as inside, half before and half after.

Means come from prefix sums: O(frames x lengths), no loop over spans.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from storage.records import Span

_LENGTH_STEP = 1.15
"""Ratio of two lengths that are tried: any true length is met within 7 %, a tIoU of 0.93."""

_MEMBER_SHARE, _MEMBER_WIDTH = 0.75, 0.15
"""Share of the best score around it from which a frame belongs to the moment rather than not, and how far from there
it takes to be sure. Chosen on rendered films of another seed than those whose figures docs/benchmarks.md shows."""


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A span of one video and how clearly it stands out there."""

    span: Span
    contrast: float
    """Change of membership against the frames around it, weighted by length; higher is better."""


def z_scores(curve: NDArray[np.float32], mean: float, std: float) -> NDArray[np.float64]:
    """The curve in standard deviations of the library's own scores for the query."""
    return (curve.astype(np.float64) - mean) / max(std, 1e-6)


def find_spans(
    curve: NDArray[np.float64],
    pts_seconds: NDArray[np.float64],
    *,
    end_seconds: float,
    longest_seconds: float,
    top: int,
    overlap: float,
) -> list[ScoredSpan]:
    """The spans of a stretch of video that stand out most, best first, none sharing more than ``overlap`` with another.

    Args:
        curve: ``[num_frames]`` score of the query at each frame, z-scored.
        pts_seconds: ``[num_frames]`` rising times of the frames.
        end_seconds: end of the last frame.
        longest_seconds: spans are at most this long.
        top: at most so many spans.
        overlap: see `suppress_overlaps`.

    Returns:
        Spans inside ``[pts_seconds[0], end_seconds)`` that start and end on frames. A stretch of one frame, and one
        that is equally good throughout, is one span; no frames give no spans.
    """
    if not len(curve):
        return []
    edges = np.append(pts_seconds, max(end_seconds, pts_seconds[-1]))
    first, last = _windows(edges, longest_seconds)
    reach = round(longest_seconds * len(curve) / max(float(edges[-1] - edges[0]), 1e-6)) // 2
    contrasts = _contrasts(membership(curve, reach), first, last)
    # most windows are no better inside than outside: they cannot be moments, unless there is nothing else
    better = np.flatnonzero(contrasts > min(0.0, contrasts.max() - 1e-9))
    first, last, contrasts = first[better], last[better], contrasts[better]
    spans = np.stack([edges[first], edges[last]], axis=1)
    return [
        ScoredSpan(Span(*spans[k].tolist()), float(contrasts[k]))
        for k in suppress_overlaps(spans, contrasts, overlap, top)
    ]


def membership(curve: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """How much each frame belongs to the best moment around it, from -1 (not at all) to 1.

    Args:
        curve: ``[num_frames]`` z-scores, at least one.
        reach: frames on either side among which the best is looked for.
    """
    reach = min(reach, len(curve))
    # a mean of three: the best score should not be one lucky frame
    smooth = sliding_window_view(np.pad(curve, 1, mode="edge"), 3).mean(axis=1)
    best = sliding_window_view(np.pad(smooth, reach, mode="edge"), 2 * reach + 1).max(axis=1)
    # shares count from 0, the library's mean; where nothing rises above it, from one deviation below the best
    floor = np.minimum(0.0, best - 1.0)
    share = (curve - floor) / (best - floor)
    members: NDArray[np.float64] = np.clip((share - _MEMBER_SHARE) / _MEMBER_WIDTH, -1.0, 1.0)
    return members


def _windows(
    edges: NDArray[np.float64], longest_seconds: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one-past-last frame of every window that is tried."""
    num_frames = len(edges) - 1
    reachable = np.searchsorted(edges, edges[:-1] + longest_seconds, side="right") - 1
    longest = max(1, int((reachable - np.arange(num_frames)).max()))  # frames
    steps = 1 + int(np.log(longest) / np.log(_LENGTH_STEP))
    lengths = np.unique(np.geomspace(1, longest, steps).round().astype(np.int64))
    first = np.concatenate([np.arange(num_frames - length + 1) for length in lengths])
    last = first + np.repeat(lengths, num_frames - lengths + 1)
    fits = (last <= reachable[first]) | (last - first == 1)
    return first[fits], last[fits]


def _contrasts(
    members: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Contrast of each window against as many frames on either side as it has itself.

    Where the stretch ends sooner, what is missing counts as not belonging: beyond the end of a video there is
    something else. So a scene that fills its video is found whole.
    """
    sums = np.concatenate([[0.0], np.cumsum(members)])
    inside = last - first
    left = np.maximum(first - inside, 0)
    right = np.minimum(last + inside, len(members))
    missing = 2 * inside - (first - left) - (right - last)
    around = (sums[first] - sums[left]) + (sums[right] - sums[last]) - missing
    mean_inside = (sums[last] - sums[first]) / inside
    contrasts: NDArray[np.float64] = (mean_inside - around / (2 * inside)) * np.sqrt(2 / 3 * inside)
    return contrasts


def suppress_overlaps(
    spans: NDArray[np.float64], scores: NDArray[np.float64], overlap: float, top: int
) -> list[int]:
    """Greedy temporal non-maximum suppression by intersection over the shorter span.

    Unlike tIoU this also drops a fragment of a better span, and a span around a better one: to a person they are the
    same moment.

    Args:
        spans: ``[num_spans, 2]`` seconds.
        scores: ``[num_spans]`` higher is better; equal scores keep the order they came in.
        overlap: in [0, 1]; a span that shares more than this with a better one is dropped.
        top: stops after so many.

    Returns:
        Positions of the kept spans, best first.
    """
    lengths = spans[:, 1] - spans[:, 0]
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < top:
        best, rest = int(order[0]), order[1:]
        kept.append(best)
        shared = np.minimum(spans[rest, 1], spans[best, 1]) - np.maximum(
            spans[rest, 0], spans[best, 0]
        )
        order = rest[shared <= overlap * np.minimum(lengths[rest], lengths[best])]
    return kept
