"""Constants and files of the encoder "concepts", and its fingerprint; importing this takes no time.

concepts_fingerprint()          # 64 hex digits, known without the packages that hold the weights
"""

import hashlib
from functools import cache
from pathlib import Path

from scanonce.models.offline_weights import IMAGENET, SENTENCES

CONCEPTS_FOLDER = Path(__file__).parents[1] / "bundled" / "concepts"
CLASSES_FILE = CONCEPTS_FOLDER / "classes.txt"
"""The 1,000 classes in our words, in the order of the classifier: "goldfish: a small orange fish in an aquarium"."""
VECTORS_FILE = CONCEPTS_FOLDER / "vectors.safetensors"
"""Made by `python -m scanonce.training.bundled.concepts`."""
CLASS_VECTORS, TEXT_MEAN = "classes", "text_mean"
"""Its tensors: ``[1000, 384]`` of length 1, and ``[384]``, the mean of everyday texts."""

SIZE = 260
"""Height and width of the classifier's input in pixels: the middle square of a frame."""
TOP_CLASSES = 20
"""Number of classes that a frame is made of. `python -m benchmarks.concepts --choose` compares it and the next."""
TEMPERATURE = 1.3
"""Divides the logits: above 1, the second and third class of a frame count for more."""


def class_texts() -> tuple[str, ...]:
    """Return the lines of `CLASSES_FILE`."""
    return tuple(CLASSES_FILE.read_text(encoding="utf-8").splitlines())


@cache
def concepts_fingerprint() -> str:
    """Digest of all that decides the vectors: the class vectors, the constants, and the digests of the weights."""
    digest = hashlib.sha256(VECTORS_FILE.read_bytes())
    for part in (IMAGENET.sha256, SENTENCES.sha256, SIZE, TOP_CLASSES, TEMPERATURE):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()
