"""Whether anything was found at all, judged against the library's own scores for the query."""

import numpy as np
from numpy.typing import NDArray


def background_level(scores: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of a query's scores over a sample of the library.

    Args:
        scores: ``[num_clips]`` cosines of the query with clips drawn at random; may be empty.

    Returns:
        ``(0.0, 1.0)`` for fewer than two clips, where nothing can be said.
    """
    if len(scores) < 2:
        return 0.0, 1.0
    return float(scores.mean()), float(scores.std())


def standout(best: float, mean: float, std: float) -> float:
    """By how many standard deviations the best clip stands above the library's clips for the query."""
    return (best - mean) / max(std, 1e-6)
