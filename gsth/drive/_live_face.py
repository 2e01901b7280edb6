"""A face tracked while it is filmed: a second of calibration, then milliseconds a frame.

Identity and focal length come from the same fit that tracks clips, on the calibration frames. Each later frame is a
few Gauss-Newton steps on head pose and expressions, from the frame before: landmarks are linear in expressions, so the
normal equations are small (58 unknowns).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsth import head as heads
from gsth import math3d
from gsth.track import _points, _tongue
from gsth.track._fit import NECK_SHARE, SPARSE, Fit, Observed, Stage, Weights
from gsth.track._landmarks import Person
from gsth.track._rig import LandmarkRig, Pose, landmark_weights
from gsth.track.detectors import builtin

if TYPE_CHECKING:
    from gsth.types import Motion

_FOV_RAD = 0.7
"""Prior of a webcam's vertical field of view: 36 to 45 degrees."""
_STAGES = (
    Stage("who", "key", ("root", "place", "gaze", "expr", "shape"), 60, Weights(shape=0.004, expr_steps=0, shake=0)),
    Stage("where", "key", ("root", "place", "gaze", "expr", "shape", "offsets"), 80, Weights(expr_steps=0, shake=0)),
)
_RIDGE = 0.06
"""Price of an expression at 1, squared; errors are in squared % of the inter-ocular distance."""
_CALM = 0.2
"""Price of a change of an expression by 1 from one frame to the next, squared."""
_PAIR = (0.5 / len(_points.PAIRS)) ** 0.5
"""Root of the weight of each gap of lips and lids, as in the fit of clips."""
_STEPS = 3
_EYE_RADIUS_M = 0.012
_MAX_GAZE_RAD = 0.5


class LiveFace:
    """Turns pictures of one camera into Motion, one by one."""

    def __init__(self, head: heads.HeadModel, width: int, height: int, fps: float) -> None:
        """Open the landmark detector.

        Raises:
            MissingExtraError: mediapipe is not installed.
        """
        self._head, self._size, self._fps = head, (width, height), fps
        self._person = Person(builtin.Config().build())
        self._tongues: deque[float] = deque(maxlen=3)

    def close(self) -> None:
        """Release the detector."""
        self._person.detector.close()

    def landmarks(self, picture: np.ndarray) -> np.ndarray | None:
        """Face points of a picture, px [478 2]; None where no face is seen."""
        found = self._person.faces(picture)
        return found[0].points if found else None

    def tongue(self, picture: np.ndarray, points: np.ndarray) -> float:
        """How far the tongue is out in a picture with such landmarks, 0 to 1: typical of the last three looked at."""
        self._tongues.append(_tongue.of(picture, points))
        return sorted(self._tongues)[len(self._tongues) // 2]

    def calibrate(self, points: np.ndarray) -> None:
        """Learn who it is from the landmarks of some frames, px [t 478 2]."""
        width, height = self._size
        t = len(points)
        observed = Observed(
            points=torch.from_numpy(points).float(),
            found=torch.ones(t, dtype=torch.bool),
            shoulders=torch.zeros(t, 2, 3),
            principal=torch.tensor((width / 2, height / 2)),
            focal=height / 2 / math.tan(_FOV_RAD / 2),
            frame_side=max(width, height),
            fps=self._fps,
        )
        fit = Fit(self._head, observed, t, LandmarkRig.of(self._head))
        for _ in fit.run(_STAGES):
            pass
        self._prepare(fit)

    def _prepare(self, fit: Fit) -> None:
        """Keep what each frame needs."""
        names = self._head.expression_names
        rest = Pose.at(math3d.quat_identity(1), torch.zeros(1, 3), len(names))
        self._rig, self._focal, self._principal = fit.rig, float(fit.focal), fit.observed.principal
        self._neutral = fit.rig.points(rest, fit.shape, fit.offsets)[0, : _points.COUNT]
        free = torch.tensor([not n.startswith("eyeLook") for n in names])
        self._basis = fit.rig.model.expr_basis[:, : _points.COUNT] * free[:, None, None]
        weights = landmark_weights()
        weights[list(_points.IRIS_LEFT + _points.IRIS_RIGHT)] = 0
        self._weights = (weights / weights.sum()).sqrt()
        self._upper, self._lower = ([pair[i] for pair in _points.PAIRS] for i in (0, 1))
        price = torch.tensor([next((c for s, c in SPARSE.items() if n.startswith(s)), 1.0) for n in names])
        self._ridge = torch.where(free, _RIDGE * price, torch.full_like(price, 1e3))
        frame = len(fit.pose.place) // 2
        torso = fit.pose.torso()
        self._mean = torso[:, :4].median(0).values
        self._mean = math3d.quat_normalize(self._mean)
        self._rotation, self._place = torso[frame, :4].clone(), torso[frame, 4:].clone()
        self._expr = fit.pose.expr[frame].clone()

    def motion(self, points: np.ndarray, tongue: float = 0.0) -> Motion:
        """One frame's motion from its landmarks, px [478 2], and its ``tongue``; after ``calibrate``."""
        seen = torch.from_numpy(points).float()
        ruler = 100 / float((seen[_points.LEFT_OUTER] - seen[_points.RIGHT_OUTER]).norm().clamp_min(1))
        before = self._expr
        for _ in range(_STEPS):
            self._step(seen, ruler, before)
        return self._assembled(seen, tongue)

    def _step(self, seen: Tensor, ruler: float, before: Tensor) -> None:
        """One Gauss-Newton step on rotation, place and expressions."""
        local = self._neutral + torch.einsum("e,elc->lc", self._expr, self._basis)
        turn = math3d.quat_to_mat(self._rotation)
        turned = local @ turn.T
        xyz = turned + self._place
        z = xyz[:, 2:].clamp_min(1e-3)
        residual = (xyz[:, :2] / z * self._focal + self._principal - seen) * ruler
        # d(pixel)/d(xyz), [l 2 3]
        ones, zero = torch.ones_like(z[:, 0]), torch.zeros_like(z[:, 0])
        rows = torch.stack((ones, zero, -xyz[:, 0] / z[:, 0], zero, ones, -xyz[:, 1] / z[:, 0]), 1).reshape(-1, 2, 3)
        rows = rows * (self._focal / z)[..., None] * ruler
        d_turn = torch.stack([torch.linalg.cross(a.expand_as(turned), turned, dim=-1) for a in torch.eye(3)], -1)
        d_expr = torch.einsum("ij,elj->lie", turn, self._basis)
        slope = torch.cat((rows @ d_turn, rows, rows @ d_expr), 2)
        weigh = self._weights[:, None]
        residual = torch.cat((residual * weigh, (residual[self._upper] - residual[self._lower]) * _PAIR), 0).reshape(-1)
        slope = torch.cat((slope * weigh[..., None], (slope[self._upper] - slope[self._lower]) * _PAIR), 0)
        jacobian = slope.reshape(len(residual), -1)
        price = torch.cat((torch.full((6,), 1e-6), self._ridge + _CALM))
        pull = torch.cat((torch.zeros(6), self._ridge * self._expr + _CALM * (self._expr - before)))
        gram = jacobian.T @ jacobian + torch.diag(price)
        step = torch.linalg.solve(gram, jacobian.T @ residual + pull)
        self._rotation = math3d.quat_normalize(math3d.quat_mul(math3d.rotvec_to_quat(-step[:3]), self._rotation))
        self._place = self._place - step[3:6]
        self._expr = (self._expr - step[6:]).clamp(0, 1)

    def _assembled(self, seen: Tensor, tongue: float) -> Motion:
        """The state as Motion of one frame: a torso at the calibrated rotation, neck and head turned on it."""
        turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(self._mean), self._rotation))[None]
        pose = Pose.at(self._mean[None], self._place[None], len(self._expr))
        pose.neck, pose.head = NECK_SHARE * turn, (1 - NECK_SHARE) * turn
        pose.expr, pose.gaze = self._expr[None].clone(), self._gaze(seen)[None]
        if _tongue.ACTION in self._head.expression_names:
            pose.expr[:, self._head.expression_names.index(_tongue.ACTION)] = tongue
        return self._rig.motion(pose, self._fps)

    def _gaze(self, seen: Tensor) -> Tensor:
        """Rotation (down, to the person's right) of left and right eye from where their irises are, rad [2 2]."""
        turn = math3d.quat_to_mat(self._rotation)
        out = []
        for iris in (_points.IRIS_LEFT, _points.IRIS_RIGHT):
            xyz = self._neutral[list(iris)].mean(0) @ turn.T + self._place
            expected = xyz[:2] / xyz[2] * self._focal + self._principal
            away = (seen[list(iris)].mean(0) - expected) * float(xyz[2]) / self._focal
            side = turn.T @ torch.cat((away, torch.zeros(1)))
            # Image right is the person's left in the model frame; looking down moves the iris down.
            out.append(torch.stack((side[1], -side[0])) / _EYE_RADIUS_M)
        # Both eyes look at one place: what differs is noise.
        both = torch.stack(out).mean(0).clamp(-_MAX_GAZE_RAD, _MAX_GAZE_RAD)
        return both.expand(2, 2).clone()
