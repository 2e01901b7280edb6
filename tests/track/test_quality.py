"""Figures, verdict and bad frames of tracks whose faults are known; the page that shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import head, math3d, media
from gsth.track import _points, _quality, _report
from gsth.track._fit import Fitted
from gsth.track._landmarks import Detections
from gsth.track._quality import BadFrame
from gsth.types import Cameras, Clip, Identity, Motion, Track

T, SIDE = 60, 64


@pytest.fixture
def made(clip: Clip, seen: Detections) -> tuple[Track, Fitted]:
    """A well-made track of 60 frames of the built-in head: turns, speaks, blinks, smiles."""
    model = head.load("builtin")
    rng = np.random.default_rng(0)
    t = torch.arange(float(T))
    expr = torch.zeros(T, len(model.expression_names))
    names = model.expression_names
    expr[:, names.index("jawOpen")] = (0.6 * (t / 3).sin()).clamp_min(0)
    for name in ("mouthUpperUpLeft", "mouthUpperUpRight"):
        expr[20:40, names.index(name)] = 0.4
    expr[10:13, names.index("eyeBlinkLeft")] = expr[10:13, names.index("eyeBlinkRight")] = 0.9
    yaw = torch.zeros(T, 3)
    yaw[:, 1] = 0.35 * (t / 8).sin()
    joints = math3d.quat_identity(T, 5)
    joints[:, 2] = math3d.rotvec_to_quat(yaw)
    place = torch.tensor((1.0, 0, 0, 0, 0, 0.1, 0.8)).expand(T, 7).clone()
    motion = Motion(model.id, 25.0, expr, joints, place)
    identity = Identity(model.id, torch.zeros(len(model.shape_basis)))
    points = torch.from_numpy(seen.points.copy() / 10)
    error = torch.full((T,), 0.8)
    track = Track(
        clip=clip,
        frame_ids=torch.arange(T),
        crop_px=(0, 0, 640, 640),
        cameras=Cameras(torch.eye(4)[None], torch.eye(3)[None] * 100, SIDE, SIDE),
        identity=identity,
        motion=motion,
        landmarks_px=points,
        found=torch.ones(T, dtype=torch.bool),
        error_pct=error,
        images=rng.integers(0, 255, (T, SIDE, SIDE, 3), np.uint8),
        mattes=np.full((T, SIDE, SIDE), 255, np.uint8),
    )
    fitted = Fitted(100.0, identity, motion, torch.zeros(_points.COUNT, 3), points, error, error * 2)
    return track, fitted


def test_yaw_and_pitch_are_those_of_the_face(made: tuple[Track, Fitted]) -> None:
    yaw, pitch = _quality.turn_deg(made[0].motion)
    t = np.arange(T)
    # house axes: y points down, so turning about it by +a takes the face (along -z) to picture left
    np.testing.assert_allclose(yaw, -np.degrees(0.35 * np.sin(t / 8)), atol=0.01)
    np.testing.assert_allclose(pitch, 0, atol=0.01)


def test_each_bad_frame_has_its_reason(made: tuple[Track, Fitted], seen: Detections) -> None:
    track, fitted = made
    error = track.error_pct.clone()
    error[5] = 9.0
    seen.found[40:42] = False
    seen.sign("lips")[20:30] = 0.5
    seen.sign("sharpness")[50] = 5
    joints = track.motion.joints.clone()
    joints[55, 2] = math3d.rotvec_to_quat(torch.tensor((0.0, 1.2, 0.0)))
    track = track.replace(error_pct=error, motion=track.motion.replace(joints=joints))
    bad = _quality.assess(track, fitted, seen).bad
    by_reason = _report._by_reason(bad)
    assert by_reason["no face found"] == [40, 41] and by_reason["something covers the mouth"] == list(range(20, 30))
    assert by_reason["blurred"] == [50] and by_reason["turned away"] == [55]
    assert by_reason["the fit is off"] == [5] and len(bad) == 15


def test_verdict_falls_with_the_figures_and_advice_says_what_to_do(
    made: tuple[Track, Fitted], seen: Detections
) -> None:
    track, fitted = made
    good = _quality.assess(track, fitted, seen)
    assert good.verdict == "usable" or good.advice[0].startswith("film longer"), "2.4 s are short"
    long = {**good.figures, "seconds": 60.0, "jitter_pct": 0.1}
    advice = tuple(_quality._advice(long, good.shapes, ()))
    assert advice == () and _quality._verdict(long, advice) == "good"
    faults = {
        "face_px": (30.0, "come closer"), "light": (20.0, "more light"), "side": (4.0, "even light"),
        "sharpness": (3.0, "focus"), "seconds": (3.0, "film longer"), "yaw_deg": (5.0, "to both sides"),
    }  # fmt: skip
    for name, (value, word) in faults.items():
        (said,) = _quality._advice({**long, name: value}, good.shapes, ())
        assert word in said
    closed = {**good.shapes, "wide open": 0, "upper teeth": 0, "eyes shut": 0}
    assert len(list(_quality._advice(long, closed, ()))) == 3
    assert _quality._verdict({**long, "error_pct": 1.5}, ()) == "usable"
    assert _quality._verdict({**long, "lips_error_pct": 12.0}, ()) == "poor"


def test_coverage_counts_poses_and_shapes(made: tuple[Track, Fitted], seen: Detections) -> None:
    quality = _quality.assess(*made, seen)
    assert quality.poses.sum() == T and quality.poses.shape == (5, 7)
    assert quality.shapes["wide open"] > 5 and quality.shapes["upper teeth"] == 20 and quality.shapes["eyes shut"] == 3
    assert quality.activity["jawOpen"][1] == pytest.approx(0.6, abs=0.02)


def trembling(track: Track, movement: torch.Tensor, memory: float, size: float = 0.006) -> dict[str, float]:
    """Figures of 600 frames in which the jaw moves (activation [600]) and all trembles, by noise of such a memory."""
    names = head.load("builtin").expression_names
    noise = size * torch.randn(600, len(names), generator=torch.Generator().manual_seed(1))
    for i in range(1, 600):
        noise[i] += memory * noise[i - 1]
    expr = noise.clone()
    expr[:, names.index("jawOpen")] += movement
    return _quality.calm_pct(
        track.replace(
            frame_ids=torch.arange(600),
            motion=track.motion[torch.arange(600) % T].replace(expr=expr),
            landmarks_px=track.landmarks_px[:1].expand(600, -1, -1),
            found=torch.ones(600, dtype=torch.bool),
            error_pct=torch.zeros(600),
            images=np.zeros((600, 1, 1, 3), np.uint8),
            mattes=np.zeros((600, 1, 1), np.uint8),
        )
    )


def test_jitter_is_the_part_that_trembles(made: tuple[Track, Fitted]) -> None:
    track, pace = made[0], 0.004 * torch.arange(600)
    still = trembling(track, torch.zeros(600), 0.0)
    assert still["jitter_pct"] == pytest.approx(still["calm_step_pct"], rel=0.1) and still["jitter_pct"] > 0.05
    half = trembling(track, torch.zeros(600), 0.0, 0.003)
    assert half["jitter_pct"] == pytest.approx(still["jitter_pct"] / 2, rel=0.01)
    moving = trembling(track, pace, 0.0)
    assert moving["jitter_pct"] == pytest.approx(still["jitter_pct"], rel=0.01)  # a steady pace is not jitter
    walk = trembling(track, torch.zeros(600), 1.0)
    assert walk["jitter_pct"] == pytest.approx((2 / 3) ** 0.5 * walk["calm_step_pct"], rel=0.1)
    quiet = trembling(track, pace, 0.0, 0.0)
    assert quiet["jitter_pct"] < 0.01 * quiet["calm_step_pct"]


def test_jitter_leaves_out_frames_without_a_face(made: tuple[Track, Fitted]) -> None:
    expr = torch.zeros_like(made[0].motion.expr)
    expr[::2, head.load("builtin").expression_names.index("jawOpen")] = 0.1
    expr[: T // 2] = 0  # bridged: as calm as can be
    track = made[0].replace(motion=made[0].motion.replace(expr=expr), found=torch.arange(T) >= T // 2)
    assert _quality.calm_pct(track)["jitter_pct"] > 0.5
    assert np.isnan(_quality.calm_pct(track.replace(found=torch.arange(T) % 2 == 0))["jitter_pct"])


def test_bridged_motion_keeps_good_frames_and_runs_straight_between(made: tuple[Track, Fitted]) -> None:
    motion = made[0].motion
    keep = np.ones(T, bool)
    keep[[0, 10, 11, 12, 59]] = False
    out = _quality.bridged(motion, keep)
    assert torch.allclose(out.expr[keep], motion.expr[keep]) and torch.allclose(
        out.joints[keep].abs(), motion.joints[keep].abs(), atol=1e-5
    )
    assert torch.allclose(out.expr[11], (motion.expr[9] + motion.expr[13]) / 2, atol=1e-5)
    assert torch.allclose(out.expr[0], motion.expr[1]) and torch.allclose(out.expr[59], motion.expr[58])
    assert torch.allclose(out.joints.norm(dim=-1), torch.ones(T, 5), atol=1e-5)


def test_the_page_holds_everything_and_needs_nothing_beside_it(
    made: tuple[Track, Fitted], seen: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = made[0].replace(clip=Clip(Path("<b>me</b>.mp4"), 25.0, T, 640, 480, None))
    seen.found[40:43] = False
    quality = _quality.assess(track, made[1], seen)
    list(_report.write(tmp_path, track, made[1], quality, 48))
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page and "<b>me" not in page and 'src="data:video/mp4;base64,' in page
    assert "40-42: no face found" in page and page.count('alt="bad frame"') == 3
    assert f"This track is {quality.verdict}" in page and "jawOpen" in page and "48 for training" in page
    assert media.probe(tmp_path / "overlay.mp4").frames == T
    monkeypatch.setattr(_report, "INLINE_MB", 0.0)
    list(_report.write(tmp_path, track, made[1], quality, 48))
    assert 'src="overlay.mp4"' in (tmp_path / "report.html").read_text()


def test_ranges() -> None:
    assert _report._ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert _report._by_reason([BadFrame(3, "turned away by 60 degrees"), BadFrame(4, "turned away by 70 degrees")]) == {
        "turned away": [3, 4]
    }
