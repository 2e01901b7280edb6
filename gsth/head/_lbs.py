"""Linear blend skinning of a head with a short joint chain."""

from __future__ import annotations

import torch
from torch import Tensor

from gsth import math3d


def joint_frames(
    pivots: Tensor, parents: tuple[int, ...], joints: Tensor, T_world_head: Tensor
) -> tuple[Tensor, Tensor]:
    """World rotation [t j 3 3] and centre [t j 3] of every joint; arguments as for ``skin``."""
    rots = math3d.quat_to_mat(joints)
    chain_rot: list[Tensor] = []
    chain_pos: list[Tensor] = []
    for j, parent in enumerate(parents):
        if parent < 0:
            chain_rot.append(rots[:, j])
            chain_pos.append(pivots[j].expand(len(joints), 3))
        else:
            chain_rot.append(chain_rot[parent] @ rots[:, j])
            chain_pos.append(chain_pos[parent] + (chain_rot[parent] @ (pivots[j] - pivots[parent])[:, None])[..., 0])
    world_rot = math3d.quat_to_mat(T_world_head[:, :4])
    rot = world_rot[:, None] @ torch.stack(chain_rot, 1)
    centres = torch.stack(chain_pos, 1) @ world_rot.transpose(1, 2) + T_world_head[:, None, 4:]
    return rot, centres


def blended(weights: Tensor, pivots: Tensor, rot: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation-like matrix [t v 3 3] and shift [t v 3] that carry each vertex from rest into the world."""
    shift = centres - (rot @ pivots[:, :, None])[..., 0]
    mixed = torch.einsum("vj,tjk->tvk", weights, torch.cat((rot.flatten(2), shift), -1))
    return mixed[..., :9].unflatten(-1, (3, 3)), mixed[..., 9:]


def skin(
    rest: Tensor, weights: Tensor, pivots: Tensor, parents: tuple[int, ...], joints: Tensor, T_world_head: Tensor
) -> Tensor:
    """World-frame vertices [t v 3].

    Args:
        rest: Rest-pose vertices with expression, model frame, [t v 3].
        weights: Of each joint on each vertex, rows sum to 1, [v j].
        pivots: Rest-pose joint centres, model frame, [j 3].
        parents: Index of each joint's parent, smaller than its own; -1 for the root.
        joints: Rotations relative to the parent, wxyz, [t j 4].
        T_world_head: Places the model frame, [t 7].
    Source: standard LBS, e.g. Loper et al. 2015 (SMPL), eq. 2-4.
    """
    rot, centres = joint_frames(pivots, parents, joints, T_world_head)
    m, p = blended(weights, pivots, rot, centres)
    return (m @ rest[..., None])[..., 0] + p
