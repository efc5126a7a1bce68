"""QVHighlights' official figures (arXiv 2107.09609), field by field as its evaluator prints them.

    predictions = [json.loads(line) for line in open("predictions.jsonl")]
    annotations = [json.loads(line) for line in open("highlight_val_release.jsonl")]
    figures = qvhighlights_figures(predictions, annotations)
    figures["brief"]["MR-full-mAP"], figures["long"]["MR-R1"]["0.7"]

Every query is a row of padded arrays, and all queries take each step together.

What is particular to this benchmark: only the first ten predicted windows count, *as listed*, and R1 takes the first
listed, but average precision sorts those ten by score. A query counts in "short", "middle" and "long" with its right
windows of that length, in each where it has one. Highlight scores come from three annotators: each is a truth of its
own for average precision, while Hit1 asks for one of them.
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
"""Thresholds of average precision and recall: .5, .55 to .95; just as much is enough."""
LENGTHS = {
    "short": (0.0, 10.0),
    "middle": (10.0, 30.0),
    "long": (30.0, 150.0),
    "full": (-np.inf, np.inf),
}
"""Seconds of right windows, more than the first and up to the last, by the name of the part."""
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""Least score, of 0 to 4, of a clip that is a highlight, by the name of the part."""
MOST_WINDOWS = 10
"""Predicted windows that count, of each query."""
CLIP_SECONDS = 2
NUM_ANNOTATORS = 3


def qvhighlights_figures(predictions: Sequence[Record], annotations: Sequence[Record]) -> Figures:
    """All figures of the official file, with its names and in its order.

    Args:
        predictions: of every query a record with ``qid`` and one of these, or both: ``pred_relevant_windows`` ([[start,
            end, score], ...] in seconds) and ``pred_saliency_scores`` (a number for each clip of 2 s; what lacks is 0,
            what is too much is cut off). What no record has is left out of the figures.
        annotations: of every query ``qid`` and ``relevant_windows`` ([[start, end], ...]); for highlights also
            ``duration`` in seconds, ``relevant_clip_ids`` and of each of those three ``saliency_scores``.

    Returns:
        "brief", and of highlights "HL-min-Fair", "HL-min-Good" and "HL-min-VeryGood" (with "HL-mAP" and "HL-Hit1"), of
        moments "full", "long", "middle" and "short" (with "MR-mAP" by threshold and its "average", "MR-R1" by
        threshold).

    Raises:
        ValueError: the queries of both are not the same, one comes twice, or a record cannot be used.
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
    missing, strange = right.keys() - found.keys(), found.keys() - right.keys()
    if missing or strange:
        raise ValueError(
            f"{len(missing)} annotated queries have no prediction record {sorted(missing)[:5]}, {len(strange)} "
            f"predicted ones are not annotated {sorted(strange)[:5]}; give a record of every query, an empty list of "
            "windows where nothing was found"
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
    lengths = right[..., 1] - right[..., 0]  # [Q, G]; NaN where there is no window
    tious = pairwise_tiou(listed[..., :2], right)  # [Q, P, G]; 0 where either is NaN
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
    """Interpolated average precision of each query at each of `TIOUS`, as VOC and ActivityNet have it.

    One prediction after the other takes the right window with the highest tIoU among those that no better prediction
    took, if it reaches the threshold; of equal ones the one listed last.

    Args:
        tious: [Q, P, G], predictions best first; -1 where there is no right window, 0 or -1 where no prediction.
        num_right: [Q], right windows of each query, 1 or more.

    Returns:
        [Q, T].
    """
    thresholds = np.array(TIOUS)
    num_queries, num_places, num_windows = tious.shape
    left = np.ones((num_queries, len(TIOUS), num_windows), np.bool_)
    hits = np.zeros((num_queries, len(TIOUS), num_places))
    for place in range(num_places):
        free = np.where(left, tious[:, None, place], -1.0)[..., ::-1]  # [Q, T, G], last one first
        best = num_windows - 1 - free.argmax(axis=2)
        hit = free.max(axis=2) >= thresholds
        hits[:, :, place] = hit
        left &= ~(hit[..., None] & (np.arange(num_windows) == best[..., None]))
    # a prediction that is not there counts as a wrong one behind all others, which changes nothing
    precisions = hits.cumsum(axis=2) / np.arange(1, num_places + 1)
    envelope = np.maximum.accumulate(precisions[..., ::-1], axis=2)[..., ::-1]
    return np.asarray((hits * envelope).sum(axis=2) / num_right[:, None])


def _padded(windows: Sequence[Sequence[Any]], width: int, rows: Sequence[Record]) -> NDArray[Any]:
    """[Q, N, width] of lists of windows of different lengths; NaN behind the end of each, N at least 1."""
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
    right = np.full((len(given), most, NUM_ANNOTATORS), -1.0)  # below every level behind the end
    predicted = np.full((len(given), most), -np.inf)
    tops = np.zeros(len(given), np.int64)
    for row, (scores, record) in enumerate(zip(given, rows, strict=True)):
        right[row, : len(scores)] = scores
        values = _predicted_scores(record)
        tops[row] = values.argmax()  # before it is cut: a top behind the end is a miss
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
    """[C, 3]: each annotator's score of every clip, 0 where it is not among the relevant ones."""
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
    """Average precision of each query and annotator: the mean of interpolated precision over the steps of recall.

    Clips with one score are one step, and count once however many positives they bring: that is the benchmark's own
    way. 0 where nothing is positive.

    Args:
        scores: [Q, C]; -inf where a video has no such clip.
        positive: [Q, C, A]; False there.

    Returns:
        [Q, A].
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    in_order = np.take_along_axis(scores, order, axis=1)
    found = np.take_along_axis(positive, order[..., None], axis=1).cumsum(axis=1)  # [Q, C, A]
    precisions = found / np.arange(1, scores.shape[1] + 1)[:, None]
    ends = np.ones(in_order.shape, np.bool_)  # last clip of those with one score
    ends[:, :-1] = in_order[:, :-1] != in_order[:, 1:]
    at_ends = np.where(ends[..., None], precisions, 0.0)
    envelope = np.maximum.accumulate(at_ends[:, ::-1], axis=1)[:, ::-1]
    # what had been found at the end before: the highest count at an end further up
    counts = np.where(ends[..., None], found, 0)
    before = np.zeros_like(counts)
    before[:, 1:] = np.maximum.accumulate(counts, axis=1)[:, :-1]
    steps = ends[..., None] & (found > before)
    total = np.where(steps, envelope, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(steps.sum(axis=1), 1))
