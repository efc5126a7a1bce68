"""Batches that cross the borders of videos, with an encoder that records its batches."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scanonce.indexer.encode import EncodedVideo, encode_videos
from scanonce.media.answers import Event, Failed, Finished, Frames, NewThumbnails, Opened
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails

INFO = VideoInfo(10.0, 8, 8, 25.0, "h264")


class Recorder:
    """Returns the first byte of each frame as its feature, and records the sizes of batches."""

    name = fingerprint = "recorder"
    dim = 1
    head_files = ()
    batch_frames = 4
    preprocessing = Preprocessing(None, (8, 8), None, "bicubic", (0, 0, 0), (1, 1, 1))

    def __init__(self, max_concurrency: int = 1) -> None:
        self.max_concurrency = max_concurrency
        self.batches: list[int] = []

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(frames))
        return frames[:, 0, 0, :1].astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError("indexing encodes no text")

    def read(self, text: str) -> Reading:
        return Reading()

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        raise AssertionError("indexing encodes no text")


def frames(job: int, values: list[int]) -> Frames:
    images = np.zeros((len(values), 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = values
    return Frames(job, np.array(values, np.float64), images)


@given(
    st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=6), max_size=6),
    st.integers(1, 10),
    st.integers(1, 3),
    st.randoms(),
)
def test_every_video_gets_its_own_frames_in_order_whatever_the_interleaving(
    videos: list[list[int]], batch_frames: int, max_concurrency: int, random: object
) -> None:
    """``videos`` has the sizes of the messages of each video."""
    queues: list[list[Event]] = []
    for job, sizes in enumerate(videos):
        numbers = iter(range(sum(sizes)))
        queue: list[Event] = [Opened(job, INFO)]
        queue += [frames(job, [next(numbers) for _ in range(size)]) for size in sizes]
        queues.append([*queue, Finished(job, float(sum(sizes)), None)])
    events: list[Event] = []
    while any(queues):
        queue = random.choice([queue for queue in queues if queue])  # type: ignore[attr-defined]
        events.append(queue.pop(0))
    recorder = Recorder(max_concurrency)
    done = list(encode_videos(events, recorder, batch_frames=batch_frames, fps=1.0))
    assert sorted(video.job for video in done) == list(range(len(videos)))
    for video in done:
        assert isinstance(video, EncodedVideo)
        expected = list(range(sum(videos[video.job])))
        assert video.features.frames[:, 0].tolist() == expected
        assert video.features.pts_seconds.tolist() == expected
    short = [size for size in recorder.batches if size != batch_frames]
    assert len(short) <= 1, "only the last batch is short"


def test_a_video_is_given_as_soon_as_its_last_frame_is_encoded() -> None:
    def events() -> object:
        yield Opened(0, INFO)
        yield frames(0, [1, 2])
        yield Finished(0, 1.0, None)
        yield Opened(1, INFO)
        yield frames(1, [3, 4, 5, 6])
        yield frames(1, [7, 8])
        raise AssertionError("video 0 should have been given by now")

    first = next(encode_videos(events(), Recorder(), batch_frames=4, fps=1.0))  # type: ignore[arg-type]
    assert first.job == 0


def test_a_video_that_fails_half_way_is_dropped_and_reported() -> None:
    events: list[Event] = [
        *(Opened(0, INFO), frames(0, [1, 2, 3]), Opened(1, INFO), frames(1, [9])),
        *(Failed(0, "crashed"), Finished(1, 1.0, "cut off")),
    ]
    recorder = Recorder()
    failed, kept = encode_videos(events, recorder, batch_frames=8, fps=1.0)
    assert failed == Failed(0, "crashed")
    assert isinstance(kept, EncodedVideo)
    assert (kept.job, kept.problem) == (1, "cut off")
    assert recorder.batches == [1], "frames of the failed video are not encoded for nothing"


def test_thumbnails_stay_with_their_video() -> None:
    def thumbnails(job: int, *times: float) -> NewThumbnails:
        jpegs = tuple(f"{job} at {time}".encode() for time in times)
        return NewThumbnails(job, Thumbnails(np.array(times), jpegs))

    events: list[Event] = [
        *(Opened(0, INFO), Opened(1, INFO), Opened(2, INFO)),
        *(thumbnails(1, 0.0), thumbnails(0, 0.0, 1.0), thumbnails(1, 1.0), thumbnails(0, 2.0)),
        *(frames(0, [1]), frames(1, [2]), frames(2, [3])),
        *(Finished(0, 3.0, None), Finished(1, 2.0, None), Finished(2, 1.0, None)),
    ]
    done = {
        video.job: video for video in encode_videos(events, Recorder(), batch_frames=4, fps=1.0)
    }
    for job, times in enumerate(([0.0, 1.0, 2.0], [0.0, 1.0], [])):
        video = done[job]
        assert isinstance(video, EncodedVideo)
        assert video.thumbnails.pts_seconds.tolist() == times
        assert video.thumbnails.jpegs == tuple(f"{job} at {time}".encode() for time in times)


@pytest.mark.parametrize("problem", [None, "cut off"])
def test_a_video_without_a_frame_has_failed(problem: str | None) -> None:
    (video,) = encode_videos(
        [Opened(0, INFO), Finished(0, 0.0, problem)], Recorder(), batch_frames=4, fps=1.0
    )
    assert isinstance(video, Failed)
    assert (problem or "no frame") in video.reason


# ---- encoders with a time axis


class WindowRecorder(Recorder):
    """Returns the first byte of each frame of a window."""

    def __init__(self, frames: int, hop: int) -> None:
        super().__init__()
        self.window = (frames, hop)
        self.dim = frames

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(frames))
        assert frames.shape[1:] == (self.dim, 8, 8, 3)
        return frames[:, :, 0, 0, 0].astype(np.float32)


def encoded(events: list[Event], recorder: Recorder, fps: float = 1.0) -> EncodedVideo:
    (video,) = encode_videos(events, recorder, batch_frames=2, fps=fps)
    assert isinstance(video, EncodedVideo)
    return video


def test_a_vector_stands_for_its_hop_at_the_centre_of_its_window() -> None:
    events: list[Event] = [Opened(0, INFO), frames(0, list(range(7))), Finished(0, 7.0, None)]
    video = encoded(events, WindowRecorder(4, 2))
    # the first and the last frame fill the gaps at the ends
    expected = [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 6, 6]]
    assert video.features.frames.tolist() == expected
    assert video.features.pts_seconds.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_picture_that_is_held_fills_as_many_places_as_it_is_long() -> None:
    held = frames(0, [0, 5, 6])
    events: list[Event] = [Opened(0, INFO), held, Finished(0, 8.0, None)]
    video = encoded(events, WindowRecorder(4, 2))
    assert video.features.frames.tolist() == [[0, 0, 0, 0], [0] * 4, [0, 0, 5, 6], [5, 6, 6, 6]]
    assert video.features.pts_seconds.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_picture_that_begins_late_is_stored_from_then_on() -> None:
    late = Frames(0, np.array([2.75, 3.25]), frames(0, [1, 2]).images)
    events: list[Event] = [Opened(0, INFO), late, Finished(0, 4.0, None)]
    video = encoded(events, WindowRecorder(2, 1), fps=2.0)
    assert video.features.pts_seconds.tolist() == [3.0, 3.5]
    assert video.features.frames.tolist() == [[1, 2], [2, 2]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 3))
def test_windows_do_not_depend_on_how_frames_arrive(
    sizes: list[int], length: int, hop: int
) -> None:
    total = sum(sizes)
    numbers = iter(range(total))
    parts = [frames(0, [next(numbers) for _ in range(size)]) for size in sizes]
    end = Finished(0, float(total), None)
    apart = encoded([Opened(0, INFO), *parts, end], WindowRecorder(length, min(hop, length)))
    whole: list[Event] = [Opened(0, INFO), frames(0, list(range(total))), end]
    together = encoded(whole, WindowRecorder(length, min(hop, length)))
    assert apart.features.frames.tolist() == together.features.frames.tolist()
    assert apart.features.pts_seconds.tolist() == together.features.pts_seconds.tolist()
    assert len(together.features.frames) == -(-total // min(hop, length))


def test_windows_of_a_failed_video_are_dropped() -> None:
    events: list[Event] = [Opened(0, INFO), frames(0, [1, 2]), Failed(0, "broken"), Opened(1, INFO)]
    events += [frames(1, [7]), Finished(1, 1.0, None)]
    failed, video = encode_videos(events, WindowRecorder(4, 2), batch_frames=2, fps=1.0)
    assert isinstance(failed, Failed)
    assert isinstance(video, EncodedVideo)
    assert video.features.frames.tolist() == [[7, 7, 7, 7]]
