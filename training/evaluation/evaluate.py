"""Figures of answers: those of one protocol for all benchmarks, and each benchmark's own.

    annotations = read_annotations(Path("tvr_val_release.jsonl"), "tvr")
    queries = as_queries(annotations)
    answers = read_predictions(Path("predictions.jsonl"), queries)   # or ask_index(...).answers
    evaluation = evaluate("tvr", queries, answers)
    evaluation.figures["all"]["VCMR R@10 tIoU 0.5"]                  # Figure(value=.41, low=.37, high=.45)
    evaluation.own["VCMR"]["all"]["R@10 tIoU 0.5"]                   # 41.0, as TVR prints it

Library task, for every benchmark: VR (the right video), SVMR (the span, in the right video), VCMR (video and span), R@K
at tIoU, NDCG, MRR; `training.evaluation.metrics` defines them. A query without an answer counts as a miss.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from scanonce.training.evaluation.annotations import Query
from scanonce.training.evaluation.answering import Speed
from scanonce.training.evaluation.intervals import Figure
from scanonce.training.evaluation.metrics import (
    BothDirections,
    LibraryFigures,
    LibraryRule,
    QueryOutcome,
    RetrievalFigures,
    library_figures,
    retrieval_figures,
    score_query,
)
from scanonce.training.evaluation.predictions import Answer, windows_record
from scanonce.training.evaluation.qvhighlights import qvhighlights_figures
from scanonce.training.evaluation.rows import jsonl_rows

ALL = "all"
"""Kind of all queries."""

Task: TypeAlias = Literal["VCMR", "SVMR", "VR"]
Percentages: TypeAlias = dict[str, float | None]
"""Figures by name, in percent as in papers; ranks are not. None: the figure does not exist."""


@dataclass(frozen=True, slots=True)
class OwnRule:
    """Counting rule of a benchmark's own figures."""

    source: str
    """Paper or code that defines it."""
    tasks: tuple[Task, ...] = ("SVMR",)
    """SVMR: the video is given."""
    counting: LibraryRule = field(default_factory=LibraryRule)
    mean_tiou: bool = False
    """Whether it also has mIoU, the mean tIoU of first answers."""


OWN_RULES: dict[str, OwnRule] = {
    "mad": OwnRule(
        "SOONet's evaluation, arXiv 2303.08345; MAD's own VLG-Net differs only in the last 1e-9 of tIoU",
        counting=LibraryRule(cutoffs=(1, 5, 10, 50, 100), tious=(0.1, 0.3, 0.5), overlap="hull"),
    ),
    "ego4d": OwnRule(
        "evaluate_ego4d_nlq.py of github.com/EGO4D/episodic-memory: more than the threshold",
        counting=LibraryRule(cutoffs=(1, 5), tious=(0.3, 0.5), strict=True),
        mean_tiou=True,
    ),
    "charades": OwnRule(
        "TALL, arXiv 1705.02101, and its main.py: the threshold is enough",
        counting=LibraryRule(cutoffs=(1, 5), tious=(0.5, 0.7)),
        mean_tiou=True,
    ),
    "activitynet": OwnRule(
        "2D-TAN, arXiv 1912.03590: more than the threshold",
        counting=LibraryRule(cutoffs=(1, 5), tious=(0.3, 0.5, 0.7), strict=True),
        mean_tiou=True,
    ),
    "didemo": OwnRule(
        "TVR's standalone_eval (github.com/jayleicn/TVRetrieval): 2 annotators must agree",
        tasks=("VCMR", "SVMR", "VR"),
        counting=LibraryRule(cutoffs=(1, 5, 10, 100), tious=(0.5, 0.7), agreeing=2),
    ),
    "tvr": OwnRule(
        "standalone_eval of github.com/jayleicn/TVRetrieval, arXiv 2001.09099",
        tasks=("VCMR", "SVMR", "VR"),
        counting=LibraryRule(cutoffs=(1, 5, 10, 100), tious=(0.5, 0.7)),
    ),
}
"""Rules of the benchmarks of moments. Two have other figures: MSR-VTT those of retrieval in both directions
(`training.evaluation.metrics.both_directions`), QVHighlights those of its own evaluator
(`training.evaluation.qvhighlights`).
"""

RETRIEVAL_SOURCE = (
    "retrieval in both directions, ties by the pessimistic rank (CLIP4Clip, arXiv 2104.08860)"
)
QVHIGHLIGHTS_SOURCE = "the evaluator of QVHighlights, arXiv 2107.09609"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of a set of answers."""

    benchmark: str
    num_queries: dict[str, int]
    """Number of evaluated queries by kind, `ALL` first."""
    num_unanswered: int
    """Queries without an answer, among all; they count as misses."""
    figures: dict[str, dict[str, Figure]]
    """Figures in [0, 1] by kind and name, such as "VR R@1" and "VCMR R@10 tIoU 0.5". Figures that the answers do not
    allow are left out."""
    median_ranks: dict[str, dict[str, float | None]]
    """Median rank of the first hit, by kind and name; None if half of the queries or more have none."""
    own: dict[str, dict[str, Percentages]]
    """The benchmark's own figures by task, kind and name; empty if it has none, or the answers do not allow them."""
    own_source: str = ""
    official: dict[str, Any] = field(default_factory=dict)
    """QVHighlights: all figures of its evaluator, with its names."""
    missing: tuple[str, ...] = ()
    """Names of videos that were not found; their queries are not evaluated."""
    num_left_out: int = 0
    """Queries that were not evaluated because their video was not found."""
    retrieval: BothDirections | None = None
    """Retrieval by queries about whole videos, with pooled frames."""
    speed: Speed | None = None


def evaluate(
    benchmark: str,
    queries: Sequence[Query],
    answers: Mapping[str, Answer],
    *,
    num_left_out: int = 0,
    missing: Iterable[str] = (),
    retrieval: BothDirections | None = None,
    speed: Speed | None = None,
    annotation_file: Path | None = None,
) -> Evaluation:
    """Compute the figures of answers.

    Args:
        benchmark: name of the benchmark, for its own figures.
        queries: all queries that count; at least one.
        answers: answers by the id of their query; other ids are ignored.
        num_left_out: see `Evaluation`.
        missing: see `Evaluation`.
        retrieval: see `Evaluation`.
        speed: see `Evaluation`.
        annotation_file: annotations of QVHighlights, whose own figures need the highlights in it.

    Raises:
        ValueError: there are no queries.
    """
    rule = LibraryRule(agreeing=_agreeing(benchmark))
    pairs = [(query, answers.get(query.id, Answer())) for query in queries]
    outcomes = [(query, _outcome(query, answer, rule)) for query, answer in pairs]
    tasks = _Tasks.of(queries, answers)
    kinds = _kinds(queries)
    figures: dict[str, dict[str, Figure]] = {}
    medians: dict[str, dict[str, float | None]] = {}
    for kind in kinds:
        of_kind = [each for each in outcomes if kind == ALL or kind in each[0].kinds]
        figures[kind], medians[kind] = _kind_figures(of_kind, rule, tasks)
    official: dict[str, Any] = {}
    if benchmark == "qvhighlights" and annotation_file is not None:
        official = _qvhighlights(pairs, annotation_file)
        own, source = {"brief": {ALL: official["brief"]}}, QVHIGHLIGHTS_SOURCE
    else:
        own, source = _own_figures(benchmark, pairs, tasks, retrieval)
    return Evaluation(
        benchmark=benchmark,
        num_queries=kinds,
        num_unanswered=sum(not outcome.answered for _, outcome in outcomes),
        figures=figures,
        median_ranks=medians,
        own=own,
        own_source=source,
        official=official,
        missing=tuple(missing),
        num_left_out=num_left_out,
        retrieval=retrieval,
        speed=speed,
    )


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON values; docs/evaluation.md has the schema."""
    content: dict[str, Any] = _finite(asdict(evaluation))
    return content


# ---------------------------------------------------------------- the library task


@dataclass(frozen=True, slots=True)
class _Tasks:
    """Tasks that the answers cover."""

    library: bool
    """Whether there are answers from the whole library."""
    spans: bool
    """Whether some queries are about parts of videos."""

    @classmethod
    def of(cls, queries: Sequence[Query], answers: Mapping[str, Answer]) -> "_Tasks":
        library = any(answer.library is not None for answer in answers.values())
        return cls(library, any(query.has_spans for query in queries))


def _kinds(queries: Sequence[Query]) -> dict[str, int]:
    """Return the number of queries of each kind: all first, then by name."""
    if not queries:
        raise ValueError("an evaluation needs at least one query; got none")
    counts: dict[str, int] = {}
    for query in queries:
        for kind in query.kinds:
            counts[kind] = counts.get(kind, 0) + 1
    return {ALL: len(queries)} | dict(sorted(counts.items()))


def _agreeing(benchmark: str) -> int:
    own = OWN_RULES.get(benchmark)
    return own.counting.agreeing if own else 1


def _outcome(query: Query, answer: Answer, rule: LibraryRule) -> QueryOutcome:
    """Return the outcome of an answer; SVMR by the answers with the video given, if there are any."""
    outcome = score_query(answer.library or (), query.right, rule)
    if answer.in_video is None:
        return outcome
    given = score_query(answer.in_video, query.right, rule)
    return replace(
        outcome,
        answered=outcome.answered or given.answered,
        svmr_ranks=given.svmr_ranks,
        svmr_tiou=given.svmr_tiou,
    )


def _kind_figures(
    outcomes: Sequence[tuple[Query, QueryOutcome]], rule: LibraryRule, tasks: _Tasks
) -> tuple[dict[str, Figure], dict[str, float | None]]:
    figures: dict[str, Figure] = {}
    medians: dict[str, float | None] = {}
    if tasks.library:
        ranks = np.array([outcome.video_rank for _, outcome in outcomes])
        videos = retrieval_figures(ranks, cutoffs=rule.cutoffs)
        figures |= {f"VR R@{cutoff}": figure for cutoff, figure in videos.recall.items()}
        figures["VR MRR"] = videos.reciprocal_rank
        medians["VR"] = videos.median_rank
    about_parts = [outcome for query, outcome in outcomes if query.has_spans]
    if not about_parts:
        return figures, medians
    moments = library_figures(about_parts, rule)
    figures |= _recalls("SVMR", moments.svmr) | {"SVMR mIoU": moments.svmr_mean_tiou}
    if tasks.library:
        figures |= _recalls("VCMR", moments.vcmr) | {"VCMR mIoU": moments.vcmr_mean_tiou}
        figures |= {f"MRR tIoU {tiou:g}": figure for tiou, figure in moments.mrr.items()}
        medians |= {f"VCMR tIoU {tiou:g}": rank for tiou, rank in moments.median_rank.items()}
        if rule.agreeing == 1:  # otherwise the spans are opinions about one moment, not several
            figures |= {
                f"NDCG@{depth} tIoU {tiou:g}": figure
                for tiou, by_depth in moments.ndcg.items()
                for depth, figure in by_depth.items()
            }
    return figures, medians


def _recalls(task: Task, by_tiou: Mapping[float, Mapping[int, Figure]]) -> dict[str, Figure]:
    return {
        f"{task} R@{cutoff} tIoU {tiou:g}": figure
        for tiou, by_cutoff in by_tiou.items()
        for cutoff, figure in by_cutoff.items()
    }


# ---------------------------------------------------------------- a benchmark's own figures


def _own_figures(
    benchmark: str,
    pairs: Sequence[tuple[Query, Answer]],
    tasks: _Tasks,
    retrieval: BothDirections | None,
) -> tuple[dict[str, dict[str, Percentages]], str]:
    if benchmark == "msrvtt" and retrieval is not None:
        directions = {
            "text to video": {ALL: _retrieval_percentages(retrieval.text_to_video)},
            "video to text": {ALL: _retrieval_percentages(retrieval.video_to_text)},
        }
        return directions, f"{RETRIEVAL_SOURCE}; videos by their pooled frames"
    if benchmark == "msrvtt" and tasks.library:
        ranks = [_outcome(query, answer, LibraryRule()).video_rank for query, answer in pairs]
        by_list = _retrieval_percentages(retrieval_figures(np.array(ranks)))
        return {"text to video": {ALL: by_list}}, RETRIEVAL_SOURCE
    if benchmark not in OWN_RULES:
        return {}, ""
    rule = OWN_RULES[benchmark]
    own_tasks = [task for task in rule.tasks if tasks.library or task == "SVMR"]
    outcomes = [(query, _outcome(query, answer, rule.counting)) for query, answer in pairs]
    own: dict[str, dict[str, Percentages]] = {task: {} for task in own_tasks}
    for kind in _kinds([query for query, _ in pairs]):
        of_kind = [outcome for query, outcome in outcomes if kind == ALL or kind in query.kinds]
        counted = library_figures(of_kind, rule.counting)
        for task in own_tasks:
            own[task][kind] = _task_percentages(task, counted, rule)
    return own, rule.source


def _task_percentages(task: Task, counted: LibraryFigures, rule: OwnRule) -> Percentages:
    if task == "VR":
        return {f"R@{cutoff}": 100 * figure.value for cutoff, figure in counted.vr.items()}
    by_tiou = counted.svmr if task == "SVMR" else counted.vcmr
    percentages: Percentages = {
        f"R@{cutoff} tIoU {tiou:g}": 100 * figure.value
        for tiou, by_cutoff in by_tiou.items()
        for cutoff, figure in by_cutoff.items()
    }
    if rule.mean_tiou:
        percentages["mIoU"] = 100 * counted.svmr_mean_tiou.value
    return percentages


def _retrieval_percentages(figures: RetrievalFigures) -> Percentages:
    recalls = {f"R@{cutoff}": 100 * figure.value for cutoff, figure in figures.recall.items()}
    return {**recalls, "MdR": figures.median_rank, "MnR": figures.mean_rank}


def _qvhighlights(pairs: Sequence[tuple[Query, Answer]], annotation_file: Path) -> dict[str, Any]:
    """Return all official figures of the evaluated queries."""
    answers = {query.id: answer for query, answer in pairs}
    annotations = [row for _, row in jsonl_rows(annotation_file) if str(row["qid"]) in answers]
    # if one answer has highlight scores, missing ones of the other answers are zeros
    with_saliency = any(answer.saliency for answer in answers.values())
    records = []
    for row in annotations:
        record = windows_record(row["qid"], answers[str(row["qid"])])
        if not with_saliency:
            del record["pred_saliency_scores"]
        records.append(record)
    return qvhighlights_figures(records, annotations)


def _finite(value: Any) -> Any:
    """Return values for JSON: keys are text, and numbers that are not finite are null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(evaluation: Evaluation) -> str:
    """Return `as_json` as text."""
    return json.dumps(as_json(evaluation), indent=2, ensure_ascii=False) + "\n"
