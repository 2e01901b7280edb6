"""The photometric stage finds motion that pictures show and landmarks miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from gsth import head, math3d
from gsth.errors import DivergedError
from gsth.head import HeadModel, _raster
from gsth.track import _gauss, _photo, _points
from gsth.track._fit import Fit, Observed
from gsth.track._photo import Photometric, Round
from gsth.track._rig import LandmarkRig, Pose
from gsth.types import Motion, Step

FRAMES, TRAIN, SIZE, FOCAL = 14, 10, 128, 260.0
BRIEF = (Round(64, 0, 2), Round(128, 1, 0), Round(128, 0, 2))


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn head, what moved it, and a landmark fit that is wrong in every frame by a little."""

    fit: Fit
    images: np.ndarray
    truth: Pose
    wrong: Pose


def drawn(model: HeadModel, pose: Pose) -> np.ndarray:
    """Pictures of the mean head, painted in soft blotches and lit from the left, over grey [t h w 3] uint8."""
    at = model.template * 160
    paint = 0.5 + 0.15 * torch.stack([(at @ torch.tensor(d)).sin() for d in ((1.0, 2.0, 0.3), (-1.7, 1.1, 0.8))]).sum(0)
    rig = LandmarkRig.of(model)
    verts = model.shaped(_identity(model)).posed(rig.motion(pose, 25.0)).verts
    k = np.array(((FOCAL, 0, SIZE / 2), (0, FOCAL, SIZE / 2), (0, 0, 1)))
    out = np.full((len(verts), SIZE, SIZE, 3), 90, np.uint8)
    for i, v in enumerate(verts.numpy()):
        hits = _raster.rasterize(v, model.faces.numpy(), k, (SIZE, SIZE))
        seen = hits.face_ids >= 0
        corner = model.faces.numpy()[hits.face_ids[seen]]
        colour = (paint.numpy()[corner] * hits.bary[seen]).sum(1)
        normal = np.cross(v[corner[:, 1]] - v[corner[:, 0]], v[corner[:, 2]] - v[corner[:, 0]])
        light = 0.9 - 0.25 * normal[:, 0] / np.linalg.norm(normal, axis=1).clip(1e-12)
        out[i][seen] = (255 * colour * light).clip(0, 255)[:, None]
    return out


def _identity(model: HeadModel) -> _photo.Identity:
    return _photo.Identity(model.id, torch.zeros(len(model.shape_basis)))


def scene() -> Scene:
    """Made anew for every test that changes it."""
    model, g = head.load(), torch.Generator().manual_seed(0)
    t = torch.arange(float(FRAMES))
    pose = Pose.at(math3d.quat_identity(FRAMES), torch.tensor((0.0, 0.1, 0.7)).expand(FRAMES, 3), 52)
    pose.head = torch.stack((0.08 * (t / 3).sin(), 0.3 * (t / 4).sin(), 0 * t), 1)
    pose.expr[:, model.expression_names.index("jawOpen")] = 0.3 + 0.3 * (t / 2).sin()
    wrong = pose.take(torch.arange(FRAMES))
    noise = 0.02 * torch.randn(FRAMES, 3, generator=g)
    wrong.head = wrong.head + noise - noise.mean(0)
    wrong.expr = (wrong.expr + 0.1 * torch.randn(FRAMES, 52, generator=g)).clamp(0, 1)
    xyz = LandmarkRig.of(model).points(wrong, torch.zeros(len(model.shape_basis)), torch.zeros(_points.COUNT, 3))
    px = xyz[..., :2] / xyz[..., 2:] * FOCAL + SIZE / 2
    observed = Observed(
        points=px[:, : _points.COUNT],
        found=torch.ones(FRAMES, dtype=torch.bool),
        shoulders=torch.cat((px[:, _points.COUNT :], torch.ones(FRAMES, 2, 1)), -1),
        principal=torch.full((2,), SIZE / 2),
        focal=FOCAL,
        frame_side=float(SIZE),
        fps=25.0,
    )
    fit = Fit(model, observed, TRAIN)
    fit.pose = wrong
    return Scene(fit, drawn(model, pose), pose, wrong)


@pytest.fixture(scope="module")
def made() -> Scene:
    """Not to be changed."""
    return scene()


@pytest.fixture(scope="module", autouse=True)
def _little_trust() -> Iterator[None]:
    """These landmarks are all wrong the same way, as a detector's are not: they get little weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_photo, "LANDMARK_PCT", 12.0)
        yield


def refined(made: Scene, rounds: tuple[Round, ...] = BRIEF) -> Photometric:
    """The stage, run."""
    stage = Photometric(made.fit, made.images)
    for _ in stage.run(rounds):
        pass
    return stage


@pytest.fixture(scope="module")
def stage(made: Scene) -> Photometric:
    """The stage on the unchanged scene."""
    return refined(made)


def off(motion: Motion, truth: Motion) -> float:
    """Mean error of the skull's rotation less its mean, degrees."""
    q = [
        math3d.quat_mul(math3d.quat_mul(m.T_world_head[:, :4], m.joints[:, 1]), m.joints[:, 2]) for m in (truth, motion)
    ]
    turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(q[0]), q[1]))
    return float((turn - turn.mean(0)).norm(dim=1).mean().rad2deg())


def test_motion_comes_closer_than_the_landmarks_that_were_wrong(made: Scene, stage: Photometric) -> None:
    truth, wrong = (made.fit.rig.motion(pose, 25.0) for pose in (made.truth, made.wrong))
    before, after = off(wrong, truth), off(stage.result().motion, truth)
    assert before > 1.0 and after < 0.5 * before
    assert (stage.state.expr - truth.expr).abs().mean() < 0.8 * (wrong.expr - truth.expr).abs().mean()
    jaw = made.fit.head.expression_names.index("jawOpen")
    pair = torch.stack((stage.result().motion.expr[:, jaw], made.truth.expr[:, jaw]))
    assert torch.corrcoef(pair)[0, 1] > 0.97


def test_texture_explains_the_pictures(made: Scene, stage: Photometric) -> None:
    frames = torch.arange(TRAIN)
    pictures = _photo._pictures(made.images, frames, SIZE)
    sight = stage._see(stage.state.take(frames), pictures, stage._normals())
    drawn = stage.texture * stage._shading(sight.normal)
    w = sight.weight
    away = (w * (sight.value - drawn).square()).sum() / w.sum()
    mean = (w * sight.value).sum() / w.sum()
    assert away < 0.2 * (w * (sight.value - mean).square()).sum() / w.sum()
    assert 100 < (w.sum(0) > 1).sum() < len(stage.texture), "the back of the head is not seen"


def test_held_out_frames_do_not_touch_identity_texture_or_camera(stage: Photometric) -> None:
    other = scene()
    other.images[TRAIN:] = 255 - other.images[TRAIN:]
    changed = refined(other)
    assert stage.who.abs().max() > 0.01
    for name in ("who", "texture", "light", "focal"):
        assert torch.equal(getattr(changed, name), getattr(stage, name)), name
    assert not torch.equal(changed.state.expr[TRAIN:], stage.state.expr[TRAIN:])


def test_pictures_of_lost_frames_do_not_count(made: Scene) -> None:
    states = []
    for shade in (0, 255):
        lost = scene()
        found = lost.fit.observed.found.clone()
        found[4] = False
        lost.fit.observed = replace(lost.fit.observed, found=found)
        lost.images[4] = shade
        states.append(refined(lost, (Round(128, 0, 2),)).state)
    for name, value in vars(states[0]).items():
        assert torch.equal(value, getattr(states[1], name)), name
    start = math3d.rotvec_to_quat(made.wrong.head)
    assert not torch.allclose(states[0].joints[5, 2], start[5], atol=1e-3)


def test_steadiness_calms_noise_and_lets_a_blink_stand() -> None:
    still = scene()
    stage = Photometric(still.fit, still.images)
    frames = torch.arange(FRAMES)
    flat = stage.state.take(frames)
    flat.expr[:], flat.torso[:], flat.joints[:] = 0.2, flat.torso[:1], flat.joints[:1]
    flat.expr[3] += 0.02
    flat.expr[7] = 1.0
    stage.state = flat
    precision, pull = stage._steadiness(frames, flat)
    blink = _gauss.POSE
    assert pull[3, blink] > 0.2 * stage._steady[blink] * 0.02, "noise is pulled back"
    assert precision[7, blink] < 0.02 * stage._steady[blink], "a jump is let be"
    assert precision[0, blink] == stage._steady[blink]


def test_progress_and_outcome_are_finite(made: Scene) -> None:
    stage = Photometric(made.fit, made.images)
    events = [e for e in stage.run(BRIEF[:2]) if isinstance(e, Step)]
    assert events[-1].done == events[-1].total == FRAMES
    result = stage.result()
    assert result.identity.offsets is not None and torch.isfinite(result.identity.offsets).all()
    assert ((result.motion.expr >= 0) & (result.motion.expr <= 1)).all()


def test_not_finite_is_said() -> None:
    bad = scene()
    stage = Photometric(bad.fit, bad.images)
    stage.state.torso[3] = float("nan")
    with pytest.raises(DivergedError, match="photometric"):
        list(stage.run(BRIEF[:1]))


def test_the_lens_stays_that_of_the_landmark_fit() -> None:
    far = scene()
    far.fit.log_focal = torch.tensor(1.2 * FOCAL).log()
    far.fit.pose.place[:, 2] *= 1.2
    stage = Photometric(far.fit, far.images)
    frames = torch.arange(TRAIN)
    stage._learn(frames, SIZE)
    depth = stage.state.torso[:, 6].clone()
    stage._identity_step(frames, SIZE)
    assert stage.who.abs().max() > 0.01
    assert stage.result().focal == pytest.approx(1.2 * FOCAL)
    torch.testing.assert_close(stage.anchor.torso[:, 6], depth, rtol=0, atol=0)
    torch.testing.assert_close(stage.state.torso[TRAIN:, 6], depth[TRAIN:], rtol=0, atol=0)
    assert not torch.equal(stage.state.torso[:TRAIN, 6], depth[:TRAIN]), "keyframes move with identity"
