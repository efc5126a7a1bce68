"""Images of the rendered world.

`training.world.scene` describes an instant as a `View`; a `Painter` draws an image of it. Layers that do not move (sky,
distance, ground) are painted once per place and light and kept. A frame is composed of these layers and of the moving
sprites, which are drawn once and scaled down.

    painter = Painter((640, 360))
    image = painter.paint(View("farm", 3, "day", actors=(Actor("dog", "red", 0.5, 0.8, 0.4),)))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scanonce.training.world.land import MARGIN
from scanonce.training.world.light import Size
from scanonce.training.world.places import Backdrop, draw_backdrop, draw_cloud
from scanonce.training.world.things import SPRITE_HEIGHT, THINGS, draw_sprite


@dataclass(frozen=True)
class Actor:
    """One thing in one image."""

    thing: str
    colour: str
    x: float
    """Centre, as a fraction of the image's width."""
    y: float
    """Centre, as a fraction of the image's height."""
    scale: float
    """Square root of its area, as a fraction of the image's height."""
    faces_left: bool = False
    on_ground: bool = True


@dataclass(frozen=True)
class View:
    """Everything visible at one instant."""

    place: str
    layout: int
    """Number of the drawing of the place."""
    light: str
    light_to: str = "day"
    mix: float = 0.0
    """0 is all `light`, 1 is all `light_to`."""
    rain: float = 0.0
    """0 is dry, 1 is full rain."""
    seconds: float = 0.0
    """Time within the scene: moves clouds, water, rain and snow."""
    actors: tuple[Actor, ...] = ()


def _falling(size: Size, drops: bool) -> Image.Image:
    """Streaks of rain or flakes of snow, RGBA, of the image's height; repeats vertically."""
    width, height = size
    rng = np.random.default_rng(17)
    image = Image.new("RGBA", (2 * width, 2 * height), (226, 236, 246, 0))
    draw = ImageDraw.Draw(image)
    for x, y, big in rng.uniform(0, 1, (150 if drops else 70, 3)):
        for wrapped in (y, y - 1.0):  # cut off at the bottom, continued at the top
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


def _blended(first: Backdrop, second: Backdrop, mix: float) -> Backdrop:
    """One layout between two lights."""
    return replace(
        first,
        sky=Image.blend(first.sky, second.sky, mix),
        distance=Image.blend(first.distance, second.distance, mix),
        ground=Image.blend(first.ground, second.ground, mix),
    )


class Painter:
    """Draws views as images of one size, with caches of backdrops and sprites.

    Args:
        size: (width, height) of the images in pixels.
        keep_backdrops: number of backdrops in the cache; a film needs three at a time, stills of training, which show
            every place many times, hundreds.
    """

    def __init__(self, size: Size, *, keep_backdrops: int = 4) -> None:
        self.size = size
        self._backdrop = lru_cache(maxsize=keep_backdrops)(self._draw_backdrop)
        self._sprite = lru_cache(maxsize=1024)(self._draw_sprite)
        self._cloud = lru_cache(maxsize=32)(draw_cloud)
        self._shadow = lru_cache(maxsize=64)(self._draw_shadow)
        self._rain = _falling(size, drops=True)
        self._snowfall = _falling(size, drops=False)

    def paint(self, view: View) -> Image.Image:
        """Draw a view, RGB."""
        image = self._paint_backdrop(view)
        for actor in sorted(view.actors, key=lambda a: a.y):
            self._paint_actor(image, actor, view)
        if view.rain > 0:
            self._paint_falling(image, self._rain, view.seconds * 1.9, view.rain)
        elif view.place == "snow":
            self._paint_falling(image, self._snowfall, view.seconds * 0.16, 1.0)
        return image

    def _draw_backdrop(self, place: str, layout: int, light: str) -> Backdrop:
        return draw_backdrop(self.size, place, layout, light)

    def _paint_backdrop(self, view: View) -> Image.Image:
        still = self._backdrop(view.place, view.layout, view.light)
        if view.mix > 0:
            other = self._backdrop(view.place, view.layout, view.light_to)
            still = _blended(still, other, view.mix)
        image = still.sky.copy()
        if view.place == "space":
            return image
        self._paint_clouds(image, view)
        drift = MARGIN * self.size[0]
        # the distance drifts steadily and water sways; other ground does not move under the things
        away = round(drift * (0.5 + 0.5 * math.sin(0.12 * view.seconds + view.layout)))
        sway = round(drift * (0.5 + 0.4 * math.sin(1.1 * view.seconds)))
        near = sway if view.place == "sea" else round(drift / 2)
        image.paste(still.distance, (-away, still.distance_top), still.distance)
        image.paste(still.ground, (-near, still.ground_top), still.ground)
        return image

    def _paint_clouds(self, image: Image.Image, view: View) -> None:
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
            image.paste(cloud, (round(along * width), round(y * height)), cloud)

    def _paint_actor(self, image: Image.Image, actor: Actor, view: View) -> None:
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
            image.paste(shadow, (left, foot - shadow.height // 2), shadow)
        image.paste(sprite, (left, top), sprite)

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
        self, image: Image.Image, tile: Image.Image, heights_fallen: float, strength: float
    ) -> None:
        if strength < 1:
            tile = tile.copy()
            tile.putalpha(tile.getchannel("A").point(lambda a: a * strength))
        height = self.size[1]
        down = round(heights_fallen * height) % height
        for top in (down, down - height):
            image.paste(tile, (0, top), tile)
