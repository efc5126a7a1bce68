"""Small libraries of noise with queries, and runs of a tiny localiser on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scanonce.models.soonet.grid import AnchorGrid
from scanonce.models.soonet.network import SoonetConfig
from scanonce.training.bundled.soonet import bundled_network
from scanonce.training.localiser.batches import FilmFrames, MomentLibrary, Queries
from scanonce.training.localiser.recipe import LocaliserRecipe
from scanonce.training.localiser.run import LocaliserRun, Rotation, train_localiser

FPS = 2.0
GRID = AnchorGrid(FPS, 4, 4)
TINY = LocaliserRecipe(
    steps=12, warm_up_steps=2, learning_rate=3e-3, evaluate_every=5, save_every=3
)
TINY_NETWORK = SoonetConfig(
    hidden_dim=32, num_heads=2, window=8, snippet_length=4, fps=FPS, frame_dim=8, text_dim=8
)


def noise(seconds: float, spans: Sequence[tuple[float, float]], seed: int = 0) -> MomentLibrary:
    """A film of noise with a query of noise for each span."""
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((int(seconds * FPS), 8)).astype(np.float16)
    texts = rng.standard_normal((len(spans), 8)).astype(np.float32)
    count = len(spans)
    queries = Queries(
        [str(number) for number in range(count)],
        np.zeros((count, 1), np.int64),
        np.arange(count),
        np.array(spans)[:, None],
        [""] * count,
        texts,
        texts,
    )
    return MomentLibrary([FilmFrames(frames, seconds)], queries)


def made_up(seed: int, num_films: int = 3) -> MomentLibrary:
    """Films of three scenes; the frames of a scene are noisy copies of the features of its query."""
    rng = np.random.default_rng(seed)
    films, rows = [], []
    directions = rng.standard_normal((3 * num_films, 16)).astype(np.float32)
    for film in range(num_films):
        lengths = rng.integers(8, 16, size=3)
        ends = np.cumsum([0, *lengths])
        clean = np.repeat(directions[3 * film : 3 * film + 3], lengths, axis=0)
        frames = clean + 0.3 * rng.standard_normal(clean.shape)
        films.append(FilmFrames(frames.astype(np.float16), ends[-1] / FPS))
        rows += [(film, 3 * film + k, ends[k] / 2, ends[k + 1] / 2) for k in range(3)]
    table = np.array(rows)
    queries = Queries(
        texts=[f"query {k}" for k in range(len(rows))],
        films=table[:, :1].astype(np.int64),
        scenes=table[:, 1].astype(np.int64),
        spans=table[:, None, 2:],
        kinds=["rise" if k % 2 else "" for k in range(len(rows))],
        joint=directions,
        states=np.concatenate([directions, directions], axis=1),
    )
    return MomentLibrary(films, queries)


def new_run(
    recipe: LocaliserRecipe = TINY,
    num_libraries: int = 3,
    validation: Sequence[MomentLibrary] = (),
    cap: float = 1e9,
) -> LocaliserRun:
    """A run on the first of the made-up libraries."""
    libraries = [made_up(seed) for seed in range(num_libraries)]
    config = replace(bundled_network(libraries[0]), hidden_dim=32, num_heads=2, window=8)
    rotation = Rotation(libraries, seed=recipe.seed)
    return LocaliserRun(recipe, config, rotation, validation, cap_seconds=cap)


def finished(
    recipe: LocaliserRecipe, state: Path, validation: Sequence[MomentLibrary]
) -> LocaliserRun:
    """A run at its end."""
    run = new_run(recipe, validation=validation)
    train_localiser(run, state)
    return run
