"""Frame rates and timecodes of editing programs. Pure functions.

>>> RATES["29.97df"].timecode(1800), RATES["29.97df"].number("00:01:00;02")
('00:01:00;02', 1800)
>>> relabelled(90_000, RATES["25"], RATES["24"])          # 01:00:00:00 in both
86400
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

_NTSC = Fraction(1000, 1001)
_STANDARD_FPS = (
    *(24 * _NTSC, Fraction(24), Fraction(25), 30 * _NTSC, Fraction(30)),
    *(48 * _NTSC, Fraction(48), Fraction(50), 60 * _NTSC, Fraction(60)),
)
"""The rates of timecode (SMPTE ST 12-1 and 12-3), rising; its frames have two digits."""


@dataclass(frozen=True, slots=True)
class FrameRate:
    """A frame rate, and how timecodes count its frames."""

    fps: Fraction
    """Exact: 30000/1001 for "29.97"."""
    timebase: int
    """Number of frames in a second of timecode: 30 for 29.97."""
    drop: bool = False
    """Drop frame leaves out two numbers (four at 59.94) every minute except each tenth, to keep up with the clock."""

    def __post_init__(self) -> None:
        if self.drop and (self.timebase % 30 or self.fps.denominator != 1001):
            raise ValueError(f"drop frame is for 29.97 and 59.94 frames a second; got {self.fps}")

    def frames(self, seconds: float) -> int:
        """Return the number of the frame that begins nearest to a time."""
        return round(Fraction(seconds) * self.fps)

    def timecode(self, frame: int) -> str:
        """Return ``hh:mm:ss:ff`` of a frame, ``hh:mm:ss;ff`` with drop frame; after 24 hours it starts again at 0.

        >>> FrameRate(Fraction(30000, 1001), 30, drop=True).timecode(1800)
        '00:01:00;02'
        """
        if self.drop:
            from opentimelineio.opentime import RationalTime  # type: ignore[import-untyped]

            fps = float(self.fps)
            return str(RationalTime(frame, fps).to_timecode(fps, True))
        # Not by OpenTimelineIO (0.18.1): without drop frame it starts 29.97 again 86 s before the day is over, and it
        # has no timecodes for rates such as 10 or 15 frames a second.
        seconds, frames = divmod(frame, self.timebase)
        hours = seconds // 3600 % 24
        return f"{hours:02}:{seconds // 60 % 60:02}:{seconds % 60:02}:{frames:02}"

    def number(self, timecode: str) -> int:
        """Return the frame that has a timecode ``hh:mm:ss:ff`` (or ``;``); one that drop frame leaves out is the next.

        Raises:
            ValueError: it is no timecode of this rate.
        """
        hours, minutes, seconds, frames = (
            int(part) for part in timecode.replace(";", ":").split(":")
        )
        if not (hours < 24 and minutes < 60 and seconds < 60 and frames < self.timebase):
            raise ValueError(f"{timecode} is no timecode at {float(self.fps):g} frames a second")
        whole = 3600 * hours + 60 * minutes + seconds
        if not self.drop:
            return whole * self.timebase + frames
        skipped = self.timebase // 15
        if seconds == 0 and minutes % 10 and frames < skipped:
            frames = skipped
        passed = 60 * hours + minutes
        return whole * self.timebase + frames - skipped * (passed - passed // 10)

    def first_frame_of_hour(self, hour: int) -> int:
        """Return the frame whose timecode is ``hour:00:00:00``."""
        dropped = 54 * (self.timebase // 15) if self.drop else 0
        return hour * (3600 * self.timebase - dropped)


RateName = Literal["23.976", "24", "25", "29.97", "29.97df", "30", "50", "59.94", "59.94df", "60"]
"""The rates of a timeline that can be asked for; ``df``: with drop frame."""

RATES: Mapping[RateName, FrameRate] = {
    "23.976": FrameRate(24 * _NTSC, 24),
    "24": FrameRate(Fraction(24), 24),
    "25": FrameRate(Fraction(25), 25),
    "29.97": FrameRate(30 * _NTSC, 30),
    "29.97df": FrameRate(30 * _NTSC, 30, drop=True),
    "30": FrameRate(Fraction(30), 30),
    "50": FrameRate(Fraction(50), 50),
    "59.94": FrameRate(60 * _NTSC, 60),
    "59.94df": FrameRate(60 * _NTSC, 60, drop=True),
    "60": FrameRate(Fraction(60), 60),
}


def frame_rate(fps: float, *, drop: bool = True) -> FrameRate:
    """Return the standard rate for a video: the lowest multiple of its own that is one, else the next higher one.

    25 for 12.5 and 30 for 7.5 frames a second; 29.97 for the 29.5 that a phone measures. Frames are counted from
    seconds (`FrameRate.frames`), so timecode is the clock whatever the rate.

    Args:
        fps: as a decoder states it. 0 (unknown) counts as 25; a rate above 60 may also be halved, up to three times.
        drop: whether 29.97 and 59.94 are counted with drop frame, as broadcasters do.
    """
    value = fps if 0.5 <= fps < 10_000 else 25.0
    near = (
        rate
        for factor in (*range(1, 121), 1 / 2, 1 / 4, 1 / 8)
        for rate in _STANDARD_FPS
        if abs(value * factor - rate) <= 0.01 * rate / 30
    )
    above = (rate for rate in _STANDARD_FPS if rate >= value)
    standard = next(near, None) or next(above, _STANDARD_FPS[-1])
    timebase = round(standard)
    is_drop = drop and standard.denominator > 1 and timebase in (30, 60)
    return FrameRate(standard, timebase, drop=is_drop)


def relabelled(frame: int, own: FrameRate, rate: FrameRate) -> int:
    """Return the frame of another rate whose timecode has the same hours, minutes, seconds and part of a second."""
    if own == rate:
        return frame
    code = own.timecode(frame)
    part = int(code[9:]) * rate.timebase // own.timebase
    day = frame // own.first_frame_of_hour(24)
    return day * rate.first_frame_of_hour(24) + rate.number(f"{code[:8]}:{part:02}")
