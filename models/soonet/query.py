"""SOONet's query side on stored arrays: scores of anchors, and boundaries of the few that are returned.

    query = model.query_vector(text)                                 # [1024]
    best = rank(query, vectors, 10)                                  # rows and scores of the best anchors of a video
    selected = SelectedAnchors(best.rows, vectors[best.rows], norms[best.rows], read, duration_seconds)
    (spans,) = refine(model, text, [selected])

Scores are ``s1 + s2``, the sum of two cosines, in [-2, 2]. The score of the published code is ``sigmoid(s1 + s2)``: the
same order, in [0.12, 0.88].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.dlpack import from_dlpack

from scanonce.models.runtime import use_one_thread
from scanonce.models.soonet.network import Soonet

FrameReader = Callable[[int, int], NDArray[np.floating]]
"""Reads the grid frames ``first`` to ``last - 1`` of a video: raw features ``[last - first, frame_dim]``, fewer at its
end."""

# rows converted from half precision to float32 together: 1 MB, which stays in the cache
_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class RankedAnchors:
    """The best anchors, best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    """``s1 + s2``."""


def score_anchors(query: NDArray[np.float32], vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scores ``s1 + s2`` of anchors, or ``s1`` if they are stored without a second stage.

    Args:
        query: ``[2 * hidden_dim]``, from `Soonet.query_vector`.
        vectors: ``[num_anchors, vector_dim]``, from `Soonet.scan`, float16 or float32; any rows, of any videos.

    Returns:
        ``[num_anchors]``, summed in float32.
    """
    use_one_thread()
    query = query[: vectors.shape[1]]
    # torch's product, not numpy's: its BLAS uses only the calling thread
    stored, wanted = from_dlpack(vectors), from_dlpack(query)
    scores = torch.empty(len(vectors))
    buffer = torch.empty(_BLOCK_ROWS, vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = stored[start : start + _BLOCK_ROWS]
        if block.dtype != torch.float32:
            block = buffer[: len(block)].copy_(block)
        torch.mv(block, wanted, out=scores[start : start + len(block)])
    result: NDArray[np.float32] = scores.numpy()
    return result


def rank(
    query: NDArray[np.float32],
    vectors: NDArray[np.floating],
    limit: int,
    *,
    counts: Sequence[int] | None = None,
    per_scale: int | None = None,
) -> RankedAnchors:
    """Rank the anchors of one video; of equal scores the first anchor wins.

    Args:
        query: ``[2 * hidden_dim]``.
        vectors: ``[num_anchors, 2 * hidden_dim]``, all anchors of the video.
        limit: maximum number of anchors.
        counts: anchors of each scale; only for ``per_scale``.
        per_scale: maximum number of anchors of each scale, the best by their context, that enter the second stage. The
            paper has 100, to save time; here there is nothing to save. None: all.
    """
    scores = score_anchors(query, vectors)
    rows = np.arange(len(scores))
    if per_scale is not None:
        half = len(query) // 2
        first_stage = score_anchors(query, vectors[:, :half])
        rows = preselect(first_stage, counts or [len(scores)], per_scale)
    rows = rows[_best(scores[rows], limit)]
    return RankedAnchors(rows, scores[rows])


def preselect(
    first_stage: NDArray[np.float32], counts: Sequence[int], per_scale: int
) -> NDArray[np.int64]:
    """Rows of the best anchors of each scale by ``s1``, rising: the candidates of the second stage."""
    firsts = np.cumsum([0, *counts])
    pieces = [
        np.sort(_best(first_stage[first:last], per_scale)) + first
        for first, last in pairwise(firsts)
    ]
    return np.concatenate(pieces)


def _best(scores: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Positions of the highest scores, highest first; of equal scores the first position wins."""
    if 0 < limit < len(scores):
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        positions = np.flatnonzero(scores >= least)  # in order of position, ties included
    else:
        positions = np.arange(len(scores))
    order = np.argsort(-scores[positions], kind="stable")[: max(0, limit)]
    best: NDArray[np.int64] = positions[order]
    return best


@torch.inference_mode()
def second_stage(
    model: Soonet,
    query: NDArray[np.float32],
    rows: NDArray[np.int64],
    read_frames: FrameReader,
    duration_seconds: float,
) -> NDArray[np.float32]:
    """Scores ``s2`` of anchors from frames, for models whose second stage cannot be stored (``stage2_pool="max"``).

    At the published size it costs 2.4 MFLOP per frame: for 100 anchors of each scale 15,000 frames, 0.2 to 0.5 s.
    """
    use_one_thread()
    wanted = torch.from_numpy(query[len(query) // 2 :]).to(model.device)
    scores = np.empty(len(rows), np.float32)
    for positions, contents in _contents(model, [(rows, read_frames, duration_seconds)]):
        cosines = F.normalize(contents, dim=-1) @ wanted  # [k, a]
        pooled = cosines.amax(1) if model.config.stage2_pool == "max" else cosines.mean(1)
        scores[positions] = pooled.cpu().numpy()
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class SelectedAnchors:
    """Anchors of one video whose boundaries are regressed."""

    rows: NDArray[np.int64]
    """``[K]``."""
    vectors: NDArray[np.floating]
    """``[K, vector_dim]`` their vectors, as stored."""
    norms: NDArray[np.float32]
    """``[K]`` their norms, as stored."""
    read_frames: FrameReader
    duration_seconds: float


@torch.inference_mode()
def refine(
    model: Soonet, text: ArrayLike, selected: Sequence[SelectedAnchors], *, raw: bool = False
) -> list[NDArray[np.float64]]:
    """Regress the spans of moments from selected anchors of some videos.

    At the published size it costs 3 MFLOP per frame of these anchors; frames that several anchors share are read and
    projected once. All videos go through the network together: its weights are larger than their data.

    Args:
        model: model in float32.
        text: ``[text_dim]`` raw text features.
        selected: anchors of each video.
        raw: return the spans of the published code, which may end after the video or before their start.

    Returns:
        For each video ``[K, 2]`` seconds, inside it and in order unless ``raw``.
    """
    use_one_thread()
    if not selected:
        return []
    device, grid = model.device, model.config.grid
    query = torch.as_tensor(np.asarray(text, np.float32), device=device)
    dim = model.config.hidden_dim
    units = np.concatenate([each.vectors[:, :dim].astype(np.float32) for each in selected])
    norms = np.concatenate([each.norms for each in selected])
    contexts = torch.from_numpy(units * norms[:, None]).to(device)
    offsets = np.empty((len(norms), 2), np.float32)
    sources = [(each.rows, each.read_frames, each.duration_seconds) for each in selected]
    for positions, contents in _contents(model, sources):
        found = model.regress(query, contexts[torch.from_numpy(positions).to(device)], contents)
        offsets[positions] = found.cpu().numpy()
    ends = np.cumsum([len(each.rows) for each in selected])[:-1]
    return [
        spans_of_offsets(
            grid.spans_of(each.rows, each.duration_seconds), moves, each.duration_seconds, raw=raw
        )
        for each, moves in zip(selected, np.split(offsets, ends), strict=True)
    ]


def spans_of_offsets(
    anchors: NDArray[np.float64],
    offsets: NDArray[np.float32],
    duration_seconds: float,
    *,
    raw: bool = False,
) -> NDArray[np.float64]:
    """Move both ends of anchor spans ``[K, 2]`` by ``offsets [K, 2]``, in lengths of the anchor."""
    lengths = anchors[:, 1:] - anchors[:, :1]
    moved = anchors + offsets * lengths
    moved[:, 0] = np.maximum(moved[:, 0], 0.0)
    return moved if raw else clamp_spans(moved, duration_seconds)


def clamp_spans(spans: NDArray[np.float64], duration_seconds: float) -> NDArray[np.float64]:
    """Clip spans to ``[0, duration]`` and put start before end."""
    return np.sort(np.clip(spans, 0.0, duration_seconds), axis=1)


def sigmoid(scores: ArrayLike) -> NDArray[np.float64]:
    """The published score of ``s1 + s2``, in (0, 1)."""
    values: NDArray[np.float64] = 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
    return values


def _contents(
    model: Soonet, sources: Sequence[tuple[NDArray[np.int64], FrameReader, float]]
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield ``(positions, contents [k, a, D])``, once for each scale among the anchors.

    Args:
        model: model in float32.
        sources: rows, reader and duration of each video; positions count through all of them.
    """
    bounds = np.concatenate(
        [model.config.grid.frame_bounds(rows, duration) for rows, _, duration in sources]
    )  # [K, 2]
    ends = np.cumsum([len(rows) for rows, _, _ in sources])[:-1]
    frames: list[NDArray[np.float32]] = []
    starts: list[NDArray[np.int64]] = []
    for own, (_, read_frames, _) in zip(np.split(bounds, ends), sources, strict=True):
        read, own_starts = _read_runs(own, read_frames, model.config.frame_dim)
        starts.append(own_starts + sum(map(len, frames)))
        frames.append(read)
    start = np.concatenate(starts)  # [K]
    hidden: Tensor = model.input_frames(
        torch.from_numpy(np.concatenate(frames)).to(model.device)
    )  # [F, D]
    projected = model.content_encoder.project(hidden)  # [F, 3D]
    lengths = bounds[:, 1] - bounds[:, 0]
    for length in np.unique(lengths).tolist():
        positions = np.flatnonzero(lengths == length)
        at = torch.from_numpy(start[positions, None] + np.arange(length)).to(model.device)  # [k, a]
        yield positions, model.content_encoder(hidden[at], projected[at])


def _read_runs(
    bounds: NDArray[np.int64], read_frames: FrameReader, frame_dim: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read the frames of all anchors, each once.

    Anchors that touch or overlap are read as one run; frames after the end of the video are zero.

    Args:
        bounds: ``[K, 2]`` first and one-past-last grid frame of each anchor.
        read_frames: reader of the video.
        frame_dim: width of frame features.

    Returns:
        Frames ``[F, frame_dim]`` and the position ``[K]`` of each anchor's first frame among them.
    """
    order = np.argsort(bounds[:, 0], kind="stable")
    starts = np.empty(len(bounds), np.int64)
    runs: list[list[int]] = []
    total = 0  # frames of the runs before the last
    for number in order.tolist():
        first, last = bounds[number].tolist()
        if runs and first <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            total += runs[-1][1] - runs[-1][0] if runs else 0
            runs.append([first, last])
        starts[number] = total + first - runs[-1][0]
    total += runs[-1][1] - runs[-1][0] if runs else 0
    frames = np.zeros((total, frame_dim), np.float32)
    written = 0
    for first, last in runs:
        stored = read_frames(first, last)
        frames[written : written + len(stored)] = stored
        written += last - first
    return frames, starts
