"""The places of the rendered world: skies with sun, moon and stars, and eight kinds of land.

A place has many layouts, each with its own hills, towers or trees; in another light only the colours of a layout
change. Nothing of it moves, so it is drawn once per scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from scanonce.training.world.far_places import FAR_PLACES
from scanonce.training.world.land import Land, draw_conifers, draw_ovals, draw_strokes, draw_towers
from scanonce.training.world.light import MOODS, Rgb, Size


@dataclass(frozen=True)
class Backdrop:
    """Layers of one place in one light; distance and ground are wider than the image by `MARGIN`."""

    sky: Image.Image
    """RGB, of the size of the image."""
    distance: Image.Image
    """RGBA, from `distance_top` down: hills, towers, woods."""
    ground: Image.Image
    """RGBA, from `ground_top` down: the ground that things stand on."""
    distance_top: int
    ground_top: int


def horizon_of(place: str, layout: int) -> float:
    """Upper edge of the ground, as a fraction of the image's height from the top."""
    if place == "space":
        return 1.0
    return 0.56 + 0.10 * float(np.random.default_rng((layout, 11)).random())


def _beach(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.05, 0.0, (38, 132, 196), (120, 206, 220))
    draw_strokes(land, (206, 238, 246), 14, horizon - 0.03, 0.03, 0.004)
    distance = land.finish()
    land.ridge(horizon + 0.045, 0.018, (246, 250, 250), (246, 250, 250), waves=3.0)
    land.ridge(horizon + 0.065, 0.018, (226, 200, 142), (248, 224, 164), waves=3.0)
    draw_strokes(land, (216, 186, 128), 26, horizon + 0.12, 0.07, 0.006)
    draw_ovals(land, (252, 238, 214), 9, horizon + 0.16, 1.0, 0.012)
    return distance, land.finish()


def _forest(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.18, 0.06, (118, 158, 128), (88, 136, 100))
    draw_conifers(land, horizon + 0.02, 0.40, 26, (58, 116, 82))
    draw_conifers(land, horizon + 0.05, 0.32, 22, (34, 88, 58))
    distance = land.finish()
    land.ridge(horizon + 0.02, 0.02, (70, 128, 62), (38, 88, 42))
    draw_strokes(land, (104, 160, 84), 40, horizon + 0.07, 0.025, 0.008)
    draw_ovals(land, (146, 108, 74), 10, horizon + 0.12, 1.0, 0.012)
    return distance, land.finish()


def _city(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    draw_towers(land, horizon, (146, 156, 178), 0.22, 0.46)
    draw_towers(land, horizon, (98, 102, 122), 0.08, 0.26)
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


def _desert(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.10, 0.10, (206, 128, 92), (226, 160, 104), waves=1.2)
    land.ridge(horizon - 0.02, 0.06, (230, 172, 104), (222, 158, 88), waves=1.7)
    distance = land.finish()
    land.ridge(horizon + 0.03, 0.04, (238, 186, 112), (214, 146, 78), waves=1.1)
    draw_strokes(land, (198, 132, 72), 24, horizon + 0.10, 0.10, 0.005)
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


def _snow(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.22, 0.22, (236, 244, 254), (176, 200, 232), waves=1.6)
    draw_conifers(land, horizon + 0.03, 0.16, 14, (112, 148, 158))
    distance = land.finish()
    land.ridge(horizon, 0.05, (252, 253, 255), (206, 222, 244), waves=1.4)
    draw_strokes(land, (190, 210, 238), 18, horizon + 0.10, 0.08, 0.006)
    return distance, land.finish()


def _sea(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.06, 0.0, (62, 130, 196), (40, 100, 176))
    distance = land.finish()
    land.ridge(horizon - 0.02, 0.006, (44, 112, 188), (14, 58, 128), waves=9.0)
    draw_strokes(land, (128, 186, 228), 60, horizon, 0.06, 0.007)
    land.ridge(0.94, 0.02, (20, 78, 152), (12, 52, 120), waves=6.0)
    return distance, land.finish()


def _farm(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
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


PLACES: dict[str, Callable[[Land, float], tuple[Image.Image, Image.Image]]] = {
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
    """Add a soft round light to a sky [H, W, 3], in place."""
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
    """Draw the layers of one place and light.

    At 640 x 360 this costs some tens of milliseconds, so the result should be kept.
    """
    horizon = horizon_of(place, layout)
    land = Land(size, layout, MOODS[light])
    distance, ground = (PLACES.get(place) or FAR_PLACES[place])(land, horizon)
    sky = _cosmos(size, layout) if place == "space" else _sky(size, light, layout, horizon)
    distance, distance_top = _cropped(distance)
    ground, ground_top = _cropped(ground)
    return Backdrop(sky, distance, ground, distance_top, ground_top)


def _cropped(layer: Image.Image) -> tuple[Image.Image, int]:
    """The layer from its first painted row down, and that row."""
    painted = layer.getchannel("A").getbbox()
    top = min(painted[1] if painted else 0, layer.height - 1)
    return layer.crop((0, top, layer.width, layer.height)), top


def draw_cloud(height: int, light: str, variant: int) -> Image.Image:
    """Draw a cloud of soft ovals, RGBA, `height` pixels high."""
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
