"""Who is person and what is background: a matte for every frame, and the background without the person."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from gsth.errors import MissingExtraError
from gsth.track.detectors.builtin import solutions

GUIDE_RADIUS, GUIDE_EPS = 8, 1e-4
"""Guided filter (He et al. 2010) at 512 px: window radius, px, and regularisation in squared intensity."""
TEMPORAL = np.array((0.25, 0.5, 0.25), np.float32)
"""Weights of the frame before, this one and the next: the segmenter flickers at hair."""
OPEN = 0.1
"""A pixel shows background where the matte is below this, everywhere within ``MARGIN`` of it."""
MARGIN = 1 / 64
"""In picture widths: shadows and loose hair at the person's rim."""
PLATE_FRAMES = 96
"""Frames, spread over the training part, whose median is the plate."""
MIN_SEEN = 3
"""A plate pixel needs to be open in this many of them; the others are filled from around."""
STILL_PX = 1.2
"""Apparent shift of the background, crop px, above which it is not still; a plate blurred by less beats none."""
TEXTURE = 6.0
"""Mean slope, grey levels per px, from which on a pixel tells of a shift; noise is well below."""


class Matter:
    """Mattes for frames in order. One frame late, because each is smoothed with both neighbours."""

    def __init__(self, size: int) -> None:
        self._segment = solutions().selfie_segmentation.SelfieSegmentation(model_selection=0)
        self._radius = max(2, round(GUIDE_RADIUS * size / 512))
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []

    def __enter__(self) -> Matter:
        return self

    def __exit__(self, *error: object) -> None:
        self._segment.close()

    def push(self, image: np.ndarray) -> list[np.ndarray]:
        """Take the next picture [h w 3] uint8; give the mattes [h w] uint8 (0 or 1 of them) that are ready."""
        self._pending.append((image, self._segment.process(image).segmentation_mask.astype(np.float32)))
        if len(self._pending) == 1:
            return []
        ready = [self._refined(self._pending[-2][0], [m for _, m in self._pending])]
        self._pending = self._pending[-2:]
        return ready

    def flush(self) -> list[np.ndarray]:
        """The matte of the last picture."""
        masks = [m for _, m in self._pending]
        return [self._refined(self._pending[-1][0], [*masks, masks[-1]])] if masks else []

    def _refined(self, image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
        before, now, after = (masks[0], *masks) if len(masks) == 2 else masks
        mask = TEMPORAL[0] * before + TEMPORAL[1] * now + TEMPORAL[2] * after
        matte = guided_filter(image, mask, self._radius, GUIDE_EPS)
        # the filter leaves a haze around 0 and 1; stretching the middle makes both ends firm
        matte = np.clip((matte - 0.1) / 0.8, 0, 1)
        return (matte * 255).round().astype(np.uint8)


def guided_filter(guide: np.ndarray, mask: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """``mask`` [h w] float32 with the edges of ``guide`` [h w 3] uint8; ``eps`` in squared intensity, 0 to 1.

    Source: He, Sun, Tang 2010, Guided Image Filtering, eq. 19-20 (colour guide); the linear coefficients are found at
    half size (He and Sun 2015, Fast Guided Filter), which is three times faster and looks the same.

    Raises:
        MissingExtraError: This OpenCV lacks the filter; mediapipe asks for the one with it.
    """
    if not hasattr(cv2, "ximgproc"):
        raise MissingExtraError("opencv-contrib-python", "track", "cutting a person out")
    return cv2.ximgproc.guidedFilter(guide, mask, max(1, radius // 2), eps * 255**2, scale=0.5)


def plate(images: np.ndarray, mattes: np.ndarray, train_frames: int) -> tuple[np.ndarray, float]:
    """The background without the person, from the training frames only.

    Args:
        images: [t h w 3] uint8.
        mattes: [t h w] uint8.
        train_frames: How many frames, from the start, may be looked at.

    Returns:
        The plate [h w 3], float32, 0 to 1, holes filled from around; and how far the background typically lies from it
        at edges, px (above ``STILL_PX``: it moves). A plain background tells nothing and needs nothing: 0.
    """
    ids = np.unique(np.linspace(0, train_frames - 1, PLATE_FRAMES).astype(int))
    h, w = images.shape[1:3]
    reach = 2 * max(1, round(MARGIN * w)) + 1
    closed = np.stack([cv2.dilate(mattes[i], np.ones((reach, reach), np.uint8)) >= OPEN * 255 for i in ids])
    known = (~closed).sum(0) >= MIN_SEEN
    result, away = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.float32)
    for rows in _blocks(h):
        shown = np.where(closed[:, rows, :, None], np.nan, images[ids, rows].astype(np.float32))
        result[rows] = _nanmedian(shown)
        away[rows] = _nanmedian(np.abs(shown - result[rows]).mean(-1))
    slope = _slope(images, closed, ids)
    telling = known & (slope > TEXTURE)
    shift = float(np.median(away[telling] / slope[telling])) if telling.sum() >= w else 0.0
    return np.clip(filled(np.nan_to_num(result), known) / 255, 0, 1), shift


def _slope(images: np.ndarray, closed: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Mean steepness of the open pixels over some frames, grey levels per px [h w].

    Of the frames, not of the plate: a median over a moving background is smooth and would hide that it moves.
    """
    total, count = np.zeros(closed.shape[1:], np.float32), np.zeros(closed.shape[1:], np.float32)
    for k in range(0, len(ids), max(1, len(ids) // 12)):
        grey = cv2.cvtColor(images[ids[k]], cv2.COLOR_RGB2GRAY)
        steep = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
        total += steep * ~closed[k]
        count += ~closed[k]
    return total / np.maximum(count, 1)


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """Median over the first axis, nan ignored; several times faster than numpy's for many short columns."""
    ordered = np.sort(values, 0)
    count = np.isfinite(values).sum(0)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    high = np.minimum(high, np.maximum(count - 1, 0))
    take = [np.take_along_axis(ordered, k[None], 0)[0] for k in (low, high)]
    return (take[0] + take[1]) / 2


def _blocks(rows: int) -> Iterator[slice]:
    """Few rows at a time keep the memory below 100 MB at 1024 px."""
    for start in range(0, rows, 16):
        yield slice(start, min(start + 16, rows))


def filled(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[h w 3] with the pixels that are not ``known`` [h w] taken smoothly from around them (pull-push).

    Source: Gortler et al. 1996, The Lumigraph, section 3.4.
    """
    if known.all() or not known.any():
        return picture.astype(np.float32)
    h, w = known.shape
    weight = known.astype(np.float32)
    size = ((w + 1) // 2, (h + 1) // 2)
    small_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(picture.astype(np.float32) * weight[..., None], size, interpolation=cv2.INTER_AREA)
    small = small / np.maximum(small_weight, 1e-6)[..., None]
    around = cv2.resize(filled(small, small_weight > 1e-6), (w, h), interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], picture, around).astype(np.float32)
