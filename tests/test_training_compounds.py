"""Queries of several parts and by images about rendered films, with figures."""

from pathlib import Path

import pytest

from scanonce.training.bundled.compounds import Compounds, measure_compounds
from scanonce.training.bundled.questions import index_films
from scanonce.training.world.films import FilmSpec, film_name, render_film
from scanonce.training.world.scene import SceneSpec

pytestmark = pytest.mark.serial


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
