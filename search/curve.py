"""Where in a stretch of video a moment begins and ends, from the curve of frame scores alone.

Needs no training and works with any encoder whose frames and sentences share a space. It takes three steps:

1. How much each frame belongs to a moment: its score as a share of the best score around it, squashed, so that a
   scene that is merely similar does not count half.
2. Inside minus outside, over windows of many lengths, judged as a change of level is in statistics, so that one
   bright frame does not beat a whole scene:

       contrast = (mean inside - mean outside) * sqrt(n_inside * n_outside / (n_inside + n_outside))

   with twice as many frames outside as inside, half before and half after.
3. The edges of the best windows moved to where the contrast is greatest.

Means come from prefix sums: O(frames x lengths), no loop over spans. The stretches of a query are laid one after
another into one long row, far enough apart not to see each other: numpy is called once for all of them.

`change_points` and `snap` need the pictures too: they move edges, of whatever localiser, to where shots change.
Chosen by `benchmarks.recipes`; docs/benchmarks.md has the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from scanonce.storage.records import Span

_LENGTH_STEP = 1.5
"""Ratio of two lengths that are tried. Coarse, because edges are then refined; on films of seed 7 as good as 1.01."""

_NUDGE_SHARE, _NUDGE_STEPS, _NUDGE_PASSES = 0.25, 8, 2
"""How far an edge is moved at most, as a share of the window, in how many steps from a frame up to there, and how
often. Twice a quarter bridges `_LENGTH_STEP`."""

_MEMBER_SHARE, _MEMBER_WIDTH = 0.75, 0.15
"""Share of the best score around it from which a frame belongs to the moment rather than not, and how far from there
it takes to be sure. Chosen on rendered films of another seed than those whose figures docs/benchmarks.md shows."""

_LONGEST_GAP_SECONDS = 1.0
"""Frames further apart are key frames, which encoders put at cuts: the picture did not change half a gap before."""

_SHOT_REACH, _SHOT_RATIO, _SHOT_SHARE = 12, 3.0, 0.5
"""Frames on either side that tell what is usual, how many times the usual distance a cut has, and how much of the
spread of the pictures around it. On films of seed 7: every cut and fade is found, 3 % of the points are neither."""

SNAP_REACH_SECONDS = 1.0
"""How far `snap` may move an edge. On films of seed 7, whose moments begin and end with shots, reaches of 0.5 to 3 s
differ by 0.006 of mean tIoU; where moments do not, the longer ones may do harm (not measured)."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """A piece of video with its curve."""

    curve: NDArray[np.float64]
    """``[num_frames]`` score of the query at each frame, z-scored."""
    pts_seconds: NDArray[np.float64]
    """``[num_frames]`` rising times of the frames."""
    end_seconds: float
    """End of the last frame."""


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
    """The spans of one stretch, as `find_spans_each` gives them."""
    stretch = Stretch(curve, pts_seconds, end_seconds)
    return find_spans_each([stretch], longest_seconds=longest_seconds, top=top, overlap=overlap)[0]


def find_spans_each(
    stretches: Sequence[Stretch], *, longest_seconds: float, top: int, overlap: float
) -> list[list[ScoredSpan]]:
    """The spans of each stretch that stand out most, best first, none sharing more than ``overlap`` with another.

    Stretches do not influence each other; together they take a fraction of the time.

    Args:
        stretches: where to look.
        longest_seconds: spans are at most this long, single frames excepted.
        top: at most so many spans a stretch.
        overlap: see `suppress_overlaps`.

    Returns:
        Of each stretch spans inside ``[pts_seconds[0], end_seconds)``, whose edges lie halfway between two frames. A
        stretch of one frame, and one that is equally good throughout, is one span; no frames give no spans.
    """
    found: list[list[ScoredSpan]] = [[] for _ in stretches]
    filled = [k for k, stretch in enumerate(stretches) if len(stretch.curve)]
    if not filled:
        return found
    row = _lay_out([stretches[k] for k in filled], longest_seconds)
    first, last, contrasts = _coarse_windows(row)
    # of a crowd around one moment the best is refined, and what then is the same moment dropped
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
    """Stretches one after another, with ``longest`` frames of nothing before, between and after them."""

    longest: int
    """Frames of the longest window of any stretch."""
    sums: NDArray[np.float64]
    """Membership of all frames before each. What is missing around a stretch counts as not belonging: beyond the end
    of a video there is something else. So a scene that fills its video is found whole."""
    edges: NDArray[np.float64]
    """When each frame begins, and after the last one of a stretch when that ends, in seconds of its video."""
    furthest: NDArray[np.int64]
    """One past the last frame of the longest window that starts at each frame; of nothing, the frame itself."""
    owner: NDArray[np.int64]
    """Position of each frame's stretch."""


def _lay_out(stretches: Sequence[Stretch], longest_seconds: float) -> _Row:
    """The row of stretches that have frames."""
    edges = [_edges(stretch) for stretch in stretches]
    # a frame may be longer than allowed
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
    # sums of whole multiples of 2**-20 are exact: equally good windows have equal contrasts, wherever they lie
    sums = np.concatenate([[0.0], np.cumsum(np.rint(members * 2**20) / 2**20)])
    owner = np.repeat(np.arange(len(stretches)), sizes)
    return _Row(longest, sums, all_edges, furthest, np.append(np.zeros(longest, np.int64), owner))


def _edges(stretch: Stretch) -> NDArray[np.float64]:
    """``[num_frames + 1]``: where the frames of a stretch begin, and its end."""
    pts = stretch.pts_seconds
    return np.concatenate([pts[:1], _between(pts), [max(stretch.end_seconds, float(pts[-1]))]])


def membership(curve: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """How much each frame belongs to the best moment around it, from -1 (not at all) to 1.

    Args:
        curve: ``[num_frames]`` z-scores, at least one.
        reach: frames on either side among which the best is looked for.
    """
    # a mean of three: the best score should not be one lucky frame
    padded = np.concatenate([curve[:1], curve, curve[-1:]])
    smooth = (padded[:-2] + curve + padded[2:]) / 3
    best = running_max(smooth, min(reach, len(curve)))
    # shares count from 0, the library's mean; where nothing rises above it, from one deviation below the best
    floor = np.minimum(0.0, best - 1.0)
    share = (curve - floor) / (best - floor)
    members: NDArray[np.float64] = np.clip((share - _MEMBER_SHARE) / _MEMBER_WIDTH, -1.0, 1.0)
    return members


def running_max(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The greatest of each value and its ``reach`` neighbours on either side, in O(values).

    By van Herk and Gil-Werman: any window is the end of one block as long as it and the beginning of the next.
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
    """First and one-past-last frame of the windows that beat those a frame sooner or later and a length up or down,
    and their contrasts."""
    longest = row.longest
    begin, end = longest, len(row.edges) - longest
    # 1, 2, 3, 5, 8 ... frames; not the longest itself, which is another one beside other stretches
    ladder = np.rint(_LENGTH_STEP ** np.arange(1 + np.log(longest) / np.log(_LENGTH_STEP)))
    lengths = np.unique(ladder[ladder <= longest].astype(np.int64))
    # sums up to each frame, and up to a fixed number of frames after or before it: a line each
    lines = sliding_window_view(row.sums, end - begin)
    contrasts = 1.5 * (lines[longest + lengths] - lines[longest])
    contrasts -= 0.5 * (lines[longest + 2 * lengths] - lines[longest - lengths])
    contrasts *= np.sqrt(2 / (3 * lengths))[:, None]
    ahead = (row.furthest - np.arange(len(row.edges)))[begin:end]
    contrasts[lengths[:, None] > ahead] = -np.inf
    # most windows are no better inside than outside: they cannot be moments, unless there is nothing else
    owner = row.owner[begin:end]
    starts = np.searchsorted(owner, np.arange(owner[-1] + 1))
    best = np.maximum.reduceat(contrasts.max(axis=0), starts)
    better = contrasts > np.minimum(0.0, best - 1e-9)[owner]
    length, first = np.nonzero(better & _peaks(contrasts))
    return begin + first, begin + first + lengths[length], contrasts[length, first]


def _peaks(contrasts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which are at least as great as those before and after them in both directions."""
    peaks = np.ones(contrasts.shape, np.bool_)
    for here, there in ((contrasts, peaks), (contrasts.T, peaks.T)):
        there[1:] &= here[1:] >= here[:-1]
        there[:-1] &= here[:-1] >= here[1:]
    return peaks


def _refine(
    row: _Row, first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The windows with start and end moved in turn to where the contrast is greatest, and their contrasts."""
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
    """Frames by which an edge may move, for windows of 0 to ``longest`` frames: not at all, then fine to coarse.

    Of a window of 64 frames: 0, -1, 1, -1, 1, -2, 2, -3, 3, -4, 4, -6, 6, -8, 8, -11, 11, -16, 16.
    """
    most = np.maximum(_NUDGE_SHARE * np.arange(longest + 1), 1.0)[:, None]
    steps = np.rint(most ** (np.arange(_NUDGE_STEPS + 1) / _NUDGE_STEPS))
    both = np.stack([-steps, steps], axis=-1).reshape(longest + 1, -1)
    return np.insert(both, 0, 0.0, axis=1).astype(np.int64)


def _contrasts(row: _Row, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float64]:
    """Contrasts of windows of any shape; minus infinity for those that are empty, too long or outside a stretch."""
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
    """`suppress_overlaps` within each owner: positions of what is kept, by owner, then best first."""
    order = np.lexsort((-scores, owner))
    owner, starts, ends = owner[order], starts[order], ends[order]
    kept: list[NDArray[np.int64]] = []
    owners: list[NDArray[np.int64]] = []
    while len(order) and len(kept) < top:
        # one round keeps the best of each owner and drops what is too much like it
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
    """``[num_frames - 1]``: when each frame but the first takes over from the one before it, as far as one can tell.

    A cut between two sampled frames lies anywhere between them: halfway is off by a quarter of their distance on
    average, the later frame by half of it.
    """
    later: NDArray[np.float64] = (
        pts_seconds[1:] - np.minimum(np.diff(pts_seconds), _LONGEST_GAP_SECONDS) / 2
    )
    return later


def change_points(
    units: NDArray[np.float32], pts_seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where one shot goes over into another, from the pictures alone: no query, so once per video.

    A frame begins a shot when it is further from the one before it (one minus cosine) than those beside it are, and
    than is usual around there: clearly above the median distance, and far for pictures as different as these.
    Nothing is measured in units of the encoder. O(frames).

    Args:
        units: ``[num_frames, dim]`` unit vectors of the frames.
        pts_seconds: ``[num_frames]`` rising.

    Returns:
        Rising times, each halfway between two frames; none for fewer than two frames.
    """
    if len(units) < 2:
        return np.empty(0)
    distances = 1.0 - np.einsum("nd,nd->n", units[1:], units[:-1], dtype=np.float64)
    reach = min(_SHOT_REACH, len(distances))
    around = np.pad(distances, reach, mode="symmetric")
    usual = np.median(sliding_window_view(around, 2 * reach + 1), axis=1)
    # the mean distance of all pairs of unit vectors is 1 - |their mean|^2
    sums = np.concatenate([np.zeros_like(units[:1]), units]).cumsum(axis=0, dtype=np.float64)
    middle = np.arange(1, len(units))
    first, last = np.maximum(middle - reach, 0), np.minimum(middle + reach, len(units))
    means = (sums[last] - sums[first]) / (last - first)[:, None]
    spread = 1.0 - np.einsum("nd,nd->n", means, means)
    enough = np.maximum(_SHOT_RATIO * usual, _SHOT_SHARE * spread).clip(min=1e-4)
    cuts = (distances >= running_max(distances, 1)) & (distances > enough)
    points: NDArray[np.float64] = _between(pts_seconds)[cuts]
    return points


def snap(
    spans: NDArray[np.float64], points: NDArray[np.float64], reach_seconds: float
) -> NDArray[np.float64]:
    """The spans with each edge moved to the nearest change point within reach.

    Of two as near the earlier. A span whose edges would meet stays as it is.

    Args:
        spans: ``[num_spans, 2]`` seconds.
        points: ``[num_points]`` rising seconds; may be empty.
        reach_seconds: no edge moves further.

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
