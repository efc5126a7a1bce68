"""The probability that a moment shows what was asked, from its evidence and its score.

    calibration = find_calibration(layout, encoder.fingerprint)
    weights = calibration.weights(localiser.calibration_key, "a red car")
    weights.probabilities(evidence, scores, reading)        # [num_moments] in (0, 1)

The probability is a logistic function of few numbers, none of which depends on the rest of the library: the same
moment has the same probability in every library, behind every filter, and beside every other moment.

Weights are fitted for one encoder and one localiser: for the bundled ones by `training.bundled.belief`, for an index by
`scanonce tune --calibrate`. A short query has weights of its own: a word is true of many moments, and the cosine of a
word is another one than that of a sentence.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.concepts_recipe import CONCEPTS_FOLDER, concepts_fingerprint
from scanonce.models.encoders.hub import BUNDLED_FOLDER, fingerprint_folder
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.files import write_whole
from scanonce.storage.layout import IndexLayout
from scanonce.storage.untrusted import DamagedFile, read_json

BY_FRAMES = "frames"
"""Key of weights for moments that are found by their frames, without a trained localiser."""
SHORT_WORDS = 4
"""A query of this many words or fewer is short."""
FILE_NAME = "calibration.json"

_BUNDLED_FILE = BUNDLED_FOLDER / FILE_NAME
_CONCEPTS_FILE = CONCEPTS_FOLDER / FILE_NAME
_SHORT = "/short"
_SURE = 1e-4  # probabilities stay this far from 0 and 1: nothing is certain
_EDGE = 1e-6  # scores this near 0 or 1 are not told apart


def as_logits(scores: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Undo the sigmoid of the scores of a trained localiser; see `search.localise.Localiser.score_is_sigmoid`."""
    clipped = np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


def as_probabilities(logits: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """The logistic function, from 0.0001 to 0.9999; any shape."""
    shares = 1.0 / (1.0 + np.exp(-np.clip(np.asarray(logits, np.float64), -30.0, 30.0)))
    return np.clip(shares, _SURE, 1 - _SURE)


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a logistic function."""

    bias: float
    evidence: float = 0.0
    """Weight of `search.text_bank.TextBank.evidence`, at least 0."""
    score: float = 0.0
    """Weight of the localiser's score, before a sigmoid if it has one; at least 0."""
    reading: float = 0.0
    """Weight of the share of the query's words that the encoder can read."""

    def probabilities(
        self, evidence: NDArray[np.floating], scores: NDArray[np.floating], reading: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of the moments of one query.

        Args:
            evidence: ``[num_moments]``.
            scores: ``[num_moments]``.
            reading: share of the words that are read, 0 to 1.

        Returns:
            ``[num_moments]`` from 0.0001 to 0.9999, rising with evidence and score.
        """
        level = self.bias + self.reading * reading
        logits = level + self.evidence * np.asarray(evidence, np.float64) + self.score * scores
        return as_probabilities(logits)


UNCALIBRATED = Weights(bias=-5.63, evidence=3.0)
"""For encoders that were never calibrated, by the rank in the bank: the line is at 1.64 standard deviations, which is
the best twentieth of a normal distribution. The slope is that of the bundled encoder's, rounded."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of one encoder, by what finds the moments."""

    by_key: Mapping[str, Weights] = field(default_factory=dict)
    """Weights by `search.localise.Localiser.calibration_key`; with "/short" those for short queries."""
    num_labelled: int = 0
    """Number of labelled queries that they were fitted to; 0 if they were fitted to none."""
    source: str = "none"
    """What they were fitted to, in words."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are fitted weights at all."""
        return bool(self.by_key)

    def weights(self, key: str, query: str) -> Weights | None:
        """Return the weights for moments found in one way; None if that way was never calibrated."""
        if is_short(query) and (short := self.by_key.get(key + _SHORT)) is not None:
            return short
        return self.by_key.get(key)


def is_short(query: str) -> bool:
    """Whether a query is a word or a short phrase."""
    return len(query.split()) <= SHORT_WORDS


def key_for(key: str, *, short: bool) -> str:
    """Return the key of weights for short queries, or for the others."""
    return key + _SHORT if short else key


def find_calibration(layout: IndexLayout, fingerprint: str) -> Calibration:
    """Return the calibration of an index, or that of "bundled" or "concepts", or one without weights.

    Args:
        layout: the index.
        fingerprint: of its encoder.

    Raises:
        IndexDirectoryError: that of the index is damaged.
    """
    if layout.calibration.exists():
        return read_calibration(layout.calibration)
    if _BUNDLED_FILE.exists() and fingerprint == _bundled_fingerprint():
        return read_calibration(_BUNDLED_FILE)
    if _CONCEPTS_FILE.exists() and fingerprint == concepts_fingerprint():
        return read_calibration(_CONCEPTS_FILE)
    return Calibration()


@cache
def _bundled_fingerprint() -> str:
    return fingerprint_folder(BUNDLED_FOLDER)


def read_calibration(path: Path) -> Calibration:
    """Read a file of `write_calibration`.

    Raises:
        IndexDirectoryError: the file is damaged.
    """
    try:
        values = read_json(path)
        by_key = {str(key): Weights(**each) for key, each in values["weights"].items()}
        numbers = [number for each in by_key.values() for number in asdict(each).values()]
        if not all(np.isfinite(np.array(numbers, np.float64))):
            raise ValueError("a weight is no finite number")
        return Calibration(by_key, int(values["num_labelled"]), str(values["source"]))
    except (OSError, DamagedFile, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexDirectoryError(
            f"the calibration {path} cannot be read ({error}). Remove the file, or make it again: "
            "scanonce tune --calibrate"
        ) from error


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration.

    Raises:
        IndexDirectoryError: the file cannot be written.
    """
    weights = {
        key: {name: round(value, 4) for name, value in asdict(each).items()}
        for key, each in calibration.by_key.items()
    }
    values = {
        "source": calibration.source,
        "num_labelled": calibration.num_labelled,
        "weights": weights,
    }
    content = json.dumps(values, indent=1) + "\n"
    write_whole(path, lambda file: file.write(content.encode()))
