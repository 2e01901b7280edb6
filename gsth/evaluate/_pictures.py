"""Raw frames as an avatar's camera shows them."""

from __future__ import annotations

import numpy as np

from gsth.evaluate._tools import needed
from gsth.metrics import Picture


def reference_picture(frame: Picture, crop_px: tuple[int, int, int, int], width: int, height: int) -> Picture:
    """The part of a clip frame that an avatar's camera shows, at the camera's size.

    Args:
        frame: uint8 [h w 3].
        crop_px: x0, y0, x1, y1 in px of the frame; what lies outside the frame is black.
        width: Of the result. Smaller than the crop: area average; larger: bicubic.
        height: Likewise.
    """
    x0, y0, x1, y1 = crop_px
    h, w = frame.shape[:2]
    inside = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    pad = ((max(-y0, 0), max(y1 - h, 0)), (max(-x0, 0), max(x1 - w, 0)), (0, 0))
    return resized(np.pad(inside, pad), width, height)


def resized(picture: Picture, width: int, height: int) -> Picture:
    """A picture at another size: area average where it shrinks, bicubic where it grows."""
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    cv2 = needed("cv2")
    how = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how))
