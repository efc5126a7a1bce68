"""How much a search by codes finds of what exact search finds, and what that costs.

    queries = stand_in_queries(index.rows, 128)               # or embeddings of real sentences
    measured = measure(index, queries, target_recall=0.95)
    measured.chosen                                           # nprobe 32, rescore depth 200, ...

Two numbers decide: into how many lists a query looks (``nprobe``), and how many of the clips found
there are scored exactly (``rescore_depth``). Either costs time and finds more, and which is worth
more depends on the library and on the encoder.

A target is to be kept by sentences that were not asked: what counts is not what the queries found
but what others will find at least (`sure_recall`), and the more are asked the less lies between.
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
"""Of so many best clips the share that is found counts."""

DEPTHS = (50, 100, 200, 500, 1_000, 2_000)
"""Numbers of candidates that are tried."""

FEWEST_QUERIES = 32
"""They tell recall to .04 or so where it is .95; 128 queries to .02, 512 to .01."""

_SURE = 1.645  # deviations that a mean is from its own in one of twenty draws, to one side
_FIRST_NPROBE = 4
_COST_QUERIES = 32


@dataclass(frozen=True, slots=True)
class Point:
    """One setting and what was measured with it."""

    nprobe: int
    rescore_depth: int
    recall: float
    """Mean share of the best clips that were found, 0 to 1."""
    sure_recall: float
    """What other queries like these find at least, nineteen times in twenty."""
    cpu_ms: float
    """Of one thread, for one query."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The settings that were tried and the one to take."""

    points: tuple[Point, ...]
    """By rising nprobe, each with the smallest depth that surely reaches the target, else the deepest."""
    chosen: Point
    """The cheapest that surely reaches the target; where none does, the one that finds most."""


def measure(
    index: IvfPqIndex,
    queries: NDArray[np.float32],
    *,
    target_recall: float,
    allowed: Mask | None = None,
    observe: Callable[[Point], None] | None = None,
) -> Measured:
    """Walk from cheap settings to dear ones, past the cheapest that finds enough.

    Cost at a million clips of 512 dimensions: 36 CPU milliseconds a query for the truth, about 30
    for the walk; 512 queries take half a CPU minute.

    Args:
        index: what is searched; its own settings do not matter.
        queries: ``[num_queries, dim]``, at least one.
        target_recall: share of the ten best clips to be found by other queries, above 0 to 1.
        allowed: ``[num_rows]``, the clips that may be found.
        observe: called with each point as it is measured.
    """
    _, truth = search_exactly(index.rows, queries, RECALL_AT, allowed=allowed)
    deepest = min(DEPTHS[-1], len(index))
    points: list[Point] = []
    chosen: Point | None = None
    for nprobe in _probes(index.nlist):
        found = index.candidates(queries, nprobe=nprobe, depth=deepest, allowed=allowed)
        shares = [found_shares(found[:, :depth], truth) for depth in DEPTHS]
        sure = [sure_recall(each) for each in shares]
        enough = [n for n, least in enumerate(sure) if least >= target_recall]
        number = enough[0] if enough else len(DEPTHS) - 1
        cost = _cpu_ms(index, queries, nprobe, DEPTHS[number], allowed)
        points.append(Point(nprobe, DEPTHS[number], _mean(shares[number]), sure[number], cost))
        if observe is not None:
            observe(points[-1])
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
    observe: Callable[[Point], None] | None = None,
) -> TunedSettings:
    """What `measure` chose, as a generation notes it; ``source`` tells what the queries are."""
    chosen = measure(
        index, queries, target_recall=target_recall, allowed=allowed, observe=observe
    ).chosen
    return TunedSettings(
        nprobe=chosen.nprobe,
        rescore_depth=chosen.rescore_depth,
        target_recall=target_recall,
        recall=chosen.recall,
        sure_recall=chosen.sure_recall,
        cpu_ms=chosen.cpu_ms,
        clips=len(index),
        num_queries=len(queries),
        queries=source,
        measured=datetime.now(UTC),
    )


def recall(found: Ids, truth: Ids) -> float:
    """Mean share of each query's true ids ``[num_queries, k]`` that are among its found ones.

    -1 counts as no clip; queries without any true one are left out, and 1 is returned for none.
    """
    return _mean(found_shares(found, truth))


def found_shares(found: Ids, truth: Ids) -> NDArray[np.float64]:
    """``[num_queries]``, the share of each; see `recall`. Queries without any true clip are left out."""
    shares = [
        float(np.isin(true[true >= 0], row).mean())
        for row, true in zip(found, truth, strict=True)
        if (true >= 0).any()
    ]
    return np.array(shares, np.float64)


def sure_recall(shares: NDArray[np.float64]) -> float:
    """The lower end of an interval around the mean share: nineteen times in twenty the recall of all queries is above.

    One query that finds half is counted beside those asked: where each of a few finds all, it is not sure that all
    others do. All found by 32 queries: .96; by 128: .99; by 512: .997.
    """
    padded = np.append(shares, 0.5)
    least = padded.mean() - _SURE * padded.std() / np.sqrt(len(padded))
    return max(0.0, float(least))


def num_affordable(num_queries: int, num_rows: int) -> int:
    """How many of the queries to ask of so many rows, for half a minute of one processor.

    All of 512 up to a million clips, 18 CPU seconds for the truth; 53 at ten million, as many seconds.
    """
    pairs = 2**29
    return min(num_queries, max(FEWEST_QUERIES, pairs // max(1, num_rows)))


def stand_in_queries(rows: ClipRows, num_queries: int, seed: int = 0) -> NDArray[np.float32]:
    """Vectors that lie to the library's clips as sentences do, where no sentences are at hand.

    No text is in them: each is what sets a clip of the library apart, more than half of it noise,
    moved far off in a drawn direction at right angles to the mean clip, as the text tower of a dual
    encoder lies apart from its image tower. The shares are those of simulated CLIP embeddings with a
    cosine of about .17 between sentence and clip. Tuning by embeddings of sentences says more.

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
    """Numbers of lists to try, rising: up to a quarter of many lists, where exact search is near.

    In steps of a half or a third: what is more than enough costs as much more. 4, 6, 8, 12, 16, 24, ...
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
    """Processor time of a query that is asked alone, the mean of some."""
    tried = IvfPqIndex(index.rows, index.codes, nprobe=nprobe, rescore_depth=depth)
    some = queries[:_COST_QUERIES]
    with one_thread():
        tried.search(some[:1], RECALL_AT, allowed=allowed)  # the first one reads what others find
        begin = time.thread_time()
        tried.search(some, RECALL_AT, allowed=allowed)
        return (time.thread_time() - begin) * 1e3 / len(some)
