"""Where a visitor looks from: a page's orbit camera, and the cameras that draw for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import math3d
from gsth.types import Cameras

if TYPE_CHECKING:
    from gsth.avatar import Avatar

PRESETS_DEG = {"front": 0.0, "left": 60.0, "right": -60.0, "three quarter": 30.0, "back": 180.0}
"""Turns around the head, degrees; positive: the person's left side is seen."""


@dataclass(frozen=True)
class Orbit:
    """Where a page's orbit camera stands, house axes, and the canvas that it fills."""

    position: tuple[float, float, float]
    """m, world."""
    wxyz: tuple[float, float, float, float]
    """Its axes (OpenCV) in the world."""
    fov: float
    """Vertical, rad."""
    width: int
    """Of the canvas, px."""
    height: int


@dataclass(frozen=True, eq=False)
class Optics:
    """Turns orbit cameras into those that draw.

    An orbit camera looks at the middle of the head, the training camera usually past it, through a lens whose
    principal point is not in the middle of the crop. So the drawing camera keeps the training camera's lens and is
    mounted on the orbit camera at a fixed angle, such that the home position gives the training view to the pixel
    and the head stays at its place in the picture from every side.
    """

    training: Cameras
    target: Tensor
    """The point to orbit around, world [3]."""
    R_draw_orbit: Tensor = field(init=False)
    """Orbit camera axes to drawing camera axes, [3 3]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "R_draw_orbit", self.training.viewmats[0, :3, :3] @ self._orbit_axes())

    @classmethod
    def of(cls, avatar: Avatar) -> Optics:
        """Around the middle of the avatar's head, as it is in the first frame."""
        weights = avatar.head.weights[:, 2:].sum(-1)
        on_head = weights > 0.5
        verts = avatar.shaped.posed(avatar.motion[0]).verts[0]
        return cls(avatar.cameras, verts[on_head if on_head.any() else slice(None)].mean(0))

    @property
    def home_fov(self) -> float:
        """Vertical angle of the training view, rad."""
        return 2 * math.atan(self.training.height / (2 * float(self.training.Ks[0, 1, 1])))

    def home(self, width: int, height: int) -> Orbit:
        """The orbit camera that gives the training view."""
        axes = math3d.mat_to_quat(self._orbit_axes())
        return Orbit(tuple(self._eye().tolist()), tuple(axes.tolist()), self.home_fov, width, height)

    def is_home(self, orbit: Orbit) -> bool:
        """Whether the training view is asked for: by less than half a millimetre, a twentieth of a degree."""
        home = self.home(orbit.width, orbit.height)
        aligned = abs(sum(a * b for a, b in zip(home.wxyz, orbit.wxyz, strict=True)))
        return (
            math.dist(home.position, orbit.position) < 5e-4
            and 2 * math.acos(min(1.0, aligned)) < math.radians(0.05)
            and abs(home.fov - orbit.fov) < 1e-3
        )

    def cameras(self, orbit: Orbit, width: int, height: int) -> Cameras:
        """The drawing camera for a picture of the given size.

        At the home angle of view the whole training crop fits into the picture, whatever its shape.
        """
        position = torch.tensor(orbit.position)
        view = torch.eye(4)
        view[:3, :3] = self.R_draw_orbit @ math3d.quat_to_mat(torch.tensor(orbit.wxyz)).T
        view[:3, 3] = -view[:3, :3] @ position
        scale = self.scale(width, height) * math.tan(self.home_fov / 2) / math.tan(orbit.fov / 2)
        K = self.training.Ks[0].clone()
        K[:2] *= scale
        K[0, 2] += (width - self.training.width * scale) / 2
        K[1, 2] += (height - self.training.height * scale) / 2
        return Cameras(view[None], K[None], width, height)

    def scale(self, width: int, height: int) -> float:
        """Picture pixels per pixel of the training crop, at the home angle of view."""
        return min(width / self.training.width, height / self.training.height)

    def _eye(self) -> Tensor:
        view = self.training.viewmats[0]
        return -view[:3, :3].T @ view[:3, 3]

    def _orbit_axes(self) -> Tensor:
        """Axes of the orbit camera at home, in the world, [3 3]."""
        return math3d.look_at(self._eye(), self.target, torch.tensor((0.0, 1.0, 0.0)))[:3, :3].T

    def beside(self, degrees: float) -> Orbit:
        """The home camera after it went round the head; positive shows the person's left side."""
        home = self.home(1, 1)
        turn = math3d.rotvec_to_quat(torch.tensor((0.0, -math.radians(degrees), 0.0)))
        eye = self.target + math3d.quat_rotate(turn, torch.tensor(home.position) - self.target)
        wxyz = math3d.quat_mul(turn, torch.tensor(home.wxyz))
        return replace(home, position=tuple(eye.tolist()), wxyz=tuple(wxyz.tolist()))

    def between(self, keys: Sequence[Orbit], amount: float) -> Orbit:
        """A camera on the way through ``keys`` (at least one), 0 at the first and 1 at the last.

        It goes round the target, not straight through the head: distance and direction are blended apart.
        """
        x = min(max(amount, 0.0), 1.0) * (len(keys) - 1)
        i = min(int(x), max(len(keys) - 2, 0))
        a, b = keys[i], keys[min(i + 1, len(keys) - 1)]
        t = x - i
        t = t * t * (3 - 2 * t)
        eyes = [torch.tensor(k.position) - self.target for k in (a, b)]
        far = [e.norm() for e in eyes]
        way = _arc(eyes[0] / far[0], eyes[1] / far[1], t)
        position = self.target + way * torch.lerp(far[0], far[1], t)
        wxyz = math3d.quat_slerp(torch.tensor(a.wxyz), torch.tensor(b.wxyz), t)
        return replace(a, position=tuple(position.tolist()), wxyz=tuple(wxyz.tolist()), fov=a.fov + t * (b.fov - a.fov))


def _arc(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The direction [3] at share t of the way from unit vector a to b on the sphere."""
    angle = torch.acos((a @ b).clamp(-1, 1))
    if float(angle) < 1e-4:
        return torch.nn.functional.normalize(torch.lerp(a, b, t), dim=0)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
