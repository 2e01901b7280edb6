"""The viewer's page: a viser server behind a door, its background picture drawn by gsth for each visitor's camera."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import secrets
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
    from gsth.serve._room import Room
    from gsth.serve.protocol import File, Message
    from gsth.serve.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewConfig:
    """Where the page is served, and to whom."""

    port: int = 8080
    """0 takes any free one."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in, but only with the link that is printed: it holds a token."""
    open_browser: bool = False
    """Open the page in this machine's browser."""
    max_height: int = 720
    """Largest picture height to begin with, px; the page can change it."""
    max_visitors: int = 8
    """Pages that may be open at once."""
    own: bool = False
    """Give each visitor an avatar of their own to drive; otherwise all see and steer the same one."""
    against: Path | None = None
    """A second avatar, to compare with."""

    def __post_init__(self) -> None:
        if self.max_visitors < 1:
            raise InputError(f"max_visitors is {self.max_visitors}; it must be at least 1")


def run(avatar_path: Path, config: ViewConfig) -> Iterator[Event]:
    """Serve an avatar until interrupted; a ``Notice`` says where.

    Raises:
        InputError: the port is taken or the host is not one of this machine's.
        ArtifactError: ``avatar_path`` is not an avatar.
        MissingExtraError: viser is absent.
    """
    from gsth.avatar import Avatar

    with Page(Avatar.load(avatar_path), config) as page:
        yield Notice(f"the viewer is at {page.url} (Ctrl+C ends it)")
        if config.open_browser:
            webbrowser.open(page.url)
        with contextlib.suppress(KeyboardInterrupt):
            page.wait()
    yield Done(avatar_path)


def view(avatar: Avatar | Path | str, config: ViewConfig | None = None) -> Page:
    """Serve an avatar in the background, for notebooks; ``page.session`` is all that it does, ``page.stop()`` ends it.

    Without a config, at any free port of this machine.

    Raises:
        GsthError: As ``run``.
    """
    from gsth.avatar import Avatar

    if not isinstance(avatar, Avatar):
        avatar = Avatar.load(Path(avatar))
    return Page(avatar, config or ViewConfig(port=0))


class Page:
    """A running server; a context manager that stops it. Implements ``_link.Host``."""

    def __init__(self, avatar: Avatar, config: ViewConfig) -> None:
        """Start serving. Raises as ``run`` does."""
        from gsth.avatar import Avatar
        from gsth.serve._door import Door, is_loopback
        from gsth.serve._link import Link
        from gsth.serve._optics import Optics

        self._avatar, self._config = avatar, config
        self._other = None if config.against is None else Avatar.load(config.against)
        if self._other is not None and self._other.head.id != avatar.head.id:
            raise InputError(f"{config.against}: stands on head {self._other.head.id}, not on {avatar.head.id}")
        self._stopped = threading.Event()
        self._rooms: dict[int, Room] = {}
        self.token = None if is_loopback(config.host) else secrets.token_urlsafe(16)
        """What visitors from elsewhere must show; None where nobody from elsewhere can come."""
        _check_port(config)
        self._server = _server()
        self._link = Link(self, Door(config.host, self.token, config.max_visitors))
        try:
            port = self._link.start(config.port, self._server.get_port())
        except OSError as e:
            with _silence():
                self._server.stop()
            raise _taken(config) from e
        self.url = _url(config.host, port, self.token)
        self._place_camera(Optics.of(avatar))
        self._shared = None if config.own else self._room(self._server.gui)
        self._server.on_client_connect(self._come)
        self._server.on_client_disconnect(self._leave)

    def __enter__(self) -> Page:
        """Itself; it already runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def _repr_html_(self) -> str:
        """In a notebook: the page itself."""
        return f'<iframe src="{self.url}" width="100%" height="640" allow="microphone" style="border:0"></iframe>'

    @property
    def gui(self) -> viser.GuiApi:
        """Where more controls can be added, for all visitors."""
        return self._server.gui

    @property
    def room(self) -> Room:
        """What all visitors share. Raises InputError where each has their own."""
        if self._shared is None:
            raise InputError("each visitor of this page has an avatar of their own; start it without own=True")
        return self._shared

    @property
    def session(self) -> Session:
        """What the avatar does, for all visitors. Raises as ``room`` does."""
        return self.room.session

    def wait(self) -> None:
        """Until the page is stopped."""
        self._stopped.wait()

    def stop(self) -> None:
        """End all visits and close the port."""
        self._stopped.set()
        for room in {*self._rooms.values(), *([self._shared] if self._shared is not None else [])}:
            room.close()
        self._link.stop()
        with _silence():
            self._server.stop()

    # ------------------------------------------------------------------------------------------ as ``_link.Host``

    def told(self, visitor: int, message: Message) -> None:
        """A page said something."""
        self._room_of(visitor).told(visitor, message)

    def given(self, visitor: int, file: File, path: Path) -> None:
        """A page sent a file."""
        self._room_of(visitor).given(file.name, file.purpose, path)

    def heard(self, visitor: int, piece: bytes, rate: int) -> None:
        """A page's microphone."""
        self._room_of(visitor).heard(piece, rate)

    def asset(self, path: str) -> bytes | None:
        """What a page's script asks for."""
        for room in {*self._rooms.values()}:
            if (found := room.asset(path)) is not None:
                return found
        return None

    def _room_of(self, visitor: int) -> Room:
        room = self._rooms.get(visitor)
        if room is None:
            raise InputError("there is no such visitor; reload the page")
        return room

    # ------------------------------------------------------------------------------------------ visitors

    def _room(self, gui: Any) -> Room:
        from gsth.serve._room import Room
        from gsth.serve.session import Style

        return Room(self._avatar, Style(max_height=self._config.max_height), gui, self._link, self._other)

    def _place_camera(self, optics: Any) -> None:
        home = optics.home(1, 1)
        self._server.scene.set_up_direction((0.0, -1.0, 0.0))
        start = self._server.initial_camera
        start.position, start.look_at = home.position, tuple(optics.target.tolist())
        start.up, start.fov = (0.0, -1.0, 0.0), home.fov

    def _come(self, client: viser.ClientHandle) -> None:
        room = self._shared or self._room(client.gui)
        self._rooms[client.client_id] = room
        room.come(client)

    def _leave(self, client: viser.ClientHandle) -> None:
        room = self._rooms.pop(client.client_id, None)
        if room is not None:
            room.leave(client.client_id)
            if room is not self._shared:
                room.close()


def _server() -> viser.ViserServer:
    """A silent viser server on any free port of loopback; the door stands before it."""
    try:
        import viser
    except ImportError as e:
        raise MissingExtraError("viser", "viewer", "the live viewer") from e
    with _silence():
        server = viser.ViserServer(host="127.0.0.1", port=0, label="gsth", verbose=False)
    server.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=True)
    # Beside the picture, not over it.
    server.gui.main_panel.dock_right()
    return server


def _url(host: str, port: int, token: str | None) -> str:
    """The link to give to visitors."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}" + (f"/?token={token}" if token else "")


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
