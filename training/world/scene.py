"""Scenes of the rendered world: their contents, and the view of a scene at a time."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.training.world import far_places, light, places, things
from scanonce.training.world.drawing import Actor, Painter, View

Rng: TypeAlias = np.random.Generator

FRAMES_PER_SECOND = 25
FILM_SIZE = (640, 360)
"""(width, height) of a film in pixels."""
NUM_LAYOUTS = 24
"""Number of drawings of every place."""

THINGS = tuple(things.THINGS)
COLOURS = tuple(things.COLOUR_RGB)
PLACES = tuple(places.PLACES)
LIGHTS = tuple(light.MOODS)


@dataclass(frozen=True)
class World:
    """Colours and places that a film may show; things, lights and happenings are the same in every world."""

    colours: tuple[str, ...]
    places: tuple[str, ...]


HOME = World(COLOURS, PLACES)
"""The world that the bundled checkpoints are trained on."""
SHIFTED = World(tuple(things.FAR_COLOUR_RGB), tuple(far_places.FAR_PLACES))
"""Only colours and places that the bundled checkpoints have never seen."""

LIGHT_STAGES: dict[str, tuple[str, ...]] = {
    "night_falls": ("day", "sunset", "night"),
    "day_breaks": ("night", "sunset", "day"),
    "rain_starts": ("day", "rain"),
    "rain_stops": ("rain", "day"),
}
"""Happenings of the light: its lights one after another."""

MOTIONS = ("closer", "away", "rise", "fall", "left", "right", "join")
HAPPENINGS = ("nothing", *LIGHT_STAGES, *MOTIONS)


@dataclass(frozen=True)
class SceneSpec:
    """Contents of one scene, and what happens in it."""

    thing: str
    colour: str
    place: str
    light: str
    """The light of the whole scene, or of its beginning if the light changes."""
    count: int
    """Number of things, 1 to 3; for "join" the number at the end."""
    happening: str
    num_frames: int
    seed: int
    """Seed of layout, positions and sizes."""

    @property
    def duration_seconds(self) -> float:
        """Length of the scene."""
        return self.num_frames / FRAMES_PER_SECOND

    @property
    def lights(self) -> tuple[str, ...]:
        """All lights of the scene in order; in space, which shows none, just "day"."""
        return LIGHT_STAGES.get(self.happening, (self.light,))

    @property
    def counts(self) -> range:
        """All numbers of things that are visible at some time in the scene."""
        return range(1 if self.happening == "join" else self.count, self.count + 1)


def is_held_out(thing: str, colour: str) -> bool:
    """Whether training never draws this thing in this colour.

    A quarter of all pairs, along the diagonals of the table of things and colours: 3 of the 12 things of each colour,
    2 or 3 of the 9 colours of each thing (2 of 8 in the shifted world).
    """
    colours = COLOURS if colour in COLOURS else SHIFTED.colours
    return (THINGS.index(thing) + colours.index(colour)) % 4 == 0


def flies(thing: str) -> bool:
    """Whether a thing can hang in the air, so that it may rise and fall."""
    return things.THINGS[thing].flies


def random_scene(
    rng: Rng,
    *,
    held_out: bool = False,
    happening: str | None = None,
    pairs: Collection[tuple[str, str]] | None = None,
    world: World = HOME,
) -> SceneSpec:
    """Draw a random scene.

    Args:
        rng: generator of all choices.
        held_out: only (thing, colour) pairs that training never draws; otherwise only the other pairs.
        happening: happening of the scene; None: a random one.
        pairs: if given, only these pairs.
        world: colours and places to choose from.
    """
    if happening is None:
        happening = "nothing" if rng.random() < 0.3 else str(rng.choice(_happenings_of(pairs)))
    possible = [
        (thing, colour)
        for thing in THINGS
        for colour in world.colours
        if is_held_out(thing, colour) is held_out
        and (pairs is None or (thing, colour) in pairs)
        and (happening not in ("rise", "fall") or flies(thing))
    ]
    thing, colour = possible[rng.integers(len(possible))]
    places = [p for p in world.places if p != "space" or happening not in LIGHT_STAGES]
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


def _happenings_of(pairs: Collection[tuple[str, str]] | None) -> tuple[str, ...]:
    """Return what may happen in scenes of these pairs: only things that fly rise and fall."""
    if pairs is None or any(flies(thing) for thing, _ in pairs):
        return HAPPENINGS[1:]
    return tuple(name for name in HAPPENINGS[1:] if name not in ("rise", "fall"))


def view_at(scene: SceneSpec, seconds: float) -> View:
    """View of a scene at a time; times outside the scene are moved to its nearest end."""
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
    """Two lights, and the share of the second one."""
    stages = scene.lights
    if len(stages) == 1:
        return stages[0], stages[0], 0.0
    steps = len(stages) - 1
    # the first and last eighth do not change, so that both ends are clearly visible
    along = min(max((share - 0.125) / 0.75, 0.0), 1.0) * steps
    step = min(int(along), steps - 1)
    return stages[step], stages[step + 1], _smooth(along - step)


def _motion(scene: SceneSpec, share: float) -> tuple[float, float, float]:
    """Effect of a motion at a share of the scene: (size factor, step to the right, step down)."""
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
    """Position of a single thing before it moves: x, and y of its middle if it floats, else of its foot."""
    x, y = rng.uniform(0.17, 0.83), rng.uniform(0.22, 0.74)
    if scene.happening in ("left", "right"):
        x = rng.uniform(0.44, 0.56)
    if scene.happening in ("rise", "fall", "closer", "away"):
        y = rng.uniform(0.46, 0.54)
    if not floats:
        horizon = places.horizon_of(scene.place, scene.seed % NUM_LAYOUTS)
        y = rng.uniform(horizon + 0.16, 0.95)
        if scene.happening in ("closer", "away"):
            y = 0.5 * (horizon + 0.12 + 0.96)
    return float(x), float(y)


def _actors_at(scene: SceneSpec, seconds: float, share: float) -> tuple[Actor, ...]:
    rng = np.random.default_rng(scene.seed)
    kind = things.THINGS[scene.thing]
    floats = kind.flies or scene.place == "space"
    x, y = _start(scene, rng, floats)
    faces_left = bool(rng.random() < 0.3)
    if scene.happening in ("left", "right"):
        faces_left = scene.happening == "left"
    grow, right, down = _motion(scene, share)
    scale = grow * float(
        rng.uniform(*{1: (0.28, 0.56), 2: (0.31, 0.42), 3: (0.27, 0.34)}[scene.count])
    )
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
    """Horizontal position of one of several things; those that join come in from a side."""
    if scene.count == 1:
        return x
    slot = 0.5 + (number - (scene.count - 1) / 2) * (0.31 if scene.count == 3 else 0.42)
    if scene.happening != "join" or number == 1:  # the middle one is there from the start
        return slot
    come = _smooth((share - (0.22 if number == 0 else 0.55)) / 0.2)
    outside = -0.3 if number == 0 else 1.3
    return outside + (slot - outside) * come


def draw_image(
    scene: SceneSpec, size: tuple[int, int] = FILM_SIZE, *, seconds: float = 0.0
) -> NDArray[np.uint8]:
    """Draw a still of a scene, exactly as a frame of a film.

    Args:
        scene: scene to draw.
        size: (width, height) in pixels.
        seconds: time within the scene.

    Returns:
        RGB, uint8 [height, width, 3]. The first still of a place and light takes about 50 ms at the size of a film,
        later ones about 2 ms.
    """
    return np.asarray(_still_painter(size).paint(view_at(scene, seconds)))


@lru_cache(maxsize=2)
def _still_painter(size: tuple[int, int]) -> Painter:
    # a backdrop of 640 x 360 needs about 2 MB; the world has 600 of them
    return Painter(size, keep_backdrops=100)
