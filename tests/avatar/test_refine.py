from __future__ import annotations

import torch

from gsth import math3d
from gsth.avatar._refine import MotionRefinement
from gsth.head import HeadModel
from gsth.types import Identity, Motion


def test_zero_corrections_change_nothing(ball_motion: Motion) -> None:
    refinement = MotionRefinement.zeros(ball_motion)
    same = refinement.apply(ball_motion[2], refinement.leaf(2))
    torch.testing.assert_close(same.joints, ball_motion[2].joints)
    torch.testing.assert_close(same.T_world_head, ball_motion[2].T_world_head)
    torch.testing.assert_close(same.expr, ball_motion[2].expr)


def test_finds_a_shifted_head(ball: HeadModel, ball_motion: Motion) -> None:
    shaped = ball.shaped(Identity(ball.id, torch.zeros(1)))
    true = ball_motion[4]
    wrong = true.replace(T_world_head=true.T_world_head + torch.tensor((0, 0, 0, 0, 0.004, -0.003, 0)))
    refinement = MotionRefinement.zeros(ball_motion)
    target = shaped.posed(true).verts
    for _ in range(200):
        leaf = refinement.leaf(4)
        error = (shaped.posed(refinement.apply(wrong, leaf)).verts - target).norm(dim=-1).mean()
        error.backward()
        refinement.step(4, leaf.grad)
    assert error < 5e-4


def test_anchor_takes_the_common_part_out(ball_motion: Motion) -> None:
    refinement = MotionRefinement.zeros(ball_motion)
    for frame in range(6):
        gradient = torch.zeros_like(refinement.values[0])
        gradient[3] = -1.0 - frame
        refinement.step(frame, gradient)
    refinement.anchor(ball_motion, slice(None))
    torch.testing.assert_close(refinement.values[:6].mean(0), torch.zeros_like(refinement.values[0]), atol=1e-6, rtol=0)
    assert (refinement.values[6:] == 0).all()


def test_anchor_takes_out_what_the_pose_tells(ball_motion: Motion) -> None:
    # A head that turns to and fro, and corrections of which one half follows the turn, the other something else.
    yaw = torch.linspace(0, 40, 120).sin()
    turn = torch.stack((torch.zeros(120), 0.3 * yaw, torch.zeros(120)), 1)
    joints = ball_motion.joints[:1].repeat(120, 1, 1)
    joints[:, 2] = math3d.rotvec_to_quat(turn)
    still = ball_motion.T_world_head[:1].repeat(120, 1)
    motion = ball_motion.replace(expr=torch.zeros(120, 3), joints=joints, T_world_head=still)
    refinement = MotionRefinement.zeros(motion)
    other = torch.linspace(0, 150, 120).cos()
    refinement.values[:, 4] = 0.5 + 2 * yaw
    refinement.values[:, 5] = other
    refinement.count += 1
    refinement.anchor(motion, slice(None))
    assert refinement.values[:, 4].abs().max() < 1e-4
    assert (refinement.values[:, 5] - other).abs().max() < 0.2
    assert not refinement.values[:, :4].any()


def test_anchor_leaves_corrections_to_clips_too_short_to_tell(ball_motion: Motion) -> None:
    refinement = MotionRefinement.zeros(ball_motion)
    refinement.values[:8, 4] = torch.linspace(-1, 1, 8)
    refinement.count[:8] += 1
    refinement.anchor(ball_motion, slice(None))
    torch.testing.assert_close(refinement.values[:8, 4], torch.linspace(-1, 1, 8))
