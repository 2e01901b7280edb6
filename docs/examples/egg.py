"""A head model: an egg that opens its lower half and raises its brow. Needs nothing but torch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch

from gsth.head import JOINTS, HeadModel
from gsth.types import HeadId

RADIUS_M = 0.1
NECK_M = 0.15
"""How far the head's centre lies above the neck joint, the origin of the model frame."""


@dataclass(frozen=True)
class Config:
    """An egg of this many rings."""

    rings: int = 24
    """Rows of vertices from the crown to the chin."""

    def build(self) -> HeadModel:
        """The head model; equal settings give equal digests, so that motions stay interchangeable."""
        ball, uvs, faces = _ball(self.rings, 2 * self.rings)
        verts = ball * RADIUS_M + torch.tensor((0.0, -NECK_M, 0.0))  # y points down
        front = (ball[faces].mean(1)[:, 2] < 0).nonzero()[:, 0]  # a face looks to -z, at a camera that looks to +z
        low, high = ball[:, 1:2].clamp(min=0), (-ball[:, 1:2]).clamp(min=0)
        weights = torch.zeros(len(verts), len(JOINTS))
        weights[:, JOINTS.index("head")] = 1
        pivots = torch.zeros(len(JOINTS), 3)
        pivots[JOINTS.index("head"), 1] = -NECK_M / 2
        digest = hashlib.sha256(verts.numpy().tobytes() + faces.numpy().tobytes()).hexdigest()[:16]
        return HeadModel(
            id=HeadId("egg", "1", digest),
            template=verts,
            faces=faces,
            uvs=uvs,
            shape_basis=(ball * torch.tensor((0.0, 0.01, 0.0)))[None],  # one coefficient: a longer egg
            expr_basis=torch.stack((low * torch.tensor((0.0, 0.02, 0.0)), high * torch.tensor((0.0, -0.01, 0.0)))),
            weights=weights,
            pivots=pivots,
            pivot_basis=torch.zeros(1, len(JOINTS), 3),
            expression_names=("jawOpen", "browInnerUp"),
            parts={"face": front},
            landmark_faces=front[torch.linspace(0, len(front) - 1, 478).long()],
            landmark_bary=torch.full((478, 3), 1 / 3),
        )


def _ball(rings: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit sphere: vertices [v 3], texture coordinates [v 2], triangles [f 3], counter-clockwise from outside."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rings), torch.linspace(0, 1, columns), indexing="ij")
    down, round_ = v * math.pi, u * 2 * math.pi
    verts = torch.stack((down.sin() * round_.sin(), -down.cos(), down.sin() * round_.cos()), -1).reshape(-1, 3)
    corner = (torch.arange(rings - 1)[:, None] * columns + torch.arange(columns - 1)).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + columns, corner + columns + 1
    faces = torch.cat((torch.stack((a, b, c), 1), torch.stack((b, d, c), 1)))
    area = torch.linalg.cross(verts[faces[:, 1]] - verts[faces[:, 0]], verts[faces[:, 2]] - verts[faces[:, 0]])
    return verts, torch.stack((u, v), -1).reshape(-1, 2), faces[area.norm(dim=1) > 1e-6]  # none at the poles
