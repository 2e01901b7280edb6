"""The synthetic actor: repeatable, truthful, and a person to a face detector."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import artifacts, media, synth
from gsth.errors import InputError
from gsth.head import _raster
from gsth.math3d import project, quat_mul, quat_to_rotvec
from gsth.types import Cameras, Done, Saved, Step

pytest.importorskip("espeakng_loader", reason="needs the extra 'audio'")

INSIDE = ("mouth_inner", "teeth_upper", "teeth_lower", "tongue")
SMALL = synth.SynthConfig(seconds=0.6, size=96)


@pytest.fixture(scope="module")
def small() -> synth.Actor:
    return synth.actor(SMALL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("film") / "actor.mp4"
    events = list(synth.film(SMALL, out))
    assert [type(e) for e in events] == [Saved] + [Step] * 15 + [Done]
    return out


def test_actor_is_deterministic(small: synth.Actor) -> None:
    again = synth.actor(SMALL)
    assert torch.equal(again.truth.motion.expr, small.truth.motion.expr)
    assert torch.equal(again.truth.motion.joints, small.truth.motion.joints)
    assert np.array_equal(again.sound, small.sound)
    assert np.array_equal(again.frame(3), small.frame(3))


def test_another_motion_takes_the_truth_along(small: synth.Actor) -> None:
    motion, smile = small.truth.motion, small.head.expression_names.index("mouthSmileLeft")
    expr = motion.expr.clone()
    expr[:, smile] = 0.8
    other = small.moving(motion.replace(expr=expr))
    points = small.head.landmarks(small.shaped.posed(other.truth.motion).verts)
    assert torch.allclose(other.truth.landmarks_px, project(points, other.truth.cameras.Ks[0]), atol=1e-2)
    away = (other.truth.landmarks_px - small.truth.landmarks_px)[3].norm(dim=1)
    assert away[291] > 0.5 > 0.05 > away[61]  # the left corner of the mouth, and the right one
    assert np.array_equal(other.sound, small.sound) and other.config == small.config


def test_another_seed_is_another_person(small: synth.Actor) -> None:
    other = synth.actor(synth.SynthConfig(seconds=0.6, size=96, seed=SMALL.seed + 1))
    assert not torch.allclose(other.truth.identity.shape, small.truth.identity.shape)
    assert not torch.allclose(other.truth.motion.joints, small.truth.motion.joints)


def test_clip_has_picture_and_sound_of_the_right_length(clip: Path) -> None:
    found = media.probe(clip)
    assert (found.frames, found.width, found.height, found.fps) == (15, 96, 96, 25)
    sound = media.sound(clip, 16000)
    assert len(sound) / 16000 == pytest.approx(0.6, abs=0.06)
    assert np.abs(sound).max() > 0.05


def test_truth_lies_beside_the_clip(clip: Path, small: synth.Actor) -> None:
    truth = artifacts.load(synth.Truth, synth.truth_folder(clip))
    assert truth.head == small.head.id and len(truth.motion) == 15
    assert torch.equal(truth.motion.expr, small.truth.motion.expr)
    assert torch.equal(truth.identity.offsets, small.truth.identity.offsets)
    points = small.head.landmarks(small.shaped.posed(truth.motion).verts)
    assert torch.allclose(truth.landmarks_px, project(points, truth.cameras.Ks[0]), atol=1e-2)


def test_the_clip_shows_what_frame_draws(clip: Path, small: synth.Actor) -> None:
    shown = next(media.frames(media.probe(clip), 4, 5)).astype(float)
    assert np.abs(shown - small.frame(4)).mean() < 4


def test_drawing_in_threads_leaves_their_number_alone(
    small: synth.Actor, threads: Callable[[int], None], tmp_path: Path
) -> None:
    threads(2)
    for _ in synth.shoot(small, tmp_path / "actor.mp4"):
        pass
    assert torch.get_num_threads() == 2


def test_person_stands_before_the_wall(small: synth.Actor) -> None:
    picture = small.frame(0).astype(int)
    eyes = small.truth.landmarks_px[0, [468, 473]].mean(0).round().long()
    forehead = picture[int(eyes[1]) - 3, int(eyes[0])]
    assert forehead[0] > forehead[2] + 15, "skin is warm"
    assert abs(picture[4, 4] - picture[4, 4].mean()).max() < 25, "the wall is nearly grey"
    shirt = picture[-3, 48]
    assert shirt[2] > shirt[0], "the look 'ash' wears blue"


def test_another_view_shows_the_same_moment(small: synth.Actor) -> None:
    """Truth landmarks, projected by a camera at the side, must lie on the head in that camera's picture."""
    camera = synth.orbit(small.truth.cameras, 0.35)
    assert np.array_equal(small.render_view(2, synth.orbit(small.truth.cameras, 0.0)), small.frame(2))
    side = small.render_view(2, camera)
    assert np.abs(side.astype(int) - small.frame(2)).mean() > 2
    points = small.head.landmarks(small.shaped.posed(small.truth.motion[2]).verts)[0]
    view = camera.viewmats[0]
    tip = project((points @ view[:3, :3].T + view[:3, 3])[4], camera.Ks[0]).round().long()
    wall = small.render_view(2, Cameras(_turned_away(view), camera.Ks, 96, 96))
    assert np.abs(side[tip[1], tip[0]].astype(int) - wall[tip[1], tip[0]]).max() > 20


def _turned_away(view: torch.Tensor) -> torch.Tensor:
    away = view.clone()
    away[:3] *= torch.tensor([[-1.0], [1.0], [-1.0]])
    return away[None]


def test_behaviour_stays_in_its_limits() -> None:
    """Turns of the head, blinks and closed lips, over a whole clip's motion (nothing is drawn)."""
    made = synth.actor()
    motion, names = made.truth.motion, made.head.expression_names
    turn = torch.rad2deg(quat_to_rotvec(quat_mul(motion.joints[:, 1], motion.joints[:, 2]))).abs().amax(0)
    assert len(motion) == 200
    assert 6 < turn[0] < 8.5 and 17 < turn[1] < 20.5 and 4 < turn[2] < 5.5
    assert motion.expr[:, names.index("eyeBlinkLeft")].max() > 0.9
    assert (motion.expr[:, names.index("eyeBlinkLeft")] > 0.5).float().mean() < 0.15
    assert motion.expr[:, names.index("jawOpen")].max() > 0.3
    torso = motion.T_world_head[:, 4:]
    assert (torso - torso.mean(0)).abs().max() < 0.003
    assert len(made.sound) == round(8 * made.sound_rate)


def test_lips_meet_on_the_mesh_at_closures() -> None:
    """Hardly any of the mouth's inside is seen from the front while a p, b or m is held, and much of it otherwise."""
    made = synth.actor()
    head, motion, names = made.head, made.truth.motion, made.head.expression_names
    solid = torch.cat([head.parts[p] for p in ("skin", *INSIDE)]).unique()
    inside = torch.isin(solid, torch.cat([head.parts[p] for p in INSIDE])).numpy()
    faces, lips = head.faces[solid].numpy(), head.faces[head.parts["lips"]].unique()

    def seen(frame: int) -> int:
        still = motion[0].replace(expr=motion.expr[frame : frame + 1])
        verts = made.shaped.posed(still).verts[0]
        centre = verts[lips].mean(0)
        u, v = (100 - 3000 * centre[:2] / centre[2]).tolist()
        K = np.array([[3000, 0, u], [0, 3000, v], [0, 0, 1]])
        ids = _raster.rasterize(verts.numpy(), faces, K, (200, 200)).face_ids
        return int(inside[ids[ids >= 0]].sum())

    gap = motion.expr[:, names.index("jawOpen")] - motion.expr[:, names.index("mouthClose")]
    held = (gap < 1e-6) & (motion.expr[:, names.index("mouthPressLeft")] > 0.2)
    closed = [seen(int(i)) for i in held.nonzero()[:, 0]]
    assert len(closed) >= 8
    assert max(closed) < 0.02 * seen(int(gap.argmax()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (synth.SynthConfig(look="green"), "ash, umber, sand, rose"),
        (synth.SynthConfig(seconds=0), "seconds 0"),
        (synth.SynthConfig(size=4), "size 4"),
    ],
)
def test_what_cannot_be_filmed_is_refused(config: synth.SynthConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        synth.actor(config)


def test_only_mp4_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.mp4"):
        next(synth.film(SMALL, tmp_path / "actor.avi"))
    assert os.listdir(tmp_path) == []


def test_filming_that_is_given_up_leaves_no_clip(tmp_path: Path) -> None:
    events = synth.film(replace(SMALL, seconds=30), tmp_path / "actor.mp4")
    assert isinstance(next(events), Saved) and isinstance(next(events), Step)
    events.close()
    assert [p.name for p in tmp_path.iterdir()] == ["actor.truth"]


@pytest.mark.slow
@pytest.mark.parametrize("look", ["ash", "umber"])
def test_a_face_detector_finds_the_true_landmarks(look: str) -> None:
    """MediaPipe finds the face in every frame, near the truth, and sees mouth and lids move as they truly do."""
    mediapipe = pytest.importorskip("mediapipe", reason="needs the extra 'track'")
    made = synth.actor(synth.SynthConfig(seconds=4, look=look))
    ids = range(0, 100, 3)
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True, static_image_mode=True) as detector:
        results = [detector.process(made.frame(i)).multi_face_landmarks for i in ids]
    assert all(results)
    seen = np.array([[(p.x * 512, p.y * 512) for p in r[0].landmark] for r in results])
    true = made.truth.landmarks_px[list(ids)].numpy()
    between_eyes = np.linalg.norm(true[:, 473] - true[:, 468], axis=1)
    error = np.linalg.norm(seen - true, axis=2) / between_eyes[:, None]
    assert np.median(error) < 0.04 and error.mean(1).max() < 0.08

    def opening(points: np.ndarray, a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    assert np.corrcoef(opening(seen, 13, 14), opening(true, 13, 14))[0, 1] > 0.8
    assert np.corrcoef(opening(seen, 159, 145), opening(true, 159, 145))[0, 1] > 0.8
