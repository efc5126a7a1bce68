"""Queries of several parts about rendered films, with the truth, and what comes of them.

    films = FULL.films()
    measure_compounds(Path("index"), films, seed=1).figures

NOT is asked of things in a light or at a place; OR and THEN of sentences with one answer each. Images show the thing,
the colour and the place of a scene, with another layout, light and number; words next to them ask for another colour.
A second try follows the judgement of one right and one wrong moment of the first list.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from scanonce.search.engine import SearchEngine
from scanonce.search.examples import Example
from scanonce.search.grades import GOOD
from scanonce.storage.records import Moment, Span
from scanonce.training.evaluation.intervals import Figure, mean_figures
from scanonce.training.world.films import FilmSpec, film_name
from scanonce.training.world.scene import FRAMES_PER_SECOND, LIGHTS, SceneSpec, draw_image
from scanonce.training.world.words import fact_phrases, scene_captions

_SHOWN = 10
_FIRST = 5  # moments among which the scene of an image has to be
_TIOU = 0.5
_MOST = 150  # queries of a kind
_INSIDE = 0.5  # share of a moment in a scene, for it to show the scene


@dataclass(frozen=True, slots=True)
class _Scene:
    spec: SceneSpec
    film: str
    span: Span

    def is_shown(self, moment: Moment) -> bool:
        """Whether most of a moment is in the scene."""
        if moment.path.name != self.film:
            return False
        shared = min(moment.span.end_seconds, self.span.end_seconds) - max(
            moment.span.start_seconds, self.span.start_seconds
        )
        return shared >= _INSIDE * moment.span.duration_seconds

    def is_found(self, moment: Moment) -> bool:
        """Whether a moment is the scene."""
        return moment.path.name == self.film and moment.span.tiou(self.span) >= _TIOU


@dataclass(frozen=True, slots=True)
class Compounds:
    """The figures of queries of several parts; each is better if it is higher."""

    figures: dict[str, Figure]
    num_queries: dict[str, int]


def measure_compounds(index_dir: Path, films: Sequence[FilmSpec], *, seed: int) -> Compounds:
    """Ask an index of rendered films queries with NOT, OR and THEN, by images, and a second time.

    Args:
        index_dir: index of the films.
        films: the films, by the numbers of their files.
        seed: seed of the wording and of the choice of queries.
    """
    scenes = [scene for number, film in enumerate(films) for scene in _scenes(number, film)]
    rng = np.random.default_rng((seed, 61))
    with SearchEngine.open(index_dir) as engine:
        tables = {
            "not": _ask_not(engine, scenes),
            "or": _ask_or(engine, scenes, rng),
            "then": _ask_then(engine, scenes, rng),
            **_ask_images(engine, scenes, rng),
        }
    names = {
        "not": ("not: nothing unwanted in 10", "not: wanted in 10", "not: wanted in 10, plain"),
        "or": ("or: both in first 2", "or: each first, alone"),
        "then": ("then: R@1 tIoU 0.5", "then: order kept"),
        "image": ("image: R@5",),
        "image and colour": ("image and another colour: R@5",),
    }
    again = measure_second_try(index_dir, films, seed=seed)
    figures, numbers = dict(again.figures), dict(again.num_queries)
    for kind, rows in tables.items():
        if not rows:  # a small library has no two colours of a thing at one place
            continue
        columns = mean_figures(np.array(rows, np.float64))
        for name, figure in zip(names[kind], columns, strict=True):
            figures[name], numbers[name] = figure, len(rows)
    return Compounds(figures, numbers)


def measure_second_try(index_dir: Path, films: Sequence[FilmSpec], *, seed: int) -> Compounds:
    """Ask an index of rendered films for things at places, judge a right and a wrong moment, and ask again.

    Args:
        index_dir: index of the films.
        films: the films, by the numbers of their files.
        seed: seed of the wording.
    """
    scenes = [scene for number, film in enumerate(films) for scene in _scenes(number, film)]
    with SearchEngine.open(index_dir) as engine:
        rows = _ask_again(engine, scenes, seed)
    if not rows:
        return Compounds({}, {})
    names = [f"{which} try: R@{rank}" for which in ("first", "second") for rank in (1, _FIRST)]
    figures = dict(zip(names, mean_figures(np.array(rows, np.float64)), strict=True))
    return Compounds(figures, dict.fromkeys(names, len(rows)))


def _scenes(number: int, film: FilmSpec) -> Iterator[_Scene]:
    bounds = [frame / FRAMES_PER_SECOND for frame in film.first_frames]
    for scene, (start, end) in zip(film.scenes, pairwise(bounds), strict=True):
        yield _Scene(scene, film_name(number), Span(start, end))


def _ask_not(engine: SearchEngine, scenes: Sequence[_Scene]) -> list[list[float]]:
    """Ask for each thing without each light and each place that some of its scenes have and some have not.

    Scenes that are only in part of a light are neither wanted nor unwanted.
    """
    rows = []
    for thing in sorted({scene.spec.thing for scene in scenes}):
        of_thing = [scene for scene in scenes if scene.spec.thing == thing]
        word = fact_phrases(f"thing:{thing}")[0]
        for fact in _where(of_thing):
            wanted = [each for each in of_thing if _has(each.spec, fact) == 0.0]
            unwanted = [each for each in of_thing if _has(each.spec, fact) == 1.0]
            if not wanted or not unwanted:
                continue
            text = f"{word} -{fact_phrases(fact)[0]}"
            moments = engine.search(text, top=_SHOWN).moments
            plain = engine.search(word, top=_SHOWN).moments
            bad = any(scene.is_shown(moment) for scene in unwanted for moment in moments)
            rows.append([1.0 - bad, _recall(wanted, moments), _recall(wanted, plain)])
    return rows


def _where(scenes: Sequence[_Scene]) -> list[str]:
    """Lights and places of some scenes, as facts."""
    lights = {f"light:{light}" for scene in scenes for light in scene.spec.lights}
    return sorted(lights | {f"place:{scene.spec.place}" for scene in scenes})


def _has(scene: SceneSpec, fact: str) -> float:
    """1 if all of a scene is in a light or at a place, 0 if nothing of it is, else a half; space has no light."""
    kind, _, name = fact.partition(":")
    if kind == "place":
        return float(scene.place == name)
    if scene.place == "space" or len({*scene.lights}) > 1:
        return 0.5
    return float(name in scene.lights)


def _recall(wanted: Sequence[_Scene], moments: Sequence[Moment]) -> float:
    found = sum(any(scene.is_shown(moment) for moment in moments) for scene in wanted)
    return found / min(len(wanted), _SHOWN)


def _sentence(scene: _Scene, rng: np.random.Generator) -> str | None:
    """A sentence about a scene that needs no time; None if no such sentence is true of all of it."""
    plain = [each.text for each in scene_captions(scene.spec, rng) if not each.needs_time]
    return plain[0] if plain else None


def _ask_or(
    engine: SearchEngine, scenes: Sequence[_Scene], rng: np.random.Generator
) -> list[list[float]]:
    asked = [(scene, _sentence(scene, rng)) for scene in scenes]
    known = [(scene, text) for scene, text in asked if text is not None]
    order = rng.permutation(len(known)).tolist()
    rows = []
    for one, other in list(zip(order[::2], order[1::2], strict=False))[:_MOST]:
        (first, a), (second, b) = known[one], known[other]
        moments = engine.search(f"({a}) | ({b})", top=_SHOWN).moments[:2]
        both = all(any(scene.is_found(each) for each in moments) for scene in (first, second))
        # For comparison: how often each sentence, asked alone, has its scene first.
        alone = [engine.search(text, top=1).moments for text in (a, b)]
        firsts = [
            any(scene.is_found(each) for each in found)
            for scene, found in zip((first, second), alone, strict=True)
        ]
        rows.append([float(both), float(all(firsts))])
    return rows


def _ask_then(
    engine: SearchEngine, scenes: Sequence[_Scene], rng: np.random.Generator
) -> list[list[float]]:
    """Ask for scenes that follow each other, and for the same two in reverse order."""
    neighbours = [(a, b) for a, b in pairwise(scenes) if a.film == b.film]
    rows: list[list[float]] = []
    for k in rng.permutation(len(neighbours)).tolist():
        first, second = neighbours[k]
        a, b = _sentence(first, rng), _sentence(second, rng)
        if a is None or b is None or len(rows) == _MOST:
            continue
        span = Span(first.span.start_seconds, second.span.end_seconds)
        joined = _Scene(first.spec, first.film, span)
        found = engine.search(f"({a}) > ({b})", top=1).moments
        reverse = engine.search(f"({b}) > ({a})", top=1).moments
        turned = [each for each in reverse if each.probability >= GOOD]
        rows.append(
            [
                float(any(joined.is_found(each) for each in found)),
                float(not any(joined.is_found(each) for each in turned)),
            ]
        )
    return rows


def _ask_images(
    engine: SearchEngine, scenes: Sequence[_Scene], rng: np.random.Generator
) -> dict[str, list[list[float]]]:
    """Ask by an image like a scene, and by the image with the words of another colour that the thing has there."""
    alone: list[list[float]] = []
    with_words: list[list[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for k in rng.permutation(len(scenes)).tolist()[:_MOST]:
            spec = scenes[k].spec
            example = Example(_draw(spec, Path(folder, f"{k}.png"), rng))
            here = [each for each in scenes if _is_there(each.spec, spec)]
            alike = [each for each in here if each.spec.colour == spec.colour]
            alone.append([_is_among_first(alike, engine, "", example)])
            others = sorted({each.spec.colour for each in here} - {spec.colour})
            if others:
                colour = others[int(rng.integers(len(others)))]
                wanted = [each for each in here if each.spec.colour == colour]
                words = [
                    fact_phrases(f"colour:{colour}")[0],
                    fact_phrases(f"thing:{spec.thing}")[0],
                ]
                with_words.append([_is_among_first(wanted, engine, " ".join(words), example)])
    return {"image": alone, "image and colour": with_words}


def _ask_again(engine: SearchEngine, scenes: Sequence[_Scene], seed: int) -> list[list[float]]:
    """Ask by a sentence about one scene and mean its thing at its place; judge a right and a wrong moment, ask again.

    The judged moments are left out of both lists, with all others of their scenes.
    """
    rng = np.random.default_rng((seed, 67))
    rows = []
    for thing, place in sorted({(each.spec.thing, each.spec.place) for each in scenes}):
        wanted = [each for each in scenes if (each.spec.thing, each.spec.place) == (thing, place)]
        others = [each for each in scenes if each.spec.thing == thing and each not in wanted]
        if len(wanted) < 2 or not others:
            continue
        text = _sentence(wanted[0], rng)
        if text is None:
            continue
        first = engine.search(text, top=_SHOWN).moments
        right = next((each for each in first if _shows(wanted, each)), None)
        wrong = next((each for each in first if not _shows(wanted, each)), None)
        judged = [each for each in (right, wrong) if each is not None]
        second = engine.search(
            text,
            more_like=[] if right is None else [right],
            less_like=[] if wrong is None else [wrong],
            top=_SHOWN,
        ).moments
        known = [scene for scene in scenes for each in judged if scene.is_shown(each)]
        row: list[float] = []
        for moments in (first, second):
            left = [each for each in moments if each not in judged and not _shows(known, each)]
            hits = [_shows(wanted, each) for each in left]
            row += [float(any(hits[:1])), float(any(hits[:_FIRST]))]
        rows.append(row)
    return rows


def _shows(scenes: Sequence[_Scene], moment: Moment) -> bool:
    return any(scene.is_shown(moment) for scene in scenes)


def _is_there(one: SceneSpec, other: SceneSpec) -> bool:
    return (one.thing, one.place) == (other.thing, other.place)


def _draw(spec: SceneSpec, path: Path, rng: np.random.Generator) -> Path:
    """Draw a still that no film of the library has, of the same thing, colour and place."""
    light = "day" if spec.place == "space" else str(rng.choice(LIGHTS))
    count, seed = int(rng.integers(1, 4)), int(rng.integers(2**31))
    still = replace(spec, happening="nothing", light=light, count=count, seed=seed)
    Image.fromarray(draw_image(still)).save(path)
    return path


def _is_among_first(
    wanted: Sequence[_Scene], engine: SearchEngine, text: str, example: Example
) -> float:
    moments = engine.search(text, examples=[example], top=_FIRST).moments
    return float(any(scene.is_shown(moment) for scene in wanted for moment in moments))
