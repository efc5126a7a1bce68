"""A world simple enough to have exact answers: films of flat colours, and an encoder that sees only colour."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import TextFeatures

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "white": (235, 235, 235),
    "black": (20, 20, 20),
}


class ColourEncoder:
    """Embeds a picture as its mean colour, a sentence as the colour it names; others as a vector of their own."""

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

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        joint = self.encode_texts(texts)
        return TextFeatures(joint, joint)


def write_film(path: Path, scenes: Sequence[tuple[str, float]], *, fps: int = 10) -> Path:
    """A film of flat colours: (colour, seconds) one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour, seconds in scenes:
            picture = np.full((48, 64, 3), COLOURS[colour], np.uint8)
            for _ in range(round(seconds * fps)):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path
