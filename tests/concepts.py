"""The real weights of the encoder "concepts", and drawings that it recognises."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scanonce.models.offline_weights import (
    IMAGENET,
    INSTALL_COMMAND,
    SENTENCES,
    are_installed,
)

needs_concepts = pytest.mark.skipif(
    not are_installed(IMAGENET, SENTENCES),
    reason=f"the weights of the encoder concepts are not installed: {INSTALL_COMMAND}",
)


def drawn(what: str) -> NDArray[np.uint8]:
    """Return a drawing ``[360, 640, 3]`` of one of `DRAWINGS`, which a classifier of photographs recognises."""
    image = Image.new("RGB", (640, 360), (205, 205, 200))
    _DRAW[what](ImageDraw.Draw(image))
    return np.asarray(image)


def _clock(draw: ImageDraw.ImageDraw) -> None:
    x, y, radius = 320, 180, 150
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), "white", "black", 14)
    for hour in range(12):
        dx, dy = np.sin(hour * np.pi / 6), -np.cos(hour * np.pi / 6)
        draw.line((x + dx * 105, y + dy * 105, x + dx * 128, y + dy * 128), "black", 8)
    draw.line((x, y, x + 55, y - 45), "black", 12)
    draw.line((x, y, x - 10, y - 100), "black", 7)


def _crossword(draw: ImageDraw.ImageDraw) -> None:
    squares = np.random.default_rng(4).random((11, 11)) < 0.25
    for row, column in np.ndindex(11, 11):
        left, top = 160 + column * 29, 20 + row * 29
        fill = "black" if squares[row, column] or squares[10 - row, 10 - column] else "white"
        draw.rectangle((left, top, left + 29, top + 29), fill, "black", 2)


def _traffic_light(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((0, 0, 640, 360), (120, 170, 220))
    draw.rectangle((305, 270, 335, 360), (60, 60, 60))
    draw.rounded_rectangle((250, 20, 390, 300), 20, (25, 25, 25))
    for number, colour in enumerate([(255, 40, 30), (70, 60, 10), (10, 60, 20)]):
        top = 35 + number * 88
        draw.ellipse((282, top, 358, top + 76), colour)


_DRAW: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "clock": _clock,
    "crossword": _crossword,
    "traffic light": _traffic_light,
}
DRAWINGS = tuple(_DRAW)
