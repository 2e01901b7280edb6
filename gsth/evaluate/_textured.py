"""A baseline: the tracked head mesh with colours taken from training frames, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gsth import math3d
from gsth.head import _raster
from gsth.types import Motion

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.metrics import Picture

HIDDEN = ("drape", "hair_cap")
"""Carriers of splats that nothing draws."""
SLACK_M = 0.003
"""A vertex this far behind the surface that is seen in its pixel still belongs to it."""


class TexturedMesh:
    """Averages a colour for every vertex over the training frames in which it is seen."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        parts = avatar.head.parts
        hidden = torch.cat([torch.zeros(0, dtype=torch.int64), *(parts[name] for name in HIDDEN if name in parts)])
        kept = torch.ones(len(avatar.head.faces), dtype=torch.bool)
        kept[hidden] = False
        self._faces = avatar.head.faces[kept].numpy()
        count = len(avatar.head.template)
        self._sum, self._seen = np.zeros((count, 3)), np.zeros(count)

    def learn(self, motion: Motion, t: int, picture: Picture) -> None:
        """Take the colours of one training frame."""
        verts, pixels, hits = self._drawn(motion, t)
        h, w = picture.shape[:2]
        x, y = np.floor(pixels).astype(int).T
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        at = np.flatnonzero(inside)
        at = at[verts[at, 2] <= hits.depth[y[at], x[at]] + SLACK_M]
        self._sum[at] += picture[y[at], x[at]]
        self._seen[at] += 1

    def draw(self, motion: Motion, t: int) -> Picture:
        """The mesh in one frame over the avatar's background, uint8 [h w 3]. Vertices never seen are mid grey."""
        colours = np.where(self._seen[:, None] > 0, self._sum / np.maximum(self._seen, 1)[:, None], 127.5)
        _, _, hits = self._drawn(motion, t)
        background = (self._avatar.background() * 255).numpy()
        picture = np.broadcast_to(background, (*hits.face_ids.shape, 3)).copy()
        covered = hits.face_ids >= 0
        corners = colours[self._faces[hits.face_ids[covered]]]
        picture[covered] = (corners * hits.bary[covered][..., None]).sum(1)
        return np.asarray(picture.round().clip(0, 255).astype(np.uint8))

    def _drawn(self, motion: Motion, t: int) -> tuple[NDArray[np.float32], NDArray[np.float32], _raster.Hits]:
        """Vertices in the camera's frame [v 3], their pixels [v 2], and what is seen where."""
        cameras = self._avatar.cameras
        verts = self._avatar.shaped.posed(motion[t]).verts
        verts = verts @ cameras.viewmats[0, :3, :3].T + cameras.viewmats[0, :3, 3]
        pixels = math3d.project(verts, cameras.Ks[0])[0].numpy()
        points = verts[0].numpy()
        return (
            points,
            pixels,
            _raster.rasterize(points, self._faces, cameras.Ks[0].numpy(), (cameras.height, cameras.width)),
        )
