"""Which constant frame rate a film has, from the times of its frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

RATES = tuple(float(Fraction(r)) for r in ("24000/1001 24 25 30000/1001 30 48 50 60000/1001 60 120".split()))
"""Frame rates in common use; a measured rate very near one of them means it."""


def constant_rate(times: NDArray[np.float64]) -> tuple[float, int]:
    """Frame rate and number of slots for frames that are shown at ``times``, s, rising."""
    span = times[-1] - times[0]
    fps = _common_rate((len(times) - 1) / span)
    drift = np.abs(times - times[0] - np.arange(len(times)) / fps)
    if drift.max() < 0.5 / fps:
        return fps, len(times)
    fps = _common_rate(1.0 / float(np.median(np.diff(times))), near=0.015)  # webm counts in ms: 33 ms means 30 fps
    return fps, round(span * fps) + 1


def _common_rate(fps: float, near: float = 4e-4) -> float:
    best = min(RATES, key=lambda rate: abs(rate - fps))
    return best if abs(best - fps) < near * best else float(fps)
