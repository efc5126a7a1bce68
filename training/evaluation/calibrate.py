"""Fitting of a calibration: logistic regression on labelled moments, or on an index's own clips without labels.

    weights = fit_weights(labelled, "evidence", "reading")
    calibration = Calibration({BY_FRAMES: weights}, len(labelled), "240 labelled sentences")

Three of four queries are taken to have an answer in the library (`PRESENT_SHARE`): people mostly search for what they
have filmed. The odds of a probability depend on that share, and on nothing else of the sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.search.bank import abstract_texts
from scanonce.search.calibration import (
    BY_FRAMES,
    UNCALIBRATED,
    Calibration,
    Weights,
    as_logits,
)
from scanonce.search.engine import SearchEngine
from scanonce.search.grades import GOOD
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Moment
from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.answering import find_videos
from scanonce.training.evaluation.belief import MIN_INSIDE, share_inside

PRESENT_SHARE = 0.75
"""Assumed share of queries that the library answers."""

Feature = Literal["evidence", "score", "reading"]
FITTED_MOMENTS = 1
"""Moments of each query that a calibration is fitted on. A labelled sentence mostly names one of its right moments, so
the others of an answer would teach that only one moment can be right."""
_BATCH = 64  # queries that are searched together
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
    """Whether the library answers the query anywhere."""


def fit_weights(
    labelled: Sequence[Labelled], *features: Feature, share: float = PRESENT_SHARE
) -> Weights:
    """Fit a logistic function of some features; no weight of evidence or score is negative.

    Args:
        labelled: moments of queries, some right and some wrong.
        features: the features to use; one whose weight would be negative is left out.
        share: share that queries with an answer shall have, in (0, 1); nan leaves the sample as it is.

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
        The slope of `UNCALIBRATED`, with `GOOD` where ``wanted`` of the texts stay below.

    Raises:
        ValueError: there are no texts.
    """
    if not len(chance):
        raise ValueError("no texts were judged")
    middle = float(np.quantile(np.array(chance, np.float64), wanted))
    bias = float(as_logits(GOOD)) - UNCALIBRATED.evidence * middle
    return Weights(bias=bias, evidence=UNCALIBRATED.evidence)


# ---------------------------------------------------------------- of an index


def fit_index(engine: SearchEngine, queries: Sequence[Query] = ()) -> Calibration:
    """Fit the calibration of an open index, for its own localiser and for frames alone.

    Args:
        engine: a search engine of the index.
        queries: labelled sentences; texts that no image can show are added to them as wrong ones. Without queries,
            only those texts are asked.

    Raises:
        ConfigError: none of the queries is about a video of the index, or none has a right moment among the first.
    """
    chance = [
        max(moment.evidence for moment in result.moments)
        for result in engine.search_many(abstract_texts())
        if result.moments
    ]
    if not queries:
        if not chance:
            raise ConfigError(
                "the index is empty: add videos with `scanonce index`, then calibrate"
            )
        return Calibration({BY_FRAMES: fit_unlabelled(chance)}, 0, "texts that no image can show")
    videos, missing = find_videos(engine, queries)
    asked = [query for query in queries if not query.videos.isdisjoint(videos)]
    if not asked:
        raise ConfigError(
            f"none of the labelled sentences is about a video of the index; the first video named is {missing[0]}"
        )
    ids = {name: video.video_id for name, video in videos.items()}
    chance_texts = abstract_texts()

    def is_right(number: int, moment: Moment) -> bool:
        return number < len(asked) and _is_right(asked[number], moment, ids)

    labelled = [
        row
        for rows in label_moments(
            engine,
            [*(query.text for query in asked), *chance_texts],
            [True] * len(asked) + [False] * len(chance_texts),
            is_right,
        )
        for row in rows
    ]
    features: tuple[Feature, ...] = ("evidence",)
    if engine.localiser.calibration_key != BY_FRAMES:
        features = ("evidence", "score")
    try:
        weights = fit_weights(labelled, *features)
    except ValueError as error:
        raise ConfigError(
            f"no moment of {len(asked)} labelled sentences is right, or all are: label more of them for this index"
        ) from error
    by_key = {engine.localiser.calibration_key: weights}
    if BY_FRAMES not in by_key:
        by_key[BY_FRAMES] = fit_weights(labelled, "evidence")
    return Calibration(by_key, len(asked), "labelled sentences")


def label_moments(
    engine: SearchEngine,
    texts: Sequence[str],
    is_present: Sequence[bool],
    is_right: Callable[[int, Moment], bool],
) -> Iterator[list[Labelled]]:
    """Yield the first moments of each query with the truth.

    Args:
        engine: a search engine.
        texts: the queries.
        is_present: whether the library shows what each asks for.
        is_right: says of the number of a query and one of its moments whether the moment shows it.
    """
    is_sigmoid = engine.localiser.score_is_sigmoid
    for start in range(0, len(texts), _BATCH):
        results = engine.search_many(texts[start:][:_BATCH])
        for number, result in enumerate(results, start=start):
            reading = engine.read(result.query).share
            yield [
                Labelled(
                    moment.evidence,
                    float(as_logits(moment.score)) if is_sigmoid else moment.score,
                    reading,
                    is_right(number, moment),
                    is_present[number],
                )
                for moment in result.moments[:FITTED_MOMENTS]
            ]


def _is_right(query: Query, moment: Moment, ids: Mapping[str, int]) -> bool:
    """Whether at least half of a moment lies in a right answer."""
    answers = [each for each in query.right if ids.get(each.video) == moment.video_id]
    spans = [each.span for each in answers]
    if any(not span.duration_seconds for span in spans):  # the query is about the whole video
        return True
    return share_inside(moment.span, spans) >= MIN_INSIDE
