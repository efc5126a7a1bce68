"""The words of the rendered world: captions of its images and scenes, and the facts they state.

Every caption has the set of facts that it names, so whether it is true of an image depends on sets and not on the
wording: `caption.facts <= true_facts(scene, seconds)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from scanonce.training.world.drawing import View
from scanonce.training.world.scene import (
    COLOURS,
    HAPPENINGS,
    LIGHTS,
    PLACES,
    SHIFTED,
    THINGS,
    Rng,
    SceneSpec,
    view_at,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Caption:
    """A text and the facts it states."""

    text: str
    facts: frozenset[str]
    """Facts such as "colour:red" or "happening:rise"; the caption is true of an image if all are facts of it."""

    @property
    def needs_time(self) -> bool:
        """Whether only a run of frames shows it, never a single frame."""
        return any(fact.startswith("happening:") for fact in self.facts)


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
"""Singular and plural of every name of a thing; a common name may occur twice."""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    **{colour: (colour,) for colour in (*COLOURS, *SHIFTED.colours)},
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
    "mountains": ("in the mountains", "among the peaks", "below the snowy summits"),
    "jungle": ("in the jungle", "among the palms", "in the tropical thicket"),
    "volcano": ("by the volcano", "at the volcano", "on the lava field"),
    "castle": ("at the castle", "in front of the castle", "below the battlements"),
    "harbour": ("in the harbour", "on the quay", "by the lighthouse and the cranes"),
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
    "closer": (
        "{the} {come} closer{place}",
        "{the} {approach}{place}",
        "{the} {get} nearer{place}",
    ),
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

PLACE_NOUNS: dict[str, tuple[str, ...]] = {
    "beach": ("beach", "the seashore", "a beach"),
    "forest": ("forest", "the woods", "a forest"),
    "city": ("city", "a city street", "a town"),
    "desert": ("desert", "cacti", "a desert"),
    "snow": ("snow", "a snowy field", "a winter landscape"),
    "sea": ("sea", "the open sea", "the ocean"),
    "space": ("space", "outer space", "planets"),
    "farm": ("farm", "the countryside", "a farm"),
    "mountains": ("mountains", "the peaks", "a mountain"),
    "jungle": ("jungle", "palms", "the tropical thicket"),
    "volcano": ("volcano", "the lava field", "a volcano"),
    "castle": ("castle", "the battlements", "a castle"),
    "harbour": ("harbour", "the quay", "a lighthouse"),
}
LIGHT_NOUNS: dict[str, tuple[str, ...]] = {
    "day": ("day", "daylight", "sunshine", "a sunny day"),
    "night": ("night", "moonlight", "darkness", "the night"),
    "sunset": ("sunset", "the evening glow", "dusk", "a sunset"),
    "rain": ("rain", "rainy weather", "raining", "a rainy day"),
}
HAPPENING_PHRASES: dict[str, tuple[str, ...]] = {
    "night_falls": ("nightfall", "night falls", "it gets dark", "the sun goes down"),
    "day_breaks": ("daybreak", "day breaks", "sunrise", "it gets light"),
    "rain_starts": ("it starts raining", "rain begins to fall", "it starts to rain", "rain starts"),
    "rain_stops": ("it stops raining", "the rain ends", "the rain stops", "the sky clears"),
    "closer": ("approaching", "coming closer", "getting nearer", "something comes closer"),
    "away": ("leaving", "going away", "moving off", "something goes away"),
    "rise": ("rising", "going up", "climbing", "something rises"),
    "fall": ("sinking", "coming down", "going down", "something sinks"),
    "left": ("moving to the left", "from right to left", "going left", "something moves left"),
    "right": ("moving to the right", "from left to right", "going right", "something moves right"),
    "join": ("joining one by one", "one becomes three", "two more join", "more of them join"),
}
"""What happens, without saying to what or where."""

VERBS = ("come", "approach", "get", "go", "move", "rise", "climb", "sink")
OPENINGS = (
    "",
    "",
    "",
    "",
    "a video of ",
    "a film of ",
    "there is ",
    "we see ",
    "find ",
    "show me ",
)


def _pick(rng: Rng, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _subject_facts(scene: SceneSpec) -> set[str]:
    return {f"thing:{scene.thing}", f"colour:{scene.colour}"}


def true_facts(scene: SceneSpec, seconds: float | None = None) -> frozenset[str]:
    """Facts of a scene as a whole, or of its image at one time.

    There is no fact of things that cannot be seen (light in space) or are only half so: a light between two others, a
    number of things while one of them is coming in.
    """
    facts = _subject_facts(scene) | {f"place:{scene.place}"}
    if seconds is None:
        facts.add(f"happening:{scene.happening}")
        lights = scene.lights
        counts = tuple(scene.counts)
    else:
        view = view_at(scene, seconds)
        lights = (view.light,) if view.mix < 0.2 else (view.light_to,)
        if 0.2 <= view.mix <= 0.8:
            lights = ()
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
    """Position of a single thing. There are gaps between the bands, so that a name is never doubtful."""
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
"""Every fact of the home world, in the order of columns in a table of facts."""


def _value(facts: frozenset[str], kind: str) -> str | None:
    return next((f.partition(":")[2] for f in facts if f.startswith(f"{kind}:")), None)


def image_caption(facts: frozenset[str], rng: Rng, *, full: bool = False) -> Caption:
    """Caption of an image, in random words and order.

    Args:
        facts: facts of the image, from `true_facts`.
        rng: generator of the wording.
        full: name thing, colour, number, place and light, if they are facts, and nothing else. Otherwise place and
            light may be left out, and the position of the thing may be named.
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
    """Such as "two red cars"; without a number if none is a fact."""
    thing, colour, count = (_value(facts, kind) for kind in ("thing", "colour", "count"))
    assert thing is not None, "an image without a thing"
    assert colour is not None, "a thing without a colour"
    singular, plural = _pick(rng, THING_WORDS[thing])
    colour = _pick(rng, COLOUR_WORDS[colour])
    if count is None:
        return f"{colour} {plural}"
    article = _pick(rng, COUNT_WORDS[int(count)])
    if article == "a" and colour[0] in "aeiou":
        article = "an"
    return f"{article} {colour} {singular if count == '1' else plural}"


def scene_caption(scene: SceneSpec, rng: Rng) -> Caption:
    """Caption of the happening of a scene, with thing and colour, and in most cases the place.

    Raises:
        KeyError: nothing happens in the scene.
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


def fact_phrases(fact: str) -> tuple[str, ...]:
    """Words and short phrases that state one fact and nothing else, the plainest first.

    Those at even positions are asked when refusals are reported, those at odd positions when a calibration is fitted
    (`training.bundled.cases`).

    Raises:
        KeyError: the fact is a number or a position, which nobody asks for alone.
    """
    kind, _, name = fact.partition(":")
    if kind == "thing":
        names = dict.fromkeys(THING_WORDS[name])
        options = [
            (one, f"some {many}", f"{_a(one)} {one}", many) if one != many else
            (one, f"some {one}", f"{_a(one)} {one}", f"the {one}")
            for one, many in names
        ]  # fmt: skip
        return tuple(text for each in options for text in each)
    if kind == "colour":
        return tuple(
            text
            for word in dict.fromkeys(COLOUR_WORDS[name])
            for text in (word, f"something {word}")
        )
    tables = {"place": PLACE_NOUNS, "light": LIGHT_NOUNS, "happening": HAPPENING_PHRASES}
    plain = tables[kind][name]
    longer = {"place": PLACE_WORDS, "light": LIGHT_WORDS}.get(kind, {}).get(name, ())
    return (*plain, *longer)


ASKED_ALONE = ("thing", "colour", "place", "light", "happening")
"""Kinds of facts that a word or a short phrase states alone."""


def _a(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _verb(stem: str, one: bool) -> str:
    if not one:
        return stem
    return f"{stem}es" if stem.endswith(("go", "ch")) else f"{stem}s"


def scene_captions(scene: SceneSpec, rng: Rng, *, variants: int = 2) -> list[Caption]:
    """Queries that a scene as a whole answers.

    Captions without time name thing, colour, number, place and light in full. Scenes with a change of light or number
    have none, since no such caption is true of all their frames. Scenes with a happening have `variants` captions that
    name it.
    """
    captions: list[Caption] = []
    if len(scene.lights) == 1 and len(scene.counts) == 1:
        facts = frozenset(f for f in true_facts(scene) if not f.startswith("happening:"))
        captions += [image_caption(facts, rng, full=True) for _ in range(variants)]
    if scene.happening != "nothing":
        captions += [scene_caption(scene, rng) for _ in range(variants)]
    return list({caption.text: caption for caption in captions}.values())
