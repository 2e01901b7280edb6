from __future__ import annotations

import math

import numpy as np
import pytest

from gsth import metrics


def _face(seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(20, 60, (478, 2))
    points[33], points[263] = (20, 30), (60, 60)  # IOD 50
    return points


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
    assert metrics.best_lag(reference[:2], reference[:2]) is None
    short = metrics.best_lag(reference[:4], reference[:4])
    assert short is not None and short.lag == 0


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


def test_lmd_is_the_distance_of_twenty_mouth_points_without_their_means() -> None:
    reference = _face()
    moved = reference.copy()
    moved[list(metrics.LIPS_20)] += (7.0, -3.0)
    assert metrics.lmd_px(moved, reference) == pytest.approx(0.0, abs=1e-12)
    opened = reference.copy()
    upper, lower = list(metrics.LIPS_20[:10]), list(metrics.LIPS_20[10:])
    opened[upper] -= (0.0, 3.0)
    opened[lower] += (0.0, 3.0)
    assert metrics.lmd_px(opened, reference) == pytest.approx(3.0)


def test_closures_count_where_lips_shut_between_open_frames() -> None:
    opening = np.full(60, 0.1)
    opening[[10, 11, 30]] = 0.005
    opening[40:60] = 0.0  # rest at the end is no closure: nothing opens after it
    assert metrics.closure_recall(opening, opening) == metrics.Recall(2, 2)
    late = np.roll(opening, 2)
    assert metrics.closure_recall(late, opening).hits == 2
    open_mouth = np.full(60, 0.1)
    open_mouth[12] = 0.0
    assert metrics.closure_recall(open_mouth, opening).share == 0.5
    assert metrics.closure_recall(opening, np.full(60, 0.1)).share is None
    assert metrics.bilabial_closure(opening, [(9, 12), (20, 22), (58, 99)]) == metrics.Recall(2, 1)


def test_blinks_are_found_against_each_series_own_median() -> None:
    eyes = np.full(50, 0.30)
    eyes[[10, 11, 30]] = 0.05
    narrow = 0.5 * eyes
    assert metrics.blink_recall(narrow, eyes) == metrics.Recall(2, 2)
    assert metrics.blink_recall(np.full(50, 0.3), eyes) == metrics.Recall(2, 0)
    assert metrics.blink_recall(eyes, np.full(50, np.nan)).share is None


def _open_eye() -> np.ndarray:
    points = np.zeros((478, 2))
    for eye in ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380)):
        points[list(eye)] = ((0, 0), (1, -1), (2, -1), (3, 0), (2, 1), (1, 1))
    return points


def test_eye_opening_by_hand() -> None:
    assert metrics.eye_opening(_open_eye()) == pytest.approx((2 + 2) / (2 * 3))


def test_stabilised_landmarks_do_not_feel_the_head_move() -> None:
    face, steps = _face(), np.arange(12)
    turn = np.exp(0.1j * np.sin(steps)) * (1 + 0.05 * np.cos(steps))
    moved = (face @ (1, 1j))[None] * turn[:, None] + (3 * steps + 2j * steps**2)[:, None]
    series = np.stack((moved.real, moved.imag), -1)
    assert metrics.jitter_pct(series) == pytest.approx(0.0, abs=1e-9)
    assert np.abs(np.diff(metrics.stabilised(series), axis=0)).max() < 1e-9


def test_jitter_of_known_noise() -> None:
    series = np.repeat(_face()[None], 9, 0)
    soft = [i for i in range(468) if i not in (33, 133, 362, 263, 168, 6, 197, 195)]
    series[::2, soft] += (0.5, 0.0)  # second difference of +-1 px on all but the rigid points
    want = 100 * np.sqrt(len(soft) / 468) / 50
    assert metrics.jitter_pct(series) == pytest.approx(want, rel=1e-6)
    series[4] = np.nan
    assert metrics.jitter_pct(series) == pytest.approx(want, rel=1e-6)
    assert np.isnan(metrics.jitter_pct(series[:2]))
