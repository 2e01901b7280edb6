"""The tongue by colour: on painted mouths, on the actor whose tongue is known, and where a person sees it on a clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gsth import math3d, media, synth
from gsth.track import _landmarks, _points, _tongue
from gsth.track.detectors import builtin
from gsth.types import Cameras, HeadId, Motion

SKIN, LIPS, TONGUE, TEETH, CAVITY = (190, 145, 130), (150, 85, 85), (185, 120, 125), (215, 205, 190), (50, 22, 20)
MOUTH = np.array((160.0, 170.0))


def ellipse(half: tuple[float, float], count: int = 20) -> np.ndarray:
    """Points of a lip line in the order of ``_points.LIPS_INNER``: right corner, lower lip, left corner, upper lip."""
    angle = np.pi - np.arange(count) / count * 2 * np.pi
    return MOUTH + np.stack((half[0] * np.cos(angle), half[1] * np.sin(angle)), 1)


def points(height: float = 16.0) -> np.ndarray:
    """A face with 150 px between the eyes and a mouth open by twice ``height``."""
    out = np.zeros((_points.COUNT, 2), np.float32)
    out[[_points.RIGHT_OUTER, _points.LEFT_OUTER]] = (85, 60), (235, 60)
    for side, ids in zip((90, 230), _points.CHEEKS, strict=True):
        out[list(ids)] = side, 120
    out[list(_points.LIPS_INNER)] = ellipse((36, height))
    out[list(_points.LIPS_OUTER)] = ellipse((46, height + 14))
    return out


def painted(face: np.ndarray, tongue: float = 0.0, teeth: float = 0.0, over: float = 0.0) -> np.ndarray:
    """A picture of it: from the lower lip up, so much of the opening is lower teeth, and so much tongue above them.

    ``over``: half the width of a tongue over the lower lip, px.
    """
    out = np.full((240, 320, 3), SKIN, np.uint8)
    row = np.arange(240)[:, None] + 0.5
    inner, outer = (np.zeros((240, 320), np.uint8) for _ in range(2))
    for mask, ids in ((inner, _points.LIPS_INNER), (outer, _points.LIPS_OUTER)):
        cv2.fillPoly(mask, [np.round(face[list(ids)] * 16 - 8).astype(np.int32)], 1, shift=4)
    line = face[list(_points.LIPS_INNER)]
    low, height = line[:, 1].max(), np.ptp(line[:, 1])
    out[outer > 0], out[inner > 0] = LIPS, CAVITY
    up = (low - row) / height
    out[(inner > 0) & (up < tongue + teeth)] = TONGUE
    out[(inner > 0) & (up < teeth)] = TEETH
    middle = np.abs(np.arange(320) + 0.5 - MOUTH[0]) < over
    out[(outer > 0) & (row > low - 8) & (row < low + 9) & middle] = TONGUE
    return cv2.GaussianBlur(out, (0, 0), 0.7)


def found(face: np.ndarray | None = None, **what: float) -> float:
    face = points() if face is None else face
    return _tongue.of(painted(face, **what), face)


def test_what_fills_the_opening_decides() -> None:
    assert found() == 0, "a dark cavity"
    assert found(teeth=1.0) == 0, "teeth alone"
    assert found(tongue=0.3) == 0, "a tongue low in the mouth"
    assert found(tongue=0.2, teeth=0.4) == 0, "a tongue behind the lower teeth"
    half, most = found(tongue=0.5), found(tongue=0.9)
    assert 0.05 < half < most == pytest.approx(_tongue.AT_LIPS)
    assert found(tongue=0.6, teeth=0.25) < found(tongue=0.6)


def test_a_tongue_over_the_lip_is_out() -> None:
    assert found(tongue=0.9, over=15) > 0.9


LIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dim": lambda x: 0.2 * x,
    "bright": lambda x: 1.3 * x,
    "blue": lambda x: x * (0.7, 0.9, 1.2),
    "warm": lambda x: x * (1.1, 0.9, 0.6),
    "dark skin": lambda x: x * (0.42, 0.34, 0.3),
}


@pytest.mark.parametrize("light", LIGHTS.values(), ids=LIGHTS)
def test_light_and_skin_change_little(light: Callable[[np.ndarray], np.ndarray]) -> None:
    face = points()

    def seen(**what: float) -> float:
        linear = (painted(face, **what) / 255.0) ** 2.2
        return _tongue.of((np.clip(light(linear), 0, 1) ** (1 / 2.2) * 255).astype(np.uint8), face)

    assert seen(tongue=0.9) > 0.4
    assert seen(teeth=1.0) == seen(teeth=0.3) == seen() == 0


def test_what_does_not_tell_gives_nothing() -> None:
    face = points()
    full = painted(face, tongue=0.9)
    grey = np.repeat(cv2.cvtColor(full, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    assert _tongue.of(grey, face) == 0, "no colour"
    assert found(points(2.0), tongue=0.9) == 0, "a mouth nearly shut"
    small = cv2.resize(full, None, fx=1 / 6, fy=1 / 6, interpolation=cv2.INTER_AREA)
    assert _tongue.of(small, face / 6) == 0, "a mouth of 12 px"
    assert _tongue.of(full, face - (140, 160)) == 0, "a mouth at the corner of the picture"
    assert _tongue.of(full, np.zeros_like(face)) == 0


NAMES = ("jawOpen", "tongueOut")


def still(frames: int) -> Motion:
    return Motion(HeadId("m", "1", "0"), 25.0, torch.full((frames, 2), 0.1), torch.zeros(frames, 5, 4),
                  torch.zeros(frames, 7))  # fmt: skip


def test_the_motion_is_told_without_flicker() -> None:
    seen = np.array((0, 0, 0.4, 0, 0, 0.4, 0.4, 0.4, np.nan, 0.2, 0.2))
    expr = _tongue.told(still(11), NAMES, seen, None).expr
    assert torch.equal(expr[:, 0], torch.full((11,), 0.1))
    torch.testing.assert_close(expr[:, 1], torch.tensor((0, 0, 0, 0, 0, 0.4, 0.4, 0.4, 0.3, 0.2, 0.2)))


def test_a_detector_that_tells_the_tongue_is_believed() -> None:
    scores = torch.full((4, 2), float("nan"))
    scores[:2, 1] = 0.7
    expr = _tongue.told(still(4), NAMES, np.full(4, 0.4), scores).expr
    torch.testing.assert_close(expr[:, 1], torch.tensor((0.1, 0.1, 0.4, 0.4)))
    assert _tongue.told(still(4), ("jawOpen", "other"), np.full(4, 0.4), None).expr.eq(0.1).all()
    assert _tongue.told(still(4), NAMES, np.full(4, np.nan), None).expr.eq(0.1).all()


def test_the_actors_tongue_is_found() -> None:
    """Out and in while the jaw opens and closes; a telephoto view of the face, to draw no more than is looked at."""
    made = synth.actor(synth.SynthConfig(seconds=0.2, size=128, look="sand", turn_deg=0))
    names, rest = made.head.expression_names, made.truth.motion[0]
    truth = torch.tensor((0.0, 0.2, 0.5, 0.8, 1.0)).repeat(2)
    expr = torch.zeros(10, len(names))
    expr[:, names.index("tongueOut")] = truth
    expr[:, names.index("jawOpen")] = torch.tensor((0.5,) * 5 + (0.7,) * 5)
    moves = rest.replace(
        expr=expr, joints=rest.joints.expand(10, -1, -1), T_world_head=rest.T_world_head.expand(10, -1)
    )
    made = made.moving(moves)
    mouth = made.truth.landmarks_px[0, list(_points.LIPS)].mean(0) * 7
    K = made.truth.cameras.Ks[0] * 7
    K[:2, 2] += 112 - mouth
    K[2, 2] = 1
    camera = Cameras(torch.eye(4)[None], K[None], 224, 224)
    points = made.head.landmarks(made.shaped.posed(moves).verts)
    places = math3d.project(points, K).numpy()
    seen = [_tongue.of(made.render_view(i, camera), places[i]) for i in range(10)]
    assert np.corrcoef(seen, truth)[0, 1] > 0.85, seen
    assert max(seen[0], seen[1], seen[5], seen[6]) < 0.05, "behind the lower teeth"
    assert min(seen[4], seen[9]) > 0.4, "over the lip"


TONGUES = ((78, 81), (184, 189), (246, 250), (367, 374), (695, 702))
"""First and last frame of faces.mp4, by eye, of tongues that fill the open mouth."""
NO_TONGUES = ((88, 95), (153, 160), (492, 499), (606, 610), (770, 778))
"""Likewise of mouths that show teeth, a cavity, or a tongue behind the lower teeth."""


@pytest.mark.real
def test_tongues_of_a_clip(clips: Path) -> None:
    pytest.importorskip("mediapipe")
    clip = media.probe(clips / "faces.mp4")
    values = []
    for spans in (TONGUES, NO_TONGUES):
        windows = [range(a, b + 1) for a, b in spans]
        values.append(_landmarks.glance(clip, builtin.Config().build, windows, lambda: False).sign("tongue"))
    assert (values[0] > 0.2).mean() >= 0.8
    assert values[1].max() < 0.1
