"""The cache of frames: the frames of a part, no second decoding, and bad videos."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.clip.frame_cache import CacheProblem, FrameCache, VideoPart, choose_frames
from tests.videos import cut, read_number, write_video

STEPS = Preprocessing(
    short_side=None,
    exact_size=(96, 128),
    crop=None,
    resample="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def build(folder: Path, *parts: VideoPart, max_frames: int = 4) -> FrameCache:
    return FrameCache.build(
        folder, parts, preprocessing=STEPS, fps=2.0, max_frames=max_frames, workers=1
    )


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    assert frames.dtype == np.uint8
    assert frames.shape[1:] == (96, 128, 3)
    return [read_number(frame) for frame in frames]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Frames 0 to 59 at 10 a second: at 2 a second those are 0, 5, 10 ... 55."""
    return write_video(tmp_path / "a.mp4", num_frames=60, fps=10).path


def test_a_video_is_decoded_once_for_the_frames_of_all_its_parts(
    video: Path, tmp_path: Path
) -> None:
    spans = (None, Span(1.0, 2.5), Span(1.1, 1.2), Span(9.0, 12.0))
    cache = build(tmp_path / "cache", *(VideoPart(video, span) for span in spans))
    assert numbers(cache.frames(0)) == [0, 15, 35, 55]
    assert numbers(cache.frames(1)) == [10, 15, 20]
    assert numbers(cache.frames(2)) == [10]
    assert cache.kept == [0, 1, 2]
    assert cache.num_decoded == 1
    assert cache.problems == (CacheProblem(video, "it ends before its part from 9 s on", True),)
    with pytest.raises(KeyError):
        cache.frames(3)


def test_a_later_run_decodes_only_new_videos_and_recognises_moved_ones(
    video: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    first = build(folder, VideoPart(video))
    moved = video.rename(tmp_path / "moved.mp4")
    other = write_video(tmp_path / "b.mp4", num_frames=7, fps=2).path
    again = build(folder, VideoPart(moved))
    assert again.num_decoded == 0
    more = build(folder, VideoPart(other, Span(1, 2)), VideoPart(moved))
    assert more.num_decoded == 1
    assert numbers(more.frames(0)) == [2, 3]
    assert numbers(first.frames(0)) == numbers(again.frames(0)) == numbers(more.frames(1))


def test_other_settings_have_frames_of_their_own(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    four = build(folder, VideoPart(video))
    two = build(folder, VideoPart(video), max_frames=2)
    assert two.num_decoded == 1
    assert numbers(two.frames(0)) == [0, 55]
    assert len(four.frames(0)) == 4


def test_leftovers_of_a_run_that_died_are_cut_off(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    build(folder, VideoPart(video, Span(0, 1)))
    (data,) = folder.glob("*.frames")
    with data.open("ab") as file:
        file.write(b"half a frame")
    cache = build(folder, VideoPart(video, Span(0, 1)), VideoPart(video, Span(2, 3)))
    assert numbers(cache.frames(0)) == [0, 5]
    assert numbers(cache.frames(1)) == [20, 25]


@pytest.mark.parametrize("damage", ["index", "frames"])
def test_a_damaged_cache_is_decoded_again(video: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache"
    build(folder, VideoPart(video))
    (index,), (data,) = folder.glob("*.json"), folder.glob("*.frames")
    if damage == "index":
        index.write_text("{")
    else:
        data.write_bytes(data.read_bytes()[:-1])
    cache = build(folder, VideoPart(video))
    assert cache.num_decoded == 1
    assert numbers(cache.frames(0)) == [0, 15, 35, 55]


def test_bad_videos_are_reported_and_left_out_and_incomplete_ones_kept(
    video: Path, tmp_path: Path
) -> None:
    whole = write_video(tmp_path / "long.ts", num_frames=200, fps=10).path
    half = cut(whole, tmp_path / "half.ts", 0.5)
    empty, gone = tmp_path / "empty.mp4", tmp_path / "gone.mp4"
    empty.touch()
    seen: list[tuple[int, int]] = []
    cache = FrameCache.build(
        tmp_path / "cache",
        [VideoPart(path) for path in (empty, gone, video, half)],
        preprocessing=STEPS,
        max_frames=2,
        workers=1,
        on_progress=lambda *counts: seen.append(counts),
    )
    assert cache.kept == [2, 3]
    assert {problem.video for problem in cache.problems if problem.is_left_out} == {empty, gone}
    assert numbers(cache.frames(2)) == [0, 50]
    assert seen[-1] == (4, 4)


def test_zero_frames_or_a_rate_of_zero_are_refused(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one frame"):
        build(tmp_path / "cache", VideoPart(video), max_frames=0)
    with pytest.raises(ConfigError, match="frames per second"):
        FrameCache.build(tmp_path / "cache", [VideoPart(video)], preprocessing=STEPS, fps=0.0)


@pytest.mark.parametrize(
    ("span", "most", "chosen"),
    [
        (None, 9, [0, 1, 2, 3, 4]),
        (None, 2, [0, 4]),
        (None, 1, [2]),
        (Span(0.5, 4.0), 3, [1, 2, 3]),
        (Span(0.5, 4.0), 2, [1, 3]),
        (Span(2.1, 2.3), 2, [2]),
        (Span(4.4, 9.0), 2, [4]),
        (Span(4.5, 9.0), 2, []),
    ],
)
def test_frames_are_chosen_evenly_inside_a_part(
    span: Span | None, most: int, chosen: list[int]
) -> None:
    assert choose_frames(np.arange(5.0), span, 4.5, most, 1.0).tolist() == chosen


def test_a_picture_that_is_held_is_chosen_as_often_as_it_is_on_screen() -> None:
    pts = np.array([0.0, 1.2, 60.0])
    assert choose_frames(pts, Span(0.0, 3.0), 90.0, 9, 2.0).tolist() == [0, 0, 0, 1, 1, 1]
    assert choose_frames(pts, Span(30.0, 90.0), 90.0, 4, 2.0).tolist() == [1, 1, 2, 2]
