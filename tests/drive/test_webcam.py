"""The live face: heads that turn and speak are followed; video files stand in for the camera."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import head, math3d
from gsth.drive import offline, video, webcam
from gsth.drive._person import opening_weights
from gsth.errors import InputError

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def filmed():
    """Landmarks of the mean head that turns, speaks and blinks before a camera, px [t 478 2], and its motion."""
    from gsth.drive._live_face import LiveFace
    from gsth.track._rig import LandmarkRig, Pose

    model = head.load()
    names = model.expression_names
    t = torch.arange(75) / 25
    pose = Pose.at(math3d.quat_identity(75), torch.tensor((0.01, 0.02, 0.7)).repeat(75, 1), len(names))
    pose.head = torch.stack((0.1 * torch.sin(2 * t), 0.25 * torch.sin(1.5 * t), 0.05 * t), 1)
    moving = (t > 1)[:, None]
    pose.expr[:, [names.index("jawOpen")]] = moving * (0.25 - 0.25 * torch.cos(8 * t))[:, None]
    pose.expr[:, [names.index("browInnerUp")]] = moving * 0.6
    pose.gaze[:, :, 1] = (0.2 * torch.sin(3 * t))[:, None]
    rig = LandmarkRig.of(model)
    points = rig.points(pose, torch.zeros(model.shape_basis.shape[0]), torch.zeros(478, 3))[:, :478]
    focal = 240 / np.tan(0.35)
    pixels = points[..., :2] / points[..., 2:] * focal + torch.tensor((320.0, 240.0))
    noise = 0.2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    face = LiveFace.__new__(LiveFace)  # without the detector, which these landmarks stand in for
    face._head, face._size, face._fps = model, (640, 480), 25.0
    face.calibrate((pixels + noise)[:24].numpy())
    begun = time.process_time()
    found = [face.motion(p, 0.3) for p in (pixels + noise).numpy()[24:]]
    spent = (time.process_time() - begun) / len(found)
    return rig.motion(pose, 25.0)[24:], found, spent


def test_expressions_and_turns_are_found(filmed) -> None:
    truth, found, _ = filmed
    names = head.load().expression_names
    expr = torch.cat([m.expr for m in found])
    for name, error in (("jawOpen", 0.08), ("browInnerUp", 0.12)):
        i = names.index(name)
        assert float((expr[:, i] - truth.expr[:, i]).abs().mean()) < error, name
    gap = opening_weights(head.load())
    assert float(torch.corrcoef(torch.stack((expr @ gap, truth.expr @ gap)))[0, 1]) > 0.97
    skull = [
        math3d.quat_mul(m.T_world_head[:, :4], math3d.quat_mul(m.joints[:, 1], m.joints[:, 2]))
        for m in (truth, found[0].replace(**{
            n: torch.cat([getattr(m, n) for m in found]) for n in ("expr", "joints", "T_world_head")
        }))
    ]  # fmt: skip
    away = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(skull[0]), skull[1]))
    assert float((away - away.mean(0)).norm(dim=1).mean()) < 0.02  # rad


def test_gaze_is_found(filmed) -> None:
    truth, found, _ = filmed
    eyes = [math3d.quat_to_rotvec(m[:, 3])[:, 1] for m in (truth.joints, torch.cat([m.joints for m in found]))]
    assert float(torch.corrcoef(torch.stack(eyes))[0, 1]) > 0.9


def test_the_tongue_is_carried_and_does_not_flicker(filmed, monkeypatch: pytest.MonkeyPatch) -> None:
    from gsth.drive import _live_face

    tongue = head.load().expression_names.index("tongueOut")
    assert all(float(m.expr[0, tongue]) == pytest.approx(0.3) for m in filmed[1])
    face = _live_face.LiveFace.__new__(_live_face.LiveFace)
    face._tongues = deque(maxlen=3)
    looks = iter((0.0, 0.5, 0.0, 0.4, 0.4, 0.4))
    monkeypatch.setattr(_live_face._tongue, "of", lambda *_: next(looks))
    told = [face.tongue(np.zeros((2, 2, 3)), np.zeros((478, 2))) for _ in range(6)]
    assert told[2:] == [0.0, 0.4, 0.4, 0.4]


def test_a_frame_costs_little(filmed) -> None:
    assert filmed[2] < 0.05  # s of processor time, beside the landmark detector's


def test_no_camera_is_refused(person) -> None:
    made = person(torch.zeros(10, 52), 10)
    with pytest.raises(InputError, match="no such camera"):
        webcam.Config("absent.mp4").build(made)
    for wrong in ({"seconds": 0.0}, {"gain": 3.0}):
        with pytest.raises(InputError, match="want over 0"):
            webcam.Config(**wrong)
    with pytest.raises(InputError, match="gain is -1"):
        video.Config(Path("a.mp4"), gain=-1)


@pytest.mark.real
@pytest.mark.slow
def test_a_video_file_as_the_camera(clips: Path, person) -> None:
    made = person(torch.zeros(50, 52), 50)
    pieces, last, spent = [], time.process_time(), []
    for piece in webcam.Config(str(clips / "hill.mp4"), seconds=2).build(made).stream():
        spent.append(time.process_time() - last)
        last = time.process_time()
        pieces.append(piece)
    assert len(pieces) == 50 and all(len(p) == 1 for p in pieces)
    assert np.median(spent[1:]) < 0.1  # s of processor time a frame, whatever else the machine does
    expr = torch.cat([p.expr for p in pieces])
    assert float((expr @ opening_weights(made.head)).max()) > 0.002  # she speaks


@pytest.mark.real
@pytest.mark.slow
def test_another_persons_clip_is_reenacted(clips: Path, person) -> None:
    made = person(torch.zeros(50, 52), 50)
    driver = video.Config(clips / "hill.mp4").build(made)
    motion = offline(driver)
    assert len(motion) == 200 and motion.fps == 25 and driver.sound is not None
    assert len(driver.sound.samples) / driver.sound.rate == pytest.approx(8.0, abs=0.1)
    assert float((motion.expr @ opening_weights(made.head)).std()) > 0.0008
