"""Derivatives agree with differences; bounded steps reach the bounded minimum."""

from __future__ import annotations

import pytest
import torch

from gsth import head, math3d
from gsth.track import _gauss
from gsth.track._gauss import POSE, Points, State

FREE = torch.tensor([0, 7, 17, 23])


@pytest.fixture(scope="module")
def points() -> Points:
    """Some vertices of the built-in head: face, neck and torso."""
    model = head.load()
    skin = model.faces[model.parts["skin"]].unique()
    return Points.of(model.subset(skin[:: len(skin) // 300]), FREE)


@pytest.fixture(scope="module")
def state() -> State:
    """Two frames of a turned, speaking head."""
    g = torch.Generator().manual_seed(2)
    joints = math3d.rotvec_to_quat(0.2 * torch.randn(2, 5, 3, generator=g))
    joints[:, 0] = math3d.quat_identity(2)
    torso = torch.cat(
        (math3d.rotvec_to_quat(0.2 * torch.randn(2, 3, generator=g)), torch.tensor([[0, 0.1, 1.0]] * 2)), 1
    )
    return State(0.5 * torch.rand(2, 52, generator=g), joints, torso, torch.zeros(2, 2))


def differences(points: Points, state: State, who: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Central differences of slope . x by every motion parameter [t n 1 p]."""
    out = []
    for k in range(POSE + len(FREE)):
        step = torch.zeros(2, POSE + len(FREE) + 2)
        step[:, k] = 1e-2
        ahead, back = (points.carried(who, _gauss.moved(state, s * step, FREE)).x for s in (1, -1))
        out.append((slope[:, :, 0] * (ahead - back)).sum(-1) / 2e-2)
    return torch.stack(out, -1)[:, :, None]


def test_rows_are_the_derivatives(points: Points, state: State) -> None:
    who = torch.zeros(len(points.model.shape_basis))
    slope = torch.randn(2, len(points.under), 1, 3, generator=torch.Generator().manual_seed(1))
    want = differences(points, state, who, slope)
    got = points.rows(slope, points.carried(who, state), state)
    # skinned points between two joints are taken to turn as one body: exact elsewhere
    one_body = points.model.weights.max(1).values > 0.999
    assert one_body.sum() > 100
    assert (got - want)[:, one_body].abs().max() < 2e-3 * want.abs().max()
    assert (got - want).abs().mean() < 0.02 * want.abs().mean()


def test_identity_rows_are_the_derivatives(points: Points, state: State) -> None:
    who = torch.zeros(len(points.model.shape_basis))
    slope = torch.randn(2, len(points.under), 1, 3, generator=torch.Generator().manual_seed(1))
    got = slope.new_empty(*slope.shape[:3], len(who))
    points.identity_rows(slope, points.carried(who, state), got)
    for k in (0, 9, 40):
        step = torch.zeros_like(who)
        step[k] = 0.5
        # joints shift with identity, which the rows leave out: only what hangs on the torso alone is exact
        fixed = points.model.weights[:, 0] > 0.999
        ahead, back = (points.carried(who + s * step, state).x for s in (1, -1))
        want = (slope[:, :, 0] * (ahead - back)).sum(-1)
        assert torch.allclose(got[:, fixed, 0, k], want[:, fixed], atol=1e-4)


def test_step_there_and_back(state: State) -> None:
    step = 0.05 * torch.randn(2, POSE + len(FREE) + 2, generator=torch.Generator().manual_seed(4))
    step[:, POSE:-2] = step[:, POSE:-2].abs()
    there = _gauss.moved(state, step, FREE)
    assert torch.allclose(_gauss.between(state, there, FREE), step, atol=1e-5)


def test_a_bounded_step_is_the_bounded_minimum() -> None:
    g = torch.Generator().manual_seed(0)
    size = POSE + 6
    root = torch.randn(8, size + 4, size, generator=g)
    hessian, gradient = root.mT @ root, 4 * torch.randn(8, size, generator=g)
    expr = torch.rand(8, 6, generator=g)
    expr[:, 0], expr[:, 1] = 0.0, 1.0
    step = _gauss.bounded_step(hessian, gradient, expr)
    reached = expr + step[:, POSE:]
    assert ((reached > -1e-5) & (reached < 1 + 1e-5)).all()
    slow = torch.zeros_like(gradient)
    rate = 1 / torch.linalg.matrix_norm(hessian, 2)[:, None]
    for _ in range(20_000):  # projected gradient descent, which cannot miss
        slow = slow - rate * (gradient + (hessian @ slow[..., None])[..., 0])
        slow[:, POSE:] = (expr + slow[:, POSE:]).clamp(0, 1) - expr

    def cost(d: torch.Tensor) -> torch.Tensor:
        return 0.5 * (d * (hessian @ d[..., None])[..., 0]).sum(-1) + (gradient * d).sum(-1)

    assert (cost(step) - cost(slow) < 0.02 * cost(slow).abs()).all()
    assert ((reached < 1e-5) | (reached > 1 - 1e-5)).any(), "no bound was active: the test shows nothing"


def test_pinned_are_those_pushed_out() -> None:
    gradient = torch.zeros(1, POSE + 4)
    gradient[0, POSE:] = torch.tensor((1.0, -1.0, 1.0, -1.0))
    pinned = _gauss.pinned(gradient, torch.tensor(((0.0, 0.0, 1.0, 1.0),)))
    assert pinned[0].nonzero()[:, 0].tolist() == [POSE, POSE + 3]
