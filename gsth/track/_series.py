"""Frames on disk that look like arrays in memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

HELD = 256
"""Frames after which work on a whole clip lets go of them."""


def series(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped uint8 array on disk whose space is taken at once: a full disk must say so here, not by SIGBUS."""
    series = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return series


def let_go(*arrays: np.ndarray) -> None:
    """Count what was read and written of mapped arrays no longer as this process's memory; others are left alone.

    The pages stay in the system's cache and on disk, and come back when they are looked at. A process that may take no
    more than so much (a container, a batch system) would otherwise be charged with the whole clip.
    """
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
