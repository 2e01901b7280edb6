"""The crop: where it lies, and that pixels, points and camera agree about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsth import math3d
from gsth.track import _points
from gsth.track._crop import Crop, choose


def face(x: float, y: float, height: float) -> np.ndarray:
    """One frame of landmarks whose forehead-to-chin distance is ``height``, centred on x, y; [1 478 2]."""
    points = np.full((1, _points.COUNT, 2), (x, y), np.float32)
    points[:, _points.FOREHEAD, 1] -= height / 2
    points[:, _points.CHIN, 1] += height / 2
    return points


def test_small_face_gets_three_heads_with_shoulders() -> None:
    crop = choose(face(540, 600, 130), 1080, 1920, 512)
    assert crop.side == pytest.approx(3 * 1.4 * 130, abs=2)
    x0, y0, x1, y1 = crop.box
    assert (x0 + x1) / 2 == pytest.approx(540, abs=1)
    assert y0 < 600 - 65 - 0.4 * 130, "hair is cut off"
    assert y1 > 600 + 65 + 130, "no shoulders"


def test_large_face_takes_the_whole_frame() -> None:
    assert choose(face(256, 260, 250), 512, 512, 512).box == (0, 0, 512, 512)


def test_prefers_to_stay_inside() -> None:
    x0, y0, x1, y1 = choose(face(60, 90, 80), 640, 480, 256).box
    assert x0 == 0 and y0 == 0 and x1 <= 640 and y1 <= 480


def test_head_that_walks_further_than_the_frame_is_high_is_kept() -> None:
    walk = np.concatenate([face(100, 150, 100), face(1100, 150, 100)])
    x0, y0, x1, y1 = choose(walk, 1280, 300, 256).box
    assert x0 <= 100 and x1 >= 1100
    assert y0 < 0 and y1 > 300 and x1 - x0 == y1 - y0


def test_outside_is_black_and_inside_is_untouched() -> None:
    frame = np.random.default_rng(0).integers(1, 255, (40, 64, 3), dtype=np.uint8)
    image = Crop(x0=10, y0=-8, side=64, size=64).image(frame)
    assert (image[:8] == 0).all() and (image[48:] == 0).all() and (image[:, 54:] == 0).all()
    assert (image[8:48, :54] == frame[:, 10:]).all()


@pytest.mark.parametrize("size", [32, 64, 256])
def test_picture_and_points_agree(size: int) -> None:
    frame = np.zeros((96, 96, 3), np.uint8)
    frame[40:44, 60:64] = 255
    crop = Crop(x0=16, y0=8, side=64, size=size)
    bright = crop.image(frame)[..., 0].astype(float)
    rows, cols = np.mgrid[:size, :size] + 0.5
    centre = np.array([(bright * cols).sum(), (bright * rows).sum()]) / bright.sum()
    assert crop.points(np.array((62.0, 42.0))) == pytest.approx(centre, abs=0.02 * size / 64 + 0.01)


def test_shrinking_does_not_alias() -> None:
    frame = np.zeros((128, 128, 3), np.uint8)
    frame[:, ::2] = 255
    image = Crop(0, 0, 128, 64).image(frame)
    assert abs(image.astype(int) - 127).max() <= 1


def test_camera_of_the_crop_is_the_camera_of_the_clip() -> None:
    crop = Crop(x0=100, y0=50, side=300, size=512)
    points = torch.tensor(((0.1, -0.2, 1.5), (-0.05, 0.1, 0.8)))
    whole = torch.tensor(((900.0, 0, 320), (0, 900, 240), (0, 0, 1)))
    want = crop.points(math3d.project(points, whole).numpy())
    camera = crop.cameras(900.0, 640, 480)
    assert camera.width == camera.height == 512
    np.testing.assert_allclose(math3d.project(points, camera.Ks[0]).numpy(), want, atol=1e-2)
