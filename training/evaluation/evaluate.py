"""Answers become figures: a benchmark's own, and one protocol for all beside them.

    annotations = read_annotations(Path("tvr_val_release.jsonl"), "tvr")
    queries = as_queries(annotations)
    answers = read_predictions(Path("predictions.jsonl"), queries)   # or ask_index(...).answers
    evaluation = evaluate("tvr", queries, answers)
    evaluation.figures["all"]["VCMR R@10 tIoU 0.5"]                  # Figure(value=.41, low=.37, high=.45)
    evaluation.own["VCMR"]["all"]["R@10 tIoU 0.5"]                   # 41.0, as TVR prints it

Library task, for every benchmark: VR (the right video), SVMR (the span, in the right video), VCMR (video and span), R@K
at tIoU, NDCG, MRR; `training.evaluation.metrics` says how each is counted. A query without an answer counts as a miss.
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
"""Name of the kind that every query is of."""

Task: TypeAlias = Literal["VCMR", "SVMR", "VR"]
Percentages: TypeAlias = dict[str, float | None]
"""Figures by name, in percent as papers print them; ranks as they are. None: there is no such number."""


@dataclass(frozen=True, slots=True)
class OwnRule:
    """How a benchmark itself counts."""

    source: str
    """Where that is laid down."""
    tasks: tuple[Task, ...] = ("SVMR",)
    """SVMR: the video is given."""
    counting: LibraryRule = field(default_factory=LibraryRule)
    mean_tiou: bool = False
    """It also prints mIoU, the mean tIoU of first answers."""


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
"""Of the benchmarks of moments. Two have figures of another kind: MSR-VTT's are those of retrieval in both directions
(`training.evaluation.metrics.both_directions`), QVHighlights' those of its own evaluator
(`training.evaluation.qvhighlights`).
"""

RETRIEVAL_SOURCE = (
    "retrieval in both directions, ties by the pessimistic rank (CLIP4Clip, arXiv 2104.08860)"
)
QVHIGHLIGHTS_SOURCE = "the evaluator of QVHighlights, arXiv 2107.09609"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that is said of some answers."""

    benchmark: str
    num_queries: dict[str, int]
    """By kind, `ALL` first: so many were evaluated."""
    num_unanswered: int
    """Of all: they count as misses."""
    figures: dict[str, dict[str, Figure]]
    """By kind and name, such as "VR R@1" and "VCMR R@10 tIoU 0.5"; in [0, 1]. Names that the answers say nothing of
    are not there."""
    median_ranks: dict[str, dict[str, float | None]]
    """Of the first hit, by kind and name; None where half of the queries or more have none."""
    own: dict[str, dict[str, Percentages]]
    """The benchmark's own figures by task, kind and name; empty where it has none, or they cannot be told."""
    own_source: str = ""
    official: dict[str, Any] = field(default_factory=dict)
    """QVHighlights: all figures of its evaluator, with its names."""
    missing: tuple[str, ...] = ()
    """Names of videos that were not there; their queries are not evaluated."""
    num_left_out: int = 0
    """Queries that were not evaluated because their video was not there."""
    retrieval: BothDirections | None = None
    """Of sentences about whole videos by their pooled frames."""
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
    """The figures of some answers.

    Args:
        benchmark: decides about its own figures.
        queries: all that count; at least one.
        answers: by id of the query; ids of no query are left alone.
        num_left_out, missing, retrieval, speed: handed on.
        annotation_file: of QVHighlights, whose own figures need what it says of highlights.

    Raises:
        ValueError: there are no queries.
    """
    rule = LibraryRule(agreeing=_agreeing(benchmark))
    pairs = [(query, answers.get(query.id, Answer())) for query in queries]
    outcomes = [(query, _outcome(query, answer, rule)) for query, answer in pairs]
    asked = _Asked.of(queries, answers)
    kinds = _kinds(queries)
    figures: dict[str, dict[str, Figure]] = {}
    medians: dict[str, dict[str, float | None]] = {}
    for kind in kinds:
        of_kind = [each for each in outcomes if kind == ALL or kind in each[0].kinds]
        figures[kind], medians[kind] = _kind_figures(of_kind, rule, asked)
    official: dict[str, Any] = {}
    if benchmark == "qvhighlights" and annotation_file is not None:
        official = _qvhighlights(pairs, annotation_file)
        own, source = {"brief": {ALL: official["brief"]}}, QVHIGHLIGHTS_SOURCE
    else:
        own, source = _own_figures(benchmark, pairs, asked, retrieval)
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
    """What a JSON file holds of an evaluation; docs/evaluation.md has the schema."""
    content: dict[str, Any] = _finite(asdict(evaluation))
    return content


# ---------------------------------------------------------------- the library task


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the answers can tell."""

    library: bool
    """The whole library was asked."""
    spans: bool
    """Some queries are about parts of videos."""

    @classmethod
    def of(cls, queries: Sequence[Query], answers: Mapping[str, Answer]) -> "_Asked":
        library = any(answer.library is not None for answer in answers.values())
        return cls(library, any(query.has_spans for query in queries))


def _kinds(queries: Sequence[Query]) -> dict[str, int]:
    """How many queries there are of each kind, all first, then by name."""
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
    """What an answer comes to; with the video given, by what was answered then."""
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
    outcomes: Sequence[tuple[Query, QueryOutcome]], rule: LibraryRule, asked: _Asked
) -> tuple[dict[str, Figure], dict[str, float | None]]:
    figures: dict[str, Figure] = {}
    medians: dict[str, float | None] = {}
    if asked.library:
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
    if asked.library:
        figures |= _recalls("VCMR", moments.vcmr) | {"VCMR mIoU": moments.vcmr_mean_tiou}
        figures |= {f"MRR tIoU {tiou:g}": figure for tiou, figure in moments.mrr.items()}
        medians |= {f"VCMR tIoU {tiou:g}": rank for tiou, rank in moments.median_rank.items()}
        if (
            rule.agreeing == 1
        ):  # else the spans are opinions on one moment, not several to be listed
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
    asked: _Asked,
    retrieval: BothDirections | None,
) -> tuple[dict[str, dict[str, Percentages]], str]:
    if benchmark == "msrvtt" and retrieval is not None:
        directions = {
            "text to video": {ALL: _retrieval_percentages(retrieval.text_to_video)},
            "video to text": {ALL: _retrieval_percentages(retrieval.video_to_text)},
        }
        return directions, f"{RETRIEVAL_SOURCE}; videos by their pooled frames"
    if benchmark == "msrvtt" and asked.library:
        ranks = [_outcome(query, answer, LibraryRule()).video_rank for query, answer in pairs]
        by_list = _retrieval_percentages(retrieval_figures(np.array(ranks)))
        return {"text to video": {ALL: by_list}}, RETRIEVAL_SOURCE
    if benchmark not in OWN_RULES:
        return {}, ""
    rule = OWN_RULES[benchmark]
    tasks = [task for task in rule.tasks if asked.library or task == "SVMR"]
    outcomes = [(query, _outcome(query, answer, rule.counting)) for query, answer in pairs]
    own: dict[str, dict[str, Percentages]] = {task: {} for task in tasks}
    for kind in _kinds([query for query, _ in pairs]):
        of_kind = [outcome for query, outcome in outcomes if kind == ALL or kind in query.kinds]
        counted = library_figures(of_kind, rule.counting)
        for task in tasks:
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
    """All official figures, of the queries that are evaluated."""
    answers = {query.id: answer for query, answer in pairs}
    annotations = [row for _, row in jsonl_rows(annotation_file) if str(row["qid"]) in answers]
    # queries that one answer scores highlights for are scored for all, by zeros where it is missing
    with_saliency = any(answer.saliency for answer in answers.values())
    records = []
    for row in annotations:
        record = windows_record(row["qid"], answers[str(row["qid"])])
        if not with_saliency:
            del record["pred_saliency_scores"]
        records.append(record)
    return qvhighlights_figures(records, annotations)


def _finite(value: Any) -> Any:
    """What JSON knows: keys are text, and what is infinite or no number is null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(evaluation: Evaluation) -> str:
    """`as_json` as the text of a file."""
    return json.dumps(as_json(evaluation), indent=2, ensure_ascii=False) + "\n"
