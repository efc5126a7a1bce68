"""How high a query scores pictures as such, in an index whose clips are pooled by a head.

The curve of frame scores is judged by the library's level (`search.curve.z_scores`). Where clips are means of frames
their scores give that level. A head moves them elsewhere in the joint space, frames stay where they were: so means of
clips are drawn from the stored frames, once, as the yardstick for frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import mean_pool
from scanonce.storage.clips import ClipGrid
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.records import Video
from scanonce.storage.stores.features import FeatureStore

_VIDEOS, _CLIPS_EACH = 256, 4


def draw_means(
    videos: Sequence[Video], features: FeatureStore, grid: ClipGrid
) -> NDArray[np.float32]:
    """Means of clips drawn from some of the videos, always the same ones; videos that cannot be read are left out.

    Costs a few stored frames of 256 videos: less than a tenth of a second.

    Returns:
        ``[num_clips, dim]`` float32 of length 1, 1,024 in a large library; ``[0, 0]`` where there is none.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(videos), min(_VIDEOS, len(videos)), replace=False)
    means = []
    for video in (videos[place] for place in np.sort(chosen).tolist()):
        spans = grid.spans(video.duration_seconds)
        drawn = rng.choice(len(spans), min(_CLIPS_EACH, len(spans)), replace=False)
        try:
            clips = features.read_between(video.uid, [(a, b) for a, b in spans[drawn].tolist()])
        except IndexDirectoryError:
            continue
        means += [mean_pool(clip.frames) for clip in clips if len(clip.frames)]
    return np.stack(means) if means else np.zeros((0, 0), np.float32)
