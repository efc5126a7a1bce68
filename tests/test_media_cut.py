"""Cuts are exact to the frame and play everywhere; a broken file costs only its own job."""

import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from scanonce.media import cut as cutting
from scanonce.media import guard
from scanonce.media.cut import Cancelled, frame_jpeg, probe, write_clip, write_proxy
from scanonce.media.limits import Limits
from scanonce.media.open import open_video
from scanonce.media.playable import MediaFacts, playable
from scanonce.media.sampling import Sampling
from scanonce.storage.errors import DecoderCrashed, UnreadableVideo, VideoError
from scanonce.storage.records import Span
from tests.videos import (
    cut,
    encode_images,
    read_number,
    write_audio,
    write_images,
    write_video,
)


@dataclass(frozen=True)
class Written:
    numbers: list[int]
    pts_seconds: list[float]
    end_seconds: float
    codec: str
    pixel_format: str
    size: tuple[int, int]
    audio_codec: str | None


def read(path: Path) -> Written:
    """Decode a whole file."""
    with open_video(path, sampling=Sampling("uniform", 1000.0)) as source:
        frames = list(source.frames())
        end = source.end_seconds
    with av.open(str(path)) as container:
        video: Any = container.streams.video[0]
        audio: Any = container.streams.audio[0] if container.streams.audio else None
        return Written(
            numbers=[read_number(frame.image) for frame in frames],
            pts_seconds=[frame.pts_seconds for frame in frames],
            end_seconds=end,
            codec=video.codec_context.name,
            pixel_format=video.pix_fmt,
            size=(video.width, video.height),
            audio_codec=audio.codec_context.name if audio else None,
        )


Clip = Callable[[Path, float, float], Written]


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Cuts a span of a video and reads the clip."""

    def write(source: Path, start: float, end: float) -> Written:
        write_clip(source, Span(start, end), tmp_path / "clip.mp4")
        return read(tmp_path / "clip.mp4")

    return write


def write_tone(path: Path, seconds: float, *, start: float = 0.0, format: str = "mp4") -> None:
    """Write black frames at 10 a second, and from ``start`` on a tone that is louder with every second."""
    with av.open(str(path), "w", format=format) as output:
        video: Any = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.gop_size = 50
        audio: Any = output.add_stream("aac", rate=44_100, layout="stereo")
        encode_images(output, video, [np.zeros((48, 64, 3), np.uint8)] * round(seconds * 10))
        times = np.arange(round(start * 44_100), round(seconds * 44_100)) / 44_100
        tone = (np.sin(times * 2 * np.pi * 440) * (np.floor(times) + 1) * 0.08).astype(np.float32)
        for first in range(0, len(tone), 1024):
            part = np.ascontiguousarray(np.stack([tone[first : first + 1024]] * 2))
            chunk = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            chunk.sample_rate, chunk.pts = 44_100, round(start * 44_100) + first
            output.mux(audio.encode(chunk))
        output.mux(audio.encode())


def read_loudness(path: Path) -> Any:
    """Return the mean loudness of every tenth of a second, in units of the first second of `write_tone`."""
    with av.open(str(path)) as container:
        frames: Any = list(container.decode(audio=0))
    # the decoder may return samples that the encoder put before the beginning
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames if frame.pts >= 0])
    rate = frames[0].sample_rate
    tenths = samples[: len(samples) // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)
    return np.abs(tenths).mean(axis=1) * np.pi / 2 / 0.08


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("h264.mp4", {}),
    ("open-gop.mp4", {"options": {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}}),
    ("h264.mkv", {}),
    ("hevc.mp4", {"codec": "libx265"}),
    ("vp9.webm", {"codec": "libvpx-vp9"}),
    ("mpeg4.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}),
    ("h264.ts", {}),
    ("mpeg2.mpg", {"codec": "mpeg2video", "options": {"bf": "2"}, "fps": 25}),
]


@pytest.mark.parametrize(("name", "values"), FORMATS, ids=[name for name, _ in FORMATS])
def test_a_cut_has_exactly_the_frames_of_its_span(
    tmp_path: Path, clip: Clip, name: str, values: dict[str, Any]
) -> None:
    video = write_video(tmp_path / name, num_frames=160, **values)
    first, last = 77, 131
    span = Span(video.pts_seconds[first], video.pts_seconds[last])

    written = clip(video.path, span.start_seconds, span.end_seconds)

    assert written.numbers == list(range(first, last))
    assert written.end_seconds == pytest.approx(span.duration_seconds, abs=0.002)
    assert (written.codec, written.pixel_format) == ("h264", "yuv420p")
    assert written.audio_codec is None
    expected = [t - span.start_seconds for t in video.pts_seconds[first:last]]
    assert written.pts_seconds == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("first", [0, 1, 11, 12, 13, 35, 36, 59])
def test_a_cut_may_begin_at_any_frame_also_as_whole_milliseconds(
    tmp_path: Path, clip: Clip, first: int
) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=90, group=12)
    start, end = round(video.pts_seconds[first], 3), round(video.pts_seconds[first + 20], 3)
    assert clip(video.path, start, end).numbers == list(range(first, first + 20))


def test_a_cut_inside_a_frame_begins_with_that_frame(tmp_path: Path, clip: Clip) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=10, fps=2)
    written = clip(video.path, 1.2, 2.1)
    assert written.numbers == [2, 3, 4]
    assert written.pts_seconds == pytest.approx([0.0, 0.3, 0.8], abs=1e-3)
    assert written.end_seconds == pytest.approx(0.9, abs=1e-3)


def test_a_cut_to_the_end_takes_the_last_frame(tmp_path: Path, clip: Clip) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=60)
    written = clip(video.path, 1.5, 99.0)
    assert written.numbers == list(range(45, 60))
    assert written.end_seconds == pytest.approx(0.5, abs=2e-3)


def test_a_cut_after_the_end_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=30)
    with pytest.raises(UnreadableVideo, match="inside the video"):
        write_clip(video.path, Span(5.0, 6.0), tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_variable_frame_rate_and_a_late_start_are_kept(tmp_path: Path, clip: Clip) -> None:
    pts: Sequence[int] = [700, 740, 900, 910, 1500, 1600, 2400, 2500, 2900, 4000, 4100]
    video = write_video(
        tmp_path / "v.mkv", num_frames=11, pts=pts, time_base=Fraction(1, 1000), group=3
    )
    written = clip(video.path, 0.8, 2.2)
    assert written.numbers == [4, 5, 6, 7]
    assert written.pts_seconds == pytest.approx([0.0, 0.1, 0.9, 1.0], abs=2e-3)
    assert written.end_seconds == pytest.approx(1.4, abs=2e-3)


@pytest.mark.parametrize(
    ("name", "values", "size"),
    [
        *(("v.mp4", {"rotation": rotation}, None) for rotation in (0, 90, 180, 270)),
        ("v.mp4", {"rotation": 90, "flip": True}, None),
        ("v.mkv", {"codec": "ffv1", "size": (131, 97)}, (130, 96)),
        ("v.mp4", {"size": (96, 96), "pixel_aspect": Fraction(4, 3)}, (128, 96)),
    ],
)
def test_a_cut_is_upright_with_even_sides_and_square_pixels(
    tmp_path: Path, clip: Clip, name: str, values: Any, size: tuple[int, int] | None
) -> None:
    video = write_video(tmp_path / name, num_frames=8, **values)
    written = clip(video.path, 0.1, 0.2)
    assert written.size == (size or (video.width, video.height))
    assert written.numbers == [3, 4, 5]


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le", "yuvj420p", "bgr0", "gray"])
def test_every_kind_of_pixels_becomes_8_bit_420_of_the_same_brightness(
    tmp_path: Path, pixels: str
) -> None:
    codec = "mjpeg" if pixels == "yuvj420p" else "ffv1"
    images = [np.full((48, 64, 3), 200, np.uint8)] * 5
    path = write_images(tmp_path / "v.mkv", images, codec=codec, pixel_format=pixels)
    write_clip(path, Span(0.0, 0.5), tmp_path / "clip.mp4")
    with open_video(tmp_path / "clip.mp4", sampling=Sampling("uniform", 10)) as source:
        means = [frame.image.mean() for frame in source.frames()]
    assert means == pytest.approx([200.0] * 5, abs=4)


@pytest.mark.parametrize("start", [0.0, 2.0, 3.5])
def test_audio_is_cut_with_the_frames(tmp_path: Path, start: float) -> None:
    write_tone(tmp_path / "v.mp4", 7.0)
    write_clip(tmp_path / "v.mp4", Span(start, start + 2.5), tmp_path / "clip.mp4")
    loudness = read_loudness(tmp_path / "clip.mp4")
    expected = np.floor(start + np.arange(25) / 10 + 1e-6) + 1
    assert len(loudness) in (25, 26)
    assert loudness[1:24] == pytest.approx(expected[1:24], rel=0.2)


def test_audio_that_begins_late_stays_late(tmp_path: Path) -> None:
    write_tone(tmp_path / "v.mkv", 4.0, start=1.5, format="matroska")
    write_clip(tmp_path / "v.mkv", Span(1.0, 3.0), tmp_path / "clip.mp4")
    loudness = read_loudness(tmp_path / "clip.mp4")
    assert loudness[:4] == pytest.approx(np.zeros(4), abs=0.1)
    assert loudness[6:9] == pytest.approx(np.full(3, 2.0), rel=0.2)
    assert loudness[11:19] == pytest.approx(np.full(8, 3.0), rel=0.2)


def test_the_index_comes_first_so_that_it_plays_while_it_loads(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=30, with_audio=True)
    write_clip(video.path, Span(0.0, 0.5), tmp_path / "clip.mp4")
    data = (tmp_path / "clip.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_real_videos_can_be_cut(shared_videos: Path, tmp_path: Path) -> None:
    for name in (
        "decord_corrupted.mp4",
        "torchcodec_nasa_hdr.mp4",
        "mdn_frog.webm",
        "gradio_av1.mp4",
        "sam2_01_dog.mp4",
    ):
        write_clip(shared_videos / name, Span(2.0, 3.0), tmp_path / "clip.mp4")
        facts = probe(tmp_path / "clip.mp4")
        assert playable(facts), name
        assert facts.duration_seconds == pytest.approx(1.0, abs=0.05), name


def test_a_video_that_begins_long_after_its_clock_can_be_cut(
    shared_videos: Path, tmp_path: Path
) -> None:
    source = shared_videos / "torchcodec_non_zero_start.mp4"  # 12 frames from 8.3 s on
    write_clip(source, Span(0.1, 0.3), tmp_path / "clip.mp4")
    assert probe(tmp_path / "clip.mp4").duration_seconds == pytest.approx(0.2, abs=0.01)
    assert probe(source).offset_seconds > 8.0


# ---------------------------------------------------------------- proxies


def test_a_proxy_is_small_whole_and_in_time(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "v.avi", num_frames=90, codec="mpeg4", size=(640, 480), with_audio=True
    )
    progress: list[float] = []
    write_proxy(video.path, tmp_path / "proxy.mp4", max_height=240, progress=progress.append)
    written = read(tmp_path / "proxy.mp4")
    assert written.size == (320, 240)
    assert written.numbers == list(range(90))
    assert written.pts_seconds == pytest.approx(read(video.path).pts_seconds, abs=2e-3)
    assert written.audio_codec == "aac"
    assert playable(probe(tmp_path / "proxy.mp4"))
    assert progress == sorted(progress)
    assert progress


def test_a_proxy_of_a_portrait_video_is_measured_by_its_shorter_side(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=4, size=(192, 384))
    write_proxy(video.path, tmp_path / "proxy.mp4", max_height=96)
    assert read(tmp_path / "proxy.mp4").size == (96, 192)


def test_a_proxy_of_many_frames_a_second_keeps_half_of_them(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=60, fps=60)
    write_proxy(video.path, tmp_path / "proxy.mp4")
    assert read(tmp_path / "proxy.mp4").numbers == list(range(0, 60, 2))


def test_a_damaged_video_gets_a_proxy_of_its_readable_part(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "v.mp4", num_frames=60, container_options={"movflags": "faststart"}
    )
    broken = cut(video.path, tmp_path / "broken.mp4", 0.7)
    write_proxy(broken, tmp_path / "proxy.mp4")
    numbers = read(tmp_path / "proxy.mp4").numbers
    assert numbers[:20] == list(range(20))
    assert len(numbers) < 60


def test_a_proxy_can_be_cancelled(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=600, size=(640, 480))
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        write_proxy(
            video.path, tmp_path / "proxy.mp4", progress=lambda _: cancel.set(), cancel=cancel
        )
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


def test_a_file_larger_than_allowed_is_an_error(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=200)
    with pytest.raises(VideoError):
        write_proxy(video.path, tmp_path / "proxy.mp4", max_bytes=3000)
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize("kind", ["itself", "link", "hard link"])
def test_a_cut_never_replaces_its_video(tmp_path: Path, kind: str) -> None:
    video = write_video(tmp_path / "v.mp4").path
    content, out = video.read_bytes(), tmp_path / "out.mp4"
    if kind == "itself":
        out = tmp_path / "sub" / ".." / "v.mp4"
        (tmp_path / "sub").mkdir()
    elif kind == "link":
        out.symlink_to(video)
    else:
        out.hardlink_to(video)
    with pytest.raises(VideoError, match="never changed: name another file"):
        write_clip(video, Span(0.0, 0.5), out)
    assert video.read_bytes() == content
    assert not list(tmp_path.glob(".tmp-*"))


# ---------------------------------------------------------------- single frames


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.avi"])
@pytest.mark.parametrize(
    ("seconds", "number"), [(0.0, 0), (1.0, 30), (2.017, 60), (2.04, 61), (99.0, 89)]
)
def test_a_jpeg_is_the_frame_shown_then(
    tmp_path: Path, name: str, seconds: float, number: int
) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    video = write_video(tmp_path / name, num_frames=90, codec=codec)
    image = Image.open(io.BytesIO(frame_jpeg(video.path, seconds)))
    assert image.format == "JPEG"
    assert read_number(np.asarray(image)) == number


def test_a_jpeg_is_upright_and_no_wider_than_requested(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=9, rotation=90, size=(320, 240))
    image = Image.open(io.BytesIO(frame_jpeg(video.path, 0.2, width=120)))
    assert image.size == (120, 160)
    assert read_number(np.asarray(image)) == 6


# ---------------------------------------------------------------- playable files


MP4 = MediaFacts("mp4", "h264", "yuv420p", "aac", 640, 360, 25.0, 10.0, 0.0, False, False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"audio_codec": None}, True),
        ({"video_codec": "av1"}, True),
        ({"container": "webm", "video_codec": "vp8", "audio_codec": "vorbis"}, True),
        ({"container": "webm", "video_codec": "vp9", "audio_codec": "opus"}, True),
        ({"video_codec": "hevc"}, False),
        ({"video_codec": "mpeg4"}, False),
        ({"pixel_format": "yuv422p10le"}, False),
        ({"pixel_format": "yuv420p10le"}, False),
        ({"container": "avi"}, False),
        ({"container": "matroska"}, False),
        ({"container": "mpegts"}, False),
        ({"audio_codec": "ac3"}, False),
        ({"audio_codec": "pcm_s16le"}, False),
        ({"container": "webm"}, False),
        ({"offset_seconds": 0.04}, True),
        ({"offset_seconds": 8.3}, False),
        ({"is_interlaced": True}, False),
        ({"is_cropped": True}, False),
    ],
)
def test_playable(changes: dict[str, Any], expected: bool) -> None:
    assert playable(replace(MP4, **changes)) is expected


def test_probe_reports_containers_codecs_and_audio(tmp_path: Path) -> None:
    mp4 = probe(write_video(tmp_path / "v.mp4", with_audio=True).path)
    assert (mp4.container, mp4.video_codec, mp4.audio_codec) == ("mp4", "h264", "aac")
    assert (mp4.width, mp4.height, mp4.fps) == (128, 96, 30.0)
    webm = probe(write_video(tmp_path / "v.webm", codec="libvpx-vp9").path)
    assert (webm.container, webm.video_codec, webm.audio_codec) == ("webm", "vp9", None)
    assert probe(write_video(tmp_path / "v.mkv").path).container == "matroska"
    assert probe(write_video(tmp_path / "v.avi", codec="mpeg4").path).container == "avi"


# ---------------------------------------------------------------- the guard


def test_files_that_are_no_videos_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    (tmp_path / "empty.mp4").touch()
    write_audio(tmp_path / "audio.m4a")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "empty.mp4", "audio.m4a", "pipe.mp4", "missing.mp4", "."):
        with pytest.raises(UnreadableVideo, match=r".{20}"):
            probe(tmp_path / name)
        with pytest.raises(UnreadableVideo):
            write_clip(tmp_path / name, Span(0.0, 1.0), tmp_path / "clip.mp4")


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.mp4").path
    (tmp_path / "v.mp4").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    with pytest.raises(UnreadableVideo):
        frame_jpeg(tmp_path / "v.mp4", 0.0)


_PRELUDE = """
import json, os, sys, time
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))


def say(kind, **values):
    connection.send_bytes(json.dumps({"kind": kind, "values": values}).encode())


"""


Play = Callable[[str], Path]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs code of the test instead of the child, and returns a file to probe."""

    def run(code: str) -> Path:
        (tmp_path / "child.py").write_text(_PRELUDE + code)
        command = [sys.executable, str(tmp_path / "child.py")]
        monkeypatch.setattr(guard, "command", lambda _: command)
        (tmp_path / "v.mp4").write_bytes(b"x")
        return tmp_path / "v.mp4"

    return run


def test_a_child_that_hangs_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    source = play("time.sleep(10**6)")
    monkeypatch.setattr(cutting, "STALL_SECONDS", 0.5)
    with pytest.raises(DecoderCrashed, match="stopped"):
        probe(source)


def test_a_child_that_never_ends_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    source = play("while True: say('progress', done_seconds=1); time.sleep(0.05)")
    monkeypatch.setattr(cutting, "_FRAME_LIMIT_SECONDS", 1.0)
    with pytest.raises(DecoderCrashed, match="stopped"):
        probe(source)


FACTS = asdict(MP4)
NONSENSE = [
    "connection.send_bytes(b'nonsense')",
    "connection.send_bytes(b'[1]')",
    "say('dance')",
    "say('written')",
    "say('unreadable', reason=5)",
    "say('progress', done_seconds='1')",
    "say('facts')",
    f"say('facts', **{FACTS | {'width': -1}})",
    f"say('facts', **{FACTS | {'fps': 'many'}})",
    f"say('facts', **{FACTS | {'video_codec': None}})",
    f"say('facts', **{FACTS | {'more': 1}})",
]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("raise SystemExit(3)", "exit code 3"),
        *((f"{code}; time.sleep(9)", "made no sense") for code in NONSENSE),
    ],
)
def test_a_child_that_crashes_or_answers_nonsense_is_reported(
    play: Play, code: str, reason: str
) -> None:
    with pytest.raises(DecoderCrashed, match=reason):
        probe(play(code))


@pytest.mark.parametrize("image", ["b'\\xff\\xd8' + bytes(33 << 20)", "b'<svg/>'"])
def test_an_image_that_is_too_large_or_no_jpeg_is_refused(play: Play, image: str) -> None:
    with pytest.raises(DecoderCrashed, match="made no sense"):
        frame_jpeg(play(f"say('jpeg'); connection.send_bytes({image}); time.sleep(9)"), 0.0)


def test_a_job_is_cancelled_in_the_middle_of_a_message(play: Play, tmp_path: Path) -> None:
    source = play("os.write(connection.fileno(), b'\\0\\0\\1\\0half'); time.sleep(99)")
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    with pytest.raises(Cancelled):
        write_proxy(source, tmp_path / "proxy.mp4", cancel=cancel)


GUARDED = """
from scanonce.media import guard
from scanonce.media.limits import Limits

with guard.serving(connection, Limits(**json.loads(sys.argv[2]))):
    guard.allow_cpu(1)
    guard.lock_down(connection, [])
    """


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("while True: pass", "more than 1 s of processor time"),
        ("kept = [bytes(1 << 20) for _ in iter(int, 1)]", "more than 100 MB of memory"),
        ("while True: os.write(2, b'error while decoding' * 1000)", "printed 1 MB of messages"),
    ],
)
def test_a_job_has_the_limits_of_every_guarded_child(
    play: Play, monkeypatch: pytest.MonkeyPatch, work: str, reason: str
) -> None:
    monkeypatch.setattr(guard, "MAX_PRINTED_BYTES", 1 << 20)
    monkeypatch.setattr(cutting, "Limits", lambda *_: Limits(600.0, memory_mb=100, cpu_seconds=1))
    with pytest.raises(DecoderCrashed, match=reason):
        probe(play(GUARDED + work))


@pytest.mark.parametrize("work", [None, "while True: pass"])
def test_a_child_ends_with_the_parent(play: Play, work: str | None) -> None:
    if work is not None:
        play(GUARDED + work)
    limits = Limits(600.0)
    process, connection = guard.launch("scanonce.media.jobs", limits)
    with guard.Child(process, connection, limits) as child:
        child.send({"kind": "probe", "source": "2f646576"})
        connection.close()
        assert process.wait(timeout=600) in (0, 1)
