"""Clocks of files that are set anew, and pictures that are held for long."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from scanonce.media.audio import Audio
from scanonce.media.cut import frame_jpeg, write_proxy
from scanonce.media.open import open_video
from scanonce.media.sampling import SampledFrame, Sampling
from scanonce.media.seek import Entry
from tests.odd_videos import image_in, write_numbers
from tests.videos import read_number, write_audio, write_video


def sample(path: Path, fps: float, mode: Any = "uniform") -> tuple[list[SampledFrame], float]:
    """Return all frames and the end of the video."""
    with open_video(path, sampling=Sampling(mode, fps)) as source:
        return list(source.frames()), source.end_seconds


def write_joined(path: Path, offset_seconds: int) -> Path:
    """Write two recordings of 2 s, one after another; the clock of the second starts ``offset_seconds`` later."""
    for number, offset in enumerate((max(0, -offset_seconds), max(0, offset_seconds))):
        part = write_video(
            path.with_stem(f"part{number}"),
            num_frames=60,
            codec="mpeg2video",
            with_audio=path.suffix == ".ts",
            container_options={"output_ts_offset": str(offset)},
        )
        with path.open("ab") as joined:
            joined.write(part.path.read_bytes())
    return path


@pytest.mark.parametrize("offset_seconds", [18_000, -18_000])
@pytest.mark.parametrize(
    ("name", "mode"), [("a.ts", "uniform"), ("a.ts", "keyframes"), ("a.mpg", "uniform")]
)
def test_joined_recordings_go_on_where_the_first_one_ends(
    tmp_path: Path, offset_seconds: int, name: str, mode: str
) -> None:
    frames, end = sample(write_joined(tmp_path / name, offset_seconds), 5.0, mode)
    assert read_number(frames[-1].image) >= 48, "the second recording was decoded"
    assert frames[-1].pts_seconds == pytest.approx(4.0, abs=0.5)
    assert end == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize("offset_seconds", [18_000, -18_000])
def test_the_proxy_of_joined_recordings_has_picture_and_sound_of_both(
    tmp_path: Path, offset_seconds: int
) -> None:
    write_proxy(write_joined(tmp_path / "a.ts", offset_seconds), tmp_path / "proxy.mp4")
    with av.open(str(tmp_path / "proxy.mp4")) as proxy:
        for stream in proxy.streams:
            assert stream.duration is not None
            assert stream.time_base is not None
            assert float(stream.duration * stream.time_base) == pytest.approx(4.0, abs=0.3)


def test_a_picture_held_while_the_sound_goes_on_is_no_jump_of_the_clock(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "held.ts",
        pts=[0, 50, 1650, 4000],
        time_base=Fraction(1, 100),
        with_audio=True,
        options={"bf": "0"},
    )
    frames, _ = sample(video.path, 1.0)
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0.0, 0.5, 16.5, 40.0])


@pytest.mark.parametrize("with_audio", [True, False])
@pytest.mark.parametrize("held_seconds", [10, 30, 200])
def test_a_picture_held_while_others_wait_to_be_decoded_is_no_jump_of_the_clock(
    tmp_path: Path, with_audio: bool, held_seconds: int
) -> None:
    """With frames out of order, a packet after the hold is decoded before it."""
    video = write_video(
        tmp_path / "held.ts",
        pts=[*range(20), *range(20 + 10 * held_seconds, 40 + 10 * held_seconds)],
        time_base=Fraction(1, 10),
        with_audio=with_audio,
        options={"bf": "3"},
    )
    frames, end = sample(video.path, 10.0)
    assert [read_number(frame.image) for frame in frames] == list(range(40))
    assert [frame.pts_seconds for frame in frames] == pytest.approx(video.pts_seconds, abs=1e-3)
    assert end == pytest.approx(4.0 + held_seconds, abs=0.2)
    number = read_number(image_in(frame_jpeg(video.path, video.pts_seconds[38] + 0.05)))
    assert number == 38


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_long_gap_in_other_containers_is_a_held_picture(tmp_path: Path, ending: str) -> None:
    video = write_video(tmp_path / f"held.{ending}", pts=[0, 200, 18_000], time_base=Fraction(1, 1))
    frames, _ = sample(video.path, 1.0)
    assert [frame.pts_seconds for frame in frames] == [0.0, 200.0, 18_000.0]


def test_silence_counts_as_progress(tmp_path: Path) -> None:
    ticks: list[None] = []
    path = write_audio(tmp_path / "a.m4a")
    audio = Audio(path, lambda: ticks.append(None), Entry(0.0), np.inf)  # type: ignore[arg-type]
    seconds = sum(part.shape[1] for part in audio._silence(60 * audio.rate)) / audio.rate
    audio.close()
    assert seconds == 60.0
    assert len(ticks) >= 60


@pytest.mark.parametrize("clocks", [(0.0, 0.0, 0.0), (0.0, 100.0, 3.0)])
@pytest.mark.parametrize("ending", ["mpg", "vob"])
def test_packets_without_a_time_follow_those_before(
    tmp_path: Path, ending: str, clocks: tuple[float, ...]
) -> None:
    """Program streams of H.264, as video recorders export them, state a time for key frames only."""
    path = tmp_path / f"joined.{ending}"
    with path.open("wb") as joined:
        for index, clock in enumerate(clocks):
            part = write_numbers(
                tmp_path / f"{index}.part.{ending}",
                range(40 * index, 40 * index + 40),
                clock_seconds=clock,
                options={"bf": "0", "sc_threshold": "0"},
            )
            joined.write(part.read_bytes())
    frames, end = sample(path, 2.0)
    assert [read_number(frame.image) for frame in frames] == list(range(0, 120, 5))
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(24) / 2, abs=0.01)
    assert end == pytest.approx(12.0, abs=0.01)


@pytest.mark.parametrize("reordered", [0, 2])
def test_the_last_frame_before_a_jump_has_its_own_time(tmp_path: Path, reordered: int) -> None:
    path = tmp_path / "joined.vob"
    with path.open("wb") as joined:
        for index, clock in enumerate((0.0, 100.0)):
            part = write_numbers(
                tmp_path / f"{index}.part.vob",
                range(40 * index, 40 * index + 40),
                clock_seconds=clock,
                codec="mpeg2video",
                options={"bf": str(reordered), "qscale": "3"},
                fps=25,
            )
            joined.write(part.read_bytes())
    frames, _ = sample(path, 25.0)
    assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(80) / 25, abs=1e-3)


def test_a_matroska_file_that_begins_late_is_whole_and_as_long_as_its_frames(
    tmp_path: Path,
) -> None:
    """Its stated length is the end on its own clock."""
    path = write_video(tmp_path / "late.mkv", pts=range(36_000, 36_030), fps=10).path
    with open_video(path, sampling=Sampling("uniform", 2.0)) as source:
        assert len(list(source.frames())) == 6
        assert source.problem is None
        assert source.info.duration_seconds == pytest.approx(3.0, abs=0.01)
        assert source.end_seconds == pytest.approx(3.0, abs=0.01)
