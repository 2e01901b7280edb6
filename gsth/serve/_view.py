"""One visitor's camera: decides what is worth drawing, at which size, and draws it."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from gsth import render
from gsth.serve._optics import Orbit
from gsth.serve._paint import Painter
from gsth.serve.session import Clock, Moment, Session

SETTLE_S = 0.15
"""A camera that has not moved for so long is at rest."""
FRAME_BUDGET_S = 1 / 25
"""While something moves, pictures are made small enough to take no longer than this."""
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Sizes to choose from while something moves, as shares of the full size."""
_REMEMBERED = 3
"""Pictures by whose cost the next one's size is chosen: a single hold-up by something else makes none smaller."""
_SPLAT_PX = 4
"""A splat costs as much as so many pixels, about, before any pixel is drawn."""
_HARDLY_LESS = 1.25
"""A picture that is smaller but costs hardly less is not worth it."""
MIN_SIDE = 16
"""No picture is smaller, px: a page may report a canvas of no size while it opens."""


@dataclass(frozen=True)
class Stats:
    """What a picture cost."""

    splats: int
    backend: str
    width: int
    height: int
    pose_ms: float
    """From motion to splats; 0 where another visitor's picture of the same moment has paid for it."""
    render_ms: float
    """From splats to picture."""
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
    orbit: Orbit
    stats: Stats


@dataclass(frozen=True, eq=False)
class Sketch:
    """A picture that is to be drawn."""

    orbit: Orbit
    moment: Moment
    height: int
    full: bool
    """At the full size; otherwise a better one follows when all is at rest."""


class View:
    """Draws a session for one orbit camera. From any thread: several may each draw what ``begin`` gave them."""

    def __init__(self, session: Session, painter: Painter, clock: Clock = time.monotonic) -> None:
        """Look at nothing yet: the first picture comes after the first ``look``."""
        self.changed = threading.Event()
        """Set when there may be something to draw."""
        self.asleep = False
        """The page draws for itself; nothing is drawn here."""
        self.dropped = 0
        """Cameras that were never drawn, or not shown, because a newer one had come."""
        self._session, self._painter, self._clock = session, painter, clock
        self._lock = threading.Lock()
        self._orbit: Orbit | None = None
        self._taken: Orbit | None = None
        self._moved_at = -math.inf
        self._begun: tuple[tuple[Orbit, tuple[int, float]], int] | None = None
        """Content of the newest picture that was begun, and its height."""
        self._full = False
        """Whether that one has the full size."""
        self._at_once = 0
        """Pictures that are being drawn."""
        self._costs: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        """Seconds to pose, and to draw per unit of ``_work``, of the last pictures."""
        self._sent: deque[float] = deque()
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

    @property
    def orbit(self) -> Orbit | None:
        """The newest camera."""
        return self._orbit

    def again(self) -> None:
        """Draw anew: the page has lost what it showed."""
        with self._lock:
            self._begun = None
        self.changed.set()

    def close(self) -> None:
        """Stop listening to the session."""
        self._unlisten()

    def wait_s(self) -> float | None:
        """How long until there may be something to draw, if nothing changes before; None: for ever."""
        begun = self._begun
        tick = None if self.asleep else self._session.next_moment_s(None if begun is None else begun[0][1])
        if tick is not None or begun is None or self._full:
            return tick
        return max(0.0, self._moved_at + SETTLE_S - self._clock())

    def begin(self) -> Sketch | None:
        """What to draw next, or None where all there is to show is drawn already or in another thread's hands."""
        with self._lock:
            orbit = self._taken = self._orbit
            if orbit is None or self.asleep:
                return None
            moment = self._session.moment()
            moving = moment.playing or self._clock() - self._moved_at < SETTLE_S
            full = max(MIN_SIDE, min(orbit.height, moment.style.max_height))
            height = self._live_height(full, orbit.width / max(orbit.height, 1)) if moving else full
            content = (orbit, moment.key)
            if self._begun is not None and self._begun[0] == content and self._begun[1] >= height:
                return None
            self._begun, self._full = (content, height), height == full
            self._at_once += 1
        return Sketch(orbit, moment, height, self._full)

    def draw(self, sketch: Sketch) -> Picture | None:
        """Draw what ``begin`` gave; None where a newer camera has made it stale."""
        orbit, moment = sketch.orbit, sketch.moment
        start = self._clock()
        try:
            self._session.splats(moment)
            pose_s = self._clock() - start
            rgb = self._drawn(orbit, moment, sketch.height)
            took = self._clock() - start
        finally:
            with self._lock:
                at_once, self._at_once = self._at_once, self._at_once - 1
        with self._lock:
            # Of pictures that are drawn side by side each takes longer, but they come as often.
            work = self._work(rgb.shape[0] * rgb.shape[1])
            self._costs.append((pose_s / at_once, (took - pose_s) / at_once / work))
            # A large picture of a place that has been left would only delay the small ones that follow.
            if self._orbit is not orbit and took > FRAME_BUDGET_S:
                self.dropped += 1
                if self._begun == ((orbit, moment.key), sketch.height):
                    self._begun = None
                return None
            fps = self._rate()
        stats = Stats(
            splats=len(self._session.avatar.splats.face_ids),
            backend=_backend(),
            width=rgb.shape[1],
            height=sketch.height,
            pose_ms=1e3 * pose_s,
            render_ms=1e3 * (took - pose_s),
            fps=fps,
        )
        return Picture(rgb, sketch.full, moment, orbit, stats)

    def _drawn(self, orbit: Orbit, moment: Moment, height: int) -> Tensor:
        width = max(MIN_SIDE, round(height * orbit.width / max(orbit.height, 1)))
        return self._painter.paint(self._session, moment, orbit, (width, height))

    def _live_height(self, full: int, aspect: float) -> int:
        """The largest height that was lately quick enough to draw."""
        pose_s, draw_s = map(statistics.median_low, zip(*self._costs or [(0.0, 0.0)], strict=True))
        costs = {s: pose_s + draw_s * self._work((s * full) ** 2 * aspect) for s in SHARES}
        affordable = max(FRAME_BUDGET_S, _HARDLY_LESS * costs[SHARES[-1]])
        return max(MIN_SIDE, round(full * next(s for s in SHARES if costs[s] <= affordable)))

    def _work(self, pixels: float) -> float:
        """What a picture takes, as if it were pixels only."""
        return pixels + _SPLAT_PX * len(self._session.avatar.splats.face_ids)

    def _rate(self) -> float:
        now = self._clock()
        self._sent.append(now)
        while self._sent[0] < now - 1:
            self._sent.popleft()
        return float(len(self._sent))


@cache
def _backend() -> str:
    """The renderer that draws here."""
    return next((name for name, reason in render.backends("cpu").items() if reason is None), "none")
