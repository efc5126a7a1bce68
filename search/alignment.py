"""The runs of two videos that show the same pictures at the same pace, from their frames alone. Pure numpy.

If frame ``i`` of one video is frame ``i + offset`` of another for a while, a diagonal of the matrix of their cosines is
high. That alone is no proof: of two shots in which nothing happens, all diagonals are high. So a run counts only if
its diagonal is clearly above those around it, which takes a cut or a movement that both videos have at the same time.

    >>> frames = np.eye(40, dtype=np.float32)                       # forty frames, all different
    >>> align(frames, frames[10:], [-8], Limits())
    [Run(start=10, end=40, offset=-10, likeness=1.0, distinctness=1.0)]
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Limits:
    """The demands on a run. Numbers of frames are numbers of ticks (`search.duplicates.TICKS_PER_SECOND`)."""

    shortest: int = 10
    """Fewest frames of a run."""
    level: float = 0.5
    """Cosine from which two frames count as alike."""
    likeness: float = 0.65
    """Least mean cosine of a run."""
    distinctness: float = 0.05
    """Least difference of this mean to that of the best other alignment of the same two spans."""
    reach: int = 6
    """Offsets on both sides of a guess that are tried."""
    near: int = 3
    """Diagonals that are this close to the best one are about as good in any video that moves slowly."""
    far: int = 12
    """Diagonals up to this far are compared with the best one."""


@dataclass(frozen=True, slots=True)
class Run:
    """Frames ``start`` to ``end - 1`` of one video are alike frames ``start + offset`` ... of another."""

    start: int
    end: int
    offset: int
    likeness: float
    """Mean cosine, rounded to 4 digits."""
    distinctness: float
    """How far it is above the best of the diagonals around it, rounded to 4 digits."""


def align(
    first: NDArray[np.float32], second: NDArray[np.float32], guesses: Iterable[int], limits: Limits
) -> list[Run]:
    """Find the runs that two videos have in common.

    Args:
        first: ``[num_first, dim]`` unit vectors at equal distances in time, less the mean of the library before they
            were made units: otherwise all frames are alike.
        second: ``[num_second, dim]`` likewise.
        guesses: offsets near which to look, the most likely first; each costs some 40 products of frames.
        limits: the demands on a run.

    Returns:
        Runs that share no frame of ``first``, by rising start.
    """
    free = np.ones(len(first), np.bool_)
    runs: list[Run] = []
    for guess in guesses if len(first) and len(second) else ():
        run = _run_near(first, second, guess, limits, free)
        if run is not None:
            runs.append(run)
            free[run.start : run.end] = False
    return sorted(runs, key=lambda run: run.start)


def diagonals(
    first: NDArray[np.float32], second: NDArray[np.float32], offsets: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return cosines of frame ``i`` with frame ``i + offset``, ``[num_offsets, num_first]``; NaN if there is none."""
    cosines = np.full((len(offsets), len(first)), np.nan, np.float32)
    for row, offset in zip(cosines, offsets.tolist(), strict=True):
        begin, end = max(0, -offset), min(len(first), len(second) - offset)
        if begin < end:
            there = second[begin + offset : end + offset]
            row[begin:end] = np.einsum("nd,nd->n", first[begin:end], there)
    return cosines


def best_run(gains: NDArray[np.float32]) -> tuple[int, int, float]:
    """Return the run with the greatest sum as start and end, and the sum; NaN breaks runs. O(numbers).

    >>> best_run(np.array([1.0, -3.0, 2.0, -1.0, 2.0, np.nan, 2.5], np.float32))
    (2, 5, 3.0)
    """
    gains = np.where(np.isnan(gains), -1e6, gains.astype(np.float64))
    sums = np.concatenate([np.zeros(1), np.cumsum(gains)])
    lowest = np.minimum.accumulate(sums[:-1])
    end = int(np.argmax(sums[1:] - lowest)) + 1
    start = int(np.argmin(sums[:end]))
    return start, end, float(sums[end] - sums[start])


def _run_near(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    guess: int,
    limits: Limits,
    free: NDArray[np.bool_],
) -> Run | None:
    widest = limits.reach + limits.far
    offsets = np.arange(guess - widest, guess + widest + 1)
    cosines = diagonals(first, second, offsets)
    cosines[:, ~free] = np.nan
    tried = range(limits.far, len(offsets) - limits.far)
    found = [(*best_run(cosines[k] - limits.level), k) for k in tried]
    start, end, gain, k = max(found, key=lambda each: each[2])
    if gain <= 0 or end - start < limits.shortest:
        return None
    likeness = float(cosines[k, start:end].mean())
    distinctness = likeness - _rival(cosines[:, start:end], k, limits)
    if likeness < limits.likeness or not distinctness >= limits.distinctness:
        return None
    return Run(start, end, int(offsets[k]), round(likeness, 4), round(distinctness, 4))


def _rival(cosines: NDArray[np.float32], k: int, limits: Limits) -> float:
    """Return the best mean on a diagonal that is not next to the best one, with both frames inside the run.

    The frames around a run do not count: that two shots of one still picture end together is no proof. Diagonals with
    less than half of the frames say nothing. NaN if there is no other: then the run proves nothing.

    Args:
        cosines: ``[num_offsets, num_frames]`` of the frames of the run.
        k: the row of the best diagonal.
        limits: which diagonals are compared.
    """
    num_frames = cosines.shape[1]
    here, lost = cosines[k], []
    for shift in range(limits.near + 1, min(limits.far, num_frames // 2) + 1):
        for row, inside in (
            (k + shift, slice(0, num_frames - shift)),
            (k - shift, slice(shift, num_frames)),
        ):
            # Both diagonals on the frames that both have.
            lost.append(float(here[inside].mean() - cosines[row, inside].mean()))
    return float(here.mean()) - min(lost, default=float("nan"))
