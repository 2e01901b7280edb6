"""Avatar, clock and controls in; pictures out. No sockets, so all of it can be tested without a browser.

A ``Session`` is what all visitors of a page share: what the avatar does now. A ``View`` (next file) is one visitor's
camera. Both may be used from several threads.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import math3d
from gsth.errors import InputError
from gsth.head import JOINTS
from gsth.types import Motion, Splats

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive import Sound

Clock = Callable[[], float]

TURNABLE: Mapping[str, tuple[str, ...]] = {"gaze": ("eye_l", "eye_r"), "head": ("head",), "neck": ("neck",)}
"""What a visitor can turn, and the joints that follow."""
FROM_VIDEO = "video"
FROM_IMAGE = "image"
SPEEDS = (0.1, 4.0)
"""How slow and how quick a motion may be played."""
PICTURES_PER_S = 30.0
"""A motion with fewer frames, or one that is slowed down, is shown between its frames, too."""
MAX_GAZE_RAD = 0.6
"""Eyes do not turn farther from straight ahead, whatever they look at."""
_FARTHEST_M = 1e4
_POSES = 3
"""Moments that are kept posed: pictures of two are drawn side by side, and another visitor may be a little behind."""
_NEARLY_WHOLE = 0.9
"""A motion of nearly enough frames (29.97 for 30) is shown frame by frame."""
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "grey": (0.5, 0.5, 0.5),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "green": (0.0, 0.7, 0.25),
}


MODES = ("rgb", "alpha", "depth", "normals", "triangles")
OVERLAYS = ("none", "mesh", "centres")
COMPARES = ("none", "video", "avatar")


@dataclass(frozen=True)
class Style:
    """How pictures look."""

    background: str = FROM_VIDEO
    """``FROM_VIDEO``: the plate in the training view, its mean colour from any other side. ``FROM_IMAGE``: the
    session's backdrop. Else one of ``COLOURS`` or ``#rrggbb``."""
    max_height: int = 720
    """Pictures are at most this high; the page enlarges them."""
    mode: str = "rgb"
    """One of ``MODES``."""
    overlay: str = "none"
    """One of ``OVERLAYS``."""
    compare: str = "none"
    """One of ``COMPARES``: what is shown left of the split."""
    split: float = 0.5
    """Where the split is, 0 to 1 of the width."""

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("overlay", OVERLAYS), ("compare", COMPARES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; there are: {', '.join(known)}")
        if not 0 <= self.split <= 1 or not 16 <= self.max_height <= 4320:
            raise InputError(f"split {self.split}, max_height {self.max_height}: want 0 to 1, and 16 to 4320 px")
        if self.background not in (FROM_VIDEO, FROM_IMAGE):
            colour(self.background)


def colour(name: str) -> tuple[float, float, float]:
    """Red, green, blue, 0 to 1, of one of ``COLOURS`` or ``#rrggbb``. Raises InputError for anything else."""
    if name in COLOURS:
        return COLOURS[name]
    if re.fullmatch(r"#[0-9a-fA-F]{6}", name):
        r, g, b = (int(name[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return r, g, b
    known = ", ".join((FROM_VIDEO, FROM_IMAGE, *COLOURS))
    raise InputError(f"no background is called {name!r}; there are: {known}, and #rrggbb")


@dataclass(frozen=True)
class Moment:
    """What the avatar does at one time; equal keys mean equal pictures."""

    key: tuple[int, float]
    frame: int
    """The last frame that has begun; ``motion`` may lie between it and the next."""
    playing: bool
    motion: Motion
    """One frame."""
    style: Style


@dataclass(frozen=True, eq=False)
class Transport:
    """Where the motion is, for whoever plays its sound."""

    playing: bool
    position_s: float
    duration_s: float
    speed: float
    loop: bool
    sound: Sound | None


class Session:
    """The avatar, what it plays and what the controls add."""

    def __init__(self, avatar: Avatar, style: Style | None = None, clock: Clock = time.monotonic) -> None:
        """Paused on the first frame of the tracked motion."""
        self.avatar = avatar
        """Who is shown."""
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners: dict[object, Callable[[], None]] = {}
        self._style = style or Style()
        self._motion = avatar.motion
        self._sound: Sound | None = None
        self._speed = 1.0
        self._target: tuple[float, float, float] | None = None
        self._backdrop: Tensor | None = None
        self._anchor = (0.0, clock())
        """A position in frames, and the time at which the motion was there."""
        self._playing, self._loop = False, True
        self._overrides: dict[str, float] = {}
        self._turns: dict[str, tuple[float, float, float]] = {}
        self._version = 0
        self._posed: dict[tuple[int, float], Splats] = {}

    @property
    def style(self) -> Style:
        """How pictures look now."""
        return self._style

    @style.setter
    def style(self, style: Style) -> None:
        if style.background == FROM_IMAGE and self._backdrop is None:
            raise InputError("there is no background image yet; give one first")
        if style != self._style:
            with self._changing():
                self._style = style

    @property
    def backdrop(self) -> Tensor | None:
        """The image behind the avatar where the style asks for one, [h w 3], 0 to 1."""
        return self._backdrop

    @backdrop.setter
    def backdrop(self, image: Tensor) -> None:
        with self._changing():
            self._backdrop = image

    @property
    def version(self) -> int:
        """Rises with every change of the controls."""
        return self._version

    @property
    def overrides(self) -> dict[str, float]:
        """Expressions that are held, by name."""
        with self._lock:
            return dict(self._overrides)

    @property
    def turns(self) -> dict[str, tuple[float, float, float]]:
        """Yaw, pitch and roll of what was turned, degrees."""
        with self._lock:
            return dict(self._turns)

    @property
    def gaze_follows(self) -> bool:
        """Whether the eyes look at a point instead of where the motion says."""
        return self._target is not None

    @property
    def tracked(self) -> bool:
        """Whether the motion that is on is the avatar's own, frame by frame that of its video."""
        return self._motion is self.avatar.motion

    @property
    def transport(self) -> Transport:
        """Where the motion is."""
        with self._lock:
            position = self._position() / self.fps
            return Transport(self._playing, position, self.frames / self.fps, self._speed, self._loop, self._sound)

    @property
    def frames(self) -> int:
        """Length of the motion that is on."""
        return len(self._motion)

    @property
    def fps(self) -> float:
        """Rate of the motion that is on."""
        return self._motion.fps

    def listen(self, heard: Callable[[], None]) -> Callable[[], None]:
        """Call ``heard`` at every change of the controls; the result ends that."""
        token = object()
        self._listeners[token] = heard

        def leave() -> None:
            self._listeners.pop(token, None)

        return leave

    def load(self, motion: Motion, *, sound: Sound | None = None, loop: bool = True) -> None:
        """Put another motion on, paused at its first frame.

        Raises:
            InputError: It is for another head model, or has no frames.
        """
        if len(motion) == 0:
            raise InputError("this motion has no frames")
        if motion.head != self.avatar.head.id:
            raise InputError(f"this motion is for head {motion.head}, the avatar stands on {self.avatar.head.id}")
        with self._changing():
            self._motion, self._sound, self._playing, self._loop = motion, sound, False, loop
            self._anchor = (0.0, self._clock())

    def wear(self, avatar: Avatar) -> None:
        """Show another state of the avatar: the same person on the same head model, for example further trained."""
        if avatar.head.id != self.avatar.head.id:
            raise InputError(f"this avatar stands on head {avatar.head.id}, not on {self.avatar.head.id}")
        with self._changing():
            if self.tracked:
                self._motion = avatar.motion
            self.avatar = avatar

    def play(self) -> None:
        """Go on from here; from the start where a motion that does not loop has ended."""
        with self._changing():
            frame = self._position()
            ended = not self._loop and frame >= self.frames - 1
            self._anchor = (0.0 if ended else frame, self._clock())
            self._playing = True

    def pause(self) -> None:
        """Stay on the frame that is shown."""
        with self._changing():
            self._anchor = (float(int(self._position())), self._clock())
            self._playing = False

    def seek(self, frame: int) -> None:
        """Go to a frame; playing goes on from there."""
        with self._changing():
            self._anchor = (float(min(max(frame, 0), self.frames - 1)), self._clock())

    def set_speed(self, speed: float) -> None:
        """How fast time passes, 1 as filmed; held inside ``SPEEDS``."""
        if not math.isfinite(speed):
            raise InputError(f"speed is {speed}; want a number from {SPEEDS[0]} to {SPEEDS[1]}")
        with self._changing():
            self._anchor = (self._position(), self._clock())
            self._speed = min(max(speed, SPEEDS[0]), SPEEDS[1])

    def look_at(self, point: tuple[float, float, float] | None) -> None:
        """Let the eyes look at a point of the world, m, as far as eyes turn; None: where the motion says."""
        if point is not None and not all(abs(x) < _FARTHEST_M for x in point):
            raise InputError(f"the eyes cannot look at {point}; want x, y, z, each under {_FARTHEST_M:.0f} m")
        if point != self._target:
            with self._changing():
                self._target = point

    def set_loop(self, loop: bool) -> None:
        """Whether the motion starts again at its end."""
        with self._changing():
            self._anchor = (self._position(), self._clock())
            self._loop = loop

    def express(self, name: str, value: float | None) -> None:
        """Hold one expression at a value, 0 to 1, whatever the motion says; None gives it back to the motion."""
        if name not in self.avatar.head.expression_names:
            raise InputError(f"head {self.avatar.head.id} has no expression {name!r}")
        if value is not None and not math.isfinite(value):
            raise InputError(f"{name} is {value}; want 0 to 1")
        with self._changing():
            if value is None:
                self._overrides.pop(name, None)
            else:
                self._overrides[name] = min(max(value, 0.0), 1.0)

    def turn(self, what: str, yaw: float, pitch: float, roll: float = 0.0) -> None:
        """Turn gaze, head or neck on top of the motion, degrees.

        Args:
            what: A key of ``TURNABLE``.
            yaw: Positive: towards the right of the training view (the person's left).
            pitch: Positive: up.
            roll: Positive: clockwise in the training view.
        """
        if what not in TURNABLE:
            raise InputError(f"{what!r} cannot be turned; there are: {', '.join(TURNABLE)}")
        if not all(map(math.isfinite, (yaw, pitch, roll))):
            raise InputError(f"{what} turned by {yaw}, {pitch}, {roll}; want degrees")
        with self._changing():
            yaw, pitch, roll = (min(max(a, -180.0), 180.0) for a in (yaw, pitch, roll))
            self._turns[what] = (yaw, pitch, roll)

    def reset(self, names: Iterable[str] | None = None) -> None:
        """Give expressions back to the motion; without names, all of them and the turns too."""
        with self._changing():
            if names is None:
                self._overrides.clear()
                self._turns.clear()
            else:
                for name in names:
                    self._overrides.pop(name, None)

    def moment(self) -> Moment:
        """What the avatar does now."""
        with self._lock:
            position = self._position()
            if self._playing and not self._loop and position >= self.frames - 1:
                self._anchor, self._playing = (float(self.frames - 1), self._clock()), False
                for heard in tuple(self._listeners.values()):
                    heard()
            step = self._step()
            return self.moment_at(math.floor(position / step) * step)

    def moment_at(self, position: float) -> Moment:
        """What it does at a frame of the motion, or between two, with the controls as they are now."""
        with self._lock:
            frame = min(int(position), self.frames - 1)
            motion = self._adjusted(_between(self._motion, frame, position - frame))
            return Moment((self._version, position), frame, self._playing, motion, self._style)

    def next_moment_s(self, shown: tuple[int, float] | None = None) -> float | None:
        """Seconds until the motion has another moment to show than that of this key; None while it is paused."""
        with self._lock:
            if not self._playing:
                return None
            position, step = self._position(), self._step()
            tick = math.floor(position / step)
            if shown is not None and shown != (self._version, tick * step):
                return 0.0  # that one took longer to draw than it lasts
            # A tenth of a millisecond late, so that rounding cannot put the boundary after the wait.
            return ((tick + 1) * step - position) / (self.fps * self._speed) + 1e-4

    def splats(self, moment: Moment) -> Splats:
        """The posed avatar; several views of one moment pose it once."""
        with self._lock:
            posed = self._posed.get(moment.key)
            if posed is None:
                with torch.no_grad():
                    posed = self._posed[moment.key] = self.avatar.pose(moment.motion)
                for old in list(self._posed)[:-_POSES]:
                    del self._posed[old]
            return posed

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds the lock over one change, then tells the listeners."""
        with self._lock:
            yield
            self._version += 1
            for heard in tuple(self._listeners.values()):
                heard()

    def _position(self) -> float:
        """Where the motion is, in frames, fractional."""
        start, at = self._anchor
        if not self._playing:
            return start
        position = start + (self._clock() - at) * self.fps * self._speed
        return position % self.frames if self._loop else min(position, float(self.frames - 1))

    def _step(self) -> float:
        """Frames of the motion from one picture to the next."""
        # A video beside the avatar has no pictures between its frames.
        whole = not self._playing or self._style.compare == "video"
        step = self.fps * self._speed / PICTURES_PER_S
        return 1.0 if whole or step > _NEARLY_WHOLE else step

    def _adjusted(self, motion: Motion) -> Motion:
        """One frame of motion with the controls on top."""
        names = self.avatar.head.expression_names
        expr, joints = motion.expr.clone(), motion.joints.clone()
        for name, value in self._overrides.items():
            expr[:, names.index(name)] = value
        for what, (yaw, pitch, roll) in self._turns.items():
            # A face looks along -z, so turning it right or up goes against the right-handed x and y axes.
            turn = math3d.rotvec_to_quat(torch.deg2rad(torch.tensor((-pitch, -yaw, roll))))
            for joint in TURNABLE[what]:
                j = JOINTS.index(joint)
                joints[:, j] = math3d.quat_mul(joints[:, j], turn)
        if self._target is not None:
            self._aim(joints[0], motion.T_world_head[0], self._target)
        return motion.replace(expr=expr, joints=joints)

    def _aim(self, joints: Tensor, T_world_head: Tensor, target: tuple[float, float, float]) -> None:
        """Turn both eyes (in ``joints`` [j 4], in place) to a point of the world."""
        pivots = self.avatar.shaped.pivots
        turn, place = T_world_head[:4], T_world_head[4:]
        for j, parent in ((0, -1), (1, 0), (2, 1)):
            step = pivots[j] - (pivots[parent] if parent >= 0 else 0)
            place = place + math3d.quat_rotate(turn, step)
            turn = math3d.quat_mul(turn, joints[j])
        for j in (JOINTS.index("eye_l"), JOINTS.index("eye_r")):
            eye = place + math3d.quat_rotate(turn, pivots[j] - pivots[2])
            to = math3d.quat_rotate(math3d.quat_conj(turn), torch.tensor(target) - eye)
            yaw = math.atan2(float(to[0]), -float(to[2]))
            pitch = math.atan2(-float(to[1]), math.hypot(float(to[0]), float(to[2])))
            yaw, pitch = (min(max(a, -MAX_GAZE_RAD), MAX_GAZE_RAD) for a in (yaw, pitch))
            joints[j] = math3d.rotvec_to_quat(torch.tensor((-pitch, -yaw, 0.0)))


def _between(motion: Motion, frame: int, share: float) -> Motion:
    """One frame of a motion, or some way from it to the next; the last frame stays until the motion begins again."""
    here = motion[frame]
    if share == 0 or frame + 1 >= len(motion):
        return here
    after = motion[frame + 1]
    turn = math3d.quat_slerp(here.T_world_head[:, :4], after.T_world_head[:, :4], share)
    move = torch.lerp(here.T_world_head[:, 4:], after.T_world_head[:, 4:], share)
    heard = here.audio if here.audio is None or after.audio is None else torch.lerp(here.audio, after.audio, share)
    return here.replace(
        expr=torch.lerp(here.expr, after.expr, share),
        joints=math3d.quat_slerp(here.joints, after.joints, share),
        T_world_head=torch.cat((turn, move), -1),
        audio=heard,
    )
