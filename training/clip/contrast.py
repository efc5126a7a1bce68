"""The contrastive loss of a whole batch, and its exact gradient where only parts of the batch fit into memory.

The loss of a batch needs all embeddings at once, but not what their gradients are made from. So embeddings are made
in parts without a graph, the loss is differentiated down to them, and then each part is embedded a second time with
a graph, into which its share of that gradient is fed (the idea: arXiv 2101.06983). The same cut lets several
processes share a batch: they exchange embeddings, scores and the gradients of these, so that the sum of what their
parameters get is the gradient of the whole batch, that of the temperature included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from scanonce.training.processes import Processes

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Embedded:
    """Sentences and videos of one part of a batch."""

    texts: torch.Tensor
    """[B, D]."""
    videos: torch.Tensor
    """[B, D] one vector each; [B, T, D] frames where a video's score depends on the sentence."""
    mask: torch.Tensor | None = None
    """bool [B, T], which frames are there; None where a video is one vector."""


Embed = Callable[[Part], Embedded]
Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Texts [Q, D], videos and mask as in `Embedded` -> scores [Q, B], not yet multiplied by the temperature."""


def right_pairs(texts: Sequence[str], captions: Sequence[Sequence[str]]) -> torch.Tensor:
    """bool [N, N]: whether text i is said of video j; always so where i = j.

    A caption that is word for word also another video's is right for both: as a negative it would push apart what
    belongs together.

    Args:
        texts: the caption that was drawn of each of N videos.
        captions: all captions of each of them.
    """
    said_of: dict[str, list[int]] = {}
    for number, each in enumerate(captions):
        for caption in each:
            said_of.setdefault(_plain(caption), []).append(number)
    right = torch.eye(len(texts), dtype=torch.bool)
    for number, text in enumerate(texts):
        right[number, said_of.get(_plain(text), [])] = True
    return right


def _plain(caption: str) -> str:
    return " ".join(caption.casefold().split()).rstrip(".")


def info_nce(scores: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE: mean cross-entropy of each text's choice of video, and of each video's choice of text.

    Args:
        scores: [N, N] scaled scores, texts by videos.
        right: bool [N, N] with at least one true in each row and column; several share the choice evenly.
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
    """Adds the gradient of a batch's loss to that of all parameters on the way, and returns the loss.

    The batch is that of all processes together, one after another. Afterwards the *sum* over the processes of a
    parameter's ``grad`` is its gradient of the mean loss; it is the caller who adds up.

    Args:
        parts: this process's share of the batch. One part is embedded once, several twice.
        embed: called with the same part twice, it must come to the same; torch's generators are set before each
            call, so that dropout does.
        score: of own texts with the videos of all processes.
        log_scale: logarithm of what scores are multiplied by, its ``grad`` None or zero; None: they are taken as
            they are.
        right: bool [N, N] over the whole batch, see `right_pairs`.
        processes: who shares the batch, with equally many examples each.
        seed: of the generators, other numbers for each step.
        texts_at_once: how many own texts are scored together; where fewer than all, they are scored twice.
    """
    chance = (*seed, processes.index)
    device = processes.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch = _Batch(parts, embed, chance)
        videos = processes.gather(batch.videos).requires_grad_()  # of all
        mask = None if batch.mask is None else processes.gather(batch.mask)
        rows = _Rows(batch.texts, videos, mask, score, chance, texts_at_once)
        scores = processes.gather(rows.scores).requires_grad_()  # [N, N]

        scaled = scores if log_scale is None else log_scale.exp() * scores
        loss = info_nce(scaled, right.to(device))
        torch.autograd.backward(loss)
        if log_scale is not None and log_scale.grad is not None:
            log_scale.grad /= processes.count  # each process has all of it

        first = processes.index * len(batch.texts)
        own = slice(first, first + len(batch.texts))
        rows.go_back(_gradient(scores)[own])
        processes.add_up([_gradient(videos)])  # a video meets the texts of all processes
        batch.go_back(_gradient(batch.texts), _gradient(videos)[own])
    return loss.item()


class _Batch:
    """This process's examples, embedded: with a graph where they are one part."""

    def __init__(self, parts: Sequence[Part], embed: Embed[Part], chance: tuple[int, ...]) -> None:
        self._parts, self._embed, self._chance = parts, embed, chance
        with torch.set_grad_enabled(len(parts) == 1):
            self._embedded = [self._embed_part(number) for number in range(len(parts))]
        self.texts = torch.cat([each.texts for each in self._embedded]).detach().requires_grad_()
        self.videos = torch.cat([each.videos for each in self._embedded]).detach()
        masks = [each.mask for each in self._embedded if each.mask is not None]
        self.mask = torch.cat(masks) if masks else None

    def _embed_part(self, number: int) -> Embedded:
        _set_generators(self._chance, 2 * number)
        return self._embed(self._parts[number])

    def go_back(self, of_texts: torch.Tensor, of_videos: torch.Tensor) -> None:
        """Takes the gradients of texts and videos on to the parameters."""
        sizes = [len(each.texts) for each in self._embedded]
        shares = zip(torch.split(of_texts, sizes), torch.split(of_videos, sizes), strict=True)
        for number, gradients in enumerate(shares):
            each = self._embedded[0] if len(sizes) == 1 else self._embed_part(number)
            pairs = zip((each.texts, each.videos), gradients, strict=True)
            # a tower of which nothing is trained has no graph
            trained = [pair for pair in pairs if pair[0].requires_grad]
            if trained:
                torch.autograd.backward(
                    [pair[0] for pair in trained], [pair[1] for pair in trained]
                )


class _Rows:
    """Scores of own texts with all videos: with a graph where they are worked out at once."""

    def __init__(
        self,
        texts: torch.Tensor,
        videos: torch.Tensor,
        mask: torch.Tensor | None,
        score: Score,
        chance: tuple[int, ...],
        texts_at_once: int | None,
    ) -> None:
        self._score, self._videos, self._mask, self._chance = score, videos, mask, chance
        self._texts = torch.split(texts, texts_at_once or len(texts))
        with torch.set_grad_enabled(len(self._texts) == 1):
            self._scored = [self._score_rows(number) for number in range(len(self._texts))]
        self.scores = torch.cat(self._scored).detach()

    def _score_rows(self, number: int) -> torch.Tensor:
        _set_generators(self._chance, 2 * number + 1)
        return self._score(self._texts[number], self._videos, self._mask)

    def go_back(self, of_scores: torch.Tensor) -> None:
        """Takes the gradient of the scores on to texts, videos and the parameters between."""
        whole = len(self._texts) == 1
        for number, gradient in enumerate(
            torch.split(of_scores, [len(rows) for rows in self._texts])
        ):
            scores = self._scored[0] if whole else self._score_rows(number)
            torch.autograd.backward(scores, gradient)


def _set_generators(chance: tuple[int, ...], place: int) -> None:
    """The same chance for the same place, the first time and the second."""
    seed = np.random.SeedSequence((*chance, place)).generate_state(1, np.uint64)
    torch.manual_seed(int(seed[0]))


def _gradient(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.grad is not None
    return tensor.grad
