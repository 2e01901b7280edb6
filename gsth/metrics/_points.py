"""Measures of landmarks: distances, boxes, lips, lids and how steadily they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsth.metrics._image import Box

Points = NDArray[Any]
Series = NDArray[np.float64]

EYE_CORNERS = (33, 263)
INNER_LIPS = (13, 14)
"""Middle of the upper and of the lower inner lip."""
# fmt: off
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)
"""Outer and inner lip contour (MediaPipe's FACEMESH_LIPS)."""
LIPS_20 = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
"""MediaPipe's points where the 68-point scheme (iBUG) has its mouth points 48 to 67, in that order."""
# fmt: on
FACE = slice(0, 468)
"""Points on the skin; the ten after them are the irises."""
RIGID = (33, 133, 362, 263, 168, 6, 197, 195)
"""Eye corners and the bridge of the nose: what no expression moves."""
EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
"""Corner, two of the upper lid, corner, two of the lower lid, of each eye (Soukupova and Cech 2016, fig. 1)."""
FACE_MARGIN = 0.10
"""The face box is the bounds of the skin points, widened on each side by this share of its longer side."""
MOUTH_MARGIN = 0.25
"""The mouth box is the bounds of the lip points, widened on each side by this share of its longer side."""
CLOSED, OPEN = 0.02, 0.04
"""Inner-lip gaps, in inter-ocular distances (about 90 mm): at most CLOSED is shut, above OPEN is open."""
SHUT_EYE = 0.6
"""An eye whose aspect ratio is below this share of its own median is shut."""
NEAR = 2
"""Closures and blinks may come this many frames early or late."""


def inter_ocular(landmarks: Points) -> Series:
    """Distance of the outer eye corners, px, [...]."""
    left, right = landmarks[..., EYE_CORNERS[0], :], landmarks[..., EYE_CORNERS[1], :]
    return np.asarray(np.linalg.norm(left - right, axis=-1), dtype=np.float64)


def landmark_distance_pct(found: Points, reference: Points, *, lips: bool = False) -> Series:
    """Mean distance of the skin points (or only the lips), % of the reference's inter-ocular distance, [...].

    Nothing is aligned first: a head in the wrong place counts.
    """
    which = list(LIPS) if lips else FACE
    distance = np.linalg.norm(found[..., which, :] - reference[..., which, :], axis=-1).mean(-1)
    return np.asarray(100 * distance / inter_ocular(reference), dtype=np.float64)


def lmd_px(found: Points, reference: Points) -> Series:
    """The field's lip landmark distance, px, [...]: mean distance of 20 mouth points, each set's mean taken out.

    It is not scaled by the size of the face, so it grows with the resolution. Source: Chen et al. 2018, eq. 13, with
    the centring of the talking-head repositories' ``LMDMeter``; they detect with FAN, here it is MediaPipe.
    """
    a, b = found[..., list(LIPS_20), :], reference[..., list(LIPS_20), :]
    a, b = a - a.mean(-2, keepdims=True), b - b.mean(-2, keepdims=True)
    return np.asarray(np.linalg.norm(a - b, axis=-1).mean(-1), dtype=np.float64)


def mouth_opening(landmarks: Points) -> Series:
    """Gap of the inner lips over the inter-ocular distance, [...]."""
    upper, lower = landmarks[..., INNER_LIPS[0], :], landmarks[..., INNER_LIPS[1], :]
    return np.asarray(np.linalg.norm(upper - lower, axis=-1) / inter_ocular(landmarks), dtype=np.float64)


def eye_opening(landmarks: Points) -> Series:
    """Eye aspect ratio, mean of both eyes, [...] (Soukupova and Cech 2016, eq. 1)."""
    ratios = []
    for outer, up_a, up_b, inner, low_b, low_a in EYES:
        p = {i: landmarks[..., i, :] for i in (outer, up_a, up_b, inner, low_b, low_a)}
        lids = np.linalg.norm(p[up_a] - p[low_a], axis=-1) + np.linalg.norm(p[up_b] - p[low_b], axis=-1)
        ratios.append(lids / (2 * np.linalg.norm(p[outer] - p[inner], axis=-1)))
    return np.asarray(np.mean(ratios, 0), dtype=np.float64)


@dataclass(frozen=True)
class LagFit:
    """How well one series follows another."""

    correlation: float
    """Pearson's, at the best lag."""
    lag: int
    """Frames by which the series comes after its reference; negative: it comes before."""
    ratio: float
    """Standard deviation of the series over that of its reference, at that lag."""


MAX_LAG = 5
"""Frames to either side in which ``best_lag`` looks: 0.2 s at 25 Hz."""


def best_lag(series: Points, reference: Points, max_lag: int = MAX_LAG) -> LagFit | None:
    """The lag of at most ``max_lag`` frames at which ``series`` [t] correlates best with ``reference`` [t].

    Frames where either is NaN are left out. None where no lag leaves three frames on which both series vary.
    """
    if series.shape != reference.shape or series.ndim != 1:
        raise ValueError(f"best_lag wants two series of one length, got {series.shape} and {reference.shape}")
    fits = (_at_lag(series, reference, lag) for lag in sorted(range(-max_lag, max_lag + 1), key=abs))
    return max((f for f in fits if f is not None), key=lambda f: f.correlation, default=None)


def _at_lag(series: Points, reference: Points, lag: int) -> LagFit | None:
    """The fit of series[i + lag] to reference[i]."""
    t = len(series)
    if t - abs(lag) < 3:
        return None
    a = series[max(lag, 0) : t + min(lag, 0)].astype(np.float64)
    b = reference[max(-lag, 0) : t + min(-lag, 0)].astype(np.float64)
    known = ~(np.isnan(a) | np.isnan(b))
    if known.sum() < 3:
        return None
    a, b = a[known], b[known]
    spread_a, spread_b = float(a.std()), float(b.std())
    # A constant series has only rounding noise left, which must not be correlated.
    if spread_a <= 1e-9 * (1 + abs(a.mean())) or spread_b <= 1e-9 * (1 + abs(b.mean())):
        return None
    return LagFit(float(((a - a.mean()) * (b - b.mean())).mean() / (spread_a * spread_b)), lag, spread_a / spread_b)


@dataclass(frozen=True)
class Recall:
    """How many of some events were reproduced."""

    events: int
    hits: int

    @property
    def share(self) -> float | None:
        """0 to 1; None where nothing was to be found."""
        return self.hits / self.events if self.events else None


def closure_recall(opening: Series, reference: Series) -> Recall:
    """How many of the reference's lip closures the series [t] makes too, at most ``NEAR`` frames off.

    A closure is a run of gaps of at most ``CLOSED`` between frames above ``OPEN`` on both sides, at most five frames
    away: p, b and m inside speech, not lips at rest.
    """
    events = [
        run
        for run in runs(reference <= CLOSED)
        if _any_above(reference[max(0, run[0] - 5) : run[0]]) and _any_above(reference[run[1] : run[1] + 5])
    ]
    return _recalled(opening <= CLOSED, events)


def bilabial_closure(opening: Series, intervals: list[tuple[int, int]]) -> Recall:
    """In how many intervals (first frame, frame after the last) of p, b and m the lips [t] shut, +- one frame."""
    shut = opening <= CLOSED
    inside = [(a, b) for a, b in intervals if 0 <= a < b <= len(opening)]
    return Recall(len(inside), sum(bool(shut[max(0, a - 1) : b + 1].any()) for a, b in inside))


def blink_recall(eyes: Series, reference: Series) -> Recall:
    """How many of the reference's blinks the series [t] of eye openings makes too, at most ``NEAR`` frames off.

    Each series is held against its own median, so that narrow eyes are no blinks.
    """
    return _recalled(_shut_eyes(eyes), runs(_shut_eyes(reference)))


def stabilised(landmarks: Points) -> Points:
    """Landmarks [t l 2] moved by the similarity that puts their ``RIGID`` points onto the mean ones, [t l 2].

    Frames with NaN stay NaN. The shape that they are put onto keeps the first whole frame's place and size.
    """
    known = np.flatnonzero(~np.isnan(landmarks).any((1, 2)))
    out = np.full_like(landmarks, np.nan, dtype=np.float64)
    if not known.size:
        return out
    target = landmarks[known[0], list(RIGID)]
    for _ in range(2):
        for t in known:
            out[t] = _moved(landmarks[t], landmarks[t, list(RIGID)], target)
        target = out[known][:, list(RIGID)].mean(0)
    return out


def jitter_pct(landmarks: Points) -> float:
    """Root mean square of the second difference of the skin points in the stabilised head, % of the eye distance.

    NaN where no three frames with a face follow each other.
    """
    steady = stabilised(landmarks)[:, FACE]
    second = steady[2:] - 2 * steady[1:-1] + steady[:-2]
    size = np.nanmean(inter_ocular(landmarks)) if len(landmarks) and not np.isnan(landmarks).all() else math.nan
    kept = second[~np.isnan(second).any((1, 2))]
    return float(100 * np.sqrt((kept**2).sum(-1).mean()) / size) if kept.size else math.nan


def face_box(landmarks: Points, width: int, height: int) -> Box | None:
    """Bounds of the skin points [l 2] with ``FACE_MARGIN``, cut to the picture; None where nothing of it is inside."""
    return _bounds(landmarks[FACE], FACE_MARGIN, width, height)


def mouth_box(landmarks: Points, width: int, height: int) -> Box | None:
    """Bounds of the lip points with ``MOUTH_MARGIN``, cut to the picture; None where nothing of it is inside."""
    return _bounds(landmarks[list(LIPS)], MOUTH_MARGIN, width, height)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First index, and index after the last, of every run of True in [t]."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.astype(np.int8), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _recalled(made: NDArray[np.bool_], events: list[tuple[int, int]]) -> Recall:
    return Recall(len(events), sum(bool(made[max(0, a - NEAR) : b + NEAR].any()) for a, b in events))


def _any_above(part: Series) -> bool:
    return bool((part > OPEN).any())


def _shut_eyes(eyes: Series) -> NDArray[np.bool_]:
    if np.isnan(eyes).all():
        return np.zeros(len(eyes), bool)
    return np.asarray(eyes < SHUT_EYE * np.nanmedian(eyes))


def _moved(points: Points, source: Points, target: Points) -> Points:
    """Points [l 2] by the similarity that best takes ``source`` to ``target`` (Umeyama 1991, in complex numbers)."""
    z, w = source @ (1, 1j), target @ (1, 1j)
    mean_z, mean_w = z.mean(), w.mean()
    turn = (np.conj(z - mean_z) @ (w - mean_w)) / (np.abs(z - mean_z) ** 2).sum()
    moved = (points @ (1, 1j) - mean_z) * turn + mean_w
    return np.stack((moved.real, moved.imag), -1)


def _bounds(points: Points, margin: float, width: int, height: int) -> Box | None:
    low, high = points.min(0), points.max(0)
    pad = margin * float((high - low).max())
    x0, y0 = (max(0, math.floor(v - pad)) for v in low)
    x1, y1 = (min(limit, math.ceil(v + pad)) for v, limit in zip(high, (width, height), strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
