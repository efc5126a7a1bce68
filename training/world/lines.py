"""Signs and speech of the rendered world: words drawn into scenes and spoken over them, with exact times.

    library = with_lines(random_library(29, 8, held_out=True), seed=29)
    render_with_lines(library, Path("films"))

Films without them are drawn as before, to the byte. Each sign is unique in its library. A sentence is unique, or it is
said over two scenes with different things, so that only both together name one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from scanonce.training.jobs import map_jobs
from scanonce.training.world.films import (
    AUDIO_RATE,
    FilmSpec,
    compose_audio,
    film_frames,
    film_name,
    write_film,
)
from scanonce.training.world.scene import FRAMES_PER_SECOND, Rng, SceneSpec
from scanonce.training.world.voice import speak
from scanonce.training.world.words import COUNT_WORDS, THING_WORDS

SIGNS = (
    "Corner Bakery", "Room 214", "Mind the gap", "North Station", "Fresh Coffee", "No Parking", "Ticket Office",
    "Garden Hotel", "Open until 9", "Lost and Found", "Platform 7", "City Library", "Wet Paint", "Book Fair 1998",
    "Harbour Tours", "Beware of ice", "Summer Sale", "Exit to street", "Grand Theatre", "Bus stop 42", "Flower Market",
    "Post Office", "Swimming Pool", "Museum of Glass", "Keep right", "Bicycle Rental", "Toy Factory", "Night School",
    "Cheese and Wine", "Road Closed", "Chapter Two", "The End", "Marathon 2017", "Quiet please", "Railway Bridge",
    "Winter Games", "Apple Juice", "Old Observatory", "Doctor Miller", "Free Entrance",
)  # fmt: skip
"""Texts of signs and titles."""

SENTENCES = (
    "turn left at the old bridge", "turn right at the old church", "close the window before the storm",
    "bring two bottles of milk", "call your mother this evening", "meet me at the railway station",
    "put the keys on the kitchen table", "wait for the second train", "paint the fence dark green",
    "feed the horses before breakfast", "read the letter from the bank", "switch off the lights in the hall",
    "take the medicine after dinner", "write your name on the paper", "follow the river to the village",
    "carry the piano down the stairs", "buy a ticket for the concert", "count the money in the box",
    "water the roses in the garden", "clean the kitchen floor", "answer the telephone in the office",
    "wash the blue shirt tonight", "climb the mountain on Sunday", "cut the bread into thin slices",
    "listen to the weather report", "send the package to London", "return the books to the library",
    "fill the bucket with sand", "hide the present under the bed", "open the door for the doctor",
    "throw the ball over the wall", "warm the soup for the children", "choose a hat for the wedding",
    "repair the engine of the tractor", "learn the poem by heart", "hang the picture above the fireplace",
)  # fmt: skip
"""The sentence alone, without the words before it."""

_BEFORE = ("Please", "Remember to", "Now we have to", "She asked me to", "Do not forget to")
_MARGIN_SECONDS = 0.4  # between a boundary of the scene and the speech in it
_SIGN_SHARE = 0.5
_LOUDNESS = 0.55
_DUCKED = 0.2  # loudness of the tune while somebody speaks
_TWINS = 12  # sentences that are said twice


@dataclass(frozen=True)
class WorldLine:
    """A text of a film and the time at which it is there."""

    track: Literal["said", "written"]
    film: int
    scene: int
    text: str
    """As it is drawn or spoken."""
    words: str
    """The part of it that a query asks for."""
    start_seconds: float
    end_seconds: float
    is_twin: bool = False
    """Whether another scene has the same words."""


@dataclass(frozen=True)
class LineLibrary:
    """Films with words in them."""

    films: tuple[FilmSpec, ...]
    lines: tuple[WorldLine, ...]
    seed: int

    def of_film(self, number: int) -> tuple[WorldLine, ...]:
        """Return the lines of one film."""
        return tuple(line for line in self.lines if line.film == number)


def with_lines(films: Sequence[FilmSpec], *, seed: int) -> LineLibrary:
    """Give about half of the scenes a sign, and those that are long enough a sentence, as far as there are enough."""
    rng = np.random.default_rng((seed, 31))
    signs = iter(rng.permutation(len(SIGNS)).tolist())
    order = rng.permutation(len(SENTENCES)).tolist()
    once, twins = iter(order[_TWINS:]), list(order[:_TWINS])
    free = [(film, scene) for film, spec in enumerate(films) for scene in range(len(spec.scenes))]
    lines = []
    for film, scene in free:
        start, end = _span(films[film], scene)
        if rng.random() < _SIGN_SHARE and (sign := next(signs, None)) is not None:
            text = SIGNS[sign]
            lines.append(WorldLine("written", film, scene, text, text.lower(), start, end))
    rng.shuffle(free)
    for sentence in twins:
        first = _placed(films, free, sentence, rng, avoid=None, is_twin=True)
        if first is None:
            break
        thing = films[first.film].scenes[first.scene].thing
        second = _placed(films, free, sentence, rng, avoid=thing, is_twin=True)
        if second is None:
            break
        lines += [first, second]
    for sentence in once:
        line = _placed(films, free, sentence, rng, avoid=None, is_twin=False)
        if line is None:
            break
        lines.append(line)
    lines.sort(key=lambda line: (line.film, line.start_seconds, line.track))
    return LineLibrary(tuple(films), tuple(lines), seed)


def _span(film: FilmSpec, scene: int) -> tuple[float, float]:
    first, last = film.first_frames[scene : scene + 2]
    return first / FRAMES_PER_SECOND, last / FRAMES_PER_SECOND


def _placed(
    films: Sequence[FilmSpec],
    free: list[tuple[int, int]],
    sentence: int,
    rng: Rng,
    *,
    avoid: str | None,
    is_twin: bool,
) -> WorldLine | None:
    """Say a sentence in the first free scene with another thing in which it has room; None if there is none."""
    words = SENTENCES[sentence]
    text = f"{_BEFORE[int(rng.integers(len(_BEFORE)))]} {words}."
    seconds = len(spoken(text)) / AUDIO_RATE
    for place in free:
        film, scene = place
        start, end = _span(films[film], scene)
        room = end - start - 2 * _MARGIN_SECONDS - seconds
        if room <= 0 or films[film].scenes[scene].thing == avoid:
            continue
        free.remove(place)
        begin = start + _MARGIN_SECONDS + float(rng.uniform(0, room))
        return WorldLine("said", film, scene, text, words, begin, begin + seconds, is_twin)
    return None


def scene_text(scene: SceneSpec) -> str:
    """Return the thing in a scene, such as "two red cars"."""
    singular, plural = THING_WORDS[scene.thing][0]
    name = singular if scene.count == 1 else plural
    return f"{COUNT_WORDS[scene.count][0]} {scene.colour} {name}"


# --- Images and audio ---


def draw_sign(image: Image.Image, text: str, seed: int) -> Image.Image:
    """Return an image with a sign in its upper or lower part; where and in which colours follows from the seed."""
    rng = np.random.default_rng((seed, 37))
    width, height = image.size
    font = ImageFont.load_default(size=height // 12)
    left, top, right, bottom = font.getbbox(text)
    pad = height / 30
    wide, tall = right - left + 2 * pad, bottom - top + 2 * pad
    x = float(rng.uniform(0.02, 0.98 - wide / width)) * width
    y = float(rng.choice([0.04, 0.96 - tall / height])) * height
    is_dark = bool(rng.random() < 0.5)
    board, ink = ((28, 30, 40), (245, 240, 225)) if is_dark else ((245, 240, 225), (28, 30, 40))
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    draw.rounded_rectangle((x, y, x + wide, y + tall), pad / 2, fill=board, outline=ink, width=2)
    draw.text((x + pad - left, y + pad - top), text, font=font, fill=ink)
    return marked


def frames_with_signs(film: FilmSpec, lines: Sequence[WorldLine]) -> Iterator[Image.Image]:
    """Draw every frame of a film with its signs."""
    signs = [line for line in lines if line.track == "written"]
    for number, image in enumerate(film_frames(film)):
        seconds = number / FRAMES_PER_SECOND
        shown = [each for each in signs if each.start_seconds <= seconds < each.end_seconds]
        for line in shown:
            image = draw_sign(image, line.text, film.seed + line.scene)
        yield image


def spoken(text: str) -> NDArray[np.float32]:
    """Return a text as it is spoken in films: float32 ``[samples]`` in -1 to 1, `AUDIO_RATE` per second."""
    voice = sum(map(ord, text))
    samples, rate = speak(text, speed=130 + voice % 31, pitch=35 + voice % 37)
    number = len(samples) * AUDIO_RATE // rate
    at = np.linspace(0, len(samples) - 1, number)
    loudness = _LOUDNESS / float(np.abs(samples.astype(np.float32)).max())
    return (np.interp(at, np.arange(len(samples)), samples) * loudness).astype(np.float32)


def audio_with_speech(film: FilmSpec, lines: Sequence[WorldLine]) -> NDArray[np.float32]:
    """Return the tune of a film, quiet under the speech, with that speech."""
    samples = compose_audio(film)
    for line in lines:
        if line.track == "said":
            said = spoken(line.text)
            first = round(line.start_seconds * AUDIO_RATE)
            part = samples[first : first + len(said)]
            part *= _DUCKED
            part += said[: len(part)]
    return np.clip(samples, -1, 1)


def render_with_lines(library: LineLibrary, out_dir: Path, *, workers: int = 2) -> list[Path]:
    """Render the films of a library as `film_000.mp4`, ...; those that are there stay."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / film_name(number) for number in range(len(library.films))]
    jobs = [
        (film, library.of_film(number), path)
        for number, (film, path) in enumerate(zip(library.films, paths, strict=True))
        if not path.exists()
    ]
    list(map_jobs(_render, jobs, workers=workers))
    return paths


def _render(film: FilmSpec, lines: Sequence[WorldLine], path: Path) -> Path:
    return write_film(path, frames_with_signs(film, lines), audio_with_speech(film, lines))
