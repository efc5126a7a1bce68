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
    seeds = (*seed, processes.index)
    device = processes.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch = _Batch(parts, embed, seeds)
        videos = processes.gather(batch.videos).requires_grad_()  # of all processes
        mask = None if batch.mask is None else processes.gather(batch.mask)
        rows = _Rows(batch.texts, videos, mask, score, seeds, texts_at_once)
        scores = processes.gather(rows.scores).requires_grad_()  # [N, N]

        scaled = scores if log_scale is None else log_scale.exp() * scores
        loss = info_nce(scaled, right.to(device))
        torch.autograd.backward(loss)
        if log_scale is not None and log_scale.grad is not None:
            log_scale.grad /= processes.count  # each process has the whole gradient

        first = processes.index * len(batch.texts)
        own = slice(first, first + len(batch.texts))
        rows.backward(_gradient(scores)[own])
        processes.add_up([_gradient(videos)])  # a video is scored with the texts of all processes
        batch.backward(_gradient(batch.texts), _gradient(videos)[own])
    return loss.item()


class _Batch:
    """This process's examples, embedded; with a graph if they are one part."""

    def __init__(self, parts: Sequence[Part], embed: Embed[Part], seeds: tuple[int, ...]) -> None:
        self._parts, self._embed, self._seeds = parts, embed, seeds
        with torch.set_grad_enabled(len(parts) == 1):
            self._embedded = [self._embed_part(number) for number in range(len(parts))]
        self.texts = torch.cat([each.texts for each in self._embedded]).detach().requires_grad_()
        self.videos = torch.cat([each.videos for each in self._embedded]).detach()
        masks = [each.mask for each in self._embedded if each.mask is not None]
        self.mask = torch.cat(masks) if masks else None

    def _embed_part(self, number: int) -> Embedded:
        _set_generators(self._seeds, 2 * number)
        return self._embed(self._parts[number])

    def backward(self, of_texts: torch.Tensor, of_videos: torch.Tensor) -> None:
        """Propagate the gradients of texts and videos to the parameters."""
        sizes = [len(each.texts) for each in self._embedded]
        shares = zip(torch.split(of_texts, sizes), torch.split(of_videos, sizes), strict=True)
        for number, gradients in enumerate(shares):
            each = self._embedded[0] if len(sizes) == 1 else self._embed_part(number)
            pairs = zip((each.texts, each.videos), gradients, strict=True)
            # a frozen tower has no graph
            trained = [pair for pair in pairs if pair[0].requires_grad]
            if trained:
                torch.autograd.backward(
                    [pair[0] for pair in trained], [pair[1] for pair in trained]
                )


class _Rows:
    """Scores of this process's texts with all videos; with a graph if they are computed at once."""

    def __init__(
        self,
        texts: torch.Tensor,
        videos: torch.Tensor,
        mask: torch.Tensor | None,
        score: Score,
        seeds: tuple[int, ...],
        texts_at_once: int | None,
    ) -> None:
        self._score, self._videos, self._mask, self._seeds = score, videos, mask, seeds
        self._texts = torch.split(texts, texts_at_once or len(texts))
        with torch.set_grad_enabled(len(self._texts) == 1):
            self._scored = [self._score_rows(number) for number in range(len(self._texts))]
        self.scores = torch.cat(self._scored).detach()

    def _score_rows(self, number: int) -> torch.Tensor:
        _set_generators(self._seeds, 2 * number + 1)
        return self._score(self._texts[number], self._videos, self._mask)

    def backward(self, of_scores: torch.Tensor) -> None:
        """Propagate the gradient of the scores to texts, videos and the parameters between them."""
        whole = len(self._texts) == 1
        for number, gradient in enumerate(
            torch.split(of_scores, [len(rows) for rows in self._texts])
        ):
            scores = self._scored[0] if whole else self._score_rows(number)
            torch.autograd.backward(scores, gradient)


def _set_generators(seeds: tuple[int, ...], position: int) -> None:
    """Seed torch's generators equally for both passes over the same part."""
    seed = np.random.SeedSequence((*seeds, position)).generate_state(1, np.uint64)
    torch.manual_seed(int(seed[0]))


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad
