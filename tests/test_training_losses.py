"""The losses of the localiser compared with plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scanonce.training.localiser.terms import approx_ndcg_loss, choice_loss, iou_loss, span_iou


def reference(
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    exists: NDArray[np.bool_],
    temperature: float,
    label_temperature: float,
) -> float:
    """The formula of the paper's code for one row, over all items."""
    labels = np.where(exists, labels, 0.0) / label_temperature
    scores = np.where(exists, scores, scores.min() - 1000) / temperature
    gains = 2.0**labels - 1
    differences = np.clip(scores[:, None] - scores[None, :], -700, 700)  # row i: p_i - p_j
    ranks = 0.5 + (1 / (1 + np.exp(differences))).sum(axis=1)
    ideal = (np.sort(gains)[::-1] / np.log1p(np.arange(1, len(gains) + 1))).sum()
    return float(1 - (gains / np.log1p(ranks)).sum() / ideal)


def exact(labels: NDArray[np.float64], scores: NDArray[np.float64], scale: float) -> float:
    """1 - NDCG with integer ranks."""
    gains = 2.0 ** (labels / scale) - 1
    ranks = 1 + (scores[None, :] > scores[:, None]).sum(axis=1)
    ideal = (np.sort(gains)[::-1] / np.log1p(np.arange(1, len(gains) + 1))).sum()
    return float(1 - (gains / np.log1p(ranks)).sum() / ideal)


@pytest.mark.parametrize(("temperature", "label_temperature"), [(0.01, 0.01), (0.1, 0.1), (1, 0.5)])
def test_approx_ndcg_is_that_of_the_paper(temperature: float, label_temperature: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((5, 40)) * (rng.random((5, 40)) < 0.5)
    scores = rng.random((5, 40))
    exists = rng.random((5, 40)) < 0.8
    losses = approx_ndcg_loss(
        torch.tensor(labels),
        torch.tensor(scores),
        torch.tensor(exists),
        temperature=temperature,
        label_temperature=label_temperature,
    )
    expected = [
        reference(*row, temperature, label_temperature)
        for row in zip(labels, scores, exists, strict=True)
    ]
    np.testing.assert_allclose(losses, expected, atol=1e-6)


def test_at_a_small_temperature_it_is_the_exact_ndcg() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random((6, 30)), rng.permuted(np.tile(np.arange(30) / 30, (6, 1)), axis=1)
    everything = torch.ones(1, 1, dtype=torch.bool)
    losses = approx_ndcg_loss(
        torch.tensor(labels),
        torch.tensor(scores),
        everything,
        temperature=1e-4,
        label_temperature=0.2,
    )
    expected = [exact(*row, 0.2) for row in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(losses, expected, atol=1e-6)


def test_the_right_order_has_almost_no_loss_and_the_wrong_one_a_large_one() -> None:
    labels = torch.tensor([[0.9, 0.5, 0.1, 0.0]])
    everything = torch.ones(1, 4, dtype=torch.bool)
    right = approx_ndcg_loss(labels, torch.tensor([[0.9, 0.7, 0.5, 0.3]]), everything)
    wrong = approx_ndcg_loss(labels, torch.tensor([[0.3, 0.5, 0.7, 0.9]]), everything)
    assert right.item() == pytest.approx(0, abs=1e-5)
    assert wrong.item() > 0.5


def test_masked_items_change_nothing() -> None:
    labels, scores = torch.tensor([[0.9, 0.2, 1.0]]), torch.tensor([[0.6, 0.4, 0.9]])
    mask = torch.tensor([[True, True, False]])
    alone = approx_ndcg_loss(labels[:, :2], scores[:, :2], mask[:, :2])
    torch.testing.assert_close(approx_ndcg_loss(labels, scores, mask), alone)


def test_gradients_are_finite_and_raise_good_items() -> None:
    labels = torch.tensor([[1.0, 0.4, 0.0], [0.0, 0.0, 0.0]])
    scores = torch.tensor([[0.50, 0.52, 0.51], [0.5, 0.5, 0.5]], requires_grad=True)
    losses = approx_ndcg_loss(labels, scores, torch.ones(1, 1, dtype=torch.bool))
    torch.autograd.backward(losses.sum())
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1]
    assert losses[1] == 1  # a row without a good item
    assert (scores.grad[1] == 0).all()


def test_choice_is_the_cross_entropy_of_soft_targets() -> None:
    labels = torch.tensor([[0.8, 0.7, 0.0]])
    scores = torch.tensor([[0.5, 0.1, 0.9]], requires_grad=True)
    loss = choice_loss(labels, scores, scale=10, label_temperature=0.1)
    targets = np.exp([8.0, 7.0]) / np.exp([8.0, 7.0]).sum()
    logs = np.array([5.0, 1.0, 9.0]) - np.log(np.exp([5.0, 1.0, 9.0]).sum())
    assert loss.item() == pytest.approx(-(targets * logs[:2]).sum(), abs=1e-5)
    torch.autograd.backward(loss.sum())
    assert scores.grad is not None
    assert scores.grad[0, 0] < 0 < scores.grad[0, 2]


def test_span_iou_of_all_pairs() -> None:
    spans = torch.tensor([[0.0, 4.0], [4.0, 8.0], [2.0, 6.0], [5.0, 5.0]])
    truths = torch.tensor([[0.0, 4.0], [3.0, 9.0]])
    expected = torch.tensor([[1, 0, 1 / 3, 0], [1 / 9, 4 / 6, 3 / 7, 0]])
    torch.testing.assert_close(span_iou(spans, truths), expected)


def test_iou_loss_falls_as_spans_meet() -> None:
    spans = torch.tensor([[0.0, 4.0], [1.0, 5.0], [2.0, 6.0], [8.0, 9.0], [5.0, 3.0]])
    spans.requires_grad_()
    losses = iou_loss(spans, torch.tensor([[0.0, 4.0]]).expand(5, 2))
    expected = [0, -math.log(3 / 5), -math.log(2 / 6)]
    assert losses[:3].tolist() == pytest.approx(expected, abs=1e-6)
    assert (losses[3:] > 15).all()  # no overlap, and an end before its start
    torch.autograd.backward(losses.sum())
    assert spans.grad is not None
    assert torch.isfinite(spans.grad).all()
