"""Terms of the loss of a localiser: SOONet's ranking and boundary losses (arXiv 2303.08345). Pure functions.

Anchors are ranked for each query, and queries for each anchor, by a smooth NDCG (Qin et al. 2010). The edges of anchors
that overlap the truth are trained by their IoU. `choice_loss` is ours.
"""

from __future__ import annotations

import torch

MASKED_BELOW = 1000.0
"""Distance of masked items below the lowest score."""
NEGLIGIBLE_BITS = 30.0
"""Gains that are smaller than the highest one by this power of 2 vanish in float32."""


def span_iou(spans: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Return the IoU of every span with every truth, in [0, 1].

    Args:
        spans: [N, 2] seconds; an empty span overlaps nothing.
        truths: [Q, 2] seconds.

    Returns:
        [Q, N].
    """
    start, end = spans[:, 0], spans[:, 1]
    first, last = truths[:, :1], truths[:, 1:]  # [Q, 1]
    inside = (torch.minimum(end, last) - torch.maximum(start, first)).clamp(min=0)
    either = (end - start).clamp(min=0) + (last - first) - inside
    return inside / either.clamp(min=1e-9)


def approx_ndcg_loss(
    labels: torch.Tensor,
    scores: torch.Tensor,
    mask: torch.Tensor,
    *,
    temperature: float = 0.01,
    label_temperature: float = 0.01,
) -> torch.Tensor:
    """Return 1 - NDCG of each row, with the rank 0.5 + sum over j of sigmoid((p_j - p_i) / temperature).

    This rank has a gradient. Gains are 2^(label / label_temperature) - 1 and discounts 1 / ln(1 + rank), as in the
    paper's code: at 0.01 an anchor with 0.1 less IoU has a thousandth of the gain. Ranks are computed only for items
    whose gain does not vanish in float32, which needs about 10 N comparisons instead of N^2.

    Args:
        labels: [R, N] in [0, 1], quality of each item; masked items count as 0.
        scores: [R, N], scores to rank by; SOONet's are sigmoids.
        mask: bool, broadcasts to [R, N]: items that exist.
        temperature: temperature of the scores; the smaller, the closer to the exact NDCG.
        label_temperature: temperature of the labels.

    Returns:
        [R] in [0, 1]; 1 without a gradient for a row without a good item.
    """
    mask = mask.expand_as(labels)
    labels = torch.where(mask, labels, 0.0) / label_temperature
    scores = torch.where(mask, scores, scores.detach().min() - MASKED_BELOW) / temperature
    highest = labels.max(dim=1, keepdim=True).values
    counted = ((labels > highest - NEGLIGIBLE_BITS) & (labels > 0)).sum(dim=1).max()
    gains, items = labels.topk(max(1, int(counted)), dim=1)  # [R, K], falling
    gains = torch.exp2(gains) - 1
    own = scores.gather(1, items)
    ranks = 0.5 + torch.sigmoid(scores[:, None, :] - own[:, :, None]).sum(dim=2)  # [R, K]
    reached = (gains / torch.log1p(ranks)).sum(dim=1)
    ideal_ranks = torch.arange(1, gains.shape[1] + 1, dtype=gains.dtype, device=gains.device)
    ideal = (gains / torch.log1p(ideal_ranks)).sum(dim=1)
    return 1 - torch.where(ideal > 0, reached / ideal.clamp(min=1e-30), 0.0)


def choice_loss(
    labels: torch.Tensor, scores: torch.Tensor, *, scale: float, label_temperature: float = 0.1
) -> torch.Tensor:
    """Return the cross-entropy of each row's choice among all items, with soft targets from the labels.

    Unlike the approximate NDCG it has a gradient for items whose scores are far apart.

    Args:
        labels: [R, N] in [0, 1]; items of 0 are never a target, and each row has a better one.
        scores: [R, N].
        scale: factor of the scores; with a higher one the best wrong items matter more.
        label_temperature: difference of labels that reduces a target by a factor of e.

    Returns:
        [R].
    """
    targets = (labels / label_temperature).masked_fill(labels <= 0, -torch.inf).softmax(dim=1)
    return -(targets * (scale * scores).log_softmax(dim=1)).sum(dim=1)


def iou_loss(spans: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """Return -ln of the overlap of each span with its own truth, divided by the hull of both.

    Args:
        spans: [P, 2] seconds; an end may be before its start.
        truths: [P, 2] seconds.

    Returns:
        [P], 0 if both are equal and about 20 if they do not overlap.
    """
    inside = torch.minimum(spans[:, 1], truths[:, 1]) - torch.maximum(spans[:, 0], truths[:, 0])
    hull = torch.maximum(spans[:, 1], truths[:, 1]) - torch.minimum(spans[:, 0], truths[:, 0])
    return -torch.log((inside.clamp(min=0) + 1e-8) / (hull + 1e-8))
