"""Avatar, clock and controls in; pictures out. No sockets, so all of it can be tested without a browser.

A ``Session`` is what all visitors of a page share: what the avatar does now. A ``View`` (next file) is one visitor's
camera. Both may be used from several threads.
"""

from __future__ import annotations

import math
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

Clock = Callable[[], float]

TURNABLE: Mapping[str, tuple[str, ...]] = {"gaze": ("eye_l", "eye_r"), "head": ("head",), "neck": ("neck",)}
"""What a visitor can turn, and the joints that follow."""
FROM_VIDEO = "video"
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "grey": (0.5, 0.5, 0.5),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "green": (0.0, 0.7, 0.25),
}


@dataclass(frozen=True)
class Style:
    """How pictures look."""

    background: str = FROM_VIDEO
    """``FROM_VIDEO``: the plate in the training view, its mean colour from any other side. Else one of ``COLOURS``."""
    max_height: int = 720
    """Pictures are at most this high; the page enlarges them."""


@dataclass(frozen=True)
class Moment:
    """What the avatar does at one time; equal keys mean equal pictures."""

    key: tuple[int, int]
    frame: int
    playing: bool
    motion: Motion
    """One frame."""


class Session:
    """The avatar, what it plays and what the controls add."""

    def __init__(self, avatar: Avatar, style: Style | None = None, clock: Clock = time.monotonic) -> None:
        """Paused on the first frame of the tracked motion."""
        self.avatar = avatar
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners: dict[object, Callable[[], None]] = {}
        self._style = style or Style()
        self._motion = avatar.motion
        self._anchor = (0.0, clock())
        """A position in frames, and the time at which the motion was there."""
        self._playing, self._loop = False, True
        self._overrides: dict[str, float] = {}
        self._turns: dict[str, Tensor] = {}
        self._version = 0
        self._posed: tuple[tuple[int, int], Splats] | None = None

    @property
    def style(self) -> Style:
        """How pictures look now."""
        return self._style

    @style.setter
    def style(self, style: Style) -> None:
        if style.background != FROM_VIDEO and style.background not in COLOURS:
            known = ", ".join((FROM_VIDEO, *COLOURS))
            raise InputError(f"no background is called {style.background!r}; there are: {known}")
        with self._changing():
            self._style = style

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

    def load(self, motion: Motion, *, loop: bool = True) -> None:
        """Put another motion on, paused at its first frame. Raises InputError where it is for another head model."""
        if motion.head != self.avatar.head.id:
            raise InputError(f"this motion is for head {motion.head}, the avatar stands on {self.avatar.head.id}")
        with self._changing():
            self._motion, self._playing, self._loop = motion, False, loop
            self._anchor = (0.0, self._clock())

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

    def set_loop(self, loop: bool) -> None:
        """Whether the motion starts again at its end."""
        with self._changing():
            self._anchor = (self._position(), self._clock())
            self._loop = loop

    def express(self, name: str, value: float | None) -> None:
        """Hold one expression at a value, 0 to 1, whatever the motion says; None gives it back to the motion."""
        if name not in self.avatar.head.expression_names:
            raise InputError(f"head {self.avatar.head.id} has no expression {name!r}")
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
        with self._changing():
            # A face looks along -z, so turning it right or up goes against the right-handed x and y axes.
            self._turns[what] = math3d.rotvec_to_quat(torch.deg2rad(torch.tensor((-pitch, -yaw, roll))))

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
            frame = min(int(position), self.frames - 1)
            if self._playing and not self._loop and position >= self.frames - 1:
                self._anchor, self._playing = (float(frame), self._clock()), False
            return Moment((self._version, frame), frame, self._playing, self._adjusted(self._motion[frame]))

    def next_frame_s(self) -> float | None:
        """Seconds until the motion shows its next frame; None while it is paused."""
        with self._lock:
            if not self._playing:
                return None
            position = self._position()
            # A tenth of a millisecond late, so that rounding cannot put the boundary after the wait.
            return (math.floor(position) + 1 - position) / self.fps + 1e-4

    def splats(self, moment: Moment) -> Splats:
        """The posed avatar; several views of one moment pose it once."""
        with self._lock:
            if self._posed is None or self._posed[0] != moment.key:
                self._posed = moment.key, self.avatar.pose(moment.motion)
            return self._posed[1]

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
        position = start + (self._clock() - at) * self.fps
        return position % self.frames if self._loop else min(position, float(self.frames - 1))

    def _adjusted(self, motion: Motion) -> Motion:
        """One frame of motion with the controls on top."""
        names = self.avatar.head.expression_names
        expr, joints = motion.expr.clone(), motion.joints.clone()
        for name, value in self._overrides.items():
            expr[:, names.index(name)] = value
        for what, turn in self._turns.items():
            for joint in TURNABLE[what]:
                j = JOINTS.index(joint)
                joints[:, j] = math3d.quat_mul(joints[:, j], turn)
        return motion.replace(expr=expr, joints=joints)
