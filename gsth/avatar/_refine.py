"""Small per-frame corrections of the tracked motion, found by the picture loss while the avatar trains.

Landmarks leave a pixel or two of error, which blurs what is learned. Correcting the training frames has a gauge
freedom: the canonical head could drift and the corrections follow, and frames never trained on, which keep the
tracker's motion, would then miss. The same holds for corrections that grow with the turn of the head. So corrections
are priced by how far the tracker can plausibly be off, and what a linear function of the tracked pose tells of them,
their mean included, is held at zero: that is for the avatar to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import math3d
from gsth.avatar._avatar import motion_features
from gsth.types import Motion

_TORSO_ROT, _TORSO_POS, _NECK, _HEAD = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
_POSE = 12
ANCHOR = 2e-3
_FRAMES = 10
"""A direction of the pose is asked what it tells for every so many frames; of few frames, many would tell all."""


def _spread(expressions: int) -> Tensor:
    """Plausible tracking error of each value: rad for rotations, m for the position, activation for expressions."""
    return torch.tensor([0.01] * 3 + [0.003] * 3 + [0.02] * 3 + [0.02] * 3 + [0.05] * expressions)


@dataclass
class MotionRefinement:
    """Corrections of every frame in units of their spread, with one Adam state per frame."""

    values: Tensor
    """[t p]."""
    first: Tensor
    second: Tensor
    count: Tensor
    """How often each frame was stepped, [t]."""

    @classmethod
    def zeros(cls, motion: Motion) -> MotionRefinement:
        p = _POSE + motion.expr.shape[1]
        values, first, second = torch.zeros(3, len(motion), p)
        return cls(values, first, second, torch.zeros(len(motion)))

    def leaf(self, frame: int) -> Tensor:
        """This frame's corrections as a differentiable leaf [p]."""
        return self.values[frame].clone().requires_grad_()

    def apply(self, motion: Motion, leaf: Tensor) -> Motion:
        """The corrected Motion of one frame."""
        delta = leaf * _spread(motion.expr.shape[1])
        turn = math3d.rotvec_to_quat(delta[:_POSE].reshape(4, 3))
        torso = torch.cat((math3d.quat_mul(turn[:1], motion.T_world_head[:, :4]), motion.T_world_head[:, 4:]), 1)
        torso = torso + torch.cat((torch.zeros(4), delta[_TORSO_POS]))[None]
        neck_head = math3d.quat_mul(motion.joints[0, 1:3], turn[2:])
        joints = torch.cat((motion.joints[:, :1], neck_head[None], motion.joints[:, 3:]), 1)
        return motion.replace(expr=(motion.expr + delta[_POSE:]).clamp(0, 1), joints=joints, T_world_head=torso)

    def penalty(self, leaf: Tensor) -> Tensor:
        """Price of leaving the track."""
        return ANCHOR * (leaf * leaf).mean()

    def step(self, frame: int, gradient: Tensor, lr: float = 0.05) -> None:
        """Adam on one frame alone (Kingma and Ba 2015), so that rarely seen frames do not drift on old momentum."""
        self.count[frame] += 1
        t = float(self.count[frame])
        self.first[frame].lerp_(gradient, 0.1)
        self.second[frame].lerp_(gradient * gradient, 0.01)
        update = (self.first[frame] / (1 - 0.9**t)) / ((self.second[frame] / (1 - 0.99**t)).sqrt() + 1e-8)
        self.values[frame] -= lr * update

    def applied(self, motion: Motion) -> Motion:
        """All frames, corrected."""
        frames = [self.apply(motion[i], self.values[i]) for i in range(len(motion))]
        fields = ("expr", "joints", "T_world_head")
        return motion.replace(**{f: torch.cat([getattr(m, f) for m in frames]) for f in fields})

    def anchor(self, motion: Motion, rows: slice) -> None:
        """Take out of the stepped frames' corrections what is linear in the tracked pose.

        Args:
            motion: Of all frames.
            rows: The frames of one clip: each has its own camera, so poses of two say nothing of each other.
        """
        stepped = torch.zeros(len(self.count), dtype=torch.bool)
        stepped[rows] = self.count[rows] > 0
        values = self.values[stepped]
        pose = torch.cat((motion_features(motion)[:, -9:], motion.T_world_head[:, 4:]), 1)[stepped]
        pose, values = pose - pose.mean(0), values - values.mean(0)
        pose = pose / pose.norm(dim=0).clamp_min(1e-6)
        directions, strength, _ = torch.linalg.svd(pose, full_matrices=False)
        told = directions[:, : len(pose) // _FRAMES][:, strength[: len(pose) // _FRAMES] > 1e-3]
        self.values[stepped] = values - told @ (told.T @ values)
