"""Tune the search of a large library by measuring on its own clips.

    tuned = tune(layout.vectors, dim=512, live_videos=live, target_recall=0.95, queries=embeddings)

Searches use the chosen settings from the next time the library is opened. `storage.vectors.publish.publish` keeps them,
and measures again when the lists are trained again.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.vectors.generation import Generation, TunedSettings, newest_generation
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.publish import publish_tuned
from scanonce.storage.vectors.recall import Point, num_affordable, synthetic_queries, tuned_settings

LOWEST_TARGET, HIGHEST_TARGET = 0.5, 0.999
"""Bounds of the recall that can be asked for; only exact search finds everything."""

NUM_SYNTHETIC = 512


def tune(
    vectors_dir: Path,
    dim: int,
    live_videos: Iterable[int],
    *,
    target_recall: float = 0.95,
    queries: NDArray[np.float32] | None = None,
    on_progress: Callable[[Point], None] | None = None,
) -> TunedSettings | None:
    """Find the cheapest settings with sufficient recall, and publish them with the newest generation.

    Recall is the share of the ten best clips, by exact search of all clips with codes, that a search by codes finds.
    The lower bound of the recall of other queries must reach the target (`recall_lower_bound`), so the given queries
    find more than the target; the fewer they are, the more. Cost: half a CPU minute and 70 MB at a million clips of 512
    dimensions and at ten million, where fewer queries are measured (`num_affordable`). Call it while holding the index
    for writing.

    Args:
        vectors_dir: the directory of the generations.
        dim: length of an embedding.
        live_videos: ids of all searchable videos; any order.
        target_recall: share of the ten best clips to be found, `LOWEST_TARGET` to `HIGHEST_TARGET`.
        queries: ``[num_queries, dim]`` embeddings of texts that people may ask for, 100 or more. Default:
            `synthetic_queries`, which are no embeddings of texts.
        on_progress: called with each point as it is measured.

    Returns:
        The chosen settings; their recall is below the target if no settings reach it. ``None`` for an index that is
        flat or empty: its search is exact, there is nothing to tune.

    Raises:
        ValueError: the target is out of bounds, or the queries do not fit.
        ManifestMismatch: the directory holds embeddings of another length.
        IndexDirectoryError: it cannot be read or written.
    """
    if not LOWEST_TARGET <= target_recall <= HIGHEST_TARGET:
        raise ValueError(
            f"target_recall must be {LOWEST_TARGET} to {HIGHEST_TARGET}; got {target_recall}"
        )
    if queries is not None and (queries.ndim != 2 or not len(queries) or queries.shape[1] != dim):
        raise ValueError(f"queries must be [1 or more, {dim}]; got {list(queries.shape)}")
    generation = newest_generation(vectors_dir, dim=dim)
    if generation is None or generation.info.kind == "flat":
        return None
    index = _base(generation)
    asked = synthetic_queries(index.rows, NUM_SYNTHETIC) if queries is None else queries
    allowed = index.rows.mask(np.fromiter(live_videos, np.int64))
    tuned = tuned_settings(
        index,
        asked[: num_affordable(len(asked), len(index))],
        target_recall=target_recall,
        source="stand-in" if queries is None else "text",
        allowed=None if allowed.all() else allowed,
        on_progress=on_progress,
    )
    publish_tuned(vectors_dir, tuned, asked, dim=dim)
    return tuned


def _base(generation: Generation) -> IvfPqIndex:
    """Return the part with codes; the delta is searched exactly, whatever the settings."""
    base = generation.indexes()[0]
    assert isinstance(base, IvfPqIndex)
    return base
