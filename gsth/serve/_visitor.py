"""Draws for one browser: two pictures side by side, sent in their order."""

from __future__ import annotations

import io
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import torch

from gsth.serve._optics import Orbit
from gsth.serve._view import Sketch, View

if TYPE_CHECKING:
    import viser

    from gsth.serve._link import Link
    from gsth.serve._view import Picture

log = logging.getLogger(__name__)

_JPEG_QUALITY = {True: 90, False: 75}
"""Of full-size pictures, and of those that are soon replaced."""
_LANES = 2
"""Threads that draw for a visitor, each with its share of the cores. All cores draw a picture in a dozen short pieces
of work, and after each they wait for the last one; where a browser uses the same cores that is long."""
_UNDER_WAY = 2
"""Pictures that are being drawn or on their way to the page: while one is decoded there, the next is drawn here."""
_NO_ANSWER_S = 1.0
"""A page that does not say what it shows, being in the background or on a slow line, gets a picture so often."""
_NO_LINE_S = 0.5
_sharing = threading.Lock()


class Visitor:
    """One browser, and what it has been sent."""

    def __init__(self, client: viser.ClientHandle, view: View, link: Link, sent: Any) -> None:
        """Begin to draw; ``sent(visitor, picture, send_ms)`` hears of every picture that went out."""
        self.client, self.view, self._link, self._sent = client, view, link, sent
        self.dark = True
        self._gone = threading.Event()
        self._turn = threading.Lock()
        """Of the lane that waits for something to draw."""
        self._line = threading.Condition()
        self._drawing = self._unseen = self._arrivals = 0
        """Pictures being drawn; pictures sent that the page does not show yet; lines that it has had."""
        self._begun = self._done = 0
        """Numbers of the next picture to be drawn, and to be sent."""
        client.camera.on_update(lambda _: self._look())
        self._look()
        name = f"gsth-view-{client.client_id}"
        self._lanes = [threading.Thread(target=self._serve, name=name, daemon=True) for _ in range(_LANES)]
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """Draw no more."""
        self._end()
        self.view.close()
        for lane in self._lanes:
            lane.join(timeout=5)

    def arrived(self) -> None:
        """The page has a line, maybe a new one: nothing is under way to it, and it shows nothing yet."""
        with self._line:
            self._unseen = 0
            self._arrivals += 1
            self._line.notify_all()
        self.view.again()

    def saw(self) -> None:
        """A picture that was under way has been shown."""
        with self._line:
            self._unseen = max(0, self._unseen - 1)
            self._line.notify_all()

    def _end(self) -> None:
        self._gone.set()
        self.view.changed.set()
        with self._line:
            self._line.notify_all()

    def _look(self) -> None:
        camera = self.client.camera
        px, py, pz = map(float, camera.position)
        w, x, y, z = map(float, camera.wxyz)
        self.view.look(Orbit((px, py, pz), (w, x, y, z), float(camera.fov), camera.image_width, camera.image_height))

    def _serve(self) -> None:
        """One lane."""
        take_share(_LANES)
        try:
            while (begun := self._next()) is not None:
                number, sketch = begun
                try:
                    self._finish(number, sketch)
                finally:
                    with self._line:
                        self._drawing -= 1
                        self._done = max(self._done, number + 1)
                        self._line.notify_all()
        except Exception as e:
            if self._gone.is_set():
                return
            self._end()
            log.exception("drawing for visitor %d failed", self.client.client_id)
            self.client.add_notification("Drawing failed", f"{e} Reload the page to try again.", color="red")

    def _next(self) -> tuple[int, Sketch] | None:
        """A number and what to draw, once there is something and room for it; None where the visitor has gone."""
        with self._turn:
            while not self._gone.is_set():
                self._await(lambda: self._drawing + self._unseen < _UNDER_WAY, _NO_ANSWER_S)
                sketch = self.view.begin()
                if sketch is not None:
                    with self._line:
                        self._drawing += 1
                        self._begun += 1
                        return self._begun - 1, sketch
                self.view.changed.wait(self.view.wait_s())
                self.view.changed.clear()
        return None

    def _finish(self, number: int, sketch: Sketch) -> None:
        """Draw, and send when the pictures before have gone."""
        picture = self.view.draw(sketch)
        jpeg = None if picture is None else _jpeg(picture)
        self._await(lambda: self._done >= number)
        if picture is None or jpeg is None or self._gone.is_set():
            return
        start = time.perf_counter()
        with self._line:
            self._unseen += 1  # beforehand: the page may show it before its sending has returned
            arrivals = self._arrivals
        if self._link.picture(self.client.client_id, jpeg):
            self._sent(self.client.client_id, picture, 1e3 * (time.perf_counter() - start))
            return
        self._await(lambda: self._arrivals != arrivals, _NO_LINE_S)
        with self._line:
            if self._arrivals == arrivals:
                self._unseen = max(0, self._unseen - 1)
        self.view.again()

    def _await(self, holds: Any, timeout_s: float | None = None) -> None:
        """Until something holds, the visitor has gone, or the time is over."""
        with self._line:
            self._line.wait_for(lambda: holds() or self._gone.is_set(), timeout_s)


def take_share(lanes: int) -> None:
    """Let this thread compute with its share of torch's threads, and no other thread with fewer than before."""
    with _sharing:
        whole = torch.get_num_threads()
        torch.set_num_threads(max(1, whole // lanes))
        # Threads that begin later would take that number over; said again by another thread, they take the old one.
        other = threading.Thread(target=torch.set_num_threads, args=(whole,))
        other.start()
        other.join()


def _jpeg(picture: Picture) -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(picture.rgb.numpy()).save(held, "jpeg", quality=_JPEG_QUALITY[picture.full])
    return held.getvalue()
