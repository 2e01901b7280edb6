"""Shut eyes are shut, open ones and those that never blink stay as they were seen."""

from __future__ import annotations

import numpy as np
import pytest

from gsth.track import _points


def eyes(gaps: np.ndarray) -> np.ndarray:
    """Landmarks [t 478 2] with these lid gaps over an inter-ocular distance of 100 px [t]."""
    points = np.zeros((len(gaps), _points.COUNT, 2), np.float32)
    points[:, _points.RIGHT_OUTER], points[:, _points.LEFT_OUTER] = (0, 50), (100, 50)
    for pairs, x in ((_points.LIDS_RIGHT, 20), (_points.LIDS_LEFT, 80)):
        for upper, lower in pairs:
            points[:, lower] = (x, 52)
            points[:, upper, 0], points[:, upper, 1] = x, 52 - 100 * gaps
    return points


@pytest.fixture(scope="module")
def blinking() -> np.ndarray:
    """Gaps of 100 frames: two blinks that the detector leaves a third open, one half-lowered lid."""
    gaps = np.full(100, 0.1)
    gaps[20:23] = gaps[60:63] = 0.035
    gaps[80:84] = 0.07
    return gaps


def test_blinks_close_and_open_eyes_stay(blinking: np.ndarray) -> None:
    points = eyes(blinking)
    shut = _points.with_shut_lids(points, np.ones(100, bool))
    for pairs in (_points.LIDS_RIGHT, _points.LIDS_LEFT):
        gap = _points.gaps(shut, pairs)
        assert gap[[20, 21, 22, 60, 61, 62]].max() < 0.004
        assert np.allclose(gap[:20], 0.1, atol=1e-4)
        assert 0.055 < gap[81] < 0.07, "half lowered stays about half lowered"
    assert np.array_equal(
        shut[:, [lower for _, lower in _points.LIDS_LEFT]], points[:, [b for _, b in _points.LIDS_LEFT]]
    )


def test_who_never_blinks_keeps_the_eyes() -> None:
    points = eyes(np.linspace(0.08, 0.12, 100))
    assert np.array_equal(_points.with_shut_lids(points, np.ones(100, bool)), points)


def test_frames_without_a_face_say_nothing(blinking: np.ndarray) -> None:
    found = np.ones(100, bool)
    gaps = blinking.copy()
    gaps[40:50], found[40:50] = 0.001, False
    shut = _points.with_shut_lids(eyes(gaps), found)
    assert _points.gaps(shut, _points.LIDS_LEFT)[21] < 0.004
