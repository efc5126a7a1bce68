"""Films of flat colours and an encoder that sees only colour, so that the right answers are known exactly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from tests.videos import write_images

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "white": (235, 235, 235),
    "black": (20, 20, 20),
}


class ColourEncoder:
    """Embeds a frame as its mean colour, and a text as the colour that it names or, without one, as a vector apart."""

    name = "colours"
    fingerprint = "c" * 64
    dim = 4
    head_files = ()
    batch_frames = 8
    max_concurrency = 2
    preprocessing = Preprocessing(None, (16, 16), None, "bicubic", (0.5,) * 3, (0.5,) * 3)

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        means = frames.mean(axis=(1, 2)) - 110.0
        return np.concatenate([means, np.full((len(frames), 1), 40.0)], axis=1).astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            named = [np.array(rgb) - 110.0 for name, rgb in COLOURS.items() if name in text.split()]
            rows.append(np.append(named[0], 40.0) if named else np.array([0.0, 0.0, 0.0, -1.0]))
        return np.array(rows, np.float32).reshape(-1, 4)

    def read(self, text: str) -> Reading:
        words = text.split()
        return Reading(num_words=len(words), num_read=len(words))

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        joint = self.encode_texts(texts)
        return TextFeatures(joint, joint)


def write_film(path: Path, scenes: Sequence[tuple[str, float]], *, fps: int = 10) -> Path:
    """Write a film of flat colours: (colour, seconds) one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = (
        np.full((48, 64, 3), COLOURS[colour], np.uint8)
        for colour, seconds in scenes
        for _ in range(round(seconds * fps))
    )
    return write_images(path, images, fps=fps, options={"preset": "ultrafast"})
