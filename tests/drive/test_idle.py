"""Idle life: blinks, sway and gaze."""

from __future__ import annotations

import pytest
import torch

from gsth import math3d
from gsth.drive._config import IdleConfig
from gsth.drive._idle import Idle, mean_rotation
from gsth.errors import InputError


@pytest.fixture(scope="module")
def made(person):
    return person(torch.zeros(200, 52), 200)


def _idle(made, seed: int = 0, config: IdleConfig | None = None) -> Idle:
    return Idle(made.motion, made.head.expression_names, seed, config or IdleConfig())


def _lids(motion, made) -> torch.Tensor:
    return motion.expr[:, made.head.expression_names.index("eyeBlinkLeft")]


def test_blinks_are_natural(made) -> None:
    idle = _idle(made)
    minutes = 4
    motion = idle.frames(0, minutes * 60 * 50, 50.0, torch.zeros(minutes * 60 * 50, 52))
    lids = _lids(motion, made)
    starts = ((lids[1:] > 0.5) & (lids[:-1] <= 0.5)).nonzero()[:, 0] / 50.0
    assert 10 < len(starts) / minutes < 24
    assert starts.diff().min() > 0.6
    assert lids.max() > 0.99
    # Eyes are more than half shut for about a sixth of a second each.
    assert 0.08 < float((lids > 0.5).float().mean()) * minutes * 60 / len(starts) < 0.3
    right = made.head.expression_names.index("eyeBlinkRight")
    assert torch.equal(motion.expr[:, right], lids)


def test_same_seed_same_life_in_any_pieces(made) -> None:
    whole = _idle(made, 5).frames(0, 300, 25.0, torch.zeros(300, 52))
    idle = _idle(made, 5)
    parts = [idle.frames(a, b - a, 25.0, torch.zeros(b - a, 52)) for a, b in ((0, 7), (7, 100), (100, 300))]
    assert torch.equal(torch.cat([p.expr for p in parts]), whole.expr)
    torch.testing.assert_close(torch.cat([p.joints for p in parts]), whole.joints)
    other = _idle(made, 6).frames(0, 300, 25.0, torch.zeros(300, 52))
    assert not torch.equal(other.joints, whole.joints)


def test_torso_is_still_and_head_stays_in_the_tracked_range(made) -> None:
    idle = _idle(made)
    motion = idle.frames(0, 3000, 25.0, torch.zeros(3000, 52))
    assert torch.equal(motion.T_world_head, motion.T_world_head[:1].expand(3000, 7))
    torch.testing.assert_close(motion.T_world_head[0], made.motion.T_world_head[0])
    mean = mean_rotation(made.motion.joints[:, 2])
    tracked, lived = (
        math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(mean), joints[:, 2])).abs().amax(0)
        for joints in (made.motion.joints, motion.joints)
    )
    assert torch.all(lived <= torch.maximum(tracked, torch.tensor((0.05, 0.05, 0.05))) + 1e-4)
    assert lived.max() > 0.02
    # Smooth: under 0.5 degrees between frames.
    step = math3d.quat_mul(math3d.quat_conj(motion.joints[:-1, 2]), motion.joints[1:, 2])
    assert math3d.quat_to_rotvec(step).norm(dim=-1).max() < 0.009


def test_gaze_holds_while_the_head_sways(made) -> None:
    idle = _idle(made, config=IdleConfig(glance=0, sway=1.0))
    motion = idle.frames(0, 1000, 25.0, torch.zeros(1000, 52))
    skull = math3d.quat_mul(motion.joints[:, 1], motion.joints[:, 2])
    gaze = math3d.quat_rotate(math3d.quat_mul(skull, motion.joints[:, 3]), torch.tensor((0.0, 0, -1)).expand(1000, 3))
    assert (gaze - gaze.mean(0)).norm(dim=-1).max() < 0.01
    assert (math3d.quat_to_rotvec(skull).std(0).max()) > 0.02


def test_all_can_be_switched_off(made) -> None:
    idle = _idle(made, config=IdleConfig(blinks_per_minute=0, sway=0, glance=0))
    motion = idle.frames(0, 500, 25.0, torch.zeros(500, 52))
    assert motion.expr.abs().max() == 0
    assert (motion.joints - motion.joints[:1]).abs().max() < 1e-6


def test_mean_rotation_ignores_signs() -> None:
    q = math3d.rotvec_to_quat(torch.tensor([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, -0.2, 0.0]]))
    torch.testing.assert_close(
        mean_rotation(q * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])), torch.tensor((1.0, 0, 0, 0)), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("field", ["blinks_per_minute", "sway", "glance"])
def test_numbers_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(InputError, match=field):
        IdleConfig(**{field: -1})
