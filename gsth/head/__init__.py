"""Head models: coefficients in, posed meshes out.

A head model is a linear shape and expression space on one mesh, a short joint chain and a landmark embedding.
Model frame: house axes (x right, y down, z forward), m, so an unrotated head faces a camera that looks along +z;
the origin is the pivot of the neck joint. To add one: a file in this room with a frozen ``Config`` whose
``build()`` returns a ``HeadModel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gsth.errors import InputError
from gsth.head import _lbs
from gsth.types import HeadId, Identity, Mesh, Motion

JOINTS = ("root", "neck", "head", "eye_l", "eye_r")
"""Joint order of every head model. Root turns torso and all; left and right are the person's own."""
PARENTS = (-1, 0, 1, 2, 2)


@dataclass(frozen=True, eq=False)
class HeadModel:
    """The arrays of a head model; stateless, float32, on any device."""

    id: HeadId
    template: Tensor
    """Neutral mean vertices [v 3]."""
    faces: Tensor
    """[f 3], int64, counter-clockwise seen from outside."""
    uvs: Tensor
    """Texture coordinates of each vertex, 0 to 1, v down, [v 2]."""
    shape_basis: Tensor
    """Vertex offset for one standard deviation of each identity coefficient, m, [s v 3]."""
    expr_basis: Tensor
    """Vertex offset at full activation of each expression, m, [e v 3]."""
    weights: Tensor
    """Skinning weights, rows sum to 1, [v j]."""
    pivots: Tensor
    """Joint centres of the mean head, [j 3]."""
    pivot_basis: Tensor
    """Shift of the joint centres for each identity coefficient, [s j 3]."""
    expression_names: tuple[str, ...]
    parts: Mapping[str, Tensor]
    """Named regions: triangle indices, int64. A triangle may lie in several."""
    landmark_faces: Tensor
    """Triangle under each of the 478 MediaPipe landmarks, int64, [l]."""
    landmark_bary: Tensor
    """Barycentric weights in that triangle, [l 3]."""

    def shaped(self, identity: Identity) -> ShapedHead:
        """Fix who it is. Raises InputError where the identity belongs to another head model."""
        if identity.head != self.id:
            raise InputError(f"this identity is for head {identity.head}, the head model is {self.id}; track again")
        rest = self.template + torch.einsum("s,svc->vc", identity.shape, self.shape_basis)
        if identity.offsets is not None:
            rest = rest + identity.offsets
        pivots = self.pivots + torch.einsum("s,sjc->jc", identity.shape, self.pivot_basis)
        return ShapedHead(self, rest, pivots)

    def to(self, device: torch.device | str) -> HeadModel:
        """The same arrays on a device."""
        moved = {f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, parts={name: ids.to(device) for name, ids in self.parts.items()}, **moved)

    def subset(self, vertex_ids: Tensor) -> HeadModel:
        """The same head on some vertices only, without faces (for fitting landmarks fast)."""
        none = self.faces.new_zeros(0)
        return replace(
            self,
            template=self.template[vertex_ids],
            faces=none.reshape(0, 3),
            uvs=self.uvs[vertex_ids],
            shape_basis=self.shape_basis[:, vertex_ids],
            expr_basis=self.expr_basis[:, vertex_ids],
            weights=self.weights[vertex_ids],
            parts={},
            landmark_faces=none,
            landmark_bary=self.landmark_bary[:0],
        )

    def landmarks(self, verts: Tensor) -> Tensor:
        """Landmark positions [t l 3] on vertices [t v 3]."""
        corners = verts[:, self.faces[self.landmark_faces]]
        return (corners * self.landmark_bary[..., None]).sum(-2)


@dataclass(frozen=True, eq=False)
class ShapedHead:
    """One person's head, ready to move."""

    model: HeadModel
    rest: Tensor
    """Neutral vertices [v 3], model frame."""
    pivots: Tensor
    """[j 3]."""

    def to(self, device: torch.device | str) -> ShapedHead:
        """The same on a device."""
        return ShapedHead(self.model.to(device), self.rest.to(device), self.pivots.to(device))

    def posed(self, motion: Motion) -> Mesh:
        """Vertices of every frame, differentiable in all of the motion."""
        if motion.head != self.model.id:
            raise InputError(
                f"this motion is for head {motion.head}, the avatar stands on {self.model.id}; "
                f"track the clip again with that head, or drive it from audio"
            )
        rest = self.rest + torch.einsum("te,evc->tvc", motion.expr, self.model.expr_basis)
        verts = _lbs.skin(rest, self.model.weights, self.pivots, PARENTS, motion.joints, motion.T_world_head)
        return Mesh(verts=verts, faces=self.model.faces)


def installed(head_id: HeadId) -> bool:
    """Whether ``load`` gives the very head that this id names."""
    try:
        load(head_id)
    except InputError:
        return False
    return True


def load(head_id: str | HeadId = "builtin") -> HeadModel:
    """A head model by name, or the very one that a HeadId names (else InputError says which is installed)."""
    from gsth import registry

    name = head_id if isinstance(head_id, str) else head_id.name
    config = registry.plugin("head", name)
    # a head that comes in several builds finds the one that the data name
    chosen = config.of(head_id) if isinstance(head_id, HeadId) and hasattr(config, "of") else config()
    model: HeadModel = chosen.build()
    if isinstance(head_id, HeadId) and model.id != head_id:
        raise InputError(f"the data stand on head {head_id}, installed is {model.id}; track or train again")
    return model
