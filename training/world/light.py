"""The light of the rendered world: effects of day, dusk, night and rain on its colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Rgb: TypeAlias = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""

Size: TypeAlias = tuple[int, int]
"""(width, height) in pixels, in Pillow's order."""


@dataclass(frozen=True)
class Mood:
    """Effect of one light on the colours of the world."""

    sky: tuple[Rgb, Rgb, Rgb]
    """Colours at the top, the middle and the horizon."""
    ambient: tuple[float, float, float]
    """Factors on the colours of the land."""
    on_things: tuple[float, float, float]
    """Factors on the colours of things: closer to 1, so that their names stay true."""
    cloud: Rgb
    lamps_on: bool

    def land(self, colour: Rgb) -> Rgb:
        """Return a colour of the land in this light."""
        return times(colour, self.ambient)


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


def times(colour: Rgb, factors: tuple[float, float, float]) -> Rgb:
    """Scale each channel of a colour, up to 255."""
    red, green, blue = (min(255, round(c * f)) for c, f in zip(colour, factors, strict=True))
    return red, green, blue


def between(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Interpolate between two colours; a share of 0 is the first one."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
