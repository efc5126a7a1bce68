"""What a localiser is trained by: SOONet's ranking and boundary losses (arXiv 2303.08345). Pure functions.

Anchors are ranked for each query, and queries for each anchor, by a smooth NDCG (Qin et al. 2010); the edges of those
that overlap the truth are drawn to it by their IoU. `choice_loss` is ours.
"""

from __future__ import annotations

import torch

MASKED_BELOW = 1000.0
"""How far below the lowest score of all a masked item is put."""
NEGLIGIBLE_BITS = 30.0
"""Gains of less than the highest one by so many powers of 2 vanish in float32 beside it."""


def span_iou(spans: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """IoU of every span with every truth, in [0, 1].

    Args:
        spans: [N, 2] seconds; an empty one overlaps nothing.
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
    """1 - NDCG of each row with a rank that has a gradient: 0.5 + sum over j of sigmoid((p_j - p_i) / temperature).

    Gains are 2^(label / label_temperature) - 1 and discounts 1 / ln(1 + rank), as in the paper's code: at 0.01 an
    anchor with 0.1 less IoU counts a thousandth. Ranks are worked out only for items whose gain can be seen in
    float32 beside the highest of the row, which leaves of N^2 comparisons some N times ten.

    Args:
        labels: [R, N] in [0, 1], how good each item is; what is masked counts as 0.
        scores: [R, N], ranked by; SOONet's are sigmoids.
        mask: bool, broadcasts to [R, N]: items that are there.
        temperature: Of the scores. The smaller, the nearer to the exact NDCG.
        label_temperature: Of the labels.

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
    """Cross-entropy of each row's choice among all items, with the good ones as soft targets.

    Where the approximate NDCG has almost no gradient left for items far apart, this one still has.

    Args:
        labels: [R, N] in [0, 1]; items of 0 are never a target, each row has a better one.
        scores: [R, N].
        scale: What scores are multiplied by; the higher, the more the best wrong items matter.
        label_temperature: An item with so much less of a label is a target to a part in e.

    Returns:
        [R].
    """
    targets = (labels / label_temperature).masked_fill(labels <= 0, -torch.inf).softmax(dim=1)
    return -(targets * (scale * scores).log_softmax(dim=1)).sum(dim=1)


def iou_loss(spans: torch.Tensor, truths: torch.Tensor) -> torch.Tensor:
    """-ln of the overlap of each span with its own truth over the hull of both.

    Args:
        spans: [P, 2] seconds; may be the wrong way round.
        truths: [P, 2] seconds.

    Returns:
        [P], 0 where both are equal and about 20 where they do not meet.
    """
    inside = torch.minimum(spans[:, 1], truths[:, 1]) - torch.maximum(spans[:, 0], truths[:, 0])
    hull = torch.maximum(spans[:, 1], truths[:, 1]) - torch.minimum(spans[:, 0], truths[:, 0])
    return -torch.log((inside.clamp(min=0) + 1e-8) / (hull + 1e-8))
