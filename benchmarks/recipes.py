"""Published training-free localisers and ours: which finds the span of a query best in the right film?

    python -m benchmarks.recipes --seed 1 --keep /tmp/films1

Films are rendered, or taken from a kept folder, and indexed with the bundled encoder. The film is given, so that
localisation is measured apart from retrieval. Recipes are short implementations of our own, without the parts that
need a language model, and all put an edge halfway between two frames. Published thresholds suit the encoders of their
papers; here each curve is first stretched to [0, 1] within its video, and thresholds were chosen on films of seed 7
(see `RECIPES`): report results of another seed.

- **P2S** spans (arXiv 2512.10363): grow each prominent peak.
- **TFVTG** (ECCV 2024): windows by inside minus outside, plus the rise before their start.
- **TAG** (BMVC 2025): pairs of change points of the frames, on Box-Cox-transformed scores.
- **Shots, merged** (Diwan et al., arXiv 2211.02178): shots that score well, with their neighbours. Our change points
  replace PySceneDetect, which needs the frames.
- **Clips**: the best of fixed windows of 4, 8 and 16 s, the answer of the index alone.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import typer
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.vectors import pool_spans, unit
from scanonce.search.curve import (
    SNAP_REACH_SECONDS,
    change_points,
    find_spans,
    snap,
    suppress_overlaps,
    z_scores,
)
from scanonce.search.settings import SearchSettings
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.clips import ClipGrid
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from scanonce.storage.stores.features import FeatureStore
from scanonce.training.bundled.questions import Question, index_films, read_questions
from scanonce.training.evaluation.metrics import LibraryRule, Located, library_figures, score_query
from scanonce.training.world.films import render_library

Floats: TypeAlias = NDArray[np.float64]
"""A curve ``[num_frames]``, spans ``[num_spans, 2]`` in seconds, or points in seconds."""

_RULE = LibraryRule(cutoffs=(1, 5), depths=(5,), tious=(0.3, 0.5, 0.7))


@dataclass(frozen=True, slots=True)
class Film:
    """Stored features of one film."""

    units: NDArray[np.float32]
    """``[num_frames, dim]`` unit vectors."""
    pts_seconds: Floats
    end_seconds: float
    fps: float
    """Targets per second; each frame answers one."""

    @property
    def edges(self) -> Floats:
        """``[num_frames + 1]``: the beginning, the middles between frames, and the end of the film."""
        between = (self.pts_seconds[:-1] + self.pts_seconds[1:]) / 2
        return np.concatenate([self.pts_seconds[:1], between, [self.end_seconds]])


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and the film that it asks for."""

    film: Film
    query: NDArray[np.float32]
    curve: Floats
    """Cosine at each frame."""
    background: tuple[float, float]
    """Mean and standard deviation of the query's score over the clips of all films."""


Prepare: TypeAlias = Callable[[Film], Floats]
Locate: TypeAlias = Callable[[Asked, Floats], Floats]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A method from curve to spans, best first."""

    name: str
    locate: Locate
    prepare: Prepare = lambda film: np.empty(0)
    """The part that needs the frames but no query: change points in seconds."""


def stretched(curve: Floats) -> Floats:
    """Stretch a curve to [0, 1] within its video."""
    result: Floats = (curve - curve.min()) / max(float(np.ptp(curve)), 1e-6)
    return result


def smoothed(curve: Floats, width: int) -> Floats:
    """Return the moving average along the first axis; the ends are repeated."""
    pads = [((width - 1) // 2, width // 2)] + [(0, 0)] * (curve.ndim - 1)
    result: Floats = sliding_window_view(np.pad(curve, pads, mode="edge"), width, axis=0).mean(-1)
    return result


def prefix_sums(curve: Floats) -> Floats:
    """Return ``[num_frames + 1]``: sums of all frames before each index."""
    return np.concatenate([[0.0], np.cumsum(curve)])


def inside_minus_outside(
    curve: Floats, first: NDArray[np.int64], last: NDArray[np.int64]
) -> Floats:
    """Return the mean of each window minus the mean of the rest of the film."""
    sums = prefix_sums(curve)
    inside = sums[last] - sums[first]
    outside = (sums[-1] - inside) / np.maximum(len(curve) - (last - first), 1)
    result: Floats = inside / (last - first) - outside
    return result


def ranked(spans: Floats, scores: Floats, overlap: float = 0.3, top: int = 5) -> Floats:
    """Return the best spans, without overlapping ones."""
    return spans[suppress_overlaps(spans, scores, overlap, top)]


# ------------------------------------------------ P2S


def p2s(asked: Asked, points: Floats, *, prominence: float) -> Floats:
    """Grow prominent peaks while above a share of the peak, which rises with the deviation of the curve."""
    curve = stretched(asked.curve)
    fps = 1 / float(np.median(np.diff(asked.film.pts_seconds)))
    share = 0.5 + 0.5 / (1 + np.exp(-curve.std()))
    curve = smoothed(curve, max(1, round(fps * share)))
    windows = np.array([grown(curve, k, share) for k in peaks(curve, prominence, round(fps))])
    sums = prefix_sums(curve)
    means = (sums[windows[:, 1]] - sums[windows[:, 0]]) / (windows[:, 1] - windows[:, 0])
    return ranked(asked.film.edges[windows], means, overlap=0.8)


def peaks(curve: Floats, prominence: float, distance: int) -> list[int]:
    """Return frames that stand out from the higher of the two valleys next to them, and always the best frame."""
    found: list[int] = []
    for k in np.argsort(-curve, kind="stable").tolist():
        higher = np.flatnonzero(curve > curve[k])
        left = higher[higher < k].max(initial=-1) + 1
        right = higher[higher > k].min(initial=len(curve))
        valley = max(curve[left : k + 1].min(), curve[k:right].min())
        apart = all(abs(k - other) >= distance for other in found)
        if not found or (curve[k] - valley >= prominence and apart):
            found.append(k)
    return found


def grown(curve: Floats, peak: int, share: float) -> tuple[int, int]:
    """Return the frames around a peak that are above a share of it, half-open."""
    below = np.flatnonzero(curve <= share * curve[peak])
    return int(below[below < peak].max(initial=-1)) + 1, int(
        below[below > peak].min(initial=len(curve))
    )


# ------------------------------------------------ TFVTG


def tfvtg(asked: Asked, points: Floats, *, masked: float, stride: int, slope: float) -> Floats:
    """Score windows of multiples of a stride: inside minus outside, plus the rise, which moves the start back."""
    curve = stretched(asked.curve)
    rise, begin = rises(curve, slope)
    curve = np.where(curve < masked, 0.0, curve)
    lengths = np.arange(stride, len(curve) + 1, stride)
    first = np.concatenate([np.arange(len(curve) - length + 1) for length in lengths])
    last = first + np.repeat(lengths, len(curve) - lengths + 1)
    scores = inside_minus_outside(curve, first, last) + rise[first]
    edges = asked.film.edges
    return ranked(np.stack([edges[begin[first]], edges[last]], axis=1), scores)


def rises(curve: Floats, slope: float) -> tuple[Floats, NDArray[np.int64]]:
    """Return the rise of the smoothed curve right before each frame, and the frame where each rise begins.

    The last three differences of a rise count, those of a shorter one more than once: 3, or 2 + 1, or 1 + 1 + 1.
    """
    kernel = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    smooth = np.convolve(np.pad(curve, 2, mode="edge"), kernel / kernel.sum(), mode="valid")
    steps = np.diff(smooth, prepend=smooth[0])
    flat = np.flatnonzero(steps <= slope)  # the first frame is always among them
    begin = flat[np.searchsorted(flat, np.arange(len(curve)), side="right") - 1]
    climbed = np.arange(len(curve)) - begin
    before = np.concatenate([[0.0, 0.0], steps])
    newest, second, third = before[2:], before[1:-1], before[:-2]
    cases = [climbed == 0, climbed == 1, climbed == 2]
    sums = np.select(
        cases, [0.0 * newest, 3 * newest, 2 * newest + second], newest + second + third
    )
    return sums, begin


# ------------------------------------------------ TAG


def tag(asked: Asked, points: Floats) -> Floats:
    """Score pairs of change points up to half of the film: inside minus outside of nearly normal scores."""
    bounds = np.unique(np.searchsorted(asked.film.pts_seconds, points))
    bounds = np.unique([0, *bounds.tolist(), len(asked.curve)])
    first, last = (bounds[side] for side in np.triu_indices(len(bounds), 1))
    short = last - first <= len(asked.curve) / 2
    first, last = first[short], last[short]
    scores = inside_minus_outside(box_cox(stretched(asked.curve) + 0.1), first, last)
    edges = asked.film.edges
    return ranked(np.stack([edges[first], edges[last]], axis=1), scores)


def box_cox(values: Floats) -> Floats:
    """Return Box and Cox's transform (1964) of positive values; maximum likelihood picks an exponent in [-2, 2]."""
    exponents = np.linspace(-2, 2, 41)[:, None]
    logs = np.log(values)
    small = np.abs(exponents) < 1e-9
    powers = np.where(small, logs, np.expm1(exponents * logs) / np.where(small, 1, exponents))
    spread = np.maximum(powers.var(axis=1), 1e-12)
    likelihood = -len(values) / 2 * np.log(spread) + (exponents[:, 0] - 1) * logs.sum()
    best: Floats = powers[likelihood.argmax()]
    return stretched(best)


def cluster_changes(film: Film, *, width: int, clusters: int = 9, reach: int = 3) -> Floats:
    """Return the times at which k-means changes its label, over smoothed features and time.

    Its costs are averaged over neighbours.
    """
    num_frames = len(film.units)
    times = np.arange(num_frames) / num_frames
    points = smoothed(np.column_stack([film.units, times]).astype(np.float64), width)
    centres = points[np.linspace(0, num_frames - 1, clusters).round().astype(int)]
    labels = np.zeros(num_frames, np.int64)
    for _ in range(20):
        costs = ((points[:, None] - centres) ** 2).sum(axis=2)
        new = smoothed(costs, 2 * reach + 1).argmin(axis=1)
        if (new == labels).all():
            break
        labels = new
        centres = np.stack(
            [
                points[labels == k].mean(axis=0) if (labels == k).any() else centres[k]
                for k in range(clusters)
            ]
        )
    changes: Floats = film.pts_seconds[1:][labels[1:] != labels[:-1]]
    return changes


# ------------------------------------------------ shots, clips


def shots(film: Film) -> Floats:
    """Return change points of the frames."""
    return change_points(film.units, film.pts_seconds, np.arange(len(film.units)))


def merged_shots(asked: Asked, points: Floats, *, share: float) -> Floats:
    """Merge each shot with neighbours that score above a share of it; the score is that of the pooled span."""
    bounds = np.array([asked.film.pts_seconds[0], *points.tolist(), asked.film.end_seconds])
    pooled = pooled_scores(asked, np.stack([bounds[:-1], bounds[1:]], axis=1))
    levels = stretched(pooled)
    windows = np.array([grown(levels, k, share) for k in range(len(levels))])
    return ranked(bounds[windows], pooled)


def clips(asked: Asked, points: Floats) -> Floats:
    """Rank fixed windows by pooled score."""
    spans = ClipGrid().spans(asked.film.end_seconds)
    return ranked(spans, pooled_scores(asked, spans))


def pooled_scores(asked: Asked, spans: Floats) -> Floats:
    """Return cosines of the query and the mean-pooled spans, by which the engine sorts."""
    embeddings = pool_spans(asked.film.units, asked.film.pts_seconds, spans, asked.film.fps)
    return (embeddings @ asked.query).astype(np.float64)


# ------------------------------------------------ ours


def ours(asked: Asked, points: Floats) -> Floats:
    """Find spans with the settings of the engine, sorted by contrast."""
    settings = SearchSettings()
    found = find_spans(
        z_scores(asked.curve.astype(np.float32), *asked.background),
        asked.film.pts_seconds,
        end_seconds=asked.film.end_seconds,
        longest_seconds=settings.longest_moment_seconds,
        top=8,
        overlap=settings.nms_overlap,
    )
    return np.array([(each.span.start_seconds, each.span.end_seconds) for each in found])


def ours_pooled(asked: Asked, points: Floats) -> Floats:
    """Sort ours as the engine does: by the score of the pooled span."""
    spans = ours(asked, points)
    return spans[np.argsort(-pooled_scores(asked, spans), kind="stable")]


def ours_snapped(asked: Asked, points: Floats) -> Floats:
    """Move the edges of ours to change points that are near."""
    return snap(ours_pooled(asked, points), points, SNAP_REACH_SECONDS)


def ours_risen(asked: Asked, points: Floats, *, slope: float, reach_seconds: float) -> Floats:
    """Move the start of ours back to the beginning of the rise of the curve, if it is near."""
    spans = ours_pooled(asked, points)
    _, begin = rises(stretched(asked.curve), slope)
    first = np.searchsorted(asked.film.pts_seconds, spans[:, 0])
    risen = asked.film.edges[begin[first]]
    near = spans[:, 0] - risen <= reach_seconds
    return np.stack([np.where(near, risen, spans[:, 0]), spans[:, 1]], axis=1)


# ------------------------------------------------ the comparison

RECIPES = (
    Recipe("clips of 4, 8, 16 s", clips),
    # of prominences .05, .1, .2, .4
    Recipe("P2S", partial(p2s, prominence=0.05)),
    # of masks 0, .3, .5, .7, strides of 1 and 4 frames, slopes 5e-4 and .05
    Recipe("TFVTG", partial(tfvtg, masked=0.7, stride=1, slope=0.05)),
    Recipe("TFVTG, static only", partial(tfvtg, masked=0.7, stride=1, slope=np.inf)),
    # of moving averages of 1, 3, 7, 13 frames
    Recipe("TAG", tag, partial(cluster_changes, width=1)),
    # of shares .5, .6, .7, .8
    Recipe("shots, merged", partial(merged_shots, share=0.8), shots),
    Recipe("ours, by contrast", ours),
    Recipe("ours", ours_pooled),
    # of reaches .5, 1, 2 s, slopes 5e-4, .02, .1
    Recipe("ours, risen start", partial(ours_risen, slope=5e-4, reach_seconds=1.0)),
    Recipe("ours, snapped", ours_snapped, shots),
)
"""The recipes compared; the comments list the values tried on films of seed 7."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one recipe."""

    spans: list[list[Located]]
    """Spans found for each question, best first."""
    prepare_ms: float
    """Time for an hour of video, once."""
    locate_ms: float
    """Time for an hour of video, each query."""


def read_films(index_dir: Path) -> dict[str, Film]:
    """Read all films of an index, by file name."""
    layout = IndexLayout(index_dir)
    store = FeatureStore(layout.features)
    films = {}
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        for video in catalog.videos(states=SEARCHABLE):
            stored = store.read(video.uid)
            films[video.path.name] = Film(
                unit(stored.frames), stored.pts_seconds, video.duration_seconds, stored.fps
            )
    return films


def pair_with_films(films: dict[str, Film], questions: Sequence[Question]) -> list[Asked]:
    """Pair every question with its own film."""
    encoder = load_encoder(BUNDLED_NAME, towers="text")
    queries = unit(encoder.encode_texts([question.text for question in questions]))
    every = np.concatenate(
        [
            pool_spans(film.units, film.pts_seconds, ClipGrid().spans(film.end_seconds), film.fps)
            for film in films.values()
        ]
    )
    asked = []
    for question, query in zip(questions, queries, strict=True):
        film = films[question.truth.video]
        scores = every @ query
        background = float(scores.mean()), float(scores.std())
        asked.append(Asked(film, query, (film.units @ query).astype(np.float64), background))
    return asked


def try_out(
    recipe: Recipe, films: dict[str, Film], questions: Sequence[Question], asked: Sequence[Asked]
) -> Outcome:
    """Run a recipe over all questions and measure the time."""
    begin = time.perf_counter()
    points = {name: recipe.prepare(film) for name, film in films.items()}
    prepared = time.perf_counter()
    found = [
        recipe.locate(each, points[question.truth.video])
        for question, each in zip(questions, asked, strict=True)
    ]
    located = time.perf_counter()
    spans = [
        [Located(question.truth.video, Span(*row)) for row in rows.tolist()]
        for question, rows in zip(questions, found, strict=True)
    ]
    hours = sum(film.end_seconds for film in films.values()) / 3600
    hours_asked = sum(each.film.end_seconds for each in asked) / 3600
    return Outcome(
        spans, (prepared - begin) / hours * 1e3, (located - prepared) / hours_asked * 1e3
    )


def results_table(
    title: str, outcomes: dict[str, Outcome], questions: Sequence[Question], needs_time: bool
) -> Table:
    """A table of the figures for one kind of questions."""
    rows = [k for k, question in enumerate(questions) if question.needs_time == needs_time]
    table = Table(title=f"{title}, n = {len(rows)}", box=None)
    table.add_column("recipe")
    columns = ("R@1 .3", "R@1 .5", "R@1 .7", "R@5 .5", "mIoU", "ms/h once", "ms/h a query")
    for column in columns:
        table.add_column(column, justify="right")
    for name, outcome in outcomes.items():
        scored = [score_query(outcome.spans[k], [questions[k].truth], _RULE) for k in rows]
        counted = library_figures(scored, _RULE)
        figures = [counted.svmr[tiou][1] for tiou in _RULE.tious]
        figures += [counted.svmr[0.5][5], counted.svmr_mean_tiou]
        table.add_row(
            name,
            *(f"{figure.value:.3f}" for figure in figures),
            f"{outcome.prepare_ms:.0f}",
            f"{outcome.locate_ms:.0f}",
        )
    return table


def main(
    seed: Annotated[int, typer.Option(help="Seed of the films.")] = 1,
    films: Annotated[int, typer.Option(min=1, help="Held-out films to render.")] = 40,
    keep: Annotated[Path | None, typer.Option(help="Folder for films and index; reused.")] = None,
) -> None:
    """Print how well each recipe finds spans in rendered films."""
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        truth = folder / "films" / "ground_truth.jsonl"
        if not truth.exists():
            render_library(folder / "films", seed=seed, num_films=films, held_out=True)
        index_films(folder / "films", folder / "index-uniform")
        read = read_films(folder / "index-uniform")
        questions = read_questions(truth)
    asked = pair_with_films(read, questions)
    outcomes = {recipe.name: try_out(recipe, read, questions, asked) for recipe in RECIPES}
    for needs_time, title in ((False, "need no time"), (True, "need time")):
        console.print(results_table(title, outcomes, questions, needs_time))


if __name__ == "__main__":
    typer.run(main)
