"""One conformance suite over both back ends, on generated files whose frames show their own number."""

import itertools
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.media import clock, container, render, stream
from scanonce.media.decoders import pyav
from scanonce.media.open import BACKENDS, open_video
from scanonce.media.sampling import FrameSource, SampledFrame, Sampler, Sampling, reduced_size
from scanonce.storage.errors import ConfigError, UnreadableVideo
from tests.own_process import open_isolated
from tests.videos import (
    TestVideo,
    cut,
    draw_number,
    read_number,
    write_audio,
    write_video,
)

_SHARED_VIDEOS = Path(__file__).parents[2] / "shared/data/videos"

_IRREGULAR = {
    "pts": [0, 10, 20, 300, 310, 900, 2000, 2010, 2500, 4000],
    "time_base": Fraction(1, 1000),
}
_DROPPED = {  # a recorder leaves out pictures that do not change: some at once, then none for seconds
    "pts": [3000 * burst + 40 * number for burst in range(6) for number in range(1 + 3 * burst)],
    "time_base": Fraction(1, 1000),
}
_B_FRAMES = {"bf": "3", "b-pyramid": "normal"}
_CASES: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "plain.mov": {},
    "plain.mkv": {},
    "ntsc.mp4": {"fps": Fraction(30000, 1001), "num_frames": 60},
    "irregular.mp4": _IRREGULAR,
    "irregular.mkv": _IRREGULAR,
    "dropped.mp4": {**_DROPPED, "group": 20, "options": _B_FRAMES},
    "dropped.mkv": {**_DROPPED, "group": 1000, "options": {"bf": "0"}},
    "slides.mp4": {"fps": Fraction(1, 30), "num_frames": 4},
    "starts_late.mp4": {"pts": list(range(100, 130))},
    "b_frames.mp4": {"num_frames": 90, "group": 40, "options": _B_FRAMES},
    "b_frames.mkv": {"num_frames": 90, "group": 10, "options": _B_FRAMES},
    "open_groups.mp4": {"num_frames": 90, "options": {**_B_FRAMES, "x264-params": "open-gop=1"}},
    "intra_refresh.mp4": {
        "num_frames": 90,
        "options": {"x264-params": "intra-refresh=1:bframes=0"},
    },
    "one_group.mkv": {"num_frames": 60, "group": 1000},
    "only_key.mp4": {"group": 1},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "rotated_90.mp4": {"rotation": 90, "size": (192, 128)},
    "rotated_180.mp4": {"rotation": 180},
    "rotated_270.mov": {"rotation": 270, "size": (192, 128)},
    "wide_pixels.mp4": {"pixel_aspect": Fraction(4, 3)},
    "odd_size.mkv": {"size": (127, 95), "pixel_format": "yuv444p"},
    "ten_bits.mp4": {"pixel_format": "yuv420p10le"},
    "grey.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "one_frame.mp4": {"num_frames": 1},
    "slow.mp4": {"fps": Fraction(1, 2), "num_frames": 8},
    "audio.mp4": {"with_audio": True},
    "hevc.mp4": {"codec": "libx265", "num_frames": 60},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg4.mp4": {"codec": "mpeg4"},
}
_ONLY_PYAV: dict[str, dict[str, Any]] = {
    "transport.ts": {"num_frames": 60},
    "transport_mpeg2.ts": {"codec": "mpeg2video", "num_frames": 60},
    "program.mpg": {"codec": "mpeg2video"},
    "b_frames.avi": {"num_frames": 60, "options": _B_FRAMES},
    "mpeg4.avi": {"codec": "mpeg4"},
    "flash.flv": {},
    "raw.h264": {},
    "mirrored.mp4": {"flip": True},
    "mirrored_90.mp4": {"flip": True, "rotation": 90},
}
_COLOUR_CASES = {"grey.mkv"}  # without colour the corner is not red

Maker = Callable[[str], TestVideo]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Writes a case once, when a test first needs it."""
    folder = tmp_path_factory.mktemp("videos")
    made: dict[str, TestVideo] = {}

    def get(name: str) -> TestVideo:
        if name not in made:
            made[name] = write_video(folder / name, **(_CASES | _ONLY_PYAV)[name])
        return made[name]

    return get


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Every test with this argument runs over all back ends."""
    return str(request.param)


def sample(
    path: Path, fps: float = 5.0, mode: Any = "uniform", **options: Any
) -> tuple[list[SampledFrame], FrameSource]:
    """Return all frames, and the source after iterating."""
    with open_isolated(path, sampling=Sampling(mode, fps), **options) as source:
        return list(source.frames()), source


def answers(pts_seconds: Sequence[float], fps: float, end_seconds: float) -> list[int]:
    """Return the right frames by the definition: for each target k / fps the last at or before it, each once."""
    targets = itertools.takewhile(
        lambda target: target < end_seconds - 1e-6, (k / fps for k in itertools.count())
    )
    shown = [sum(pts <= target + 1e-6 for pts in pts_seconds) - 1 for target in targets]
    return list(dict.fromkeys(shown))


def numbers_in(frames: list[SampledFrame]) -> list[int]:
    return [read_number(frame.image) for frame in frames]


def check_answers(video: TestVideo, fps: float, **options: Any) -> None:
    frames, source = sample(video.path, fps, **options)
    expected = answers(video.pts_seconds, fps, source.end_seconds)
    is_coloured = video.path.name not in _COLOUR_CASES
    assert not is_coloured or numbers_in(frames) == expected
    times = [frame.pts_seconds for frame in frames]
    assert times == pytest.approx([video.pts_seconds[i] for i in expected], abs=1.1e-3)
    assert times[0] == 0.0
    assert {frame.image.shape for frame in frames} == {(video.height, video.width, 3)}
    assert all(f.image.dtype == np.uint8 and f.image.flags.c_contiguous for f in frames)
    assert (source.info.width, source.info.height) == (video.width, video.height)
    assert source.problem is None
    assert source.end_seconds > video.pts_seconds[-1]


# --- common to both back ends


@pytest.mark.parametrize("fps", [2.0, 7.3])
@pytest.mark.parametrize("name", _CASES)
def test_uniform_frames_are_those_on_screen_at_each_target(
    make: Maker, name: str, fps: float, backend: str
) -> None:
    check_answers(make(name), fps, backend=backend)


@pytest.mark.parametrize("name", _ONLY_PYAV)
def test_pyav_decodes_files_that_decord_gets_wrong(make: Maker, name: str) -> None:
    check_answers(make(name), 5.0, backend="pyav")


@pytest.mark.parametrize("name", _ONLY_PYAV)
def test_decord_refuses_files_that_it_gets_wrong_and_names_pyav(make: Maker, name: str) -> None:
    with pytest.raises(UnreadableVideo, match='decoder = "pyav"'):
        sample(make(name).path, backend="decord")


@pytest.mark.parametrize(
    "name", ["plain.mp4", "b_frames.mkv", "open_groups.mp4", "hevc.mp4", "vp9.webm"]
)
def test_key_frames_mode_gives_the_key_frames(make: Maker, name: str, backend: str) -> None:
    video = make(name)
    frames, source = sample(video.path, 30.0, "keyframes", backend=backend)
    assert numbers_in(frames) == list(video.key_frames)
    assert source.end_seconds == pytest.approx(video.pts_seconds[-1] + 1 / 30, abs=5e-3)


@pytest.mark.parametrize("name", ["transport.ts", "program.mpg", "mpeg4.avi", "b_frames.avi"])
def test_key_frames_have_their_times_in_every_container(make: Maker, name: str) -> None:
    video = make(name)
    frames, source = sample(video.path, 30.0, "keyframes")
    assert numbers_in(frames) == list(video.key_frames)
    times = [video.pts_seconds[number] for number in numbers_in(frames)]
    assert [frame.pts_seconds for frame in frames] == pytest.approx(times, abs=1e-3)
    assert source.end_seconds == pytest.approx(video.pts_seconds[-1], abs=0.1)


def test_key_frames_are_thinned_to_the_rate(make: Maker, backend: str) -> None:
    frames, _ = sample(make("only_key.mp4").path, 4.0, "keyframes", backend=backend)
    assert numbers_in(frames) == [0, 7, 15, 22]


def test_frame_that_answers_several_targets_comes_once(make: Maker, backend: str) -> None:
    frames, source = sample(make("slow.mp4").path, 10.0, backend=backend)
    assert [frame.pts_seconds for frame in frames] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert source.end_seconds == 16.0


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_number_of_threads_changes_nothing(make: Maker, backend: str, threads: int) -> None:
    check_answers(make("b_frames.mp4"), 5.0, backend=backend, threads=threads)


def test_info_has_length_rate_and_codec(make: Maker, backend: str) -> None:
    with open_isolated(
        make("ntsc.mp4").path, sampling=Sampling("uniform", 1.0), backend=backend
    ) as source:
        assert source.info.duration_seconds == pytest.approx(2.002)
        assert source.info.fps == pytest.approx(29.97, abs=0.01)
        assert source.info.codec == "h264"


def test_closing_twice_is_allowed(make: Maker, backend: str) -> None:
    path = make("plain.mp4").path
    source = open_isolated(path, sampling=Sampling("uniform", 1.0), backend=backend)
    source.close()
    source.close()


@pytest.mark.parametrize(
    "name", ["concat:a|b.mp4", "file:x.mp4", "100%d.mp4", "spa ce.mp4", "caf\udce9.mp4"]
)
def test_odd_file_names_are_names(make: Maker, tmp_path: Path, name: str, backend: str) -> None:
    path = tmp_path / name
    shutil.copyfile(make("plain.mp4").path, path)
    if backend == "decord" and "\udce9" in name:
        with pytest.raises(UnreadableVideo, match="pyav"):
            sample(path, backend=backend)
    else:
        assert len(sample(path, backend=backend)[0]) == 5


_LATE = {"pts": list(range(60, 90)), "with_audio": True, "options": {"bf": "0"}}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("plain.mp4", {}, 0.0),
        ("starts_late.mp4", {"pts": list(range(100, 130))}, 0.0),
        ("far.ts", {"container_options": {"output_ts_offset": "5000"}}, 0.0),
        ("sound_first.mkv", _LATE, 2.0),
        ("sound_first.mp4", _LATE, 2.0),
        ("sound_first.ts", _LATE, 2.0),
    ],
)
def test_the_first_frame_is_known_on_the_clock_of_players(
    tmp_path: Path, name: str, options: dict[str, Any], expected: float, backend: str
) -> None:
    path = write_video(tmp_path / name, **options).path
    if backend == "decord" and name.endswith(".ts"):
        pytest.skip("decord does not read it")
    frames, source = sample(path, 5.0, backend=backend)
    assert frames[0].pts_seconds == 0.0
    assert source.info.offset_seconds == pytest.approx(expected, abs=0.15)


# --- images


@pytest.mark.parametrize("matrix", [1, 5])  # BT.709 and BT.601, as FFmpeg numbers them
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_come_back_as_tagged(tmp_path: Path, matrix: int, full_range: bool) -> None:
    colours = np.array([(200, 40, 40), (40, 180, 60), (30, 60, 200), (128, 128, 128)], np.uint8)
    path = tmp_path / "colours.mkv"
    write_colours(path, colours, matrix, full_range)
    with open_video(path, sampling=Sampling("uniform", 25.0)) as source:
        seen = np.array([frame.image[24, 32] for frame in source.frames()])
    np.testing.assert_allclose(seen.astype(int), colours, atol=3)


def write_colours(path: Path, colours: NDArray[np.uint8], matrix: int, full_range: bool) -> None:
    """Write one flat frame for each colour; luma and chroma are computed here, not by the library under test."""
    red_share, blue_share = {1: (0.2126, 0.0722), 5: (0.299, 0.114)}[matrix]
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full_range else 1
        for number, (red, green, blue) in enumerate(colours / 255.0):
            luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
            chroma = (
                (blue - luma) / (2 - 2 * blue_share),
                (red - luma) / (2 - 2 * red_share),
            )
            if full_range:
                planes = [255 * luma, *(128 + 255 * value for value in chroma)]
            else:
                planes = [16 + 219 * luma, *(128 + 224 * value for value in chroma)]
            image = np.stack([np.full((48, 64), round(value), np.uint8) for value in planes])
            frame = av.VideoFrame.from_ndarray(image, format="yuv444p")
            frame.pts, frame.colorspace, frame.color_range = number, matrix, 2 if full_range else 1
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((1920, 1080), None, (1920, 1080)),
        ((1920, 1080), 448, (796, 448)),
        ((1080, 1920), 448, (448, 796)),
        ((1280, 720), 448, (1280, 720)),
        ((896, 896), 448, (448, 448)),
    ],
)
def test_frames_are_reduced_only_if_they_are_twice_too_large(
    size: tuple[int, int], short: int | None, expected: tuple[int, int]
) -> None:
    assert reduced_size(*size, short) == expected


def test_reduced_frames_keep_number_and_direction(make: Maker, backend: str) -> None:
    video = make("rotated_90.mp4")
    frames, source = sample(video.path, 5.0, backend=backend, min_short_side=64)
    assert numbers_in(frames) == answers(video.pts_seconds, 5.0, source.end_seconds)
    if backend == "pyav":
        assert frames[0].image.shape == (96, 64, 3)
    assert (source.info.width, source.info.height) == (128, 192)


def test_a_rotated_video_of_a_phone_is_upright(shared_videos: Path) -> None:
    path = shared_videos / "decord_rot90.mov"
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    frames, _ = sample(path)
    np.testing.assert_array_equal(frames[0].image, np.rot90(stored, -1))


# --- frames that are not decoded


@pytest.mark.parametrize(
    "name",
    ["b_frames.mp4", "b_frames.mkv", "open_groups.mp4", "intra_refresh.mp4", "hevc.mp4", "av1.mp4"],
)
@pytest.mark.parametrize("fps", [0.7, 3.0, 11.0])
def test_frames_are_the_very_same_as_of_full_decoding(make: Maker, name: str, fps: float) -> None:
    every_frame, full = sample(make(name).path, 1000.0)
    sampled, source = sample(make(name).path, fps)
    whole = {frame.pts_seconds: frame.image for frame in every_frame}
    for frame in sampled:
        np.testing.assert_array_equal(frame.image, whole[frame.pts_seconds])
    assert source.end_seconds == pytest.approx(full.end_seconds, abs=1e-6)


@pytest.mark.parametrize(("name", "at_most"), [("plain.mp4", 22), ("b_frames.mp4", 60)])
def test_frames_nobody_needs_are_not_decoded(
    make: Maker, name: str, at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = clock.Clock.frame_seconds

    def count(its: clock.Clock, frame: av.VideoFrame) -> float:
        decoded.append(frame.pts)
        return original(its, frame)

    monkeypatch.setattr(clock.Clock, "frame_seconds", count)
    frames, _ = sample(make(name).path, 2.0, threads=1)
    assert len(frames) <= len(decoded) <= at_most


# --- damage


@pytest.mark.parametrize("name", ["faststart.mp4", "plain.mkv"])
def test_interrupted_copy_gives_its_beginning_and_a_problem(
    tmp_path: Path, name: str, backend: str
) -> None:
    whole = write_video(
        tmp_path / name,
        num_frames=120,
        container_options={"movflags": "faststart"} if name.endswith("mp4") else {},
    )
    path = cut(whole.path, tmp_path / f"cut_{name}", 0.6)
    frames, source = sample(path, 5.0, backend=backend)
    numbers = numbers_in(frames)
    assert numbers == answers(whole.pts_seconds, 5.0, 4.0)[: len(numbers)]
    # decord decodes ahead and may stop at the damage some frames before it
    assert {"pyav": 3, "decord": 1}[backend] <= len(numbers) < 20
    assert source.problem
    assert source.end_seconds < 3.5


def test_damage_in_the_middle_costs_only_frames_around_it(tmp_path: Path) -> None:
    video = write_video(tmp_path / "whole.mp4", num_frames=120)
    data = bytearray(video.path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = random.Random(0).randbytes(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    frames, source = sample(path, 5.0)
    numbers = {number_or_none(frame.image) for frame in frames}
    assert len(numbers & set(answers(video.pts_seconds, 5.0, 4.0))) >= 14
    assert source.end_seconds == pytest.approx(4.0, abs=0.1)


def number_or_none(image: NDArray[np.uint8]) -> int | None:
    try:
        return read_number(image)
    except AssertionError:
        return None


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("name", ["plain.mp4", "b_frames.mkv"])
@pytest.mark.parametrize("mode", ["uniform", "keyframes"])
def test_no_foreign_error_escapes_a_damaged_file(
    make: Maker, tmp_path: Path, name: str, seed: int, mode: str
) -> None:
    chance = random.Random(seed)
    data = bytearray(make(name).path.read_bytes())
    for _ in range(chance.choice([1, 5, 40])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path = tmp_path / name
    path.write_bytes(data)
    try:
        frames, source = sample(path, 5.0, mode)
    except UnreadableVideo:
        return
    times = [frame.pts_seconds for frame in frames]
    assert times == sorted(set(times))
    assert source.end_seconds >= times[-1]


def test_endless_errors_are_given_up(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_ERRORS_IN_A_ROW", 5)
    video = make("only_key.mp4")
    with pyav.PyAVSource(video.path, Sampling("uniform", 1000.0), 1, None) as source:
        failing = iter(range(1000))

        def fail(packet: object) -> Any:
            next(failing)
            raise av.error.InvalidDataError(1094995529, "bad")

        class Broken:
            decode = staticmethod(fail)
            flush_buffers = staticmethod(lambda: None)

        class BrokenStream:
            index, codec_context = source._decoder.stream.index, Broken()

        monkeypatch.setattr(source._decoder, "stream", BrokenStream())
        list(source.frames())
        assert source.problem
        assert "too many errors" in source.problem
        assert next(failing) < 30


class Wrapped:
    """An open container whose demuxer is replaced by a test."""

    def __init__(self, container: Any, demux: Callable[[Any], Iterator[Any]]) -> None:
        self._container = container
        self._demux = demux

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self) -> Iterator[Any]:
        return self._demux(self._container)


def replace_demuxer(monkeypatch: pytest.MonkeyPatch, demux: Callable[[Any], Iterator[Any]]) -> None:
    original = container.open_container
    monkeypatch.setattr(stream, "open_container", lambda path: Wrapped(original(path), demux))


def test_a_track_that_begins_late_does_not_cost_the_video(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def demux(container: Any) -> Iterator[Any]:
        yield from container.demux()
        # PyAV looks for a track that it does not know when all packets are read
        raise IndexError("list index out of range")

    replace_demuxer(monkeypatch, demux)
    check_answers(make("program.mpg"), 5.0)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_packet_too_large_for_any_memory_is_damage_while_there_is_some(
    make: Maker, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    attempts = itertools.count()

    def demux(container: Any) -> Iterator[Any]:
        if next(attempts) == 0:
            raise av.error.MemoryError(12, "Cannot allocate memory")
        yield from container.demux()

    replace_demuxer(monkeypatch, demux)
    if not has_room:
        monkeypatch.setattr(stream, "_SENSIBLE_PACKET_BYTES", 1 << 60)
        with pytest.raises(MemoryError):
            sample(make("plain.mp4").path)
        return
    frames, source = sample(make("plain.mp4").path)
    assert len(frames) == 5
    assert source.problem == "1 damaged piece(s) could not be decoded"


def test_a_lack_of_memory_does_not_count_as_damage(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    with pyav.PyAVSource(make("plain.mp4").path, Sampling("uniform", 5.0), 1, None) as source:
        monkeypatch.setattr(render.Renderer, "image", refuse)
        with pytest.raises(MemoryError):
            list(source.frames())
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(MemoryError):
        sample(make("plain.mp4").path)


# --- files that are no videos


NO_VIDEOS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.touch(), "empty"),
    "garbage": (lambda path: path.write_bytes(random.Random(1).randbytes(5000)), "not a video"),
    "text": (lambda path: path.write_text("hello " * 100), "not a video"),
    "folder": (lambda path: path.mkdir(), "not a regular file"),
    "pipe": (os.mkfifo, "not a regular file"),
    "broken link": (lambda path: path.symlink_to(path.parent / "missing.mp4"), "no such file"),
    "audio": (write_audio, "no video track"),
    "cover": (lambda path: write_audio(path, cover=True), "cover image"),
}
"""How each is written, and words that its error must have."""


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_files_that_are_no_videos_are_refused_with_a_reason(
    tmp_path: Path, kind: str, backend: str
) -> None:
    path = tmp_path / "video.mp4"
    write, words = NO_VIDEOS[kind]
    write(path)
    with pytest.raises(UnreadableVideo, match=words) as caught:
        sample(path, backend=backend)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    ],
)
def test_playlist_is_not_followed(make: Maker, tmp_path: Path, text: str, backend: str) -> None:
    target = tmp_path / "target.ts"
    shutil.copyfile(make("transport.ts").path, target)
    for ending in ("mp4", "m3u8"):
        path = tmp_path / f"list.{ending}"
        path.write_text(text.format(target=target.name))
        with pytest.raises(UnreadableVideo):
            sample(path, backend=backend)


def test_unknown_backend_is_an_error_of_configuration(make: Maker) -> None:
    with pytest.raises(ConfigError, match="pyav, decord"):
        open_video(make("plain.mp4").path, sampling=Sampling("uniform", 1.0), backend="opencv")


# --- arithmetic


@pytest.mark.parametrize(
    ("mode", "fps"), [("uniform", 0.0), ("uniform", float("nan")), ("all", 1.0)]
)
def test_sampling_refuses_impossible_values(mode: Any, fps: float) -> None:
    with pytest.raises(ConfigError):
        Sampling(mode, fps)


@pytest.mark.parametrize("fps", [0.1, 1 / 3, 1.0, 2.0, 23.976, 29.97, 60.0])
@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(7, 3)]
)
def test_sampler_follows_the_definition_for_hours(fps: float, rate: Fraction) -> None:
    start = 3 * 3600  # rounding is worst there
    pts = [float(start + number / rate) for number in range(200)]
    sampler: Sampler[None] = Sampler(Sampling("uniform", fps))
    given = [answer[0] for time in pts if (answer := sampler.add(time, None))]
    targets = np.arange(int(start * fps), int(pts[-1] * fps) + 2) / fps
    for time, following in itertools.pairwise(pts):
        is_answer = bool(np.any((targets >= time - 5e-7) & (targets < following - 5e-7)))
        assert (time in given) == is_answer


def test_numbers_survive_drawing() -> None:
    assert [read_number(draw_number(number)) for number in (0, 1, 1023, 2047)] == [0, 1, 1023, 2047]


# --- real files


def shared_rows() -> list[dict[str, str]]:
    manifest = _SHARED_VIDEOS / "MANIFEST.tsv"
    if not manifest.exists():
        return []
    header, *lines = [line.split("\t") for line in manifest.read_text().splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.mark.parametrize("row", shared_rows(), ids=lambda row: row["filename"])
def test_real_files_give_frames_over_their_whole_length(
    shared_videos: Path, row: dict[str, str]
) -> None:
    frames, source = sample(shared_videos / row["filename"], 1.0, min_short_side=224)
    if row["n_video"] == "1":
        width, height = map(int, row["resolution"].split("x"))
        assert {source.info.width, source.info.height} == {width, height}
    last = frames[-1].pts_seconds
    assert len(frames) == math.ceil(source.end_seconds), (
        "one for each second that begins before the end"
    )
    assert source.end_seconds - 1.04 <= last < source.end_seconds
    assert (source.problem is not None) == ("corrupted" in row["filename"])
