"""Small JPEG files of bounded size, of frames of any shape."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scanonce.media.sampling import SampledFrame
from scanonce.media.thumbnails import ThumbnailRequest, make_thumbnail
from tests.videos import draw_number, read_number

REQUEST = ThumbnailRequest(1.0, 240)


def opened(jpeg: bytes | None) -> Image.Image:
    assert jpeg is not None
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(
    ("frame", "thumbnail"),
    [
        ((1280, 720), (240, 135)),
        ((720, 1280), (76, 135)),
        ((640, 480), (180, 135)),
        ((240, 135), (240, 135)),
        ((100, 50), (100, 50)),
        ((2, 2), (2, 2)),
        ((1, 1), (1, 1)),
        ((16384, 2), (240, 1)),
        ((2, 16384), (1, 135)),
    ],
)
def test_the_aspect_is_kept_inside_the_box_and_nothing_is_enlarged(
    frame: tuple[int, int], thumbnail: tuple[int, int]
) -> None:
    width, height = frame
    image = np.full((height, width, 3), (200, 40, 40), np.uint8)
    jpeg = opened(make_thumbnail(image, REQUEST))
    assert jpeg.size == thumbnail
    np.testing.assert_allclose(np.asarray(jpeg).reshape(-1, 3).mean(0), (200, 40, 40), atol=3)


def test_the_thumbnail_shows_the_frame() -> None:
    thumbnail = opened(make_thumbnail(draw_number(1234, 1280, 720), REQUEST))
    assert read_number(np.asarray(thumbnail)) == 1234


@given(st.integers(32, 640), st.sampled_from([0, 1]))
def test_noise_stays_within_the_bound(width: int, kind: int) -> None:
    request = ThumbnailRequest(1.0, width)
    rng = np.random.default_rng(width)
    shape = (*request.box[::-1], 3)
    noise = rng.integers(0, 256, shape) if kind else rng.integers(0, 2, shape) * 255
    jpeg = make_thumbnail(noise.astype(np.uint8), request)
    assert opened(jpeg).size == request.box
    assert jpeg is not None
    assert len(jpeg) <= request.max_bytes


def test_a_thumbnail_that_cannot_be_small_enough_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scanonce.media.thumbnails._HEADER_BYTES", -100_000)
    assert make_thumbnail(draw_number(1), REQUEST) is None


def test_a_read_only_frame_gets_a_thumbnail() -> None:
    image = draw_number(5, 640, 360)
    image.flags.writeable = False
    assert read_number(np.asarray(opened(make_thumbnail(image, REQUEST)))) == 5


def test_the_sampled_frame_on_screen_at_each_second_gets_one() -> None:
    sampler = REQUEST.sampler()
    times = [0.0, 0.5, 1.0, 1.9, 2.4, 2.6, 3.1, 9.0, 9.5, 10.0]
    frames = [SampledFrame(time, np.zeros((1, 1, 3), np.uint8)) for time in times]
    given = [sampler.add(frame.pts_seconds, frame) for frame in frames] + [sampler.finish(10.5)]
    assert [each[0] for each in given if each] == [0.0, 1.0, 1.9, 2.6, 3.1, 9.0, 10.0]
