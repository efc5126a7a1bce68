"""Subtitles, audio and changed pictures of files, well formed and not."""

import codecs
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.media import subtitles
from scanonce.media.change import Changes
from scanonce.media.limits import Limits
from scanonce.media.subtitles import language_of, read_sidecar, sidecars
from scanonce.media.tracks import Audio, Pictures, read_texts
from scanonce.storage.errors import VideoError
from tests.videos import cut, write_garbage, write_images, write_video

LIMITS = Limits(60.0)
SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Grüße</i> aus <script>alert(1)</script>Köln &amp; Bonn

2
00:00:02,000 --> 00:00:01,000
it ends before it begins

3
00:00:00,500 --> 00:00:03,000
{\\an8}at the top
"""


@pytest.mark.parametrize(
    ("encoding", "bom"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("cp1252", b""),
    ],
)
def test_a_subtitle_file_is_read_in_any_encoding_without_its_markup(
    tmp_path: Path, encoding: str, bom: bytes
) -> None:
    path = tmp_path / "film.de.srt"
    path.write_bytes(bom + SRT.encode(encoding))
    lines, problem = read_sidecar(path, 25.0)
    assert problem is None
    assert [line.text for line in lines] == [
        "Grüße aus alert(1)Köln & Bonn",
        "it ends before it begins",
        "at the top",
    ]
    assert {line.language for line in lines} == {"de"}


def test_a_huge_subtitle_file_is_read_as_far_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.ass"
    line = b"Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,again and again\n"
    with path.open("wb") as file:
        file.write(
            b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        )
        for _ in range(50):
            file.write(line * ((1 << 20) // len(line)))
    monkeypatch.setattr(subtitles, "MAX_BYTES", 1 << 16)
    lines, problem = read_sidecar(path, 25.0)
    assert 900 < len(lines) < 1000
    assert "only the first" in str(problem)


@pytest.mark.parametrize("content", [b"", b"\0\1\2" * 999, b"no subtitles at all", b"1\n2\n-->\n"])
def test_a_file_that_is_no_subtitle_file_gets_a_note_or_no_lines(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "film.srt"
    path.write_bytes(content)
    lines, problem = read_sidecar(path, 0.0)
    assert not lines
    assert problem is None or "film.srt" in problem


def test_subtitle_files_of_a_video_are_those_that_begin_with_its_name(tmp_path: Path) -> None:
    for name in ("Film.srt", "film.en.vtt", "film2.srt", "film.txt", "other.srt", "film.mp4"):
        (tmp_path / name).touch()
    found = [path.name for path in sidecars(tmp_path / "film.mp4")]
    assert found == ["Film.srt", "film.en.vtt"]
    assert language_of(Path("film.en.vtt")) == "en"
    assert language_of(Path("film.srt")) is None
    assert sidecars(tmp_path / "nowhere/film.mp4") == []


def test_texts_are_sorted_inside_the_video_and_each_is_there_once(tmp_path: Path) -> None:
    video = write_video(tmp_path / "film.mp4", num_frames=10).path
    (tmp_path / "film.srt").write_text(SRT + SRT.replace("\n1\n", "\n4\n"), encoding="utf-8")
    texts = read_texts(video, limits=LIMITS, sidecars=sidecars(video), max_lines=100)
    assert [(line.start_seconds, line.end_seconds) for line in texts.lines] == [
        (0.5, 3.0),
        (1.0, 2.5),
        (2.0, 2.0),
    ]
    few = read_texts(video, limits=LIMITS, sidecars=sidecars(video), max_lines=1)
    assert len(few.lines) == 1
    assert "more than are kept" in str(few.problem)


def test_text_streams_of_a_real_file_are_read_once(shared_videos: Path) -> None:
    path = shared_videos / "torchcodec_nasa_13013_multistream.mp4"
    texts = read_texts(path, limits=LIMITS, max_lines=100)
    assert len(texts.lines) == 4  # two equal streams
    assert "science segment of the Webb" in texts.lines[0].text


def test_a_file_that_is_no_video_is_a_note_for_its_texts_and_an_error_for_its_audio(
    tmp_path: Path,
) -> None:
    path = write_garbage(tmp_path / "film.mp4")
    assert "not a video" in str(read_texts(path, limits=LIMITS, max_lines=9).problem)
    with pytest.raises(VideoError), Audio(path, limits=LIMITS, length_seconds=9.0):
        pass
    with (
        pytest.raises(VideoError),
        Pictures(path, limits=LIMITS, length_seconds=9.0, fps=2.0) as pictures,
    ):
        pictures.next(0.0)
    with pytest.raises(VideoError):
        read_texts(tmp_path / "missing.mp4", limits=LIMITS, max_lines=9)


# ---------------------------------------------------------------- audio


def write_tones(path: Path, levels: list[float], seconds: float = 2.0) -> Path:
    """Write a video with an audio track for each level, 0 to 1, of a tone of 440 Hz at 48 kHz."""
    rate, frame_size = 48_000, 1024
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams: list[Any] = [output.add_stream("aac", rate=rate, layout="mono") for _ in levels]
        for number in range(int(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            output.mux(video.encode(frame))
        output.mux(video.encode())
        for stream, level in zip(streams, levels, strict=True):
            for start in range(0, int(seconds * rate), frame_size):
                times = np.arange(start, start + frame_size) / rate
                samples = (level * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
                sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
                sound.sample_rate, sound.pts = rate, start
                output.mux(stream.encode(sound))
            output.mux(stream.encode())
    return path


def read_audio(path: Path, track: int = 0) -> tuple[NDArray[np.int16], int, str | None]:
    with Audio(path, limits=LIMITS, length_seconds=60.0, track=track) as audio:
        pieces = [np.empty(0, np.int16), *audio]
        return np.concatenate(pieces), audio.num_tracks, audio.problem


def test_audio_comes_as_mono_at_16_khz_and_each_of_ten_tracks_can_be_chosen(
    tmp_path: Path,
) -> None:
    levels = [0.05 * (number + 1) for number in range(10)]
    path = write_tones(tmp_path / "film.mkv", levels)
    loudest = []
    for track in (0, 3, 9):
        samples, num_tracks, problem = read_audio(path, track)
        assert (num_tracks, problem) == (10, None)
        assert len(samples) == pytest.approx(2 * 16_000, abs=1100)
        middle = samples[4000:-4000].astype(np.float64)
        loudest.append(np.sqrt(2 * np.square(middle).mean()) / 32767)
    assert loudest == pytest.approx([0.05, 0.2, 0.5], rel=0.15)


def test_a_video_without_audio_has_no_samples(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", num_frames=5).path
    samples, num_tracks, problem = read_audio(path)
    assert (len(samples), num_tracks, problem) == (0, 0, None)


def test_damaged_audio_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_tones(tmp_path / "whole.mkv", [0.5], 6.0)
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 2, len(data), 400):
        data[at] = int(rng.integers(256))
    (tmp_path / "bad.mkv").write_bytes(bytes(data))
    samples, num_tracks, _ = read_audio(tmp_path / "bad.mkv")
    assert num_tracks == 1
    assert len(samples) > 16_000
    short, _, _ = read_audio(cut(whole, tmp_path / "cut.mkv", 0.6))
    assert 16_000 < len(short) < 6 * 16_000


# ---------------------------------------------------------------- pictures


def page(*texts: tuple[int, str], noise: int = 0) -> NDArray[np.uint8]:
    """Draw texts at rows of a white picture."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (640, 360), (255, 255, 255))
    font = ImageFont.load_default(28)
    for row, text in texts:
        ImageDraw.Draw(image).text((30, row), text, font=font, fill=(0, 0, 0))
    array = np.asarray(image).astype(np.int16)
    rng = np.random.default_rng(noise)
    noisy: NDArray[np.uint8] = np.clip(array + rng.integers(-2, 3, array.shape), 0, 255).astype(
        np.uint8
    )
    return noisy


def test_only_pictures_whose_text_changes_are_read_and_only_that_part(tmp_path: Path) -> None:
    slides = [((20, "the title"),), ((20, "the title"), (260, "a new row of words"))]
    images = [page(*slide, noise=k) for slide in slides for k in range(40)]
    path = write_images(tmp_path / "talk.mp4", images, options={"crf": "20"})
    with Pictures(path, limits=LIMITS, length_seconds=60.0, fps=2.0) as pictures:
        first, second = pictures.next(0.0), pictures.next(0.0)
        assert pictures.next(0.0) is None
    assert first is not None
    assert second is not None
    assert (first.seconds, first.top, first.band.shape) == (0.0, 0, (360, 640, 3))
    assert 4.0 <= second.seconds <= 5.0
    assert second.top > 150
    assert second.since_at(32, 272, 250, 288) == pytest.approx(4.0, abs=0.5)
    assert second.since_at(30, 20, 100, 40) == 0.0


def test_what_has_no_edges_of_text_is_not_read_again() -> None:
    changes = Changes()
    for number in range(20):
        image = np.full((360, 640, 3), 200, np.uint8)
        image[:, 30 * number : 30 * number + 90] = 120  # a smooth thing moves past
        changes.add(number / 2, image)
        if changes.is_worth_reading(number / 2):
            assert number == 0
            changes.note_read()


@pytest.mark.parametrize("shape", [(2, 2, 3), (7, 900, 3), (1, 1, 3)])
def test_pictures_of_any_size_are_compared(shape: tuple[int, int, int]) -> None:
    changes = Changes()
    for number in range(3):
        changes.add(float(number), np.full(shape, 90 * number, np.uint8))
        if changes.is_worth_reading(float(number), is_last=number == 2):
            assert 0.0 <= changes.band()[0] < changes.band()[1] <= 1.0
            changes.note_read()
