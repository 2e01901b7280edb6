"""The viewer's page: a viser server whose background picture is drawn by gsth for each visitor's orbit camera."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import InputError, MissingExtraError
from gsth.types import Done, Event, Notice

if TYPE_CHECKING:
    import viser

    from gsth.avatar import Avatar
    from gsth.serve._view import View

log = logging.getLogger(__name__)

_JPEG_QUALITY = {True: 90, False: 70}
"""Of full-size pictures, and of those that are soon replaced."""


@dataclass(frozen=True)
class ViewConfig:
    """Where the page is served."""

    port: int = 8080
    """0 takes any free one."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in; anybody who can reach the port can then see and steer the avatar."""
    open_browser: bool = False
    """Open the page in this machine's browser."""
    max_height: int = 720
    """Largest picture height to begin with, px; the page can change it."""


def run(avatar_path: Path, config: ViewConfig) -> Iterator[Event]:
    """Serve an avatar until interrupted; a ``Notice`` says where.

    Raises:
        InputError: the port is taken or the host is not one of this machine's.
        ArtifactError: ``avatar_path`` is not an avatar.
        MissingExtraError: viser is absent.
    """
    from gsth.avatar import Avatar

    avatar = Avatar.load(avatar_path)
    with Page(avatar, config) as page:
        yield Notice(f"the viewer is at {page.url} (Ctrl+C ends it)")
        if config.open_browser:
            webbrowser.open(page.url)
        with contextlib.suppress(KeyboardInterrupt):
            page.wait()
    yield Done(avatar_path)


class Page:
    """A running server; a context manager that stops it."""

    def __init__(self, avatar: Avatar, config: ViewConfig) -> None:
        """Start serving. Raises as ``run`` does."""
        from gsth.serve._panel import Panel
        from gsth.serve._view import Optics
        from gsth.serve.session import Session, Style

        self.session = Session(avatar, Style(max_height=config.max_height))
        self._optics = Optics.of(avatar)
        self._stopped = threading.Event()
        self._visitors: dict[int, _Visitor] = {}
        self._server = _server(config)
        shown = "localhost" if config.host == "0.0.0.0" else config.host
        self.url = f"http://{shown}:{self._server.get_port()}"
        self._place_camera()
        self.panel = Panel(self._server.gui, self.session, self._go_home)
        self._server.on_client_connect(self._come)
        self._server.on_client_disconnect(self._leave)

    def __enter__(self) -> Page:
        """Itself; it already runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def wait(self) -> None:
        """Until the page is stopped."""
        self._stopped.wait()

    def stop(self) -> None:
        """End all visits and close the port."""
        self._stopped.set()
        for visitor in tuple(self._visitors.values()):
            visitor.stop()
        with _silence():
            self._server.stop()

    def _place_camera(self) -> None:
        home = self._optics.home(1, 1)
        target = tuple(self._optics.target.tolist())
        self._server.scene.set_up_direction((0.0, -1.0, 0.0))
        start = self._server.initial_camera
        start.position, start.look_at, start.up, start.fov = home.position, target, (0.0, -1.0, 0.0), home.fov

    def _go_home(self, client: viser.ClientHandle) -> None:
        """Put one visitor's camera back to the training view."""
        home = self._optics.home(1, 1)
        with client.atomic():
            client.camera.up_direction = (0.0, -1.0, 0.0)
            client.camera.position = home.position
            client.camera.look_at = tuple(self._optics.target.tolist())
            client.camera.fov = home.fov

    def _come(self, client: viser.ClientHandle) -> None:
        from gsth.serve._view import View

        self._visitors[client.client_id] = _Visitor(client, View(self.session, self._optics), self.panel.show)

    def _leave(self, client: viser.ClientHandle) -> None:
        visitor = self._visitors.pop(client.client_id, None)
        if visitor is not None:
            visitor.stop()


class _Visitor:
    """Draws for one browser in a thread of its own."""

    def __init__(self, client: viser.ClientHandle, view: View, show: Any) -> None:
        self._client, self._view, self._show = client, view, show
        self._gone = threading.Event()
        client.camera.on_update(lambda _: self._look())
        self._look()
        self._thread = threading.Thread(target=self._serve, name=f"gsth-view-{client.client_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._gone.set()
        self._view.close()
        self._view.changed.set()
        self._thread.join(timeout=5)

    def _look(self) -> None:
        from gsth.serve._view import Orbit

        camera = self._client.camera
        px, py, pz = map(float, camera.position)
        w, x, y, z = map(float, camera.wxyz)
        self._view.look(Orbit((px, py, pz), (w, x, y, z), float(camera.fov), camera.image_width, camera.image_height))

    def _serve(self) -> None:
        try:
            while not self._gone.is_set():
                picture = self._view.draw()
                if picture is not None and not self._gone.is_set():
                    self._client.scene.set_background_image(
                        picture.rgb.numpy(), format="jpeg", jpeg_quality=_JPEG_QUALITY[picture.full]
                    )
                    self._client.flush()
                    self._show(picture)
                self._view.changed.wait(self._view.wait_s())
                self._view.changed.clear()
        except Exception as e:
            if self._gone.is_set():
                return
            log.exception("drawing for visitor %d failed", self._client.client_id)
            self._client.add_notification("Drawing failed", f"{e} Reload the page to try again.", color="red")


def _server(config: ViewConfig) -> viser.ViserServer:
    """A silent viser server on exactly the port that was asked for."""
    try:
        import viser
    except ImportError as e:
        raise MissingExtraError("viser", "viewer", "the live viewer") from e
    _check_port(config)
    with _silence():
        server = viser.ViserServer(host=config.host, port=config.port, label="gsth", verbose=False)
    # Where another program was quicker since the check, viser has quietly moved to the next port.
    if config.port not in (0, server.get_port()):
        with _silence():
            server.stop()
        raise _taken(config)
    server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=True)
    # Beside the picture, not over it.
    server.gui.main_panel.dock_right()
    return server


def _silence() -> contextlib.redirect_stdout[io.StringIO]:
    """viser greets and takes its leave on standard output, which belongs to the command line."""
    return contextlib.redirect_stdout(io.StringIO())


def _check_port(config: ViewConfig) -> None:
    if not 0 <= config.port <= 65535:
        raise InputError(f"port {config.port}: wanted 0 to 65535")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.host, config.port))
    except PermissionError as e:
        raise InputError(f"port {config.port}: only an administrator may use it; choose one above 1023") from e
    except OSError as e:
        if e.errno == errno.EADDRINUSE:
            raise _taken(config) from e
        raise InputError(f"{config.host}: cannot be served from ({e}); use 127.0.0.1 or 0.0.0.0") from e


def _taken(config: ViewConfig) -> InputError:
    return InputError(
        f"port {config.port} of {config.host} is in use, perhaps by another viewer; choose another one: "
        f"--port {min(config.port + 1, 65535)}"
    )
