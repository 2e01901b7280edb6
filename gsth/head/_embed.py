"""Puts the 478 MediaPipe landmarks on any head: draw it, let the detector look, cast what it says onto the surface.

No licensed embedding file is needed. Views from around the front are averaged; each point is then the nearest place on
the surface that faces the front.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from gsth.errors import InputError, MissingExtraError
from gsth.head import _raster

SIZE_PX, AWAY_M = 640, 0.9
VIEWS_DEG = ((0, 0), (-8, 0), (8, 0), (0, -8), (0, 8))
"""Yaw and pitch of the camera's view: small, because the detector lets the face's outline slide as a head turns."""
COUNT, IRISES = 478, (468, 473)
"""Points, and where the five of the right and of the left iris begin."""
TONES = {"skin": 0.75, "eye": 0.95, "iris": 0.12}
REACH_PX, THROUGH_M = 4, 0.02
"""A point that lies so much behind what is within so many px of it has fallen through."""
IRIS_RADIUS_M = 0.0058
"""Half the human horizontal visible iris diameter, 11.7 mm."""


def embedding(
    verts: np.ndarray, faces: np.ndarray, balls: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Triangle [478] and barycentric weights [478 3] of each landmark.

    Args:
        verts: Neutral head, model frame (house axes, the face looks along -z), m [v 3].
        faces: [f 3].
        balls: Triangles of the left and right eyeball.

    Raises:
        MissingExtraError: mediapipe is not installed.
        InputError: The detector sees no face on this head, or mediapipe is one without models.
    """
    views = np.full((len(VIEWS_DEG), COUNT, 3), np.nan)
    target = verts.mean(0) * (0, 1, 0) + (0, 0, verts[:, 2].min())
    colours = _colours(verts, faces, balls)
    for k, turn in enumerate(VIEWS_DEG):
        found, points = _look(verts, faces, colours, (target, turn))
        views[k, found] = points[found]
    count = np.isfinite(views[..., 0]).sum(0)
    if count.max() < len(VIEWS_DEG) / 2:
        raise InputError("no face is seen on this head model: is it a head, in metres, y up and looking along +z?")
    known = count > 0
    known[IRISES[0] :] = False
    mean = np.zeros((COUNT, 3))
    mean[known] = np.nanmedian(views[:, known], 0)  # some views hit an ear or the inside of the mouth
    for start, ball in zip(IRISES, balls[::-1], strict=True):
        mean[start : start + 5], known[start : start + 5] = _iris(verts, faces[ball]), True
    mean[~known] = mean[known][np.linalg.norm(mean[~known][:, None] - mean[known][None], axis=-1).argmin(1)]
    return _on_surface(verts, faces, mean, balls)


def _look(
    verts: np.ndarray, faces: np.ndarray, colours: np.ndarray, view: tuple[np.ndarray, tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Which landmarks lie on the surface in one view [478], and where on it, model frame [478 3]."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError as error:
        if importlib.util.find_spec("mediapipe") is not None:
            raise InputError(
                "this mediapipe ships no models, with which landmarks are found on a FLAME model; read it once with "
                "mediapipe 0.10.14 (Python up to 3.12): what is found then is kept (~/.cache/gsth/flame, can be copied)"
            ) from error
        raise MissingExtraError("mediapipe", "flame", "finding the landmarks of a head model") from error
    target, turn_deg = view
    (cy, cp), (sy, sp) = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    turn = np.array(((1, 0, 0), (0, cp, -sp), (0, sp, cp))) @ np.array(((cy, 0, sy), (0, 1, 0), (-sy, 0, cy)))
    cam = (verts - target) @ turn.T + (0, 0, AWAY_M)
    focal = SIZE_PX * AWAY_M / 0.42  # the picture is 42 cm wide at the face
    K = np.array(((focal, 0, SIZE_PX / 2), (0, focal, SIZE_PX / 2), (0, 0, 1)))
    hits = _raster.rasterize(cam, faces, K, (SIZE_PX, SIZE_PX))
    picture = _raster.shade(cam, faces, hits, colours)
    with FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1) as net:
        seen = net.process(picture).multi_face_landmarks
    if not seen:
        return np.zeros(COUNT, bool), np.zeros((COUNT, 3))
    px = np.array([(p.x, p.y) for p in seen[0].landmark]) * SIZE_PX
    column, row = _frontmost(hits.depth, px)
    face = hits.face_ids[row, column]
    corners = verts[faces[np.maximum(face, 0)]]
    return face >= 0, (corners * hits.bary[row, column][..., None]).sum(1)


def _frontmost(depth: np.ndarray, px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row for each point [n 2], moved by up to ``REACH_PX`` where the point itself fell through the surface.

    Points at a silhouette or at the corner of the mouth would else hit what lies far behind.
    """
    steps = np.arange(-REACH_PX, REACH_PX + 1)
    column = np.clip(px[:, :1].astype(int) + np.tile(steps, len(steps)), 0, SIZE_PX - 1)
    row = np.clip(px[:, 1:].astype(int) + np.repeat(steps, len(steps)), 0, SIZE_PX - 1)
    middle = len(steps) ** 2 // 2
    own, around = depth[row[:, middle], column[:, middle]], depth[row, column]
    way = np.hypot(np.tile(steps, len(steps)), np.repeat(steps, len(steps)))
    before = around < own[:, None] - THROUGH_M
    chosen = np.where(before.any(1), np.where(before, way, np.inf).argmin(1), middle)
    every = np.arange(len(px))
    return column[every, chosen], row[every, chosen]


def _colours(verts: np.ndarray, faces: np.ndarray, balls: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Skin, white eyes and dark irises: a drawn face that the detector reads well [f 3]."""
    grey = np.full(len(faces), TONES["skin"])
    for ball in balls:
        grey[ball] = TONES["eye"]
        middle = verts[faces[ball]].mean(1)
        centre, pole = middle.mean(0), middle[middle[:, 2].argmin()]
        front = (np.hypot(*(middle - centre)[:, :2].T) < IRIS_RADIUS_M) & (middle[:, 2] < (centre + pole)[2] / 2)
        grey[ball[front]] = TONES["iris"]
    return np.repeat(grey[:, None], 3, 1)


def _iris(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Centre and four rim points (right, up, left, down in the picture) on the front of an eyeball [5 3]."""
    ball = verts[np.unique(faces)]
    centre = (ball.min(0) + ball.max(0)) / 2
    radius = np.linalg.norm(ball - centre, axis=1).max()
    steps = IRIS_RADIUS_M * np.array(((0, 0), (1, 0), (0, -1), (-1, 0), (0, 1)))
    depth = -np.sqrt(np.maximum(radius**2 - (steps**2).sum(1), 0))
    return centre + np.column_stack((steps, depth))


def _on_surface(
    verts: np.ndarray, faces: np.ndarray, points: np.ndarray, balls: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest place of each point on triangles that look to the front; irises on eyeballs, the others beside them."""
    corners = verts[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    front = normal[:, 2] < 0
    front &= np.linalg.norm(normal, axis=1) > 1e-12
    is_ball = np.zeros(len(faces), bool)
    is_ball[np.concatenate(balls)] = True
    out_face, out_bary = np.zeros(len(points), np.int64), np.zeros((len(points), 3))
    for i, point in enumerate(points):
        pool = np.flatnonzero(front & (is_ball == (i >= IRISES[0])))
        near = pool[np.linalg.norm(corners[pool].mean(1) - point, axis=1).argsort()[:24]]
        bary = nearest_bary(corners[near], point)
        miss = np.linalg.norm((corners[near] * bary[..., None]).sum(1) - point, axis=1)
        out_face[i], out_bary[i] = near[miss.argmin()], bary[miss.argmin()]
    return out_face, out_bary


def nearest_bary(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Barycentric weights [n 3] of the place on each triangle [n 3 3] that is nearest to a point [3].

    The foot of the perpendicular where it lies inside, else the nearest place on an edge.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    edges = np.stack((b - a, c - a), 1)
    gram = edges @ edges.transpose(0, 2, 1) + 1e-16 * np.eye(2)
    uv = np.linalg.solve(gram, (edges @ (point - a)[..., None]))[..., 0]
    inside = np.column_stack((1 - uv.sum(1), uv))
    best, miss = inside.clip(0), np.where((inside >= 0).all(1), 0.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        way = corners[:, j] - corners[:, i]
        t = np.clip(((point - corners[:, i]) * way).sum(1) / np.maximum((way**2).sum(1), 1e-16), 0, 1)
        away = np.linalg.norm(corners[:, i] + t[:, None] * way - point, axis=1)
        nearer = (away < miss) & ~(inside >= 0).all(1)
        miss[nearer] = away[nearer]
        best[nearer] = 0
        best[nearer, i], best[nearer, j] = 1 - t[nearer], t[nearer]
    return best
