"""The loss of a localiser over one small library: SOONet's five terms (arXiv 2303.08345), and two of ours.

terms = library_loss(model, batch, LocaliserRecipe(), np.random.default_rng(0))
torch.stack(list(terms.values())).sum().backward()
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scanonce.models.soonet.network import Soonet
from scanonce.training.localiser.batches import (
    FilmBatch,
    Queries,
    label_anchors,
    move_edges,
    pool_contents,
)
from scanonce.training.localiser.recipe import LocaliserRecipe
from scanonce.training.localiser.terms import approx_ndcg_loss, choice_loss, iou_loss

TERMS = ("context", "content", "sum", "choice", "context to query", "content to query", "edges")
"""Names of the terms of the loss."""
_NEAR = 0.3
"""Anchors with a higher IoU with a query rank the queries, as in the paper."""


def draw_queries(queries: Queries, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one query of each kind for every scene: about its happening, and about its contents."""
    kinds = np.unique(queries.kinds, return_inverse=True)[1]
    keys = queries.scenes * (kinds.max() + 1) + kinds
    order = rng.permutation(len(keys))
    _, first = np.unique(keys[order], return_index=True)
    chosen: NDArray[np.int64] = np.sort(order[first])
    return chosen


def library_loss(
    model: Soonet, batch: FilmBatch, recipe: LocaliserRecipe, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Return the weighted terms of the loss over one library; their sum is the loss.

    Five are the paper's, but over the anchors of all films instead of one movie, and with means instead of sums. If
    every scene has a query, every anchor is a positive of a query in the second stage too, and a hard negative of
    others. Two more rank by s1 + s2, as a search does. In a long film the second stage sees only some anchors
    (`LocaliserRecipe.content_frames`), first those near an answer; in the paper it sees only these.
    """
    rows = draw_queries(batch.queries, rng)
    texts = torch.from_numpy(batch.queries.features(model.config.text_features)[rows])
    texts = texts.to(batch.device)
    texts = texts + recipe.text_noise * texts.std() * torch.randn_like(texts)
    labels, answers = label_anchors(batch.anchors, batch.queries, rows)  # [R, A]
    chosen = _chosen_contents(batch, labels, recipe)
    contexts, contents = batch.encode(model, recipe.frame_noise * batch.deviation, chosen)
    has_kind = torch.from_numpy(batch.queries.has_kind[rows]).to(batch.device)
    weights = torch.where(has_kind, recipe.kind_weight, 1.0)
    weights = weights / weights.mean()
    seen = _Seen(contexts, contents, chosen)
    return {
        **_query_terms(model, recipe, texts, labels, weights, seen),
        **_anchor_terms(model, recipe, texts, labels, seen),
        "edges": recipe.iou_weight
        * _edges_loss(model, batch, rows, texts, labels, answers, seen, recipe),
    }


@dataclass(frozen=True)
class _Seen:
    """Contexts and contents of the films of a batch, see `FilmBatch.encode`."""

    contexts: list[torch.Tensor]
    """[A_i, D] by scale."""
    contents: list[torch.Tensor]
    """[K_i, a_i, D] by scale, of the chosen anchors."""
    chosen: torch.Tensor | None
    """bool [A]; None: all."""

    def of_chosen(self, values: torch.Tensor) -> torch.Tensor:
        """Select the chosen anchors, [..., A] to [..., K]."""
        return values if self.chosen is None else values[..., self.chosen]

    def among_chosen(self, anchors: torch.Tensor) -> torch.Tensor:
        """bool [A], without the anchors that are not chosen."""
        return anchors if self.chosen is None else anchors & self.chosen

    @property
    def chosen_contexts(self) -> list[torch.Tensor]:
        """[K_i, D] by scale."""
        if self.chosen is None:
            return self.contexts
        chosen = torch.split(self.chosen, [len(context) for context in self.contexts])
        return [context[kept] for context, kept in zip(self.contexts, chosen, strict=True)]


def _chosen_contents(
    batch: FilmBatch, labels: torch.Tensor, recipe: LocaliserRecipe
) -> torch.Tensor | None:
    """bool [A], the anchors whose contents are computed; None: all, if they are few enough.

    They have the best anchor of every query, then random ones near an answer, then random others.
    """
    lengths = torch.tensor(batch.lengths).repeat_interleave(torch.tensor(batch.anchors.counts))
    if int(lengths.sum()) <= recipe.content_frames:
        return None
    lengths = lengths.to(labels.device)
    best = best_anchors(labels, recipe.regress_iou)
    urgency = torch.rand(len(lengths)).to(labels.device)  # drawn on the CPU: the same on any device
    urgency += (labels > recipe.regress_iou).any(dim=0).float() + 2 * best.any(dim=0).float()
    order = urgency.argsort(descending=True)
    affordable = lengths[order].cumsum(dim=0) <= recipe.content_frames
    chosen = best_of_each(labels).any(dim=0)
    chosen[order[affordable]] = True
    return chosen


def best_of_each(labels: torch.Tensor) -> torch.Tensor:
    """bool [R, A], the best anchor of each query; none if a query overlaps no anchor."""
    best = torch.zeros_like(labels, dtype=torch.bool)
    best.scatter_(1, labels.argmax(dim=1, keepdim=True), True)
    return best & (labels > 0)


def best_anchors(labels: torch.Tensor, least: float) -> torch.Tensor:
    """bool [R, A], anchors with a label over ``least``; the best one if a query has none.

    A moment of half a second fits no anchor of two seconds well, but must be found too.
    """
    good = labels > least
    return good | (best_of_each(labels) & ~good.any(dim=1, keepdim=True))


def _query_terms(
    model: Soonet,
    recipe: LocaliserRecipe,
    texts: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    seen: _Seen,
) -> dict[str, torch.Tensor]:
    """Terms that rank the anchors for each query."""
    of_context, of_content = model.query_vectors(texts).chunk(2, dim=1)
    every_s1 = of_context @ F.normalize(torch.cat(seen.contexts), dim=1).T  # [R, A]
    s2 = of_content @ pool_contents(seen.contents).T  # [R, K]
    wanted, s1 = seen.of_chosen(labels), seen.of_chosen(every_s1)  # [R, K]
    positive = (wanted > 0).any(dim=0)
    choice = choice_loss(wanted, s1 + s2, scale=recipe.choice_scale)
    return {
        "context": (_ndcg(labels, every_s1, recipe) * weights).mean(),
        "content": (_ndcg(wanted, s2, recipe, positive) * weights).mean(),
        "sum": recipe.sum_weight * (_ndcg(wanted, (s1 + s2) / 2, recipe) * weights).mean(),
        "choice": recipe.choice_weight * (choice * weights).mean(),
    }


def _anchor_terms(
    model: Soonet, recipe: LocaliserRecipe, texts: torch.Tensor, labels: torch.Tensor, seen: _Seen
) -> dict[str, torch.Tensor]:
    """Terms that rank the queries for each anchor near one of them; these heads are used in training only."""
    near = seen.among_chosen(best_anchors(labels, _NEAR).any(dim=0))  # [A]
    to_text = F.normalize(model.input_text(texts), dim=1).T
    a1 = F.normalize(model.v2q_stage1.fc(torch.cat(seen.contexts)[near]), dim=1) @ to_text
    of_contents = pool_contents(
        [model.v2q_stage2.fc(content) for content in seen.contents]
    )  # [K, D]
    a2 = of_contents[seen.of_chosen(near)] @ to_text  # [A', R]
    wanted = labels.T[near]
    return {
        "context to query": recipe.anchor_weight * _ndcg(wanted, a1, recipe).mean(),
        "content to query": recipe.anchor_weight * _ndcg(wanted, a2, recipe).mean(),
    }


def _ndcg(
    labels: torch.Tensor,
    scores: torch.Tensor,
    recipe: LocaliserRecipe,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    everything = torch.ones(1, dtype=torch.bool, device=labels.device)
    return approx_ndcg_loss(
        labels,
        torch.sigmoid(scores),
        everything if mask is None else mask,
        temperature=recipe.temperature,
        label_temperature=recipe.label_temperature,
    )


def _edges_loss(
    model: Soonet,
    batch: FilmBatch,
    rows: NDArray[np.int64],
    texts: torch.Tensor,
    labels: torch.Tensor,
    answers: torch.Tensor,
    seen: _Seen,
    recipe: LocaliserRecipe,
) -> torch.Tensor:
    """IoU loss of the moved edges of good anchors with the answers that they fit best."""
    truths = torch.from_numpy(batch.queries.spans[rows]).float().to(labels.device)  # [R, M, 2]
    counts = [len(content) for content in seen.contents]
    parts: list[torch.Tensor] = []
    by_scale = zip(
        torch.split(seen.of_chosen(best_anchors(labels, recipe.regress_iou)), counts, dim=1),
        torch.split(seen.of_chosen(answers), counts, dim=1),
        torch.split(seen.of_chosen(batch.anchors.spans.T).T, counts),
        seen.chosen_contexts,
        seen.contents,
        strict=True,
    )
    for good, answer, spans, ctx, content in by_scale:
        of_query, at = torch.nonzero(good, as_tuple=True)
        offsets = model.regress(texts[of_query], ctx[at], content[at])
        truth = truths[of_query, answer[of_query, at]]
        parts.append(iou_loss(move_edges(spans[at], offsets), truth))
    return torch.cat(parts).mean()
