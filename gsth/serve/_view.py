"""One visitor's camera: decides what is worth drawing, at which size, and draws it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import math3d, render
from gsth.serve.session import COLOURS, FROM_VIDEO, Clock, Moment, Session
from gsth.types import Cameras

if TYPE_CHECKING:
    from gsth.avatar import Avatar

SETTLE_S = 0.15
"""A camera that has not moved for so long is at rest."""
FRAME_BUDGET_S = 1 / 25
"""While something moves, pictures are made small enough to take no longer than this."""
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Sizes to choose from while something moves, as shares of the full size."""
MIN_SIDE = 16
"""No picture is smaller, px: a page may report a canvas of no size while it opens."""


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


@dataclass(frozen=True)
class Stats:
    """What a picture cost."""

    splats: int
    width: int
    height: int
    render_ms: float
    """Posing and drawing."""
    fps: float
    """Pictures that this view sent during the last second."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One drawn picture."""

    rgb: Tensor
    """uint8 [h w 3]."""
    full: bool
    """At the full size; otherwise a better one follows when all is at rest."""
    moment: Moment
    stats: Stats


class View:
    """Draws a session for one orbit camera. ``look`` from any thread; ``draw`` from one."""

    def __init__(self, session: Session, optics: Optics, clock: Clock = time.monotonic) -> None:
        """Look at nothing yet: the first picture comes after the first ``look``."""
        self.changed = threading.Event()
        """Set when there may be something to draw."""
        self.dropped = 0
        """Cameras that were never drawn, or not shown, because a newer one had come."""
        self._session, self._optics, self._clock = session, optics, clock
        self._lock = threading.Lock()
        self._orbit: Orbit | None = None
        self._taken: Orbit | None = None
        self._moved_at = -math.inf
        self._shown: tuple[object, int] | None = None
        """Content of the last picture, and its height."""
        self._full = False
        self._s_per_px = 0.0
        self._sent: deque[float] = deque()
        self._plate: tuple[tuple[int, int], Tensor] | None = None
        self._unlisten = session.listen(self.changed.set)

    def look(self, orbit: Orbit) -> None:
        """Move the camera; only the newest one counts."""
        with self._lock:
            if orbit == self._orbit:
                return
            if self._orbit is not self._taken:
                self.dropped += 1
            if self._orbit is not None:
                self._moved_at = self._clock()
            self._orbit = orbit
        self.changed.set()

    def close(self) -> None:
        """Stop listening to the session."""
        self._unlisten()

    def wait_s(self) -> float | None:
        """How long until there may be something to draw, if nothing changes before; None: for ever."""
        tick = self._session.next_frame_s()
        if tick is not None or self._shown is None or self._full:
            return tick
        return max(0.0, self._moved_at + SETTLE_S - self._clock())

    def draw(self) -> Picture | None:
        """The next picture, or None where the page already shows all there is, or a newer camera made it stale."""
        with self._lock:
            orbit = self._taken = self._orbit
        if orbit is None:
            return None
        moment, style = self._session.moment(), self._session.style
        moving = moment.playing or self._clock() - self._moved_at < SETTLE_S
        full = max(MIN_SIDE, min(orbit.height, style.max_height))
        height = self._live_height(full, orbit.width / max(orbit.height, 1)) if moving else full
        content = (orbit, moment.key, style)
        if self._shown is not None and self._shown[0] == content and self._shown[1] >= height:
            return None
        start = self._clock()
        rgb = self._drawn(orbit, moment, height)
        took = self._clock() - start
        self._s_per_px = took / (rgb.shape[0] * rgb.shape[1])
        with self._lock:
            # A large picture of a place that has been left would only delay the small ones that follow.
            if self._orbit is not orbit and took > FRAME_BUDGET_S:
                self.dropped += 1
                return None
        self._shown, self._full = (content, height), height == full
        stats = Stats(len(self._session.avatar.splats.face_ids), rgb.shape[1], height, 1e3 * took, self._rate())
        return Picture(rgb, self._full, moment, stats)

    def _drawn(self, orbit: Orbit, moment: Moment, height: int) -> Tensor:
        width = max(MIN_SIDE, round(height * orbit.width / max(orbit.height, 1)))
        cameras = self._optics.cameras(orbit, width, height)
        with torch.no_grad():
            splats = self._session.splats(moment)
            drawn = render.render(splats, cameras, background=self._background(orbit, width, height))
        return (drawn.rgb[0].clamp(0, 1) * 255).round().byte().cpu()

    def _live_height(self, full: int, aspect: float) -> int:
        """The largest height that was lately quick enough to draw."""
        affordable = (s for s in SHARES if self._s_per_px * (s * full) ** 2 * aspect <= FRAME_BUDGET_S)
        return max(MIN_SIDE, round(full * next(affordable, SHARES[-1])))

    def _background(self, orbit: Orbit, width: int, height: int) -> Tensor:
        choice, plate = self._session.style.background, self._session.avatar.plate
        if choice != FROM_VIDEO:
            return torch.tensor(COLOURS[choice])
        if plate is None:
            return self._session.avatar.background()
        if not self._optics.is_home(orbit):
            return plate.mean((0, 1))
        if self._plate is None or self._plate[0] != (width, height):
            self._plate = (width, height), self._framed(plate, width, height)
        return self._plate[1]

    def _framed(self, plate: Tensor, width: int, height: int) -> Tensor:
        """The plate where the training view lies in the picture, [h w 3]; its mean colour beside it."""
        scale = self._optics.scale(width, height)
        h, w = round(plate.shape[0] * scale), round(plate.shape[1] * scale)
        scaled = torch.nn.functional.interpolate(
            plate.permute(2, 0, 1)[None], (h, w), mode="bilinear", antialias=True, align_corners=False
        )[0].permute(1, 2, 0)
        canvas = plate.mean((0, 1)).expand(height, width, 3).clone()
        y, x = (height - h) // 2, (width - w) // 2
        canvas[y : y + h, x : x + w] = scaled
        return canvas

    def _rate(self) -> float:
        now = self._clock()
        self._sent.append(now)
        while self._sent[0] < now - 1:
            self._sent.popleft()
        return float(len(self._sent))
