"""The detector's response is added to the built-in head's landmarks, and to no other head's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsth import head
from gsth.errors import ArtifactError
from gsth.head import HeadModel
from gsth.track import _points, _response
from gsth.track._rig import LandmarkRig


def test_the_built_in_head_gets_it(made_up: HeadModel) -> None:
    model = head.load()
    plain = model.landmarks(model.template[None])[0]
    shift = LandmarkRig.of(model).model.template[: _points.COUNT] - plain
    assert 0.001 < shift.norm(dim=1).mean() < 0.006 and shift.norm(dim=1).median() < 0.003
    other = LandmarkRig.of(made_up).model
    assert torch.allclose(other.template[: _points.COUNT], made_up.landmarks(made_up.template[None])[0], atol=1e-6)


def test_a_head_with_other_landmarks_is_another_head() -> None:
    model = head.load()
    moved = replace(model, landmark_bary=model.landmark_bary.roll(1, 1))
    assert _response.topology_of(moved) != _response.topology_of(model)
    landmarks = model.subset(torch.arange(_points.COUNT))
    assert _response.as_detected(landmarks, moved) is landmarks


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.npz"
    bad.write_bytes(_response.ASSET.read_bytes()[:1000])
    monkeypatch.setattr(_response, "ASSET", bad)
    with pytest.raises(ArtifactError, match=r"bad\.npz is damaged"):
        _response._load.__wrapped__()
