"""The published recipes, re-told: each finds a plain moment in a plain film."""

import numpy as np
import pytest

from benchmarks.recipes import RECIPES, Asked, Film, Recipe, box_cox, peaks, rises
from scanonce.storage.records import Span

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def asked() -> Asked:
    """A film of three shots of 10 s; the query is the middle one."""
    scenes = np.eye(3, 16).repeat(20, axis=0) + 0.02 * rng.normal(size=(60, 16))
    units = (scenes / np.linalg.norm(scenes, axis=1, keepdims=True)).astype(np.float32)
    film = Film(units, np.arange(60) / 2, 30.0, 2.0)
    query = np.eye(3, 16, dtype=np.float32)[1]
    return Asked(film, query, (units @ query).astype(np.float64), (0.3, 0.3))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_finds_the_middle_shot(recipe: Recipe, asked: Asked) -> None:
    spans = recipe.locate(asked, recipe.prepare(asked.film))
    assert 1 <= len(spans) <= 8
    assert all(0 <= start < end <= 30 for start, end in spans.tolist())
    assert Span(*spans[0].tolist()).tiou(Span(9.75, 19.75)) > 0.6


def test_a_peak_is_as_prominent_as_it_rises_above_the_higher_valley() -> None:
    curve = np.array([0.0, 1.0, 0.5, 0.8, 0.1, 0.6, 0.0])
    assert peaks(curve, 0.25, 1) == [1, 3, 5]
    assert peaks(curve, 0.4, 1) == [1, 5]


def test_a_climb_begins_where_the_curve_was_last_flat() -> None:
    curve = np.concatenate([np.zeros(10), np.linspace(0, 1, 6), np.ones(10)])
    sums, begin = rises(curve, 1e-3)
    assert begin[16] <= 10 <= begin[16] + 2
    assert sums[5] == 0 < sums[14]


def test_box_cox_makes_a_skewed_sample_symmetric() -> None:
    values = np.exp(rng.normal(size=500))
    even = box_cox(values)
    assert abs(np.mean(even) - np.median(even)) < 0.05 * np.std(even)
