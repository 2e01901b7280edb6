"""Several clips of one person: the made-up ball's clip in two, the second part by another lens and in another light."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import artifacts, math3d, render
from gsth.avatar import Avatar, AvatarConfig, DensityConfig, train
from gsth.avatar._grade import in_one_light
from gsth.avatar._reel import Reel
from gsth.errors import InputError
from gsth.head import HeadModel
from gsth.types import HeadId, Motion, Saved, Splats, Track

CONFIG = AvatarConfig(
    steps=60, splats=400, max_splats=500, correctives=2, checkpoint_every=30, density=DensityConfig(every=20)
)
OWN = 6
"""Frames of the first clip; one less is trained on."""
GAIN, BIAS = torch.tensor((0.8, 0.7, 0.6)), 0.05
ZOOM = 1.3


def part(track: Track, rows: slice) -> Track:
    """Some frames of a track as a track."""
    names = ("frame_ids", "landmarks_px", "found", "error_pct", "images", "mattes", "motion")
    return track.replace(**{n: getattr(track, n)[rows] for n in names})


@pytest.fixture(scope="module")
def own(ball_track: Track) -> Track:
    return part(ball_track, slice(OWN))


@pytest.fixture(scope="module")
def other(ball_track: Track) -> Track:
    """The rest, by a longer lens, before a dark wall, in warmer and dimmer light."""
    track = part(ball_track, slice(OWN, None))
    K = track.cameras.Ks.clone()
    K[:, :2, :2] *= ZOOM
    size = track.cameras.width
    rays = (torch.arange(size) + 0.5 - size / 2) / ZOOM + size / 2
    near = rays.floor().long().clamp(0, size - 1)
    lit = track.images[:, near][:, :, near] / 255 * GAIN.numpy() + BIAS
    mattes = track.mattes[:, near][:, :, near]
    dark = torch.full_like(track.plate, 0.1)  # type: ignore[arg-type]
    images = np.where(mattes[..., None] > 127, lit, 0.1)
    return track.replace(
        cameras=dataclasses.replace(track.cameras, Ks=K),
        images=(images.clip(0, 1) * 255).round().astype(np.uint8),
        mattes=mattes,
        plate=dark,
        landmarks_px=(track.landmarks_px - size / 2) * ZOOM + size / 2,
    )


def psnr(splats: Splats, track: Track, row: int, light: torch.Tensor) -> float:
    """Of splats in one frame of a track, whose pictures are brought to their light by gain and bias [2 3]."""
    background = track.plate * light[0] + light[1]
    drawn = render.render(splats, track.cameras, background=background).rgb[0]
    truth = torch.from_numpy(track.images[row] / 255).float() * light[0] + light[1]
    return float(-10 * (drawn - truth).square().mean().log10())


def test_a_frame_is_found_by_its_number(own: Track, other: Track) -> None:
    reel = Reel.of(own, OWN - 1, [other])
    assert reel.learned.tolist() == [*range(OWN - 1), *range(OWN, 10)]
    assert reel.at(OWN - 1) == (0, OWN - 1) and reel.at(OWN) == (1, 0)
    assert torch.equal(reel.motion.expr[OWN:], other.motion.expr) and torch.equal(reel.K(9), other.cameras.Ks[0])
    assert torch.equal(reel.matte(7), torch.from_numpy(other.mattes[1]))
    assert torch.equal(reel.landmarks(7), other.landmarks_px[1])
    blind = other.replace(found=torch.zeros_like(other.found))
    assert Reel.of(own, OWN, [blind]).usable.tolist() == [*range(OWN)]


def test_the_light_of_a_further_clip_is_found(own: Track, other: Track, ball: HeadModel) -> None:
    gain, bias = in_one_light(Reel.of(own, OWN, [other]), ball).grades[1]
    # What brings the other light back.
    assert (gain * GAIN - 1).abs().max() < 0.1 and (gain * BIAS + bias).abs().max() < 0.05


def test_a_clip_that_shares_too_little_skin_keeps_its_colours(own: Track, other: Track, ball: HeadModel) -> None:
    nobody = other.replace(mattes=other.mattes * 0)
    assert torch.equal(in_one_light(Reel.of(own, OWN, [nobody]), ball).grades[1], Reel.of(own, OWN).grades[0])


@pytest.fixture(scope="module")
def made(own: Track, other: Track, tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    *_, done = train(own, CONFIG, tmp_path_factory.mktemp("two"), OWN - 1, more=[other])
    return Avatar.load(done.path)


def test_both_clips_are_learned(made: Avatar, own: Track, other: Track, ball: HeadModel, tmp_path: Path) -> None:
    *_, done = train(own, CONFIG, tmp_path, OWN - 1)
    alone = Avatar.load(done.path)
    light = in_one_light(Reel.of(own, OWN - 1, [other]), ball).grades[1]
    shown = [np.mean([psnr(a.pose(other.motion[i]), other, i, light) for i in range(4)]) for a in (made, alone)]
    assert shown[0] > shown[1] + 1.5
    plain = torch.tensor(((1.0,), (0.0,)))
    kept = [np.mean([psnr(a.pose(own.motion[i]), own, i, plain) for i in range(OWN - 1)]) for a in (made, alone)]
    assert kept[0] > kept[1] - 1.25


def test_the_avatar_keeps_the_first_clip(made: Avatar, own: Track, other: Track) -> None:
    assert len(made.motion) == OWN and made.source.train_frames == OWN - 1
    assert torch.equal(made.cameras.Ks, own.cameras.Ks)
    torch.testing.assert_close(made.plate, own.plate, atol=0.5 / 255, rtol=0)
    (told,) = made.meta["more_clips"]
    assert told == {"name": "ball.mp4", "sha256": artifacts.sha256(other.clip.path), "frames": 4}
    yaw = math3d.quat_to_rotvec(torch.cat((own.motion.joints[: OWN - 1, 2], other.motion.joints[:, 2])))[:, 1]
    views = torch.tensor(made.meta["trained_views"])
    # The head turns to its left, so the camera goes to its right.
    assert (-views[:, 0].max(), -views[:, 0].min()) == pytest.approx(
        (float(yaw.min().rad2deg()), float(yaw.max().rad2deg())), abs=1.5
    )
    low, high = made.meta["trained_range"]["yaw_deg"]
    assert (low, high) == pytest.approx((float(yaw.min().rad2deg()), float(yaw.max().rad2deg())), abs=0.01)


def test_killed_training_on_two_clips_ends_the_same(made: Avatar, own: Track, other: Track, tmp_path: Path) -> None:
    for event in train(own, CONFIG, tmp_path, OWN - 1, more=[other]):
        if isinstance(event, Saved):
            break
    *_, done = train(own, CONFIG, tmp_path, OWN - 1, more=[other])
    again = Avatar.load(done.path)
    torch.testing.assert_close(again.splats.means_tri, made.splats.means_tri, rtol=0, atol=0)
    torch.testing.assert_close(again.motion.expr, made.motion.expr, rtol=0, atol=0)


def test_what_does_not_go_together_is_refused(own: Track, other: Track) -> None:
    large = other.replace(cameras=dataclasses.replace(other.cameras, width=64, height=64))
    with pytest.raises(InputError, match="tracked at 64 x 64 px, .* at 48 x 48 px; track them at one size"):
        Reel.of(own, OWN, [large])
    wide = other.replace(identity=other.identity.replace(shape=torch.ones(1)))
    with pytest.raises(InputError, match="tracked as somebody else"):
        Reel.of(own, OWN, [wide])
    strange = HeadId("other", "1", "1" * 64)
    moved = Motion(strange, 25.0, other.motion.expr, other.motion.joints, other.motion.T_world_head)
    with pytest.raises(InputError, match="tracked with head other"):
        Reel.of(own, OWN, [other.replace(identity=other.identity.replace(head=strange), motion=moved)])
