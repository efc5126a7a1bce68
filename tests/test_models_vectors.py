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


@given(st.integers(1, 40), st.sampled_from([0.5, 2.0, 7.3]), st.integers(0, 2**32 - 1))
def test_spans_are_pooled_from_the_frame_on_screen_at_each_target(
    num_frames: int, fps: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(num_frames, 8)) * rng.uniform(0.1, 10, size=(num_frames, 1))
    pts = np.sort(rng.uniform(0, 20, num_frames))
    starts = rng.uniform(0, 20, 10)
    spans = np.stack([starts, starts + rng.uniform(0, 9, 10)], axis=1)
    pooled = pool_spans(unit(frames), pts, spans, fps)
    for (start, end), vector in zip(spans, pooled, strict=True):
        targets = [k / fps for k in range(round(31 * fps)) if start <= k / fps < end]
        rows = [max(0, int((pts <= target).sum()) - 1) for target in targets]
        if rows:
            np.testing.assert_allclose(vector, mean_pool(frames[rows]), atol=2e-5)


def test_a_span_between_two_targets_has_the_frame_on_screen_before_it() -> None:
    frames = np.eye(3, dtype=np.float32)
    pts = np.array([0.0, 10.0, 20.0])
    spans = np.array([[4.1, 4.4], [12.0, 16.0], [30.2, 30.3]])
    assert pool_spans(unit(frames), pts, spans, 2.0).argmax(axis=1).tolist() == [0, 1, 2]


def test_a_picture_counts_as_long_as_it_is_on_screen() -> None:
    pts = np.array([0.0, 30_000.0])
    (pooled,) = pool_spans(np.eye(2, dtype=np.float32), pts, np.array([[29_994.0, 30_002.0]]), 2.0)
    np.testing.assert_allclose(pooled, np.array([6.0, 2.0]) / np.hypot(6.0, 2.0), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_vectors_are_float32_of_length_1_and_zero_stays_zero(dtype: type) -> None:
    vectors: NDArray[np.floating] = np.array([[3.0, 4.0], [0.0, 0.0]], dtype)
    result = unit(vectors)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-3)
