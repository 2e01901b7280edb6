"""Rotations and rigid transforms: against scipy and against their own definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gsth import math3d

Rotation = pytest.importorskip("scipy.spatial.transform").Rotation

COMPONENTS = st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4).filter(lambda q: sum(c * c for c in q) > 0.01)
QUATS = COMPONENTS.map(lambda q: math3d.quat_normalize(torch.tensor(q, dtype=torch.float64)))
TRANSFORMS = st.tuples(QUATS, st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3)).map(
    lambda t: torch.cat((t[0], torch.tensor(t[1], dtype=torch.float64)))
)
POINTS = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 4.0, -3.0]], dtype=torch.float64)


def scipy_of(q: Tensor) -> Rotation:
    return Rotation.from_quat(q.numpy()[..., [1, 2, 3, 0]])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return bool(torch.allclose(a, b, atol=tolerance, rtol=tolerance))


@settings(max_examples=60, deadline=None)
@given(QUATS, QUATS)
def test_quats_agree_with_scipy(a: Tensor, b: Tensor) -> None:
    assert close(math3d.quat_to_mat(a), torch.from_numpy(scipy_of(a).as_matrix()))
    assert close(math3d.quat_to_mat(math3d.quat_mul(a, b)), torch.from_numpy((scipy_of(a) * scipy_of(b)).as_matrix()))
    assert close(math3d.quat_rotate(a[None], POINTS), torch.from_numpy(scipy_of(a).apply(POINTS.numpy())))
    assert close(math3d.quat_mul(a, math3d.quat_conj(a)), math3d.quat_identity().double())


@settings(max_examples=60, deadline=None)
@given(QUATS)
def test_matrix_and_rotvec_come_back(q: Tensor) -> None:
    back = math3d.mat_to_quat(math3d.quat_to_mat(q))
    assert back[0] >= 0 and close(math3d.quat_to_mat(back), math3d.quat_to_mat(q), 1e-7)
    v = math3d.quat_to_rotvec(q)
    assert v.norm() <= math.pi + 1e-9
    assert close(math3d.quat_to_mat(math3d.rotvec_to_quat(v)), math3d.quat_to_mat(q), 1e-7)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_come_back(axis: int) -> None:
    """Where the trace is -1, only Shepperd's choice of the largest candidate is stable."""
    q = torch.zeros(4)
    q[1 + axis] = 1
    assert close(math3d.quat_to_mat(math3d.mat_to_quat(math3d.quat_to_mat(q))), math3d.quat_to_mat(q), 1e-6)


def test_length_of_a_quat_does_not_matter() -> None:
    q = torch.tensor([0.2, -0.4, 0.1, 0.7])
    assert close(math3d.quat_to_mat(q * 7), math3d.quat_to_mat(q), 1e-6)


def test_gradients_at_rest_are_finite_and_right() -> None:
    v = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(math3d.rotvec_to_quat, v)
    q = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64, requires_grad=True)
    math3d.quat_to_rotvec(q).sum().backward()
    assert q.grad is not None and torch.isfinite(q.grad).all()


def test_slerp_takes_the_shorter_way_evenly() -> None:
    a, b = math3d.quat_identity().double(), math3d.rotvec_to_quat(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
    for amount in (0.0, 0.25, 1.0):
        angle = math3d.quat_to_rotvec(math3d.quat_slerp(a, b, amount))
        assert close(angle, torch.tensor([0.0, 0.0, 2.0 * amount], dtype=torch.float64))
        assert close(angle, math3d.quat_to_rotvec(math3d.quat_slerp(a, -b, amount)))


@settings(max_examples=60, deadline=None)
@given(TRANSFORMS, TRANSFORMS)
def test_transforms_compose_as_their_names_say(T_a_b: Tensor, T_b_c: Tensor) -> None:
    T_a_c = math3d.transform_mul(T_a_b, T_b_c)
    stepwise = math3d.transform_points(T_a_b[None], math3d.transform_points(T_b_c[None], POINTS))
    assert close(math3d.transform_points(T_a_c[None], POINTS), stepwise, 1e-7)
    assert close(math3d.transform_to_mat(T_a_c), math3d.transform_to_mat(T_a_b) @ math3d.transform_to_mat(T_b_c), 1e-7)
    there = math3d.transform_points(T_a_b[None], POINTS)
    there_and_back = math3d.transform_points(math3d.transform_inverse(T_a_b)[None], there)
    assert close(there_and_back, POINTS, 1e-7)


def test_projection_is_opencvs() -> None:
    K = torch.tensor([[500.0, 0, 256], [0, 480.0, 200], [0, 0, 1]])
    assert close(math3d.project(torch.tensor([[0.1, -0.2, 2.0], [0.0, 0.0, 1.0]]), K),
                 torch.tensor([[281.0, 152.0], [256.0, 200.0]]), 1e-4)  # fmt: skip


def test_look_at_puts_the_target_ahead_and_down_below() -> None:
    eye, target, down = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    view = math3d.look_at(eye, target, down)
    rotation, shift = view[:3, :3], view[:3, 3]
    assert close(rotation @ rotation.T, torch.eye(3), 1e-6) and torch.linalg.det(rotation) == pytest.approx(1, abs=1e-6)
    seen = rotation @ target + shift
    assert close(seen[:2], torch.zeros(2), 1e-6) and seen[2] == pytest.approx((target - eye).norm().item())
    assert (rotation @ down)[1] > 0.5 and abs((rotation @ down)[0]) < 1e-6
