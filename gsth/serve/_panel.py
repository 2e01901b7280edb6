"""The controls beside the picture: drivers, face, head, looks, recording. They and the session follow each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from gsth.errors import GsthError

if TYPE_CHECKING:
    import viser

    from gsth.serve._optics import Orbit
    from gsth.serve._paint import Painter
    from gsth.serve._range import TrainedRange
    from gsth.serve._view import Picture, View
    from gsth.serve.session import Session

REFRESH_S = 0.25
"""The statistics follow no quicker than this."""
_SEEN, _WARN = 0.15, 0.6
"""Levels of the trained-range meter."""


class Stage(Protocol):
    """What the controls need of the page besides the session."""

    session: Session
    painter: Painter
    """For recordings; pictures of the page have their own."""

    def ask(self, visitor: int, purpose: str, accept: tuple[str, ...]) -> None:
        """Let a visitor choose a file, which comes with this purpose."""
        ...

    def view_of(self, visitor: int) -> View | None:
        """What a visitor looks at."""
        ...

    def go(self, client: viser.ClientHandle, orbit: Orbit) -> None:
        """Put a visitor's camera somewhere."""
        ...

    def tell(self, text: str) -> None:
        """Say something to all of the session's visitors."""
        ...

    def draw_there(self, visitor: int) -> None:
        """Let a visitor's browser draw, or let it be."""
        ...


class Panel:
    """All controls of one session."""

    def __init__(self, gui: viser.GuiApi, stage: Stage, trained: TrainedRange) -> None:
        """Add them to a page, or to one visitor's."""
        from gsth.serve._panel_drive import DrivePanel
        from gsth.serve._panel_face import FacePanel
        from gsth.serve._panel_look import LookPanel
        from gsth.serve._panel_save import SavePanel

        self._session, self._trained = stage.session, trained
        self._refresh = threading.Lock()
        self._refreshed_at = 0.0
        self.stats = gui.add_markdown("")
        self.meter = gui.add_progress_bar(0.0, color="green")
        self.warning = gui.add_markdown("")
        tabs = gui.add_tab_group()
        with tabs.add_tab("Drive"):
            self.drive = DrivePanel(gui, stage)
        with tabs.add_tab("Face"):
            self.face = FacePanel(gui, stage)
        with tabs.add_tab("View"):
            self.look = LookPanel(gui, stage)
        with tabs.add_tab("Save"):
            self.save = SavePanel(gui, stage)
        self.tabs = tabs

    def follow(self) -> None:
        """Let all controls show what the session does, whoever changed it."""
        self.drive.follow()
        self.face.follow()
        self.look.follow()

    def show(self, picture: Picture, send_ms: float) -> None:
        """Let statistics and meter follow a picture that was sent."""
        if not self._refresh.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            # The picture at rest is the last one for a while, so its figures must not be left out.
            if now - self._refreshed_at < REFRESH_S and not (picture.full and not picture.moment.playing):
                return
            self._refreshed_at = now
            s = picture.stats
            self.stats.content = (
                f"**{s.fps:.0f}** pictures/s, {s.width} x {s.height} px, {s.splats:,} splats, {s.backend}; "
                f"pose {s.pose_ms:.0f}, draw {s.render_ms:.0f}, send {send_ms:.0f} ms"
            )
            reading = self._trained.read(picture.moment.motion, picture.orbit)
            put(self.meter, "value", round(100 * reading.level))
            put(self.meter, "color", "green" if reading.level < _SEEN else "orange" if reading.level < _WARN else "red")
            shown = f"Outside of training: {reading.reason}." if reading.reason else "Inside what training saw."
            put(self.warning, "content", shown)
        finally:
            self._refresh.release()


def put(handle: Any, name: str, value: Any) -> None:
    """Set a property of a control where it differs, so that nothing is sent for nothing."""
    if getattr(handle, name) != value:
        setattr(handle, name, value)


def by_visitor(handle: Any, react: Callable[[Any], None]) -> None:
    """Call ``react`` where a visitor changed a control, not where the panel itself moved it."""

    def reacted(event: Any) -> None:
        if event.client is not None:
            with telling(event.client, "That does not work"):
                react(event)

    handle.on_update(reacted)


def on_click(handle: Any, react: Callable[[viser.ClientHandle], None], title: str = "That does not work") -> None:
    """Call ``react`` with the visitor who pressed a button; what goes wrong is shown to them."""

    def pressed(event: Any) -> None:
        if event.client is not None:
            with telling(event.client, title):
                react(event.client)

    handle.on_click(pressed)


@contextmanager
def telling(client: viser.ClientHandle, title: str) -> Iterator[None]:
    """Shows what goes wrong to the visitor who asked for it."""
    try:
        yield
    except GsthError as e:
        client.add_notification(title, str(e), color="red", auto_close_seconds=12.0)
