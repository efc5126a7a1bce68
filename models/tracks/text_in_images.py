"""Text in images: RapidOCR, which runs PP-OCR (Du et al., 2020, arXiv 2009.09941) on ONNX Runtime.

    reader = load_image_reader()
    for found in reader.read(image):            # [height, width, 3] RGB
        found.text, found.left, found.top       # from top to bottom

Its weights come in its wheel. The time goes with the number of texts: about 0.1 s each on two cores.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.runtime import num_cores
from scanonce.storage.errors import TrackError

_LONGEST_SIDE = 960  # pixels at which text is looked for; it is read at full size
_LEAST_CONFIDENCE = 0.6


@dataclass(frozen=True, slots=True)
class ReadText:
    """A row of text in an image and its box, in pixels."""

    text: str
    confidence: float
    """0 to 1."""
    left: float
    top: float
    right: float
    bottom: float


class ImageReader(Protocol):
    """Reads the text in images."""

    @property
    def name(self) -> str:
        """Name of the model, which is stored with its lines."""

    def read(self, image: NDArray[np.uint8]) -> list[ReadText]:
        """Return the texts in an image, ``[height, width, 3]`` RGB, from top to bottom and left to right."""


class RapidReader:
    """An engine of RapidOCR."""

    name = "rapidocr"

    def __init__(self, engine: Any) -> None:
        """Take a ``rapidocr.RapidOCR``."""
        self._engine = engine

    def read(self, image: NDArray[np.uint8]) -> list[ReadText]:
        """See `ImageReader.read`."""
        found = self._engine(np.ascontiguousarray(image[:, :, ::-1]))  # BGR
        texts = [
            ReadText(
                " ".join(text.split()),
                float(score),
                *(float(edge) for edge in (*box.min(axis=0), *box.max(axis=0))),
            )
            for text, score, box in zip(
                found.txts or (), found.scores or (), _boxes(found), strict=True
            )
            if score >= _LEAST_CONFIDENCE
        ]
        return sorted(texts, key=lambda each: (each.top, each.left))


def _boxes(found: Any) -> list[NDArray[np.float32]]:
    return [] if found.boxes is None else [np.asarray(each, np.float32) for each in found.boxes]


def load_image_reader() -> ImageReader:
    """Load the reader.

    Raises:
        TrackError: RapidOCR or ONNX Runtime is not installed, or cannot be loaded.
    """
    try:
        from rapidocr import RapidOCR

        engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,  # turned by 180 degrees is no text of a video
                "Det.limit_type": "max",
                "Det.limit_side_len": _LONGEST_SIDE,
                "EngineConfig.onnxruntime.intra_op_num_threads": num_cores(),
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
    except ImportError as error:
        raise TrackError(
            "text in images is read by rapidocr and onnxruntime, which are not installed: "
            'pip install "scanonce[ocr]"'
        ) from error
    except Exception as error:  # its weights or its configuration are damaged
        raise TrackError(f"rapidocr cannot be loaded ({error}): install it again") from error
    return RapidReader(engine)
