"""Small libraries with questions, as tensors: what a localiser is trained and judged on.

A library is a batch: every query ranks the anchors of all its films, so that scores can be compared across films, as a
search needs it. Where its films come from does not matter here: `training.bundled.moment_examples` draws them,
`training.localiser.from_index` reads them from an index.

    batch = FilmBatch(library, AnchorGrid(2.0, 4, 4))       # batch.frames: [B, L, dim]
    labels, answers = labels_of(batch.anchors, batch.queries, np.arange(10))        # [10, num_anchors] each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from scanonce.models.soonet.grid import AnchorGrid
from scanonce.models.soonet.network import Soonet
from scanonce.training.localiser.terms import span_iou


@dataclass(frozen=True)
class FilmFrames:
    """A film as an index keeps it."""

    frames: NDArray[np.float16]
    """[L, dim] raw features; row k is the first frame at or after k / fps seconds."""
    duration_seconds: float


@dataclass(frozen=True)
class Queries:
    """The queries of a library, with all their right answers: M each, those with fewer repeat one of theirs."""

    texts: list[str]
    films: NDArray[np.int64]
    """[Q, M], the films of the answers; the first is the one that the query was written for."""
    scenes: NDArray[np.int64]
    """[Q], equal for queries with the same answers."""
    spans: NDArray[np.float64]
    """[Q, M, 2], the answers in seconds."""
    kinds: list[str]
    """What sets some queries apart, "" for the others. In the rendered world: what happens, where the query says so."""
    joint: NDArray[np.float32]
    """[Q, dim] raw features in the space of the frames."""
    states: NDArray[np.float32]
    """[Q, text width], not projected."""

    @property
    def has_kind(self) -> NDArray[np.bool_]:
        """[Q], in the rendered world: whether only a run of frames can bear the query out."""
        return np.array([bool(kind) for kind in self.kinds])

    def features(self, kind: str) -> NDArray[np.float32]:
        """[Q, width] as a localiser reads them: ``states`` or ``joint`` (`SoonetConfig.text_features`)."""
        return self.states if kind == "states" else self.joint


@dataclass(frozen=True)
class MomentLibrary:
    """Films and their queries."""

    films: list[FilmFrames]
    queries: Queries


@dataclass(frozen=True)
class Anchors:
    """All anchors of some films, finest scale first, and within a scale by film."""

    films: NDArray[np.int64]
    """[A]."""
    spans: torch.Tensor
    """[A, 2] seconds, none past the end of its film."""
    counts: list[int]
    """Anchors of each scale."""


class FilmBatch:
    """The films of a library side by side, padded with zeros, and their anchors and queries."""

    def __init__(
        self, library: MomentLibrary, grid: AnchorGrid, device: torch.device | str = "cpu"
    ) -> None:
        """Puts the frames on the device, as float32."""
        self.queries = library.queries
        self.grid, self.device = grid, device
        self.durations = np.array([film.duration_seconds for film in library.films])
        self.lengths = grid.lengths
        self.counts = np.array([grid.counts(duration) for duration in self.durations])
        """[B, scales] anchors of each film."""
        num_frames = [grid.num_frames(duration) for duration in self.durations]
        self.num_frames = torch.tensor(num_frames, device=device)
        padded = -(-max(num_frames) // grid.lengths[-1]) * grid.lengths[-1]
        frames = torch.zeros(len(library.films), padded, library.films[0].frames.shape[1])
        for number, (film, length) in enumerate(zip(library.films, num_frames, strict=True)):
            # A film may end between a target and the next frame: the last frame answers, as at search.
            rows = np.minimum(np.arange(length), len(film.frames) - 1)
            frames[number, :length] = torch.from_numpy(film.frames[rows].astype(np.float32))
        self.frames = frames.to(device)
        self.anchors = self._anchors(grid)

    def _kept(self, scale: int) -> torch.Tensor:
        """[B, N_i], which anchors are there."""
        places = torch.arange(self.frames.shape[1] // self.lengths[scale])
        return (places < torch.from_numpy(self.counts[:, scale, None])).to(self.device)

    def _anchors(self, grid: AnchorGrid) -> Anchors:
        films: list[int] = []
        spans: list[NDArray[np.float64]] = []
        for scale in range(grid.num_scales):
            for number, counts in enumerate(self.counts):
                rows = counts[:scale].sum() + np.arange(counts[scale])
                films += [number] * len(rows)
                spans.append(grid.spans_of(rows, self.durations[number]))
        joined = torch.from_numpy(np.concatenate(spans)).float().to(self.device)
        return Anchors(np.array(films), joined, self.counts.sum(axis=0).tolist())

    @property
    def deviation(self) -> float:
        """Of the numbers of frames that are there."""
        return float(self.frames[self.frames.abs().amax(dim=2) > 0].std())

    def encode(
        self, model: Soonet, noise: float = 0.0, chosen: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What the network makes of the films, by scale.

        Args:
            model: In training or evaluation mode.
            noise: Deviation of what is added to every number of every frame.
            chosen: bool [A], anchors whose contents are wanted; all where None.

        Returns:
            Contexts [A_i, D] of all anchors and contents [K_i, a_i, D] of the chosen ones, in the order of `anchors`.
        """
        frames = self.frames
        if noise:
            there = torch.arange(frames.shape[1], device=self.device) < self.num_frames[:, None]
            frames = frames + noise * there[..., None] * torch.randn_like(frames)
        by_scale = model.contexts(frames, self.num_frames)
        wanted = None if chosen is None else torch.split(chosen, self.anchors.counts)
        contexts, contents = [], []
        for scale, length in enumerate(self.lengths):
            kept = self._kept(scale)
            contexts.append(by_scale[scale][kept])
            pieces = frames.reshape(len(frames), -1, length, frames.shape[2])  # [B, N_i, a_i, F]
            if wanted is None:
                contents.append(model.contents(pieces[kept]))
            else:
                film, place = kept.nonzero()[wanted[scale]].T
                contents.append(model.contents(pieces[film, place]))
        return contexts, contents


def labels_of(
    anchors: Anchors, queries: Queries, rows: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """How well the anchors fit the answers to some queries.

    Args:
        anchors: A of them.
        queries: Of the same library.
        rows: [R], some of its queries.

    Returns:
        [R, A] IoU with the answer that fits best, 0 in films without one; [R, A] int64, which answer that is.
    """
    spans = torch.from_numpy(queries.spans[rows]).float().to(anchors.spans.device)  # [R, M, 2]
    films = queries.films[rows]
    labels = torch.zeros(len(rows), len(anchors.spans), device=spans.device)
    answers = torch.zeros_like(labels, dtype=torch.long)
    for number in range(films.shape[1]):
        same = torch.from_numpy(films[:, number, None] == anchors.films).to(spans.device)
        iou = span_iou(anchors.spans, spans[:, number]) * same
        answers = torch.where(iou > labels, number, answers)
        labels = torch.maximum(labels, iou)
    return labels, answers


def moved(spans: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Spans [K, 2] after regression: both edges moved by shares of the length."""
    length = spans[:, 1:] - spans[:, :1]
    return spans + offsets * length


def pooled(contents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Contents of all scales [A_i, a_i, D] as the second stage compares them: means of unit rows, [A, D]."""
    return torch.cat([F.normalize(content, dim=2).mean(dim=1) for content in contents])
