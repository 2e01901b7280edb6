"""How points on a head move with what is fitted: derivatives in closed form, and Gauss-Newton steps within bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gsth import math3d
from gsth.head import PARENTS, HeadModel, _lbs

POSE = 12
"""First parameters of a frame: turn and shift of the torso, turns of neck and head; activations follow."""
JOINTS = (1, 2)
"""Neck and head."""
TORSO_TURN, TORSO_SHIFT, NECK, HEAD = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
ACTIVE_SETS = 6
"""Rounds of solving and of changing which activations their bounds hold."""
EDGE = 1e-4
"""Closer than this to 0 or 1 an activation lies on its bound."""


@dataclass
class State:
    """What is fitted in each of t frames."""

    expr: Tensor
    """[t e]."""
    joints: Tensor
    """wxyz [t j 4]."""
    torso: Tensor
    """T_world_head [t 7]."""
    gain: Tensor
    """Brightness of the frame against the clip's: factor less 1, and offset [t 2]."""

    def take(self, frames: Tensor) -> State:
        """Copies of some frames."""
        return State(**{n: v[frames].clone() for n, v in vars(self).items()})

    def put(self, frames: Tensor, other: State) -> None:
        """Some frames back."""
        for name, value in vars(other).items():
            getattr(self, name)[frames] = value


@dataclass(frozen=True, eq=False)
class Carried:
    """Points of t frames, camera frame, and what moved them."""

    x: Tensor
    """[t n 3]."""
    turn: Tensor
    """Rotation-like matrix of each point [t n 3 3]."""
    rot: Tensor
    """Of the joints [t j 3 3]."""
    centres: Tensor
    """[t j 3]."""

    def take(self, points: Tensor) -> Carried:
        """Some of the points."""
        return replace(self, x=self.x[:, points], turn=self.turn[:, points])


@dataclass(frozen=True, eq=False)
class Points:
    """Points that a head carries, with their fields laid out for fast products."""

    model: HeadModel
    free: Tensor
    """Indices of the actions that are fitted [k]."""
    expr: Tensor
    """[n k 3]."""
    shape: Tensor
    """[n s 3]."""
    under: Tensor
    """Share of each point that hangs on neck and on head, with all that they carry [n 2]."""

    @classmethod
    def of(cls, model: HeadModel, free: Tensor) -> Points:
        """The vertices of a model."""
        expr, shape = (b.permute(1, 0, 2).contiguous() for b in (model.expr_basis[free], model.shape_basis))
        under = torch.stack([model.weights[:, j:].sum(1) for j in JOINTS], 1)
        return cls(model, free, expr, shape, under)

    def take(self, points: Tensor, identity: bool) -> Points:
        """Some of the points, for ``rows`` alone or, if so wanted, for ``identity_rows`` too."""
        names = ("expr", "under", "shape") if identity else ("expr", "under")
        return replace(self, **{n: getattr(self, n)[points] for n in names})

    def carried(self, who: Tensor, state: State) -> Carried:
        """Where the points of a person (identity coefficients [s]) lie in each frame."""
        m = self.model
        rest = m.template + torch.einsum("s,svc->vc", who, m.shape_basis)
        rest = rest + torch.einsum("te,evc->tvc", state.expr, m.expr_basis)
        pivots = m.pivots + torch.einsum("s,sjc->jc", who, m.pivot_basis)
        rot, centres = _lbs.joint_frames(pivots, PARENTS, state.joints, state.torso)
        turn, shift = _lbs.blended(m.weights, pivots, rot, centres)
        return Carried(times(turn, rest).add_(shift), turn, rot, centres)

    def rows(self, slope: Tensor, at: Carried, state: State, more: int = 0) -> Tensor:
        """Derivatives [t n r p] of r quantities with these slopes [t n r 3] in the camera frame by ``POSE`` + k values.

        Turns are in the axes of what turns (a step multiplies from the right). The last ``more`` of the p columns are
        the caller's to fill: joining columns later costs as much as finding them.
        """
        k = len(self.free)
        out = slope.new_empty(*slope.shape[:-1], POSE + k + more)
        arm = at.x - state.torso[:, None, 4:]
        out[..., TORSO_TURN] = _turned(arm, slope, math3d.quat_to_mat(state.torso[:, :4]))
        out[..., TORSO_SHIFT] = slope
        for i, (j, columns) in enumerate(zip(JOINTS, (NECK, HEAD), strict=True)):
            arm = (at.x - at.centres[:, None, j]) * self.under[None, :, i, None]
            out[..., columns] = _turned(arm, slope, at.rot[:, j])
        _along(times(at.turn.mT[:, :, None], slope), self.expr, out[..., POSE : POSE + k])
        return out

    def identity_rows(self, slope: Tensor, at: Carried, out: Tensor) -> None:
        """The same by the identity coefficients into [t n r s]; that joints shift with identity is left out."""
        _along(times(at.turn.mT[:, :, None], slope), self.shape, out)


# A matrix product with a small matrix for each of some ten thousand points is many times slower than the same sums
# over whole tensors, so the following write them out.


def _turned(arm: Tensor, slope: Tensor, axes: Tensor) -> Tensor:
    """slope . (axis x arm) for three axes [t 3 3] (columns); [t n r 3]."""
    moment = torch.linalg.cross(arm[:, :, None].expand_as(slope), slope, dim=-1)
    return (moment.flatten(1, 2) @ axes).unflatten(1, moment.shape[1:3])


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices [... 3 3] times vectors [... 3]; leading sizes are brought to each other."""
    out = matrix[..., 0] * vector[..., :1]
    for c in (1, 2):
        out.addcmul_(matrix[..., c], vector[..., c : c + 1])
    return out


def _along(slope: Tensor, fields: Tensor, out: Tensor) -> None:
    """slope [t n r 3] . fields [n k 3] into [t n r k]."""
    torch.mul(slope[..., :1], fields[None, :, None, :, 0], out=out)
    for c in (1, 2):
        out.addcmul_(slope[..., c : c + 1], fields[None, :, None, :, c])


def carried_back(slope: Tensor, x: Tensor, focal: Tensor) -> Tensor:
    """Slopes in the picture [t n 2] of what is seen at points [t n 3], by the points; [t n 3]."""
    scale = focal / x[..., 2:].clamp_min(1e-3)
    across = slope * scale
    along = -(across * x[..., :2]).sum(-1, keepdim=True) / x[..., 2:].clamp_min(1e-3)
    return torch.cat((across, along), -1)


def projected_slopes(x: Tensor, focal: Tensor) -> Tensor:
    """d (px, py) / dx of points [t n 3]; [t n 2 3]."""
    out = x.new_zeros(*x.shape[:2], 2, 3)
    scale = focal / x[..., 2].clamp_min(1e-3)
    out[..., 0, 0] = out[..., 1, 1] = scale
    out[..., 2] = -x[..., :2] * (scale / x[..., 2].clamp_min(1e-3))[..., None]
    return out


def moved(state: State, step: Tensor, free: Tensor) -> State:
    """The state after a step [t POSE + k + 2] (the last two: gain); activations stay within 0 and 1."""
    expr, joints, torso = state.expr.clone(), state.joints.clone(), state.torso.clone()
    turns = math3d.rotvec_to_quat(step[:, :POSE].reshape(-1, 4, 3)[:, [0, 2, 3]])
    torso[:, :4] = math3d.quat_normalize(math3d.quat_mul(torso[:, :4], turns[:, 0]))
    torso[:, 4:] += step[:, TORSO_SHIFT]
    for k, j in enumerate(JOINTS):
        joints[:, j] = math3d.quat_normalize(math3d.quat_mul(joints[:, j], turns[:, k + 1]))
    expr[:, free] = (expr[:, free] + step[:, POSE:-2]).clamp(0, 1)
    return State(expr, joints, torso, state.gain + step[:, -2:])


def between(start: State, now: State, free: Tensor) -> Tensor:
    """The step [t POSE + k + 2] that leads from one state to another, for small turns."""

    def turn(a: Tensor, b: Tensor) -> Tensor:
        return math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(a), b))

    shift = now.torso[:, 4:] - start.torso[:, 4:]
    turns = [turn(start.joints[:, j], now.joints[:, j]) for j in JOINTS]
    expr = (now.expr - start.expr)[:, free]
    return torch.cat((turn(start.torso[:, :4], now.torso[:, :4]), shift, *turns, expr, now.gain - start.gain), -1)


def midway(a: State, b: State) -> State:
    """Halfway between two states."""

    def mean(p: Tensor, q: Tensor) -> Tensor:
        same = (p * q).sum(-1, keepdim=True) >= 0
        return math3d.quat_normalize(p + torch.where(same, q, -q))

    torso = torch.cat((mean(a.torso[:, :4], b.torso[:, :4]), (a.torso[:, 4:] + b.torso[:, 4:]) / 2), 1)
    return State((a.expr + b.expr) / 2, mean(a.joints, b.joints), torso, (a.gain + b.gain) / 2)


def bounded_step(hessian: Tensor, gradient: Tensor, expr: Tensor) -> Tensor:
    """Minimum of 1/2 d H d + g d with activations [t k] + d within 0 and 1; by active sets.

    Source: Nocedal and Wright 2006, Numerical Optimization, section 16.7 (several bounds change in each round).

    Args:
        hessian: Positive definite [t p p].
        gradient: [t p].
        expr: The activations now; they are the parameters ``POSE`` to ``POSE + k``.
    """
    k = expr.shape[1]
    low, high = (torch.full_like(gradient, v) for v in (-torch.inf, torch.inf))
    low[:, POSE : POSE + k], high[:, POSE : POSE + k] = -expr, 1 - expr
    step = torch.zeros_like(gradient)
    fixed = torch.zeros_like(gradient, dtype=torch.bool)
    for _ in range(ACTIVE_SETS):
        held = torch.where(fixed, step, 0.0)
        wanted = torch.where(fixed, held, -(gradient + (hessian @ held[..., None])[..., 0]))
        step = torch.linalg.solve(without(hessian, fixed), wanted)
        beyond = (step < low - 1e-6) | (step > high + 1e-6)
        step = step.clamp(low, high)
        slope = gradient + (hessian @ step[..., None])[..., 0]
        # what a bound holds although the cost falls towards the inside goes free again
        inwards = fixed & torch.where(step <= low, slope < -1e-6, slope > 1e-6)
        if not (beyond | inwards).any():
            break
        fixed = (fixed | beyond) & ~inwards
    return step


def without(hessian: Tensor, fixed: Tensor) -> Tensor:
    """The matrix [t p p] with some rows and columns [t p] replaced by those of the identity."""
    free = ~fixed
    return hessian * free[:, :, None] * free[:, None] + torch.diag_embed(fixed.to(hessian.dtype))


def pinned(gradient: Tensor, expr: Tensor) -> Tensor:
    """Parameters [t p] that lie on a bound and are pushed beyond it by the gradient [t p]."""
    k = expr.shape[1]
    out = torch.zeros_like(gradient, dtype=torch.bool)
    push = gradient[:, POSE : POSE + k]
    out[:, POSE : POSE + k] = ((expr < EDGE) & (push > 0)) | ((expr > 1 - EDGE) & (push < 0))
    return out


def with_offsets(model: HeadModel, offsets: Tensor) -> HeadModel:
    """The model with its first vertices moved by offsets [m 3]."""
    template = model.template.clone()
    template[: len(offsets)] += offsets
    return replace(model, template=template)
