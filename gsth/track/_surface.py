"""The head's surface as the photometric stage sees it: points whose colour is compared, and fields that may bend it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gsth.head import HeadModel

DENSITY = {
    "hair_cap": 0.6, "drape": 0.25, "bust": 0.25, "neck": 0.7, "ears": 0.7,
    "face": 2.0, "nose": 2.5, "brows": 3.0, "lips": 6.0, "lids": 6.0,
}  # fmt: skip
"""Points per area, relative; a triangle takes the largest of its parts: small parts that move much get many."""
HIDDEN = ("mouth_inner", "teeth_upper", "teeth_lower", "tongue", "eye_l", "eye_r", "lashes", "scalp")
"""Parts without points: lids and lips cover and uncover them, or hair lies over them."""
POINTS, SEED = 3000, 0
FIELDS = 60
FIELD_WIDTH, FIELD_SD = 0.022, 0.002
"""Of the free-form fields: reach and standard deviation, m."""
FIELD_END = 1e-6
"""A field ends where it has fallen to this share: denormal numbers further out make products five times slower."""
BENDS = ("face", "ears", "neck", "bust")
OFF_FACE = 0.4
"""How much sparser than on the face the centres of the fields lie elsewhere."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Points on the mesh."""

    model: HeadModel
    """A head model whose vertices are the points."""
    faces: Tensor
    """Triangle of each point [n]."""
    bary: Tensor
    """[n 3]."""

    @classmethod
    def of(cls, head: HeadModel, count: int = POINTS) -> Surface:
        """Area-weighted, seeded; a head without named parts gets its points everywhere."""
        density = torch.zeros(len(head.faces)) if head.parts else torch.ones(len(head.faces))
        for part, value in DENSITY.items():
            if part in head.parts:
                density[head.parts[part]] = density[head.parts[part]].clamp_min(value)
        for part in HIDDEN:
            if part in head.parts:
                density[head.parts[part]] = 0
        corner = head.template[head.faces]
        area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=-1)
        generator = torch.Generator().manual_seed(SEED)
        faces = torch.multinomial(area * density, count, True, generator=generator)
        # square-root warp: uniform over the triangle
        u, v = torch.rand(2, count, generator=generator)
        bary = torch.stack((1 - u.sqrt(), u.sqrt() * (1 - v), u.sqrt() * v), -1)
        ids = head.faces[faces]

        def mixed(field: Tensor) -> Tensor:
            return (field[..., ids, :] * bary[..., None]).sum(-2)

        # skinning weights agree over a triangle to good accuracy, so a mixed vertex moves like the surface point
        model = replace(
            head.subset(ids[:, 0]),
            template=mixed(head.template),
            shape_basis=mixed(head.shape_basis),
            expr_basis=mixed(head.expr_basis),
            weights=mixed(head.weights),
        )
        return cls(model, faces, bary)

    def take(self, points: Tensor) -> Surface:
        """Some of the points, by number or by bool [n]."""
        return Surface(self.model.subset(points), self.faces[points], self.bary[points])

    def normals(self, head: HeadModel, rest: Tensor) -> Tensor:
        """Smooth outward normals of the points [n 3] on neutral vertices [v 3]."""
        corner = rest[head.faces]
        flat = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        smooth = torch.zeros_like(rest)
        for k in range(3):
            smooth.index_add_(0, head.faces[:, k], flat)
        smooth = F.normalize(smooth, dim=-1)
        return F.normalize((smooth[head.faces[self.faces]] * self.bary[..., None]).sum(1), dim=-1)


def widened(head: HeadModel) -> HeadModel:
    """The same head with smooth free-form fields as further identity coefficients, each with a standard normal prior.

    A field moves what lies around one of ``FIELDS`` centres along one axis, by a Gaussian of the distance at rest: a
    Gaussian-process prior on per-vertex offsets, smooth as a Laplacian one. Lips and lids, which lie close together,
    move together, and eyes and teeth with the skin around them.
    A head of which nothing is left to fit (``_known``) stays as it is.
    Source: Lüthi et al. 2018, Gaussian Process Morphable Models, section 3 (low-rank kernel).
    """
    if not len(head.shape_basis):
        return head
    parts = [head.parts[p] for p in BENDS if p in head.parts]
    usable = head.faces[torch.cat(parts) if parts else slice(None)].unique()
    on_face = torch.isin(usable, head.faces[head.parts["face"]]) if "face" in head.parts else torch.ones(len(usable))
    places = head.template[usable]
    weight = torch.where(on_face.bool(), 1.0, OFF_FACE)
    chosen = [int((places - places.mean(0)).norm(dim=1).argmin())]
    distance = torch.full((len(places),), float("inf"))
    while len(chosen) < FIELDS:
        distance = torch.minimum(distance, (places - places[chosen[-1]]).norm(dim=1))
        chosen.append(int((distance * weight).argmax()))
    near = torch.exp(-0.5 * (torch.cdist(head.template, places[chosen]) / FIELD_WIDTH).square())
    near = torch.where(near < FIELD_END, 0.0, near)
    fields = FIELD_SD * torch.einsum("vk,ac->kavc", near, torch.eye(3)).flatten(0, 1)
    still = head.pivot_basis.new_zeros(len(fields), *head.pivot_basis.shape[1:])
    return replace(
        head,
        shape_basis=torch.cat((head.shape_basis, fields)),
        pivot_basis=torch.cat((head.pivot_basis, still)),
    )
