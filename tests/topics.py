"""Drawn clips around topics, which a search by codes finds well, and libraries made of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.records import Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.flat import search_exactly
from scanonce.storage.vectors.generation import Generation
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.publish import publish
from scanonce.storage.vectors.recall import RECALL_AT, recall
from scanonce.storage.vectors.rows import ClipRows
from tests.oracle import Load

DIM = 32
CLIPS_A_VIDEO = 60
SETTINGS = StorageSettings(ivf_threshold=11_000, fold_rows=600)


def topic_clips(video: int, first_topic: int = 0) -> NDArray[np.float32]:
    """Return 60 unit clips around one of 100 topics."""
    rng = np.random.default_rng(video)
    topic = np.random.default_rng((first_topic, video % 100)).standard_normal(DIM)
    clips = topic + 0.7 * rng.standard_normal((CLIPS_A_VIDEO, DIM))
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    unit: NDArray[np.float32] = clips.astype(np.float32, copy=False)
    return unit


def topic_clips_of(video: Video) -> NDArray[np.float32]:
    return topic_clips(video.video_id)


def strange_clips(video: int) -> NDArray[np.float32]:
    """Return clips; videos after the first 200 show topics that those do not."""
    return topic_clips(video, first_topic=0 if video < 200 else 1)


def rows_of_topics(num_videos: int) -> ClipRows:
    return ClipRows.of(range(num_videos), [topic_clips(video) for video in range(num_videos)])


def near_topics() -> NDArray[np.float32]:
    """Queries near one clip of each of 96 topics."""
    near = np.concatenate([topic_clips(video)[:1] for video in range(96)])
    near += 0.1 * np.random.default_rng(0).standard_normal(near.shape, np.float32)
    return near


def found_share(index: IvfPqIndex, queries: NDArray[np.float32]) -> float:
    _, found = index.search(queries, RECALL_AT)
    return recall(found, search_exactly(index.rows, queries, RECALL_AT)[1])


def bring_up(
    vectors: Path,
    last: int,
    settings: StorageSettings = SETTINGS,
    *,
    first: int = 0,
    load: Load = topic_clips,
) -> Generation:
    generation = publish(vectors, range(first, last), load, dim=DIM, settings=settings)
    assert generation is not None
    return generation
