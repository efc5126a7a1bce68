"""Recall of a search by codes, compared with exact search, and its cost.

    queries = synthetic_queries(index.rows, 128)              # or embeddings of real texts
    measured = measure(index, queries, target_recall=0.95)
    measured.chosen                                           # nprobe 32, rescore depth 200, ...

Two numbers decide: how many inverted lists are searched for a query (``nprobe``), and how many of the clips found there
are scored exactly (``rescore_depth``). Either costs time and finds more, and which is worth more depends on the library
and on the encoder.

The target must hold for queries that were not measured. So not the recall of the measured queries counts, but a lower
bound for others (`recall_lower_bound`); the more queries are measured, the closer it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.vectors.codes import one_thread
from scanonce.storage.vectors.flat import search_exactly
from scanonce.storage.vectors.generation import TunedSettings
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.rows import ClipRows, Ids, Mask

RECALL_AT = 10
"""Recall is the share of this number of best clips that is found."""

DEPTHS = (50, 100, 200, 500, 1_000, 2_000)
"""Numbers of candidates that are tried."""

FEWEST_QUERIES = 32
"""They measure a recall of .95 to about .04; 128 queries to .02, 512 to .01."""

_DEVIATIONS = 1.645  # one-sided 95 % of a normal distribution
_FIRST_NPROBE = 4
_COST_QUERIES = 32


@dataclass(frozen=True, slots=True)
class Point:
    """One setting and its measurements."""

    nprobe: int
    rescore_depth: int
    recall: float
    """Mean share of the best clips that were found, 0 to 1."""
    recall_lower_bound: float
    """Lower bound of the recall of other queries like these, right in nineteen of twenty cases."""
    cpu_ms: float
    """CPU milliseconds of one query."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured settings and the one to take."""

    points: tuple[Point, ...]
    """By rising nprobe, each with the smallest depth whose lower bound reaches the target, else the largest depth."""
    chosen: Point
    """The cheapest one whose lower bound reaches the target; if none does, the one with the highest recall."""


def measure(
    index: IvfPqIndex,
    queries: NDArray[np.float32],
    *,
    target_recall: float,
    allowed: Mask | None = None,
    on_progress: Callable[[Point], None] | None = None,
) -> Measured:
    """Measure settings in order of their cost, until more lists no longer make the search cheaper.

    Cost at a million clips of 512 dimensions: 36 CPU milliseconds a query for the truth, about 30 for the settings; 512
    queries take half a CPU minute.

    Args:
        index: the index; its own settings do not matter.
        queries: ``[num_queries, dim]``, at least one.
        target_recall: share of the ten best clips to be found by other queries, above 0 to 1.
        allowed: ``[num_rows]``, the clips that may be found.
        on_progress: called with each point as it is measured.
    """
    _, truth = search_exactly(index.rows, queries, RECALL_AT, allowed=allowed)
    deepest = min(DEPTHS[-1], len(index))
    points: list[Point] = []
    chosen: Point | None = None
    for nprobe in _probes(index.nlist):
        found = index.candidates(queries, nprobe=nprobe, depth=deepest, allowed=allowed)
        shares = [found_shares(found[:, :depth], truth) for depth in DEPTHS]
        bounds = [recall_lower_bound(each) for each in shares]
        enough = [n for n, bound in enumerate(bounds) if bound >= target_recall]
        number = enough[0] if enough else len(DEPTHS) - 1
        cost = _cpu_ms(index, queries, nprobe, DEPTHS[number], allowed)
        points.append(Point(nprobe, DEPTHS[number], _mean(shares[number]), bounds[number], cost))
        if on_progress is not None:
            on_progress(points[-1])
        if not enough:
            continue
        if chosen is not None and cost >= chosen.cpu_ms:
            break  # fewer candidates no longer make up for more lists
        chosen = points[-1]
    best_known = max(points, key=lambda point: point.recall)
    return Measured(tuple(points), chosen or best_known)


def tuned_settings(
    index: IvfPqIndex,
    queries: NDArray[np.float32],
    *,
    target_recall: float,
    source: Literal["text", "stand-in"],
    allowed: Mask | None = None,
    on_progress: Callable[[Point], None] | None = None,
) -> TunedSettings:
    """Return the settings that `measure` chooses, as a generation stores them; ``source`` is the kind of queries."""
    chosen = measure(
        index, queries, target_recall=target_recall, allowed=allowed, on_progress=on_progress
    ).chosen
    return TunedSettings(
        nprobe=chosen.nprobe,
        rescore_depth=chosen.rescore_depth,
        target_recall=target_recall,
        recall=chosen.recall,
        sure_recall=chosen.recall_lower_bound,
        cpu_ms=chosen.cpu_ms,
        clips=len(index),
        num_queries=len(queries),
        queries=source,
        measured=datetime.now(UTC),
    )


def recall(found: Ids, truth: Ids) -> float:
    """Return the mean share of each query's true ids ``[num_queries, k]`` that are among its found ones.

    -1 is no clip; queries without a true clip are left out, and 1 is returned if none is left.
    """
    return _mean(found_shares(found, truth))


def found_shares(found: Ids, truth: Ids) -> NDArray[np.float64]:
    """Return the share of each query, ``[num_queries]``; see `recall`. Queries without a true clip are left out."""
    shares = [
        float(np.isin(true[true >= 0], row).mean())
        for row, true in zip(found, truth, strict=True)
        if (true >= 0).any()
    ]
    return np.array(shares, np.float64)


def recall_lower_bound(shares: NDArray[np.float64]) -> float:
    """Return a lower bound of the mean share of all queries, right in nineteen of twenty cases.

    One query with a share of one half is added: if each of a few queries finds everything, others may not. If all
    queries find everything, the bound is .96 for 32 of them, .99 for 128, .997 for 512.
    """
    padded = np.append(shares, 0.5)
    bound = padded.mean() - _DEVIATIONS * padded.std() / np.sqrt(len(padded))
    return max(0.0, float(bound))


def num_affordable(num_queries: int, num_rows: int) -> int:
    """Return the number of queries to measure with on a number of rows, for half a CPU minute.

    All of 512 up to a million clips, 18 CPU seconds for the truth; 53 at ten million, in the same time.
    """
    pairs = 2**29
    return min(num_queries, max(FEWEST_QUERIES, pairs // max(1, num_rows)))


def synthetic_queries(rows: ClipRows, num_queries: int, seed: int = 0) -> NDArray[np.float32]:
    """Return vectors whose cosines with the library's clips are like those of texts.

    They are no embeddings of texts. Each is the difference of a clip from the mean clip, more than half of it noise,
    moved far in a drawn direction that is orthogonal to the mean clip: the text embeddings of a dual encoder are apart
    from its image embeddings in this way. The shares are those of simulated CLIP embeddings with a cosine of about .17
    between text and clip. Tuning by embeddings of texts is more reliable.

    Returns:
        ``[num_queries, dim]`` unit vectors, the same at every call. Reads about 4,096 rows.
    """
    rng = np.random.default_rng(seed)
    sample = rows.gather(np.sort(rng.integers(len(rows), size=4096)))
    middle = _unit(sample.mean(axis=0, dtype=np.float32))
    picked = sample[rng.integers(len(sample), size=num_queries)]
    drawn = rng.standard_normal((2, num_queries, rows.dim), dtype=np.float32)
    meaning = _unit(_unit(picked - (picked @ middle)[:, None] * middle) + 0.6 * _unit(drawn[0]))
    away = rng.standard_normal(rows.dim, dtype=np.float32)
    text = _unit(away - (away @ middle) * middle)
    apart = 0.8 * text + 0.6 * _unit(drawn[1])
    return _unit(0.25 * middle + 0.29 * meaning + 0.91 * apart)


def _mean(shares: NDArray[np.float64]) -> float:
    return float(shares.mean()) if len(shares) else 1.0


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _probes(nlist: int) -> list[int]:
    """Return the numbers of lists to try, rising, up to a quarter of many lists, which costs nearly as much as exact
    search.

    Steps are a half or a third, because time is proportional to the number: 4, 6, 8, 12, 16, 24, ...
    """
    last = min(nlist, max(256, nlist // 4))
    steps = (number for n in range(1, 20) for number in (2**n, 3 * 2 ** (n - 1)))
    return [*(number for number in steps if _FIRST_NPROBE <= number < last), last]


def _cpu_ms(
    index: IvfPqIndex,
    queries: NDArray[np.float32],
    nprobe: int,
    depth: int,
    allowed: Mask | None,
) -> float:
    """Return the CPU time of a query that is asked alone, the mean of some."""
    tried = IvfPqIndex(index.rows, index.codes, nprobe=nprobe, rescore_depth=depth)
    some = queries[:_COST_QUERIES]
    with one_thread():
        tried.search(
            some[:1], RECALL_AT, allowed=allowed
        )  # the first search reads files into memory
        begin = time.thread_time()
        tried.search(some, RECALL_AT, allowed=allowed)
        return (time.thread_time() - begin) * 1e3 / len(some)
