"""The things of the rendered world, each drawn once as a large sprite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scanonce.training.world.light import MOODS, Rgb, between, times

SPRITE_HEIGHT = 256
"""Height of a sprite in pixels, before it is scaled down to the size it is shown at."""

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
FAR_COLOUR_RGB: dict[str, Rgb] = {
    "brown": (126, 78, 40),
    "teal": (14, 138, 138),
    "maroon": (120, 16, 46),
    "gold": (206, 160, 44),
    "navy": (24, 36, 104),
    "lime": (164, 236, 44),
    "grey": (142, 144, 150),
    "lavender": (194, 172, 242),
}
"""Colours of things in the shifted world, whose places are in `training.world.far_places`."""

_RGB = {**COLOUR_RGB, **FAR_COLOUR_RGB}
_DARK = ("black", "navy", "maroon")


@dataclass(frozen=True)
class Paint:
    """Colours that one thing is drawn with, in one light."""

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
        """Return the paints for a named colour in a named light."""
        mood = MOODS[light]
        base = _RGB[colour]

        def lit(rgb: Rgb) -> Rgb:
            return times(rgb, mood.on_things)

        return cls(
            base=lit(base),
            dark=lit(between(base, (0, 0, 0), 0.28)),
            bright=lit(between(base, (255, 255, 255), 0.30)),
            ink=lit((34, 32, 40)),
            glass=(255, 226, 120) if mood.lamps_on else lit((196, 226, 246)),
            wood=lit((132, 88, 54)),
            leaf=lit((62, 140, 66)),
            pale=lit((250, 248, 240)),
            beak=lit((246, 170, 50)),
        )


class Pen:
    """Draws in units of the sprite: y from 0 (top) to 1 (bottom), x from 0 to the aspect ratio."""

    def __init__(self, aspect: float, pixels: int) -> None:
        self._pixels = pixels
        self.image = Image.new("RGBA", (round(aspect * pixels), pixels))
        self._draw = ImageDraw.Draw(self.image)

    def _scaled(self, *units: float) -> list[float]:
        return [u * self._pixels for u in units]

    def poly(self, fill: Rgb, *corners: tuple[float, float]) -> None:
        """Draw a filled polygon."""
        self._draw.polygon([(x * self._pixels, y * self._pixels) for x, y in corners], fill)

    def oval(self, fill: Rgb, x: float, y: float, wide: float, high: float) -> None:
        """Draw a filled ellipse by centre and half axes."""
        self._draw.ellipse(self._scaled(x - wide, y - high, x + wide, y + high), fill)

    def box(
        self, fill: Rgb, left: float, top: float, right: float, bottom: float, round_by: float = 0.0
    ) -> None:
        """Draw a filled rectangle, its corners rounded by a radius."""
        where = self._scaled(left, top, right, bottom)
        self._draw.rounded_rectangle(where, round_by * self._pixels, fill)

    def line(self, fill: Rgb, wide: float, *points: tuple[float, float]) -> None:
        """Draw a line through points."""
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
    """Drawing of one kind of thing, and where it can be."""

    draw: Callable[[Pen, Paint], None]
    aspect: float
    """Width over height."""
    flies: bool
    """Whether it may be in the air; other things stand on the ground."""


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
    """Draw one thing as a large sprite.

    Returns:
        RGBA, facing right; its height is `SPRITE_HEIGHT` plus a border for the outline.
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
    # A dark line separates a thing from bright land. At night, and for dark colours at any time, the line is bright:
    # otherwise neither people nor encoders could see a black thing in the dark.
    if light == "night":
        return (176, 190, 226)
    if colour in _DARK:
        return (188, 188, 196)
    return times(_RGB[colour], (0.36, 0.34, 0.38))


def _shaded(image: Image.Image) -> Image.Image:
    """The image, brighter at the top and darker at the bottom, so that it looks round."""
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
