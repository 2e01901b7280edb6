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
    z = verts_cam[:, 2].astype(np.float64)
    xy = verts_cam[:, :2] / np.maximum(z, near)[:, None] * (K[0, 0], K[1, 1]) + (K[0, 2], K[1, 2])
    rows = _scan(xy[faces], z[faces].min(1) > near, size)
    # one entry per triangle and covered pixel
    nth = np.repeat(np.arange(len(rows.face)), rows.count)
    px = rows.first[nth] + np.arange(len(nth)) - np.repeat(np.cumsum(rows.count) - rows.count, rows.count)
    face = rows.face[nth]
    w = rows.at_first[nth] + rows.per_px[nth] * (px - rows.first[nth])[:, None]
    w = w.clip(0) / z[faces[face]]
    inverse_z = w.sum(1)
    at = rows.y[nth] * width + px.astype(np.int64)
    nearest = np.zeros(height * width)
    np.maximum.at(nearest, at, inverse_z)
    wins = np.flatnonzero(inverse_z == nearest[at])
    at, inverse_z = at[wins], inverse_z[wins]
    face_ids = np.full(height * width, -1, np.int32)
    bary = np.zeros((height * width, 3), np.float32)
    depth = np.full(height * width, np.inf, np.float32)
    face_ids[at], bary[at], depth[at] = face[wins], w[wins] / inverse_z[:, None], 1 / inverse_z
    return Hits(face_ids.reshape(size), bary.reshape(height, width, 3), depth.reshape(size))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Runs of pixels: where each triangle crosses each line of the picture."""

    face: np.ndarray
    y: np.ndarray
    first: np.ndarray
    count: np.ndarray
    at_first: np.ndarray
    """Screen-space barycentrics at the run's first pixel, [r 3]."""
    per_px: np.ndarray
    """Their change per pixel to the right, [r 3]."""


def _scan(tri: np.ndarray, drawn: np.ndarray, size: tuple[int, int]) -> _Rows:
    """Runs of pixels whose centres lie in the triangles ``tri`` [f 3 2], px, of those that are ``drawn`` [f]."""
    height, width = size
    area = _cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0])
    top = np.ceil(tri[..., 1].min(1) - 0.5).clip(0, height).astype(np.int64)
    lines = np.floor(tri[..., 1].max(1) - 0.5).clip(-1, height - 1).astype(np.int64) - top + 1
    beside = (tri[..., 0].max(1) < 0) | (tri[..., 0].min(1) > width)
    used = np.flatnonzero(drawn & (lines > 0) & (np.abs(area) > 1e-9) & ~beside)
    lines = lines[used]
    row = np.repeat(np.arange(len(used)), lines)
    y = top[used][row] + np.arange(len(row)) - np.repeat(np.cumsum(lines) - lines, lines)
    # barycentrics are affine in the pixel: value at x = 0 on this line, and slope
    start, end = np.roll(tri[used], -1, axis=1), np.roll(tri[used], -2, axis=1)
    edge = (end - start) / area[used, None, None]
    slope = -edge[row, :, 1]
    value = edge[row, :, 0] * (y + 0.5)[:, None] - _cross(edge, start)[row]
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = -value / slope
    flat = np.abs(slope) < 1e-12
    left = np.where(slope > 0, zero, -np.inf)
    right = np.where(slope < 0, zero, np.inf)
    left, right = np.where(flat, -np.inf, left).max(1), np.where(flat, np.inf, right).min(1)
    first = np.ceil(left - 0.5 - 1e-7).clip(0, width)
    last = np.floor(right - 0.5 + 1e-7).clip(-1, width - 1)
    kept = np.flatnonzero((last >= first) & ~(flat & (value < 0)).any(1))
    first, count = first[kept], (last - first)[kept].astype(np.int64) + 1
    slope, value = slope[kept], value[kept]
    return _Rows(used[row[kept]], y[kept], first, count, value + slope * (first + 0.5)[:, None], slope)


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
