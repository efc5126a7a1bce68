"""Answers of a localiser in training to the queries of validation, and their figures.

answers = answer(model, [batch], clip_weights=(0.0, 2.0))[2.0]
answers.by_need()[False].r1_half                # R@1, tIoU 0.5, of queries without a kind
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scanonce.models.soonet.network import Soonet
from scanonce.training.evaluation.metrics import pairwise_tiou
from scanonce.training.localiser.batches import FilmBatch, move_edges, pool_contents

CLIP_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Weights that are tried on validation."""
RERANKED = 40
"""Number of best anchors of a query whose edges are moved, as in a search."""


@dataclass(frozen=True)
class Figures:
    """Figures of the answers to queries, in [0, 1]."""

    num_queries: int
    film_r1: float
    """R@1 of the film."""
    r1_half: float
    """R@1 of film and span, tIoU 0.5."""
    r1_most: float
    """R@1 of film and span, tIoU 0.7."""


@dataclass(frozen=True)
class Answers:
    """The first answer to every query of libraries."""

    kinds: list[str]
    """Kinds of the queries, see `training.localiser.batches.Queries`."""
    right_film: NDArray[np.bool_]
    tiou: NDArray[np.float64]
    """tIoU with the correct answer that fits best; 0 in a wrong film."""

    def figures(self, rows: NDArray[np.bool_]) -> Figures:
        """Return the figures of these queries, bool [Q]."""
        tiou = self.tiou[rows]
        return Figures(
            int(rows.sum()),
            *(float(hits.mean()) for hits in (self.right_film[rows], tiou >= 0.5, tiou >= 0.7)),
        )

    def by_need(self) -> dict[bool, Figures]:
        """Return the figures of queries without and with a kind; in the rendered world the latter need time."""
        needs = np.array([bool(kind) for kind in self.kinds])
        return {
            kind: self.figures(needs == kind) for kind in (False, True) if (needs == kind).any()
        }

    def summary(self) -> str:
        """Return the figures of both kinds of queries in one line."""
        words = {False: "no time", True: "time"}
        by_need = self.by_need()
        return "; ".join(
            f"{f'needs {words[kind]}: ' if len(by_need) > 1 else ''}"
            f"film {f.film_r1:.3f}, R@1 .5 {f.r1_half:.3f}, .7 {f.r1_most:.3f}"
            for kind, f in by_need.items()
        )

    @property
    def selection_metric(self) -> float:
        """Mean of R@1, tIoU 0.5, of queries that need time and of those that do not."""
        return float(np.mean([figures.r1_half for figures in self.by_need().values()]))


@torch.inference_mode()
def answer(
    model: Soonet,
    batches: Iterable[FilmBatch],
    *,
    clip_weights: Sequence[float] = (0.0,),
    reranked: int = RERANKED,
) -> dict[float, Answers]:
    """Answer all queries of libraries as a search does, for several weights of the frames' own similarity.

    The anchors of all films of a library are ranked by s1 + s2. The edges of the best are moved, and these are ranked
    again with the cosine between the query and the mean of the span's frames added.

    Args:
        model: network; its mode is restored.
        batches: libraries.
        clip_weights: weights of the cosine.
        reranked: number of best anchors of a query that are ranked again.
    """
    was_training = model.training
    model.eval()
    found = {weight: ([], []) for weight in clip_weights}  # type: dict[float, tuple[list[bool], list[float]]]
    kinds: list[str] = []
    for batch in batches:
        ranked = _ranked(model, batch, reranked)
        kinds += batch.queries.kinds
        for weight, (right, tious) in found.items():
            best = (ranked.scores + weight * ranked.cosines).argmax(axis=1)[:, None]
            film = np.take_along_axis(ranked.films, best, axis=1)  # [Q, 1]
            span = np.take_along_axis(ranked.spans, best[..., None], axis=1)  # [Q, 1, 2]
            same = film == batch.queries.films  # [Q, M]
            right += same.any(axis=1).tolist()
            fit = pairwise_tiou(span, batch.queries.spans)[:, 0]  # [Q, M]
            tious += (fit * same).max(axis=1).tolist()
    model.train(was_training)
    return {
        weight: Answers(kinds, np.array(right), np.array(tious))
        for weight, (right, tious) in found.items()
    }


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The K best anchors of each query, with moved edges."""

    scores: NDArray[np.float32]
    """[Q, K], s1 + s2."""
    spans: NDArray[np.float64]
    """[Q, K, 2]."""
    films: NDArray[np.int64]
    """[Q, K]."""
    cosines: NDArray[np.float64]
    """[Q, K], see `_cosines`."""


def _ranked(model: Soonet, batch: FilmBatch, reranked: int) -> _Ranked:
    queries, anchors = batch.queries, batch.anchors
    texts = torch.from_numpy(queries.features(model.config.text_features)).to(batch.device)
    contexts, contents = batch.encode(model)
    first, second = model.query_vectors(texts).chunk(2, dim=1)
    scores = (
        first @ F.normalize(torch.cat(contexts), dim=1).T + second @ pool_contents(contents).T
    )  # [Q, A]
    top = scores.topk(min(reranked, scores.shape[1]), dim=1)
    spans = anchors.spans[top.indices].clone()  # [Q, K, 2]
    ends = np.cumsum(anchors.counts).tolist()
    for scale, (ctx, content) in enumerate(zip(contexts, contents, strict=True)):
        begin = ends[scale] - anchors.counts[scale]
        of_query, position = torch.nonzero(
            (top.indices >= begin) & (top.indices < ends[scale]), as_tuple=True
        )
        for q, k in zip(torch.split(of_query, 4096), torch.split(position, 4096), strict=True):
            at = top.indices[q, k] - begin
            offsets = model.regress(texts[q], ctx[at], content[at])
            spans[q, k] = move_edges(spans[q, k], offsets)
    chosen = top.indices.cpu()
    films = anchors.films[chosen.numpy()]
    duration = batch.durations[films]
    whole = np.clip(spans.cpu().double().numpy(), 0, duration[..., None])
    # edges in the wrong order, or less than a frame apart: keep the anchor
    turned = whole[..., 1] - whole[..., 0] < 1 / batch.grid.fps
    whole[turned] = anchors.spans.cpu()[chosen].double().numpy()[turned]
    return _Ranked(top.values.cpu().numpy(), whole, films, _cosines(batch, whole, films))


def _cosines(
    batch: FilmBatch, spans: NDArray[np.float64], films: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosine of each query with the mean of the unit frames of its spans, [Q, K]."""
    joint = batch.queries.joint.astype(np.float64)
    joint /= np.linalg.norm(joint, axis=1, keepdims=True)
    cosines = np.zeros(films.shape)
    units = F.normalize(batch.frames, dim=2).cpu().double().numpy()
    sums = np.pad(units.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))  # [B, L + 1, F]
    fps = batch.grid.fps
    start = np.ceil(spans[..., 0] * fps - 1e-6).astype(int).clip(0, units.shape[1] - 1)
    end = np.ceil(spans[..., 1] * fps - 1e-6).astype(int).clip(start + 1, units.shape[1])
    for row, query in enumerate(joint):
        mean = sums[films[row], end[row]] - sums[films[row], start[row]]
        cosines[row] = mean @ query / np.maximum(np.linalg.norm(mean, axis=1), 1e-9)
    return cosines
