"""Training frames that everything before and after training looks at, and what the posed mesh covers in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.avatar._avatar import motion_features
from gsth.avatar._reel import Reel, frames_of
from gsth.head import HeadModel
from gsth.head._raster import rasterize

_VIEWS = 16
_BEHIND_M = 0.004
"""What lies no farther than this behind the nearest surface is that surface."""
_SEEN = 0.05
"""A sample that frames show more edge-on than this, all of them together, was not seen."""


@dataclass(frozen=True)
class Views:
    """A few training frames, and what the posed mesh covers there."""

    frames: list[int]
    verts: Tensor
    """[t v 3], camera frame (which is the world)."""
    images: Tensor
    """[t h w 3], 0 to 1."""
    mattes: Tensor
    """bool [t h w]."""
    depth: Tensor
    """z of the nearest surface asked about (see ``with_depth``), inf where none, [t h w]."""
    K: Tensor
    """Intrinsics of each, px, [t 3 3]."""

    def one(self, index: int) -> Views:
        """One of them alone."""
        fields = ("verts", "images", "mattes", "depth", "K")
        part = {name: getattr(self, name)[index : index + 1] for name in fields}
        return replace(self, frames=self.frames[index : index + 1], **part)

    def pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Column and row of points [t n 3], clamped, as a flat index [t n]; and which lie inside."""
        h, w = self.depth.shape[1:]
        px = math3d.project(points, self.K[:, None])
        col, row = px[..., 0].long(), px[..., 1].long()
        inside = (col >= 0) & (col < w) & (row >= 0) & (row < h) & (points[..., 2] > 0.01)
        return row.clamp(0, h - 1) * w + col.clamp(0, w - 1), inside

    def core(self, rim_px: int) -> Tensor:
        """Mattes without a rim of this many pixels (of a picture 256 px wide), bool [t h w]."""
        wide = 2 * max(1, round(rim_px * self.mattes.shape[2] / 256)) + 1
        return torch.nn.functional.max_pool2d((~self.mattes).float()[:, None], wide, 1, wide // 2)[:, 0] == 0

    def uncovered(self, points: Tensor) -> Tensor:
        """Which points [t n 3] lie inside the picture and not behind the surface of ``depth``, bool [t n]."""
        flat, inside = self.pixels(points)
        return inside & (points[..., 2] < self.look_up(self.depth, flat) + _BEHIND_M)

    def of_person(self, points: Tensor) -> Tensor:
        """Which points [t n 3] lie, clamped into the picture, where the matte says person, bool [t n]."""
        return self.look_up(self.mattes, self.pixels(points)[0])

    def facing(self, faces: Tensor) -> Tensor:
        """Cosine between the outward normal of triangles [n 3] and the way to the camera, [t n]."""
        corner = self.verts[:, faces]
        normal = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
        return torch.nn.functional.cosine_similarity(normal, -corner.mean(2), dim=-1)

    def colours(self, faces: Tensor, points: Tensor, inner: bool = False) -> tuple[Tensor, Tensor]:
        """Mean colour of samples over the frames that show them, those that look at them squarely counting most.

        Args:
            faces: Each sample's triangle, [n 3].
            points: Where the samples are, [t n 3].
            inner: Of a loose sheet, the inner side may show, too.

        Returns:
            Colours [n 3], 0 to 1, and which samples were seen at all, bool [n].
        """
        facing = self.facing(faces)
        squarely = facing.abs() if inner else facing.clamp_min(0)
        weight = squarely * (self.uncovered(points) & self.of_person(points))
        pixel = self.look_up(self.images, self.pixels(points)[0])
        total = weight.sum(0)
        return (pixel * weight[..., None]).sum(0) / total.clamp_min(1e-6)[:, None], total > _SEEN

    def look_up(self, values: Tensor, flat: Tensor) -> Tensor:
        """Values [t h w ...] at flat pixel indices [t n]."""
        return torch.stack([v.flatten(0, 1)[i] for v, i in zip(values, flat, strict=True)])


def spread_frames(reel: Reel, count: int) -> list[int]:
    """Training frames that differ most in pose and expression, by farthest-point choice from the first found."""
    usable = reel.usable
    features = motion_features(frames_of(reel.motion, usable))
    features = torch.cat((features[:, :-9], 4 * features[:, -9:]), 1)
    chosen, distance = [0], torch.full((len(usable),), float("inf"))
    while len(chosen) < min(count, len(usable)):
        distance = torch.minimum(distance, (features - features[chosen[-1]]).norm(dim=1))
        chosen.append(int(distance.argmax()))
    return sorted(int(usable[i]) for i in set(chosen))


def looked_at(reel: Reel, head: HeadModel) -> Views:
    """The frames by which is judged what a clip shows: few, and as different as it has them."""
    return look(reel, head, spread_frames(reel, _VIEWS))


def look(reel: Reel, head: HeadModel, frames: list[int]) -> Views:
    """Some frames of a reel, and where the mesh lies in them."""
    verts = head.shaped(reel.identity).posed(frames_of(reel.motion, frames)).verts
    mattes = torch.stack([reel.matte(f) for f in frames]) > 127
    images = torch.stack([reel.image(f) for f in frames])
    K = torch.stack([reel.K(f) for f in frames])
    return Views(frames, verts, images, mattes, torch.full(mattes.shape, float("inf")), K)


def with_depth(views: Views, faces: Tensor) -> Views:
    """The same views with the depth of these triangles [n 3], such as those that carry splats."""
    h, w = views.depth.shape[1:]
    drawn = [rasterize(v.numpy(), faces.numpy(), K.numpy(), (h, w)) for v, K in zip(views.verts, views.K, strict=True)]
    return replace(views, depth=torch.from_numpy(np.stack([d.depth for d in drawn])))
