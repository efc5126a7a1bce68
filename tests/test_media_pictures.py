"""Features, thumbnails, clips, proxies and single frames show what players show: HDR, cropped, interlaced video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from numpy.typing import NDArray

from scanonce.media.answers import NewThumbnails
from scanonce.media.cut import frame_jpeg, probe, write_clip, write_proxy
from scanonce.media.filters import ColourFilter, deinterlaced
from scanonce.media.hdr import PEAK, light_of, roll_off, to_bt709
from scanonce.media.open import open_video
from scanonce.media.playable import playable
from scanonce.media.sampling import Sampling
from scanonce.models.encoders.load import load_encoder
from scanonce.storage.errors import UnreadableVideo
from scanonce.storage.records import Span
from scanonce.training.world.scene import draw_image, random_scene
from tests.decoding import THUMBNAILS, decode
from tests.odd_videos import (
    Transfer,
    as_hdr,
    combs,
    crop_matroska,
    crop_mov,
    hlg_codes,
    image_in,
    pq_codes,
    stripes,
    weave,
    write_hdr,
    write_interlaced,
)
from tests.videos import HEIGHT, WIDTH, draw_number, read_number, write_images, write_video

Pictures = Callable[[Path], list[NDArray[np.uint8]]]


def sampled(path: Path, fps: float = 100.0, **options: Any) -> list[NDArray[np.uint8]]:
    with open_video(path, sampling=Sampling("uniform", fps), **options) as source:
        images = [frame.image for frame in source.frames()]
        assert source.problem is None
        assert (source.info.height, source.info.width) == images[0].shape[:2]
        return images


def of_thumbnails(path: Path) -> list[NDArray[np.uint8]]:
    (events,) = decode(path)
    jpegs = [each.thumbnails.jpegs for each in events if isinstance(each, NewThumbnails)]
    return [image_in(jpeg) for several in jpegs for jpeg in several]


def of_clip(path: Path) -> list[NDArray[np.uint8]]:
    out = path.with_name("clip.mp4")
    write_clip(path, Span(0.0, 100.0), out)
    return sampled(out)


def of_proxy(path: Path) -> list[NDArray[np.uint8]]:
    out = path.with_name("proxy.mp4")
    write_proxy(path, out)
    return sampled(out)


def of_jpeg(path: Path) -> list[NDArray[np.uint8]]:
    return [image_in(frame_jpeg(path, 0.0))]


WAYS = {
    "features": sampled,
    "thumbnails": of_thumbnails,
    "clip": of_clip,
    "proxy": of_proxy,
    "jpeg": of_jpeg,
}


@pytest.fixture(params=WAYS)
def pictures(request: pytest.FixtureRequest) -> Pictures:
    """Every way in which pictures of a video are made."""
    return WAYS[str(request.param)]


# ---------------------------------------------------------------- HDR


@pytest.fixture(scope="module")
def scenes() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [draw_image(random_scene(rng), seconds=1.0) for _ in range(12)]


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
@pytest.mark.parametrize("codec", ["libx265", "ffv1"])
def test_features_of_hdr_video_are_those_of_the_sdr_original(
    tmp_path: Path, scenes: list[NDArray[np.uint8]], transfer: Transfer, codec: str
) -> None:
    codes = [as_hdr(image, transfer) for image in scenes]
    path = write_hdr(tmp_path / "v.mkv", codes, transfer, codec=codec)
    encoder = load_encoder("bundled", towers="vision")
    resize = encoder.preprocessing.resize
    short_side = encoder.preprocessing.min_short_side
    shown = encoder.encode_frames(resize(np.stack(sampled(path, min_short_side=short_side))))
    original = encoder.encode_frames(resize(np.stack(scenes)))

    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    original /= np.linalg.norm(original, axis=1, keepdims=True)
    cosines = (shown * original).sum(axis=1)

    assert cosines.mean() >= 0.98
    assert cosines.min() >= 0.95


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_pictures_of_hdr_video_look_like_the_sdr_original(
    tmp_path: Path, pictures: Pictures, transfer: Transfer
) -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    image[:, :32], image[:, 32:64] = (128, 128, 128), (180, 80, 70)
    image[:, 64:96], image[:, 96:] = (80, 150, 90), (60, 80, 170)
    path = write_hdr(tmp_path / "v.mp4", [as_hdr(image, transfer)] * 3, transfer)
    for shown in pictures(path):
        height, width = shown.shape[:2]
        for column in range(4):
            x = (2 * column + 1) * width // 8
            middle = shown[height // 2 - 4 : height // 2 + 4, x - 4 : x + 4].mean(axis=(0, 1))
            assert middle == pytest.approx(image[0, column * 32 + 16].astype(float), abs=8)


@pytest.mark.parametrize("make", [write_clip, write_proxy])
def test_what_is_written_of_hdr_video_is_tagged_as_what_it_is(tmp_path: Path, make: Any) -> None:
    codes = [as_hdr(draw_number(1), "pq")] * 3
    path = write_hdr(tmp_path / "v.mp4", codes, "pq")
    make(path, *([Span(0.0, 1.0)] if make is write_clip else []), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame: Any = next(container.decode(video=0))
    assert frame.format.name == "yuv420p"
    assert (frame.color_trc, frame.color_primaries) == (ColorTrc.BT709, ColorPrimaries.BT709)
    assert (frame.colorspace, frame.color_range) == (Colorspace.ITU709, 1)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_the_table_is_exact_whatever_the_time_of_a_frame(
    scenes: list[NDArray[np.uint8]], transfer: Transfer
) -> None:
    codes = as_hdr(scenes[0], transfer)
    exact = to_bt709(codes.reshape(-1, 3) / 65535, (transfer, "bt2020")).reshape(codes.shape)
    mapped = ColourFilter(threads=1)
    for pts in (None, -1000, 5, 5, 0):
        frame = av.VideoFrame.from_ndarray(codes, format="rgb48le")
        frame.pts = pts
        found = mapped(frame, (transfer, "bt2020")).to_ndarray() / 65535
        assert np.abs(found - exact).max() * 255 < 6
        assert np.abs(found - exact).mean() * 255 < 0.5


def test_sdr_in_wide_primaries_gets_its_colours_back() -> None:
    grey, red = np.full((1, 3), 0.5), np.array([[0.9, 0.2, 0.2]])
    assert to_bt709(grey, ("sdr", "bt2020")) == pytest.approx(grey, abs=1e-3)
    assert to_bt709(red, ("sdr", "p3"))[0, 0] > 0.95


@pytest.mark.parametrize("nits", [0.0, 0.1, 1.0, 50.0, 203.0, 600.0, 1000.0])
def test_light_of_both_transfers_is_that_of_the_standards(nits: float) -> None:
    grey = np.full((1, 3), nits)
    assert light_of(pq_codes(grey), "pq") == pytest.approx(grey / 203, abs=1e-3)
    assert light_of(hlg_codes(grey), "hlg") == pytest.approx(grey / 203, abs=1e-3)


def test_the_tone_curve_keeps_darker_light_and_the_order_of_highlights() -> None:
    light = np.linspace(0, PEAK, 1000)
    mapped = roll_off(light)
    assert mapped[light < 0.75] == pytest.approx(light[light < 0.75])
    assert (np.diff(mapped) > 0).all()
    assert np.diff(mapped).max() <= np.diff(light).max() * 1.001  # without an edge at the knee
    assert mapped[-1] == pytest.approx(1.0)
    codes = to_bt709(pq_codes(np.array([[203.0] * 3, [400.0] * 3, [900.0] * 3])), ("pq", "bt2020"))
    assert (np.diff(np.round(codes[:, 0] * 255)) >= 1).all()


# ---------------------------------------------------------------- crop


def numbers_shown(shown: list[NDArray[np.uint8]]) -> list[int]:
    return [read_number(image) for image in shown]


def bordered(number: int, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
    """Return a number in the middle of a frame of `WIDTH` x `HEIGHT` with borders that are not to be shown."""
    size = WIDTH - left - right, HEIGHT - top - bottom
    borders = ((top, bottom), (left, right), (0, 0))
    return np.pad(draw_number(number, *size), borders, constant_values=255)


def check_cropped(
    shown: list[NDArray[np.uint8]], number: int, left: int, top: int, right: int, bottom: int
) -> None:
    """Check that the number is seen whole, and that its shape is kept where it was made smaller."""
    width, height = WIDTH - left - right, HEIGHT - top - bottom
    for image in shown:
        assert image.shape[1] / image.shape[0] == pytest.approx(width / height, abs=0.02)
        assert image.shape[1] in (width, THUMBNAILS.box[0]) or image.shape[0] == THUMBNAILS.box[1]
    assert set(numbers_shown(shown)) == {number}


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        ("left", (32, 0, 0, 0)),
        ("top", (0, 24, 0, 0)),
        ("right", (0, 0, 32, 0)),
        ("bottom", (0, 0, 0, 24)),
    ],
)
def test_what_matroska_crops_is_not_shown(
    tmp_path: Path, pictures: Pictures, side: str, sides: tuple[int, int, int, int]
) -> None:
    path = write_images(tmp_path / "v.mkv", [bordered(5, *sides)] * 3, codec="ffv1")
    crop_matroska(path, side, sum(sides))
    shown = pictures(path)
    check_cropped(shown, 5, *sides)


def test_the_clean_aperture_of_quicktime_is_shown(tmp_path: Path, pictures: Pictures) -> None:
    sides = (8, 4, 24, 12)
    path = write_images(tmp_path / "v.mov", [bordered(9, *sides)] * 3)
    crop_mov(path, *sides)
    shown = pictures(path)
    check_cropped(shown, 9, *sides)


@pytest.mark.parametrize("sides", [(64, 48, 64, 48), (90, 0, 90, 0), (-10, 0, 0, 0)])
def test_a_crop_that_leaves_nothing_or_adds_something_is_ignored(
    tmp_path: Path, sides: tuple[int, int, int, int]
) -> None:
    path = write_images(tmp_path / "v.mov", [draw_number(3)] * 2)
    crop_mov(path, *sides)
    assert numbers_shown(sampled(path)) == [3, 3]


def test_decord_is_not_used_where_it_would_show_something_else(tmp_path: Path) -> None:
    crop_mov(write_images(tmp_path / "crop.mov", [draw_number(1)] * 3), 8, 8, 8, 8)
    write_hdr(tmp_path / "hdr.mp4", [as_hdr(draw_number(1), "pq")] * 3, "pq")
    write_interlaced(tmp_path / "interlaced.mp4", [draw_number(1)] * 3, codec="libx264")
    for name, words in (("crop.mov", "crop"), ("hdr.mp4", "HDR"), ("interlaced.mp4", "interlac")):
        with pytest.raises(UnreadableVideo, match=f"{words}.*pyav"):
            sampled(tmp_path / name, backend="decord")


# ---------------------------------------------------------------- interlaced


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mpg", "mpeg2video"), ("v.ts", "mpeg2video"), ("v.mp4", "libx264"), ("v.mkv", "libx264")],
)
def test_pictures_of_interlaced_video_have_no_combs(
    tmp_path: Path, pictures: Pictures, name: str, codec: str
) -> None:
    woven = [weave(stripes(8 * k), stripes(8 * k + 4)) for k in range(12)]
    assert min(combs(image) for image in woven) > 40
    path = write_interlaced(tmp_path / name, woven, codec=codec)
    shown = pictures(path)
    assert max(combs(image) for image in shown) < 4
    assert max(float(np.ptp(image)) for image in shown) > 150


@pytest.mark.parametrize("make", [write_clip, write_proxy])
def test_what_is_written_of_interlaced_video_is_progressive_with_a_frame_for_each(
    tmp_path: Path, make: Any
) -> None:
    source = write_interlaced(tmp_path / "v.mpg", [draw_number(k) for k in range(30)])
    make(source, *([Span(0.2, 0.8)] if make is write_clip else []), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames: Any = list(container.decode(video=0))
        assert container.streams.video[0].codec_context.field_order in (0, 1)
    expected = list(range(5, 20)) if make is write_clip else list(range(30))
    assert [read_number(frame.to_ndarray(format="rgb24")) for frame in frames] == expected
    assert not any(frame.interlaced_frame for frame in frames)
    times = [float(frame.pts * frame.time_base) for frame in frames]
    assert times == pytest.approx([k / 25 for k in range(len(expected))], abs=2e-3)


def test_browsers_get_a_copy_of_what_they_would_show_with_combs_or_uncropped(
    tmp_path: Path,
) -> None:
    images = [draw_number(k) for k in range(12)]
    plain = write_video(tmp_path / "plain.mp4").path
    cropped = write_video(tmp_path / "cropped.mp4").path
    crop_mov(cropped, 8, 8, 8, 8)
    woven = write_interlaced(tmp_path / "woven.mp4", images, codec="libx264")
    assert [playable(probe(path)) for path in (plain, cropped, woven)] == [True, False, False]


def test_progressive_frames_pass_the_deinterlacer_untouched(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", num_frames=5)
    with av.open(str(video.path)) as container:
        frames: Any = [(0.1 * k, frame) for k, frame in enumerate(container.decode(video=0))]
    assert list(deinterlaced(frames)) == frames


def test_the_deinterlacer_follows_a_change_of_size_and_of_interlacing(tmp_path: Path) -> None:
    frames: list[Any] = []
    for name, size in (("a.mp4", (128, 96)), ("b.mp4", (192, 144))):
        images = [draw_number(len(frames) + k, *size) for k in range(4)]
        write_interlaced(tmp_path / name, images, codec="libx264")
        with av.open(str(tmp_path / name)) as container:
            frames += container.decode(video=0)
    plain = write_images(tmp_path / "c.mp4", [draw_number(8 + k, 192, 144) for k in range(3)])
    with av.open(str(plain)) as container:
        frames += container.decode(video=0)
    answered = list(deinterlaced((float(k), frame) for k, frame in enumerate(frames)))
    assert [seconds for seconds, _ in answered] == list(map(float, range(11)))
    shown: list[Any] = [frame.to_ndarray(format="rgb24") for _, frame in answered]
    assert numbers_shown(shown) == list(range(11))
    assert not any(frame.interlaced_frame for _, frame in answered)
