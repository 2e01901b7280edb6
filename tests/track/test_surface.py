"""Points lie where they should, and free-form fields are an identity like any other."""

from __future__ import annotations

import pytest
import torch

from gsth import head
from gsth.head import HeadModel
from gsth.track._surface import FIELD_SD, FIELDS, HIDDEN, Surface, widened
from gsth.types import Identity


@pytest.fixture(scope="module")
def wide() -> HeadModel:
    """The built-in head with free-form fields."""
    return widened(head.load())


def test_points_lie_on_the_mesh_and_not_on_hidden_parts(wide: HeadModel) -> None:
    surface = Surface.of(wide, 500)
    want = (wide.template[wide.faces[surface.faces]] * surface.bary[..., None]).sum(1)
    assert torch.allclose(surface.model.template, want, atol=1e-6)
    assert surface.bary.min() >= 0 and torch.allclose(surface.bary.sum(1), torch.ones(500), atol=1e-5)
    assert not torch.isin(surface.faces, torch.cat([wide.parts[p] for p in HIDDEN])).any()
    assert torch.isin(surface.faces, wide.parts["lips"]).sum() > 8
    assert torch.equal(surface.faces, Surface.of(wide, 500).faces)


def test_normals_of_the_face_look_forward(wide: HeadModel) -> None:
    surface = Surface.of(wide, 500)
    normals = surface.normals(wide, wide.template)
    assert torch.allclose(normals.norm(dim=1), torch.ones(500), atol=1e-5)
    front = torch.isin(surface.faces, wide.parts["forehead"])
    assert (normals[front, 2] < -0.1).all() and normals[front, 2].mean() < -0.5


def test_fields_bend_smoothly_and_stay_near(wide: HeadModel) -> None:
    model = head.load()
    fields = wide.shape_basis[len(model.shape_basis) :]
    assert len(fields) == 3 * FIELDS and fields.norm(dim=-1).max() <= FIELD_SD * 1.001
    g = torch.Generator().manual_seed(0)
    who = torch.cat((torch.zeros(len(model.shape_basis)), torch.randn(len(fields), generator=g)))
    bent = torch.einsum("s,svc->vc", who, wide.shape_basis)
    edge = model.faces[model.parts["skin"]][:, :2]
    length = (model.template[edge[:, 0]] - model.template[edge[:, 1]]).norm(dim=1)
    strain = (bent[edge[:, 0]] - bent[edge[:, 1]]).norm(dim=1) / length
    assert bent.norm(dim=1).max() > 0.002 and strain.quantile(0.99) < 0.5, "neighbours move together"


def test_a_wide_identity_equals_shape_and_offsets(wide: HeadModel) -> None:
    model = head.load()
    count = len(model.shape_basis)
    who = 0.5 * torch.randn(len(wide.shape_basis), generator=torch.Generator().manual_seed(1))
    bent = torch.einsum("s,svc->vc", who[count:], wide.shape_basis[count:])
    plain, full = model.shaped(Identity(model.id, who[:count], bent)), wide.shaped(Identity(wide.id, who))
    assert torch.allclose(plain.rest, full.rest, atol=1e-6) and torch.allclose(plain.pivots, full.pivots, atol=1e-7)
