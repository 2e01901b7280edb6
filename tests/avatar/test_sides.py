"""Views from the side of the made-up ball: what lies behind its surface is found, and covered by what lies before."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gsth import math3d
from gsth.avatar._reel import Reel
from gsth.avatar._sides import Side, leak, sides
from gsth.avatar._views import Views, look, spread_frames
from gsth.head import HeadModel, ShapedHead
from gsth.types import Motion, Splats, Track


@pytest.fixture
def shaped(ball: HeadModel, ball_track: Track) -> ShapedHead:
    return ball.shaped(ball_track.identity)


@pytest.fixture
def views(ball: HeadModel, ball_track: Track) -> Views:
    reel = Reel.of(ball_track, 8)
    return look(reel, ball, spread_frames(reel, 4))


def around(shaped: ShapedHead, views: Views, motion: Motion) -> list[Side]:
    return sides(views, motion, shaped, torch.ones(len(shaped.model.faces), dtype=torch.bool))


def painted(shaped: ShapedHead, motion: Motion) -> Splats:
    """A splat on every triangle, large enough to leave no hole."""
    means = shaped.posed(motion).verts[0][shaped.model.faces].mean(1)
    n = len(means)
    return Splats(
        means=means,
        quats=math3d.quat_identity(n),
        scales=torch.full((n, 3), 0.006),
        opacities=torch.full((n,), 0.95),
        sh=torch.zeros(n, 1, 3),
    )


def depth(splats: Splats, side: Side) -> torch.Tensor:
    """Camera z of each splat, less that of the ball's middle, m: negative in front."""
    z = (splats.means @ side.cameras.viewmats[0, :3, :3].T + side.cameras.viewmats[0, :3, 3])[:, 2]
    return z - (z.amin() + z.amax()) / 2


def test_looks_come_from_both_sides_and_know_what_is_hidden(
    shaped: ShapedHead, views: Views, ball_motion: Motion
) -> None:
    found = around(shaped, views, ball_motion)
    assert [s.frame for s in found] == views.frames
    turns = [float(math3d.mat_to_quat(s.cameras.viewmats[0, :3, :3])[2]) for s in found]
    assert min(turns) < -0.1 and max(turns) > 0.1
    for side in found:
        z = depth(painted(shaped, ball_motion[side.frame]), side)
        assert not side.hidden[z < 0].any()
        assert side.hidden[z > 0.07].all()


def test_a_closed_surface_hides_what_is_behind_and_a_hole_shows_it(
    shaped: ShapedHead, views: Views, ball_motion: Motion
) -> None:
    side = around(shaped, views, ball_motion)[0]
    whole = painted(shaped, ball_motion[side.frame])
    z = depth(whole, side)
    hole = (whole.means - whole.means[z.argmin()]).norm(dim=1) < 0.04
    torn = whole.replace(opacities=torch.where(hole, 0.05, whole.opacities))
    half = whole.replace(opacities=torch.where(z < 0, 0.0, whole.opacities))
    shown = [float(leak(s, side.hidden, side.cameras)) for s in (whole, torn, half)]
    # A splat near the outline reaches inwards past what hides its centre: a little shows of any ball.
    assert shown[0] < 0.02 and shown[1] > 3 * shown[0] and shown[2] > 15 * shown[0]


def test_what_is_in_front_closes_the_hole(shaped: ShapedHead, views: Views, ball_motion: Motion) -> None:
    side = around(shaped, views, ball_motion)[0]
    whole = painted(shaped, ball_motion[side.frame])
    z = depth(whole, side)
    hole = (whole.means - whole.means[z.argmin()]).norm(dim=1) < 0.04
    opacities = torch.where(hole, 0.3, whole.opacities).requires_grad_()
    means = whole.means.clone().requires_grad_()
    scales = whole.scales.clone().requires_grad_()
    splats = whole.replace(opacities=opacities, means=means, scales=scales)
    leak(splats, side.hidden, side.cameras).backward()
    assert opacities.grad is not None and means.grad is not None
    assert (opacities.grad[hole] < 0).all()
    assert not opacities.grad[side.hidden].any() and not means.grad[side.hidden].any()
    assert scales.grad is None or not scales.grad.any()


def test_small_splats_grow_and_large_ones_do_not(shaped: ShapedHead, views: Views, ball_motion: Motion) -> None:
    side = around(shaped, views, ball_motion)[0]
    whole = painted(shaped, ball_motion[side.frame])
    small = torch.arange(len(whole.means)) % 2 == 0
    scales = torch.where(small[:, None], 0.003, whole.scales).requires_grad_()
    leak(whole.replace(scales=scales), side.hidden, side.cameras).backward()
    assert scales.grad is not None
    grows = (scales.grad < 0).any(1)
    assert grows[small & ~side.hidden].float().mean() > 0.2
    assert not scales.grad[~small].any() and not scales.grad[side.hidden].any()


def test_a_close_look_shows_one_spot_of_the_mesh_after_the_other(
    shaped: ShapedHead, views: Views, ball_motion: Motion
) -> None:
    side = around(shaped, views, ball_motion)[0]
    near = [side.close(step) for step in range(6)]
    far, K = side.cameras.Ks[0], [c.Ks[0] for c in near]
    assert all(torch.equal(c.viewmats, side.cameras.viewmats) for c in near)
    zoom = float(K[0][0, 0] / far[0, 0])
    assert zoom > 2 and torch.equal(K[0], side.close(0).Ks[0])
    middle = torch.tensor((side.cameras.width / 2, side.cameras.height / 2))
    # Which point of the whole view has come to the middle.
    spots = torch.stack([(middle - k[:2, 2]) / zoom + far[:2, 2] for k in K])
    assert len(spots.round().unique(dim=0)) > 3
    assert (torch.cdist(spots, side.spots) < 1e-3).any(1).all()
    pixels = math3d.project(painted(shaped, ball_motion[side.frame]).means, K[0])
    inside = ((pixels > 0) & (pixels < 2 * middle)).all(1)
    assert 0 < inside.float().mean() < 0.5


def test_open_mouths_and_eyes_may_show_what_is_in_them(
    ball: HeadModel, ball_track: Track, views: Views, ball_motion: Motion
) -> None:
    parts = {"mouth_inner": ball.parts["face"], "scalp": ball.parts["scalp"]}
    open_ = dataclasses.replace(ball, parts=parts).shaped(ball_track.identity)
    closed = ball.shaped(ball_track.identity)
    pairs = list(zip(around(open_, views, ball_motion), around(closed, views, ball_motion), strict=True))
    for a, b in pairs[:2]:  # the nearest look from either side
        assert a.hidden.sum() < 0.8 * b.hidden.sum()
    for a, b in pairs[-2:]:  # from behind, where the scalp hides the face
        assert a.hidden.sum() > 0.9 * b.hidden.sum() > 0
