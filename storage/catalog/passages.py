"""Passages: a few lines in a row, each with the vector of its meaning, in one value of the catalogue.

>>> some = Passages(np.array([[0.6, 0.8]], np.float32), np.array([2]))
>>> Passages.from_bytes(some.to_bytes()).num_lines
array([2])

A vector takes a byte per dimension, so an hour of talk takes some 150 kB.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from scanonce.storage.untrusted import DamagedFile

MAX_LINES = 255
"""Lines of one passage."""

_STEPS = 127


@dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """The passages of a track: together all of its lines, in order."""

    vectors: NDArray[np.float32]
    """``[num_passages, dim]`` of length 1; rounded to 127 steps when they are stored."""
    num_lines: NDArray[np.integer]
    """``[num_passages]`` lines of each, 1 to `MAX_LINES`."""

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        # the largest number of each vector takes all 127 steps; the length comes back when it is read
        largest = np.maximum(np.abs(self.vectors).max(axis=1, keepdims=True), 1e-12)
        steps = np.rint(self.vectors / largest * _STEPS).astype(np.int8)
        content: bytes = save({"vectors": steps, "num_lines": self.num_lines.astype(np.uint8)})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read the stored form.

        Raises:
            DamagedFile: it is something else.
        """
        try:
            arrays = load(content)
            steps, num_lines = arrays["vectors"], arrays["num_lines"]
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DamagedFile(f"it has vectors of lines that cannot be read ({error})") from error
        if steps.ndim != 2 or steps.dtype != np.int8 or num_lines.dtype != np.uint8:
            raise DamagedFile(f"it has vectors of lines of the form {steps.shape} {steps.dtype}")
        if num_lines.shape != steps.shape[:1] or not num_lines.all() or not steps.shape[1]:
            raise DamagedFile("it has vectors of lines that belong to no lines")
        rows = steps.astype(np.float32)
        lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        return cls(rows / lengths, num_lines.astype(np.int64))
