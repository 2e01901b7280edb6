"""Reenactment: neutral to neutral, span to span, head pose as asked."""

from __future__ import annotations

import pytest
import torch

from gsth import math3d
from gsth.drive._retarget import Retarget
from gsth.errors import InputError
from gsth.math3d import mean_rotation
from gsth.types import HeadId


@pytest.fixture(scope="module")
def pair(person):
    """A source who smiles at rest and opens the mouth a little; an avatar who opens it wide."""
    t = torch.arange(200) / 25
    wave = (0.5 - 0.5 * torch.cos(2.5 * t))[:, None]
    source, target = torch.zeros(200, 52), torch.zeros(200, 52)
    names = list(person(source, 200).head.expression_names)
    jaw, smile, blink = (names.index(n) for n in ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft"))
    source[:, jaw : jaw + 1], target[:, jaw : jaw + 1] = 0.3 * wave, 0.5 * wave
    source[:, smile], target[:, smile] = 0.4, 0.1
    source[50:54, blink] = 1.0
    return person(source, 200), person(target, 200), (jaw, smile, blink)


def test_neutral_to_neutral_and_span_to_span(pair) -> None:
    source, target, (jaw, smile, blink) = pair
    got = Retarget.of(source.motion, target, "relative")(source.motion).expr
    assert float(got[:, jaw].max()) == pytest.approx(0.5, abs=0.03) and float(got[:, jaw].min()) < 0.03
    assert float((got[:, smile] - 0.1).abs().max()) < 0.02
    assert float(got[51, blink]) > 0.97  # lids close all the way in everyone
    half = Retarget.of(source.motion, target, "relative", gain=0.5)(source.motion).expr
    assert float(half[:, jaw].max()) == pytest.approx(0.25, abs=0.03)


def test_head_pose(pair) -> None:
    source, target, _ = pair
    away = math3d.rotvec_to_quat(torch.tensor((0.0, 0.3, 0.0)))
    joints = source.motion.joints.clone()
    joints[:, 2] = math3d.quat_mul(away.expand(200, 4), joints[:, 2])
    moved = source.motion.replace(joints=joints)
    mean = mean_rotation(target.motion.joints[:, 2])

    def turn(pose: str) -> torch.Tensor:
        head = Retarget.of(moved, target, pose)(moved).joints[:, 2]  # type: ignore[arg-type]
        return math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(mean), head))

    assert turn("none").abs().max() < 1e-6
    relative, absolute = turn("relative"), turn("absolute")
    assert relative.mean(0).abs().max() < 0.01 and relative.abs().max() > 0.05
    assert float(absolute[:, 1].mean()) == pytest.approx(0.3, abs=0.02)


def test_the_torso_stays_where_the_avatar_was_filmed(pair) -> None:
    source, target, _ = pair
    place = source.motion.T_world_head.clone()
    place[100:, 4] += 0.3  # m
    moved = source.motion.replace(T_world_head=place)
    for pose, reach in (("relative", 0.0101), ("absolute", 0.0101), ("none", 1e-6)):
        got = Retarget.of(moved, target, pose)(moved).T_world_head[:, 4]  # type: ignore[arg-type]
        assert float((got - target.motion.T_world_head[0, 4]).abs().max()) <= reach
        assert pose == "none" or float(got[-1] - got[0]) > 0.015


def test_a_motion_of_another_head_is_refused(pair) -> None:
    source, target, _ = pair
    other = source.motion.replace(head=HeadId("other", "1", "0123456789abcdef"))
    with pytest.raises(InputError, match="for head other"):
        Retarget.of(other, target, "none")
    with pytest.raises(InputError, match="no frame"):
        Retarget.of(source.motion[:0], target, "none")
