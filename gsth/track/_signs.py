"""What a face looks like in one picture, beside where it is: the figures that pre-flight and the report judge by."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from gsth.track import _tongue
from gsth.track._points import CHEEKS

FACE_PX = 128
"""Side of the picture that the figures are taken from, so that they compare between clips."""
AROUND_EYES = (222, 223, 224, 229, 230, 231, 442, 443, 444, 449, 450, 451)
"""Skin above and below the eyes: what dark glasses cover."""
LIP_MIDDLES = ((0, 13), (37, 82), (267, 312), (17, 14), (84, 87), (314, 317))
"""Points of the outer and the inner lip line whose middle lies on the red of a lip."""


class Signs(NamedTuple):
    """Figures of one face."""

    sharpness: float
    """Variance of the Laplacian."""
    light: float
    """Mean grey level, 0 to 255."""
    side: float
    """Grey level of the brighter cheek over that of the darker."""
    eyes: float
    """Grey level around the eyes over that of the cheeks; a third of it or less behind dark glasses."""
    lips: float
    """How much redder (CIELAB a*) the lips are than the cheeks; next to nothing where a hand covers them."""
    tongue: float
    """How far the tongue is out, as the picture shows it (``_tongue``), 0 to 1."""


UNKNOWN = Signs(*[float("nan")] * len(Signs._fields))
"""No face."""


def of(frame: np.ndarray, points: np.ndarray) -> Signs:
    """Figures of the face with landmarks ``points`` [478 2], px, in an RGB picture [h w 3] uint8."""
    h, w = frame.shape[:2]
    x0, y0 = np.clip(points.min(0), 0, (w - 2, h - 2)).astype(int)
    x1, y1 = np.clip(points.max(0), (x0 + 2, y0 + 2), (w, h)).astype(int)
    face = cv2.resize(frame[y0:y1, x0:x1], (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    calm = cv2.GaussianBlur(face, (0, 0), 2)
    lab = cv2.cvtColor(calm, cv2.COLOR_RGB2LAB).astype(np.float32)
    at = (points - (x0, y0)) / (x1 - x0, y1 - y0) * FACE_PX

    def seen(where: np.ndarray) -> np.ndarray:
        column, row = np.clip(where, 0, FACE_PX - 1).astype(int).T
        return lab[row, column]

    right, left = (seen(at[list(ids)])[:, 0].mean() + 1 for ids in CHEEKS)
    cheeks = seen(at[list(CHEEKS[0] + CHEEKS[1])]).mean(0)
    lips = seen(np.stack([(at[a] + at[b]) / 2 for a, b in LIP_MIDDLES]))
    return Signs(
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        light=float(grey.mean()),
        side=float(max(right, left) / min(right, left)),
        eyes=float(seen(at[list(AROUND_EYES)])[:, 0].mean() / (cheeks[0] + 1)),
        lips=float(lips[:, 1].mean() - cheeks[1]),
        tongue=_tongue.of(frame, points),
    )
