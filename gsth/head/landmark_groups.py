"""Named groups of the 478 MediaPipe face landmarks (468 of the mesh, then 5 of each iris).

Left and right are the person's own. Contours run along the line; upper and lower lip lines go from the person's right
corner to the left one. Source: mediapipe 0.10.14, ``solutions.face_mesh_connections``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

COUNT = 478
LIPS_OUTER_UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIPS_OUTER_LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
LIPS_INNER_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIPS_INNER_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
EYE_R_UPPER = (33, 246, 161, 160, 159, 158, 157, 173, 133)
EYE_R_LOWER = (33, 7, 163, 144, 145, 153, 154, 155, 133)
EYE_L_UPPER = (362, 398, 384, 385, 386, 387, 388, 466, 263)
EYE_L_LOWER = (362, 382, 381, 380, 374, 373, 390, 249, 263)
IRIS_R = (468, 469, 470, 471, 472)
"""Centre first, then four points of its rim."""
IRIS_L = (473, 474, 475, 476, 477)
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline of the face: detectors slide these along the silhouette as the head turns, so weigh them down."""


def _union(*groups: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(i for g in groups for i in g))


GROUPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "lips_outer_upper": LIPS_OUTER_UPPER,
        "lips_outer_lower": LIPS_OUTER_LOWER,
        "lips_inner_upper": LIPS_INNER_UPPER,
        "lips_inner_lower": LIPS_INNER_LOWER,
        "lips_outer": _union(LIPS_OUTER_UPPER, LIPS_OUTER_LOWER[::-1]),
        "lips_inner": _union(LIPS_INNER_UPPER, LIPS_INNER_LOWER[::-1]),
        "lips": _union(LIPS_OUTER_UPPER, LIPS_OUTER_LOWER, LIPS_INNER_UPPER, LIPS_INNER_LOWER),
        "eye_r_upper": EYE_R_UPPER,
        "eye_r_lower": EYE_R_LOWER,
        "eye_l_upper": EYE_L_UPPER,
        "eye_l_lower": EYE_L_LOWER,
        "eye_r": _union(EYE_R_UPPER, EYE_R_LOWER[::-1]),
        "eye_l": _union(EYE_L_UPPER, EYE_L_LOWER[::-1]),
        "brow_r": (70, 63, 105, 66, 107, 46, 53, 52, 65, 55),
        "brow_l": (300, 293, 334, 296, 336, 276, 283, 282, 295, 285),
        "iris_r": IRIS_R,
        "iris_l": IRIS_L,
        "nose": (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 294, 278, 344, 440, 275, 45, 220, 115, 48, 64),
        "oval": OVAL,
    }
)
"""Landmark indices of each named region."""
EYE_CORNERS = (33, 133, 362, 263)
"""Right outer, right inner, left inner, left outer: for the inter-ocular distance."""
