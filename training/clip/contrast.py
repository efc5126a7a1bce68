"""The contrastive loss of a whole batch, and its exact gradient if only parts of the batch fit into memory.

The loss of a batch needs all embeddings at once, but not the graphs behind them. So embeddings are computed in parts
without a graph, the loss is differentiated down to them, and then each part is embedded a second time with a graph,
through which its share of that gradient is propagated (the idea: arXiv 2101.06983). In the same way several processes
share a batch: they exchange embeddings, scores and the gradients of these. The sum of their parameters' gradients is
the gradient of the whole batch, that of the temperature included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from scanonce.training.evaluation.rows import plain_text
from scanonce.training.processes import Processes

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embedded texts and videos of one part of a batch."""

    texts: torch.Tensor
    """[B, D]."""
    videos: torch.Tensor
    """[B, D] one vector each; [B, T, D] frames if a video's score depends on the text."""
    mask: torch.Tensor | None = None
    """bool [B, T], frames that count; None if a video is one vector."""


Embed = Callable[[Part], Embedded]
Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Texts [Q, D], videos and mask as in `Embedded` -> scores [Q, B], without the temperature."""


def right_pairs(texts: Sequence[str], captions: Sequence[Sequence[str]]) -> torch.Tensor:
    """bool [N, N]: whether text i is a caption of video j; always true for i = j.

    A caption that another video has word for word is a positive of both: as a negative it would separate videos that
    belong together.

    Args:
        texts: one caption of each of N videos.
        captions: all captions of each video.
    """
    videos_of: dict[str, list[int]] = {}
    for number, each in enumerate(captions):
        for caption in each:
            videos_of.setdefault(plain_text(caption), []).append(number)
    right = torch.eye(len(texts), dtype=torch.bool)
    for number, text in enumerate(texts):
        right[number, videos_of.get(plain_text(text), [])] = True
    return right


def info_nce(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE: mean cross-entropy of each text's choice of video, and of each video's choice of text.

    Args:
        scores: [N, N] scaled scores, texts by videos.
        right: bool [N, N] with at least one positive in each row and column; several share the target evenly.
    """
    targets = right.to(scores.dtype)
    by_text = F.cross_entropy(scores, targets / targets.sum(dim=1, keepdim=True))
    by_video = F.cross_entropy(scores.T, (targets / targets.sum(dim=0, keepdim=True)).T)
    return (by_text + by_video) / 2


def add_gradients(
    parts: Sequence[Part],
    embed: Embed[Part],
    score: Score,
    log_scale: torch.nn.Parameter | None,
    right: torch.Tensor,
    processes: Processes,
    *,
    seed: Sequence[int] = (0,),
    texts_at_once: int | None = None,
) -> float:
    """Add the gradient of a batch's loss to the parameters' gradients, and return the loss.

    The batch is the concatenation of the shares of all processes. Afterwards the *sum* over the processes of a
    parameter's ``grad`` is its gradient of the mean loss; the caller adds them up.

    Args:
        parts: this process's share of the batch. One part is embedded once, several are embedded twice.
        embed: embeds a part; for the same part it must return the same result twice. For dropout, torch's generators
            are seeded before each call.
        score: scores texts of this process with the videos of all processes.
        log_scale: logarithm of the factor of the scores, its ``grad`` None or zero; None: no factor.
        right: bool [N, N] over the whole batch, see `right_pairs`.
        processes: processes that share the batch, with the same number of examples each.
        seed: seed of the generators, different for each step.
        texts_at_once: number of texts of this process that are scored together; if not all, they are scored twice.
    """
    seeds, device = (*seed, processes.index), processes.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch = _InParts([partial(_embed, embed, part) for part in parts], (*seeds, 0))
        texts, own_videos, *own_mask = batch.joined
        texts.requires_grad_()
        videos = processes.gather(own_videos).requires_grad_()  # of all processes
        mask = processes.gather(own_mask[0]) if own_mask else None
        chunks = torch.split(texts, texts_at_once or len(texts))
        rows = _InParts(
            [partial(_score, score, each, videos, mask) for each in chunks], (*seeds, 1)
        )
        scores = processes.gather(rows.joined[0]).requires_grad_()  # [N, N]

        scaled = scores if log_scale is None else log_scale.exp() * scores
        loss = info_nce(scaled, right.to(device))
        torch.autograd.backward(loss)
        if log_scale is not None and log_scale.grad is not None:
            log_scale.grad /= processes.count  # each process has the whole gradient

        first = processes.index * len(texts)
        own = slice(first, first + len(texts))
        rows.backward(_gradient(scores)[own])
        processes.add_up([_gradient(videos)])  # a video is scored with the texts of all processes
        batch.backward(_gradient(texts), _gradient(videos)[own])
    return loss.item()


def _embed(embed: Embed[Part], part: Part) -> list[torch.Tensor]:
    embedded = embed(part)
    tensors = (embedded.texts, embedded.videos, embedded.mask)
    return [each for each in tensors if each is not None]


def _score(
    score: Score, texts: torch.Tensor, videos: torch.Tensor, mask: torch.Tensor | None
) -> list[torch.Tensor]:
    return [score(texts, videos, mask)]


class _InParts:
    """Tensors computed in parts: with a graph if there is one part, else computed again for the backward pass."""

    def __init__(
        self, parts: Sequence[Callable[[], list[torch.Tensor]]], seeds: tuple[int, ...]
    ) -> None:
        self._parts, self._seeds = parts, seeds
        with torch.set_grad_enabled(len(parts) == 1):
            self._computed = [self._compute(number) for number in range(len(parts))]
        self.joined = [torch.cat(each).detach() for each in zip(*self._computed, strict=True)]
        """The tensors of all parts along the first axis, without a graph."""

    def _compute(self, number: int) -> list[torch.Tensor]:
        # the same random numbers in both passes
        *seeds, kind = self._seeds
        sequence = np.random.SeedSequence((*seeds, 2 * number + kind))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        return self._parts[number]()

    def backward(self, *gradients: torch.Tensor) -> None:
        """Propagate the gradients of the first joined tensors to everything that they depend on."""
        sizes = [len(computed[0]) for computed in self._computed]
        shares = zip(*(torch.split(each, sizes) for each in gradients), strict=True)
        for number, share in enumerate(shares):
            computed = self._computed[0] if len(sizes) == 1 else self._compute(number)
            pairs = zip(computed, share, strict=False)
            # a frozen tower has no graph
            trained = [pair for pair in pairs if pair[0].requires_grad]
            if trained:
                tensors, incoming = zip(*trained, strict=True)
                torch.autograd.backward(tensors, incoming)


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad
