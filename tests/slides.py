"""Videos of pictures that are held: slides, slow cameras, recordings without their duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

FADE_SECONDS = 0.4
_CLOCK = 100  # ticks per second of a recording without duplicates

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Slides:
    """Pictures one after another, each on screen for as long as the others."""

    images: Sequence[Image]
    """``[height, width, 3]`` of one size."""
    seconds: float
    """How long each is on screen, with the fade to the next."""
    fades: bool = False
    """Whether each fades into the next in its last `FADE_SECONDS`."""

    @property
    def end_seconds(self) -> float:
        """Length of the video."""
        return self.seconds * len(self.images)

    def at(self, seconds: float) -> Image:
        """Return what is on screen at a time."""
        number = min(int(seconds / self.seconds + 1e-9), len(self.images) - 1)
        share = 1 + (seconds - (number + 1) * self.seconds) / FADE_SECONDS
        if not self.fades or share <= 1e-9 or number == len(self.images) - 1:
            return self.images[number]
        before, after = (self.images[k].astype(float) for k in (number, number + 1))
        return np.asarray(before + share * (after - before), np.uint8)


def write_at_rate(path: Path, slides: Slides, fps: Fraction, *, group: int = 250) -> Path:
    """Write slides with a constant number of pictures a second, each ``group``-th a key frame."""
    times = [number / fps for number in range(round(slides.end_seconds * fps))]
    return _write(path, slides, times, 1 / fps, group)


def write_changes(path: Path, slides: Slides) -> Path:
    """Write slides as recorders do: 25 pictures a second, those that equal the one before left out."""
    times = [Fraction(number, 25) for number in range(round(slides.end_seconds * 25))]
    kept, last = [], None
    for time in times:
        image = slides.at(float(time))
        if last is None or (image != last).any():
            kept.append(time)
        last = image
    # a last picture tells when the video ends
    return _write(path, slides, [*kept, times[-1]], Fraction(1, 25), 250)


def _write(
    path: Path, slides: Slides, times: Sequence[Fraction], length: Fraction, group: int
) -> Path:
    height, width = slides.images[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(
            "libx264", rate=1 / length, options={"preset": "ultrafast", "crf": "10", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        stream.codec_context.gop_size = group
        for time in times:
            frame = av.VideoFrame.from_ndarray(slides.at(float(time)), format="rgb24")
            frame.pts, frame.time_base = round(time * _CLOCK), Fraction(1, _CLOCK)
            frame.duration = round(length * _CLOCK)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path
