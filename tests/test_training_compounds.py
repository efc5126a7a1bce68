"""Queries of several parts and by images about rendered films, with figures."""

from pathlib import Path

import numpy as np
import pytest

from scanonce.search.engine import SearchEngine, ceilings_of, good_matches
from scanonce.search.grades import GOOD
from scanonce.training.bundled.compounds import Compounds, measure_compounds
from scanonce.training.bundled.questions import index_films
from scanonce.training.world.films import FilmSpec, film_name, render_film
from scanonce.training.world.scene import SceneSpec
from scanonce.training.world.words import scene_captions


def scene(thing: str, colour: str, place: str, seed: int) -> SceneSpec:
    return SceneSpec(thing, colour, place, "day", 1, "nothing", 75, seed)


FILMS = [
    FilmSpec(
        (
            scene("dog", "red", "beach", 1),
            scene("house", "white", "forest", 2),
            scene("dog", "blue", "beach", 3),
        ),
        ("cut", "cut"),
        seed=1,
    ),
    FilmSpec(
        (
            scene("rocket", "yellow", "space", 4),
            scene("car", "green", "city", 5),
            scene("fish", "pink", "sea", 6),
        ),
        ("cut", "cut"),
        seed=2,
    ),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compounds")
    (root / "films").mkdir()
    for number, film in enumerate(FILMS):
        render_film(film, root / "films" / film_name(number))
    index_films(root / "films", root / "index")
    return root / "index"


def value(measured: Compounds, name: str) -> float:
    return measured.figures[name].value


def test_images_find_their_scenes_and_words_change_their_colour(index: Path) -> None:
    measured = measure_compounds(index, FILMS, seed=1)
    assert measured.num_queries["image: R@5"] == 6
    assert measured.num_queries["image and another colour: R@5"] == 2  # the two dogs
    assert value(measured, "image: R@5") == 1.0
    assert value(measured, "image and another colour: R@5") == 1.0
    # the same answers are wrong if the scenes are others
    swapped = measure_compounds(index, FILMS[::-1], seed=1)
    assert value(swapped, "image: R@5") < 0.5


def test_asking_many_searches_at_once_loses_no_good_match(index: Path) -> None:
    rng = np.random.default_rng(1)
    scenes = [scene for film in FILMS for scene in film.scenes]
    texts = [each.text for scene in scenes for each in scene_captions(scene, rng)]
    texts = list(dict.fromkeys([*texts, "dog", "a red rocket", "snow at night"]))
    texts += [f"{a}{operator}{b}" for a, b, operator in zip(
        ["dog", "a house", "a rocket", "car"], ["a house", "snow", "a car", "city"],
        [" > ", " & -", " | ", " & "], strict=True,
    )]  # fmt: skip
    with SearchEngine.open(index) as engine:
        num_located = num_good = 0
        for video_id in engine.videos:
            within = frozenset({video_id})
            results = engine.search_many(texts, top=20, within=within)
            good = {k for k, each in enumerate(results) if each.num_good}
            # texts that are encoded together with others differ in the last bits
            sure = {k for k in good if results[k].moments[0].probability >= GOOD + 0.01}
            assert sure <= good_matches(engine, texts, top=20, within=within).keys()
            num_good += len(good)
            num_located += int(np.sum(ceilings_of(engine, texts, within=within) >= GOOD))
    assert 0 < num_good < 2 * len(texts)
    assert num_located < 2 * len(texts)
