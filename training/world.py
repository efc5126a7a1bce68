"""Our own rendered world: short films of things, colours, places, light and motion.

Films are H.264 with sound, and because we drew them, their ground truth is exact: every query
names one scene of the library, its span given to the frame. `training.world_drawing` says how the
world looks; this module says what happens in it and how people put it into words.

    python -m training.world --seed 1 --films 12 demo/films
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training import world_drawing
from training.world_drawing import Actor, Painter, View

Rng: TypeAlias = np.random.Generator
T = TypeVar("T")

FRAMES_PER_SECOND = 25
FILM_SIZE = (640, 360)
"""(width, height) of a film in pixels."""
AUDIO_RATE = 44_100
"""Samples of sound per second."""
FADE_FRAMES = 12
"""Frames of a cross-fade; the middle of it counts as the boundary of the two scenes."""
NUM_LAYOUTS = 48
"""How many drawings there are of every place."""

THINGS = tuple(world_drawing.THINGS)
COLOURS = tuple(world_drawing.COLOUR_RGB)
PLACES = tuple(world_drawing.PLACES)
LIGHTS = tuple(world_drawing.MOODS)

LIGHT_STAGES: dict[str, tuple[str, ...]] = {
    "night_falls": ("day", "sunset", "night"),
    "day_breaks": ("night", "sunset", "day"),
    "rain_starts": ("day", "rain"),
    "rain_stops": ("rain", "day"),
}
"""What happens to the light, as the lights one after another."""

MOTIONS = ("closer", "away", "rise", "fall", "left", "right", "join")
HAPPENINGS = ("nothing", *LIGHT_STAGES, *MOTIONS)


@dataclass(frozen=True)
class SceneSpec:
    """One scene: what is to be seen in it, and what happens."""

    thing: str
    colour: str
    place: str
    light: str
    """The light of the whole scene, or of its beginning where the light changes."""
    count: int
    """How many things, 1 to 3; for "join" the number at the end."""
    happening: str
    num_frames: int
    seed: int
    """Of all that has no name: layout, positions, sizes."""

    @property
    def duration_seconds(self) -> float:
        """Length of the scene."""
        return self.num_frames / FRAMES_PER_SECOND

    @property
    def lights(self) -> tuple[str, ...]:
        """All lights of the scene in order; in space, where none can be seen, just "day"."""
        return LIGHT_STAGES.get(self.happening, (self.light,))

    @property
    def counts(self) -> range:
        """All numbers of things that can be seen at some time in the scene."""
        return range(1 if self.happening == "join" else self.count, self.count + 1)


@dataclass(frozen=True)
class FilmSpec:
    """A film: scenes one after another, joined by cuts and fades."""

    scenes: tuple[SceneSpec, ...]
    joints: tuple[Literal["cut", "fade"], ...]
    """How each scene but the last goes over into the next."""
    seed: int
    """Of the tune."""

    @property
    def first_frames(self) -> tuple[int, ...]:
        """Where each scene begins, and after the last one where the film ends."""
        return tuple(int(n) for n in np.cumsum([0, *(s.num_frames for s in self.scenes)]))


@dataclass(frozen=True)
class Caption:
    """A text and the facts it states."""

    text: str
    facts: frozenset[str]
    """Such as "colour:red" or "happening:rise"; true of a picture when all are in its facts."""

    @property
    def needs_time(self) -> bool:
        """Whether only a run of frames can bear it out, never one frame."""
        return any(fact.startswith("happening:") for fact in self.facts)


def is_held_out(thing: str, colour: str) -> bool:
    """Whether training never sees this thing in this colour.

    A quarter of all pairs, along the diagonals of the table of things and colours: each colour
    lacks 3 of its 12 things, each thing 2 or 3 of its 9 colours.
    """
    return (THINGS.index(thing) + COLOURS.index(colour)) % 4 == 0


def random_scene(rng: Rng, *, held_out: bool = False, happening: str | None = None) -> SceneSpec:
    """A scene by chance, of pairs that training sees or (`held_out`) of those it never sees."""
    if happening is None:
        happening = "nothing" if rng.random() < 0.3 else str(rng.choice(HAPPENINGS[1:]))
    pairs = [(t, c) for t in THINGS for c in COLOURS if is_held_out(t, c) is held_out]
    if happening in ("rise", "fall"):
        pairs = [(t, c) for t, c in pairs if world_drawing.THINGS[t].flies]
    thing, colour = pairs[rng.integers(len(pairs))]
    places = [p for p in PLACES if p != "space" or happening not in LIGHT_STAGES]
    place = str(rng.choice(places))
    light = LIGHT_STAGES[happening][0] if happening in LIGHT_STAGES else str(rng.choice(LIGHTS))
    count = 3 if happening == "join" else int(rng.choice((1, 1, 1, 2, 3)))
    shortest = 3 if happening == "nothing" else 5
    return SceneSpec(
        thing=thing,
        colour=colour,
        place=place,
        light="day" if place == "space" else light,
        count=count,
        happening=happening,
        num_frames=int(rng.integers(shortest * FRAMES_PER_SECOND, 10 * FRAMES_PER_SECOND + 1)),
        seed=int(rng.integers(2**31)),
    )


# --- What is where, and when --------------------------------------------------------------------


def view_at(scene: SceneSpec, seconds: float) -> View:
    """What can be seen at a time of the scene; times outside it are taken to its nearest end."""
    seconds = min(max(seconds, 0.0), scene.duration_seconds)
    share = seconds / scene.duration_seconds
    layout = scene.seed % NUM_LAYOUTS
    light, light_to, mix = _light_at(scene, share)
    rain = (1 - mix) * (light == "rain") + mix * (light_to == "rain")
    return View(
        place=scene.place,
        layout=layout,
        light=light,
        light_to=light_to,
        mix=mix,
        rain=rain,
        seconds=seconds + layout,
        actors=_actors_at(scene, seconds, share),
    )


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _light_at(scene: SceneSpec, share: float) -> tuple[str, str, float]:
    """The two lights a moment lies between, and how far it is from the first to the second."""
    stages = scene.lights
    if len(stages) == 1:
        return stages[0], stages[0], 0.0
    steps = len(stages) - 1
    # The first and last eighth stand still, so that both ends can be seen for what they are.
    along = min(max((share - 0.125) / 0.75, 0.0), 1.0) * steps
    step = min(int(along), steps - 1)
    return stages[step], stages[step + 1], _smooth(along - step)


def _motion(scene: SceneSpec, share: float) -> tuple[float, float, float]:
    """What a motion does at a share of the scene: (size factor, step to the right, step down)."""
    along = _smooth(share)
    sideways = 0.33 if scene.count == 1 else 0.15
    upright = 0.28 if scene.count == 1 else 0.24
    match scene.happening:
        case "closer":
            return 0.42 + 0.76 * along, 0.0, 0.16 * along - 0.08
        case "away":
            return 1.18 - 0.76 * along, 0.0, 0.08 - 0.16 * along
        case "rise":
            return 1.0, 0.0, upright * (1 - 2 * along)
        case "fall":
            return 1.0, 0.0, upright * (2 * along - 1)
        case "left":
            return 1.0, sideways * (1 - 2 * along), 0.0
        case "right":
            return 1.0, sideways * (2 * along - 1), 0.0
    return 1.0, 0.0, 0.0


def _start(scene: SceneSpec, rng: Rng, floats: bool) -> tuple[float, float]:
    """Where a single thing stands before it moves: its x, and y of its middle or of its foot."""
    x, y = rng.uniform(0.17, 0.83), rng.uniform(0.22, 0.74)
    if scene.happening in ("left", "right"):
        x = rng.uniform(0.44, 0.56)
    if scene.happening in ("rise", "fall", "closer", "away"):
        y = rng.uniform(0.46, 0.54)
    if not floats:
        horizon = world_drawing.horizon_of(scene.place, scene.seed % NUM_LAYOUTS)
        y = rng.uniform(horizon + 0.16, 0.95)
        if scene.happening in ("closer", "away"):
            y = 0.5 * (horizon + 0.12 + 0.96)
    return float(x), float(y)


def _actors_at(scene: SceneSpec, seconds: float, share: float) -> tuple[Actor, ...]:
    rng = np.random.default_rng(scene.seed)
    kind = world_drawing.THINGS[scene.thing]
    floats = kind.flies or scene.place == "space"
    x, y = _start(scene, rng, floats)
    faces_left = bool(rng.random() < 0.3)
    if scene.happening in ("left", "right"):
        faces_left = scene.happening == "left"
    grow, right, down = _motion(scene, share)
    scale = grow * float(rng.uniform(*{1: (0.28, 0.56), 2: (0.31, 0.42), 3: (0.27, 0.34)}[scene.count]))
    lift = 0.0 if floats else 0.5 * scale / math.sqrt(kind.aspect)
    margin = 0.52 * scale * math.sqrt(kind.aspect) * FILM_SIZE[1] / FILM_SIZE[0]
    actors = []
    for number in range(scene.count):
        offset, phase = float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0, 2 * math.pi))
        bobs = floats or scene.place == "sea"
        bob = 0.012 * math.sin(2.2 * seconds + phase) if bobs else 0.0
        actor = Actor(
            scene.thing,
            scene.colour,
            x=_slot(scene, number, min(max(x, margin), 1 - margin), share) + right,
            y=y + (offset if scene.count > 1 else 0.0) + down + bob - lift,
            scale=scale,
            faces_left=faces_left,
            on_ground=not floats,
        )
        actors.append(actor)
    return tuple(actors)


def _slot(scene: SceneSpec, number: int, x: float, share: float) -> float:
    """Where one of several things stands across the picture; who joins comes in from a side."""
    if scene.count == 1:
        return x
    slot = 0.5 + (number - (scene.count - 1) / 2) * (0.31 if scene.count == 3 else 0.42)
    if scene.happening != "join" or number == 1:  # the one in the middle is there all the time
        return slot
    come = _smooth((share - (0.22 if number == 0 else 0.55)) / 0.2)
    outside = -0.3 if number == 0 else 1.3
    return outside + (slot - outside) * come


def draw_picture(
    scene: SceneSpec, size: tuple[int, int] = FILM_SIZE, *, seconds: float = 0.0
) -> NDArray[np.uint8]:
    """One still of a scene, drawn just as a film's frame is.

    Args:
        size: (width, height) in pixels.
        seconds: Time within the scene.

    Returns:
        RGB, uint8 [height, width, 3]. The first still of a place takes some ten milliseconds,
        later ones about one.
    """
    return np.asarray(_still_painter(size).paint(view_at(scene, seconds)))


@lru_cache(maxsize=2)
def _still_painter(size: tuple[int, int]) -> Painter:
    # All backdrops of the world at 320 x 180 are some 400 MB; 400 of them are a bound on memory.
    return Painter(size, keep_backdrops=400)


# --- How people put it --------------------------------------------------------------------------

THING_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "car": (("car", "cars"), ("car", "cars"), ("automobile", "automobiles")),
    "boat": (("boat", "boats"), ("boat", "boats"), ("ship", "ships"), ("sailboat", "sailboats")),
    "bird": (("bird", "birds"),),
    "fish": (("fish", "fish"),),
    "dog": (("dog", "dogs"), ("dog", "dogs"), ("puppy", "puppies")),
    "house": (("house", "houses"), ("house", "houses"), ("home", "homes"), ("cottage", "cottages")),
    "balloon": (("balloon", "balloons"), ("hot-air balloon", "hot-air balloons")),
    "rocket": (("rocket", "rockets"), ("rocket", "rockets"), ("spaceship", "spaceships")),
    "tree": (("tree", "trees"),),
    "star": (("star", "stars"),),
    "train": (("train", "trains"), ("locomotive", "locomotives")),
    "flower": (("flower", "flowers"), ("flower", "flowers"), ("blossom", "blossoms")),
}
"""Singular and plural of every name a thing goes by; a common name may stand twice."""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    **{colour: (colour,) for colour in COLOURS},
    "red": ("red", "red", "scarlet"),
    "purple": ("purple", "purple", "violet"),
}

PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the beach", "by the seashore", "on the sand by the water"),
    "forest": ("in the forest", "in the woods", "among the fir trees"),
    "city": ("in the city", "downtown", "in town", "on a city street"),
    "desert": ("in the desert", "in the desert sand", "among the cacti"),
    "snow": ("in the snow", "on a snowy field", "in a winter landscape"),
    "sea": ("at sea", "on the ocean", "on the open sea", "out on the waves"),
    "space": ("in space", "in outer space", "among the planets"),
    "farm": ("on a farm", "on the farm", "in the fields", "in the countryside"),
}

LIGHT_WORDS: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "on a sunny day", "in the sunshine", "during the day"),
    "night": ("at night", "in the dark", "under the moon", "by moonlight", "in the night"),
    "sunset": ("at sunset", "at dusk", "in the evening glow", "as the sun sets"),
    "rain": ("in the rain", "on a rainy day", "in rainy weather"),
}

COUNT_WORDS: dict[int, tuple[str, ...]] = {
    1: ("a", "a", "a", "one", "a single"),
    2: ("two", "two", "a pair of"),
    3: ("three", "three", "a group of three"),
}

HAPPENING_WORDS: dict[str, tuple[str, ...]] = {
    "night_falls": (
        "night falls over {the}{place}",
        "day turns to night over {the}{place}",
        "it gets dark around {the}{place}",
        "the sun goes down and night comes over {the}{place}",
    ),
    "day_breaks": (
        "day breaks over {the}{place}",
        "night turns to day over {the}{place}",
        "it gets light around {the}{place}",
        "the sun comes up over {the}{place}",
    ),
    "rain_starts": (
        "it starts to rain on {the}{place}",
        "rain begins to fall on {the}{place}",
        "it starts raining on {the}{place}",
    ),
    "rain_stops": (
        "it stops raining on {the}{place}",
        "the rain stops over {the}{place}",
        "the rain ends and the sky clears over {the}{place}",
    ),
    "closer": ("{the} {come} closer{place}", "{the} {approach}{place}", "{the} {get} nearer{place}"),
    "away": ("{the} {go} away{place}", "{the} {move} off into the distance{place}"),
    "rise": ("{the} {rise}{place}", "{the} {go} up{place}", "{the} {climb} higher{place}"),
    "fall": ("{the} {sink} down{place}", "{the} {come} down{place}", "{the} {go} down{place}"),
    "left": ("{the} {move} to the left{place}", "{the} {go} from right to left{place}"),
    "right": ("{the} {move} to the right{place}", "{the} {go} from left to right{place}"),
    "join": (
        "more {colour} {things} join one by one{place}",
        "one {colour} {thing} becomes three{place}",
        "two more {colour} {things} come to {a} {thing}{place}",
    ),
}

VERBS = ("come", "approach", "get", "go", "move", "rise", "climb", "sink")
OPENINGS = ("", "", "", "", "a video of ", "a film of ", "there is ", "we see ", "find ", "show me ")


def _pick(rng: Rng, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _subject_facts(scene: SceneSpec) -> set[str]:
    return {f"thing:{scene.thing}", f"colour:{scene.colour}"}


def true_facts(scene: SceneSpec, seconds: float | None = None) -> frozenset[str]:
    """All that is plainly true of a scene as a whole, or of its picture at one time.

    What cannot be seen has no fact (light in space), nor has what is only half so: a light
    between two others, a number of things while one is coming in.
    """
    facts = _subject_facts(scene) | {f"place:{scene.place}"}
    if seconds is None:
        facts.add(f"happening:{scene.happening}")
        lights = scene.lights
        counts = tuple(scene.counts)
    else:
        view = view_at(scene, seconds)
        lights = (view.light,) if view.mix < 0.2 else (view.light_to,) * (view.mix > 0.8)
        inside = [a.x for a in view.actors if -0.25 < a.x < 1.25]
        whole = all(0.12 < x < 0.88 for x in inside) or scene.happening != "join"
        counts = (len(inside),) if whole else ()
        facts |= _position_facts(view)
    if scene.place != "space" and len(lights) == 1:
        facts.add(f"light:{lights[0]}")
    if len(counts) == 1:
        facts.add(f"count:{counts[0]}")
    return frozenset(facts)


def _position_facts(view: View) -> set[str]:
    """Where a single thing is. The bands leave gaps, so that a name is never doubtful."""
    if len(view.actors) != 1:
        return set()
    actor = view.actors[0]
    bands = (
        ("across", actor.x, (("left", -1, 0.38), ("middle", 0.43, 0.57), ("right", 0.62, 2))),
        ("up", actor.y, (("high", -1, 0.38), ("low", 0.66, 2))),
        ("near", actor.scale, (("far", 0, 0.35), ("close", 0.45, 2))),
    )
    return {
        f"{axis}:{name}" for axis, at, names in bands for name, low, top in names if low < at < top
    }


POSITION_WORDS: dict[str, tuple[str, ...]] = {
    "across:left": ("on the left", "on the left side"),
    "across:middle": ("in the middle", "in the centre"),
    "across:right": ("on the right", "on the right side"),
    "up:high": ("high up", "at the top"),
    "up:low": ("low down", "at the bottom"),
    "near:far": ("far away", "small and distant"),
    "near:close": ("close up", "up close"),
}

FACTS: tuple[str, ...] = (
    *(f"thing:{name}" for name in THINGS),
    *(f"colour:{name}" for name in COLOURS),
    *(f"place:{name}" for name in PLACES),
    *(f"light:{name}" for name in LIGHTS),
    *(f"count:{number}" for number in COUNT_WORDS),
    *POSITION_WORDS,
    *(f"happening:{name}" for name in HAPPENINGS),
)
"""Every fact there is, in the order of the columns of a table of facts."""


def _value(facts: frozenset[str], kind: str) -> str | None:
    return next((f.partition(":")[2] for f in facts if f.startswith(f"{kind}:")), None)


def picture_caption(facts: frozenset[str], rng: Rng, *, full: bool = False) -> Caption:
    """A caption of a picture, in words and order by chance.

    Args:
        facts: What `true_facts` says of the picture.
        full: Whether thing, colour, number, place and light are all named (where they are
            facts), and nothing else. Otherwise place and light may be left out, and where the
            thing is may be said.
    """
    named = {f for f in facts if f.split(":")[0] in ("thing", "colour", "count")}
    parts = [_subject(facts, rng)]
    for kind, words, leave_out in (("place", PLACE_WORDS, 0.25), ("light", LIGHT_WORDS, 0.30)):
        value = _value(facts, kind)
        if value is not None and (full or rng.random() >= leave_out):
            parts.append(_pick(rng, words[value]))
            named.add(f"{kind}:{value}")
    positions = sorted(f for f in facts if f in POSITION_WORDS)
    if not full and positions and rng.random() < 0.45:
        for fact in rng.permutation(positions)[: rng.integers(1, 3)]:
            parts.insert(int(rng.integers(1, len(parts) + 1)), _pick(rng, POSITION_WORDS[fact]))
            named.add(str(fact))
    elif len(parts) == 3 and rng.random() < 0.3:
        parts = [parts[0], parts[2], parts[1]]
    if len(parts) > 1 and rng.random() < 0.12:
        return Caption(f"{parts[-1]}, {' '.join(parts[:-1])}", frozenset(named))
    return Caption(_pick(rng, OPENINGS) + " ".join(parts), frozenset(named))


def _subject(facts: frozenset[str], rng: Rng) -> str:
    """Such as "two red cars"; without a number where none is a fact."""
    thing, colour, count = (_value(facts, kind) for kind in ("thing", "colour", "count"))
    assert thing is not None and colour is not None
    singular, plural = _pick(rng, THING_WORDS[thing])
    colour = _pick(rng, COLOUR_WORDS[colour])
    if count is None:
        return f"{colour} {plural}"
    article = _pick(rng, COUNT_WORDS[int(count)])
    if article == "a" and colour[0] in "aeiou":
        article = "an"
    return f"{article} {colour} {singular if count == '1' else plural}"


def scene_caption(scene: SceneSpec, rng: Rng) -> Caption:
    """A caption of what happens in a scene, of thing and colour, and in most cases of the place.

    Raises:
        KeyError: if nothing happens in the scene.
    """
    singular, plural = _pick(rng, THING_WORDS[scene.thing])
    colour = _pick(rng, COLOUR_WORDS[scene.colour])
    one = scene.count == 1
    noun = f"{colour} {singular if one else plural}"
    facts = _subject_facts(scene) | {f"happening:{scene.happening}"}
    place = ""
    if rng.random() < 0.6:
        place = f" {_pick(rng, PLACE_WORDS[scene.place])}"
        facts.add(f"place:{scene.place}")
    number = "" if one else f"{_pick(rng, ('', 'two ' if scene.count == 2 else 'three '))}"
    if one or number:
        facts |= {f"count:{scene.count}"} if scene.happening != "join" else set()
    the = f"the {number}{noun}" if not one or rng.random() < 0.7 else f"{_a(colour)} {noun}"
    verbs = {verb: _verb(verb, one) for verb in VERBS}
    text = _pick(rng, HAPPENING_WORDS[scene.happening]).format(
        the=the, place=place, colour=colour, thing=singular, things=plural, a=_a(singular), **verbs
    )
    return Caption(text, frozenset(facts))


def _a(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _verb(stem: str, one: bool) -> str:
    if not one:
        return stem
    return f"{stem}es" if stem.endswith(("go", "ch")) else f"{stem}s"


def scene_captions(scene: SceneSpec, rng: Rng, *, variants: int = 2) -> list[Caption]:
    """Queries that a scene answers as a whole.

    Captions without time name thing, colour, number, place and light in full. Scenes in which
    light or number change have none: no such caption would be true from their first frame to
    their last. Scenes in which something happens have `variants` captions that say so.
    """
    captions: list[Caption] = []
    if len(scene.lights) == 1 and len(scene.counts) == 1:
        facts = frozenset(f for f in true_facts(scene) if not f.startswith("happening:"))
        captions += [picture_caption(facts, rng, full=True) for _ in range(variants)]
    if scene.happening != "nothing":
        captions += [scene_caption(scene, rng) for _ in range(variants)]
    return list({caption.text: caption for caption in captions}.values())


# --- Films and libraries ------------------------------------------------------------------------


def random_library(seed: int, num_films: int, *, held_out: bool = False) -> list[FilmSpec]:
    """Films of 5 to 9 scenes in which no query for one scene is answered by another.

    Raises:
        ValueError: if the world has too few different scenes for so many films.
    """
    rng = np.random.default_rng((seed, num_films, int(held_out)))
    taken: dict[tuple[str, str], list[SceneSpec]] = {}
    films = []
    for _ in range(num_films):
        scenes = tuple(_new_scene(rng, taken, held_out) for _ in range(rng.integers(5, 10)))
        joints = tuple(
            "fade" if rng.random() < 0.4 else "cut" for _ in range(len(scenes) - 1)
        )
        films.append(FilmSpec(scenes, joints, seed=int(rng.integers(2**31))))
    return films


def _new_scene(
    rng: Rng, taken: dict[tuple[str, str], list[SceneSpec]], held_out: bool
) -> SceneSpec:
    for _ in range(2000):
        scene = random_scene(rng, held_out=held_out)
        alike = taken.setdefault((scene.thing, scene.colour), [])
        if not any(_can_be_confused(scene, other) for other in alike):
            alike.append(scene)
            return scene
    raise ValueError(
        f"no different scene left after {sum(map(len, taken.values()))} scenes: "
        "ask for fewer films in one library"
    )


def _can_be_confused(first: SceneSpec, second: SceneSpec) -> bool:
    """Whether a query for one scene may be true of the other, of the same thing and colour."""
    if first.happening == second.happening != "nothing":
        return True  # a caption of what happens need not name the place
    return (
        first.place == second.place
        and bool({*first.lights} & {*second.lights})
        and bool({*first.counts} & {*second.counts})
    )


def film_views(film: FilmSpec) -> Iterator[tuple[View, View | None, float]]:
    """What every frame shows: a view, and in a fade the next scene's view and its share."""
    starts = film.first_frames
    for number in range(starts[-1]):
        index = int(np.searchsorted(starts, number, side="right")) - 1
        seconds = (number - starts[index]) / FRAMES_PER_SECOND
        view = view_at(film.scenes[index], seconds)
        # Frames about a joint: the middle of a fade of 12 lies between its frames 5 and 6.
        for joint in (index - 1, index):
            if not 0 <= joint < len(film.joints) or film.joints[joint] == "cut":
                continue
            share = (number - starts[joint + 1] + FADE_FRAMES / 2 + 0.5) / FADE_FRAMES
            if 0 < share < 1:
                before = (number - starts[joint]) / FRAMES_PER_SECOND
                after = (number - starts[joint + 1]) / FRAMES_PER_SECOND
                view = view_at(film.scenes[joint], before)
                yield view, view_at(film.scenes[joint + 1], after), share
                break
        else:
            yield view, None, 0.0


def film_pictures(film: FilmSpec) -> Iterator[Image.Image]:
    """Every frame of a film in order, RGB, `FILM_SIZE`."""
    painter = Painter(FILM_SIZE, keep_backdrops=8)
    for view, faded_in, share in film_views(film):
        picture = painter.paint(view)
        if faded_in is not None:
            picture = Image.blend(picture, painter.paint(faded_in), share)
        yield picture


def render_film(film: FilmSpec, path: Path) -> Path:
    """Writes a film as MP4: H.264 at 25 frames a second, AAC mono.

    Takes about 4 ms of one core per frame. The file appears only when it is whole.

    Returns:
        `path`.
    """
    sound = compose_sound(film)
    unfinished = path.with_name(f"{path.name}.part")
    with av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as file:
        video = file.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height = FILM_SIZE
        video.pix_fmt = "yuv420p"
        # One thread, so that the same film gives the same bytes; films run side by side instead.
        video.options = {"preset": "ultrafast", "crf": "25", "threads": "1"}
        audio = file.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        heard = 0
        for number, picture in enumerate(film_pictures(film)):
            file.mux(video.encode(av.VideoFrame.from_image(picture)))
            until = (number + 1) * AUDIO_RATE // FRAMES_PER_SECOND
            while heard < until:
                file.mux(audio.encode(_audio_frame(sound, heard)))
                heard += AUDIO_FRAME
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return unfinished.replace(path)


AUDIO_FRAME = 1024
"""Samples AAC encodes at a time."""


def _audio_frame(sound: NDArray[np.float32], start: int) -> av.AudioFrame:
    samples = np.ascontiguousarray(sound[None, start : start + AUDIO_FRAME])
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = AUDIO_RATE, start
    return frame


def compose_sound(film: FilmSpec) -> NDArray[np.float32]:
    """A gentle tune over the length of a film, with the rustle of rain where it rains.

    Returns:
        float32 [samples] in -1 to 1, `AUDIO_RATE` a second.
    """
    rng = np.random.default_rng((film.seed, 23))
    num_samples = film.first_frames[-1] * AUDIO_RATE // FRAMES_PER_SECOND
    sound = np.zeros(num_samples + 4 * AUDIO_RATE, np.float32)
    root, step = 220.0 * 2 ** (int(rng.integers(-3, 4)) / 12), int(0.32 * AUDIO_RATE)
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])  # major pentatonic, in half tones
    note = 3
    for beat, start in enumerate(range(0, num_samples, step)):
        if beat % 8 == 0:
            bass = root / 2 * 2 ** (int(rng.choice([0, 5, 7, 9])) / 12)
            _add_note(sound, start, bass, seconds=2.8, loudness=0.10)
        if rng.random() < 0.7:
            note = int(np.clip(note + rng.integers(-2, 3), 0, len(scale) - 1))
            _add_note(sound, start, root * 2 ** (scale[note] / 12), seconds=1.4, loudness=0.12)
    sound = sound[:num_samples]
    for scene, first in zip(film.scenes, film.first_frames, strict=False):
        if "rain" in scene.lights:
            _add_rain(sound, scene, first * AUDIO_RATE // FRAMES_PER_SECOND, rng)
    return np.clip(sound, -1, 1)


def _add_note(
    sound: NDArray[np.float32], start: int, pitch: float, *, seconds: float, loudness: float
) -> None:
    at = np.arange(int(seconds * AUDIO_RATE), dtype=np.float32) / AUDIO_RATE
    swell = np.minimum(at / 0.02, 1) * np.exp(-3.2 * at / seconds) * loudness
    turns = 2 * np.pi * pitch * at
    tone = np.sin(turns) + 0.3 * np.sin(2 * turns) + 0.1 * np.sin(3 * turns)
    sound[start : start + len(at)] += (swell * tone).astype(np.float32)


def _add_rain(sound: NDArray[np.float32], scene: SceneSpec, start: int, rng: Rng) -> None:
    num_samples = min(scene.num_frames * AUDIO_RATE // FRAMES_PER_SECOND, len(sound) - start)
    times = np.linspace(0, scene.duration_seconds, 64)
    strength = [view_at(scene, float(t)).rain for t in times]
    loudness = np.interp(np.linspace(0, 1, num_samples), np.linspace(0, 1, 64), strength)
    noise = rng.standard_normal(num_samples + 1).astype(np.float32)
    rustle = (noise[1:] + noise[:-1]) * 0.012
    sound[start : start + num_samples] += (rustle * loudness).astype(np.float32)


@dataclass(frozen=True)
class TruthLine:
    """One query of a library and the only moment that answers it."""

    path: str
    """Of the film, relative to the library's folder."""
    query: str
    start_seconds: float
    end_seconds: float
    """Half-open span, on a boundary of frames."""
    needs_time: bool


def ground_truth(films: list[FilmSpec], *, seed: int) -> list[TruthLine]:
    """All queries of a library: the same seed puts them into the same words."""
    lines = []
    for film_number, film in enumerate(films):
        starts = film.first_frames
        for index, scene in enumerate(film.scenes):
            rng = np.random.default_rng((seed, film_number, index, 29))
            start, end = (starts[i] / FRAMES_PER_SECOND for i in (index, index + 1))
            lines += [
                TruthLine(film_name(film_number), caption.text, start, end, caption.needs_time)
                for caption in scene_captions(scene, rng)
            ]
    return lines


def film_name(number: int) -> str:
    """The file name of a library's film by number."""
    return f"film_{number:03d}.mp4"


def render_library(
    out_dir: Path, *, seed: int, num_films: int, held_out: bool = False, workers: int = 2
) -> Path:
    """Renders films and their ground truth, the same for the same arguments.

    Args:
        out_dir: Folder for `film_000.mp4`, ... and `ground_truth.jsonl`; made where missing.
        seed: Of everything.
        num_films: Films of about 45 seconds; each costs about 5 seconds of one core.
        held_out: Only of things in colours that training never sees them in.
        workers: Processes; with 1 all is done in this one.

    Returns:
        Path of the ground truth, one `TruthLine` as JSON a line.
    """
    films = random_library(seed, num_films, held_out=held_out)
    out_dir.mkdir(parents=True, exist_ok=True)
    _render_films(films, out_dir, workers)
    truth_path = out_dir / "ground_truth.jsonl"
    lines = (json.dumps(asdict(line)) for line in ground_truth(films, seed=seed))
    truth_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return truth_path


def _render_films(films: list[FilmSpec], out_dir: Path, workers: int) -> None:
    jobs = [(film, out_dir / film_name(number)) for number, film in enumerate(films)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} frames/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        frames = sum(film.first_frames[-1] for film in films)
        task = progress.add_task("rendering frames", total=frames, rate=0.0)

        def count(film: FilmSpec) -> None:
            progress.advance(task, film.first_frames[-1])
            progress.update(task, rate=progress.tasks[0].speed or 0.0)

        if workers <= 1:
            for film, path in jobs:
                render_film(film, path)
                count(film)
            return
        # Fresh processes: a fork would copy the caller's threads in whatever state they are.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            running = {pool.submit(render_film, film, path): film for film, path in jobs}
            for done in as_completed(running):
                done.result()
                count(running[done])


def main(
    out_dir: Annotated[Path, typer.Argument(help="Folder for the films and their ground truth.")],
    seed: Annotated[int, typer.Option(help="Of everything: the same seed, the same films.")] = 0,
    films: Annotated[int, typer.Option(min=1, help="How many films of about 45 s.")] = 12,
    held_out: Annotated[
        bool, typer.Option(help="Only things in colours that training never sees.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render films of our small world, with exact ground truth."""
    path = render_library(
        out_dir, seed=seed, num_films=films, held_out=held_out, workers=workers
    )
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
