"""Metrics of retrieval, of moments in a video and of moments in a library. Pure functions.

    rule = LibraryRule(tious=(0.5, 0.7))
    outcomes = [
        score_query(in_order(row), right, rule) for row, right in zip(predictions, truths, strict=True)
    ]
    library_figures(outcomes, rule).vcmr[0.5][10]  # Figure(value=.41, low=.37, high=.45)

The outcome of each query is computed first: one rank or value per figure. Figures are means of outcomes with intervals
over the queries (`training.evaluation.intervals`). So a table by kind of query uses the outcomes of that kind, and two
systems are compared query by query. Ranks are from 1, and infinite for a miss; a query without a prediction is a miss
and never left out. Moments of a given video are those of a library with this video only.
"""

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.records import Span
from scanonce.training.evaluation.intervals import Figure, mean_figures

Ties: TypeAlias = Literal["pessimistic", "middle"]
"""Treatment of equal scores: "pessimistic" ranks all others with the same score before the right one, "middle" takes
the mean rank over all orders of the tied ones."""
Overlap: TypeAlias = Literal["union", "hull"]
"""Divisor of the intersection of two spans. "union" is plain tIoU. "hull" is max end - min start + 1e-9, as in SOONet's
code for MAD (arXiv 2303.08345): the same as the union if two spans overlap, except for the 1e-9, which moves a tIoU of
exactly the threshold below it."""
_HULL_EPSILON = 1e-9
_ELSEWHERE = -1.0
"""Stands for the tIoU with a span of another video: below every threshold, 0 included."""
_AT_ONCE = 2**22  # similarities ranked at once: 32 MB


# ---------------------------------------------------------------- text-video retrieval


def ranks(
    similarity: NDArray[np.floating], right: NDArray[np.bool_], *, ties: Ties = "pessimistic"
) -> NDArray[np.float64]:
    """Return the rank of the best right item of each query, among all items.

    With ``above`` wrong items scoring strictly higher than the best right one, ``tied`` wrong ones scoring the same and
    ``level`` right ones there: pessimistic 1 + above + tied, middle 1 + above + tied / (level + 1). The widespread
    CLIP4Clip code takes every position with the right one's score instead, and so has more ranks than queries.

    Args:
        similarity: [Q, N], higher is better.
        right: [Q, N], at least one in each row.
        ties: treatment of equal scores.

    Returns:
        [Q], in [1, N]; a middle rank may be a fraction.

    Raises:
        ValueError: shapes differ, a row has no right item, or a similarity is NaN.
    """
    if similarity.ndim != 2 or similarity.shape != right.shape:
        raise ValueError(
            f"similarity and right need one shape [Q, N]; got {similarity.shape} and {right.shape}"
        )
    num_queries, num_items = similarity.shape
    found = np.empty(num_queries)
    at_once = max(1, _AT_ONCE // max(1, num_items))
    for first in range(0, num_queries, at_once):
        rows = slice(first, first + at_once)
        found[rows] = _ranks_of_rows(similarity[rows], right[rows], ties, first)
    assert len(found) == num_queries
    return found


def _ranks_of_rows(
    similarity: NDArray[np.floating], right: NDArray[np.bool_], ties: Ties, first: int
) -> NDArray[np.float64]:
    if np.isnan(similarity).any():
        raise ValueError("a similarity is NaN: it has no rank")
    without = np.flatnonzero(~right.any(axis=1))
    if without.size:
        raise ValueError(f"query {first + without[0]} has no right item; each needs one")
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    above = (~right & (similarity > best)).sum(axis=1)
    same = similarity == best
    tied = (~right & same).sum(axis=1)
    if ties == "pessimistic":
        return np.asarray(1.0 + above + tied)
    # wrong ones in random order fall evenly into the gaps before, between and after the right ones
    return np.asarray(1.0 + above + tied / ((right & same).sum(axis=1) + 1))


def text_to_video_ranks(
    similarity: NDArray[np.floating],
    video_of_text: NDArray[np.integer],
    *,
    ties: Ties = "pessimistic",
) -> NDArray[np.float64]:
    """Return the rank of each text's video among all videos; each caption of a video is a query.

    Args:
        similarity: [M, V] of texts with videos.
        video_of_text: [M], column of each text's video; ``np.arange(V)`` if texts and videos are pairs.

    Returns:
        [M] (MSVD, full MSR-VTT: every caption is a query).
    """
    _check_videos(similarity, video_of_text)
    columns = np.arange(similarity.shape[1])
    return ranks(similarity, video_of_text[:, None] == columns, ties=ties)


def video_to_text_ranks(
    similarity: NDArray[np.floating],
    video_of_text: NDArray[np.integer],
    *,
    ties: Ties = "pessimistic",
) -> NDArray[np.float64]:
    """Return the rank of each video's captions among all videos' captions, by the best caption of each video.

    As CLIP4Clip does it for sets with several captions: the candidates of a video are one score per video, the maximum
    over its captions. With one caption per video it is the rank of that caption among all.

    Args:
        similarity: [M, V] of texts with videos.
        video_of_text: [M], column of each text's video.

    Returns:
        [V]: every video is a query.

    Raises:
        ValueError: a video has no caption.
    """
    _check_videos(similarity, video_of_text)
    num_videos = similarity.shape[1]
    order = np.argsort(video_of_text, kind="stable")
    present, firsts = np.unique(video_of_text[order], return_index=True)
    if len(present) != num_videos:
        missing = np.setdiff1d(np.arange(num_videos), present)
        raise ValueError(f"video {missing[0]} has no caption; each needs one to be ranked")
    best = np.maximum.reduceat(similarity[order], firsts, axis=0)  # [V captions' best, V videos]
    return ranks(best.T, np.eye(num_videos, dtype=np.bool_), ties=ties)


def _check_videos(similarity: NDArray[np.floating], video_of_text: NDArray[np.integer]) -> None:
    num_texts, num_videos = similarity.shape
    if video_of_text.shape != (num_texts,):
        raise ValueError(
            f"{num_texts} texts need as many video numbers; got shape {video_of_text.shape}"
        )
    if num_texts and not 0 <= video_of_text.min() <= video_of_text.max() < num_videos:
        raise ValueError(
            f"video numbers go from 0 to {num_videos - 1}; got {video_of_text.min()} to {video_of_text.max()}"
        )


@dataclass(frozen=True, slots=True)
class RetrievalFigures:
    """Figures of the ranks of one direction."""

    num_queries: int
    recall: dict[int, Figure]
    """R@K: share of queries with a rank up to K, in [0, 1], by K."""
    median_rank: float
    """MdR, 1 at best; infinite if half of the queries or more are misses."""
    mean_rank: float
    """MnR; infinite if a query is a miss."""
    reciprocal_rank: Figure
    """MRR: mean of 1 / rank, in [0, 1]."""


def retrieval_figures(
    found: NDArray[np.float64], *, cutoffs: Sequence[int] = (1, 5, 10)
) -> RetrievalFigures:
    """Return the figures of ranks.

    Args:
        found: [Q], 1 or more, infinite for a miss; from `ranks`, or from `rank_of_right` of each query.
        cutoffs: K of R@K.

    Raises:
        ValueError: there are no queries, or a rank is below 1.
    """
    if not len(found) or not found.min() >= 1:
        raise ValueError(
            f"at least one rank is needed, each 1 or more; got {len(found)} ranks"
            + (f", the lowest {found.min():g}" if len(found) else "")
        )
    columns = [*(found <= cutoff for cutoff in cutoffs), 1 / found]
    *recalls, reciprocal = mean_figures(np.stack(columns, axis=1, dtype=np.float64))
    return RetrievalFigures(
        num_queries=len(found),
        recall=dict(zip(cutoffs, recalls, strict=True)),
        median_rank=float(np.median(found)),
        mean_rank=float(found.mean()),
        reciprocal_rank=reciprocal,
    )


@dataclass(frozen=True, slots=True)
class BothDirections:
    """Text-video retrieval as papers print it."""

    text_to_video: RetrievalFigures
    video_to_text: RetrievalFigures


def both_directions(
    similarity: NDArray[np.floating],
    video_of_text: NDArray[np.integer],
    *,
    ties: Ties = "pessimistic",
) -> BothDirections:
    """Return the figures of a similarity [M, V] of texts with videos, in both directions."""
    return BothDirections(
        retrieval_figures(text_to_video_ranks(similarity, video_of_text, ties=ties)),
        retrieval_figures(video_to_text_ranks(similarity, video_of_text, ties=ties)),
    )


def rank_of_right(ranked: Iterable[Hashable], right: Collection[Hashable]) -> float:
    """Return the rank of the first right item of a list, best first; infinite if the list has none.

    Repeated items count once: a third moment of the same video does not move the next video down.
    """
    before: set[Hashable] = set()
    for item in ranked:
        if item in right:
            return len(before) + 1.0
        before.add(item)
    return math.inf


# ---------------------------------------------------------------- spans and hits


def pairwise_tiou(
    spans: NDArray[np.float64], others: NDArray[np.float64], *, overlap: Overlap = "union"
) -> NDArray[np.float64]:
    """Return the tIoU of every span with every other, in [0, 1].

    Args:
        spans: [..., P, 2] seconds; a span that ends before it starts overlaps nothing.
        others: [..., G, 2] seconds.
        overlap: divisor of the intersection.

    Returns:
        [..., P, G]; 0 for two empty spans.
    """
    start, end = spans[..., :1], spans[..., 1:]  # [..., P, 1]
    first, last = others[..., None, :, 0], others[..., None, :, 1]  # [..., 1, G]
    inside = np.maximum(np.minimum(end, last) - np.maximum(start, first), 0.0)
    if overlap == "hull":
        either = np.maximum(end, last) - np.minimum(start, first) + _HULL_EPSILON
    else:
        either = np.maximum(end - start, 0.0) + np.maximum(last - first, 0.0) - inside
    tious: NDArray[np.float64] = np.zeros_like(inside)
    np.divide(inside, either, out=tious, where=either > 0)
    return tious


def agreed_tiou(tious: NDArray[np.float64], agreeing: int = 1) -> NDArray[np.float64]:
    """Return the highest, or the ``agreeing``-th highest, tIoU of each span with several right ones.

    A span reaches a threshold with at least ``agreeing`` right spans if and only if this tIoU reaches it. DiDeMo needs
    2 of the 4 or more windows of its annotators.

    Args:
        tious: [P, G], below 0 if a right span is in another video.
        agreeing: number of right spans, 1 or more.

    Returns:
        [P]; below 0 if there are fewer than ``agreeing`` right spans in the video.
    """
    if agreeing < 1:
        raise ValueError(f"1 or more right spans must agree; got {agreeing}")
    if tious.shape[1] < agreeing:
        return np.full(len(tious), _ELSEWHERE)
    return np.asarray(np.sort(tious, axis=1)[:, -agreeing])


def first_hits(
    tious: NDArray[np.float64], thresholds: Sequence[float], *, strict: bool = False
) -> NDArray[np.float64]:
    """Return the rank of the first prediction that reaches each threshold; infinite if none does.

    Args:
        tious: [P], of the predictions, best first.
        thresholds: T thresholds.
        strict: the tIoU must exceed the threshold (2D-TAN, Ego4D, MAD's CLIP baseline); otherwise it may be equal.

    Returns:
        [T].
    """
    levels = np.asarray(thresholds, np.float64)[:, None]
    hits = tious > levels if strict else tious >= levels  # [T, P]
    if not hits.shape[1]:
        return np.full(len(levels), np.inf)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)


def _by_threshold(
    figures: Sequence[Figure], tious: Sequence[float], cutoffs: Sequence[int]
) -> dict[float, dict[int, Figure]]:
    """T * K figures in the order of `_recalls`, by threshold and cut-off."""
    rest = iter(figures)
    return {tiou: {cutoff: next(rest) for cutoff in cutoffs} for tiou in tious}


def _first(tious: NDArray[np.float64]) -> float:
    return max(0.0, float(tious[0])) if len(tious) else 0.0


# ---------------------------------------------------------------- moments of a library


@dataclass(frozen=True, slots=True)
class Located:
    """A span of a named video: a prediction or the truth."""

    video: str
    span: Span


@dataclass(frozen=True, slots=True)
class Prediction(Located):
    """A moment of an answer."""

    score: float = 0.0
    """Higher is better; any range."""


@dataclass(frozen=True, slots=True)
class Relevant(Located):
    """A right moment with its relevance."""

    relevance: int = 1
    """0 or more; TVR-Ranking has 0 to 4. Above 0 the moment is right for recall; NDCG's gain is 2^relevance - 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRule:
    """Rule of counting. The default is the protocol of our own tables; for those of benchmarks see
    `training.evaluation.evaluate.OWN_RULES`.
    """

    cutoffs: tuple[int, ...] = (1, 5, 10, 100)
    """K of R@K."""
    depths: tuple[int, ...] = (10, 20)
    """K of NDCG@K."""
    tious: tuple[float, ...] = (0.3, 0.5, 0.7)
    """Thresholds in [0, 1]; for recall see ``strict``, for NDCG always strict."""
    strict: bool = False
    """As in `first_hits`; TVR's evaluator is not."""
    agreeing: int = 1
    """As in `agreed_tiou`; DiDeMo's is 2."""
    overlap: Overlap = "union"
    """As in `pairwise_tiou`."""

    def __post_init__(self) -> None:
        if not all(0 <= tiou <= 1 for tiou in self.tious):
            raise ValueError(f"tIoU thresholds must be in [0, 1]; got {self.tious}")
        if not all(number >= 1 for number in (*self.cutoffs, *self.depths, self.agreeing)):
            raise ValueError(
                f"cut-offs, depths and agreeing must be 1 or more; got {self.cutoffs}, {self.depths}, {self.agreeing}"
            )


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """Outcome of one query under a rule of T thresholds and D depths."""

    answered: bool
    """Whether there was a prediction."""
    video_rank: float
    """Rank of the first right video among the distinct videos; as all ranks infinite for a miss."""
    svmr_ranks: NDArray[np.float64]
    """[T]: rank of the first hit among the predictions in right videos."""
    vcmr_ranks: NDArray[np.float64]
    """[T]: rank of the first hit among all predictions."""
    ndcg: NDArray[np.float64]
    """[T, D] in [0, 1]."""
    svmr_tiou: float
    """tIoU of the first prediction in a right video, 0 if there is none."""
    vcmr_tiou: float
    """tIoU of the first prediction, 0 if it is in another video."""


def in_order(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Sort predictions, best first: by score, then video, start, end.

    Raises:
        ValueError: a score is NaN.
    """
    rows = list(predictions)
    if any(math.isnan(row.score) for row in rows):
        raise ValueError("a prediction's score is NaN: it cannot be ranked")
    return sorted(
        rows,
        key=lambda row: (-row.score, row.video, row.span.start_seconds, row.span.end_seconds),
    )


def score_query(
    predictions: Sequence[Located], truths: Sequence[Located], rule: LibraryRule
) -> QueryOutcome:
    """Return the outcome of the predictions for one query.

    VR, SVMR and VCMR as in TVR (arXiv 2001.09099): a hit is a prediction in a right video whose tIoU with a right span
    reaches the threshold. SVMR counts only predictions in right videos, VR only videos, each once. NDCG as in
    TVR-Ranking (arXiv 2407.06597), see `ndcg`.

    Args:
        predictions: best first (`in_order`); all of them count, so the caller applies limits such as TVR's 100.
        truths: at least one; `Relevant` if they differ in relevance, else each has 1.
        rule: rule of counting.

    Raises:
        ValueError: there is no right moment.
    """
    right = [truth for truth in truths if _relevance(truth) > 0]
    if not right:
        raise ValueError("a query needs a right moment, of a relevance above 0; got none")
    videos = {truth.video for truth in right}
    inside = np.array([found.video in videos for found in predictions], np.bool_)
    reached = agreed_tiou(_tious(predictions, right, rule.overlap), rule.agreeing)
    return QueryOutcome(
        answered=bool(predictions),
        video_rank=rank_of_right((found.video for found in predictions), videos),
        svmr_ranks=first_hits(reached[inside], rule.tious, strict=rule.strict),
        vcmr_ranks=first_hits(reached, rule.tious, strict=rule.strict),
        ndcg=ndcg(predictions, truths, rule),
        svmr_tiou=_first(reached[inside]),
        vcmr_tiou=_first(reached),
    )


def ndcg(
    predictions: Sequence[Located], truths: Sequence[Located], rule: LibraryRule
) -> NDArray[np.float64]:
    """Return NDCG@K at tIoU of one query, as in TVR-Ranking (arXiv 2407.06597).

    A prediction is assigned the right moment of its video with the highest tIoU among those not assigned before, if
    that tIoU exceeds the threshold; it gains 2^relevance - 1 then, else 0. The discount is log2(rank + 1). The ideal
    list has the K highest relevances. ``hull`` and ``strict`` of the rule are ignored.

    Returns:
        [T, D] in [0, 1]; 0 if nothing is relevant.
    """
    by_relevance = sorted(truths, key=_relevance, reverse=True)  # of equal tIoUs, the more relevant
    gains = np.array([2.0 ** _relevance(truth) - 1.0 for truth in by_relevance])
    shown = predictions[: max(rule.depths)]
    tious = _tious(shown, by_relevance, "union")
    discounts = 1.0 / np.log2(np.arange(max(len(shown), len(gains))) + 2.0)
    values = np.zeros((len(rule.tious), len(rule.depths)))
    for row, threshold in enumerate(rule.tious):
        taken = _taken_gains(tious, gains, threshold)
        for column, depth in enumerate(rule.depths):
            ideal = gains[:depth] @ discounts[: len(gains[:depth])]
            reached = taken[:depth] @ discounts[: len(taken[:depth])]
            values[row, column] = reached / ideal if ideal > 0 else 0.0
    return values


def _taken_gains(
    tious: NDArray[np.float64], gains: NDArray[np.float64], threshold: float
) -> NDArray[np.float64]:
    """[P]: gain of each prediction, in their order; tious is [P, G]."""
    left = tious.copy()
    taken = np.zeros(len(tious))
    for position in np.flatnonzero((tious > threshold).any(axis=1)):
        best = left[position].argmax()
        if left[position, best] > threshold:
            taken[position] = gains[best]
            left[:, best] = _ELSEWHERE
    return taken


def _relevance(truth: Located) -> int:
    return truth.relevance if isinstance(truth, Relevant) else 1


def _tious(
    predictions: Sequence[Located], truths: Sequence[Located], overlap: Overlap
) -> NDArray[np.float64]:
    """[P, G]; `_ELSEWHERE` if the videos differ."""
    numbers = {truth.video: number for number, truth in enumerate(truths)}
    found = np.array([numbers.get(row.video, -1) for row in predictions], np.int64)
    sought = np.array([numbers[truth.video] for truth in truths], np.int64)
    tious = pairwise_tiou(_seconds(predictions), _seconds(truths), overlap=overlap)
    return np.where(found[:, None] == sought, tious, _ELSEWHERE)


def _seconds(located: Sequence[Located]) -> NDArray[np.float64]:
    rows = [(row.span.start_seconds, row.span.end_seconds) for row in located]
    return np.array(rows, np.float64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class LibraryFigures:
    """Figures of queries over a library; ``dataclasses.asdict`` returns values that JSON can hold."""

    num_queries: int
    num_unanswered: int
    """Queries without a prediction; they count as misses in every figure."""
    vr: dict[int, Figure]
    """R@K of the video alone, by K, in [0, 1]."""
    svmr: dict[float, dict[int, Figure]]
    """R@K of the span with the video given, by tIoU threshold and K: the quality of localising alone."""
    vcmr: dict[float, dict[int, Figure]]
    """R@K of video and span, by tIoU threshold and K."""
    ndcg: dict[float, dict[int, Figure]]
    """NDCG@K by tIoU threshold and K."""
    mrr: dict[float, Figure]
    """Mean reciprocal rank of the first VCMR hit, by tIoU threshold."""
    median_rank: dict[float, float | None]
    """Median rank of the first VCMR hit, by tIoU threshold; None if half of the queries or more have none."""
    svmr_mean_tiou: Figure
    """Mean tIoU of the first prediction in the right video, 0 without one."""
    vcmr_mean_tiou: Figure
    """Mean tIoU of the first prediction, 0 for another video or without one."""


def library_figures(outcomes: Sequence[QueryOutcome], rule: LibraryRule) -> LibraryFigures:
    """Return the figures of queries that were scored by this rule.

    Raises:
        ValueError: there are no queries.
    """
    if not outcomes:
        raise ValueError("figures need at least one query; got none")
    videos = np.array([outcome.video_rank for outcome in outcomes])  # [Q]
    svmr = np.array([outcome.svmr_ranks for outcome in outcomes])  # [Q, T]
    vcmr = np.array([outcome.vcmr_ranks for outcome in outcomes])  # [Q, T]
    parts = [
        videos[:, None] <= rule.cutoffs,
        _recalls(svmr, rule.cutoffs),
        _recalls(vcmr, rule.cutoffs),
        np.array([outcome.ndcg.ravel() for outcome in outcomes]),
        1 / vcmr,
        np.array([[outcome.svmr_tiou, outcome.vcmr_tiou] for outcome in outcomes]),
    ]
    rest = iter(mean_figures(np.concatenate(parts, axis=1, dtype=np.float64)))
    recalls = len(rule.tious) * len(rule.cutoffs)
    return LibraryFigures(
        num_queries=len(outcomes),
        num_unanswered=sum(not outcome.answered for outcome in outcomes),
        vr={cutoff: next(rest) for cutoff in rule.cutoffs},
        svmr=_by_threshold([next(rest) for _ in range(recalls)], rule.tious, rule.cutoffs),
        vcmr=_by_threshold([next(rest) for _ in range(recalls)], rule.tious, rule.cutoffs),
        ndcg={tiou: {depth: next(rest) for depth in rule.depths} for tiou in rule.tious},
        mrr={tiou: next(rest) for tiou in rule.tious},
        median_rank=dict(zip(rule.tious, map(_median, vcmr.T), strict=True)),
        svmr_mean_tiou=next(rest),
        vcmr_mean_tiou=next(rest),
    )


def _recalls(found: NDArray[np.float64], cutoffs: Sequence[int]) -> NDArray[np.bool_]:
    """[Q, T] ranks within K cut-offs as [Q, T * K], cut-offs fastest."""
    within = found[:, :, None] <= np.asarray(cutoffs)
    return np.asarray(within.reshape(len(found), -1))


def _median(found: NDArray[np.float64]) -> float | None:
    median = float(np.median(found))
    return median if math.isfinite(median) else None
