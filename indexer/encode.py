"""Frames of many videos to features, in batches that cross the borders of videos.

A short video does not make the encoder run half empty, and a long one holds no more memory than its features.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.workers import Event, Failed, Finished, Frames, Opened
from models.encoder import ClipEncoder
from storage.features import FrameFeatures
from storage.records import VideoInfo


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """All of a video that could be decoded, encoded."""

    job: int
    """Position of the file among those decoded."""
    info: VideoInfo
    features: FrameFeatures
    duration_seconds: float
    """End of the last decoded frame."""
    problem: str | None
    """Why it is not all of the video."""


@dataclass(slots=True)
class _Open:
    """A video whose frames are coming in."""

    info: VideoInfo
    pts: list[NDArray[np.float64]] = field(default_factory=list)
    features: list[NDArray[np.float16]] = field(default_factory=list)
    num_waiting: int = 0
    finished: Finished | None = None


def encode_videos(
    events: Iterable[Event], encoder: ClipEncoder, *, batch_frames: int
) -> Iterator[EncodedVideo | Failed]:
    """Encodes frames as they come; gives each video as soon as its last frame is encoded.

    Args:
        events: of `DecodePool.decode`; those of one file in order.
        encoder: its ``encode_frames`` gets ``batch_frames`` at a time, fewer only at the very end.
        batch_frames: at least 1.
    """
    videos: dict[int, _Open] = {}
    waiting: deque[Frames] = deque()
    for event in events:
        match event:
            case Opened(job, info):
                videos[job] = _Open(info)
            case Frames(job, pts, images):
                videos[job].pts.append(pts)
                videos[job].num_waiting += len(images)
                waiting.append(event)
                while sum(len(frames.images) for frames in waiting) >= batch_frames:
                    _encode_batch(waiting, batch_frames, videos, encoder)
            case Finished(job):
                videos[job].finished = event
            case Failed(job):
                videos.pop(job, None)
                waiting = deque(frames for frames in waiting if frames.job != job)
                yield event
        yield from _complete(videos)
    while waiting:
        _encode_batch(waiting, batch_frames, videos, encoder)
    yield from _complete(videos)


def _encode_batch(
    waiting: deque[Frames], batch_frames: int, videos: dict[int, _Open], encoder: ClipEncoder
) -> None:
    """Encodes the first ``batch_frames`` waiting frames and hands the features to their videos."""
    batch: list[tuple[int, NDArray[np.uint8]]] = []
    room = batch_frames
    while waiting and room:
        frames = waiting.popleft()
        batch.append((frames.job, frames.images[:room]))
        if len(frames.images) > room:  # the rest waits for the next batch
            waiting.appendleft(Frames(frames.job, frames.pts_seconds[room:], frames.images[room:]))
        room -= len(batch[-1][1])
    features = encoder.encode_frames(np.concatenate([images for _, images in batch]))
    row = 0
    for job, images in batch:
        videos[job].features.append(features[row : row + len(images)].astype(np.float16))
        videos[job].num_waiting -= len(images)
        row += len(images)


def _complete(videos: dict[int, _Open]) -> Iterator[EncodedVideo | Failed]:
    """Takes out the videos that are finished and have no frame waiting."""
    for job in [job for job, video in videos.items() if video.finished and not video.num_waiting]:
        video = videos.pop(job)
        assert video.finished is not None
        if not video.features:
            yield Failed(job, video.finished.problem or "it has no frame that could be decoded")
            continue
        features = FrameFeatures(np.concatenate(video.features), np.concatenate(video.pts))
        yield EncodedVideo(
            job, video.info, features, video.finished.end_seconds, video.finished.problem
        )
