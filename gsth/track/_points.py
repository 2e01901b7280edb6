"""Which of the 478 MediaPipe face points mean what. Left and right are the person's own.

Source: the connection sets of MediaPipe 0.10.14, ``face_mesh_connections.py`` (Apache-2.0).
"""

from __future__ import annotations

import numpy as np

COUNT = 478
RIGHT_OUTER, LEFT_OUTER = 33, 263
"""Outer eye corners; their distance is the ruler of every reprojection error."""
FOREHEAD, CHIN, NOSE_TIP = 10, 152, 1
CHEEKS = ((50, 205, 101), (280, 425, 330))
"""Points of the right and the left cheek."""

LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = LIPS_OUTER + LIPS_INNER
EYE_RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
IRIS_RIGHT = (468, 469, 470, 471, 472)
IRIS_LEFT = (473, 474, 475, 476, 477)
BROW_RIGHT = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
BROW_LEFT = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

LIP_PAIRS = ((82, 87), (13, 14), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318))
"""Inner-lip points that meet when the mouth closes: upper, lower."""
LID_PAIRS_RIGHT = ((159, 145), (158, 153), (160, 144))
LID_PAIRS_LEFT = ((386, 374), (385, 380), (387, 373))
"""Lid points that meet when the eye closes: upper, lower."""
LIDS_RIGHT = ((246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155))
LIDS_LEFT = ((466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382))
"""All facing points of upper and lower lid."""
PAIRS = LIP_PAIRS + LID_PAIRS_RIGHT + LID_PAIRS_LEFT
SHUT = 0.55


def interocular(points: np.ndarray) -> np.ndarray:
    """Distance of the outer eye corners [...], in the unit of ``points`` [... 478 2]."""
    return np.linalg.norm(points[..., LEFT_OUTER, :2] - points[..., RIGHT_OUTER, :2], axis=-1)


def gaps(points: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Mean distance of the points of each pair over the inter-ocular distance, [...], of [... 478 2]."""
    upper, lower = (points[..., [p[i] for p in pairs], :2] for i in (0, 1))
    return np.linalg.norm(upper - lower, axis=-1).mean(-1) / interocular(points)


def with_shut_lids(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Landmarks [t 478 2] in which the narrowest that an eye gets counts as shut.

    The detector leaves a third of the opening where lids touch, more on large eyes. Upper lid points come down by that
    rest, less the wider the eye is; an eye that never narrows to ``SHUT`` of its usual opening stays as it is.

    Args:
        points: px.
        found: Frames with a face, bool [t].
    """
    out = points.copy()
    for pairs in (LIDS_RIGHT, LIDS_LEFT):
        gap = gaps(points, pairs)
        usual, least = np.median(gap[found]), np.quantile(gap[found], 0.01)
        if least > SHUT * usual:
            continue
        open_share = np.clip((gap - least) / (usual - least), 0, 1)
        left = np.clip(1 - least * (1 - open_share) ** 2 / np.maximum(gap, 1e-6), 0, 1)
        upper, lower = ([p[i] for p in pairs] for i in (0, 1))
        out[:, upper] = points[:, lower] + left[:, None, None].astype(points.dtype) * (
            points[:, upper] - points[:, lower]
        )
    return out
