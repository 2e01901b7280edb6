"""Distances of pictures that need no learned weights: PSNR, SSIM, MS-SSIM, FLIP."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsth.errors import MissingExtraError

Picture = NDArray[Any]
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels; x1 and y1 are outside."""

_SSIM_SIZE, _SSIM_SIGMA = 11, 1.5
_BORDER = _SSIM_SIZE // 2
_C1, _C2 = 0.01**2, 0.03**2
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponent of each scale, fine to coarse (Wang et al. 2003, section 3.2)."""
MS_MIN_SIDE = _SSIM_SIZE * 2 ** (len(MS_WEIGHTS) - 1)


def psnr(picture: Picture, reference: Picture, where: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB; infinite where the pictures are equal.

    Args:
        picture: [h w 3].
        reference: Likewise.
        where: The pixels that count, [h w]; NaN comes back where there is none.
    """
    squared = (unit(picture) - unit(reference)) ** 2
    if where is not None:
        squared = squared[where]
    if not squared.size:
        return math.nan
    error = float(squared.mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(picture: Picture, reference: Picture) -> float:
    """Structural similarity, mean over channels and all places where the whole window fits.

    An 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, population covariance and data range 1: what
    scikit-image computes with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``.
    Source: Wang et al. 2004, eq. 13.

    Raises:
        ValueError: a side is shorter than the window.
    """
    return Similarity(reference).to(picture).mean


@dataclass(frozen=True, eq=False)
class Compared:
    """SSIM of one picture: the map, and what MS-SSIM takes of it."""

    places: NDArray[np.float64]
    """SSIM of each window, mean over channels, [h - 10, w - 10]; place (0, 0) is the window centred at (5, 5)."""
    channels: NDArray[np.float64]
    """SSIM of each channel, [3]."""
    contrasts: NDArray[np.float64]
    """Mean of the contrast-structure term of each channel, [3]."""

    @property
    def mean(self) -> float:
        """SSIM of the whole picture."""
        return float(self.places.mean())

    def inside(self, box: Box) -> float:
        """Mean over the windows whose centre lies in a box; NaN where there is none."""
        x0, y0, x1, y1 = (max(0, v - _BORDER) for v in box)
        part = self.places[y0:y1, x0:x1]
        return float(part.mean()) if part.size else math.nan

    def where(self, mask: NDArray[np.bool_]) -> float:
        """Mean over the windows whose centre lies in a mask [h w]; NaN where there is none."""
        part = self.places[mask[_BORDER:-_BORDER, _BORDER:-_BORDER]]
        return float(part.mean()) if part.size else math.nan


class Similarity:
    """SSIM and MS-SSIM against one reference, whose own moments are computed once for all pictures."""

    def __init__(self, reference: Picture) -> None:
        """Take the reference [h w 3]; ValueError where a side is shorter than the window."""
        self._reference = unit(reference)
        if self._reference.ndim != 3 or min(self._reference.shape[:2]) < _SSIM_SIZE:
            raise ValueError(f"ssim wants pictures [h w 3] of at least {_SSIM_SIZE} px, got {[*self._reference.shape]}")

    @cached_property
    def _moments(self) -> list[tuple[Picture, Picture, Picture]]:
        planes = [np.ascontiguousarray(self._reference[..., c]) for c in range(3)]
        return [(b, _blur(b), _blur(b * b)) for b in planes]

    def to(self, picture: Picture) -> Compared:
        """Compare a picture; ValueError where its size is another."""
        picture = unit(picture)
        if picture.shape != self._reference.shape:
            raise ValueError(
                f"ssim wants two pictures of one size, at least {_SSIM_SIZE} px; got {[*picture.shape]} and "
                f"{[*self._reference.shape]}"
            )
        total, means, contrasts = np.zeros(()), np.zeros(3), np.zeros(3)
        for c, (b, mean_b, bb) in enumerate(self._moments):
            a = np.ascontiguousarray(picture[..., c])
            mean_a = _blur(a)
            var_a, var_b, cov = _blur(a * a) - mean_a**2, bb - mean_b**2, _blur(a * b) - mean_a * mean_b
            structure = (2 * cov + _C2) / (var_a + var_b + _C2)
            places = structure * (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
            means[c], contrasts[c] = places.mean(), structure.mean()
            total = total + places
        return Compared(total / 3, means, contrasts)

    def multi_scale(self, picture: Picture, finest: Compared | None = None) -> float:
        """MS-SSIM (Wang et al. 2003, eq. 7), mean over channels; each scale is the 2 x 2 mean of the one before.

        Args:
            picture: [h w 3].
            finest: What ``to`` gave for it, if that is known.

        Returns:
            NaN where a side is below 176 px: the coarsest scale would not hold one window.
        """
        if min(self._reference.shape[:2]) < MS_MIN_SIDE:
            return math.nan
        scores, here, picture = np.ones(3), self, unit(picture)
        for level, weight in enumerate(MS_WEIGHTS):
            if level:
                here, picture = here._half, _halved(picture)
            found = finest if level == 0 and finest is not None else here.to(picture)
            last = level == len(MS_WEIGHTS) - 1
            scores *= (found.channels if last else found.contrasts).clip(0) ** weight
        return float(scores.mean())

    @cached_property
    def _half(self) -> Similarity:
        return Similarity(_halved(self._reference))


def flip_map(picture: Picture, reference: Picture) -> NDArray[np.float32]:
    """LDR-FLIP error of each pixel, 0 to 1, [h w], at 67 pixels per degree (Andersson et al. 2020).

    Raises:
        MissingExtraError: flip-evaluator is absent.
    """
    try:
        evaluate = importlib.import_module("flip_evaluator").evaluate
    except ImportError as error:
        raise MissingExtraError("flip-evaluator", "eval", "the FLIP measure") from error
    a, b = (unit(p).astype(np.float32) for p in (reference, picture))
    found, _, _ = evaluate(a, b, "LDR", applyMagma=False, computeMeanError=False)
    return np.asarray(found, dtype=np.float32)[..., 0]


def cut(picture: Picture, box: Box) -> Picture:
    """The part of a picture inside a box (a view)."""
    x0, y0, x1, y1 = box
    return picture[y0:y1, x0:x1]


def unit(picture: Picture) -> NDArray[np.float64]:
    """A picture, uint8 or float, as float64 0 to 1."""
    return picture.astype(np.float64) / (255.0 if picture.dtype == np.uint8 else 1.0)


def _halved(picture: Picture) -> Picture:
    h, w = (n // 2 * 2 for n in picture.shape[:2])
    p = picture[:h, :w]
    return (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4


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
