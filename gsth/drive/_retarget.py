"""One person's motion on another's face: neutral to neutral, span to span; head pose as asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from gsth import math3d
from gsth.drive import _person
from gsth.errors import InputError
from gsth.head import JOINTS
from gsth.math3d import mean_placement, mean_rotation

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Motion

Pose = Literal["relative", "absolute", "none"]
_SPAN = (0.5, 2.0)
"""Limits of the factor between two persons' spans of one expression."""
_SEEN = 0.08
"""An expression whose span is smaller in either clip is passed on as it is: a span of noise says nothing."""
_LIMIT_RAD = 0.6
"""A relative turn is not carried farther than this from the avatar's mean pose."""
_REACH_M = 0.01
"""A torso may always go so far from its mean place; farther only where the avatar's clip showed it."""
_EYES = slice(JOINTS.index("eye_l"), JOINTS.index("eye_r") + 1)
_SKULL = slice(JOINTS.index("neck"), JOINTS.index("head") + 1)


@dataclass(frozen=True, eq=False)
class Actor:
    """What is typical of one person: rest, span, mean pose."""

    rest: Tensor
    """[e]."""
    span: Tensor
    """How far each expression goes above rest, [e]."""
    joints: Tensor
    """Mean rotations [j 4]."""
    place: Tensor
    """Mean T_world_head, [7]."""
    reach: Tensor
    """How far the torso was seen to go from there, m, [3]."""

    @classmethod
    def of(cls, motion: Motion, gap: Tensor, names: tuple[str, ...]) -> Actor:
        """Learn it from some seconds of motion; ``gap`` are ``_person.opening_weights``."""
        expr = motion.expr.float()
        rest = _person.rest_of(expr, expr @ gap, list(names))
        span = (expr.quantile(0.97, dim=0) - rest).clamp_min(0)
        joints = torch.stack([mean_rotation(motion.joints[:, j]) for j in range(len(JOINTS))])
        place = mean_placement(motion.T_world_head)
        reach = (motion.T_world_head[:, 4:] - place[4:]).abs().amax(0).clamp_min(_REACH_M)
        return cls(rest, span, joints, place, reach)


@dataclass(frozen=True, eq=False)
class Retarget:
    """Carries motion from a source to an avatar."""

    source: Actor
    target: Actor
    ratio: Tensor
    """Factor on each expression's way from rest, [e]."""
    pose: Pose

    @classmethod
    def of(cls, known: Motion, avatar: Avatar, pose: Pose, gain: float = 1.0) -> Retarget:
        """Take what is typical of the source from ``known``, of the avatar from its training part.

        Raises:
            InputError: The motion is of another head model, or has no frame.
        """
        if known.head != avatar.head.id:
            raise InputError(f"the motion is for head {known.head}, the avatar stands on {avatar.head.id}")
        if len(known) == 0:
            raise InputError("the source has no frame with a face")
        gap, names = _person.opening_weights(avatar.head), avatar.head.expression_names
        source = Actor.of(known, gap, names)
        target = Actor.of(avatar.motion[: max(avatar.source.train_frames, 1)], gap, names)
        ratio = (target.span / source.span.clamp_min(1e-6)).clamp(*_SPAN)
        unseen = (source.span < _SEEN) | (target.span < _SEEN)
        # Lids close fully in everyone, and gaze is an angle: neither has a personal span.
        fixed = torch.tensor([n.startswith(("eyeBlink", "eyeLook")) for n in names])
        ratio = torch.where(unseen | fixed, torch.ones_like(ratio), ratio)
        return cls(source, target, torch.where(fixed, ratio, ratio * gain), pose)

    def __call__(self, motion: Motion) -> Motion:
        """The avatar's motion for some of the source's."""
        expr = (self.target.rest + self.ratio * (motion.expr - self.source.rest)).clamp(0, 1)
        joints = self.target.joints.repeat(len(motion), 1, 1)
        place = self.target.place.repeat(len(motion), 1)
        joints[:, _EYES] = self._turned(motion.joints, _EYES)
        if self.pose == "relative":
            joints[:, _SKULL] = self._turned(motion.joints, _SKULL)
            turn = math3d.quat_mul(math3d.quat_conj(self.source.place[:4]), motion.T_world_head[:, :4])
            place[:, :4] = math3d.quat_mul(place[:, :4], _held(turn))
        elif self.pose == "absolute":
            joints[:, _SKULL] = motion.joints[:, _SKULL]
            place[:, :4] = motion.T_world_head[:, :4]
        if self.pose != "none":
            # The place in the picture stays the avatar's (two cameras share no origin), and so does its range: what
            # was never filmed, such as the torso's lower edge, must not come into the picture.
            away = motion.T_world_head[:, 4:] - self.source.place[4:]
            place[:, 4:] = place[:, 4:] + self.target.reach * torch.tanh(away / self.target.reach)
        return motion.replace(expr=expr, joints=joints, T_world_head=place, audio=None)

    def _turned(self, joints: Tensor, which: slice) -> Tensor:
        """The source's turns from its mean, on the target's mean, [t j 4]."""
        turn = math3d.quat_mul(math3d.quat_conj(self.source.joints[which]), joints[:, which])
        return math3d.quat_mul(self.target.joints[which].expand_as(turn), _held(turn))


def _held(turn: Tensor) -> Tensor:
    """Rotations [... 4], none larger than the limit."""
    vector = math3d.quat_to_rotvec(turn)
    angle = vector.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return math3d.rotvec_to_quat(vector * (angle.clamp_max(_LIMIT_RAD) / angle))
