"""The z-buffer: coverage, depth order, perspective."""

from __future__ import annotations

import numpy as np

from gsth.head import _raster

K = np.array(((100.0, 0, 50), (0, 100.0, 50), (0, 0, 1)))
SQUARE = np.array(((-1.0, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)))
TWO = np.array(((0, 1, 2), (0, 2, 3)))


def test_covers_a_square_once_with_sharp_edges() -> None:
    verts = SQUARE * (0.2, 0.2, 1) + (0, 0, 1)
    hits = _raster.rasterize(verts, TWO, K, (100, 100))
    inside = hits.face_ids >= 0
    assert inside.sum() == 40 * 40 and inside[30:70, 30:70].all()
    assert set(np.unique(hits.face_ids)) == {-1, 0, 1}
    assert np.allclose(hits.bary[inside].sum(1), 1, atol=1e-5)
    assert np.isinf(hits.depth[~inside]).all() and np.allclose(hits.depth[inside], 1)


def test_nearest_wins_whatever_the_order() -> None:
    near, far = SQUARE * (0.1, 0.1, 1) + (0, 0, 1), SQUARE * 2 + (0, 0, 4)
    for order in ((near, far), (far, near)):
        hits = _raster.rasterize(np.concatenate(order), np.concatenate((TWO, TWO + 4)), K, (100, 100))
        assert abs(hits.depth[50, 50] - 1) < 1e-6 and abs(hits.depth[5, 5] - 4) < 1e-6


def test_weights_are_perspective_correct() -> None:
    rng = np.random.default_rng(0)
    verts = rng.uniform(-0.5, 0.5, (30, 3)) + (0, 0, 1.5)
    faces = rng.permutation(30).reshape(10, 3)
    hits = _raster.rasterize(verts, faces, K, (100, 100))
    y, x = np.nonzero(hits.face_ids >= 0)
    assert len(x) > 500
    points = (verts[faces[hits.face_ids[y, x]]] * hits.bary[y, x][..., None]).sum(1)
    px = points[:, :2] / points[:, 2:] * 100 + 50
    assert np.abs(px - np.stack((x + 0.5, y + 0.5), 1)).max() < 1e-3
    assert np.abs(points[:, 2] - hits.depth[y, x]).max() < 1e-5


def test_what_is_behind_the_camera_or_outside_is_left_out() -> None:
    verts = np.concatenate((SQUARE + (0, 0, -1), SQUARE + (50, 0, 1)))
    hits = _raster.rasterize(verts, np.concatenate((TWO, TWO + 4)), K, (100, 100))
    assert (hits.face_ids == -1).all()


def test_shading_is_white_outside_and_brighter_where_it_faces_the_light() -> None:
    facing = SQUARE[::-1] * (0.1, 0.1, 1) + (-0.2, 0, 1)
    steep = np.stack((facing[:, 0] + 0.4, facing[:, 1], 1 + 3 * facing[:, 0] + 0.6), 1)
    verts, faces = np.concatenate((facing, steep)), np.concatenate((TWO, TWO + 4))
    hits = _raster.rasterize(verts, faces, K, (100, 100))
    image = _raster.shade(verts, faces, hits, np.full((4, 3), 0.8))
    assert (image[hits.face_ids < 0] == 255).all()
    left, right = (image[np.isin(hits.face_ids, ids)].mean() for ids in ((0, 1), (2, 3)))
    assert left > right + 20
