"""Trains the bundled localiser: a small SOONet (arXiv 2303.08345) on films of our own rendered world.

A batch is a small library: every query ranks the anchors of all its films, so that scores can be compared across
films, as a search of a library needs. Libraries of validation, of (thing, colour) pairs that training has not met,
decide which weights are kept and how much the frames' own similarity counts (`clip_weight`); held-out pairs
(`training.world.is_held_out`) are neither trained nor validated on.

    python -m training.train_soonet models/bundled/soonet
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from models.anchors import AnchorGrid
from models.encoder import BUNDLED_FOLDER, fingerprint_folder
from models.soonet import Soonet, SoonetConfig, read_soonet, write_soonet
from training.losses import approx_ndcg_loss, choice_loss, iou_loss, span_iou
from training.moment_examples import (
    INDEX_FPS,
    MomentLibrary,
    MomentPlan,
    Queries,
    make_libraries,
    read_library,
)

CLIP_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Tried on validation."""
CURVE_TIOU = 0.4
"""Of the checkpoint: when a span takes its edges from the frames' curve. Chosen through the whole pipeline on films of
seed 7: there it lifts R@1 at tIoU .7 of queries that need no time from .78 to .94, of those that need it to .84."""
RERANKED = 40
"""Best anchors of a query whose edges are moved, as in a search."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, with the values the bundled checkpoint was made with."""

    seed: int = 0
    num_libraries: int = 200
    hidden_dim: int = 128
    num_heads: int = 4
    snippet_length: int = 4
    num_scales: int = 4
    window: int = 16
    text_features: Literal["states", "joint"] = "states"
    steps: int = 12_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    frame_noise: float = 0.1
    """Deviation of the noise on frame features, as a share of theirs."""
    text_noise: float = 0.05
    """The same for texts."""
    temperature: float = 0.01
    label_temperature: float = 0.01
    time_weight: float = 1.5
    """Of queries that need time; others count 1."""
    choice_weight: float = 1.0
    """Of a cross-entropy of s1 + s2 over all anchors, which the paper has not either."""
    choice_scale: float = 12.0
    """What s1 + s2 is multiplied by there."""
    anchor_weight: float = 1.0
    """Of the losses that rank queries for each anchor."""
    sum_weight: float = 1.0
    """Of a ranking by s1 + s2, which is what a search ranks by; the paper has no such term."""
    iou_weight: float = 0.6
    """20 / 32: the paper sums its ranking losses over 32 queries, here they are means."""
    regress_iou: float = 0.1
    """Pairs of query and anchor with more IoU train the edges."""
    evaluate_every: int = 500

    @property
    def plan(self) -> MomentPlan:
        """What is rendered to train and validate on."""
        return MomentPlan(seed=self.seed, num_libraries=self.num_libraries)

    def config(self, frame_dim: int, text_dim: int) -> SoonetConfig:
        """Of the network."""
        return SoonetConfig(
            hidden_dim=self.hidden_dim,
            snippet_length=self.snippet_length,
            num_scales=self.num_scales,
            fps=INDEX_FPS,
            window=self.window,
            num_heads=self.num_heads,
            stage2_pool="mean",
            legacy_mask=False,
            frame_dim=frame_dim,
            text_dim=text_dim,
            text_features=self.text_features,
            encoder_fingerprint=fingerprint_folder(BUNDLED_FOLDER),
        )


# --- A library as tensors -----------------------------------------------------------------------


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

    def __init__(self, library: MomentLibrary, grid: AnchorGrid) -> None:
        self.queries = library.queries
        self.durations = np.array([film.duration_seconds for film in library.films])
        self.lengths = grid.lengths
        self.counts = np.array([grid.counts(duration) for duration in self.durations])
        """[B, scales] anchors of each film."""
        num_frames = [grid.num_frames(duration) for duration in self.durations]
        self.num_frames = torch.tensor(num_frames)
        padded = -(-max(num_frames) // grid.lengths[-1]) * grid.lengths[-1]
        self.frames = torch.zeros(len(library.films), padded, library.films[0].frames.shape[1])
        for number, (film, length) in enumerate(zip(library.films, num_frames, strict=True)):
            # A film may end between a target and the next frame: the last frame answers, as at search.
            rows = np.minimum(np.arange(length), len(film.frames) - 1)
            self.frames[number, :length] = torch.from_numpy(film.frames[rows].astype(np.float32))
        self.anchors = self._anchors(grid)

    def _kept(self, scale: int) -> torch.Tensor:
        """[B, N_i], which anchors are there."""
        places = torch.arange(self.frames.shape[1] // self.lengths[scale])
        return places < torch.from_numpy(self.counts[:, scale, None])

    def _anchors(self, grid: AnchorGrid) -> Anchors:
        films: list[int] = []
        spans: list[NDArray[np.float64]] = []
        for scale in range(grid.num_scales):
            for number, counts in enumerate(self.counts):
                rows = counts[:scale].sum() + np.arange(counts[scale])
                films += [number] * len(rows)
                spans.append(grid.spans_of(rows, self.durations[number]))
        joined = torch.from_numpy(np.concatenate(spans)).float()
        return Anchors(np.array(films), joined, self.counts.sum(axis=0).tolist())

    def encode(
        self, model: Soonet, noise: float = 0.0
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What the network makes of the films, by scale.

        Args:
            model: In training or evaluation mode.
            noise: Deviation of what is added to every number of every frame.

        Returns:
            Contexts [A_i, D] and contents [A_i, a_i, D] of the anchors, in the order of `anchors`.
        """
        frames = self.frames
        if noise:
            there = torch.arange(frames.shape[1]) < self.num_frames[:, None]  # [B, L]
            frames = frames + noise * there[..., None] * torch.randn_like(frames)
        by_scale = model.contexts(frames, self.num_frames)
        contexts, contents = [], []
        for scale, length in enumerate(self.lengths):
            kept = self._kept(scale)
            contexts.append(by_scale[scale][kept])
            contents.append(
                model.contents(frames.reshape(len(frames), -1, length, frames.shape[2])[kept])
            )
        return contexts, contents


def labels_of(anchors: Anchors, queries: Queries, rows: NDArray[np.int64]) -> torch.Tensor:
    """IoU [R, A] of the anchors with the answers to some queries; 0 in other films."""
    truths = torch.from_numpy(queries.spans[rows]).float()
    same = torch.from_numpy(queries.films[rows][:, None] == anchors.films[None])
    return span_iou(anchors.spans, truths) * same


def moved(spans: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Spans [K, 2] after regression: both edges moved by shares of the length."""
    length = spans[:, 1:] - spans[:, :1]
    return spans + offsets * length


# --- Losses -------------------------------------------------------------------------------------


def draw_queries(queries: Queries, rng: np.random.Generator) -> NDArray[np.int64]:
    """One query of each kind that every scene has: of what happens, and of what is to be seen."""
    keys = queries.scenes * 2 + queries.needs_time
    order = rng.permutation(len(keys))
    _, first = np.unique(keys[order], return_index=True)
    chosen: NDArray[np.int64] = np.sort(order[first])
    return chosen


def library_loss(
    model: Soonet, batch: FilmBatch, recipe: Recipe, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """The terms of the loss over one library, weighted; their sum is trained on.

    The paper's five, with all anchors of all films where it has those of one movie, and means where it has sums. As
    every scene has a query, every anchor is a positive of some query in the second stage too, and a hard negative of
    others. Two more rank by s1 + s2, as a search does.
    """
    rows = draw_queries(batch.queries, rng)
    texts = torch.from_numpy(_texts(batch.queries, recipe.text_features)[rows])
    texts = texts + recipe.text_noise * texts.std() * torch.randn_like(texts)
    contexts, contents = batch.encode(model, recipe.frame_noise * _deviation(batch))
    labels = labels_of(batch.anchors, batch.queries, rows)  # [R, A]
    needs_time = torch.from_numpy(batch.queries.needs_time[rows])
    weights = torch.where(needs_time, recipe.time_weight, 1.0)
    of_query = _query_terms(
        model, recipe, texts, labels, weights / weights.mean(), contexts, contents
    )
    of_anchor = _anchor_terms(model, recipe, texts, labels, contexts, contents)
    edges = _edges_loss(model, batch, rows, texts, labels, contexts, contents, recipe)
    return {**of_query, **of_anchor, "edges": recipe.iou_weight * edges}


def _query_terms(
    model: Soonet,
    recipe: Recipe,
    texts: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    contexts: list[torch.Tensor],
    contents: list[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """What ranks the anchors for each query."""
    first, second = model.query_vectors(texts).chunk(2, dim=1)
    s1 = first @ F.normalize(torch.cat(contexts), dim=1).T  # [R, A]
    s2 = second @ pooled(contents).T
    positive = (labels > 0).any(dim=0)
    choice = choice_loss(labels, s1 + s2, scale=recipe.choice_scale)
    return {
        "context": (_ndcg(labels, s1, recipe) * weights).mean(),
        "content": (_ndcg(labels, s2, recipe, positive) * weights).mean(),
        "sum": recipe.sum_weight * (_ndcg(labels, (s1 + s2) / 2, recipe) * weights).mean(),
        "choice": recipe.choice_weight * (choice * weights).mean(),
    }


def _anchor_terms(
    model: Soonet,
    recipe: Recipe,
    texts: torch.Tensor,
    labels: torch.Tensor,
    contexts: list[torch.Tensor],
    contents: list[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """What ranks the queries for each anchor that is near to one of them; heads of training only."""
    near = (labels > 0.3).any(dim=0)
    to_text = F.normalize(model.input_text(texts), dim=1).T
    a1 = F.normalize(model.v2q_stage1.fc(torch.cat(contexts)[near]), dim=1) @ to_text  # [A', R]
    a2 = pooled([model.v2q_stage2.fc(content) for content in contents])[near] @ to_text
    wanted = labels.T[near]
    return {
        "context to query": recipe.anchor_weight * _ndcg(wanted, a1, recipe).mean(),
        "content to query": recipe.anchor_weight * _ndcg(wanted, a2, recipe).mean(),
    }


def pooled(contents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Contents of all scales [A_i, a_i, D] as the second stage compares them: means of unit rows, [A, D]."""
    return torch.cat([F.normalize(content, dim=2).mean(dim=1) for content in contents])


def _ndcg(
    labels: torch.Tensor, scores: torch.Tensor, recipe: Recipe, mask: torch.Tensor | None = None
) -> torch.Tensor:
    everything = torch.ones(1, dtype=torch.bool)
    return approx_ndcg_loss(
        labels,
        torch.sigmoid(scores),
        everything if mask is None else mask,
        temperature=recipe.temperature,
        label_temperature=recipe.label_temperature,
    )


def _texts(queries: Queries, kind: str) -> NDArray[np.float32]:
    return queries.states if kind == "states" else queries.joint


def _deviation(batch: FilmBatch) -> float:
    return float(batch.frames[batch.frames.abs().amax(dim=2) > 0].std())


def _edges_loss(
    model: Soonet,
    batch: FilmBatch,
    rows: NDArray[np.int64],
    texts: torch.Tensor,
    labels: torch.Tensor,
    contexts: list[torch.Tensor],
    contents: list[torch.Tensor],
    recipe: Recipe,
) -> torch.Tensor:
    truths = torch.from_numpy(batch.queries.spans[rows]).float()
    parts: list[torch.Tensor] = []
    by_scale = zip(
        torch.split(labels, batch.anchors.counts, dim=1),
        torch.split(batch.anchors.spans, batch.anchors.counts),
        contexts,
        contents,
        strict=True,
    )
    for iou, spans, ctx, content in by_scale:
        of_query, at = torch.nonzero(iou > recipe.regress_iou, as_tuple=True)
        offsets = model.regress(texts[of_query], ctx[at], content[at])
        parts.append(iou_loss(moved(spans[at], offsets), truths[of_query]))
    return torch.cat(parts).mean()


# --- Validation ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """How well some queries are answered, all in [0, 1]."""

    num_queries: int
    film_r1: float
    r1_half: float
    """Rank 1, tIoU of 0.5."""
    r1_most: float
    """Rank 1, tIoU of 0.7."""


@dataclass(frozen=True)
class Answers:
    """The first answer to every query of some libraries."""

    happenings: list[str]
    """Of the query; "" where it needs no time."""
    right_film: NDArray[np.bool_]
    tiou: NDArray[np.float64]
    """0 in a wrong film."""

    def figures(self, rows: NDArray[np.bool_]) -> Figures:
        """Of some of the queries."""
        tiou = self.tiou[rows]
        return Figures(
            int(rows.sum()),
            *(float(hits.mean()) for hits in (self.right_film[rows], tiou >= 0.5, tiou >= 0.7)),
        )

    def by_need(self) -> dict[bool, Figures]:
        """Of queries that need no time, and of those that do."""
        needs = np.array([bool(happening) for happening in self.happenings])
        return {kind: self.figures(needs == kind) for kind in (False, True)}

    @property
    def goodness(self) -> float:
        """What selection goes by: the mean R@1, tIoU 0.5, of queries that need time and that do not."""
        return float(np.mean([figures.r1_half for figures in self.by_need().values()]))


@torch.inference_mode()
def answer(
    model: Soonet,
    batches: Sequence[FilmBatch],
    *,
    clip_weights: Sequence[float] = (0.0,),
    reranked: int = RERANKED,
) -> dict[float, Answers]:
    """Answers all queries of libraries as a search does, for several weights of the frames' own similarity.

    The anchors of all films of a library are ranked by s1 + s2; the edges of the best are moved, and these ranked
    anew with the cosine of the query and the mean of the span's frames added.
    """
    was_training = model.training
    model.eval()
    found = {weight: ([], []) for weight in clip_weights}  # type: dict[float, tuple[list[bool], list[float]]]
    happenings: list[str] = []
    for batch in batches:
        scores, spans, films, cosines = _ranked(model, batch, reranked)
        truths, truth_films = batch.queries.spans, batch.queries.films
        happenings += batch.queries.happenings
        for weight, (right, tious) in found.items():
            best = (scores + weight * cosines).argmax(axis=1)[:, None]
            film = np.take_along_axis(films, best, axis=1)[:, 0]
            span = np.take_along_axis(spans, best[..., None], axis=1)[:, 0]
            inside = np.minimum(span[:, 1], truths[:, 1]) - np.maximum(span[:, 0], truths[:, 0])
            inside = np.maximum(inside, 0)
            either = (span[:, 1] - span[:, 0]) + (truths[:, 1] - truths[:, 0]) - inside
            right += (film == truth_films).tolist()
            tious += np.where(film == truth_films, inside / either, 0.0).tolist()
    model.train(was_training)
    return {
        weight: Answers(happenings, np.array(right), np.array(tious))
        for weight, (right, tious) in found.items()
    }


def _ranked(
    model: Soonet, batch: FilmBatch, reranked: int
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Of the best anchors of each query: scores, moved spans, films and cosines, [Q, reranked] (spans: [.., 2])."""
    queries, anchors = batch.queries, batch.anchors
    texts = torch.from_numpy(_texts(queries, model.config.text_features))
    contexts, contents = batch.encode(model)
    first, second = model.query_vectors(texts).chunk(2, dim=1)
    scores = (
        first @ F.normalize(torch.cat(contexts), dim=1).T + second @ pooled(contents).T
    )  # [Q, A]
    top = scores.topk(min(reranked, scores.shape[1]), dim=1)
    spans = anchors.spans[top.indices].clone()  # [Q, K, 2]
    ends = np.cumsum(anchors.counts).tolist()
    for scale, (ctx, content) in enumerate(zip(contexts, contents, strict=True)):
        begin = ends[scale] - anchors.counts[scale]
        of_query, place = torch.nonzero(
            (top.indices >= begin) & (top.indices < ends[scale]), as_tuple=True
        )
        for q, k in zip(torch.split(of_query, 4096), torch.split(place, 4096), strict=True):
            at = top.indices[q, k] - begin
            offsets = model.regress(texts[q], ctx[at], content[at])
            spans[q, k] = moved(spans[q, k], offsets)
    films = anchors.films[top.indices.numpy()]
    whole = spans.double().numpy()
    duration = batch.durations[films]
    whole = np.clip(whole, 0, duration[..., None])
    turned = whole[..., 1] - whole[..., 0] < 0.5  # an edge past the other: keep the anchor
    whole[turned] = anchors.spans[top.indices].double().numpy()[turned]
    return top.values.numpy(), whole, films, _cosines(batch, whole, films)


def _cosines(
    batch: FilmBatch, spans: NDArray[np.float64], films: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosine of each query with the mean of the unit frames of its spans, [Q, K]."""
    joint = batch.queries.joint.astype(np.float64)
    joint /= np.linalg.norm(joint, axis=1, keepdims=True)
    cosines = np.zeros(films.shape)
    units = F.normalize(batch.frames, dim=2).double().numpy()
    sums = np.pad(units.cumsum(axis=1), ((0, 0), (1, 0), (0, 0)))  # [B, L + 1, F]
    start = np.ceil(spans[..., 0] * INDEX_FPS - 1e-6).astype(int).clip(0, units.shape[1] - 1)
    end = np.ceil(spans[..., 1] * INDEX_FPS - 1e-6).astype(int).clip(start + 1, units.shape[1])
    for row, query in enumerate(joint):
        mean = sums[films[row], end[row]] - sums[films[row], start[row]]
        cosines[row] = mean @ query / np.maximum(np.linalg.norm(mean, axis=1), 1e-9)
    return cosines


# --- Training -----------------------------------------------------------------------------------


@dataclass
class Progressed:
    """Where a run stands; all of it is in the state that a run is resumed from."""

    step: int = 0
    elapsed_seconds: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    """Running means of the terms."""
    best: float = -1.0
    """Goodness on validation of the weights that are kept."""
    best_step: int = 0
    clip_weight: float = 0.0
    """The best on validation for the weights that are kept."""


class Run:
    """A training run that can be stopped after any step and taken up again."""

    def __init__(
        self,
        recipe: Recipe,
        libraries: Sequence[MomentLibrary],
        validation: Sequence[MomentLibrary],
        *,
        cap_seconds: float = math.inf,
    ) -> None:
        """Args:
        recipe: Sizes, steps and rates.
        libraries: Each a batch.
        validation: Decides which weights are kept; without any the last are.
        cap_seconds: Ends earlier, with the learning rate cooled down in time, when reached.
        """
        queries = libraries[0].queries
        config = recipe.config(
            libraries[0].films[0].frames.shape[1], _texts(queries, recipe.text_features).shape[1]
        )
        grid = AnchorGrid(config.fps, config.snippet_length, config.num_scales)
        self.recipe, self.at, self._cap_seconds = recipe, Progressed(), cap_seconds
        self._batches = [FilmBatch(library, grid) for library in libraries]
        self.validation = [FilmBatch(library, grid) for library in validation]
        torch.manual_seed(recipe.seed)
        self.model = Soonet(config).train()
        self.best = _copied(self.model)
        self._optimizer = _optimizer(self.model, recipe)

    @property
    def share_done(self) -> float:
        """How much of the training lies behind, 0 to 1, by steps or by time, whichever is further."""
        return max(self.at.step / self.recipe.steps, self.at.elapsed_seconds / self._cap_seconds)

    def step(self) -> None:
        """One library, one step; every so often, and at the end, a validation."""
        started = time.monotonic()
        recipe, number = self.recipe, self.at.step
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(recipe, number, self.share_done)
        # Chance depends on the seed and the step alone: a resumed run needs no state of it.
        rng = np.random.default_rng((recipe.seed, 53, number))
        torch.manual_seed(int(rng.integers(2**62)))
        terms = library_loss(self.model, self._batch(number), recipe, rng)
        self._optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimizer.step()
        for name, term in terms.items():
            before = self.at.losses.get(name, term.item())
            self.at.losses[name] = 0.98 * before + 0.02 * term.item()
        self.at.step += 1
        self.at.elapsed_seconds += time.monotonic() - started

    def _batch(self, number: int) -> FilmBatch:
        """Every library once, in an order by chance, before any comes again."""
        epoch, place = divmod(number, len(self._batches))
        order = np.random.default_rng((self.recipe.seed, 59, epoch)).permutation(len(self._batches))
        return self._batches[int(order[place])]

    def validate(self) -> Answers | None:
        """Answers the queries of validation and keeps the weights if they are the best so far."""
        if not self.validation:
            self.best = _copied(self.model)
            return None
        started = time.monotonic()
        answers = answer(self.model, self.validation, clip_weights=CLIP_WEIGHTS)
        weight = max(answers, key=lambda weight: answers[weight].goodness)
        if answers[weight].goodness > self.at.best:
            self.best = _copied(self.model)
            self.at.best, self.at.best_step = answers[weight].goodness, self.at.step
            self.at.clip_weight = weight
        self.at.elapsed_seconds += time.monotonic() - started
        return answers[weight]

    def save(self, path: Path) -> None:
        """Writes all that a later process needs to go on, whole or not at all."""
        state = {
            "recipe": asdict(self.recipe),
            "at": asdict(self.at),
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self._optimizer.state_dict(),
        }
        unfinished = path.with_name(f"{path.name}.part")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def resume(self, path: Path) -> None:
        """Goes on where `save` left off.

        Raises:
            ValueError: the state is of another recipe.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} is of another recipe; start anew without --resume")
        self.at = Progressed(**state["at"])
        self.model.load_state_dict(state["model"])
        self.best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])


def _copied(model: Soonet) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _optimizer(model: Soonet, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only: not biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up, then half a cosine down to a hundredth; the paper: constant, then tenths."""
    warm = min(1.0, (step + 1) / recipe.warm_up_steps)
    return recipe.learning_rate * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * min(done, 1.0))))


# --- Checkpoint and card ------------------------------------------------------------------------


def save_checkpoint(run: Run, folder: Path) -> Soonet:
    """Writes the weights that validation chose, float16, with the `clip_weight` it chose; returns them as read back."""
    config = replace(run.model.config, clip_weight=run.at.clip_weight, curve_tiou=CURVE_TIOU)
    model = Soonet(config)
    model.load_state_dict(run.best)
    write_soonet(model.half(), folder)
    return read_soonet(folder)


def happening_rows(answers: Answers) -> list[tuple[str, Figures]]:
    """Figures by what the query says happens; "nothing" stands for queries that need no time."""
    happenings = np.array(answers.happenings)
    return [
        (name or "nothing", answers.figures(happenings == name)) for name in sorted({*happenings})
    ]


def figures_table(rows: Sequence[tuple[str, Figures]]) -> str:
    """Figures in Markdown."""
    lines = ["| queries | n | film R@1 | R@1, tIoU 0.5 | R@1, tIoU 0.7 |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {f.num_queries} | {f.film_r1:.3f} | {f.r1_half:.3f} | {f.r1_most:.3f} |"
        for name, f in rows
    ]
    return "\n".join(lines)


CARD = """\
# The bundled localiser

A small SOONet (arXiv 2303.08345), trained from scratch on the world that `training/world.py` renders, over frame
features of the bundled CLIP (`models/bundled/clip`) at {fps:g} frames a second. It finds moments by what happens in
them: rain that starts or stops, things that come closer or go away, rise or fall, move left or right, night and day.
**It understands that cartoon world only**, and fits no encoder but the bundled one.

| | |
|---|---|
| format | `config.json`, `model.safetensors` with the published names, float16, {megabytes:.1f} MB |
| parameters | {parameters:.1f} million |
| anchors | {anchors} s, {scales} scales |
| network | width {width}, {heads} heads, windows of {window} tokens, corrected mask |
| second stage | pooled by the mean: the ranking is one inner product per anchor |
| reads | the {texts} of the bundled text tower |
| `clip_weight` | {clip_weight:g}, chosen on validation |
| `curve_tiou` | {curve_tiou:g}, chosen on films of seed 7 (held-out pairs, not those of the figures in docs/) |

## How it was trained

    {command}

On {libraries} libraries of {films} films of the (thing, colour) pairs of training, {pairs} to a library, so that the
same thing also does the opposite there. A batch is a whole library: every query ranks the anchors of all its films.
{steps} steps, {minutes:.0f} minutes of one core of a busy machine; drawing and encoding the films took 5 of two.
The run is ended by its cap (`--minutes-cap`), so another machine comes to other weights. Beside the paper's recipe:
the ranking by s1 + s2 is trained too, by its NDCG and by a cross-entropy over all anchors (in one pair of short runs
that raised what selection goes by from .795 to .818 after 1,000 steps); warm-up and cosine; noise on the features;
queries that need time count {time_weight:g}-fold; pairs of query and anchor with an IoU over {regress_iou:g}, not over
0, train the edges.

Nothing of a held-out pair (`training.world.is_held_out`) was trained or validated on; weights (step {best_step}) and
`clip_weight` were chosen on validation alone.

## Figures

On {validation} libraries of {validation_films} films each, of 27 pairs of thing and colour that this network never
met in training (the bundled CLIP did meet them). All anchors of a library are ranked, the edges of the best {reranked}
moved, and these ranked anew, nearly as a search does. Recipe and weights were chosen by these figures, so they flatter
a little; those of a search for held-out pairs come from `python -m training.evaluate`. Printed by the command above:

{by_need}

By what happens:

{by_happening}

## Limits

- Moments of 2 to 16 s; what happens in them takes 5 to 10 s in training.
- The order in time is seen in changes of light, size and place of the things that the bundled CLIP sees coarsely.
- The reading of words is the bundled text tower's: other wordings than those of the captions may be misread.
"""


def write_card(run: Run, answers: Answers, folder: Path, command: str) -> None:
    """Writes the checkpoint's README.md: what it knows, how it was trained, its figures and limits."""
    plan, config = run.recipe.plan, run.model.config
    needs = answers.by_need()
    text = CARD.format(
        fps=config.fps,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        parameters=sum(p.numel() for p in run.model.parameters()) / 1e6,
        anchors=", ".join(f"{length / config.fps:g}" for length in config.grid.lengths),
        scales=config.num_scales,
        width=config.hidden_dim,
        heads=config.num_heads,
        window=config.window,
        texts="states before the projection" if config.text_features == "states" else "vectors",
        clip_weight=run.at.clip_weight,
        curve_tiou=CURVE_TIOU,
        command=command,
        libraries=plan.num_libraries,
        films=plan.films_per_library,
        pairs=plan.pairs_per_library,
        steps=f"{run.at.step:,}",
        minutes=run.at.elapsed_seconds / 60,
        best_step=f"{run.at.best_step:,}",
        time_weight=run.recipe.time_weight,
        regress_iou=run.recipe.regress_iou,
        validation=plan.validation_libraries,
        validation_films=plan.validation_films,
        reranked=RERANKED,
        by_need=figures_table([("need no time", needs[False]), ("need time", needs[True])]),
        by_happening=figures_table([row for row in happening_rows(answers) if row[0] != "nothing"]),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    work: Annotated[
        Path, typer.Option(help="Folder for encoded films and the state of the run; reused.")
    ] = Path("bench/moments"),
    seed: Annotated[int, typer.Option(help="Of everything.")] = Recipe.seed,
    steps: Annotated[int, typer.Option(min=1, help="Steps, a library each.")] = Recipe.steps,
    libraries: Annotated[
        int, typer.Option(min=1, help="Libraries encoded to train on.")
    ] = Recipe.num_libraries,
    minutes_cap: Annotated[
        float, typer.Option(min=0.1, help="End training after so many minutes of steps.")
    ] = 26.5,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was stopped.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="Of a step; so small a network gains little by more than 1.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw and encode.")] = 2,
) -> None:
    """Train a small SOONet on our rendered world and print its figures on validation."""
    console = Console()
    recipe = Recipe(seed=seed, steps=steps, num_libraries=libraries)
    train_paths = make_libraries(recipe.plan, "train", work, workers=workers)
    validation_paths = make_libraries(recipe.plan, "validation", work, workers=workers)
    torch.set_num_threads(threads)
    run = Run(
        recipe,
        [read_library(path) for path in train_paths],
        [read_library(path) for path in validation_paths],
        cap_seconds=60 * minutes_cap,
    )
    state = work / f"soonet-{seed}.pt"
    if resume and state.exists():
        run.resume(state)
    train(run, state, console)
    model = save_checkpoint(run, out)
    by_weight = answer(model, run.validation, clip_weights=CLIP_WEIGHTS)
    for weight, answers in by_weight.items():
        console.print(f"clip_weight {weight:g}: {_told(answers)}")
    write_card(run, by_weight[run.at.clip_weight], out, f"python -m training.train_soonet {out}")
    console.print(_table(happening_rows(by_weight[run.at.clip_weight])))


def train(run: Run, state: Path, console: Console | None = None) -> None:
    """Runs to the end, with a validation and a saved state every so often and at the end.

    Args:
        run: New or resumed.
        state: File for `Run.resume`; at most `evaluate_every` steps are lost with the process.
        console: Shows the progress; nothing is shown where None.
    """
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console is None) as progress:
        task = progress.add_task("", total=1.0, note="")
        while run.share_done < 1:
            run.step()
            seconds = run.at.elapsed_seconds / run.at.step
            note = f"step {run.at.step} of {run.recipe.steps}, {seconds:.2f} s each"
            progress.update(task, completed=min(run.share_done, 1.0), note=note)
            if run.at.step % run.recipe.evaluate_every and run.share_done < 1:
                continue
            answers = run.validate()
            run.save(state)
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in run.at.losses.items())
            told = _told(answers) if answers else "not validated"
            progress.console.print(f"step {run.at.step}: {told}; {losses}")


def _told(answers: Answers) -> str:
    words = {False: "no time", True: "time"}
    return "; ".join(
        f"needs {words[kind]}: film {f.film_r1:.3f}, R@1 .5 {f.r1_half:.3f}, .7 {f.r1_most:.3f}"
        for kind, f in answers.by_need().items()
    )


def _table(rows: Sequence[tuple[str, Figures]]) -> Table:
    table = Table(title="validation, by what happens", box=None)
    for column in ("queries", "n", "film R@1", "R@1 .5", "R@1 .7"):
        table.add_column(column, justify="left" if column == "queries" else "right")
    for name, f in rows:
        shares = (f"{share:.3f}" for share in (f.film_r1, f.r1_half, f.r1_most))
        table.add_row(name, str(f.num_queries), *shares)
    return table


if __name__ == "__main__":
    typer.run(main)
