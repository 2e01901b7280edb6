"""How far what is shown lies outside of what training saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth.avatar import seen_from

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
        self._shaped, self._names = avatar.shaped, avatar.head.expression_names
        eye = -avatar.cameras.viewmats[0, :3, :3].T @ avatar.cameras.viewmats[0, :3, 3]
        # The avatar's motion is that of its first clip, its meta tells of all.
        told = avatar.meta.get("trained_views")
        self._views = _directions(told) if told else seen_from(self._shaped, known, eye)
        self._views = self._views[:: max(1, math.ceil(len(self._views) / _MOST_VIEWS))]
        spans = avatar.meta.get("trained_range", {})
        if all(name in spans for name in self._names):
            self._low, self._high = torch.tensor([spans[name] for name in self._names]).T
        else:
            self._low, self._high = known.expr.amin(0), known.expr.amax(0)

    def read(self, motion: Motion, orbit: Orbit) -> Reading:
        """The meter for one frame of motion and a camera."""
        view = seen_from(self._shaped, motion, torch.tensor(orbit.position))[0]
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


def _directions(degrees: list[list[int]]) -> Tensor:
    """Unit vectors [k 3] of ``Avatar.meta["trained_views"]``."""
    longitude, latitude = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32)).T
    flat = latitude.cos()
    return torch.stack((flat * longitude.sin(), latitude.sin(), -flat * longitude.cos()), 1)
