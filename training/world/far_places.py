"""Places of the shifted world, which films of the home world never show.

The bundled checkpoints have never seen them. They stand for a user's own domain: `benchmarks.shifted` fine-tunes on
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from scanonce.training.world.land import Land, draw_ovals, draw_strokes
from scanonce.training.world.light import Rgb, between


def _peaks(land: Land, foot: float, high: float, many: int, colour: Rgb) -> None:
    """Draw a range of rocky peaks, each with a shaded side and a cap of snow."""
    lit = land.mood.land(colour)
    shade, snow = land.mood.land(between(colour, (0, 0, 0), 0.3)), land.mood.land((244, 248, 252))
    spots = (np.arange(many) + land.rng.uniform(0.1, 0.9, many)) / many
    heights = land.rng.uniform(0.7, 1.1, many) * high

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, height in zip(spots, heights, strict=True):
            top, reach = (x * wide, (foot - height) * tall), 0.75 * height * tall
            left, right = (x * wide - reach, foot * tall), (x * wide + reach, foot * tall)
            middle = (x * wide + 0.12 * reach, foot * tall)
            draw.polygon([left, top, right], (*lit, 255))
            draw.polygon([middle, top, right], (*shade, 255))
            cap, jag = 0.34 * reach, 0.34 * height * tall
            edge = [(-1.0, 1.0), (-0.45, 0.72), (-0.1, 1.05), (0.3, 0.7), (1.0, 1.0)]
            teeth = [(top[0] + a * cap, top[1] + b * jag) for a, b in edge]
            draw.polygon([top, *teeth], (*snow, 255))

    land.draw(pieces)


def _mountains(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    _peaks(land, horizon + 0.04, 0.44, 5, (128, 140, 166))
    _peaks(land, horizon + 0.04, 0.27, 6, (106, 106, 122))
    distance = land.finish()
    land.ridge(horizon + 0.02, 0.03, (150, 158, 134), (112, 122, 104), waves=1.5)
    draw_strokes(land, (120, 138, 92), 30, horizon + 0.08, 0.03, 0.008)
    draw_ovals(land, (130, 130, 138), 16, horizon + 0.08, 1.0, 0.030)
    return distance, land.finish()


def _palms(land: Land, foot: float, high: float, many: int, trunk: Rgb, leaf: Rgb) -> None:
    lit, green = land.mood.land(trunk), land.mood.land(leaf)
    spots = [
        (x, land.rng.uniform(0.75, 1.15), land.rng.uniform(-0.25, 0.25))
        for x in (np.arange(many) + land.rng.uniform(0.1, 0.9, many)) / many
    ]

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, grow, lean in spots:
            height = high * grow * tall
            base, top = (x * wide, foot * tall), (x * wide + lean * height, foot * tall - height)
            draw.line((*base, *top), (*lit, 255), max(2, round(0.07 * height)))
            for frond in range(8):
                angle = math.pi * (0.08 + 0.12 * frond)
                tip = (
                    top[0] + 0.50 * height * math.cos(angle),
                    top[1] - 0.20 * height * math.sin(angle) + 0.16 * height,
                )
                bow = (
                    top[0] + 0.30 * height * math.cos(angle),
                    top[1] - 0.26 * height * math.sin(angle) - 0.02 * height,
                )
                draw.polygon([top, bow, tip], (*green, 255))

    land.draw(pieces)


def _jungle(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.26, 0.05, (52, 116, 70), (18, 74, 44), waves=6.0)
    _palms(land, horizon + 0.05, 0.42, 6, (112, 84, 56), (36, 130, 66))
    distance = land.finish()
    land.ridge(horizon + 0.01, 0.035, (22, 92, 52), (10, 54, 34), waves=5.0)
    blade, rng = land.mood.land((66, 170, 84)), land.rng
    ferns = rng.uniform(0, 1, (14, 2))
    vine = land.mood.land((30, 96, 48))
    vines = rng.uniform(0, 1, (7, 2))

    def growth(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, depth in ferns:
            reach, y = (0.05 + 0.06 * depth) * tall, (horizon + 0.10 + 0.38 * depth) * tall
            for leaf in range(7):
                angle = math.pi * (0.1 + 0.8 * leaf / 6)
                tip = (x * wide + reach * math.cos(angle), y - reach * math.sin(angle))
                draw.line((x * wide, y, *tip), (*blade, 255), max(2, round(0.014 * tall)))

    def hanging(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, length in vines:
            low = (0.10 + 0.22 * length) * tall
            draw.line((x * wide, 0.0, x * wide, low), (*vine, 255), max(2, round(0.012 * tall)))
            for y in np.arange(0.02, 0.10 + 0.22 * length, 0.045):
                box = (x * wide, y * tall, x * wide + 0.035 * tall, (y + 0.022) * tall)
                draw.ellipse(box, (*vine, 255))

    land.draw(growth)
    ground = land.finish()
    land.draw(hanging)
    return Image.alpha_composite(distance, land.finish()), ground


def _volcano(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    rock, rng = (92, 66, 66), land.rng
    lit, shade = land.mood.land(rock), land.mood.land(between(rock, (0, 0, 0), 0.35))
    smoke = land.mood.land((122, 112, 116))
    # lava glows: its colours are the same by day and by night
    glow, lava = (255, 210, 84), (248, 92, 32)
    x, foot, top = rng.uniform(0.3, 0.7), horizon + 0.05, 0.20
    puffs = [(rng.uniform(-0.03, 0.03), rng.uniform(0.8, 1.2)) for _ in range(6)]
    bends = rng.uniform(-0.03, 0.03, (3, 2))
    cracks = rng.uniform(0, 1, (9, 4))

    def cone(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for number, (aside, grow) in enumerate(puffs):
            reach = (0.035 + 0.014 * number) * grow * tall
            at = ((x + aside + 0.014 * number) * wide, (top - 0.015 - 0.036 * number) * tall)
            draw.ellipse((at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach), smoke)
        rim, skirt = 0.06, 0.36
        left = [((x - skirt) * wide, foot * tall), ((x - rim) * wide, top * tall)]
        right = [((x + rim) * wide, top * tall), ((x + skirt) * wide, foot * tall)]
        draw.polygon([*left, *right], (*lit, 255))
        edge = [((x + 0.01) * wide, top * tall), *right, ((x + 0.10) * wide, foot * tall)]
        draw.polygon(edge, (*shade, 255))
        crater = ((x - rim) * wide, (top - 0.02) * tall, (x + rim) * wide, (top + 0.03) * tall)
        draw.ellipse(crater, (*glow, 255))
        for number, bend in enumerate(bends):
            start = x + (number - 1) * 0.035
            ends = [
                (start + bend[0] * 0.5 + (number - 1) * 0.05, 0.5 * (top + foot)),
                (start + bend[1] + (number - 1) * 0.11, foot),
            ]
            path = [(start * wide, top * tall), *((a * wide, b * tall) for a, b in ends)]
            draw.line(path, (*lava, 255), max(3, round(0.022 * tall)), joint="curve")

    def fissures(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for across, depth, turn, length in cracks:
            y = (horizon + 0.12 + 0.30 * depth) * tall
            reach, step = (0.04 + 0.06 * length) * wide, (turn - 0.5) * 0.06 * tall
            path = [
                (across * wide - reach, y),
                (across * wide - 0.2 * reach, y + step),
                (across * wide + 0.3 * reach, y - 0.5 * step),
                (across * wide + reach, y + 0.6 * step),
            ]
            draw.line(path, (*lava, 255), max(3, round(0.020 * tall)), joint="curve")
            draw.line(path, (*glow, 255), max(1, round(0.007 * tall)), joint="curve")

    land.draw(cone)
    distance = land.finish()
    land.ridge(horizon + 0.02, 0.03, (82, 70, 74), (48, 42, 48), waves=2.5)
    draw_ovals(land, (58, 50, 56), 12, horizon + 0.08, 1.0, 0.026)
    land.draw(fissures)
    return distance, land.finish()


def _castle(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    land.ridge(horizon - 0.08, 0.06, (140, 178, 150), (118, 160, 124), waves=1.2)
    stone, rng = (196, 186, 168), land.rng
    lit, joint = land.mood.land(stone), land.mood.land(between(stone, (0, 0, 0), 0.28))
    roof, flag = land.mood.land((86, 92, 148)), land.mood.land((232, 226, 210))
    pane = (255, 222, 118) if land.mood.lamps_on else land.mood.land((70, 66, 72))
    middle, foot = rng.uniform(0.35, 0.65), horizon + 0.05
    towers = [(-0.30, 0.26), (-0.13, 0.36), (0.13, 0.33), (0.30, 0.24)]
    heights = rng.uniform(0.9, 1.1, len(towers))
    slabs = rng.uniform(0, 1, (26, 2))

    def walls(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        def block(left: float, top: float, right: float) -> None:
            draw.rectangle((left * wide, top * tall, right * wide, foot * tall), (*lit, 255))
            for x in np.arange(left, right - 0.008, 0.024):  # battlements
                box = (x * wide, (top - 0.026) * tall, (x + 0.013) * wide, (top + 0.004) * tall)
                draw.rectangle(box, (*lit, 255))
            for y in np.arange(top + 0.03, foot, 0.045):  # courses of stone
                draw.line((left * wide, y * tall, right * wide, y * tall), (*joint, 255), 2)

        block(middle - 0.30, foot - 0.17, middle + 0.30)
        for (aside, high), grow in zip(towers, heights, strict=True):
            x, top = middle + aside, foot - high * grow
            block(x - 0.035, top, x + 0.035)
            peak = top - 0.14
            corners = [(x - 0.045, top - 0.02), (x, peak), (x + 0.045, top - 0.02)]
            draw.polygon([(a * wide, b * tall) for a, b in corners], (*roof, 255))
            mast = (x * wide, peak * tall)
            draw.line((*mast, mast[0], mast[1] - 0.05 * tall), (*joint, 255), 3)
            cloth = [(0.0, -0.05), (0.032, -0.038), (0.0, -0.024)]
            draw.polygon([(mast[0] + a * wide, mast[1] + b * tall) for a, b in cloth], (*flag, 255))
            slit = (
                (x - 0.007) * wide,
                (top + 0.05) * tall,
                (x + 0.007) * wide,
                (top + 0.11) * tall,
            )
            draw.rounded_rectangle(slit, 0.007 * wide, (*pane, 255))
        gate = (
            *((middle - 0.045) * wide, (foot - 0.12) * tall),
            *((middle + 0.045) * wide, (foot + 0.05) * tall),
        )
        draw.rounded_rectangle(gate, 0.045 * wide, (*land.mood.land((84, 62, 50)), 255))

    def paving(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for across, depth in slabs:
            y = (horizon + 0.11 + 0.36 * depth) * tall
            reach = (0.03 + 0.05 * depth) * tall
            box = (
                across * wide - 1.5 * reach,
                y - 0.4 * reach,
                across * wide + reach,
                y + reach * 0.4,
            )
            draw.rounded_rectangle(box, 0.3 * reach, outline=(*joint, 255), width=3)

    land.draw(walls)
    distance = land.finish()
    land.ridge(horizon + 0.03, 0.01, (184, 174, 156), (150, 140, 126))
    land.draw(paving)
    return distance, land.finish()


def _harbour(land: Land, horizon: float) -> tuple[Image.Image, Image.Image]:
    rng = land.rng
    land.ridge(horizon - 0.05, 0.0, (70, 150, 168), (52, 122, 146))
    iron, white = land.mood.land((214, 150, 52)), land.mood.land((244, 240, 232))
    band, dark = land.mood.land((188, 60, 54)), land.mood.land((70, 62, 60))
    lamp = (255, 240, 160) if land.mood.lamps_on else land.mood.land((250, 236, 170))
    boxes = [land.mood.land(rgb) for rgb in ((64, 118, 150), (176, 92, 64), (120, 134, 98))]
    side = 1 if rng.random() < 0.5 else -1
    cranes = 0.5 - side * rng.uniform(0.02, 0.34, 2)
    light_x, foot = 0.5 + side * rng.uniform(0.26, 0.38), horizon + 0.01
    stacks = [(x, int(rng.integers(1, 4))) for x in rng.uniform(0.02, 0.92, 5)]

    def docks(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, number in stacks:
            for level in range(number):
                top = foot - 0.05 * (level + 1)
                box = (x * wide, top * tall, (x + 0.075) * wide, (top + 0.047) * tall)
                draw.rectangle(box, (*boxes[(level + int(97 * x)) % 3], 255))
        pen = max(3, round(0.016 * tall))
        for x in cranes:
            top = foot - 0.36
            for leg in (-0.03, 0.03):
                draw.line(((x + leg) * wide, foot * tall, x * wide, top * tall), (*iron, 255), pen)
            for y in (foot - 0.10, foot - 0.20):
                draw.line(((x - 0.025) * wide, y * tall, (x + 0.025) * wide, y * tall), iron, pen)
            arm = ((x - side * 0.05) * wide, (top + 0.03) * tall)
            tip = ((x + side * 0.14) * wide, (top - 0.05) * tall)
            draw.line((*arm, *tip), (*iron, 255), pen)
            draw.line((*tip, tip[0], tip[1] + 0.16 * tall), (*dark, 255), max(2, pen // 3))
        for ring in range(5):  # a lighthouse of bands, each a little narrower
            low, high = foot - 0.075 * ring, foot - 0.075 * (ring + 1)
            wide_low, wide_high = 0.034 - 0.004 * ring, 0.030 - 0.004 * ring
            corners = [(-wide_low, low), (-wide_high, high), (wide_high, high), (wide_low, low)]
            colour = band if ring % 2 == 0 else white
            draw.polygon([((light_x + a) * wide, b * tall) for a, b in corners], (*colour, 255))
        top = foot - 0.375
        draw.rectangle(
            ((light_x - 0.010) * wide, (top - 0.04) * tall, (light_x + 0.010) * wide, top * tall),
            (*lamp, 255),
        )
        hat = [(-0.016, top - 0.04), (0.0, top - 0.07), (0.016, top - 0.04)]
        draw.polygon([((light_x + a) * wide, b * tall) for a, b in hat], (*band, 255))

    seam = land.mood.land((104, 76, 54))
    bollards = rng.uniform(0.05, 0.95, 4)

    def planks(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        y, step = horizon + 0.05, 0.034
        while y < 1.0:
            draw.line((0, y * tall, wide, y * tall), (*seam, 255), max(2, round(0.006 * tall)))
            y, step = y + step, step * 1.25
        for x in bollards:
            box = ((x - 0.012) * wide, (horizon - 0.005) * tall, (x + 0.012) * wide, y * tall)
            box = (*box[:3], (horizon + 0.06) * tall)
            draw.rounded_rectangle(box, 0.01 * wide, (*dark, 255))

    land.draw(docks)
    distance = land.finish()
    land.ridge(horizon + 0.02, 0.0, (176, 136, 96), (146, 108, 76))
    land.draw(planks)
    return distance, land.finish()


FAR_PLACES: dict[str, Callable[[Land, float], tuple[Image.Image, Image.Image]]] = {
    "mountains": _mountains,
    "jungle": _jungle,
    "volcano": _volcano,
    "castle": _castle,
    "harbour": _harbour,
}
