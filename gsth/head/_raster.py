"""A small z-buffer for meshes in numpy: which triangle is seen in each pixel, and where in it.

For visibility, landmark casting and contact sheets; not differentiable (splats are drawn by ``gsth.render``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Hits:
    """What a camera sees of a mesh."""

    face_ids: np.ndarray
    """Triangle in each pixel, int32 [h w], -1 where none."""
    bary: np.ndarray
    """Perspective-correct barycentric weights in it, float32 [h w 3], 0 where none."""
    depth: np.ndarray
    """Camera z, float32 [h w], inf where none."""


def rasterize(
    verts_cam: np.ndarray, faces: np.ndarray, K: np.ndarray, size: tuple[int, int], near: float = 1e-3
) -> Hits:
    """Draw a mesh with a pinhole camera; pixel (x, y) has its centre at (x + 0.5, y + 0.5).

    Triangles with a corner nearer than ``near`` are left out; both sides of a triangle are drawn.

    Args:
        verts_cam: Vertices in the camera's frame (OpenCV axes), m, [v 3].
        faces: [f 3].
        K: Intrinsics, px, [3 3].
        size: Height and width, px.
        near: Nearest z that is drawn, m.
    """
    height, width = size
    face_ids = np.full(height * width, -1, np.int32)
    bary = np.zeros((height * width, 3), np.float32)
    depth = np.full(height * width, np.inf, np.float32)
    z = verts_cam[:, 2].astype(np.float64)
    xy = verts_cam[:, :2] / np.maximum(z, near)[:, None] * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2])
    tri = xy[faces]
    first = np.ceil(tri.min(1) - 0.5).clip(0).astype(np.int64)
    last = np.floor(tri.max(1) - 0.5).clip(-1, (width - 1, height - 1)).astype(np.int64)
    span = (last - first + 1).clip(0)
    area = _cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    drawn = np.flatnonzero((span.prod(1) > 0) & (np.abs(area) > 1e-9) & (z[faces].min(1) > near))
    count = span[drawn].prod(1)
    # one row per triangle and pixel of its box
    rows = np.repeat(np.arange(len(drawn)), count)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    wide = span[drawn, 0][rows]
    px, py = first[drawn, 0][rows] + nth % wide, first[drawn, 1][rows] + nth // wide
    a, b, c = (tri[drawn, k] for k in range(3))
    # barycentrics are affine in the pixel: coefficients per triangle, evaluated per row
    scale = 1.0 / area[drawn]
    gx = np.stack((-(c - b)[:, 1] * scale, -(a - c)[:, 1] * scale), 1)
    gy = np.stack(((c - b)[:, 0] * scale, (a - c)[:, 0] * scale), 1)
    g0 = np.stack((-(gx[:, 0] * b[:, 0] + gy[:, 0] * b[:, 1]), -(gx[:, 1] * c[:, 0] + gy[:, 1] * c[:, 1])), 1)
    w0 = gx[rows, 0] * (px + 0.5) + gy[rows, 0] * (py + 0.5) + g0[rows, 0]
    w1 = gx[rows, 1] * (px + 0.5) + gy[rows, 1] * (py + 0.5) + g0[rows, 1]
    w2 = 1.0 - w0 - w1
    inside = np.flatnonzero((w0 >= -1e-9) & (w1 >= -1e-9) & (w2 >= -1e-9))
    face = drawn[rows[inside]]
    w = np.stack((w0[inside], w1[inside], w2[inside]), 1) / z[faces[face]]
    inverse_z = w.sum(1)
    # nearest last, and the last assignment to a pixel wins
    order = np.argsort(inverse_z, kind="stable")
    at = (py[inside] * width + px[inside])[order]
    face_ids[at] = face[order]
    bary[at] = (w / inverse_z[:, None])[order]
    depth[at] = (1.0 / inverse_z)[order]
    return Hits(
        face_ids.reshape(height, width), bary.reshape(height, width, 3), depth.reshape(height, width)
    )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def shade(verts_cam: np.ndarray, faces: np.ndarray, hits: Hits, colours: np.ndarray) -> np.ndarray:
    """Lambert picture [h w 3] uint8 on white, lit from the camera and a little from above.

    Args:
        verts_cam: [v 3], the frame of the camera that made ``hits``.
        faces: [f 3].
        hits: What ``rasterize`` gave for them.
        colours: Of each triangle, 0 to 1, [f 3].
    """
    corner = verts_cam[faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    smooth = np.zeros_like(verts_cam, dtype=np.float64)
    for k in range(3):
        np.add.at(smooth, faces[:, k], normals)
    seen = hits.face_ids >= 0
    face = hits.face_ids[seen]
    n = (smooth[faces[face]] * hits.bary[seen][..., None]).sum(1)
    n /= np.linalg.norm(n, axis=1, keepdims=True).clip(1e-12)
    light = np.array((0.25, -0.5, -1.0)) / np.linalg.norm((0.25, -0.5, -1.0))
    image = np.full((*hits.face_ids.shape, 3), 255, np.uint8)
    lit = 0.25 + 0.75 * (n @ light).clip(0)
    image[seen] = (colours[face] * lit[:, None] * 255).clip(0, 255).astype(np.uint8)
    return image
