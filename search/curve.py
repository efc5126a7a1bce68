"""Begin and end of the moments in stretches of video, from the curve of frame scores alone.

Needs no training and works with any encoder whose frames and texts share a space. There are three steps:

1. Membership: the degree to which each frame belongs to a moment. It is the frame's score as a share of the best score
   around it, squashed, so that a merely similar scene does not count half.
2. Contrast: membership inside minus outside a window, for windows of many lengths. It is weighted as a change of level
   is in statistics, so that one bright frame does not beat a whole scene:

       contrast = (mean inside - mean outside) * sqrt(n_inside * n_outside / (n_inside + n_outside))

   with twice as many frames outside as inside, half of them before and half after.
3. Refinement: the edges of the best windows move to where the contrast is greatest.

A curve has one score for each target (`storage.targets`): a picture that is held counts as long as it is on screen.

Means come from prefix sums: O(frames x lengths), no loop over spans. All stretches of a query are concatenated to one
row, with gaps so wide that no window reaches from one to the next; numpy is called once for all of them.

`change_points` and `snap` also need the embeddings of the frames. They move the edges that any localiser found to the
nearest change of shot.

The constants were chosen by `benchmarks.recipes`; docs/benchmarks.md has the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from scanonce.storage.records import Span

_LENGTH_STEP = 1.5
"""Ratio of successive window lengths. It is coarse because edges are refined later; on films of seed 7 it is as good
as 1.01."""

_NUDGE_SHARE, _NUDGE_STEPS, _NUDGE_PASSES = 0.25, 8, 2
"""Refinement: the longest move of an edge as a share of the window, the number of steps from one frame up to that, and
the number of passes. Two moves of a quarter bridge `_LENGTH_STEP`."""

_MEMBER_SHARE, _MEMBER_WIDTH = 0.75, 0.15
"""Share of the best score around it at which the membership of a frame changes sign, and the distance from there to
full membership. Chosen on rendered films of another seed than those in docs/benchmarks.md."""

_SHOT_REACH, _SHOT_RATIO, _SHOT_SHARE = 12, 3.0, 0.5
"""Change of shot: frames on either side that give the usual distance, the least multiple of the usual distance, and
the least share of the spread of the frames around it. On films of seed 7 this finds every cut and fade, and 3 % of its
points are neither."""

SNAP_REACH_SECONDS = 1.0
"""Longest move of an edge by `snap`. On films of seed 7, whose moments begin and end with shots, reaches of 0.5 to 3 s
differ by 0.006 of mean tIoU. If moments do not begin and end with shots, long reaches may do harm (not measured)."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A piece of video with its curve."""

    curve: NDArray[np.float64]
    """``[num_frames]`` z-score of the query at each frame, one for each target."""
    pts_seconds: NDArray[np.float64]
    """``[num_frames]`` rising times of the targets."""
    end_seconds: float
    """End of the last frame."""


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """A span of one video and its contrast."""

    span: Span
    contrast: float
    """Difference of membership from the frames around it, weighted by length; higher is better."""


def background_level(scores: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean and standard deviation of a query's scores over a sample of the library.

    Args:
        scores: ``[num_clips]`` cosines of the query with clips drawn at random; may be empty.

    Returns:
        ``(0.0, 1.0)`` for fewer than two clips, which give no estimate.
    """
    if len(scores) < 2:
        return 0.0, 1.0
    return float(scores.mean()), float(scores.std())


def z_scores(curve: NDArray[np.float32], mean: float, std: float) -> NDArray[np.float64]:
    """Return the curve in standard deviations of the query's scores over the library."""
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
    """Find the spans of one stretch; see `find_spans_each`."""
    stretch = Stretch(curve, pts_seconds, end_seconds)
    return find_spans_each([stretch], longest_seconds=longest_seconds, top=top, overlap=overlap)[0]


def find_spans_each(
    stretches: Sequence[Stretch], *, longest_seconds: float, top: int, overlap: float
) -> list[list[ScoredSpan]]:
    """Find the spans of each stretch with the highest contrast, best first; none overlaps another too much.

    Stretches do not influence each other; one call takes a fraction of the time of many.

    Args:
        stretches: the stretches.
        longest_seconds: length of the longest span; a single frame may be longer.
        top: most spans per stretch.
        overlap: see `suppress_overlaps`.

    Returns:
        For each stretch, spans inside ``[pts_seconds[0], end_seconds)`` with edges halfway between two frames. A
        stretch of one frame, or of equal scores, is one span; a stretch without frames has none.
    """
    found: list[list[ScoredSpan]] = [[] for _ in stretches]
    filled = [k for k, stretch in enumerate(stretches) if len(stretch.curve)]
    if not filled:
        return found
    row = _lay_out([stretches[k] for k in filled], longest_seconds)
    first, last, contrasts = _coarse_windows(row)
    # Of many windows around one moment the best is refined. Windows that then are the same moment are dropped.
    for refine in (True, False):
        kept = _best_apart(
            row.owner[first], row.edges[first], row.edges[last], contrasts, overlap, top
        )
        first, last, contrasts = first[kept], last[kept], contrasts[kept]
        if refine:
            first, last, contrasts = _refine(row, first, last)
    values = (row.owner[first], row.edges[first], row.edges[last], contrasts)
    for owner, start, end, contrast in zip(*(each.tolist() for each in values), strict=True):
        found[filled[owner]].append(ScoredSpan(Span(start, end), contrast))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """Stretches concatenated to one row, with gaps of ``longest`` frames before, between and after them."""

    longest: int
    """Number of frames of the longest window of any stretch."""
    sums: NDArray[np.float64]
    """Sum of the membership of all frames before each frame. Gaps count as not belonging, as if another scene followed
    the end of the video, so that a scene that fills its video is found whole."""
    edges: NDArray[np.float64]
    """Begin of each frame in seconds of its video, and after the last frame of a stretch its end."""
    furthest: NDArray[np.int64]
    """One past the last frame of the longest window that starts at each frame; in a gap, the frame itself."""
    owner: NDArray[np.int64]
    """Index of the stretch of each frame."""


def _lay_out(stretches: Sequence[Stretch], longest_seconds: float) -> _Row:
    """Concatenate stretches that have frames."""
    edges = [_edges(stretch) for stretch in stretches]
    # at least one frame, even if that is longer than allowed
    lengths = [
        np.maximum(np.searchsorted(each, each[:-1] + longest_seconds, side="right") - 1 - k, 1)
        for each in edges
        for k in [np.arange(len(each) - 1)]
    ]
    longest = max(int(each.max()) for each in lengths)
    sizes = np.array([len(stretch.curve) for stretch in stretches]) + longest
    begins = longest + np.cumsum(sizes) - sizes
    num_frames = longest + int(sizes.sum())
    members = np.full(num_frames + longest, -1.0)
    all_edges = np.zeros(num_frames)
    furthest = np.arange(num_frames)
    for begin, stretch, ours, ahead in zip(begins.tolist(), stretches, edges, lengths, strict=True):
        frames = slice(begin, begin + len(ahead))
        rate = len(ahead) / max(float(ours[-1] - ours[0]), 1e-6)
        members[frames] = membership(stretch.curve, round(longest_seconds * rate) // 2)
        all_edges[begin : begin + len(ours)] = ours
        furthest[frames] += ahead
    # Sums of whole multiples of 2**-20 are exact: equally good windows have equal contrasts at any position.
    sums = np.concatenate([[0.0], np.cumsum(np.rint(members * 2**20) / 2**20)])
    owner = np.repeat(np.arange(len(stretches)), sizes)
    return _Row(longest, sums, all_edges, furthest, np.append(np.zeros(longest, np.int64), owner))


def _edges(stretch: Stretch) -> NDArray[np.float64]:
    """Return ``[num_frames + 1]``: the begin of each frame of a stretch, and the end of the stretch."""
    pts = stretch.pts_seconds
    return np.concatenate([pts[:1], _between(pts), [max(stretch.end_seconds, float(pts[-1]))]])


def membership(curve: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the membership of each frame in the best moment around it, from -1 (not at all) to 1.

    Args:
        curve: ``[num_frames]`` z-scores, at least one.
        reach: number of frames on either side that may hold the best score.
    """
    # The mean of three frames, so that the best score is not one lucky frame.
    padded = np.concatenate([curve[:1], curve, curve[-1:]])
    smooth = (padded[:-2] + curve + padded[2:]) / 3
    best = running_max(smooth, min(reach, len(curve)))
    # Shares count from 0, the mean of the library. If no score exceeds it, from one deviation below the best.
    floor = np.minimum(0.0, best - 1.0)
    share = (curve - floor) / (best - floor)
    members: NDArray[np.float64] = np.clip((share - _MEMBER_SHARE) / _MEMBER_WIDTH, -1.0, 1.0)
    return members


def running_max(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the greatest of each value and its ``reach`` neighbours on either side, in O(values).

    The algorithm of van Herk and Gil-Werman: any window is the end of one block of its length and the beginning of the
    next.
    """
    window = 2 * reach + 1
    num_blocks = (len(values) + 2 * reach) // window + 1
    blocks = np.full((num_blocks, window), -np.inf)
    blocks.ravel()[reach : reach + len(values)] = values
    upto = np.maximum.accumulate(blocks, axis=1).ravel()
    onward = np.maximum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].ravel()
    return np.maximum(onward[: len(values)], upto[window - 1 : window - 1 + len(values)])


def _coarse_windows(
    row: _Row,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return first frames, one-past-last frames and contrasts of the windows that are local maxima.

    The neighbours of a window start one frame earlier or later, or have the next shorter or longer length.
    """
    longest = row.longest
    begin, end = longest, len(row.edges) - longest
    # 1, 2, 3, 5, 8 ... frames; not the longest itself, which depends on the other stretches
    ladder = np.rint(_LENGTH_STEP ** np.arange(1 + np.log(longest) / np.log(_LENGTH_STEP)))
    lengths = np.unique(ladder[ladder <= longest].astype(np.int64))
    # Each line holds the sums up to a fixed number of frames before or after each frame.
    lines = sliding_window_view(row.sums, end - begin)
    contrasts = 1.5 * (lines[longest + lengths] - lines[longest])
    contrasts -= 0.5 * (lines[longest + 2 * lengths] - lines[longest - lengths])
    contrasts *= np.sqrt(2 / (3 * lengths))[:, None]
    ahead = (row.furthest - np.arange(len(row.edges)))[begin:end]
    contrasts[lengths[:, None] > ahead] = -np.inf
    # Most windows are no better inside than outside. They cannot be moments unless a stretch has no others.
    owner = row.owner[begin:end]
    starts = np.searchsorted(owner, np.arange(owner[-1] + 1))
    best = np.maximum.reduceat(contrasts.max(axis=0), starts)
    better = contrasts > np.minimum(0.0, best - 1e-9)[owner]
    length, first = np.nonzero(better & _peaks(contrasts))
    return begin + first, begin + first + lengths[length], contrasts[length, first]


def _peaks(contrasts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values are at least as great as their neighbours in both directions."""
    peaks = np.ones(contrasts.shape, np.bool_)
    for here, there in ((contrasts, peaks), (contrasts.T, peaks.T)):
        there[1:] &= here[1:] >= here[:-1]
        there[:-1] &= here[:-1] >= here[1:]
    return peaks


def _refine(
    row: _Row, first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Move start and end of each window in turn to where the contrast is greatest; return windows and contrasts."""
    which, nudges = np.arange(len(first)), _nudges(row.longest)
    for side in ("start", "end") * _NUDGE_PASSES:
        steps = nudges[last - first]
        starts = first[:, None] + steps * (side == "start")
        ends = last[:, None] + steps * (side == "end")
        contrasts = _contrasts(row, starts, ends)
        best = contrasts.argmax(axis=1)
        first, last = starts[which, best], ends[which, best]
    return first, last, contrasts[which, best]


@lru_cache(maxsize=16)
def _nudges(longest: int) -> NDArray[np.int64]:
    """Return the moves of an edge, in frames, for windows of 0 to ``longest`` frames: none, then fine to coarse.

    For a window of 64 frames: 0, -1, 1, -1, 1, -2, 2, -3, 3, -4, 4, -6, 6, -8, 8, -11, 11, -16, 16.
    """
    most = np.maximum(_NUDGE_SHARE * np.arange(longest + 1), 1.0)[:, None]
    steps = np.rint(most ** (np.arange(_NUDGE_STEPS + 1) / _NUDGE_STEPS))
    both = np.stack([-steps, steps], axis=-1).reshape(longest + 1, -1)
    return np.insert(both, 0, 0.0, axis=1).astype(np.int64)


def _contrasts(row: _Row, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the contrasts of windows in an array of any shape.

    Windows that are empty, too long or outside a stretch have minus infinity.
    """
    fits = (first < last) & (last <= row.furthest[first.clip(0, len(row.furthest) - 1)])
    first, last = np.where(fits, first, row.longest), np.where(fits, last, row.longest + 1)
    inside = last - first
    contrasts = 1.5 * (row.sums[last] - row.sums[first])
    contrasts -= 0.5 * (row.sums[last + inside] - row.sums[first - inside])
    contrasts *= np.sqrt(2 / (3 * inside))
    return np.where(fits, contrasts, -np.inf)


def suppress_overlaps(
    spans: NDArray[np.float64], scores: NDArray[np.float64], overlap: float, top: int
) -> list[int]:
    """Suppress non-maxima in time, greedily, by intersection over the shorter span.

    Unlike tIoU this also drops a fragment of a better span and a span around a better one. To a person they are the
    same moment.

    Args:
        spans: ``[num_spans, 2]`` seconds.
        scores: ``[num_spans]`` higher is better; equal scores keep their order.
        overlap: in [0, 1]; a span that shares more than this with a better one is dropped.
        top: most spans to keep.

    Returns:
        Indices of the kept spans, best first.
    """
    one = np.zeros(len(scores), np.int64)
    kept: list[int] = _best_apart(one, spans[:, 0], spans[:, 1], scores, overlap, top).tolist()
    return kept


def _best_apart(
    owner: NDArray[np.int64],
    starts: NDArray[np.float64],
    ends: NDArray[np.float64],
    scores: NDArray[np.float64],
    overlap: float,
    top: int,
) -> NDArray[np.int64]:
    """Apply `suppress_overlaps` within each owner; return the indices kept, by owner, then best first."""
    order = np.lexsort((-scores, owner))
    owner, starts, ends = owner[order], starts[order], ends[order]
    kept: list[NDArray[np.int64]] = []
    owners: list[NDArray[np.int64]] = []
    while len(order) and len(kept) < top:
        # One round keeps the best span of each owner and drops those that overlap it too much.
        first = np.append(True, owner[1:] != owner[:-1])
        kept.append(order[first])
        owners.append(owner[first])
        best = np.flatnonzero(first)[np.cumsum(first) - 1]
        shared = np.minimum(ends, ends[best]) - np.maximum(starts, starts[best])
        lengths = ends - starts
        apart = (shared <= overlap * np.minimum(lengths, lengths[best])) & ~first
        order, owner, starts, ends = order[apart], owner[apart], starts[apart], ends[apart]
    if not kept:
        return order
    return np.concatenate(kept)[np.argsort(np.concatenate(owners), kind="stable")]


def _between(pts_seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate when each frame but the first replaces the one before it, ``[num_frames - 1]``.

    A cut between two sampled frames is anywhere between them. Halfway is off by a quarter of their distance on average,
    the later frame by half of it.
    """
    middles: NDArray[np.float64] = (pts_seconds[1:] + pts_seconds[:-1]) / 2
    return middles


def change_points(
    units: NDArray[np.float32], pts_seconds: NDArray[np.float64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Find the changes of shot from the frames alone; they depend on no query.

    A frame begins a shot if its distance (one minus cosine) from the frame before it exceeds that of its neighbours,
    is clearly above the median distance around it, and is large for the spread of the frames there. All thresholds are
    relative, so they hold for any encoder. O(targets) numbers and O(frames) vectors.

    Args:
        units: ``[num_frames, dim]`` unit vectors of the stored frames.
        pts_seconds: ``[num_targets]`` rising times of the targets.
        rows: ``[num_targets]`` rising, the row of the frame on screen at each target.

    Returns:
        Rising times, each halfway between two targets; none for fewer than two frames.
    """
    changes = np.flatnonzero(np.diff(rows)) + 1  # targets with another frame than the one before
    if not len(changes):
        return np.empty(0)
    before, after = units[rows[changes - 1]], units[rows[changes]]
    distances = np.zeros(len(rows) - 1)
    distances[changes - 1] = 1.0 - np.einsum("nd,nd->n", after, before, dtype=np.float64)
    reach = min(_SHOT_REACH, len(distances))
    around = np.pad(distances, reach, mode="symmetric")
    usual = np.median(sliding_window_view(around, 2 * reach + 1)[changes - 1], axis=1)
    # the mean distance of all pairs of unit vectors is 1 - |their mean|^2
    first, last = np.maximum(changes - reach, 0), np.minimum(changes + reach, len(rows))
    means = _sums_of_targets(units, rows, first, last) / (last - first)[:, None]
    spread = 1.0 - np.einsum("nd,nd->n", means, means)
    enough = np.maximum(_SHOT_RATIO * usual, _SHOT_SHARE * spread).clip(min=1e-4)
    here = distances[changes - 1]
    cuts = (here >= running_max(distances, 1)[changes - 1]) & (here > enough)
    points: NDArray[np.float64] = _between(pts_seconds)[changes[cuts] - 1]
    return points


def _sums_of_targets(
    units: NDArray[np.float32],
    rows: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Sums of the frames on screen at the targets ``first`` to ``last - 1``, without a copy for each target."""
    counts = np.bincount(rows, minlength=len(units))
    sums = np.zeros((len(units) + 1, units.shape[1]))
    np.cumsum(units * counts[:, None], axis=0, dtype=np.float64, out=sums[1:])
    begins = np.cumsum(counts) - counts

    def upto(targets: NDArray[np.int64]) -> NDArray[np.float64]:
        row = rows[np.minimum(targets, len(rows) - 1)]
        part = (targets - begins[row])[:, None] * units[row].astype(np.float64)
        return np.asarray(sums[row] + part, np.float64)

    return upto(last) - upto(first)


def snap(
    spans: NDArray[np.float64], points: NDArray[np.float64], reach_seconds: float
) -> NDArray[np.float64]:
    """Move each edge of the spans to the nearest change point within reach; of two equally near ones to the earlier.

    A span whose edges would meet is unchanged.

    Args:
        spans: ``[num_spans, 2]`` seconds.
        points: ``[num_points]`` rising seconds; may be empty.
        reach_seconds: longest move of an edge.

    Returns:
        ``[num_spans, 2]`` in the same order.
    """
    fenced = np.concatenate([[-np.inf], points, [np.inf]])
    after = np.searchsorted(fenced, spans)
    earlier, later = fenced[after - 1], fenced[after]
    nearest = np.where(spans - earlier <= later - spans, earlier, later)
    near = (np.abs(nearest - spans) <= reach_seconds) & np.isfinite(nearest)
    moved = np.where(near, nearest, spans)
    return np.where(moved[:, :1] < moved[:, 1:], moved, spans)
