"""Pose and expression of pictures, found again from their landmarks: for AED and APD.

The truth and what is scored go through the same fit with the same head and camera, so its own bias cancels. Identity
is given; per frame, Gauss-Newton on rotation, translation and expressions with a small price on expressions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gsth.evaluate._measures import Figures
from gsth.head import ShapedHead
from gsth.metrics import FACE, Points

Array = NDArray[np.float64]
ITERATIONS = 12
EXPRESSION_PRICE = 0.005
"""A full activation costs as much as an error of this share of the eye distance at every landmark."""
DAMPING = 1e-6


@dataclass(frozen=True, eq=False)
class Retracked:
    """What was found in t frames; NaN where there was no face."""

    expr: Array
    """[t e]."""
    turns: Array
    """Rotation of the head in the camera's frame, [t 3 3]."""

    def errors(self, wanted: Retracked) -> Figures:
        """AED, mean absolute difference of the activations, and APD, mean angle between the head rotations, degrees."""
        both = ~(np.isnan(self.expr).any(1) | np.isnan(wanted.expr).any(1))
        if not both.any():
            return {"aed": None, "apd_deg": None}
        relative = np.einsum("tij,tik->tjk", self.turns[both], wanted.turns[both])
        cosine = ((np.trace(relative, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)
        expression = float(np.abs(self.expr[both] - wanted.expr[both]).mean())
        return {"aed": expression, "apd_deg": float(np.degrees(np.arccos(cosine)).mean())}


def retrack(head: ShapedHead, K: Array, landmarks: Points) -> Retracked:
    """Fit a head of known shape to landmarks.

    Args:
        head: The person.
        K: Intrinsics, px, [3 3].
        landmarks: px, [t 478 2], NaN where no face was found.
    """
    model = head.model
    points = model.landmarks(head.rest[None])[0, FACE].double().numpy()
    basis = model.landmarks(model.expr_basis)[:, FACE].double().numpy()
    expr = np.full((len(landmarks), len(basis)), np.nan)
    turns = np.full((len(landmarks), 3, 3), np.nan)
    for t in np.flatnonzero(~np.isnan(landmarks).any((1, 2))):
        expr[t], turns[t] = _fit(points, basis, K, landmarks[t, FACE])
    return Retracked(expr, turns)


def _fit(points: Array, basis: Array, K: Array, seen: Points) -> tuple[Array, Array]:
    """Expressions [e] and rotation [3 3] of one frame; ``points`` [l 3] and ``basis`` [e l 3] in the head's frame."""
    focal, centre = np.array((K[0, 0], K[1, 1])), K[:2, 2]
    eyes_px = float(np.linalg.norm(seen[33] - seen[263]))
    depth = focal[0] * float(np.linalg.norm(points[33] - points[263])) / eyes_px
    turn, expr = np.eye(3), np.zeros(len(basis))
    place = np.append((seen.mean(0) - centre) / focal * depth, depth) - points.mean(0)
    price = len(points) * (EXPRESSION_PRICE * eyes_px) ** 2
    for _ in range(ITERATIONS):
        turned = (points + np.tensordot(expr, basis, 1)) @ turn.T
        p = turned + place
        z = p[:, 2:].clip(1e-3)
        residual = (seen - (p[:, :2] / z * focal + centre)).ravel()
        slope = np.zeros((len(p), 2, 3))
        slope[:, 0, 0], slope[:, 1, 1] = focal[0] / z[:, 0], focal[1] / z[:, 0]
        slope[:, :, 2] = -p[:, :2] * focal / z**2
        jacobian = np.concatenate(
            (
                np.stack([slope @ a for a in _crosses(turned)], -1)[:, :, 0],
                slope,
                np.einsum("lij,jk,elk->lie", slope, turn, basis),
            ),
            axis=2,
        ).reshape(len(residual), -1)
        weight = np.concatenate((np.full(6, DAMPING), np.full(len(expr), price)))
        gradient = jacobian.T @ residual - weight * np.concatenate((np.zeros(6), expr))
        step = np.linalg.solve(jacobian.T @ jacobian + np.diag(weight), gradient)
        turn = _rotation(step[:3]) @ turn
        place, expr = place + step[3:6], (expr + step[6:]).clip(0, 1)
    return expr, turn


def _crosses(points: Array) -> list[Array]:
    """Change of each point [l 3] for a small turn about x, y and z, [l 3 1] each."""
    return [np.cross(axis, points)[..., None] for axis in np.eye(3)]


def _rotation(vector: Array) -> Array:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
