"""Frames deep in files that have no index come at their right times, and little is decoded for them."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from scanonce.media.cut import frame_jpeg, write_clip
from scanonce.media.open import open_video
from scanonce.media.sampling import Sampling
from scanonce.media.seek import Reader, Ticker
from scanonce.media.stream import StreamDecoder
from scanonce.storage.records import Span
from tests.odd_videos import FPS, image_in, write_numbers, write_with_still
from tests.videos import draw_number, read_number

GROUP = 20  # frames from one key frame to the next

CODECS: dict[str, dict[str, Any]] = {
    "v.ts": {"codec": "libx264", "options": {"preset": "veryfast", "bf": "2"}},
    "v.m2ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "v.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "v.vob": {"codec": "mpeg2video"},
    "v.mxf": {"codec": "mpeg2video", "options": {"bf": "2"}, "fps": 25},
    "v.ogv": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each decoded frame of video."""
    frames: list[int] = []
    decode = StreamDecoder.decode

    def count(self: StreamDecoder, packet: Any) -> list[Any]:
        decoded = decode(self, packet)
        frames.extend([1] * len(decoded))
        return decoded

    monkeypatch.setattr(StreamDecoder, "decode", count)
    return frames


def shown_at(path: Path, seconds: float) -> int:
    """Return the number that is shown at a time, read as a cut reads it."""
    with Reader(path, Ticker(lambda _: None)) as reader:
        shown: Any = None
        for at, frame in reader.frames(seconds):
            if at > seconds + 0.0006:
                break
            shown = frame
        return read_number(shown.to_ndarray(format="rgb24"))


def read_whole(path: Path) -> list[tuple[float, int]]:
    """Return ``(seconds, number)`` of all frames, read from the beginning."""
    with open_video(path, sampling=Sampling("uniform", 1000.0)) as source:
        return [(frame.pts_seconds, read_number(frame.image)) for frame in source.frames()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numbers")


@pytest.mark.parametrize("name", CODECS)
def test_a_frame_deep_in_a_file_without_index_is_found_without_decoding_the_file(
    folder: Path, counted: list[int], name: str
) -> None:
    path = write_numbers(folder / name, range(2000), **CODECS[name], group=GROUP)
    fps = CODECS[name].get("fps", FPS)
    for number in (1999, 3, 1007, 1700, 1701, 1719, 1720, 40):
        counted.clear()
        assert shown_at(path, number / fps + 0.3 / fps) == number
        assert sum(counted) < 5 * GROUP, number


PARTS: dict[str, list[float]] = {
    "forward": [0.0, 18_000.0, 18_100.0],
    "a little forward": [0.0, 50.0, 100.0],
    "back": [500.0, 0.0, 300.0],
    "again and again": [1.4] * 10,
    "back a little": [100.0, 117.0, 134.0],
    "the 33 bits wrap": [95_433.7, 95_453.7, 95_473.7],
}


@pytest.mark.parametrize("starts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("name", ["v.ts", "v.mpg"])
def test_frames_behind_jumps_of_the_clock_have_the_times_of_decoding_the_whole(
    tmp_path: Path, counted: list[int], name: str, starts: list[float]
) -> None:
    num_frames = 200 if len(starts) < 5 else 60
    parts = [
        write_numbers(
            tmp_path / f"{index}{Path(name).suffix}",
            range(index * num_frames, (index + 1) * num_frames),
            clock_seconds=start,
            **CODECS[name],
        )
        for index, start in enumerate(starts)
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    whole = read_whole(path)
    for index in range(5, len(whole), 37):
        seconds, number = whole[index]
        assert shown_at(path, seconds) == number, seconds


@pytest.mark.parametrize("name", ["v.ts", "v.mpg"])
def test_a_file_with_one_key_frame_is_decoded_from_there(tmp_path: Path, name: str) -> None:
    path = write_numbers(tmp_path / name, range(300), **CODECS[name], group=1000)
    assert [shown_at(path, number / FPS) for number in (299, 100)] == [299, 100]


@pytest.mark.parametrize("starts", [[0.0], [300.0, 0.0]], ids=["steady", "jump"])
def test_a_clip_deep_in_a_transport_stream_has_its_frames_and_its_audio(
    tmp_path: Path, starts: list[float]
) -> None:
    parts = []
    for index, start in enumerate(starts):
        parts.append(tmp_path / f"{index}.ts")
        write_beeps(parts[-1], clock_seconds=start)
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    deep = 20.0 * (len(starts) - 1) + 12.0

    write_clip(path, Span(deep, deep + 2.0), tmp_path / "clip.mp4")

    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames: Any = list(container.decode(video=0))
    shown = [read_number(frame.to_ndarray(format="rgb24")) for frame in frames]
    first = next(number for at, number in reversed(read_whole(path)) if at <= deep + 1e-4) % 200
    assert shown[0] == first
    assert shown == list(range(first, first + len(shown)))
    assert len(shown) in (20, 21)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        chunks: Any = list(container.decode(audio=0))
    # the decoder may return samples that the encoder put before the beginning
    samples = np.concatenate([chunk.to_ndarray()[0] for chunk in chunks if chunk.pts >= 0])
    tenths = np.abs(samples[: len(samples) // 4410 * 4410]).reshape(-1, 4410).mean(axis=1)
    assert len(tenths) in (20, 21)
    beep = 120 - first  # frames, of a tenth of a second, until the second that beeps
    assert (tenths[beep + 1 : beep + 9] > 0.1).all()
    assert (tenths[beep + 11 : 19] < 0.01).all(), "the next one is silent"


def write_beeps(path: Path, *, clock_seconds: float) -> None:
    """Write 20 s of numbered frames and of a tone in every other second, the first one included."""
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        video.codec_context.gop_size = GROUP
        audio: Any = output.add_stream("aac", rate=44_100, layout="mono")
        times = np.arange(20 * 44_100) / 44_100
        tone = (np.sin(times * 2 * np.pi * 440) * 0.5 * (times % 2 < 1)).astype(np.float32)
        first = round(clock_seconds * FPS)
        num_audio = 0
        for number in range(20 * FPS):
            frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
            frame.pts, frame.time_base = first + number, Fraction(1, FPS)
            output.mux(video.encode(frame))
            while (num_audio + 1024) * FPS <= (number + 1) * 44_100:
                part = np.ascontiguousarray(tone[None, num_audio : num_audio + 1024])
                chunk = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                chunk.sample_rate = 44_100
                chunk.pts = num_audio + round(clock_seconds * 44_100)
                output.mux(audio.encode(chunk))
                num_audio += 1024
        output.mux(video.encode())
        output.mux(audio.encode())


def test_an_image_deep_in_a_program_stream_is_the_right_one(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "v.mpg", range(900), **CODECS["v.mpg"])
    assert read_number(image_in(frame_jpeg(path, 85.05))) == 850


@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_the_last_frames_are_found_by_a_seek_as_by_reading_all(tmp_path: Path, name: str) -> None:
    """The last frames of AVI have no time stamp; behind a track that ended, no mark of the end comes."""
    if name == "v.avi":
        path = write_numbers(tmp_path / name, range(100), options={"bf": "3"})
    else:
        path = write_with_still(tmp_path / name, 100, Disposition.still_image)
    for number in (96, 97, 98, 99):
        assert shown_at(path, (number + 0.3) / FPS) == number


def test_a_moment_behind_the_joint_of_two_matroska_files_is_that_of_the_sampled_frame(
    tmp_path: Path,
) -> None:
    part = write_numbers(tmp_path / "part.mkv", range(40)).read_bytes()
    other = write_numbers(tmp_path / "other.mkv", range(40, 80)).read_bytes()
    path = tmp_path / "joined.mkv"
    path.write_bytes(part + other)
    assert [number for _, number in read_whole(path)] == list(range(80))
    for number in (39, 40, 41, 79):
        assert shown_at(path, (number + 0.3) / FPS) == number
    write_clip(path, Span(4.0, 6.0), tmp_path / "clip.mp4")
    assert [number for _, number in read_whole(tmp_path / "clip.mp4")] == list(range(40, 60))
