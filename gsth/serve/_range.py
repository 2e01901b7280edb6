"""How far what is shown lies outside of what training saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import math3d

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.serve._optics import Orbit
    from gsth.types import Motion

_VIEW_DEG, _EXPR = 15.0, 0.15
"""The meter stands at 1 where a view is so far from the nearest trained one, or an expression beyond its span."""
_MOST_VIEWS = 512


@dataclass(frozen=True)
class Reading:
    """One look at the meter."""

    level: float
    """0: seen in training; 1: well outside."""
    reason: str
    """What lies outside, empty where nothing does."""


class TrainedRange:
    """Compares moments and cameras with the frames that an avatar was trained on."""

    def __init__(self, avatar: Avatar) -> None:
        """Learn the views and spans of the training frames."""
        known = avatar.motion[: max(avatar.source.train_frames, 1)]
        self._pivots = avatar.shaped.pivots
        self._names = avatar.head.expression_names
        stride = max(1, math.ceil(len(known) / _MOST_VIEWS))
        eye = -avatar.cameras.viewmats[0, :3, :3].T @ avatar.cameras.viewmats[0, :3, 3]
        self._views = torch.cat([self._seen_from(known[i], eye) for i in range(0, len(known), stride)])
        self._low, self._high = known.expr.amin(0), known.expr.amax(0)

    def read(self, motion: Motion, orbit: Orbit) -> Reading:
        """The meter for one frame of motion and a camera."""
        view = self._seen_from(motion, torch.tensor(orbit.position))[0]
        away = math.degrees(math.acos(float((self._views @ view).max().clamp(-1, 1))))
        beyond = torch.maximum(motion.expr[0] - self._high, self._low - motion.expr[0]).clamp_min(0)
        worst = int(beyond.argmax())
        levels = away / _VIEW_DEG, float(beyond[worst]) / _EXPR
        reasons = []
        if away > 3:
            reasons.append(f"seen from {away:.0f} degrees beside what was filmed")
        if beyond[worst] > 0.05:
            more = int((beyond > 0.05).sum()) - 1
            others = f" and {more} more" if more else ""
            low, high = float(self._low[worst]), float(self._high[worst])
            reasons.append(
                f"{self._names[worst]} {float(motion.expr[0, worst]):.2f} (filmed {low:.2f} to {high:.2f}){others}"
            )
        return Reading(min(max(levels), 1.0), "; ".join(reasons))

    def _seen_from(self, motion: Motion, eye: Tensor) -> Tensor:
        """The direction from the head to a point of the world in the head's own axes, [1 3]."""
        turn, place = motion.T_world_head[0, :4], motion.T_world_head[0, 4:]
        for j, parent in ((0, None), (1, 0), (2, 1)):
            step = self._pivots[j] - (self._pivots[parent] if parent is not None else 0)
            place = place + math3d.quat_rotate(turn, step)
            turn = math3d.quat_mul(turn, motion.joints[0, j])
        to = math3d.quat_rotate(math3d.quat_conj(turn), eye - place)
        return torch.nn.functional.normalize(to, dim=0)[None]
