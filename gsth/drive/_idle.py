"""Idle life: blinks, glances and head sway, seeded; a function of time, so that any piece of it can be had alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gsth import math3d
from gsth.drive._config import IdleConfig
from gsth.errors import InputError
from gsth.head import JOINTS
from gsth.math3d import mean_placement, mean_rotation
from gsth.types import HeadId, Motion

_NECK, _HEAD = JOINTS.index("neck"), JOINTS.index("head")
_EYES = slice(JOINTS.index("eye_l"), JOINTS.index("eye_r") + 1)
_CLOSE_S, _SHUT_S, _OPEN_S = 0.09, 0.04, 0.16
"""Phases of a blink: lids go down in about 90 ms and come up slower (Bentivoglio et al. 1997 for rates and times)."""
_SWAY_HZ = (0.06, 0.45)
"""Band of the head's sway; three waves of random phase each for pitch, yaw and roll."""
_WAVES = 3
_SWAY_RAD = (0.02, 0.03, 0.012)
"""Sway where the person's own is unknown or smaller: pitch, yaw, roll, standard deviation, rad."""
_MAX_EYE_RAD = 0.45
_TAU = 2 * math.pi


class Idle:
    """One person's idle life, in the world and range of their tracked motion."""

    def __init__(self, motion: Motion, names: Sequence[str], seed: int, config: IdleConfig) -> None:
        """Take mean pose and range from ``motion`` (at least one frame); ``names`` are the head's expressions."""
        if len(motion) == 0:
            raise InputError("the avatar's tracked motion has no frames; train it again")
        self._config = config
        self._head_id: HeadId = motion.head
        self._lids = [i for i, n in enumerate(names) if n.startswith("eyeBlink")]
        self._random = np.random.default_rng(seed)
        self._place = mean_placement(motion.T_world_head)
        self._joints = torch.stack([mean_rotation(motion.joints[:, j]) for j in range(len(JOINTS))])
        waves = [self._waves(motion.joints[:, j], j, share) for j, share in ((_NECK, 0.4), (_HEAD, 0.6))]
        self._sway = [np.stack(both) for both in zip(*waves, strict=True)]
        skull = math3d.quat_mul(self._joints[_NECK], self._joints[_HEAD])
        self._gaze = math3d.quat_mul(skull, self._joints[_EYES])
        self._blinks = [0.0]
        self._glances: list[tuple[float, float, float]] = [(-1.0, 0.0, 0.0)]
        # Blinks and glances are drawn on demand; streams of their own keep them apart from each other.
        self._blink_random, self._glance_random = self._random.spawn(2)

    def _waves(self, quats: Tensor, joint: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Frequencies, phases and amplitudes [3 axes, waves], and the limit of each axis, rad."""
        turns = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(self._joints[joint]), quats)).numpy()
        own = turns.std(0)
        spread = np.maximum(own, share * np.asarray(_SWAY_RAD)) * self._config.sway
        # Where the clip shows hardly any motion, the limit is that of the default sway.
        limit = np.maximum(np.abs(turns).max(0), 2.5 * share * np.asarray(_SWAY_RAD))
        frequency = np.sort(self._random.uniform(*_SWAY_HZ, (3, _WAVES)), 1)
        amplitude = spread[:, None] * np.sqrt(2 / _WAVES) * np.ones((3, _WAVES))
        return frequency, self._random.uniform(0, _TAU, (3, _WAVES)), amplitude, limit

    def frames(self, first: int, count: int, fps: float, expr: Tensor, nod: Tensor | None = None) -> Motion:
        """Frames ``first`` to ``first + count``: the given expressions [count e] with blinks, on a living pose.

        ``nod`` lowers the head by so many radians [count]; the gaze holds all the same.
        """
        times = (np.arange(first, first + count) + 0.5) / fps
        expr = expr.clone()
        if self._lids:
            lids = torch.from_numpy(self._lid_closure(times)).to(expr.dtype)[:, None]
            expr[:, self._lids] = expr[:, self._lids] + (1 - expr[:, self._lids]) * lids
        joints = self._joints.repeat(count, 1, 1)
        swaying = [_NECK, _HEAD]
        sway = math3d.rotvec_to_quat(self._turns(times, *self._sway))
        joints[:, swaying] = math3d.quat_mul(joints[:, swaying], sway)
        if nod is not None:
            axis = torch.tensor((1.0, 0.0, 0.0))
            joints[:, _HEAD] = math3d.quat_mul(joints[:, _HEAD], math3d.rotvec_to_quat(nod[:, None] * axis))
        joints[:, _EYES] = self._eyes(times, joints)
        return Motion(self._head_id, fps, expr, joints, self._place.repeat(count, 1))

    @staticmethod
    def _turns(
        times: np.ndarray, frequency: np.ndarray, phase: np.ndarray, amplitude: np.ndarray, limit: np.ndarray
    ) -> Tensor:
        """Rotation vectors of neck and head, rad, [t 2 3], from waves [2 3 w] and limits [2 3]."""
        raw = (amplitude * np.sin(_TAU * frequency * times[:, None, None, None] + phase)).sum(3)
        return torch.from_numpy(limit * np.tanh(raw / limit)).float()

    def _eyes(self, times: np.ndarray, joints: Tensor) -> Tensor:
        """Eye rotations that keep the mean gaze where it was while the head sways, plus small glances, [t 2 4]."""
        skull = math3d.quat_mul(joints[:, _NECK], joints[:, _HEAD])
        turn = math3d.quat_to_rotvec(math3d.quat_mul(math3d.quat_conj(skull)[:, None], self._gaze[None]))
        turn = turn + torch.from_numpy(self._glance(times)).to(turn.dtype)[:, None]
        angle = turn.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        return math3d.rotvec_to_quat(turn * (angle.clamp_max(_MAX_EYE_RAD) / angle))

    def _lid_closure(self, times: np.ndarray) -> np.ndarray:
        """How far the lids are down at each time, 0 to 1, [t]."""
        out = np.zeros(len(times))
        if self._config.blinks_per_minute == 0:
            return out
        mean_s = 60 / self._config.blinks_per_minute
        while self._blinks[-1] < times[-1] + 1:
            # Intervals between blinks are skewed: many short, some long.
            gap = mean_s * self._blink_random.lognormal(-0.18, 0.6)
            self._blinks.append(self._blinks[-1] + max(gap, 0.7))
        near = (b for b in self._blinks[1:] if times[0] - 1 < b < times[-1] + 1)
        for begun in near:
            t = times - begun
            down = np.clip(t / _CLOSE_S, 0, 1)
            up = np.clip((t - _CLOSE_S - _SHUT_S) / _OPEN_S, 0, 1)
            out = np.maximum(out, _smooth(down) * (1 - _smooth(up)))
        return out

    def _glance(self, times: np.ndarray) -> np.ndarray:
        """Small rotation of the gaze about x and y, rad, [t 3]; it rests and jumps, as eyes do."""
        while self._glances[-1][0] < times[-1] + 1:
            start = max(self._glances[-1][0], 0.0) + self._glance_random.uniform(0.5, 2.4)
            across, along = self._glance_random.normal(0, (0.010, 0.018)) * self._config.glance
            self._glances.append((start, float(across), float(along)))
        starts = np.asarray([g[0] for g in self._glances])
        targets = np.asarray([(g[1], g[2], 0.0) for g in self._glances])
        now = np.searchsorted(starts, times, side="right") - 1
        # A saccade of this size takes about 30 ms.
        arrived = _smooth(np.clip((times - starts[now]) / 0.03, 0, 1))[:, None]
        return targets[np.maximum(now - 1, 0)] * (1 - arrived) + targets[now] * arrived


def _smooth(x: np.ndarray) -> np.ndarray:
    """Smoothstep of 0..1."""
    return x * x * (3 - 2 * x)
