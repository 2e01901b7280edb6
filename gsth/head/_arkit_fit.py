"""ARKit's 52 expressions for a head that has its own, and back: by least squares on the meshes.

The built-in head says how skin moves in each ARKit expression. Its face is brought onto the other head by their common
landmarks (thin-plate splines, Bookstein 1989), the movement is read off the nearest surface, and what the other
head's own directions can make of it (ridge least squares over the face) becomes that expression there.
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-3
"""Of the mean squared length of a direction: keeps coefficients of useless directions small."""
CONTROL = 3
"""Every so-manieth landmark steers the warp: plenty for a smooth map, and quick."""
SMOOTH_M2 = 1e-8
"""Ridge of the warp: landmarks are embedded to a fraction of a millimetre only."""
FADE_M = 0.012
"""Movement fades out this far from the built-in face's surface: skulls differ behind and below."""
NEAR = 6
"""Surface points whose movement a vertex takes, weighted by nearness."""


def transferred(
    fields: np.ndarray, source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Movements of one head's vertices as movements of another's [e w 3].

    Args:
        fields: Movement of the source's vertices, m [e v 3].
        source: Its vertices [v 3] (those on the skin's face suffice, with ``fields`` alike) and landmarks [l 3].
        target: Vertices [w 3] and landmarks [l 3] of the other head, the same model frame axes.
    """
    verts, marks = source
    wanted, anchors = target
    place = _warp(marks[::CONTROL], anchors[::CONTROL], verts)
    size = np.linalg.norm(anchors - anchors.mean(0)) / np.linalg.norm(marks - marks.mean(0))
    out = np.zeros((len(fields), len(wanted), 3))
    for start in range(0, len(wanted), 512):
        rows = slice(start, start + 512)
        squared = ((wanted[rows, None] - place[None]) ** 2).sum(-1)
        near = np.argpartition(squared, NEAR, axis=1)[:, :NEAR]
        away = np.sqrt(np.take_along_axis(squared, near, 1))
        share = 1 / (away + 1e-4) ** 2
        share /= share.sum(1, keepdims=True)
        fade = np.exp(-((np.maximum(away.min(1) - FADE_M / 2, 0) / FADE_M) ** 2))
        out[:, rows] = np.einsum("wn,ewnc->ewc", share * fade[:, None], fields[:, near]) * size
    return out


def fitted(fields: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Coefficients [e d] with which ``directions`` [d v 3] make ``fields`` [e v 3] best."""
    flat, wanted = directions.reshape(len(directions), -1), fields.reshape(len(fields), -1)
    gram = flat @ flat.T
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram, flat @ wanted.T).T


def activations(movement: np.ndarray, basis: np.ndarray, steps: int = 200, sparse: float = 1e-3) -> np.ndarray:
    """Activations [t e], 0 to 1, with which ``basis`` [e v 3] makes ``movement`` [t v 3] best.

    Bounded least squares with a small price on activity, by accelerated projected gradient (Beck and Teboulle 2009).
    """
    flat = basis.reshape(len(basis), -1)
    gram, aim = flat @ flat.T, movement.reshape(len(movement), -1) @ flat.T
    price = sparse * np.diag(gram)
    rate = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), 1e-12)
    x = ahead = np.zeros(aim.shape)
    pace = 1.0
    for _ in range(steps):
        new = np.clip(ahead - rate * (ahead @ gram - aim + price), 0, 1)
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / faster * (new - x)
        x, pace = new, faster
    return x


def _warp(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [n 3] carried by the thin-plate spline that brings control points a onto b [k 3]."""
    k = len(a)
    kernel = np.linalg.norm(a[:, None] - a[None], axis=-1) + SMOOTH_M2 * np.eye(k)  # |r| is the kernel in space
    affine = np.column_stack((np.ones(k), a))
    system = np.block([[kernel, affine], [affine.T, np.zeros((4, 4))]])
    weights = np.linalg.solve(system, np.concatenate((b, np.zeros((4, 3)))))
    far = np.linalg.norm(points[:, None] - a[None], axis=-1)
    return far @ weights[:k] + np.column_stack((np.ones(len(points)), points)) @ weights[k:]
