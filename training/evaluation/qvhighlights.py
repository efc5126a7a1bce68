"""QVHighlights' official figures (arXiv 2107.09609), with the fields that its evaluator prints.

    predictions = [json.loads(line) for line in open("predictions.jsonl")]
    annotations = [json.loads(line) for line in open("highlight_val_release.jsonl")]
    figures = qvhighlights_figures(predictions, annotations)
    figures["brief"]["MR-full-mAP"], figures["long"]["MR-R1"]["0.7"]

Every query is a row of padded arrays, and each step is computed for all queries together.

Particular to this benchmark: only the first ten predicted windows count, *as listed*, and R1 uses the first one listed,
but average precision sorts those ten by score. A query counts in "short", "middle" and "long" with its correct windows
of that length, in each part that it has a window of. Highlight scores come from three annotators: for average precision
each is a ground truth of its own, for Hit1 one of them is enough.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.training.evaluation.metrics import pairwise_tiou

Record: TypeAlias = Mapping[str, Any]
"""A line of a jsonl file of the benchmark."""
Figures: TypeAlias = dict[str, Any]
"""Nested: names to percentages, to two decimals; None for a mean of no queries."""

TIOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds of average precision and recall: .5, .55 to .95; an equal tIoU is a hit."""
LENGTHS = {
    "short": (0.0, 10.0),
    "middle": (10.0, 30.0),
    "long": (30.0, 150.0),
    "full": (-np.inf, np.inf),
}
"""Lengths of correct windows in seconds, exclusive and inclusive, by the name of the part."""
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""Lowest score, from 0 to 4, of a highlight, by the name of the part."""
MOST_WINDOWS = 10
"""Predicted windows of a query that count."""
CLIP_SECONDS = 2
NUM_ANNOTATORS = 3


def qvhighlights_figures(predictions: Sequence[Record], annotations: Sequence[Record]) -> Figures:
    """Return all figures of the official file, with its names and in its order.

    Args:
        predictions: a record per query with ``qid`` and one or both of ``pred_relevant_windows`` ([[start, end, score],
            ...] in seconds) and ``pred_saliency_scores`` (a number per clip of 2 s; missing ones are 0, extra ones are
            cut off). Without either of them the figures have no moments or no highlights.
        annotations: a record per query with ``qid`` and ``relevant_windows`` ([[start, end], ...]); for highlights also
            ``duration`` in seconds, ``relevant_clip_ids``, and for each of these three ``saliency_scores``.

    Returns:
        "brief"; for highlights "HL-min-Fair", "HL-min-Good" and "HL-min-VeryGood" (with "HL-mAP" and "HL-Hit1"); for
        moments "full", "long", "middle" and "short" (with "MR-mAP" by threshold and its "average", "MR-R1" by
        threshold).

    Raises:
        ValueError: the queries of both differ, a query occurs twice, or a record cannot be used.
    """
    right = _by_query(annotations, "annotations")
    found = _by_query(predictions, "predictions")
    _check_same_queries(found, right)
    rows = [found[query] for query in right]  # in the order of the annotations
    truths = list(right.values())
    parts: Figures = {}
    brief: Figures = {}
    if _every_or_none(rows, "pred_relevant_windows"):
        moments = _moment_figures(rows, truths)
        parts |= moments
        brief |= _brief_of_moments(moments)
    if _every_or_none(rows, "pred_saliency_scores"):
        highlights = _highlight_figures(rows, truths)
        parts |= highlights
        brief |= {
            f"{part}-{name.removeprefix('HL-')}": value
            for part, values in highlights.items()
            for name, value in values.items()
        }
    return {"brief": brief, **dict(sorted(parts.items()))}


def _by_query(records: Sequence[Record], what: str) -> dict[Any, Record]:
    rows = {record["qid"]: record for record in records}
    if not rows or len(rows) != len(records):
        raise ValueError(
            f"{what} need at least one query and each qid once; got {len(records)} records of {len(rows)} queries"
        )
    return rows


def _check_same_queries(found: Mapping[Any, Record], right: Mapping[Any, Record]) -> None:
    missing, unknown = right.keys() - found.keys(), found.keys() - right.keys()
    if missing or unknown:
        raise ValueError(
            f"{len(missing)} annotated queries have no prediction record {sorted(missing)[:5]}, {len(unknown)} "
            f"predicted ones are not annotated {sorted(unknown)[:5]}; give a record of every query, with an empty list "
            "of windows if nothing was found"
        )


def _every_or_none(rows: Sequence[Record], name: str) -> bool:
    having = sum(name in row for row in rows)
    if 0 < having < len(rows):
        raise ValueError(f"{having} of {len(rows)} prediction records have {name!r}; all or none")
    return having > 0


def _percent(values: NDArray[np.float64]) -> float | None:
    return round(100 * float(values.mean()), 2) if values.size else None


# ---------------------------------------------------------------- moments


def _moment_figures(rows: Sequence[Record], truths: Sequence[Record]) -> Figures:
    listed = _padded([row["pred_relevant_windows"][:MOST_WINDOWS] for row in rows], 3, rows)
    right = _padded([truth["relevant_windows"] for truth in truths], 2, truths)
    lengths = right[..., 1] - right[..., 0]  # [Q, G]; NaN if there is no window
    tious = pairwise_tiou(listed[..., :2], right)  # [Q, P, G]; 0 if either is NaN
    scores = np.where(np.isnan(listed[..., 2]), -np.inf, listed[..., 2])
    by_score = np.argsort(-scores, axis=1, kind="stable")
    figures: Figures = {}
    for part, (more_than, up_to) in LENGTHS.items():
        counts = (lengths > more_than) & (lengths <= up_to)  # [Q, G]
        asked = counts.any(axis=1)
        of_part = np.where(counts[:, None], tious, -1.0)[asked]
        in_order = np.take_along_axis(of_part, by_score[asked, :, None], axis=1)
        precisions = _average_precisions(in_order, counts[asked].sum(axis=1))
        first = of_part[:, 0].max(axis=1, initial=-1.0)
        figures[part] = {
            "MR-mAP": _by_tiou(precisions) | {"average": _percent(precisions)},
            "MR-R1": _by_tiou(first[:, None] >= np.array(TIOUS)),
        }
    return figures


def _by_tiou(values: NDArray[Any]) -> Figures:
    """Means of the columns of [Q, T], in percent."""
    return {
        str(tiou): _percent(column.astype(np.float64))
        for tiou, column in zip(TIOUS, values.T, strict=True)
    }


def _average_precisions(
    tious: NDArray[np.float64], num_right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the interpolated average precision of each query at each of `TIOUS`, as in VOC and ActivityNet.

    Predictions are assigned one after the other to the correct window with the highest tIoU that is still free, if it
    reaches the threshold; of equal ones to the one listed last.

    Args:
        tious: [Q, P, G], predictions best first; -1 if there is no correct window, 0 or -1 if no prediction.
        num_right: [Q], correct windows of each query, 1 or more.

    Returns:
        [Q, T].
    """
    thresholds = np.array(TIOUS)
    num_queries, num_predictions, num_windows = tious.shape
    left = np.ones((num_queries, len(TIOUS), num_windows), np.bool_)
    hits = np.zeros((num_queries, len(TIOUS), num_predictions))
    for rank in range(num_predictions):
        free = np.where(left, tious[:, None, rank], -1.0)[..., ::-1]  # [Q, T, G], last one first
        best = num_windows - 1 - free.argmax(axis=2)
        hit = free.max(axis=2) >= thresholds
        hits[:, :, rank] = hit
        left &= ~(hit[..., None] & (np.arange(num_windows) == best[..., None]))
    # a missing prediction counts as a wrong one after all others, which changes nothing
    precisions = hits.cumsum(axis=2) / np.arange(1, num_predictions + 1)
    envelope = np.maximum.accumulate(precisions[..., ::-1], axis=2)[..., ::-1]
    return np.asarray((hits * envelope).sum(axis=2) / num_right[:, None])


def _padded(windows: Sequence[Sequence[Any]], width: int, rows: Sequence[Record]) -> NDArray[Any]:
    """Pad lists of windows to [Q, N, width] with NaN, N at least 1."""
    padded = np.full((len(windows), max(1, *map(len, windows)), width), np.nan)
    for row, (record, values) in enumerate(zip(rows, windows, strict=True)):
        if not len(values):
            continue
        try:
            block = np.array(values, np.float64)
        except (TypeError, ValueError):
            block = np.empty(0)
        if block.shape != (len(values), width) or not np.isfinite(block).all():
            raise ValueError(
                f"query {record['qid']}: windows need {width} finite numbers each; got {list(values)[:3]}"
            )
        padded[row, : len(values)] = block
    return padded


def _brief_of_moments(moments: Figures) -> Figures:
    full = moments["full"]
    brief = {f"MR-full-R1@{tiou}": full["MR-R1"][tiou] for tiou in ("0.5", "0.7")}
    brief["MR-full-mAP"] = full["MR-mAP"]["average"]
    brief |= {f"MR-full-mAP@{tiou}": full["MR-mAP"][tiou] for tiou in ("0.5", "0.75")}
    return brief | {
        f"MR-{part}-mAP": moments[part]["MR-mAP"]["average"] for part in ("long", "middle", "short")
    }


# ---------------------------------------------------------------- highlights


def _highlight_figures(rows: Sequence[Record], truths: Sequence[Record]) -> Figures:
    given = [_clip_scores(truth) for truth in truths]
    num_clips = np.array([len(scores) for scores in given])
    most = int(num_clips.max())
    right = np.full((len(given), most, NUM_ANNOTATORS), -1.0)  # below every level after the end
    predicted = np.full((len(given), most), -np.inf)
    tops = np.zeros(len(given), np.int64)
    for row, (scores, record) in enumerate(zip(given, rows, strict=True)):
        right[row, : len(scores)] = scores
        values = _predicted_scores(record)
        tops[row] = values.argmax()  # before the cut: a top after the end is a miss
        predicted[row, : len(scores)] = 0.0
        shown = values[: len(scores)]
        predicted[row, : len(shown)] = shown
    figures: Figures = {}
    inside = tops < num_clips
    every = np.arange(len(given))
    for name, level in LEVELS.items():
        positive = right >= level  # [Q, C, 3]
        hits = positive[every, np.minimum(tops, most - 1)].any(axis=1) & inside
        figures[f"HL-min-{name}"] = {
            "HL-mAP": _percent(_stepwise_precisions(predicted, positive)),
            "HL-Hit1": _percent(hits.astype(np.float64)),
        }
    return figures


def _clip_scores(truth: Record) -> NDArray[np.float64]:
    """[C, 3]: each annotator's score of every clip, 0 for clips that are not relevant."""
    num_clips = int(truth["duration"] / CLIP_SECONDS)
    clips = np.array(truth["relevant_clip_ids"], np.int64)
    given = np.array(truth["saliency_scores"], np.float64).reshape(-1, NUM_ANNOTATORS)
    if len(clips) != len(given) or (clips.size and not 0 <= clips.min() <= clips.max() < num_clips):
        raise ValueError(
            f"query {truth['qid']}: {len(given)} scores for {len(clips)} relevant clips of {num_clips}; "
            f"each clip from 0 to {num_clips - 1} needs {NUM_ANNOTATORS} scores"
        )
    scores = np.zeros((num_clips, NUM_ANNOTATORS))
    scores[clips] = given
    return scores


def _predicted_scores(record: Record) -> NDArray[np.float64]:
    values = np.array(record["pred_saliency_scores"], np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"query {record['qid']}: pred_saliency_scores needs a finite number for each clip"
        )
    return values


def _stepwise_precisions(
    scores: NDArray[np.float64], positive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the average precision of each query and annotator: interpolated precision averaged over steps of recall.

    Clips with equal scores are one step, which counts once for any number of positives, as in the benchmark. 0 if
    nothing is positive.

    Args:
        scores: [Q, C]; -inf if a video has no such clip.
        positive: [Q, C, A]; False for such clips.

    Returns:
        [Q, A].
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    in_order = np.take_along_axis(scores, order, axis=1)
    found = np.take_along_axis(positive, order[..., None], axis=1).cumsum(axis=1)  # [Q, C, A]
    precisions = found / np.arange(1, scores.shape[1] + 1)[:, None]
    ends = np.ones(in_order.shape, np.bool_)  # last clip of those with equal scores
    ends[:, :-1] = in_order[:, :-1] != in_order[:, 1:]
    at_ends = np.where(ends[..., None], precisions, 0.0)
    envelope = np.maximum.accumulate(at_ends[:, ::-1], axis=1)[:, ::-1]
    # count at the previous end: the highest count at an earlier end
    counts = np.where(ends[..., None], found, 0)
    before = np.zeros_like(counts)
    before[:, 1:] = np.maximum.accumulate(counts, axis=1)[:, :-1]
    steps = ends[..., None] & (found > before)
    total = np.where(steps, envelope, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(steps.sum(axis=1), 1))
