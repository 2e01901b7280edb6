"""Measures of pictures, landmarks and lips. Numbers in, numbers out; nothing here reads a file.

Pictures are [h w 3], uint8 or float 0 to 1. Landmarks are the 478 MediaPipe points, px, [l 2] or [t l 2].
IOD is the inter-ocular distance: between the outer eye corners (points 33 and 263).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[Any]
Points = NDArray[Any]
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels; x1 and y1 are outside."""

EYE_CORNERS = (33, 263)
INNER_LIPS = (13, 14)
"""Middle of the upper and of the lower inner lip."""
# fmt: off
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)
# fmt: on
"""Outer and inner lip contour (MediaPipe's FACEMESH_LIPS)."""
FACE = slice(0, 468)
"""Points on the skin; the ten after them are the irises."""
FACE_MARGIN = 0.10
"""The face box is the bounds of the skin points, widened on each side by this share of its longer side."""
MOUTH_MARGIN = 0.25
"""The mouth box is the bounds of the lip points, widened on each side by this share of its longer side."""

_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5


def psnr(picture: Picture, reference: Picture) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB; infinite where the pictures are equal."""
    error = float(np.mean((_unit(picture) - _unit(reference)) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(picture: Picture, reference: Picture) -> float:
    """Structural similarity, mean over channels and all places where the whole window fits.

    An 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, population covariance and data range 1: what
    scikit-image computes with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``.
    Source: Wang et al. 2004, eq. 13.

    Raises:
        ValueError: a side is shorter than the window.
    """
    a, b = _unit(picture), _unit(reference)
    if a.shape != b.shape or min(a.shape[:2]) < _SSIM_SIZE:
        raise ValueError(
            f"ssim wants two pictures of one size, at least {_SSIM_SIZE} px; got {[*a.shape]} and {[*b.shape]}"
        )
    return float(np.mean([_ssim_channel(a[..., c].copy(), b[..., c].copy()) for c in range(3)]))


def inter_ocular(landmarks: Points) -> NDArray[np.float64]:
    """Distance of the outer eye corners, px, [...]."""
    left, right = landmarks[..., EYE_CORNERS[0], :], landmarks[..., EYE_CORNERS[1], :]
    return np.asarray(np.linalg.norm(left - right, axis=-1), dtype=np.float64)


def landmark_distance_pct(found: Points, reference: Points, *, lips: bool = False) -> NDArray[np.float64]:
    """Mean distance of the skin points (or only the lips), % of the reference's inter-ocular distance, [...].

    Nothing is aligned first: a head in the wrong place counts.
    """
    which = list(LIPS) if lips else FACE
    distance = np.linalg.norm(found[..., which, :] - reference[..., which, :], axis=-1).mean(-1)
    return np.asarray(100 * distance / inter_ocular(reference), dtype=np.float64)


def mouth_opening(landmarks: Points) -> NDArray[np.float64]:
    """Gap of the inner lips over the inter-ocular distance, [...]."""
    upper, lower = landmarks[..., INNER_LIPS[0], :], landmarks[..., INNER_LIPS[1], :]
    return np.asarray(np.linalg.norm(upper - lower, axis=-1) / inter_ocular(landmarks), dtype=np.float64)


@dataclass(frozen=True)
class LagFit:
    """How well one series follows another."""

    correlation: float
    """Pearson's, at the best lag."""
    lag: int
    """Frames by which the series comes after its reference; negative: it comes before."""
    ratio: float
    """Standard deviation of the series over that of its reference, at that lag."""


def best_lag(series: Points, reference: Points, max_lag: int = 5) -> LagFit | None:
    """The lag of at most ``max_lag`` frames at which ``series`` [t] correlates best with ``reference`` [t].

    Frames where either is NaN are left out. None where no lag leaves three frames on which both series vary.
    """
    if series.shape != reference.shape or series.ndim != 1:
        raise ValueError(f"best_lag wants two series of one length, got {series.shape} and {reference.shape}")
    fits = (_at_lag(series, reference, lag) for lag in sorted(range(-max_lag, max_lag + 1), key=abs))
    return max((f for f in fits if f is not None), key=lambda f: f.correlation, default=None)


def face_box(landmarks: Points, width: int, height: int) -> Box | None:
    """Bounds of the skin points [l 2] with ``FACE_MARGIN``, cut to the picture; None where nothing of it is inside."""
    return _bounds(landmarks[FACE], FACE_MARGIN, width, height)


def mouth_box(landmarks: Points, width: int, height: int) -> Box | None:
    """Bounds of the lip points with ``MOUTH_MARGIN``, cut to the picture; None where nothing of it is inside."""
    return _bounds(landmarks[list(LIPS)], MOUTH_MARGIN, width, height)


def cut(picture: Picture, box: Box) -> Picture:
    """The part of a picture inside a box (a view)."""
    x0, y0, x1, y1 = box
    return picture[y0:y1, x0:x1]


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values that are not NaN; None where there is none."""
    kept = [v for v in values if not math.isnan(v)]
    return sum(kept) / len(kept) if kept else None


def _unit(picture: Picture) -> NDArray[np.float64]:
    return picture.astype(np.float64) / (255.0 if picture.dtype == np.uint8 else 1.0)


def _ssim_channel(a: Picture, b: Picture) -> float:
    mean_a, mean_b, aa, bb, ab = (_blur(m) for m in (a, b, a * a, b * b, a * b))
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(score.mean())


def _blur(plane: Picture) -> Picture:
    """The Gaussian window over [h w], only where it fits.

    Sums of shifted planes, one channel at a time, which stay in the cache: in double precision a fraction of the time
    of a library convolution.
    """
    at = np.arange(_SSIM_SIZE) - _SSIM_SIZE // 2
    window = np.exp(-0.5 * (at / _SSIM_SIGMA) ** 2)
    window /= window.sum()
    for _ in range(2):
        # Along the first axis, then transposed, so that both ways run along whole rows of memory.
        length = len(plane) - _SSIM_SIZE + 1
        total = window[0] * plane[:length]
        part = np.empty_like(total)
        for k in range(1, _SSIM_SIZE):
            total += np.multiply(plane[k : k + length], window[k], out=part)
        plane = np.ascontiguousarray(total.T)
    return plane


def _at_lag(series: Points, reference: Points, lag: int) -> LagFit | None:
    """The fit of series[i + lag] to reference[i]."""
    t = len(series)
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


def _bounds(points: Points, margin: float, width: int, height: int) -> Box | None:
    low, high = points.min(0), points.max(0)
    pad = margin * float((high - low).max())
    x0, y0 = (max(0, math.floor(v - pad)) for v in low)
    x1, y1 = (min(limit, math.ceil(v + pad)) for v, limit in zip(high, (width, height), strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
