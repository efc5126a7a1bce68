"""The level of frame scores in an index whose clips are pooled by a head.

The curve of frame scores is measured from the level of the library (`search.curve.z_scores`). If clips are means of
frames, their scores give that level. A head moves clips elsewhere in the joint space but not frames.
For such an index, means of a sample of clips are computed from the stored frames, once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanonce.models.vectors import pool_spans, unit
from scanonce.storage.clips import ClipGrid
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.records import Video
from scanonce.storage.stores.features import FeatureStore

_VIDEOS, _CLIPS_EACH = 256, 4


def draw_means(
    videos: Sequence[Video], features: FeatureStore, grid: ClipGrid
) -> NDArray[np.float32]:
    """Return the means of a fixed random sample of clips; videos that cannot be read are left out.

    Reads a few stored frames of 256 videos, which takes less than 0.1 s.

    Returns:
        ``[num_clips, dim]`` float32 of length 1, 1,024 clips in a large library; ``[0, 0]`` without a clip.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(videos), min(_VIDEOS, len(videos)), replace=False)
    means = []
    for video in (videos[position] for position in np.sort(chosen).tolist()):
        spans = grid.spans(video.duration_seconds)
        drawn = rng.choice(len(spans), min(_CLIPS_EACH, len(spans)), replace=False)
        try:
            clips = features.read_between(video.uid, [(a, b) for a, b in spans[drawn].tolist()])
        except IndexDirectoryError:
            continue
        means += [
            pool_spans(unit(clip.frames), clip.pts_seconds, span[None], clip.fps)[0]
            for clip, span in zip(clips, spans[drawn], strict=True)
            if len(clip.frames)
        ]
    return np.stack(means) if means else np.zeros((0, 0), np.float32)
