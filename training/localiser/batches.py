"""Small libraries with queries, as tensors, on which a localiser is trained and validated.

A library is a batch: every query ranks the anchors of all its films, so that scores are comparable across films, as a
search needs. Libraries are drawn by `training.bundled.moment_examples`, or read from an index by
`training.localiser.examples`.

    batch = FilmBatch(library, AnchorGrid(2.0, 4, 4))       # batch.frames: [B, L, dim]
    labels, answers = label_anchors(batch.anchors, batch.queries, np.arange(10))        # [10, num_anchors] each
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
    """A film as an index stores it."""

    frames: NDArray[np.float16]
    """[L, dim] raw features; row k is the frame on screen at k / fps seconds."""
    duration_seconds: float


@dataclass(frozen=True)
class Queries:
    """The queries of a library with all their answers: M each; queries with fewer answers repeat one."""

    texts: list[str]
    films: NDArray[np.int64]
    """[Q, M], the films of the answers; the first one is the film that the query was written for."""
    scenes: NDArray[np.int64]
    """[Q], equal for queries with the same answers."""
    spans: NDArray[np.float64]
    """[Q, M, 2], the answers in seconds."""
    kinds: list[str]
    """Kind of each query, "" for most. In the rendered world: the happening that the query names."""
    joint: NDArray[np.float32]
    """[Q, dim] raw features in the space of the frames."""
    states: NDArray[np.float32]
    """[Q, text width], not projected."""

    @property
    def has_kind(self) -> NDArray[np.bool_]:
        """[Q], in the rendered world: whether only a run of frames shows the query."""
        return np.array([bool(kind) for kind in self.kinds])

    def features(self, kind: str) -> NDArray[np.float32]:
        """Return the features that a localiser reads, [Q, width]: ``states`` or ``joint``.

        Args:
            kind: `SoonetConfig.text_features`.
        """
        return self.states if kind == "states" else self.joint


@dataclass(frozen=True)
class MomentLibrary:
    """Films and their queries."""

    films: list[FilmFrames]
    queries: Queries


@dataclass(frozen=True)
class Anchors:
    """All anchors of films, finest scale first, and within a scale by film."""

    films: NDArray[np.int64]
    """[A] film of each anchor."""
    spans: torch.Tensor
    """[A, 2] seconds, within the film."""
    counts: list[int]
    """Number of anchors of each scale."""


class FilmBatch:
    """The films of a library in one tensor, padded with zeros, with their anchors and queries."""

    def __init__(
        self, library: MomentLibrary, grid: AnchorGrid, device: torch.device | str = "cpu"
    ) -> None:
        """Copy the frames to the device, as float32."""
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
            # a film may end between a target and the next frame: the last frame is used, as at search
            rows = np.minimum(np.arange(length), len(film.frames) - 1)
            frames[number, :length] = torch.from_numpy(film.frames[rows].astype(np.float32))
        self.frames = frames.to(device)
        self.anchors = self._anchors(grid)

    def _kept(self, scale: int) -> torch.Tensor:
        """bool [B, N_i], the anchors that exist."""
        positions = torch.arange(self.frames.shape[1] // self.lengths[scale])
        return (positions < torch.from_numpy(self.counts[:, scale, None])).to(self.device)

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
        """Standard deviation of the numbers in all frames, without the padding."""
        return float(self.frames[self.frames.abs().amax(dim=2) > 0].std())

    def encode(
        self, model: Soonet, noise: float = 0.0, chosen: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Compute contexts and contents of the films, by scale.

        Args:
            model: network in training or evaluation mode.
            noise: standard deviation of noise that is added to every number of every frame.
            chosen: bool [A], anchors whose contents are wanted; None: all.

        Returns:
            Contexts [A_i, D] of all anchors and contents [K_i, a_i, D] of the chosen ones, in the order of `anchors`.
        """
        frames = self.frames
        if noise:
            exists = torch.arange(frames.shape[1], device=self.device) < self.num_frames[:, None]
            frames = frames + noise * exists[..., None] * torch.randn_like(frames)
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
                film, position = kept.nonzero()[wanted[scale]].T
                contents.append(model.contents(pieces[film, position]))
        return contexts, contents


def label_anchors(
    anchors: Anchors, queries: Queries, rows: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label anchors by their IoU with the answers to queries.

    Args:
        anchors: A anchors.
        queries: queries of the same library.
        rows: [R], positions of the queries to use.

    Returns:
        [R, A] IoU with the answer that fits best, 0 in films without one; [R, A] int64, the number of that answer.
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


def move_edges(spans: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move both edges of spans [K, 2] by offsets, which are shares of the length."""
    length = spans[:, 1:] - spans[:, :1]
    return spans + offsets * length


def pool_contents(contents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pool contents of all scales [A_i, a_i, D] for the second stage: means of unit rows, [A, D]."""
    return torch.cat([F.normalize(content, dim=2).mean(dim=1) for content in contents])
