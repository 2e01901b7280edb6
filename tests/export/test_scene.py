"""The export frame, and view-dependent colour that turns with the scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from export_people import FRAMES

from gsth import math3d
from gsth.avatar import Avatar
from gsth.errors import InputError
from gsth.export import _scene
from gsth.render import torch_ref


@pytest.mark.parametrize("bases", [1, 4, 9, 16])
def test_colour_turns_with_the_scene(bases: int) -> None:
    sh, quat = torch.randn(7, bases, 3), math3d.quat_normalize(torch.randn(4))
    seen_from = torch.nn.functional.normalize(torch.randn(7, 3), dim=-1)
    before = torch_ref.sh_colors(sh, seen_from)
    after = torch_ref.sh_colors(_scene.rotate_sh(sh, quat), math3d.quat_rotate(quat.expand(7, 4), seen_from))
    assert torch.allclose(before, after, atol=1e-5)


def test_mean_placement_ignores_signs_and_noise() -> None:
    turn = math3d.rotvec_to_quat(torch.tensor((0.3, -0.2, 0.5)))
    noise = math3d.rotvec_to_quat(torch.randn(400, 3) * 0.05)
    quats = math3d.quat_mul(turn.expand(400, 4), noise) * torch.where(torch.rand(400, 1) < 0.5, -1.0, 1.0)
    places = torch.cat((quats, torch.randn(400, 3) * 0.01 + torch.tensor((1.0, 2, 3))), 1)
    mean = math3d.mean_placement(places)
    assert math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(turn), mean[:4])).norm() < 0.01
    assert torch.allclose(mean[4:], torch.tensor((1.0, 2, 3)), atol=0.005)


def test_rest_stands_at_the_origin_and_a_frame_keeps_its_way_to_it(person: Avatar) -> None:
    place = _scene.export_from_world(person.motion)
    rest = _scene.rest_motion(person, person.motion)
    stands = math3d.transform_mul(place, rest.T_world_head[0])
    assert torch.allclose(stands, torch.tensor((*_scene.FLIP, 0.0, 0.0, 0.0)), atol=1e-6)
    frames = list(_scene.sequence(person, person.motion))
    assert len(frames) == FRAMES
    one = _scene.still(person, _scene.Still(frame=2))
    assert torch.equal(one.means, frames[2].means) and torch.equal(one.sh, frames[2].sh)
    # rigid: distances between frames are those in the world
    world = [person.pose(person.motion[i]).means for i in (0, 2)]
    apart = (world[0] - world[1]).norm(dim=1)
    assert torch.allclose((frames[0].means - frames[2].means).norm(dim=1), apart, atol=1e-5)


def test_axes_are_their_own_inverse(person: Avatar) -> None:
    still = _scene.still(person, _scene.Still())
    turned = _scene.to_axes(still, "colmap")
    assert np.allclose(turned.means.numpy(), still.means.numpy() * (1, -1, -1), atol=1e-6)
    again = _scene.to_axes(turned, "colmap")
    assert torch.allclose(again.means, still.means, atol=1e-6) and torch.allclose(again.sh, still.sh, atol=1e-5)


def test_what_is_not_there_is_refused(person: Avatar) -> None:
    with pytest.raises(InputError, match="frames 0 to 5"):
        _scene.still(person, _scene.Still(frame=6))
    with pytest.raises(InputError, match="sh-degree is 4"):
        _scene.Still(sh_degree=4)
