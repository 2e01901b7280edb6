"""The square of the clip that training sees: one for the whole clip, around head and shoulders."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from gsth.track import _points
from gsth.types import Cameras

SIDE_IN_HEADS = 3.0
"""Side of the crop in head heights: head, neck, shoulders, and room to move."""
HEAD_PER_FACE = 1.4
"""Height of a head with hair over the distance from the top of the forehead to the chin."""
ROOM_ABOVE = 0.3
"""Room above the highest head, in head heights."""


@dataclass(frozen=True)
class Crop:
    """A square of the clip, brought to a size; may reach past the frame, which is black there."""

    x0: int
    y0: int
    side: int
    size: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in clip px."""
        return self.x0, self.y0, self.x0 + self.side, self.y0 + self.side

    @property
    def scale(self) -> float:
        """Crop px for each clip px."""
        return self.size / self.side

    def points(self, points: np.ndarray) -> np.ndarray:
        """Clip px to crop px, [... 2]; pixel (i, j) covers [i, i + 1) in both, so no half pixel is lost."""
        return ((points - np.array((self.x0, self.y0))) * self.scale).astype(np.float32)

    def image(self, frame: np.ndarray) -> np.ndarray:
        """The picture [size size 3] inside the crop: area average when it shrinks, Lanczos when it grows."""
        h, w = frame.shape[:2]
        x0, y0, x1, y1 = self.box
        inside = frame[max(y0, 0) : min(y1, h), max(x0, 0) : min(x1, w)]
        edges = (max(-y0, 0), max(y1 - h, 0), max(-x0, 0), max(x1 - w, 0))
        square = cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT) if any(edges) else inside
        if self.side == self.size:
            return np.ascontiguousarray(square)
        how = cv2.INTER_AREA if self.side > self.size else cv2.INTER_LANCZOS4
        return cv2.resize(square, (self.size, self.size), interpolation=how)

    def cameras(self, focal_px: float, width: int, height: int) -> Cameras:
        """The crop's camera: focal length in clip px, principal point in the middle of the whole frame."""
        k = torch.eye(3)
        k[0, 0] = k[1, 1] = focal_px * self.scale
        k[0, 2], k[1, 2] = ((width / 2 - self.x0) * self.scale, (height / 2 - self.y0) * self.scale)
        return Cameras(viewmats=torch.eye(4)[None], Ks=k[None], width=self.size, height=self.size)


def choose(points: np.ndarray, width: int, height: int, size: int) -> Crop:
    """The crop for face landmarks [t 478 2] of a clip of width x height px.

    As large as ``SIDE_IN_HEADS`` asks, no larger than the frame unless the face's own range needs more, and moved to
    lie inside the frame.
    """
    face = np.median(np.linalg.norm(points[:, _points.CHIN] - points[:, _points.FOREHEAD], axis=-1))
    head = HEAD_PER_FACE * float(face)
    low, high = np.clip(points.min((0, 1)), 0, (width, height)), np.clip(points.max((0, 1)), 0, (width, height))
    side = max(min(SIDE_IN_HEADS * head, width, height), float((high - low).max()))
    side = max(16, 2 * round(side / 2))
    top = low[1] - (HEAD_PER_FACE - 1) * float(face) - ROOM_ABOVE * head
    x0, y0 = (low[0] + high[0] - side) / 2, top
    return Crop(_inside(x0, side, width), _inside(y0, side, height), side, size)


def _inside(start: float, side: int, limit: int) -> int:
    """Moved to lie within 0 and limit where it can, else centred on it."""
    return round(min(max(start, 0), limit - side)) if side <= limit else round((limit - side) / 2)
