from __future__ import annotations

import torch

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
    refinement.anchor()
    torch.testing.assert_close(refinement.values[:6].mean(0), torch.zeros_like(refinement.values[0]), atol=1e-6, rtol=0)
    assert (refinement.values[6:] == 0).all()
