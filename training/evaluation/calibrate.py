"""Fitting of a calibration: logistic regression on labelled moments, or on an index's own clips without labels.

    weights = fit_weights(labelled, features=("evidence", "reading"))
    calibration = Calibration({BY_FRAMES: weights}, len(labelled), "240 labelled sentences")

Queries about what is there are taken to be three of four (`PRESENT_SHARE`): people mostly search for what they have
filmed. The odds of a probability depend on that share, and on nothing else of the sample.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.search.calibration import UNCALIBRATED, Weights

PRESENT_SHARE = 0.75
"""Assumed share of queries about what the library shows."""

Feature = Literal["evidence", "score", "reading"]
_RIDGE = 1e-3
_STEPS = 50


@dataclass(frozen=True, slots=True)
class Labelled:
    """A judged moment with the truth."""

    evidence: float
    score: float
    """Of the localiser, before a sigmoid if it has one."""
    reading: float
    is_right: bool
    is_present: bool
    """Whether the library shows anywhere what was asked."""


def fit_weights(
    labelled: Sequence[Labelled], features: Collection[Feature], share: float = PRESENT_SHARE
) -> Weights:
    """Fit a logistic function of some features; no weight of evidence or score is negative.

    Args:
        labelled: moments of queries, some right and some wrong.
        features: the features to use; one whose weight would be negative is left out.
        share: share that queries about what is there shall have, in (0, 1); nan leaves the sample as it is.

    Raises:
        ValueError: all moments are right, or all are wrong.
    """
    right = np.array([each.is_right for each in labelled], np.float64)
    if not 0 < right.sum() < len(right):
        raise ValueError("a calibration needs right and wrong moments")
    importance = _importance(np.array([each.is_present for each in labelled]), share)
    used = list(dict.fromkeys(features))
    while True:
        table = np.array([[getattr(each, name) for name in used] for each in labelled], np.float64)
        bias, slopes = logistic_regression(table.reshape(len(right), -1), right, importance)
        by_name = dict(zip(used, slopes.tolist(), strict=True))
        negative = [name for name in used if name != "reading" and by_name[name] < 0]
        if not negative:
            return Weights(bias=bias, **by_name)
        used.remove(min(negative, key=lambda name: by_name[name]))


def _importance(is_present: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    measured = float(is_present.mean())
    if not 0 < measured < 1 or np.isnan(share):
        return np.ones(len(is_present))
    weights: NDArray[np.float64] = np.where(
        is_present, share / measured, (1 - share) / (1 - measured)
    )
    return weights


def logistic_regression(
    table: NDArray[np.float64], right: NDArray[np.float64], importance: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Fit P(right) = 1 / (1 + exp(-(bias + table @ slopes))) by Newton's method, with a slight ridge on the slopes.

    Args:
        table: [N, F] features.
        right: [N], 1 or 0, or a probability.
        importance: [N], weights of the rows.

    Returns:
        The bias and the slopes, [F].
    """
    mean, spread = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
    scaled = np.column_stack([np.ones(len(table)), (table - mean) / spread])
    ridge = _RIDGE * len(table) * np.eye(scaled.shape[1])
    ridge[0, 0] = 0.0
    weights = np.zeros(scaled.shape[1])
    for _ in range(_STEPS):
        shares = 1 / (1 + np.exp(-np.clip(scaled @ weights, -30, 30)))
        gradient = scaled.T @ (importance * (right - shares)) - ridge @ weights
        steepness = importance * shares * (1 - shares)
        step = np.linalg.solve(
            (scaled * steepness[:, None]).T @ scaled + ridge + 1e-9 * np.eye(len(ridge)), gradient
        )
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    slopes = weights[1:] / spread
    return float(weights[0] - slopes @ mean), slopes


def fit_unlabelled(chance: Sequence[float], wanted: float = 0.95) -> Weights:
    """Set the line of an encoder without labels: above what texts reach that no image can show.

    Args:
        chance: evidence of the best moment of such texts in the library.
        wanted: share of them that must stay below the line.

    Returns:
        The slope of `UNCALIBRATED`, with even odds where ``wanted`` of the texts stay below.

    Raises:
        ValueError: there are no texts.
    """
    if not len(chance):
        raise ValueError("no texts were judged")
    middle = float(np.quantile(np.array(chance, np.float64), wanted))
    return Weights(bias=-UNCALIBRATED.evidence * middle, evidence=UNCALIBRATED.evidence)
