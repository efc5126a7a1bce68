"""The land of the rendered world: rolling ground, and the details on it, painted piece by piece.

Places (`training.world.places`, `training.world.far_places`) are composed of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scanonce.training.world.light import Mood, Rgb, Size, between

MARGIN = 0.04
"""Extra width of a layer, as a fraction of the image's width: room to drift."""


class Land:
    """Paints one backdrop, piece by piece, in fractions of the image."""

    def __init__(self, size: Size, layout: int, mood: Mood) -> None:
        self.width, self.height = round(size[0] * (1 + MARGIN)), size[1]
        self.mood = mood
        self.rng = np.random.default_rng((layout, 7))
        self._layer = np.zeros((self.height, self.width, 4), np.float32)

    def ridge(self, base: float, swell: float, top: Rgb, foot: Rgb, waves: float = 2.0) -> None:
        """Fill the area below a rolling line with a gradient, antialiased along the line."""
        x = np.linspace(0, 2 * math.pi * waves, self.width)
        phases = self.rng.uniform(0, 2 * math.pi, 3)
        line = sum(np.sin(x * k + p) / k for k, p in zip((1.0, 2.3, 4.1), phases, strict=True))
        line = (base - swell * np.asarray(line) / 2) * self.height  # [W]
        y = np.arange(self.height)[:, None]  # [H, 1]
        cover = np.clip(y - line[None, :] + 0.5, 0, 1).astype(np.float32)[..., None]  # [H, W, 1]
        depth = np.clip((y / self.height - base + swell) / (1 - base + swell), 0, 1)[..., None]
        first, last = (np.array(self.mood.land(c), np.float32) for c in (top, foot))
        paint = np.broadcast_to(first + (last - first) * depth, (*cover.shape[:2], 3))
        self._over(paint.astype(np.float32), cover)

    def draw(self, pieces: Callable[[ImageDraw.ImageDraw, float, float], None]) -> None:
        """Draw details at twice the size, reduce them, and paint them over the layer."""
        image = Image.new("RGBA", (2 * self.width, 2 * self.height))
        pieces(ImageDraw.Draw(image), 2.0 * self.width, 2.0 * self.height)
        detail = np.asarray(image.reduce(2), np.float32)
        self._over(detail[..., :3], detail[..., 3:] / np.float32(255))

    def _over(self, paint: NDArray[np.float32], cover: NDArray[np.float32]) -> None:
        """Paint colours [H, W, 3] over the layer, with an opacity of 0 to 1 [H, W, 1]."""
        below = self._layer[..., 3:] * (1 - cover)
        alpha = cover * 255 + below
        colour = paint * cover * 255 + self._layer[..., :3] * below
        self._layer[..., :3] = colour / np.maximum(alpha, 1e-6)
        self._layer[..., 3:] = alpha

    def finish(self) -> Image.Image:
        """Return the layer, and begin an empty one."""
        image = Image.fromarray(self._layer.round().astype(np.uint8), "RGBA")
        self._layer = np.zeros_like(self._layer)
        return image


def draw_conifers(land: Land, foot: float, high: float, many: int, colour: Rgb) -> None:
    """Draw fir trees side by side, up to 1.2 times as high as `high`."""
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


def draw_towers(land: Land, foot: float, colour: Rgb, lowest: float, highest: float) -> None:
    """Draw a skyline of blocks with windows, which are lit in the dark."""
    lit = land.mood.land(colour)
    pane = (255, 222, 118) if land.mood.lamps_on else between(lit, (226, 240, 250), 0.5)
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


def draw_strokes(
    land: Land, colour: Rgb, many: int, top: float, length: float, width: float
) -> None:
    """Draw short curved strokes, smaller towards the horizon: waves, ripples of sand, tufts."""
    lit = land.mood.land(colour)
    spots = land.rng.uniform(0, 1, (many, 2))

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, depth in spots:
            near = 0.25 + 0.75 * depth
            reach, y = length * near * tall, (top + (1 - top) * depth) * tall
            box = (x * wide - reach, y - reach * 0.25, x * wide + reach, y + reach * 0.25)
            draw.arc(box, 200, 340, (*lit, 255), max(1, round(width * near * tall)))

    land.draw(pieces)


def draw_ovals(land: Land, colour: Rgb, many: int, top: float, bottom: float, reach: float) -> None:
    """Draw stones and shells, larger towards the lower edge of the image."""
    lit = land.mood.land(colour)
    spots = land.rng.uniform(0, 1, (many, 2))

    def pieces(draw: ImageDraw.ImageDraw, wide: float, tall: float) -> None:
        for x, depth in spots:
            across, y = reach * (0.5 + 0.5 * depth) * tall, (top + (bottom - top) * depth) * tall
            box = (x * wide - across, y - 0.6 * across, x * wide + across, y + 0.6 * across)
            draw.ellipse(box, (*lit, 255))

    land.draw(pieces)
