"""The head model of docs/extend/head.md."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gsth import head, math3d
from gsth.errors import InputError
from gsth.head import JOINTS
from gsth.types import Identity, Motion


def test_the_egg_is_a_head_like_any_other(example) -> None:
    example("head", "egg")
    model = head.load("egg")
    assert head.load(model.id).id == model.id
    corners = model.template[model.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = corners.mean(1) - torch.tensor((0.0, -0.15, 0.0))
    assert bool(((normals * outwards).sum(1) > 0).all()), "triangles must be counter-clockwise seen from outside"

    shaped = model.shaped(Identity(model.id, torch.zeros(1)))
    expr = torch.tensor(((0.0, 0.0), (1.0, 0.0), (0.0, 0.0)))
    joints = math3d.quat_identity(3, len(JOINTS))
    joints[2, JOINTS.index("head")] = math3d.rotvec_to_quat(torch.tensor((0.0, 0.5, 0.0)))
    place = torch.cat((math3d.quat_identity(3), torch.tensor((0.0, 0.1, 0.6)).expand(3, 3)), 1)
    motion = Motion(model.id, 25.0, expr, joints, place)
    rest, opened, turned = shaped.posed(motion).verts
    below = model.template[:, 1] > -0.15 + 1e-4
    assert bool((opened[below, 1] > rest[below, 1]).all()) and torch.equal(opened[~below], rest[~below])
    torch.testing.assert_close(turned[:, 1], rest[:, 1])
    assert float((turned - rest).norm(dim=1).max()) > 0.04
    front = model.landmarks(rest[None])[0]
    assert front.shape == (478, 3) and bool((front[:, 2] < 0.6).all())


def test_eggs_of_other_settings_do_not_share_motions(example) -> None:
    egg = example("head", "egg")
    model, finer = egg.Config().build(), egg.Config(rings=30).build()
    assert egg.Config().build().id == model.id != finer.id
    with pytest.raises(InputError, match="egg 1"):
        finer.shaped(Identity(model.id, torch.zeros(1)))
    with pytest.raises(InputError, match="installed is"):
        example("head", "egg")
        head.load(dataclasses.replace(model.id, digest="0" * 16))
