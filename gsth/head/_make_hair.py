"""Hair carriers of the built-in head: a cap on the scalp and a curtain below it. Development only.

Nobody draws them as a mesh: they are where hair splats live. Hair follows the skull at its roots and the
shoulders at its tips, which a binding to the nearest skin triangle cannot do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CAP_OFFSET_M = 0.008
_LAYERS_M = (0.008, 0.024)
"""How far each layer of the curtain stays off the skin."""
_COLUMNS, _ROWS = 40, 16


@dataclass(frozen=True, eq=False)
class Sheet:
    """New geometry that borrows its motion from skin vertices."""

    verts: np.ndarray
    """[v 3]."""
    faces: np.ndarray
    """[f 3]."""
    uvs: np.ndarray
    """[v 2]."""
    weights: np.ndarray
    """[v j]."""
    donors: np.ndarray
    """Skin vertices whose identity offsets each vertex follows, [v k]."""
    shares: np.ndarray
    """How much each donor counts, rows sum to 1, [v k]."""


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [v 3]."""
    corner = verts[faces]
    n = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    out = np.zeros_like(verts)
    for k in range(3):
        np.add.at(out, faces[:, k], n)
    return out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-12)


def cap(verts: np.ndarray, faces: np.ndarray, scalp: np.ndarray, weights: np.ndarray) -> Sheet:
    """The scalp's triangles, lifted off the skin.

    Args:
        verts: All skin vertices, [v 3].
        faces: All skin triangles, [f 3].
        scalp: Which of them are scalp, [s].
        weights: [v j].
    """
    used, inverse = np.unique(faces[scalp], return_inverse=True)
    lifted = verts + _CAP_OFFSET_M * vertex_normals(verts, faces)
    local = verts[used]
    centre = local.mean(0)
    flat = np.stack((np.arctan2(local[:, 0], local[:, 2] - centre[2]), local[:, 1]), 1)
    return Sheet(
        verts=lifted[used],
        faces=inverse.reshape(-1, 3),
        uvs=_unit(flat),
        weights=weights[used],
        donors=used[:, None],
        shares=np.ones((len(used), 1)),
    )


def drape(skin: np.ndarray, rim_y: float, shoulder_y: float) -> Sheet:
    """The curtain: columns of quads from the cap's rim, around head and neck, to the upper chest and back.

    Args:
        skin: Skin vertices of head, neck and bust (no arms, no ears), model frame, [v 3].
        rim_y: Height of its upper rim (inside the cap), m.
        shoulder_y: Height of the top of the shoulders.
    """
    level = skin[np.abs(skin[:, 1] - rim_y) < 0.02, 2]
    axis_z = (level.min() + level.max()) / 2
    i = np.arange(_ROWS * _COLUMNS).reshape(_ROWS, _COLUMNS)
    a, b, c, d = i[:-1, :-1].ravel(), i[1:, :-1].ravel(), i[1:, 1:].ravel(), i[:-1, 1:].ravel()
    one = np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))
    u = np.stack(np.meshgrid(np.linspace(0, 1, _COLUMNS), np.linspace(0, 1, _ROWS)), -1).reshape(-1, 2)
    layers = range(len(_LAYERS_M))
    verts = np.concatenate([_curtain(skin, axis_z, rim_y, shoulder_y, offset).reshape(-1, 3) for offset in _LAYERS_M])
    donors, shares = _nearest(verts, skin)
    return Sheet(
        verts=verts,
        faces=np.concatenate([one + k * i.size for k in layers]),
        uvs=np.concatenate([(u + (k, 0)) / (len(_LAYERS_M), 1) for k in layers]),
        weights=_drape_weights(verts[:, 1], rim_y, shoulder_y),
        donors=donors,
        shares=shares,
    )


def _curtain(skin: np.ndarray, axis_z: float, rim_y: float, shoulder_y: float, offset: float) -> np.ndarray:
    """Vertices of one layer, [rows columns 3]."""
    # azimuth 0 is straight ahead; the face stays free, and further down the front strands fall before the shoulders
    top = np.linspace(66, 294, _COLUMNS)
    front = np.clip((100 - np.minimum(top, 360 - top)) / 34, 0, 1)
    fan = np.sign(top - 180) * 36 * front
    sideways = np.minimum(np.abs(top - 100), np.abs(top - 260))
    low = shoulder_y + 0.17 - 0.18 * np.exp(-((sideways / 9) ** 2))
    t = np.linspace(0, 1, _ROWS)[:, None]
    y = rim_y + t * (low - rim_y)
    azimuth = np.radians(top + fan * smoothstep((y - rim_y - 0.06) / (shoulder_y - rim_y)))
    around = np.arctan2(skin[:, 0], axis_z - skin[:, 2])
    radius = np.hypot(skin[:, 0], skin[:, 2] - axis_z)
    out = np.zeros(y.shape)
    for at in np.ndindex(*y.shape):
        turn = np.abs((around - azimuth[at] + np.pi) % (2 * np.pi) - np.pi)
        near = (turn < 0.12) & (np.abs(skin[:, 1] - y[at]) < 0.014)
        # at the side of the shoulders the surface runs off outwards: hair lies on top of it
        out[at] = min(radius[near].max(), 0.15) if near.any() else 0.0
    # hair hangs: below the head it keeps most of the radius it had above
    for r in range(1, _ROWS):
        out[r] = np.maximum(out[r], out[r - 1] - 0.003)
    for _ in range(4):
        padded = np.pad(out, 1, mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        out = np.maximum(out, mean)
    # the outer layers only part from the skin below the rim, where they leave the cap
    out = out + 0.006 + (offset - 0.006) * smoothstep(t / 0.35)
    return np.stack((out * np.sin(azimuth), y, axis_z - out * np.cos(azimuth)), -1)


def _drape_weights(y: np.ndarray, rim_y: float, shoulder_y: float) -> np.ndarray:
    """Head at the rim, torso at the tips, some neck between, [v 5]."""
    down = smoothstep((y - rim_y - 0.03) / (shoulder_y + 0.02 - rim_y - 0.03))
    neck = 0.5 * np.sin(np.pi * down) ** 2
    w = np.zeros((len(y), 5))
    w[:, 0], w[:, 1], w[:, 2] = down * (1 - neck), neck, (1 - down) * (1 - neck)
    return w / w.sum(1, keepdims=True)


def _nearest(verts: np.ndarray, skin: np.ndarray, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Indices into ``skin`` of the nearest vertices, and smooth shares."""
    squared = ((verts[:, None] - skin[None]) ** 2).sum(-1)
    donors = np.argpartition(squared, count, axis=1)[:, :count]
    near = np.take_along_axis(squared, donors, 1)
    shares = 1 / (near + 0.01**2)
    return donors, shares / shares.sum(1, keepdims=True)


def _unit(uv: np.ndarray) -> np.ndarray:
    low, high = uv.min(0), uv.max(0)
    return (uv - low) / (high - low)
