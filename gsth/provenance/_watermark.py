"""An id in the pixels that nobody sees: spread over many middle frequencies, read back without the original.

Each bit is the sign of the mean of some 110 signed DCT coefficients of the luma, in cycles over the whole picture, so
that a resize moves nothing. The embedder knows the picture and first takes away what the picture itself says in the
bit's direction (improved spread spectrum, Malvar and Florencio 2003, with the whole of the host removed where it
speaks against the bit). The carriers are public: the mark tells who made a picture, it does not withstand somebody
who wants it gone, and crops and rotations lose it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gsth.errors import InputError

ID_BITS, CHECK_BITS = 32, 16
BITS = ID_BITS + CHECK_BITS
LOWEST, HIGHEST = 48, 96
"""Band of carriers: half cycles over the picture's width and height, as the length of the vector of both."""
SMALLEST_PX = 2 * HIGHEST
"""Shorter sides cannot hold the band."""
BUDGET = 2.9
"""Mean square of the change, in levels (0 to 255): with rounding, 43.4 dB PSNR on every picture."""


@dataclass(frozen=True)
class Mark:
    """What a picture's pixels say."""

    id: int | None
    """The embedded id, or None where no whole one can be read."""
    bits: NDArray[np.float64]
    """Soft decisions [BITS], positive for one; about 1 where the mark is intact."""


def embed(picture: NDArray[np.uint8], id: int) -> NDArray[np.uint8]:
    """The picture [h w 3] with ``id`` (32 bits) in it; a picture too small for the mark is refused.

    Raises:
        InputError: A side is below ``SMALLEST_PX``, or the id has more than 32 bits.
    """
    height, width = picture.shape[:2]
    if min(height, width) < SMALLEST_PX:
        raise InputError(f"the watermark needs pictures of at least {SMALLEST_PX} px a side, got {width} x {height}")
    carriers = _carriers()
    signs = np.where(code(id), np.float32(1), np.float32(-1))
    found = (_spectrum(picture)[carriers.rows, carriers.cols] * carriers.signs).mean(1) * signs
    push = _push(found) * signs
    change = np.zeros((HIGHEST, HIGHEST), np.float32)
    change[carriers.rows, carriers.cols] = push[:, None] * carriers.signs
    down, across = _basis(height), _basis(width)
    delta = np.rint(down @ change @ across.T).astype(np.int16)
    marked = picture + delta[..., None]
    np.clip(marked, 0, 255, out=marked)
    return marked.astype(np.uint8)


def read(pictures: Iterable[NDArray[np.uint8]]) -> Mark:
    """The mark of one picture or of several of one video (their votes are added); ``pictures`` are [h w 3]."""
    carriers = _carriers()
    total = np.zeros(BITS)
    count = 0
    for picture in pictures:
        if min(picture.shape[:2]) <= HIGHEST:
            continue
        values = _spectrum(picture)[carriers.rows, carriers.cols] * carriers.signs
        total += values.mean(1) / np.sqrt(BUDGET / carriers.rows.size)
        count += 1
    bits = total / max(count, 1)
    return Mark(_decoded(bits > 0) if count else None, bits)


def code(id: int) -> NDArray[np.bool_]:
    """The bits [BITS] that are embedded for an id: the id, then its check sum.

    Raises:
        InputError: The id has more than 32 bits.
    """
    if not 0 <= id < 1 << ID_BITS:
        raise InputError(f"an id of a watermark has {ID_BITS} bits, got {id}")
    value = id << CHECK_BITS | _check(id)
    return np.array([value >> (BITS - 1 - i) & 1 for i in range(BITS)], bool)


@dataclass(frozen=True)
class _Carriers:
    """Where each bit lies in the spectrum: [BITS, coefficients of a bit]."""

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    signs: NDArray[np.float32]


@lru_cache(maxsize=1)
def _carriers() -> _Carriers:
    down, across = np.mgrid[:HIGHEST, :HIGHEST]
    length = np.hypot(down, across)
    rows, cols = np.nonzero((length >= LOWEST) & (length < HIGHEST) & (down > 0) & (across > 0))
    rng = np.random.default_rng(20260)  # part of the format: another one reads nothing
    order = rng.permutation(len(rows))
    order = order[: len(order) // BITS * BITS].reshape(BITS, -1)
    signs = rng.choice(np.array((-1, 1), np.float32), order.shape)
    return _Carriers(rows[order], cols[order], signs)


def _push(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each bit [BITS] is moved so that all reach one height, as high as ``BUDGET`` pays for.

    ``found`` says how far the picture itself already speaks for each bit.
    """
    means = np.sort(found)
    counts = np.arange(1, BITS + 1)
    # water filling: raising the lowest k to height a costs sum (a - found)^2, solved for a; the last k that is below a
    mean, square = np.cumsum(means) / counts, np.cumsum(means**2) / counts
    pays = BUDGET / _carriers().rows.shape[1] / counts
    heights = mean + np.sqrt(np.maximum(mean**2 - square + pays, 0))
    return np.maximum(heights[np.nonzero(heights > means)[0][-1]] - found, 0).astype(np.float32)


@lru_cache(maxsize=8)
def _basis(size: int) -> NDArray[np.float32]:
    """[size HIGHEST]: DCT-II waves with a mean square of 1 over the picture."""
    at = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * at[:, None] * np.arange(HIGHEST))
    return (waves * np.where(np.arange(HIGHEST) > 0, np.sqrt(2), 1)).astype(np.float32)


def _spectrum(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[HIGHEST HIGHEST] of the luma, so that a coefficient is the root mean square of its wave, whatever the size."""
    height, width = picture.shape[:2]
    luma = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
    return np.asarray(_basis(height).T @ (luma @ _basis(width)) / (height * width), np.float32)


def _check(id: int) -> int:
    """CRC-16/CCITT of the four bytes."""
    crc = 0xFFFF
    for byte in id.to_bytes(4, "big"):
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _decoded(bits: NDArray[np.bool_]) -> int | None:
    value = int("".join("1" if b else "0" for b in bits), 2)
    id, check = value >> CHECK_BITS, value & (1 << CHECK_BITS) - 1
    return id if _check(id) == check else None
