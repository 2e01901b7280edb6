from __future__ import annotations

import math

import numpy as np
import pytest

from gsth import metrics


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(40, 53, 3)), 0), 1)
    a = (smooth - smooth.min()) / np.ptp(smooth)
    return a, np.clip(a + rng.normal(scale=0.07, size=a.shape), 0, 1)


def _face(seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(20, 60, (478, 2))
    points[33], points[263] = (20, 30), (60, 60)  # IOD 50
    return points


def test_image_measures_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is absent")
    a, b = pair
    want = skimage.structural_similarity(
        a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    assert metrics.ssim(a, b) == pytest.approx(want, abs=1e-9)
    assert metrics.psnr(a, b) == pytest.approx(skimage.peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-9)


def test_bytes_and_unit_floats_score_alike(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = ((p * 255).round().astype(np.uint8) for p in pair)
    assert metrics.psnr(a, b) == pytest.approx(metrics.psnr(a / 255, b / 255))
    assert metrics.ssim(a, b) == pytest.approx(metrics.ssim(a / 255, b / 255))


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 4, 3))
    assert metrics.psnr(black + 0.1, black) == pytest.approx(20.0)
    assert metrics.psnr(black, black) == math.inf


def test_ssim_of_equal_pictures_is_one_and_small_pictures_are_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert metrics.ssim(pair[0], pair[0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 11 px"):
        metrics.ssim(np.zeros((10, 30, 3)), np.zeros((10, 30, 3)))


def test_landmark_distance_is_in_percent_of_the_eye_distance() -> None:
    reference = _face()
    moved = reference + np.array((3.0, 4.0))
    assert metrics.inter_ocular(reference) == pytest.approx(50.0)
    assert metrics.landmark_distance_pct(moved, reference) == pytest.approx(10.0)
    only_lips = reference.copy()
    only_lips[list(metrics.LIPS)] += (0.0, 5.0)
    assert metrics.landmark_distance_pct(only_lips, reference, lips=True) == pytest.approx(10.0)
    assert metrics.landmark_distance_pct(only_lips, reference) == pytest.approx(10.0 * 40 / 468)
    irises = reference.copy()
    irises[468:] += 99
    assert metrics.landmark_distance_pct(irises, reference) == pytest.approx(0.0)


def test_landmark_measures_keep_the_time_axis() -> None:
    series = np.stack([_face(i) for i in range(4)])
    assert metrics.landmark_distance_pct(series, series).shape == (4,)
    series[:, 13], series[:, 14] = (40, 50), (40, 55)
    assert metrics.mouth_opening(series) == pytest.approx(np.full(4, 0.1))


def test_lips_are_the_contour_that_mediapipe_draws() -> None:
    solutions = pytest.importorskip("mediapipe", reason="mediapipe is absent").solutions
    assert set(metrics.LIPS) == {i for edge in solutions.face_mesh_connections.FACEMESH_LIPS for i in edge}


@pytest.mark.parametrize("lag", [-5, -2, 0, 3, 5])
def test_best_lag_finds_delay_and_gain(lag: int) -> None:
    truth = np.random.default_rng(1).normal(size=90)
    reference = truth[10:70]
    late = 0.5 * truth[10 - lag : 70 - lag] + 7
    fit = metrics.best_lag(late, reference)
    assert fit is not None
    assert (fit.lag, fit.correlation, fit.ratio) == (lag, pytest.approx(1.0), pytest.approx(0.5))


def test_best_lag_leaves_out_unknown_frames_and_says_none_for_still_lips() -> None:
    reference = np.sin(np.arange(50) * 0.7)
    holes = reference.copy()
    holes[[3, 30]] = np.nan
    fit = metrics.best_lag(holes, reference)
    assert fit is not None and fit.lag == 0 and fit.correlation == pytest.approx(1.0)
    assert metrics.best_lag(np.full(50, 0.3), reference) is None
    assert metrics.best_lag(np.full(50, np.nan), reference) is None


def test_boxes_hold_the_points_with_their_margin_inside_the_picture() -> None:
    points = np.full((478, 2), 50.0)
    points[0], points[10] = (50, 80), (30, 40)
    assert metrics.face_box(points, 200, 200) == (26, 36, 54, 84)  # 20 x 40, margin 4
    assert metrics.mouth_box(points, 200, 200) == (42, 42, 58, 88)  # 0 x 30, margin 7.5
    assert metrics.face_box(points, 40, 60) == (26, 36, 40, 60)
    assert metrics.face_box(points - 500, 40, 60) is None
    picture = np.zeros((60, 40, 3))
    assert metrics.cut(picture, (26, 36, 40, 60)).shape == (24, 14, 3)


def test_mean_leaves_nan_out() -> None:
    assert metrics.mean([1.0, math.nan, 3.0]) == 2.0
    assert metrics.mean([math.nan]) is None
