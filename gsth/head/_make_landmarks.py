"""Where the 478 MediaPipe landmarks lie on the built-in head. Development only, see ``_make_builtin``.

Many heads of known shape, expression and view are drawn and given to the detector; each landmark becomes the surface
point that best explains where the detector put it in all of them. Lips and irises, where a detector is least true on
drawn heads, are bound to their own surface: inner lip lines to the edge of the opening, irises to the eyeball's front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsth.head import _raster
from gsth.head import landmark_groups as groups
from gsth.head._arkit import ARKIT

_SIZE_PX, _FOCAL_PX, _AWAY_M = 640, 1500.0, 0.75
_TARGET = np.array((0.0, -0.11, -0.06))
_SAMPLES, _SEED = 80, 1
_IRIS_RADIUS_M = 0.0058
"""Half the human horizontal visible iris diameter, 11.7 mm."""
_EXPRESSIONS = (
    *("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthPucker", "mouthFunnel", "eyeBlinkLeft", "eyeBlinkRight"),
    *("browInnerUp", "browDownLeft", "browDownRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft"),
    *("mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight", "eyeWideLeft", "eyeWideRight"),
)
_PAINT = {
    "lips": (0.72, 0.36, 0.34),
    "mouth_inner": (0.3, 0.08, 0.08),
    "tongue": (0.7, 0.35, 0.35),
    "teeth_upper": (0.95, 0.95, 0.92),
    "teeth_lower": (0.95, 0.95, 0.92),
    "eye_l": (0.95, 0.95, 0.95),
    "eye_r": (0.95, 0.95, 0.95),
    "brows": (0.3, 0.2, 0.15),
    "lashes": (0.15, 0.1, 0.1),
    "scalp": (0.25, 0.18, 0.12),
}


@dataclass(frozen=True, eq=False)
class _Head:
    """The npz's arrays as floats."""

    verts: np.ndarray
    faces: np.ndarray
    shape: np.ndarray
    expr: np.ndarray
    parts: dict[str, np.ndarray]
    pivots: np.ndarray


@dataclass(frozen=True, eq=False)
class _Shot:
    """One drawn head and what the detector said."""

    pixels: np.ndarray
    """Projected vertices, px, [v 2]."""
    facing: np.ndarray
    """Which triangles turn towards the camera, [f]."""
    found: np.ndarray
    """Detected landmarks, px, [478 2]."""


def embedding(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``landmark_faces`` [478] and ``landmark_bary`` [478 3] for the arrays of the npz."""
    head = _Head(
        verts=arrays["template"].astype(float),
        faces=arrays["faces"].astype(int),
        shape=arrays["shape_q"] * arrays["shape_step"][:, None, None],
        expr=arrays["expr_q"] * arrays["expr_step"][:, None, None],
        parts={k.removeprefix("part_"): v.astype(int) for k, v in arrays.items() if k.startswith("part_")},
        pivots=arrays["pivots"].astype(float),
    )
    shots = _shots(head)
    pools = _pools(head)
    neutral = _cast_neutral(head, shots[0])
    points = np.stack([_best_point(head, shots, pools[i], i, neutral[i]) for i in range(468)])
    points = _symmetric(points)
    points = np.concatenate((points, _irises(head, shots[0])))
    rims = _rims(head)
    found = [_on_rim(head, p, rims[i]) if i in rims else _on_surface(head, p, pools[i]) for i, p in enumerate(points)]
    return {
        "landmark_faces": np.array([f for f, _ in found], np.uint16),
        "landmark_bary": np.array([b for _, b in found], np.float32),
    }


def _shots(head: _Head) -> list[_Shot]:
    """The neutral mean from the front, then random heads; those without a detection are left out."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    rng = np.random.default_rng(_SEED)
    hidden = np.concatenate([head.parts[p] for p in ("hair_cap", "drape")])
    shown = np.setdiff1d(np.arange(len(head.faces)), hidden)
    colours = _colours(head)
    out = []
    with FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1) as net:
        for k in range(_SAMPLES):
            verts, yaw, pitch = head.verts, 0.0, 0.0
            if k > 0:
                z = rng.normal(0, 0.7, len(head.shape)) * (np.arange(len(head.shape)) > 6)
                e = np.zeros(len(ARKIT))
                for name in rng.choice(_EXPRESSIONS, 3, replace=False):
                    e[ARKIT.index(name)] = rng.uniform(0.2, 0.9)
                verts = verts + np.tensordot(z, head.shape, 1) + np.tensordot(e, head.expr, 1)
                yaw, pitch = rng.uniform(-25, 25), rng.uniform(-12, 12)
            shot = _shoot(head, verts, shown, colours, (yaw, pitch), net)
            if shot is not None:
                out.append(shot)
    return out


def _shoot(
    head: _Head, verts: np.ndarray, shown: np.ndarray, colours: np.ndarray, turn_deg: tuple[float, float], net: object
) -> _Shot | None:
    """Draw one head and detect; None where no face was found."""
    (cy, cp), (sy, sp) = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    turn = np.array(((1, 0, 0), (0, cp, -sp), (0, sp, cp))) @ np.array(((cy, 0, sy), (0, 1, 0), (-sy, 0, cy)))
    cam = (verts - _TARGET) @ turn.T + (0, 0, _AWAY_M)
    K = np.array(((_FOCAL_PX, 0, _SIZE_PX / 2), (0, _FOCAL_PX, _SIZE_PX / 2), (0, 0, 1)))
    hits = _raster.rasterize(cam, head.faces[shown], K, (_SIZE_PX, _SIZE_PX))
    image = _raster.shade(cam, head.faces[shown], hits, colours[shown])
    faces = net.process(image).multi_face_landmarks  # type: ignore[attr-defined]
    if not faces:
        return None
    corner = cam[head.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    toward = -(normal * corner.mean(1)).sum(1)
    toward /= np.linalg.norm(normal, axis=1).clip(1e-12) * np.linalg.norm(corner.mean(1), axis=1)
    return _Shot(
        pixels=cam[:, :2] / cam[:, 2:] * _FOCAL_PX + _SIZE_PX / 2,
        facing=toward > 0.15,
        found=np.array([(p.x, p.y) for p in faces[0].landmark]) * _SIZE_PX,
    )


def _colours(head: _Head) -> np.ndarray:
    """Skin, lips, hair, brows and dark irises: a drawn face that a detector of real ones reads well, [f 3]."""
    out = np.tile((0.85, 0.68, 0.58), (len(head.faces), 1))
    for part, colour in _PAINT.items():
        out[head.parts[part]] = colour
    for part, joint in (("eye_l", 3), ("eye_r", 4)):
        ids = head.parts[part]
        off = head.verts[head.faces[ids]].mean(1) - head.pivots[joint]
        front = (off[:, 2] < 0) & (np.hypot(off[:, 0], off[:, 1]) < _IRIS_RADIUS_M)
        out[ids[front]] = (0.2, 0.15, 0.1)
    return out


def _pools(head: _Head) -> list[np.ndarray]:
    """Triangles on which each landmark may lie."""
    parts = head.parts
    skin = np.setdiff1d(parts["skin"], np.concatenate((parts["mouth_inner"], parts["bust"])))
    off_lips = np.setdiff1d(skin, parts["lips"])
    out = [off_lips] * 468 + [parts["eye_r"]] * 5 + [parts["eye_l"]] * 5
    upper = set(groups.LIPS_OUTER_UPPER[1:-1] + groups.LIPS_INNER_UPPER[1:-1])
    lower = set(groups.LIPS_OUTER_LOWER[1:-1] + groups.LIPS_INNER_LOWER[1:-1])
    for i in range(468):
        if i in upper or i in lower:
            out[i] = parts["upper_lip" if i in upper else "lower_lip"]
        elif i in groups.GROUPS["lips"] or i in _LIP_BODY:
            out[i] = skin
    return out


_LIP_BODY = (
    *(185, 40, 39, 37, 0, 267, 269, 270, 409, 184, 74, 73, 72, 11, 302, 303, 304, 408, 183, 42, 41, 38, 12, 268),
    *(271, 272, 407, 76, 62, 77, 96, 90, 89, 180, 179, 85, 86, 16, 15, 315, 316, 404, 403, 320, 319, 307, 325),
    *(306, 292),
)
"""Mesh points between the outer and inner lip lines; they lie on the red of the lips or at its edge."""


def _cast_neutral(head: _Head, shot: _Shot) -> np.ndarray:
    """First guess: nearest front-facing triangle centre in the picture of the neutral face, [478 3]."""
    parts = head.parts
    skin = np.setdiff1d(parts["skin"], np.concatenate((parts["mouth_inner"], parts["bust"])))
    pool = np.concatenate((skin, parts["eye_l"], parts["eye_r"]))
    pool = pool[shot.facing[pool]]
    centre, place = shot.pixels[head.faces[pool]].mean(1), head.verts[head.faces[pool]].mean(1)
    pool_z = place[:, 2]
    out = np.empty((len(shot.found), 3))
    for i, px in enumerate(shot.found):
        away = np.linalg.norm(centre - px, axis=1)
        near = np.argsort(away)[:6]
        out[i] = place[near[np.argmin(away[near] * 2e-4 + pool_z[near])]]
    return out


def _best_point(head: _Head, shots: list[_Shot], pool: np.ndarray, landmark: int, start: np.ndarray) -> np.ndarray:
    """The point (on the neutral mean) that best explains all detections of one landmark, [3].

    Candidates are points in every triangle of the pool within 2 cm of ``start``; their error is the mean over the
    shots in which the triangle is seen of a robust reprojection distance.
    """
    centre = head.verts[head.faces[pool]].mean(1)
    away = np.linalg.norm(centre - start, axis=1)
    near = pool[away < max(0.02, np.sort(away)[min(20, len(away) - 1)])]
    grid = np.array([(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]) / 4
    corners = head.faces[near]
    total, count = np.zeros((len(near), len(grid))), np.zeros(len(near))
    for shot in shots:
        px = np.einsum("gk,nkc->ngc", grid, shot.pixels[corners])
        miss = np.linalg.norm(px - shot.found[landmark], axis=2)
        seen = shot.facing[near]
        total += seen[:, None] * (miss * 2 / (1 + miss / 8))
        count += seen
    mean = np.where(count[:, None] > 0.4 * len(shots), total / count.clip(1)[:, None], np.inf)
    if not np.isfinite(mean).any():
        return start
    # the best few, averaged by how well they do, lie smoother than the single best
    best = np.argsort(mean, axis=None)[:12]
    share = 1 / mean.ravel()[best] ** 4
    points = np.einsum("gk,nkc->ngc", grid, head.verts[corners]).reshape(-1, 3)[best]
    return (share[:, None] * points).sum(0) / share.sum()


def _symmetric(points: np.ndarray) -> np.ndarray:
    """Average every landmark with the mirror image of its partner, [l 3].

    On lips, eyes and brows the partner is known from the order of the contours; elsewhere it is the mutually nearest.
    """
    flip = np.array((-1.0, 1.0, 1.0))
    apart = np.linalg.norm((points * flip)[:, None] - points[None], axis=2)
    nearest = apart.argmin(1)
    partner = np.where(nearest[nearest] == np.arange(len(points)), nearest, np.arange(len(points)))
    for name, ids in groups.GROUPS.items():
        if name.endswith(("_upper", "_lower")) or name == "brow_r":
            other = groups.GROUPS[name.replace("eye_r", "eye_l").replace("brow_r", "brow_l")]
            if not name.startswith("eye_l"):
                pairs = zip(ids, other if name == "brow_r" else other[::-1], strict=True)
                for i, j in pairs:
                    partner[i], partner[j] = j, i
    alone = (partner == np.arange(len(points))) & (np.abs(points[:, 0]) > 0.004)
    out = (points + points[partner] * flip) / 2
    out[alone] = points[alone]
    return out


def _irises(head: _Head, shot: _Shot) -> np.ndarray:
    """Iris centres on the front pole of each eyeball and four rim points around it, in the detector's order, [10 3]."""
    out = []
    for joint, ids in ((4, groups.IRIS_R), (3, groups.IRIS_L)):
        side = "eye_r" if joint == 4 else "eye_l"
        ball = head.verts[np.unique(head.faces[head.parts[side]])]
        centre = head.pivots[joint]
        radius = np.linalg.norm(ball - centre, axis=1).max()
        for i in ids:
            step = np.zeros(2)
            if i != ids[0]:
                d = shot.found[i] - shot.found[ids[0]]
                k = int(np.abs(d).argmax())
                step[k] = np.sign(d[k]) * _IRIS_RADIUS_M
            out.append(centre + (*step, -np.sqrt(radius**2 - step @ step)))
    return np.stack(out)


def _rims(head: _Head) -> dict[int, np.ndarray]:
    """For each landmark on an inner lip line: the vertices of that lip's edge, rising in x."""
    parts = head.parts
    inside = np.concatenate([parts[p] for p in ("mouth_inner", "teeth_upper", "teeth_lower", "tongue")])
    verts = head.verts + 0.6 * head.expr[ARKIT.index("jawOpen")]
    upper, lower = _opening_edges(head, verts, inside, (parts["upper_lip"], parts["lower_lip"]))
    on_upper, on_lower = groups.LIPS_INNER_UPPER[1:-1], groups.LIPS_INNER_LOWER[1:-1]
    return {i: upper for i in on_upper} | {i: lower for i in on_lower}


def _opening_edges(
    head: _Head, verts: np.ndarray, hole: np.ndarray, borders: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices along the upper and the lower edge of an opening, as a front view shows it, rising in x.

    Args:
        head: The model.
        verts: The vertices to look at, with the opening open, [v 3].
        hole: Triangles that are seen through the opening.
        borders: Triangles that bound it above and below.
    """
    hidden = np.concatenate([head.parts[p] for p in ("hair_cap", "drape", "lashes")])
    shown = np.setdiff1d(np.arange(len(head.faces)), hidden)
    frame = verts[np.unique(head.faces[np.concatenate(borders)])]
    low, high = frame.min(0), frame.max(0)
    size, away = 700, 0.6
    scale = size * away / (high - low)[:2].max()
    K = np.array(((scale, 0, size / 2), (0, scale, size / 2), (0, 0, 1)))
    cam = verts - (*((low + high) / 2)[:2], low[2] - away)
    seen = _raster.rasterize(cam, head.faces[shown], K, (size, size)).face_ids
    face = np.where(seen >= 0, shown[seen], -1)
    through = np.isin(face, hole)
    edges: tuple[list[int], list[int]] = ([], [])
    for column in range(size):
        rows = np.flatnonzero(through[:, column])
        if len(rows) < 4:
            continue
        for edge, border, row in ((edges[0], borders[0], rows[0] - 1), (edges[1], borders[1], rows[-1] + 1)):
            if 0 <= row < size and face[row, column] in border:
                corners = head.faces[face[row, column]]
                px = cam[corners, :2] / cam[corners, 2:] * scale + size / 2
                edge.append(int(corners[np.linalg.norm(px - (column, row), axis=1).argmin()]))
    upper, lower = (np.array(sorted(set(e), key=lambda v: head.verts[v, 0])) for e in edges)
    return upper, lower


def _on_rim(head: _Head, point: np.ndarray, rim: np.ndarray) -> tuple[int, np.ndarray]:
    """Triangle and barycentrics of the place on the rim with a point's x: on an edge of the lips where there is one."""
    after = int(np.clip(np.searchsorted(head.verts[rim, 0], point[0]), 1, len(rim) - 1))
    a, b = rim[after - 1], rim[after]
    xa, xb = head.verts[a, 0], head.verts[b, 0]
    t = float(np.clip((point[0] - xa) / (xb - xa), 0, 1))
    faces = head.parts["lips"]
    has_a, has_b = ((head.faces[faces] == v).any(1) for v in (a, b))
    if (has_a & has_b).any():
        face = int(faces[np.flatnonzero(has_a & has_b)[0]])
        return face, (head.faces[face] == a) * (1 - t) + (head.faces[face] == b) * t
    nearer, has = (a, has_a) if t < 0.5 else (b, has_b)
    face = int(faces[np.flatnonzero(has)[0]])
    return face, (head.faces[face] == nearer).astype(float)


def _on_surface(head: _Head, point: np.ndarray, pool: np.ndarray) -> tuple[int, np.ndarray]:
    """Triangle and barycentrics of the surface point nearest to ``point``."""
    import trimesh

    corners = head.verts[head.faces[pool]]
    near = np.argsort(np.linalg.norm(corners.mean(1) - point, axis=1))[:24]
    close = trimesh.triangles.closest_point(corners[near], np.tile(point, (len(near), 1)))
    best = int(np.linalg.norm(close - point, axis=1).argmin())
    bary = trimesh.triangles.points_to_barycentric(corners[near[best]][None], close[best][None])[0]
    return int(pool[near[best]]), bary.clip(0) / bary.clip(0).sum()
