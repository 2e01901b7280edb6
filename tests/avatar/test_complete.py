from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gsth import math3d, render
from gsth.avatar import Avatar, AvatarConfig, _cover, _regions, train
from gsth.avatar._complete import settle, trusted, unseen
from gsth.avatar._reel import Reel
from gsth.avatar._views import Views, look, spread_frames
from gsth.head import HeadModel
from gsth.types import Track

CONFIG = AvatarConfig(steps=150, splats=500, max_splats=900, correctives=2, settle=0.4, checkpoint_every=1000)
FRAMES = 8


@pytest.fixture(scope="module")
def made(ball_track: Track, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    *_, done = train(ball_track, CONFIG, tmp_path_factory.mktemp("settled"), FRAMES)
    return Avatar.load(done.path)


def looked(track: Track, head: HeadModel) -> Views:
    """Four training frames."""
    reel = Reel.of(track, FRAMES)
    return look(reel, head, spread_frames(reel, 4))


def depths(avatar: Avatar) -> torch.Tensor:
    """How far each splat lies behind the ball's centre, m, [n]."""
    motion = avatar.motion[0]
    return avatar.pose(motion).means[:, 2] - motion.T_world_head[0, 6]


def test_the_back_is_closed_and_marked_unseen(made: Avatar) -> None:
    assert made.unseen is not None
    assert len(made.splats.face_ids) <= CONFIG.max_splats
    behind = depths(made) > 0.05
    assert behind.sum() > 50 and made.unseen[behind].float().mean() > 0.7
    motion = made.motion[0]
    only = made.pose(motion)
    only = only.replace(opacities=torch.where(behind, only.opacities, 0.0))
    drawn = render.render(only, made.around(motion, math.pi), background=torch.zeros(3))
    rows, cols = torch.meshgrid(*(torch.arange(s) + 0.5 for s in drawn.alpha.shape[1:]), indexing="ij")
    centre = math3d.project(motion.T_world_head[0, 4:], made.cameras.Ks[0])
    disc = (cols - centre[0]).square() + (rows - centre[1]).square() < 12**2
    alpha = drawn.alpha[0][disc]
    assert (alpha > 0.7).float().mean() > 0.7
    # Neither black nor white may have crept in: the mean of the stripes that frames look at squarely.
    colour = drawn.rgb[0][disc].sum(0) / alpha.sum()
    seen = made.head.template[made.head.template[:, 2] < -0.06]
    assert (colour - (0.5 + 0.4 * torch.sin(60 * seen)).mean(0)).abs().max() < 0.1


def test_without_settling_the_back_stays_open(ball_track: Track, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = dataclasses.replace(CONFIG, settle=1.0, steps=20)
    *_, done = train(ball_track, config, tmp_path_factory.mktemp("open"), FRAMES)
    open_ = Avatar.load(done.path)
    assert open_.unseen is None
    assert (depths(open_) > 0.06).sum() == 0


def test_trust_is_for_what_frames_show(made: Avatar, ball_track: Track, ball: HeadModel) -> None:
    trust = trusted(made, look(Reel.of(ball_track, FRAMES), ball, [0, 4]))
    depth = depths(made)
    behind, in_front = depth > 0.06, depth < -0.06
    assert behind.sum() > 20
    assert trust.min() >= 0 and trust.max() <= 1
    assert trust[behind].median() < 0.03 < trust[in_front].median()
    assert made.unseen is not None
    views = looked(ball_track, ball)
    assert unseen(made, views)[behind].float().mean() > 0.7


def test_settling_keeps_what_was_seen(made: Avatar, ball_track: Track, ball: HeadModel) -> None:
    views = looked(ball_track, ball)
    everywhere = torch.ones(len(ball.faces), dtype=torch.bool)
    settled = settle(made, views, everywhere, 50, 0)
    trust = trusted(made, views)
    assert (trust[settled.kept] >= 0.03).all()
    assert len(settled.lent) == len(settled.pull) == len(settled.kept) + len(settled.added.face_ids)
    assert (settled.pull[len(settled.kept) :] == 1).all()
    assert (settled.lent.sum() != 0) and len(settled.added.face_ids) <= 50 + len(trust) - len(settled.kept)


def test_what_shines_at_the_rim_lends_nothing(made: Avatar, ball_track: Track, ball: HeadModel) -> None:
    views = looked(ball_track, ball)
    squarely = views.facing(ball.faces[made.splats.face_ids]).amax(0)
    rim = squarely < 0.5
    assert rim.float().mean() > 0.2 and (squarely > 0.7).sum() > 20
    painted = torch.where(rim, 1.7, -1.0)[:, None, None].expand_as(made.splats.sh)
    shining = dataclasses.replace(made, splats=made.splats.replace(sh=painted.clone()))
    settled = settle(shining, views, torch.ones(len(ball.faces), dtype=torch.bool), 400, 0)
    assert len(settled.added.face_ids) > 50
    assert settled.added.sh.amax() < -0.9


def test_cover_is_worn_where_the_matte_shows_it(ball_track: Track, ball: HeadModel) -> None:
    # A skirt around the lower half, wider than the ball: in the person's outline only where mattes say so.
    low = (ball.template[ball.faces].mean(1)[:, 1] > 0.0).nonzero()[:, 0]
    faces = torch.cat((ball.faces, ball.faces[low] + len(ball.template)))
    wide = ball.template * 1.3
    skirt = torch.arange(len(ball.faces), len(faces))
    dressed = dataclasses.replace(
        ball,
        template=torch.cat((ball.template, wide)),
        faces=faces,
        shape_basis=ball.shape_basis.repeat(1, 2, 1),
        expr_basis=torch.cat((ball.expr_basis, torch.zeros_like(ball.expr_basis)), 1),
        weights=ball.weights.repeat(2, 1),
        parts={**ball.parts, "drape": skirt},
    )
    views = looked(ball_track, dressed)
    assert not _cover.worn(views, dressed, dressed.template)[skirt].float().mean() > 0.5
    whole = ball_track.replace(mattes=ball_track.mattes * 0 + 255)
    views = looked(whole, dressed)
    worn = _cover.worn(views, dressed, dressed.template)
    assert worn[skirt].all() and worn.all()
    assert _regions.cover_faces(dressed).sum() == len(skirt)


def test_hair_is_what_looks_like_the_crown() -> None:
    dark, light, blue = (0.2, 0.1, 0.1), (0.8, 0.6, 0.5), (0.1, 0.1, 0.9)
    colour = torch.tensor([dark, light, blue, (0.3, 0.2, 0.2)])
    crown = torch.tensor([dark, dark, dark, (0.25, 0.1, 0.1), light])
    skin, shirt = torch.tensor([light] * 3 + [dark]), torch.tensor([blue] * 3)
    assert _cover.like_hair(colour, crown, [skin, shirt]).tolist() == [True, False, False, True]
    # Who has no hair looks the same all over; who shows no crown, or nothing else, tells nothing.
    bald = torch.tensor([light, light, (0.7, 0.6, 0.5)])
    assert _cover.like_hair(colour, bald, [skin])[1]
    assert _cover.like_hair(colour, crown[:0], [skin, shirt]).all()
    assert _cover.like_hair(colour, crown, [skin[:0], shirt[:0]]).all()


def test_drape_of_another_colour_is_clothing(ball_track: Track, ball: HeadModel) -> None:
    # All of it is person and hangs together: only the pictures tell a dark head of hair from a white shirt.
    height = ball.template[ball.faces].mean(1)[:, 1]
    cap, drape = (height < -0.03).nonzero()[:, 0], ((height >= -0.03) & (height < 0.06)).nonzero()[:, 0]
    dressed = dataclasses.replace(ball, parts={"hair_cap": cap, "drape": drape})
    K, T = ball_track.cameras.Ks[0], ball_track.motion.T_world_head[:, 4:]
    rows = torch.arange(ball_track.images.shape[1]) + 0.5
    at = (rows - K[1, 2]) / K[1, 1] * T[:, 2:] - T[:, 1:2]  # height of each frame's rows over the ball's middle, m
    white = (at > 0.01)[:, :, None, None].expand(*ball_track.images.shape)
    images = torch.where(white, 240, 20).byte()
    worn = _cover.worn(looked(ball_track.replace(images=images.numpy()), dressed), dressed, dressed.template)
    assert worn[height < -0.01].all() and not worn[drape[height[drape] > 0.035]].any()
    plain = torch.full_like(images, 20).numpy()
    assert _cover.worn(looked(ball_track.replace(images=plain), dressed), dressed, dressed.template).all()


def test_drape_without_roots_is_clothing(ball_track: Track, ball: HeadModel) -> None:
    # Under the ball's outline everything is person; a gap in the drape divides what hangs from what only lies there.
    height = ball.template[ball.faces].mean(1)[:, 1]
    cap = (height < -0.03).nonzero()[:, 0]
    below = (height >= -0.03).nonzero()[:, 0]
    dressed = dataclasses.replace(ball, parts={"hair_cap": cap, "drape": below})
    views = looked(ball_track, dressed)
    assert _cover.worn(views, dressed, dressed.template).all()
    gap = (height >= 0.0) & (height < 0.03)
    torn = dataclasses.replace(ball, parts={"hair_cap": cap, "drape": (~gap & (height >= -0.03)).nonzero()[:, 0]})
    worn = _cover.worn(views, torn, torn.template)
    assert worn[cap].all() and worn[gap].all() and worn[(height >= -0.03) & (height < 0.0)].all()
    assert not worn[height >= 0.03].any()
