from __future__ import annotations

import torch

from gsth import math3d
from gsth.avatar import DensityConfig
from gsth.avatar._density import GradientRecord, plan, split_long_axis


def test_plan_drops_the_clear_and_splits_the_steep() -> None:
    record = GradientRecord(torch.tensor((1.0, 9.0, 2.0, 8.0)), torch.ones(4))
    logits = torch.tensor((3.0, 3.0, 3.0, -6.0))
    change = plan(record, logits, DensityConfig(grow=0.34), max_splats=10)
    assert change.source.tolist() == [0, 1, 2, 1]
    assert change.added == 1


def test_plan_never_exceeds_the_cap() -> None:
    record = GradientRecord(torch.rand(50), torch.ones(50))
    change = plan(record, torch.full((50,), 3.0), DensityConfig(grow=1.0), max_splats=60)
    assert len(change.source) == 60


def test_splats_without_gradient_do_not_split() -> None:
    change = plan(GradientRecord.empty(5), torch.full((5,), 3.0), DensityConfig(grow=1.0), max_splats=60)
    assert change.added == 0


def test_split_keeps_centre_and_halves_the_long_axis() -> None:
    quat = math3d.rotvec_to_quat(torch.tensor([[0.0, 0.0, 0.5]]))
    params = {
        "means_tri": torch.tensor([[1.0, 2.0, 3.0]]),
        "quats_tri": quat,
        "log_scales": torch.tensor([[0.1, 0.4, 0.2]]).log(),
        "logit_opacities": torch.tensor([0.0]),
        "sh": torch.ones(1, 1, 3),
    }
    record = GradientRecord(torch.ones(1), torch.ones(1))
    change = plan(record, params["logit_opacities"], DensityConfig(grow=1.0), max_splats=10)
    new = split_long_axis(params, change)
    torch.testing.assert_close(new["means_tri"].mean(0), params["means_tri"][0])
    apart = new["means_tri"][1] - new["means_tri"][0]
    torch.testing.assert_close(apart, math3d.quat_to_mat(quat)[0][:, 1] * 0.4)
    assert (new["log_scales"].argmax(1) == 1).all() or (new["log_scales"][:, 1] < params["log_scales"][0, 1]).all()
    alpha = torch.sigmoid(new["logit_opacities"])
    torch.testing.assert_close(1 - (1 - alpha).prod(), torch.tensor(0.5))
