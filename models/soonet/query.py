"""SOONet's query side on stored arrays: scores of anchors, and boundaries for the few that are returned.

    query = model.query_vector(text)                                 # [1024]
    best = rank(query, vectors, 10)                                  # rows and scores of the best anchors of a video
    chosen = Chosen(best.rows, vectors[best.rows], norms[best.rows], read, duration_seconds)
    (spans,) = refine(model, text, [chosen])

Scores are ``s1 + s2``, the sum of two cosines, in [-2, 2]. What the published code calls a score is
``sigmoid(s1 + s2)``: the same order, in [0.12, 0.88].
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
"""Raw features ``[last - first, frame_dim]`` of a video's grid frames ``first`` to ``last - 1``; fewer at its end."""

# half-precision vectors made float32 at once: 1 MB, which stays in the cache
_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The best anchors, best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    """``s1 + s2``."""


def score_anchors(query: NDArray[np.float32], vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """``s1 + s2`` of anchors, or ``s1`` where they are stored without a second stage.

    Args:
        query: ``[2 * hidden_dim]`` of `Soonet.query_vector`.
        vectors: ``[num_anchors, vector_dim]`` of `Soonet.scan`, float16 or float32; any rows, of any videos.

    Returns:
        ``[num_anchors]``, summed in float32.
    """
    use_one_thread()
    query = query[: vectors.shape[1]]
    # torch's product, not numpy's: its BLAS keeps to the thread that calls
    stored, wanted = from_dlpack(vectors), from_dlpack(query)
    scores = torch.empty(len(vectors))
    room = torch.empty(_BLOCK_ROWS, vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = stored[start : start + _BLOCK_ROWS]
        if block.dtype != torch.float32:
            block = room[: len(block)].copy_(block)
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
) -> Ranked:
    """The best anchors of one video, of equal ones the first.

    Args:
        query: ``[2 * hidden_dim]``.
        vectors: ``[num_anchors, 2 * hidden_dim]``, all of the video.
        limit: how many at most.
        counts: anchors of each scale; only for ``per_scale``.
        per_scale: let only so many anchors of each scale, the best by their context, into the second stage, as the
            paper does to save time (100). There is nothing to save here, so: None, all.
    """
    scores = score_anchors(query, vectors)
    rows = np.arange(len(scores))
    if per_scale is not None:
        half = len(query) // 2
        first_stage = score_anchors(query, vectors[:, :half])
        rows = gate(first_stage, counts or [len(scores)], per_scale)
    rows = rows[_best(scores[rows], limit)]
    return Ranked(rows, scores[rows])


def gate(
    first_stage: NDArray[np.float32], counts: Sequence[int], per_scale: int
) -> NDArray[np.int64]:
    """Rows of the best anchors of each scale by their first score, rising: the candidates of the second stage."""
    firsts = np.cumsum([0, *counts])
    pieces = [
        np.sort(_best(first_stage[first:last], per_scale)) + first
        for first, last in pairwise(firsts)
    ]
    return np.concatenate(pieces)


def _best(scores: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """Positions of the highest scores, highest first, of equal ones the first."""
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
    """``s2`` of anchors from their frames, for models whose second stage cannot be stored (``stage2_pool="max"``).

    At the published size it costs 2.4 MFLOP a frame: for 100 anchors of each scale 15,000 frames, 0.2 to 0.5 s.
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
class Chosen:
    """Anchors of one video that shall get boundaries."""

    rows: NDArray[np.int64]
    """``[K]``."""
    vectors: NDArray[np.floating]
    """``[K, vector_dim]`` theirs, as stored."""
    norms: NDArray[np.float32]
    """``[K]`` theirs, as stored."""
    read_frames: FrameReader
    duration_seconds: float


@torch.inference_mode()
def refine(
    model: Soonet, text: ArrayLike, chosen: Sequence[Chosen], *, raw: bool = False
) -> list[NDArray[np.float64]]:
    """Spans of the moments that anchors of some videos have found.

    At the published size it costs 3 MFLOP a frame of these anchors; frames that several share are read and projected
    once. All videos go through the network together: its weights are larger than what goes through.

    Args:
        model: in float32.
        text: ``[text_dim]`` raw text features.
        chosen: by video.
        raw: leave spans as the published code gives them: they may end after the video and before their start.

    Returns:
        Of each video ``[K, 2]`` seconds, inside it and in order unless ``raw``.
    """
    use_one_thread()
    if not chosen:
        return []
    device, grid = model.device, model.config.grid
    query = torch.as_tensor(np.asarray(text, np.float32), device=device)
    dim = model.config.hidden_dim
    units = np.concatenate([each.vectors[:, :dim].astype(np.float32) for each in chosen])
    norms = np.concatenate([each.norms for each in chosen])
    contexts = torch.from_numpy(units * norms[:, None]).to(device)
    offsets = np.empty((len(norms), 2), np.float32)
    sources = [(each.rows, each.read_frames, each.duration_seconds) for each in chosen]
    for positions, contents in _contents(model, sources):
        found = model.regress(query, contexts[torch.from_numpy(positions).to(device)], contents)
        offsets[positions] = found.cpu().numpy()
    ends = np.cumsum([len(each.rows) for each in chosen])[:-1]
    return [
        spans_of_offsets(
            grid.spans_of(each.rows, each.duration_seconds), moves, each.duration_seconds, raw=raw
        )
        for each, moves in zip(chosen, np.split(offsets, ends), strict=True)
    ]


def spans_of_offsets(
    anchors: NDArray[np.float64],
    offsets: NDArray[np.float32],
    duration_seconds: float,
    *,
    raw: bool = False,
) -> NDArray[np.float64]:
    """Anchor spans ``[K, 2]`` with both ends moved by ``offsets [K, 2]`` lengths of the anchor."""
    lengths = anchors[:, 1:] - anchors[:, :1]
    moved = anchors + offsets * lengths
    moved[:, 0] = np.maximum(moved[:, 0], 0.0)
    return moved if raw else clamp_spans(moved, duration_seconds)


def clamp_spans(spans: NDArray[np.float64], duration_seconds: float) -> NDArray[np.float64]:
    """Spans inside ``[0, duration]``, start before end."""
    return np.sort(np.clip(spans, 0.0, duration_seconds), axis=1)


def sigmoid(scores: ArrayLike) -> NDArray[np.float64]:
    """``s1 + s2`` as the published code shows it, in (0, 1)."""
    values: NDArray[np.float64] = 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
    return values


def _contents(
    model: Soonet, sources: Sequence[tuple[NDArray[np.int64], FrameReader, float]]
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """``(positions, contents [k, a, D])``, once for each scale among the anchors.

    Args:
        model: in float32.
        sources: of each video rows, reader and duration; positions count through them.
    """
    bounds = np.concatenate(
        [model.config.grid.frame_bounds(rows, duration) for rows, _, duration in sources]
    )  # [K, 2]
    ends = np.cumsum([len(rows) for rows, _, _ in sources])[:-1]
    frames: list[NDArray[np.float32]] = []
    places: list[NDArray[np.int64]] = []
    for mine, (_, read_frames, _) in zip(np.split(bounds, ends), sources, strict=True):
        pictures, starts = _read_runs(mine, read_frames, model.config.frame_dim)
        places.append(starts + sum(map(len, frames)))
        frames.append(pictures)
    place = np.concatenate(places)
    hidden: Tensor = model.input_frames(
        torch.from_numpy(np.concatenate(frames)).to(model.device)
    )  # [F, D]
    projected = model.content_encoder.project(hidden)  # [F, 3D]
    lengths = bounds[:, 1] - bounds[:, 0]
    for length in np.unique(lengths).tolist():
        positions = np.flatnonzero(lengths == length)
        at = torch.from_numpy(place[positions, None] + np.arange(length)).to(model.device)  # [k, a]
        yield positions, model.content_encoder(hidden[at], projected[at])


def _read_runs(
    bounds: NDArray[np.int64], read_frames: FrameReader, frame_dim: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Frames of all anchors, each once, and the position of each anchor's first: ``[F, frame_dim]``, ``[K]``.

    Anchors that touch or overlap are read as one run; what lies after the end of the video is zero.
    """
    order = np.argsort(bounds[:, 0], kind="stable")
    places = np.empty(len(bounds), np.int64)
    runs: list[list[int]] = []
    total = 0  # frames of the runs before the last
    for number in order.tolist():
        first, last = bounds[number].tolist()
        if runs and first <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            total += runs[-1][1] - runs[-1][0] if runs else 0
            runs.append([first, last])
        places[number] = total + first - runs[-1][0]
    total += runs[-1][1] - runs[-1][0] if runs else 0
    frames = np.zeros((total, frame_dim), np.float32)
    start = 0
    for first, last in runs:
        stored = read_frames(first, last)
        frames[start : start + len(stored)] = stored
        start += last - first
    return frames, places
