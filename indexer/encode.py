"""Encodes the frames of many videos in batches that cross the borders of videos.

Batches are full even if videos are short, and a long video takes no more memory than its features and thumbnails.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scanonce.media.answers import Event, FactsRead, Failed, Finished, Frames, NewThumbnails, Opened
from scanonce.media.windows import windowed
from scanonce.models.encoders.protocol import ClipEncoder, window_of
from scanonce.storage.facts import NO_FACTS, Facts
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.features import FrameFeatures
from scanonce.storage.stores.thumbnails import Thumbnails


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """The encoded frames of a video, as far as it could be decoded."""

    job: int
    """Index of the file among those decoded."""
    info: VideoInfo
    features: FrameFeatures
    thumbnails: Thumbnails
    """Empty if none were requested."""
    duration_seconds: float
    """End of the last decoded frame."""
    problem: str | None
    """Why a part of the video is missing; None if it is complete."""
    facts: Facts = NO_FACTS
    """Statements of the file about its recording."""


@dataclass(slots=True)
class _Open:
    """A video in work, with the results so far."""

    info: VideoInfo
    facts: Facts = NO_FACTS
    pts: list[NDArray[np.float64]] = field(default_factory=list)
    features: list[NDArray[np.float16]] = field(default_factory=list)
    thumbnails: list[Thumbnails] = field(default_factory=list)
    num_waiting: int = 0
    finished: Finished | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Frames of one or more videos on their way through the encoder."""

    parts: list[tuple[int, int]]
    """(job, number of frames) in the order of the frames."""
    features: Future[NDArray[np.float32]]


def encode_videos(
    events: Iterable[Event], encoder: ClipEncoder, *, batch_frames: int, fps: float
) -> Iterator[EncodedVideo | Failed]:
    """Encode frames as they arrive, and yield each video as soon as its last frame is encoded.

    On a CPU several batches are encoded at once, each by one thread; `models.runtime.use_one_thread` explains why.

    Args:
        events: events of `DecodePool.decode`; those of one file in order.
        encoder: its ``encode_frames`` gets ``batch_frames`` frames per call, fewer only in the last calls, and is
            called from ``encoder.max_concurrency`` threads.
        batch_frames: at least 1.
        fps: targets per second of the sampling.
    """
    if window := window_of(encoder):
        events = windowed(events, window, fps)
    videos: dict[int, _Open] = {}
    facts: dict[int, Facts] = {}
    waiting: deque[Frames] = deque()
    running: deque[_Batch] = deque()
    with ThreadPoolExecutor(encoder.max_concurrency, "encode") as pool:
        for event in events:
            match event:
                case FactsRead(job, stated):
                    facts[job] = stated
                case Opened(job, info):
                    videos[job] = _Open(info, facts.pop(job, NO_FACTS))
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
                    facts.pop(job, None)
                    waiting = deque(frames for frames in waiting if frames.job != job)
                    yield event
            while sum(len(frames.images) for frames in waiting) >= batch_frames:
                running.append(_start_batch(waiting, batch_frames, encoder, pool))
                _collect(running, videos, leave=encoder.max_concurrency)
            _collect(running, videos, leave=encoder.max_concurrency)
            yield from _complete(videos, fps)
        while waiting:
            running.append(_start_batch(waiting, batch_frames, encoder, pool))
        _collect(running, videos, leave=0)
    yield from _complete(videos, fps)


def _start_batch(
    waiting: deque[Frames], batch_frames: int, encoder: ClipEncoder, pool: ThreadPoolExecutor
) -> _Batch:
    """Send the first ``batch_frames`` waiting frames to the encoder."""
    parts: list[tuple[int, NDArray[np.uint8]]] = []
    room = batch_frames
    while waiting and room:
        frames = waiting.popleft()
        parts.append((frames.job, frames.images[:room]))
        if len(frames.images) > room:  # the others wait for the next batch
            rest = Frames(frames.job, frames.pts_seconds[room:], frames.images[room:])
            waiting.appendleft(rest)
        room -= len(parts[-1][1])
    images = np.concatenate([images for _, images in parts])
    return _Batch(
        [(job, len(images)) for job, images in parts], pool.submit(encoder.encode_frames, images)
    )


def _collect(running: deque[_Batch], videos: dict[int, _Open], *, leave: int) -> None:
    """Add the features of batches that are done to their videos; wait for the oldest while more than ``leave`` run."""
    while running and (len(running) > leave or running[0].features.done()):
        batch = running.popleft()
        features = batch.features.result().astype(np.float16)
        row = 0
        for job, count in batch.parts:
            if job in videos:  # it may have failed since
                videos[job].features.append(features[row : row + count])
                videos[job].num_waiting -= count
            row += count


def _complete(videos: dict[int, _Open], fps: float) -> Iterator[EncodedVideo | Failed]:
    """Remove and yield the videos that are finished and have no frame waiting."""
    for job in [job for job, video in videos.items() if video.finished and not video.num_waiting]:
        video = videos.pop(job)
        assert video.finished is not None
        if not video.features:
            yield Failed(job, video.finished.problem or "it has no frame that could be decoded")
            continue
        features = FrameFeatures(np.concatenate(video.features), np.concatenate(video.pts), fps)
        yield EncodedVideo(
            job,
            video.info,
            features,
            Thumbnails.join(video.thumbnails),
            video.finished.end_seconds,
            video.finished.problem,
            video.facts,
        )
