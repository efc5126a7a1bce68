"""Unit vectors and mean pooling."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scanonce.models.vectors import mean_pool, pool_spans, unit


def test_frames_count_equally_whatever_their_norm() -> None:
    frames = np.array([[100.0, 0.0], [0.0, 0.1]], np.float32)
    np.testing.assert_allclose(mean_pool(frames), [np.sqrt(0.5), np.sqrt(0.5)], rtol=1e-6)
    raw_mean = unit(frames.mean(axis=0))
    assert raw_mean @ mean_pool(frames) < 0.8, "the mean of raw frames is another vector"


def test_pooling_is_unit_then_mean_then_unit() -> None:
    frames = np.random.default_rng(0).normal(size=(3, 5, 16)) * np.array([1, 5, 9, 2, 30])[:, None]
    lengths = np.linalg.norm(frames, axis=-1, keepdims=True)
    mean = (frames / lengths).mean(axis=1)
    expected = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    np.testing.assert_allclose(mean_pool(frames), expected, atol=1e-6)


def test_masked_frames_do_not_count() -> None:
    frames = np.random.default_rng(1).normal(size=(4, 8))
    mask = [True, False, True, False]
    np.testing.assert_allclose(mean_pool(frames, mask), mean_pool(frames[[0, 2]]), rtol=1e-6)


def test_a_clip_without_frames_is_zero_not_nan() -> None:
    frames = np.ones((2, 3, 4), np.float32)
    pooled = mean_pool(frames, [[True, True, True], [False, False, False]])
    assert np.isfinite(pooled).all()
    assert not pooled[1].any()
    assert not mean_pool(np.zeros((0, 4), np.float32)).any()


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_pooling_many_spans_equals_pooling_each_alone(num_frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(num_frames, 8)) * rng.uniform(0.1, 10, size=(num_frames, 1))
    pts = np.sort(rng.uniform(0, 20, num_frames))
    starts = rng.uniform(0, 20, 10)
    spans = np.stack([starts, starts + rng.uniform(0, 9, 10)], axis=1)
    pooled = pool_spans(unit(frames), pts, spans)
    for span, vector in zip(spans, pooled, strict=True):
        inside = (pts >= span[0]) & (pts < span[1])
        if inside.any():
            np.testing.assert_allclose(vector, mean_pool(frames[inside]), atol=2e-5)


def test_a_span_between_two_key_frames_takes_the_frame_on_screen() -> None:
    frames = np.eye(3, dtype=np.float32)
    pts = np.array([0.0, 10.0, 20.0])
    pooled = pool_spans(unit(frames), pts, np.array([[4.0, 8.0], [12.0, 16.0], [30.0, 34.0]]))
    assert pooled.argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_vectors_are_float32_of_length_1_and_zero_stays_zero(dtype: type) -> None:
    vectors: NDArray[np.floating] = np.array([[3.0, 4.0], [0.0, 0.0]], dtype)
    result = unit(vectors)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-3)
