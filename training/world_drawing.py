"""How the rendered world looks: skies, places, things, rain, all drawn with numpy and Pillow.

`training.world` decides what is where and when, as a `View`; a `Painter` turns a `View` into a
picture. What stands still (sky, distance, ground) is painted once per place and light and kept;
a frame pastes these layers and the moving sprites, which are drawn once large and scaled down.

    painter = Painter((640, 360))
    picture = painter.paint(View("farm", 3, "day", actors=(Actor("dog", "red", 0.5, 0.8, 0.4),)))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rgb: TypeAlias = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""

Size: TypeAlias = tuple[int, int]
"""(width, height) in pixels, as Pillow has it."""

SPRITE_HEIGHT = 256
"""Pixels of a sprite's large original, which every shown size is scaled down from."""

MARGIN = 0.04
"""How much wider a layer is than the picture, as a fraction of the width: room to drift."""

COLOUR_RGB: dict[str, Rgb] = {
    "red": (222, 40, 44),
    "orange": (245, 136, 28),
    "yellow": (250, 216, 42),
    "green": (48, 172, 76),
    "blue": (42, 92, 226),
    "purple": (138, 58, 190),
    "pink": (248, 138, 188),
    "white": (246, 246, 246),
    "black": (40, 40, 46),
}


@dataclass(frozen=True)
class Mood:
    """What one light does to every colour of the world."""

    sky: tuple[Rgb, Rgb, Rgb]
    """Colours at the top, the middle and the horizon."""
    ambient: tuple[float, float, float]
    """Factors on the colours of the land."""
    on_things: tuple[float, float, float]
    """Factors on the colours of things: gentler, so that they keep their names."""
    cloud: Rgb
    lamps_on: bool

    def land(self, colour: Rgb) -> Rgb:
        """The colour of a piece of land in this light."""
        return _times(colour, self.ambient)


MOODS: dict[str, Mood] = {
    "day": Mood(
        ((72, 150, 232), (136, 196, 246), (216, 238, 250)),
        (1.0, 1.0, 1.0),
        (1.0, 1.0, 1.0),
        (255, 255, 255),
        lamps_on=False,
    ),
    "sunset": Mood(
        ((84, 62, 138), (234, 108, 100), (255, 204, 118)),
        (0.98, 0.72, 0.64),
        (1.0, 0.92, 0.86),
        (255, 176, 150),
        lamps_on=False,
    ),
    "night": Mood(
        ((8, 12, 38), (20, 28, 70), (50, 60, 112)),
        (0.32, 0.38, 0.60),
        (0.86, 0.87, 0.98),
        (58, 66, 110),
        lamps_on=True,
    ),
    "rain": Mood(
        ((92, 102, 116), (126, 136, 148), (166, 174, 182)),
        (0.64, 0.68, 0.72),
        (0.90, 0.92, 0.95),
        (112, 120, 132),
        lamps_on=False,
    ),
}


@dataclass(frozen=True)
class Actor:
    """One thing as it stands in one picture."""

    thing: str
    colour: str
    x: float
    """Centre, as a fraction of the picture's width."""
    y: float
    """Centre, as a fraction of the picture's height."""
    scale: float
    """Square root of its area, as a fraction of the picture's height."""
    faces_left: bool = False
    on_ground: bool = True


@dataclass(frozen=True)
class View:
    """All that can be seen at one instant."""

    place: str
    layout: int
    """Which of the many drawings of the place."""
    light: str
    light_to: str = "day"
    mix: float = 0.0
    """0 is all `light`, 1 is all `light_to`."""
    rain: float = 0.0
    """0 is dry, 1 is full rain."""
    seconds: float = 0.0
    """Time within the scene: moves clouds, water, rain and snow."""
    actors: tuple[Actor, ...] = ()


def _times(colour: Rgb, factors: tuple[float, float, float]) -> Rgb:
    red, green, blue = (min(255, round(c * f)) for c, f in zip(colour, factors, strict=True))
    return red, green, blue


def _between(first: Rgb, second: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


# --- Things -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paint:
    """The colours one thing is drawn with, light already in them."""

    base: Rgb
    dark: Rgb
    bright: Rgb
    ink: Rgb
    glass: Rgb
    wood: Rgb
    leaf: Rgb
    pale: Rgb
    beak: Rgb

    @classmethod
    def mixed(cls, colour: str, light: str) -> Paint:
        """The paints for a named colour in a named light."""
        mood = MOODS[light]
        base = COLOUR_RGB[colour]

        def lit(rgb: Rgb) -> Rgb:
            return _times(rgb, mood.on_things)

        return cls(
            base=lit(base),
            dark=lit(_between(base, (0, 0, 0), 0.28)),
            bright=lit(_between(base, (255, 255, 255), 0.30)),
            ink=lit((34, 32, 40)),
            glass=(255, 226, 120) if mood.lamps_on else lit((196, 226, 246)),
            wood=lit((132, 88, 54)),
            leaf=lit((62, 140, 66)),
            pale=lit((250, 248, 240)),
            beak=lit((246, 170, 50)),
        )


class Pen:
    """Draws in sprite units: y from 0 (top) to 1 (bottom), x from 0 to the aspect ratio."""

    def __init__(self, aspect: float, pixels: int) -> None:
        self._pixels = pixels
        self.image = Image.new("RGBA", (round(aspect * pixels), pixels))
        self._draw = ImageDraw.Draw(self.image)

    def _scaled(self, *units: float) -> list[float]:
        return [u * self._pixels for u in units]

    def poly(self, fill: Rgb, *corners: tuple[float, float]) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * self._pixels, y * self._pixels) for x, y in corners], fill)

    def oval(self, fill: Rgb, x: float, y: float, wide: float, high: float) -> None:
        """A filled ellipse by centre and half axes."""
        self._draw.ellipse(self._scaled(x - wide, y - high, x + wide, y + high), fill)

    def box(
        self, fill: Rgb, left: float, top: float, right: float, bottom: float, round_by: float = 0.0
    ) -> None:
        """A filled rectangle, its corners rounded by a radius."""
        where = self._scaled(left, top, right, bottom)
        self._draw.rounded_rectangle(where, round_by * self._pixels, fill)

    def line(self, fill: Rgb, wide: float, *points: tuple[float, float]) -> None:
        """A line through points."""
        at = [(x * self._pixels, y * self._pixels) for x, y in points]
        self._draw.line(at, fill, round(wide * self._pixels), joint="curve")


def _car(pen: Pen, paint: Paint) -> None:
    pen.poly(paint.base, (0.36, 0.48), (0.56, 0.12), (1.14, 0.12), (1.40, 0.48))
    pen.poly(paint.glass, (0.50, 0.46), (0.63, 0.20), (0.84, 0.20), (0.84, 0.46))
    pen.poly(paint.glass, (0.91, 0.46), (0.91, 0.20), (1.09, 0.20), (1.26, 0.46))
    pen.box(paint.base, 0.05, 0.44, 1.66, 0.80, 0.13)
    pen.box(paint.dark, 0.05, 0.66, 1.66, 0.80, 0.07)
    pen.oval(paint.glass, 1.57, 0.56, 0.06, 0.07)
    for x in (0.42, 1.28):
        pen.oval(paint.ink, x, 0.79, 0.18, 0.18)
        pen.oval(paint.pale, x, 0.79, 0.08, 0.08)


def _boat(pen: Pen, paint: Paint) -> None:
    pen.line(paint.wood, 0.045, (0.58, 0.06), (0.58, 0.66))
    pen.poly(paint.pale, (0.63, 0.08), (1.08, 0.56), (0.63, 0.56))
    pen.poly(paint.bright, (0.53, 0.20), (0.53, 0.56), (0.20, 0.56))
    pen.poly(paint.base, (0.03, 0.62), (1.20, 0.62), (0.98, 0.95), (0.26, 0.95))
    pen.poly(paint.dark, (0.15, 0.80), (1.08, 0.80), (0.98, 0.95), (0.26, 0.95))
    for x in (0.40, 0.62, 0.84):
        pen.oval(paint.glass, x, 0.71, 0.045, 0.045)


def _bird(pen: Pen, paint: Paint) -> None:
    pen.poly(paint.dark, (0.34, 0.52), (0.02, 0.40), (0.06, 0.66), (0.34, 0.68))
    pen.oval(paint.base, 0.62, 0.60, 0.38, 0.26)
    pen.oval(paint.base, 0.98, 0.40, 0.19, 0.19)
    pen.oval(paint.bright, 0.72, 0.70, 0.22, 0.14)
    pen.poly(paint.dark, (0.48, 0.58), (0.26, 0.04), (0.84, 0.52))
    pen.poly(paint.beak, (1.14, 0.34), (1.29, 0.43), (1.14, 0.49))
    pen.oval(paint.pale, 1.03, 0.36, 0.065, 0.065)
    pen.oval(paint.ink, 1.05, 0.36, 0.035, 0.035)
    for x in (0.56, 0.70):
        pen.line(paint.beak, 0.035, (x, 0.84), (x - 0.02, 0.97))


def _fish(pen: Pen, paint: Paint) -> None:
    pen.poly(paint.dark, (0.46, 0.50), (0.03, 0.14), (0.14, 0.50), (0.03, 0.86))
    pen.poly(paint.dark, (0.60, 0.26), (0.78, 0.03), (1.02, 0.26))
    pen.poly(paint.dark, (0.70, 0.74), (0.72, 0.97), (0.94, 0.74))
    pen.oval(paint.base, 0.84, 0.50, 0.52, 0.31)
    pen.oval(paint.bright, 0.88, 0.62, 0.34, 0.15)
    for x in (0.58, 0.76):
        pen.line(paint.dark, 0.05, (x, 0.30), (x + 0.05, 0.50), (x, 0.70))
    pen.oval(paint.pale, 1.13, 0.42, 0.095, 0.095)
    pen.oval(paint.ink, 1.15, 0.42, 0.05, 0.05)


def _dog(pen: Pen, paint: Paint) -> None:
    pen.line(paint.base, 0.085, (0.24, 0.50), (0.12, 0.38), (0.08, 0.20))
    for x in (0.26, 0.42, 0.70, 0.84):
        pen.box(paint.dark, x - 0.06, 0.66, x + 0.06, 0.97, 0.05)
    pen.box(paint.base, 0.17, 0.42, 0.92, 0.76, 0.16)
    pen.oval(paint.base, 0.96, 0.32, 0.22, 0.21)
    pen.oval(paint.bright, 1.10, 0.39, 0.15, 0.11)
    pen.oval(paint.dark, 0.84, 0.32, 0.085, 0.20)
    pen.oval(paint.ink, 1.22, 0.35, 0.045, 0.04)
    pen.oval(paint.ink, 1.02, 0.26, 0.035, 0.04)
    pen.line(paint.beak, 0.05, (0.80, 0.53), (1.02, 0.53))


def _house(pen: Pen, paint: Paint) -> None:
    pen.box(paint.wood, 0.68, 0.10, 0.80, 0.40)
    pen.box(paint.base, 0.13, 0.44, 0.87, 0.97)
    pen.poly(paint.dark, (0.02, 0.48), (0.50, 0.05), (0.98, 0.48))
    pen.box(paint.wood, 0.43, 0.66, 0.59, 0.97, 0.03)
    for x in (0.21, 0.66):
        pen.box(paint.pale, x - 0.02, 0.58, x + 0.16, 0.78)
        pen.box(paint.glass, x, 0.60, x + 0.14, 0.76)
    pen.oval(paint.glass, 0.50, 0.32, 0.07, 0.07)


def _balloon(pen: Pen, paint: Paint) -> None:
    for x in (0.24, 0.48):
        pen.line(paint.wood, 0.016, (x, 0.66), (0.36 + (x - 0.36) * 0.6, 0.86))
    pen.poly(paint.base, (0.08, 0.50), (0.64, 0.50), (0.45, 0.74), (0.27, 0.74))
    pen.oval(paint.base, 0.36, 0.37, 0.34, 0.35)
    pen.oval(paint.bright, 0.36, 0.37, 0.20, 0.35)
    pen.oval(paint.base, 0.36, 0.37, 0.08, 0.35)
    pen.box(paint.wood, 0.26, 0.84, 0.46, 0.98, 0.03)


def _rocket(pen: Pen, paint: Paint) -> None:
    pen.poly(paint.beak, (0.24, 0.76), (0.46, 0.76), (0.35, 0.99))
    pen.poly(paint.dark, (0.20, 0.48), (0.02, 0.82), (0.22, 0.74))
    pen.poly(paint.dark, (0.50, 0.48), (0.68, 0.82), (0.48, 0.74))
    pen.oval(paint.base, 0.35, 0.42, 0.20, 0.40)
    pen.box(paint.base, 0.18, 0.42, 0.52, 0.78, 0.05)
    pen.poly(paint.dark, (0.22, 0.16), (0.35, 0.00), (0.48, 0.16))
    pen.oval(paint.pale, 0.35, 0.38, 0.115, 0.115)
    pen.oval(paint.glass, 0.35, 0.38, 0.08, 0.08)


def _tree(pen: Pen, paint: Paint) -> None:
    pen.poly(paint.wood, (0.37, 0.98), (0.40, 0.55), (0.48, 0.55), (0.52, 0.98))
    for x, y, reach in ((0.24, 0.46, 0.22), (0.64, 0.46, 0.22), (0.44, 0.26, 0.25)):
        pen.oval(paint.base, x, y, reach, reach)
    pen.oval(paint.base, 0.44, 0.50, 0.26, 0.20)
    pen.oval(paint.dark, 0.60, 0.52, 0.15, 0.12)
    for x, y in ((0.32, 0.18), (0.20, 0.38), (0.46, 0.40), (0.58, 0.28)):
        pen.oval(paint.bright, x, y, 0.06, 0.05)


def _star(pen: Pen, paint: Paint) -> None:
    corners = []
    for corner in range(10):
        reach = 0.50 if corner % 2 == 0 else 0.24
        angle = corner * math.pi / 5
        corners.append((0.5 + reach * math.sin(angle), 0.53 - reach * math.cos(angle)))
    pen.poly(paint.base, *corners)
    pen.oval(paint.bright, 0.5, 0.54, 0.20, 0.19)
    for x in (0.43, 0.57):
        pen.oval(paint.ink, x, 0.49, 0.03, 0.045)
    pen.line(paint.ink, 0.028, (0.42, 0.60), (0.50, 0.65), (0.58, 0.60))


def _train(pen: Pen, paint: Paint) -> None:
    for left in (0.03, 0.80):
        pen.box(paint.base, left, 0.30, left + 0.68, 0.80, 0.06)
        pen.box(paint.dark, left, 0.66, left + 0.68, 0.80, 0.03)
        for x in (0.08, 0.28, 0.48):
            pen.box(paint.glass, left + x, 0.40, left + x + 0.14, 0.58, 0.02)
    pen.line(paint.ink, 0.05, (0.65, 0.74), (1.60, 0.74))
    pen.box(paint.base, 1.57, 0.14, 1.92, 0.80, 0.05)
    pen.box(paint.glass, 1.64, 0.24, 1.84, 0.44, 0.02)
    pen.box(paint.base, 1.88, 0.40, 2.34, 0.80, 0.10)
    pen.box(paint.dark, 1.57, 0.66, 2.34, 0.80, 0.03)
    pen.poly(paint.ink, (2.08, 0.42), (2.03, 0.16), (2.27, 0.16), (2.22, 0.42))
    for x in (0.20, 0.54, 0.97, 1.31, 1.70, 1.95, 2.19):
        pen.oval(paint.ink, x, 0.84, 0.115, 0.115)
        pen.oval(paint.pale, x, 0.84, 0.045, 0.045)


def _flower(pen: Pen, paint: Paint) -> None:
    pen.line(paint.leaf, 0.05, (0.36, 0.40), (0.38, 0.70), (0.36, 0.99))
    pen.oval(paint.leaf, 0.52, 0.76, 0.15, 0.06)
    pen.oval(paint.leaf, 0.22, 0.84, 0.14, 0.06)
    for petal in range(6):
        angle = petal * math.pi / 3
        x, y = 0.36 + 0.19 * math.sin(angle), 0.34 - 0.19 * math.cos(angle)
        pen.oval(paint.base if petal % 2 else paint.bright, x, y, 0.145, 0.145)
    pen.oval(paint.wood, 0.36, 0.34, 0.11, 0.11)


@dataclass(frozen=True)
class Thing:
    """How one kind of thing is drawn and where it can be."""

    draw: Callable[[Pen, Paint], None]
    aspect: float
    """Width over height."""
    flies: bool
    """Whether it may hang in the air; others stand on the ground."""


THINGS: dict[str, Thing] = {
    "car": Thing(_car, 1.72, flies=False),
    "boat": Thing(_boat, 1.23, flies=False),
    "bird": Thing(_bird, 1.30, flies=True),
    "fish": Thing(_fish, 1.38, flies=True),
    "dog": Thing(_dog, 1.30, flies=False),
    "house": Thing(_house, 1.00, flies=False),
    "balloon": Thing(_balloon, 0.72, flies=True),
    "rocket": Thing(_rocket, 0.70, flies=True),
    "tree": Thing(_tree, 0.88, flies=False),
    "star": Thing(_star, 1.00, flies=True),
    "train": Thing(_train, 2.38, flies=False),
    "flower": Thing(_flower, 0.72, flies=False),
}


@lru_cache(maxsize=512)
def draw_sprite(thing: str, colour: str, light: str) -> Image.Image:
    """One thing drawn large.

    Returns:
        RGBA, `SPRITE_HEIGHT` plus a border for the outline high, facing right.
    """
    kind = THINGS[thing]
    pen = Pen(kind.aspect, 2 * SPRITE_HEIGHT)
    kind.draw(pen, Paint.mixed(colour, light))
    image = pen.image.reduce(2)
    border = SPRITE_HEIGHT // 24
    wide = Image.new("RGBA", (image.width + 2 * border, image.height + 2 * border))
    wide.paste(image, (border, border))
    return _outlined(_shaded(wide), _outline_colour(colour, light))


def _outline_colour(colour: str, light: str) -> Rgb:
    # A dark line parts a thing from a bright land. Moonlight must do it at night, and for black
    # at any time, or nobody (and no encoder) could see a black thing in the dark.
    if light == "night":
        return (176, 190, 226)
    if colour == "black":
        return (188, 188, 196)
    return _times(COLOUR_RGB[colour], (0.36, 0.34, 0.38))


def _shaded(image: Image.Image) -> Image.Image:
    """The image, brighter at its top and darker at its foot, so that it looks round."""
    pixels = np.asarray(image).astype(np.float32)  # [H, W, 4]
    ramp = np.linspace(1.10, 0.86, image.height, dtype=np.float32)[:, None, None]
    pixels[..., :3] = np.clip(pixels[..., :3] * ramp, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8), "RGBA")


def _outlined(image: Image.Image, colour: Rgb) -> Image.Image:
    alpha = image.getchannel("A")
    grown = alpha.filter(ImageFilter.MaxFilter(9)).filter(ImageFilter.GaussianBlur(1.2))
    outline = Image.new("RGBA", image.size, (*colour, 0))
    outline.putalpha(grown)
    return Image.alpha_composite(outline, image)


# --- Sky and land -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backdrop:
    """The still layers of one place in one light, each wider than the picture by `MARGIN`."""

    sky: Image.Image
    """RGB, as large as the picture."""
    distance: Image.Image
    """RGBA, from `distance_top` down: hills, towers, woods."""
    ground: Image.Image
    """RGBA, from `ground_top` down: what things stand on."""
    distance_top: int
    ground_top: int


def horizon_of(place: str, layout: int) -> float:
    """Where the ground begins, as a fraction of the picture's height from the top."""
    if place == "space":
        return 1.0
    return 0.56 + 0.10 * float(np.random.default_rng((layout, 11)).random())


class _Land:
    """Paints one backdrop, piece by piece, in fractions of the picture."""

    def __init__(self, size: Size, layout: int, mood: Mood) -> None:
        self.width, self.height = round(size[0] * (1 + MARGIN)), size[1]
        self.mood = mood
        self.rng = np.random.default_rng((layout, 7))
        self._layer = np.zeros((self.height, self.width, 4), np.float32)

    def ridge(self, base: float, swell: float, top: Rgb, foot: Rgb, waves: float = 2.0) -> None:
        """Fills all below a rolling line with a gradient, antialiased along the line."""
        x = np.linspace(0, 2 * math.pi * waves, self.width)
        phases = self.rng.uniform(0, 2 * math.pi, 3)
        line = sum(np.sin(x * k + p) / k for k, p in zip((1.0, 2.3, 4.1), phases, strict=True))
        line = (base - swell * np.asarray(line) / 2) * self.height  # [W]
        y = np.arange(self.height)[:, None]  # [H, 1]
        cover = np.clip(y - line[None, :] + 0.5, 0, 1)[..., None]  # [H, W, 1]
        depth = np.clip((y / self.height - base + swell) / (1 - base + swell), 0, 1)[..., None]
        first, last = (np.array(self.mood.land(c), np.float32) for c in (top, foot))
        paint = np.broadcast_to(first + (last - first) * depth, (*cover.shape[:2], 3))
        self._over(np.concatenate([paint, np.full_like(cover, 255)], axis=2), cover)

    def draw(self, pieces: Callable[[ImageDraw.ImageDraw, float, float], None]) -> None:
        """Draws details at twice the size and lays them, reduced, over what is there."""
        image = Image.new("RGBA", (2 * self.width, 2 * self.height))
        pieces(ImageDraw.Draw(image), 2.0 * self.width, 2.0 * self.height)
        detail = np.asarray(image.reduce(2), np.float32)
        self._over(detail, detail[..., 3:] / 255)

    def _over(self, paint: NDArray[np.float32], cover: NDArray[np.float32]) -> None:
        below = self._layer[..., 3:] * (1 - cover)
        alpha = cover * 255 + below
        colour = paint[..., :3] * cover * 255 + self._layer[..., :3] * below
        self._layer[..., :3] = colour / np.maximum(alpha, 1e-6)
        self._layer[..., 3:] = alpha

    def finish(self) -> Image.Image:
        """The layer so far, and a new empty one in its place."""
        image = Image.fromarray(self._layer.round().astype(np.uint8), "RGBA")
        self._layer = np.zeros_like(self._layer)
        return image


def _conifers(land: _Land, foot: float, high: float, many: int, colour: Rgb) -> None:
    spots = [(x, land.rng.uniform(0.7, 1.2)) for x in land.rng.uniform(0, 1, many)]
    lit = land.mood.land(colour)

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, grow in spots:
            for tier in range(3):
                top = foot - high * grow * (1 - 0.26 * tier)
                low = foot - high * grow * (0.56 - 0.28 * tier)
                reach = 0.24 * high * grow * (0.6 + 0.3 * tier) * tall
                centre = x * wide
                corners = [(centre - reach, low * tall), (centre, top * tall)]
                draw.polygon([*corners, (centre + reach, low * tall)], (*lit, 255))

    land.draw(pieces)


def _towers(land: _Land, foot: float, colour: Rgb, lowest: float, highest: float) -> None:
    lit = land.mood.land(colour)
    pane = (255, 222, 118) if land.mood.lamps_on else _between(lit, (226, 240, 250), 0.5)
    rng = land.rng

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        left = -0.02
        while left < 1.0:
            width, top = rng.uniform(0.05, 0.10), foot - rng.uniform(lowest, highest)
            right = left + width
            where = (left * wide, top * tall, right * wide, (foot + 0.05) * tall)
            draw.rectangle(where, (*lit, 255))
            for y in np.arange(top + 0.03, foot - 0.02, 0.05):
                for x in np.arange(left + 0.012, right - 0.014, 0.022):
                    if rng.random() < 0.7:
                        box = (x * wide, y * tall, (x + 0.009) * wide, (y + 0.022) * tall)
                        draw.rectangle(box, (*pane, 255))
            left = right + rng.uniform(0.0, 0.02)

    land.draw(pieces)


def _strokes(
    land: _Land, colour: Rgb, many: int, top: float, length: float, width: float
) -> None:
    """Short curved strokes, smaller towards the horizon: waves, ripples of sand, tufts."""
    lit = land.mood.land(colour)
    spots = land.rng.uniform(0, 1, (many, 2))

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, depth in spots:
            near = 0.25 + 0.75 * depth
            reach, y = length * near * tall, (top + (1 - top) * depth) * tall
            box = (x * wide - reach, y - reach * 0.25, x * wide + reach, y + reach * 0.25)
            draw.arc(box, 200, 340, (*lit, 255), max(1, round(width * near * tall)))

    land.draw(pieces)


def _ovals(land: _Land, colour: Rgb, many: int, top: float, bottom: float, reach: float) -> None:
    lit = land.mood.land(colour)
    spots = land.rng.uniform(0, 1, (many, 2))

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, depth in spots:
            across, y = reach * (0.5 + 0.5 * depth) * tall, (top + (bottom - top) * depth) * tall
            box = (x * wide - across, y - 0.6 * across, x * wide + across, y + 0.6 * across)
            draw.ellipse(box, (*lit, 255))

    land.draw(pieces)


def _beach(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.05, 0.0, (38, 132, 196), (120, 206, 220))
    _strokes(land, (206, 238, 246), 14, horizon - 0.03, 0.03, 0.004)
    distance = land.finish()
    land.ridge(horizon + 0.045, 0.018, (246, 250, 250), (246, 250, 250), waves=3.0)
    land.ridge(horizon + 0.065, 0.018, (226, 200, 142), (248, 224, 164), waves=3.0)
    _strokes(land, (216, 186, 128), 26, horizon + 0.12, 0.07, 0.006)
    _ovals(land, (252, 238, 214), 9, horizon + 0.16, 1.0, 0.012)
    return distance, land.finish()


def _forest(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.18, 0.06, (118, 158, 128), (88, 136, 100))
    _conifers(land, horizon + 0.02, 0.40, 26, (58, 116, 82))
    _conifers(land, horizon + 0.05, 0.32, 22, (34, 88, 58))
    distance = land.finish()
    land.ridge(horizon + 0.02, 0.02, (70, 128, 62), (38, 88, 42))
    _strokes(land, (104, 160, 84), 40, horizon + 0.07, 0.025, 0.008)
    _ovals(land, (146, 108, 74), 10, horizon + 0.12, 1.0, 0.012)
    return distance, land.finish()


def _city(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    _towers(land, horizon, (146, 156, 178), 0.22, 0.46)
    _towers(land, horizon, (98, 102, 122), 0.08, 0.26)
    distance = land.finish()
    land.ridge(horizon, 0.0, (168, 166, 164), (150, 148, 148))
    land.ridge(horizon + 0.06, 0.0, (98, 98, 106), (72, 72, 80))
    paint = land.mood.land((236, 232, 214))

    def dashes(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for left in np.arange(-0.02, 1.0, 0.14):
            y = (horizon + 0.06 + (1 - horizon) * 0.42) * tall
            draw.rectangle((left * wide, y, (left + 0.075) * wide, y + 0.016 * tall), (*paint, 255))

    land.draw(dashes)
    return distance, land.finish()


def _desert(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.10, 0.10, (206, 128, 92), (226, 160, 104), waves=1.2)
    land.ridge(horizon - 0.02, 0.06, (230, 172, 104), (222, 158, 88), waves=1.7)
    distance = land.finish()
    land.ridge(horizon + 0.03, 0.04, (238, 186, 112), (214, 146, 78), waves=1.1)
    _strokes(land, (198, 132, 72), 24, horizon + 0.10, 0.10, 0.005)
    lit, rng = land.mood.land((62, 138, 78)), land.rng

    def cacti(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x in rng.uniform(0.02, 0.98, 4):
            high, foot = rng.uniform(0.14, 0.22) * tall, (horizon + 0.08) * tall
            arm, at = 0.16 * high, x * wide
            draw.rounded_rectangle((at - arm / 2, foot - high, at + arm / 2, foot), arm / 2, lit)
            for side, level in ((-1, 0.45), (1, 0.62)):
                elbow = sorted((at, at + side * 2.2 * arm))
                y = foot - level * high
                draw.rounded_rectangle((elbow[0], y, elbow[1], y + arm * 0.8), arm / 2, lit)
                tip = at + side * 1.9 * arm
                box = (tip - arm * 0.4, y - 0.24 * high, tip + arm * 0.4, y + arm * 0.8)
                draw.rounded_rectangle(box, arm / 2, lit)

    land.draw(cacti)
    return distance, land.finish()


def _snow(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.22, 0.22, (236, 244, 254), (176, 200, 232), waves=1.6)
    _conifers(land, horizon + 0.03, 0.16, 14, (112, 148, 158))
    distance = land.finish()
    land.ridge(horizon, 0.05, (252, 253, 255), (206, 222, 244), waves=1.4)
    _strokes(land, (190, 210, 238), 18, horizon + 0.10, 0.08, 0.006)
    return distance, land.finish()


def _sea(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.06, 0.0, (62, 130, 196), (40, 100, 176))
    distance = land.finish()
    land.ridge(horizon - 0.02, 0.006, (44, 112, 188), (14, 58, 128), waves=9.0)
    _strokes(land, (128, 186, 228), 60, horizon, 0.06, 0.007)
    land.ridge(0.94, 0.02, (20, 78, 152), (12, 52, 120), waves=6.0)
    return distance, land.finish()


def _farm(land: _Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.10, 0.07, (148, 194, 108), (120, 174, 88), waves=1.3)
    land.ridge(horizon - 0.03, 0.05, (204, 200, 98), (168, 182, 84), waves=1.0)
    distance = land.finish()
    land.ridge(horizon + 0.01, 0.015, (134, 190, 76), (96, 154, 58))
    furrow, rail = land.mood.land((112, 156, 58)), land.mood.land((226, 208, 176))
    hay, vanish = land.mood.land((232, 196, 92)), land.rng.uniform(0.3, 0.7)
    bales = land.rng.uniform(0.05, 0.95, 3)

    def field(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for row in np.linspace(-1.4, 2.4, 20):
            start = (vanish + (row - 0.5) * 0.16) * wide, (horizon + 0.06) * tall
            draw.line((*start, row * wide, tall), (*furrow, 255), round(0.012 * tall))
        for x in np.arange(0.0, 1.0, 0.055):
            box = (x * wide, (horizon - 0.035) * tall, (x + 0.007) * wide, (horizon + 0.05) * tall)
            draw.rectangle(box, (*rail, 255))
        for y in (horizon - 0.018, horizon + 0.014):
            draw.rectangle((0, y * tall, wide, (y + 0.010) * tall), (*rail, 255))
        for x in bales:
            box = (x * wide, (horizon + 0.03) * tall, (x + 0.05) * wide, (horizon + 0.10) * tall)
            draw.ellipse(box, (*hay, 255))

    land.draw(field)
    return distance, land.finish()


PLACES: dict[str, Callable[[_Land, float], tuple[Image.Image, Image.Image]]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "snow": _snow,
    "sea": _sea,
    "space": lambda land, horizon: (land.finish(), land.finish()),
    "farm": _farm,
}


def _glow(
    sky: NDArray[np.float32], x: float, y: float, reach: float, colour: Rgb, strength: float
) -> None:
    """Adds a soft round light to a sky [H, W, 3], in place."""
    height, width = sky.shape[:2]
    down, across = np.ogrid[:height, :width]
    far = np.hypot(across / height - x * width / height, down / height - y) / reach
    light = (strength * np.exp(-far * far)).astype(np.float32)[..., None]
    sky += (np.array(colour, np.float32) - sky) * light


def _disc(sky: NDArray[np.float32], x: float, y: float, radius: float, colour: Rgb) -> None:
    height, width = sky.shape[:2]
    down, across = np.ogrid[:height, :width]
    edge = radius * height - np.hypot(across - x * width, down - y * height)
    cover = np.clip(edge + 0.5, 0, 1).astype(np.float32)[..., None]
    sky += (np.array(colour, np.float32) - sky) * cover


def _stars(sky: NDArray[np.float32], rng: np.random.Generator, many: int, lowest: float) -> None:
    height, width = sky.shape[:2]
    for x, y, bright in rng.uniform(0, 1, (many, 3)):
        radius = (0.0018 + 0.0024 * bright**3) * height
        top, left = y * lowest * height, x * width
        rows = slice(max(0, int(top - 3)), int(top + 4))
        columns = slice(max(0, int(left - 3)), int(left + 4))
        down, across = np.ogrid[rows.start : rows.stop, columns.start : columns.stop]
        far = np.hypot(down - top, across - left)
        light = np.clip(radius + 0.7 - far, 0, 1) * (0.45 + 0.55 * bright)
        patch = sky[rows, columns]
        patch += (255 - patch) * light[: patch.shape[0], : patch.shape[1], None]


def _sky(size: Size, light: str, layout: int, horizon: float) -> Image.Image:
    mood, rng = MOODS[light], np.random.default_rng((layout, 3))
    width, height = size
    at = np.linspace(0, 1 / horizon, height)
    stops = np.array(mood.sky, np.float32)
    column = np.stack([np.interp(at, (0, 0.55, 1), stops[:, c]) for c in range(3)], axis=1)
    sky = np.repeat(column.astype(np.float32)[:, None], width, axis=1)  # [H, W, 3]
    x, y = rng.uniform(0.12, 0.88), rng.uniform(0.12, 0.22)
    if light == "day":
        _glow(sky, x, y, 0.30, (255, 248, 206), 0.75)
        _disc(sky, x, y, 0.068, (255, 244, 166))
    elif light == "sunset":
        _glow(sky, x, horizon - 0.10, 0.50, (255, 226, 130), 0.90)
        _disc(sky, x, horizon - 0.10, 0.095, (255, 240, 178))
    elif light == "night":
        _stars(sky, rng, 90, horizon)
        _glow(sky, x, y, 0.22, (150, 164, 222), 0.50)
        _disc(sky, x, y, 0.062, (244, 240, 214))
        for dx, dy, r in ((-0.012, -0.018, 0.014), (0.012, 0.016, 0.010), (0.010, -0.026, 0.008)):
            _disc(sky, x + dx, y + dy, r, (222, 216, 190))
    return Image.fromarray(np.clip(sky, 0, 255).round().astype(np.uint8))


def _cosmos(size: Size, layout: int) -> Image.Image:
    rng = np.random.default_rng((layout, 5))
    width, height = size
    sky = np.full((height, width, 3), (10, 8, 26), np.float32)
    for colour in ((92, 40, 128), (34, 62, 140), (120, 44, 96)):
        where = rng.uniform(0.1, 0.9, 2)
        _glow(sky, where[0], where[1], rng.uniform(0.25, 0.5), colour, 0.55)
    _stars(sky, rng, 170, 1.0)
    x, y, radius = rng.uniform(0.08, 0.92), rng.uniform(0.12, 0.3), rng.uniform(0.07, 0.11)
    _disc(sky, x, y, radius, (206, 158, 108))
    _disc(sky, x - radius * 0.10, y - radius * 0.2, radius * 0.72, (226, 184, 134))
    image = Image.fromarray(np.clip(sky, 0, 255).round().astype(np.uint8)).resize(
        (2 * width, 2 * height), Image.Resampling.BILINEAR
    )
    ring = (x * width - 1.9 * radius * height, (y - 0.34 * radius) * height)
    box = (2 * ring[0], 2 * ring[1], 2 * ring[0] + 7.6 * radius * height, 0.0)
    box = (*box[:3], box[1] + 1.5 * radius * height)
    ImageDraw.Draw(image).arc(box, -28, 208, (238, 214, 176), max(2, height // 60))
    return image.reduce(2)


def draw_backdrop(size: Size, place: str, layout: int, light: str) -> Backdrop:
    """Everything that stands still in one place and light.

    At 640 x 360 this costs some tens of milliseconds, so keep what it returns.
    """
    horizon = horizon_of(place, layout)
    land = _Land(size, layout, MOODS[light])
    distance, ground = PLACES[place](land, horizon)
    sky = _cosmos(size, layout) if place == "space" else _sky(size, light, layout, horizon)
    distance, distance_top = _without_air(distance)
    ground, ground_top = _without_air(ground)
    return Backdrop(sky, distance, ground, distance_top, ground_top)


def _without_air(layer: Image.Image) -> tuple[Image.Image, int]:
    """The layer from its first painted row down, and that row."""
    painted = layer.getchannel("A").getbbox()
    top = min(painted[1] if painted else 0, layer.height - 1)
    return layer.crop((0, top, layer.width, layer.height)), top


def _draw_cloud(height: int, light: str, variant: int) -> Image.Image:
    """One cloud of soft ovals, RGBA, `height` pixels high."""
    rng = np.random.default_rng((variant, 13))
    image = Image.new("RGBA", (6 * height, 2 * height), (*MOODS[light].cloud, 0))
    mask = Image.new("L", image.size)
    draw = ImageDraw.Draw(mask)
    for x in np.linspace(1.3, 4.7, 6):
        reach = rng.uniform(0.60, 1.05) * (1 - abs(x - 3) / 3)
        box = [(x - 1.2 * reach), 1.35 - reach, (x + 1.2 * reach), 1.35 + 0.5 * reach]
        draw.ellipse([b * height for b in box], 215)
    image.putalpha(mask.filter(ImageFilter.GaussianBlur(height * 0.06)))
    return image.reduce(2)


# --- The picture --------------------------------------------------------------------------------


def _falling(size: Size, drops: bool) -> Image.Image:
    """Streaks of rain or flakes of snow, RGBA, one picture high and endless downwards."""
    width, height = size
    rng = np.random.default_rng(17)
    image = Image.new("RGBA", (2 * width, 2 * height), (226, 236, 246, 0))
    draw = ImageDraw.Draw(image)
    for x, y, big in rng.uniform(0, 1, (150 if drops else 70, 3)):
        for wrapped in (y, y - 1.0):  # what leaves at the foot comes in at the top
            left, top = x * 2 * width, wrapped * 2 * height
            if drops:
                length = (0.05 + 0.05 * big) * 2 * height
                end = (left - 0.22 * length, top + length)
                wide = max(1, round(0.0055 * 2 * height))
                draw.line((left, top, *end), (226, 236, 248, 190), wide)
            else:
                r = (0.004 + 0.006 * big) * 2 * height
                draw.ellipse((left - r, top - r, left + r, top + r), (255, 255, 255, 215))
    return image.reduce(2)


class Painter:
    """Turns views into pictures of one size, keeping what it can use again.

    Args:
        size: (width, height) of the pictures in pixels.
        keep_backdrops: How many backdrops to keep; a film needs three at a time, while stills
            of training, which meet every place again and again, do well with hundreds.
    """

    def __init__(self, size: Size, *, keep_backdrops: int = 4) -> None:
        self.size = size
        self._backdrop = lru_cache(maxsize=keep_backdrops)(self._draw_backdrop)
        self._sprite = lru_cache(maxsize=1024)(self._draw_sprite)
        self._cloud = lru_cache(maxsize=32)(_draw_cloud)
        self._shadow = lru_cache(maxsize=64)(self._draw_shadow)
        self._rain = _falling(size, drops=True)
        self._snowfall = _falling(size, drops=False)

    def paint(self, view: View) -> Image.Image:
        """The picture of a view, RGB."""
        picture = self._paint_backdrop(view)
        for actor in sorted(view.actors, key=lambda a: a.y):
            self._paint_actor(picture, actor, view)
        if view.rain > 0:
            self._paint_falling(picture, self._rain, view.seconds * 1.9, view.rain)
        elif view.place == "snow":
            self._paint_falling(picture, self._snowfall, view.seconds * 0.16, 1.0)
        return picture

    def _draw_backdrop(self, place: str, layout: int, light: str) -> Backdrop:
        return draw_backdrop(self.size, place, layout, light)

    def _paint_backdrop(self, view: View) -> Image.Image:
        first = self._backdrop(view.place, view.layout, view.light)
        second = None
        if view.mix > 0:
            second = self._backdrop(view.place, view.layout, view.light_to)

        def mixed(image: Image.Image, other: Image.Image | None) -> Image.Image:
            return image if other is None else Image.blend(image, other, view.mix)

        picture = mixed(first.sky, second and second.sky).copy()
        if view.place == "space":
            return picture
        self._paint_clouds(picture, view)
        drift = MARGIN * self.size[0]
        # Distance drifts steadily, water sways, other ground stands still under the things.
        away = round(drift * (0.5 + 0.5 * math.sin(0.12 * view.seconds + view.layout)))
        sway = round(drift * (0.5 + 0.4 * math.sin(1.1 * view.seconds)))
        near = sway if view.place == "sea" else round(drift / 2)
        distance = mixed(first.distance, second and second.distance)
        picture.paste(distance, (-away, first.distance_top), distance)
        ground = mixed(first.ground, second and second.ground)
        picture.paste(ground, (-near, first.ground_top), ground)
        return picture

    def _paint_clouds(self, picture: Image.Image, view: View) -> None:
        rng = np.random.default_rng((view.layout, 19))
        width, height = self.size
        for number in range(3):
            x, y, grow = rng.uniform(0, 1.3), rng.uniform(0.02, 0.26), rng.uniform(0.7, 1.3)
            variant, pixels = int(rng.integers(4)), max(4, round(0.13 * grow * height))
            cloud = self._cloud(pixels, view.light, variant)
            if view.mix > 0:
                other = self._cloud(pixels, view.light_to, variant)
                cloud = Image.blend(cloud, other, view.mix)
            along = (x + (0.008 + 0.004 * number) * view.seconds) % 1.4 - 0.3
            picture.paste(cloud, (round(along * width), round(y * height)), cloud)

    def _paint_actor(self, picture: Image.Image, actor: Actor, view: View) -> None:
        width, height = self.size
        pixels = max(4, round(actor.scale * height / math.sqrt(THINGS[actor.thing].aspect)))
        look = (actor.thing, actor.colour, actor.faces_left, pixels)
        sprite = self._sprite(*look, view.light)
        if view.mix > 0:
            sprite = Image.blend(sprite, self._sprite(*look, view.light_to), view.mix)
        left = round(actor.x * width - sprite.width / 2)
        top = round(actor.y * height - sprite.height / 2)
        if actor.on_ground and view.place != "space":
            shadow = self._shadow(sprite.width, view.place == "sea")
            foot = top + sprite.height - pixels // 24
            picture.paste(shadow, (left, foot - shadow.height // 2), shadow)
        picture.paste(sprite, (left, top), sprite)

    def _draw_sprite(
        self, thing: str, colour: str, faces_left: bool, pixels: int, light: str
    ) -> Image.Image:
        large = draw_sprite(thing, colour, light)
        wide = max(2, round(pixels * large.width / SPRITE_HEIGHT))
        tall = max(2, round(pixels * large.height / SPRITE_HEIGHT))
        small = large.resize((wide, tall), Image.Resampling.BICUBIC, reducing_gap=2.0)
        if faces_left:
            return small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return small

    def _draw_shadow(self, width: int, on_water: bool) -> Image.Image:
        """A soft oval under a thing: dark on land, a pale ring of foam on water."""
        height = max(4, width // 6)
        colour, strength = ((224, 240, 250), 120) if on_water else ((20, 18, 30), 95)
        mask = Image.new("L", (width, height))
        inset = (width * 0.06, height * 0.2, width * 0.94, height * 0.8)
        ImageDraw.Draw(mask).ellipse(inset, strength)
        image = Image.new("RGBA", mask.size, (*colour, 0))
        image.putalpha(mask.filter(ImageFilter.GaussianBlur(height * 0.10)))
        return image

    def _paint_falling(
        self, picture: Image.Image, tile: Image.Image, heights_fallen: float, strength: float
    ) -> None:
        if strength < 1:
            tile = tile.copy()
            tile.putalpha(tile.getchannel("A").point(lambda a: a * strength))
        height = self.size[1]
        down = round(heights_fallen * height) % height
        for top in (down, down - height):
            picture.paste(tile, (0, top), tile)
