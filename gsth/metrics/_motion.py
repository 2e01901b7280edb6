"""Measures of series of pictures and words: flicker, and what a lip reader understands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from gsth.metrics._image import Picture

STILL_LEVELS = 2
"""A pixel whose 8-bit value changes by at most this much from one reference frame to the next stands still."""


def flicker(picture: Picture, before: Picture, reference: Picture, reference_before: Picture) -> float:
    """Mean change, in 8-bit levels, from one uint8 picture to the next of the pixels that stand still in the reference.

    NaN where none does.
    """
    moved = np.abs(reference.astype(np.int16) - reference_before).max(-1)
    change = np.abs(picture.astype(np.int16) - before)[moved <= STILL_LEVELS]
    return float(change.mean()) if change.size else math.nan


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values that are not NaN; None where there is none."""
    kept = [v for v in values if not math.isnan(v)]
    return sum(kept) / len(kept) if kept else None


def word_accuracy(read: Sequence[str], said: Sequence[str]) -> float | None:
    """1 less the word error rate: edits (insert, delete, replace) over words said; None where nothing was said."""
    if not said:
        return None
    row = list(range(len(said) + 1))
    for i, word in enumerate(read, 1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(said, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != wanted))
    return 1 - row[-1] / len(said)
