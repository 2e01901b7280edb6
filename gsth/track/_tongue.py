"""Where the tongue is, by colour: the landmark detector has no points on it.

The opening between the lips is sampled in columns from the upper to the lower lip. Far back a tongue lies in the dark;
the further it comes forward, the more of the opening it fills with lit red, and the less of the lower teeth is left
before it. Where it lies over the lower lip, its colour goes on below the opening. All colours are relative to the same
face in the same picture (cheeks for hue, cheeks and lips for light), so that skin, make-up, lamps and exposure cancel.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from gsth.track import _points
from gsth.types import Motion

ACTION = "tongueOut"
COLUMNS, ROWS = 24, 12
"""Of samples of the opening."""
EYES_PX = 80.0
"""Faces with a larger inter-ocular distance are brought to this first, so that a sample is the mean around it."""
LEAST_AREA = (0.03, 0.05)
"""Opening, in squared inter-ocular distances, from which on a tongue can be told, and is believed fully."""
LEAST_PX = (8.0, 12.0)
"""Likewise its mean height, px of the picture: fewer show blends of teeth, tongue and lips."""
MARGIN = 0.012
"""Next to the lips so much, in inter-ocular distances, is not judged: landmarks are no more exact."""
LIT, TEETH_LIT = 0.74, 0.9
"""Least light of a tongue in front, and of teeth, over the geometric mean of lips and cheeks."""
DARK_LIPS = 0.5
"""Lips less light than this, over the cheeks, are painted, and say nothing of the light at the mouth."""
RED = (0.03, 0.42)
"""How much redder than the cheeks a tongue is (red less green over the mean): teeth are paler, most lips redder."""
BROWN = (0.34, 0.4)
"""Log of red over green of the cheeks from which on, and how far, that scale is moved: brown skin may be redder."""
TOOTHED = 0.7
"""Lower teeth along the whole lower lip, which lie before the tongue, take this share from what counts as filled."""
FILLED = (0.28, 0.55)
"""Share of the opening filled by a tongue low in the mouth, and by one that has come forward over the lower teeth."""
AT_LIPS = 0.45
"""``tongueOut`` that brings the built-in head's tongue over its lower teeth, to the lip; 1 lays it over the lip."""
COVERED = (0.7, 1.0)
"""From the colour of the lip's corners (0) to that of the tongue (1): middle of a bare and of a covered lip."""
TELLING = 0.12
"""Tongue and lip that differ less in light, red and blue do not tell which is which."""
INNER, OUTER = np.array(_points.LIPS_INNER), np.array(_points.LIPS_OUTER)
LOWER, UPPER = INNER[:11], np.concatenate((INNER[:1], INNER[:9:-1]))
"""The inner lip lines from the right corner of the mouth to the left."""
MIDDLE, CORNERS = np.array((4, 5, 6)), np.array((1, 2, 3, 7, 8, 9))
"""Which of ``INNER`` and ``OUTER`` bound the lower lip's middle, and its sides."""
LIP_PARTS = np.array((0.25, 0.45))[:, None, None]
"""Where on the way from inner to outer line the middle of the lower lip is looked at: both must be covered."""


def of(frame: np.ndarray, points: np.ndarray) -> float:
    """How far the tongue is out, 0 to 1 as ``tongueOut``; 0 where the picture does not tell.

    Args:
        frame: RGB uint8 [h w 3].
        points: Landmarks of the face in it, px [478 2].
    """
    eyes = max(float(_points.interocular(points)), 1.0)
    places, heights, width = _opening(points)
    height = float(heights.mean())
    told = _ramp(height * width / eyes**2, LEAST_AREA) * _ramp(height, LEAST_PX)
    if told == 0:
        return 0.0
    inner, outer = points[INNER], points[OUTER]
    middle = inner[MIDDLE] + LIP_PARTS * (outer - inner)[MIDDLE]
    skin = _skin(frame, points, eyes)
    light, red, blue = _look(_colours(frame, (places, (inner + outer) / 2, middle), eyes) / skin)
    red = red + BROWN[1] * max(float(np.log(skin[0] / skin[1])) - BROWN[0], 0.0)
    lips = slice(COLUMNS * ROWS, COLUMNS * ROWS + len(INNER))
    usual = max(float(_middle(light[lips])), DARK_LIPS) ** 0.5
    filled, toothed, tongue = _filled(light[: lips.start] / usual, red[: lips.start], heights, eyes)
    if filled == 0:
        return 0.0
    look = np.stack((light, red, blue), 1)
    covered = _covered(_middle(look[: lips.start][tongue]), _middle(look[lips][CORNERS]), look[lips.stop :])
    return told * filled * (AT_LIPS + (1 - AT_LIPS) * (1 - toothed) * covered)


def told(motion: Motion, names: tuple[str, ...], tongue: np.ndarray, scores: torch.Tensor | None) -> Motion:
    """The motion with the tongue as pictures show it.

    Args:
        motion: As fitted to landmarks.
        names: The head's expressions.
        tongue: What ``of`` found [t]; nan in frames without a face, which lie between their neighbours.
        scores: The detector's own activations in the order of ``names`` [t e], nan where it told none. Where it told
            the tongue's, the fit has heard it, and stays.
    """
    known = np.flatnonzero(np.isfinite(tongue))
    if ACTION not in names or not len(known):
        return motion
    bridged = np.interp(np.arange(len(tongue)), known, tongue[known])
    calm = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(bridged, 1, "edge"), 3), -1)
    expr, index = motion.expr.clone(), names.index(ACTION)
    seen = torch.from_numpy(calm).to(expr)
    expr[:, index] = seen if scores is None else torch.where(scores[:, index].isfinite(), expr[:, index], seen)
    return motion.replace(expr=expr)


def _ramp(value: float, span: tuple[float, float]) -> float:
    """0 up to the span, 1 beyond it."""
    return min(max((value - span[0]) / (span[1] - span[0]), 0.0), 1.0)


def _middle(values: np.ndarray) -> np.ndarray:
    """The upper median along the first axis; numpy's own takes ten times as long on so few."""
    return np.sort(values, 0)[len(values) // 2]


def _opening(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Places between the lips, px [rows columns 2], the height of each column, px, and the width of the mouth, px."""
    start = points[LOWER[0]].astype(float)
    along = points[LOWER[-1]] - start
    width = max(float(np.hypot(*along)), 1e-3)
    along = along / width
    down = np.array((-along[1], along[0]))
    at = (np.arange(COLUMNS) + 0.5) / COLUMNS * width
    away = points[np.stack((UPPER, LOWER))] - start
    right, below = np.maximum.accumulate(away @ along, 1), away @ down
    upper, lower = (np.interp(at, right[i], below[i]) for i in (0, 1))
    heights = np.maximum(lower - upper, 0)
    depth = upper + (np.arange(ROWS)[:, None] + 0.5) / ROWS * heights
    return start + at[:, None] * along + depth[..., None] * down, heights, width


def _colours(frame: np.ndarray, groups: tuple[np.ndarray, ...], eyes: float) -> np.ndarray:
    """Colours [n 3] at groups of places [... 2], px, one after the other; each the mean around it."""
    where = np.concatenate([g.reshape(-1, 2) for g in groups])
    (h, w), scale = frame.shape[:2], min(1.0, EYES_PX / eyes)
    (left, top), (right, bottom) = (where.min(0) - 3 / scale).tolist(), (where.max(0) + 3 / scale).tolist()
    x0, y0 = int(min(max(left, 0), w - 1)), int(min(max(top, 0), h - 1))
    x1, y1 = int(min(max(right, x0 + 1), w)), int(min(max(bottom, y0 + 1), h))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    mouth = cv2.resize(frame[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    at = ((where - (x0, y0)) * (size[0] / (x1 - x0), size[1] / (y1 - y0)) - 0.5).astype(np.float32)
    seen = cv2.remap(mouth, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return seen[0].astype(np.float32) + 1


def _skin(frame: np.ndarray, points: np.ndarray, eyes: float) -> np.ndarray:
    """Colour of the cheeks [3], both alike."""
    (h, w), reach = frame.shape[:2], max(1, round(0.02 * eyes))
    x, y = np.clip(points[np.array(_points.CHEEKS)], reach, (w - 1 - reach, h - 1 - reach)).astype(int).reshape(-1, 2).T
    patches = [frame[b - reach : b + reach + 1, a - reach : a + reach + 1] for a, b in zip(x, y, strict=True)]
    sides = np.array([cv2.mean(p)[:3] for p in patches], np.float32).reshape(2, 3, 3)
    return _middle(sides.swapaxes(0, 1)).mean(0) + 1


def _look(relative: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light, red and blue [n] of colours [n 3] relative to skin."""
    r, g, b = relative.T
    light = (r + g + b) / 3
    return light, (r - g) / light, (b - g) / light


def _filled(light: np.ndarray, red: np.ndarray, heights: np.ndarray, eyes: float) -> tuple[float, float, np.ndarray]:
    """How far the tongue fills the opening and how far lower teeth bar it, 0 to 1, and which samples are tongue."""
    share = (np.arange(ROWS)[:, None] + 0.5) / ROWS
    weight = np.where(np.minimum(share, 1 - share) * heights < MARGIN * eyes, 0, heights)
    low = weight * (share > 2 / 3)
    low[:, : COLUMNS // 5] = low[:, -(COLUMNS // 5) :] = 0
    weight, low = weight.reshape(-1), low.reshape(-1)
    pale = red < RED[0]
    tongue = (light > LIT) & (red < RED[1]) & ~pale & (weight > 0)
    toothed = float(low @ ((light > TEETH_LIT) & pale)) / max(float(low.sum()), 1e-6)
    filled = float(weight @ tongue) / max(float(weight.sum()), 1e-6)
    return _ramp(filled * (1 - TOOTHED * toothed), FILLED), toothed, tongue


def _covered(tongue: np.ndarray, sides: np.ndarray, middle: np.ndarray) -> float:
    """How far the tongue covers the lower lip, 0 to 1, by looks of tongue [3], the lip's sides [3] and middle [n 3]."""
    axis = tongue - sides
    contrast = float(axis @ axis)
    if contrast < TELLING**2:
        return 0.0
    like = ((middle - sides) @ axis / contrast).reshape(len(LIP_PARTS), -1)
    return _ramp(float(_middle(like.T).min()), COVERED)
