"""The detector's response is added to the built-in head's landmarks, and to no other head's."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsth import head, math3d
from gsth.errors import ArtifactError
from gsth.head import HeadModel
from gsth.track import _points, _response, _start
from gsth.track._known import known
from gsth.track._rig import LandmarkRig, Pose
from gsth.types import Identity


def test_the_built_in_head_gets_it(made_up: HeadModel) -> None:
    model = head.load()
    plain = model.landmarks(model.template[None])[0]
    shift = LandmarkRig.of(model).model.template[: _points.COUNT] - plain
    assert 0.001 < shift.norm(dim=1).mean() < 0.006 and shift.norm(dim=1).median() < 0.003
    rig = LandmarkRig.of(made_up, who=True)
    plain = made_up.landmarks(made_up.template[None])[0]
    assert torch.allclose(rig.model.template[: _points.COUNT], plain, atol=1e-6) and rig.seen_from is None


def test_unusual_faces_are_seen_as_more_usual_ones() -> None:
    """What identity does to a landmark is seen in part: on average less, and never the other way round."""
    model = head.load()
    there = model.landmarks(model.shape_basis)

    def share(who: bool) -> float:
        seen = LandmarkRig.of(model, who).model.shape_basis[:, : _points.COUNT]
        return float((there * seen).sum() / there.square().sum())

    assert 0.5 < share(True) < 0.97
    assert share(False) == pytest.approx(1)


def test_a_known_person_has_no_identity_to_respond_to() -> None:
    model = head.load()
    person = known(model, Identity(model.id, torch.ones(len(model.shape_basis))))
    rig = LandmarkRig.of(person, who=True)
    assert rig.seen_from is not None and len(rig.model.shape_basis) == 0
    assert not torch.allclose(
        rig.model.template[: _points.COUNT], person.landmarks(person.template[None])[0], atol=1e-4
    )


def test_views_are_the_line_of_sight_in_the_heads_own_axes() -> None:
    straight = torch.eye(3)[None]
    assert _response.views(straight, torch.tensor([[0.0, 0.0, 0.7]])).abs().max() == 0
    # a head at the right of the picture that looks past the camera shows the same side as one that turns away
    aside = _response.views(straight, torch.tensor([[0.3, 0.0, 1.0]]))
    turned = _response.views(math3d.quat_to_mat(_about_y(-math.atan(0.3))), torch.tensor([[0.0, 0.0, 1.0]]))
    assert torch.allclose(aside, turned, atol=1e-6) and aside[0, 0] > 0.2
    profile = _response.views(math3d.quat_to_mat(_about_y(-1.5)), torch.tensor([[0.0, 0.0, 1.0]]))
    assert profile[0, 0] == pytest.approx(_response.SIDE)  # not beyond what was learned


def test_a_turned_head_is_found_although_its_points_slide() -> None:
    model = head.load()
    rig = LandmarkRig.of(model, who=True)
    rotation, place = _about_y(0.5), torch.tensor([[0.02, 0.1, 0.8]])
    pose = Pose.at(rotation, place, len(model.expression_names))
    shape, offsets = torch.zeros(len(model.shape_basis)), torch.zeros(_points.COUNT, 3)
    seen = rig.points(pose, shape, offsets)[:, : _points.COUNT]
    points, principal = seen[..., :2] / seen[..., 2:] * 700.0 + 256.0, torch.tensor([256.0, 256.0])
    found, where = _start.rigid_poses(rig, points, 700.0, principal)
    naive, _ = _start.rigid_poses(replace(rig, seen_from=None), points, 700.0, principal)

    def off(q: torch.Tensor) -> float:
        return float(math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(rotation), q)).norm())

    assert off(found) < 0.01 < off(naive)
    assert torch.allclose(where, place, atol=0.004)


def _about_y(angle: float) -> torch.Tensor:
    """wxyz [1 4]."""
    return torch.tensor([[math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0]])


def test_a_head_with_other_landmarks_is_another_head() -> None:
    model = head.load()
    moved = replace(model, landmark_bary=model.landmark_bary.roll(1, 1))
    assert _response.topology_of(moved) != _response.topology_of(model)
    landmarks = model.subset(torch.arange(_points.COUNT))
    for who in (False, True):
        known, seen_from = _response.as_detected(landmarks, moved, who)
        assert known is landmarks and seen_from is None


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes((_response.ASSETS / _response.PLAIN).read_bytes()[:1000])
    monkeypatch.setattr(_response, "ASSETS", tmp_path)
    with pytest.raises(ArtifactError, match=r"bad\.npz is damaged"):
        _response._load.__wrapped__(bad.name)
