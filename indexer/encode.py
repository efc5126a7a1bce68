"""Frames of many videos to features, in batches that cross the borders of videos.

A short video does not make the encoder run half empty, and a long one holds no more memory than its features and
thumbnails.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scanonce.media.answers import Event, Failed, Finished, Frames, NewThumbnails, Opened
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.features import FrameFeatures
from scanonce.storage.stores.thumbnails import Thumbnails


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """All of a video that could be decoded, encoded."""

    job: int
    """Position of the file among those decoded."""
    info: VideoInfo
    features: FrameFeatures
    thumbnails: Thumbnails
    """Empty where none were asked for."""
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
    thumbnails: list[Thumbnails] = field(default_factory=list)
    num_waiting: int = 0
    finished: Finished | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Frames of one or more videos on their way through the encoder."""

    parts: list[tuple[int, int]]
    """(job, number of frames) in the order they were put together."""
    features: Future[NDArray[np.float32]]


def encode_videos(
    events: Iterable[Event], encoder: ClipEncoder, *, batch_frames: int
) -> Iterator[EncodedVideo | Failed]:
    """Encodes frames as they come; gives each video as soon as its last frame is encoded.

    On a CPU several batches are encoded at once, one thread each (`models.runtime.use_one_thread` says why).

    Args:
        events: of `DecodePool.decode`; those of one file in order.
        encoder: its ``encode_frames`` gets ``batch_frames`` at a time, fewer only at the very end, and is called from
            ``encoder.max_concurrency`` threads.
        batch_frames: at least 1.
    """
    videos: dict[int, _Open] = {}
    waiting: deque[Frames] = deque()
    running: deque[_Batch] = deque()
    with ThreadPoolExecutor(encoder.max_concurrency, "encode") as pool:
        for event in events:
            match event:
                case Opened(job, info):
                    videos[job] = _Open(info)
                case Frames(job, pts, images):
                    videos[job].pts.append(pts)
                    videos[job].num_waiting += len(images)
                    waiting.append(event)
                case NewThumbnails(job, thumbnails):
                    videos[job].thumbnails.append(thumbnails)
                case Finished(job):
                    videos[job].finished = event
                case Failed(job):
                    videos.pop(job, None)
                    waiting = deque(frames for frames in waiting if frames.job != job)
                    yield event
            while sum(len(frames.images) for frames in waiting) >= batch_frames:
                running.append(_start_batch(waiting, batch_frames, encoder, pool))
                _collect(running, videos, leave=encoder.max_concurrency)
            _collect(running, videos, leave=encoder.max_concurrency)
            yield from _complete(videos)
        while waiting:
            running.append(_start_batch(waiting, batch_frames, encoder, pool))
        _collect(running, videos, leave=0)
    yield from _complete(videos)


def _start_batch(
    waiting: deque[Frames], batch_frames: int, encoder: ClipEncoder, pool: ThreadPoolExecutor
) -> _Batch:
    """Sends the first ``batch_frames`` waiting frames to the encoder."""
    parts: list[tuple[int, NDArray[np.uint8]]] = []
    room = batch_frames
    while waiting and room:
        frames = waiting.popleft()
        parts.append((frames.job, frames.images[:room]))
        if len(frames.images) > room:  # the rest waits for the next batch
            rest = Frames(frames.job, frames.pts_seconds[room:], frames.images[room:])
            waiting.appendleft(rest)
        room -= len(parts[-1][1])
    images = np.concatenate([images for _, images in parts])
    return _Batch(
        [(job, len(images)) for job, images in parts], pool.submit(encoder.encode_frames, images)
    )


def _collect(running: deque[_Batch], videos: dict[int, _Open], *, leave: int) -> None:
    """Hands features to their videos: of batches that are done, and of the oldest until ``leave`` are left."""
    while running and (len(running) > leave or running[0].features.done()):
        batch = running.popleft()
        features = batch.features.result().astype(np.float16)
        row = 0
        for job, count in batch.parts:
            if job in videos:  # it may have failed meanwhile
                videos[job].features.append(features[row : row + count])
                videos[job].num_waiting -= count
            row += count


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
            job,
            video.info,
            features,
            Thumbnails.join(video.thumbnails),
            video.finished.end_seconds,
            video.finished.problem,
        )
