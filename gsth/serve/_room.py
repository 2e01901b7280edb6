"""A session with its controls and those who look at it: one for all visitors, or one for each."""

from __future__ import annotations

import io
import logging
import tempfile
import threading
import time
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsth.errors import GsthError, InputError
from gsth.serve import protocol
from gsth.serve._optics import Optics, Orbit
from gsth.serve._paint import Painter
from gsth.serve._panel import Panel
from gsth.serve._range import TrainedRange
from gsth.serve._sources import kind_of
from gsth.serve._view import View
from gsth.serve._visitor import Visitor
from gsth.serve.protocol import Hello, Hush, Key, Message, Player, Shown
from gsth.serve.session import SPEEDS, TURNABLE, Session, Style

if TYPE_CHECKING:
    import viser

    from gsth.avatar import Avatar
    from gsth.drive import Sound
    from gsth.serve._link import Link
    from gsth.serve._view import Picture

log = logging.getLogger(__name__)

_FOLLOW_S = 0.2
_CLOCK_S = 1.0
_SOUNDS = 8
"""Sounds that pages may still ask for."""
_SPEED_STEP = 1.25


class Room:
    """Implements ``_panel.Stage``."""

    def __init__(
        self, avatar: Avatar, style: Style, gui: viser.GuiApi, link: Link, other: Avatar | None = None
    ) -> None:
        """Add the controls to ``gui``; another avatar may be there to compare with."""
        self.session = Session(avatar, style)
        self.optics = Optics.of(avatar)
        self._other, self._link = other, link
        self.painter = Painter(self.optics, other)
        self._visitors: dict[int, Visitor] = {}
        self._sounds: dict[str, Sound] = {}
        self._web: tempfile.TemporaryDirectory[str] | None = None
        self._web_lock = threading.Lock()
        self._changed, self._closed = threading.Event(), threading.Event()
        self.panel = Panel(gui, self, TrainedRange(avatar))
        self._unlisten = self.session.listen(self._notice)
        self._thread = threading.Thread(target=self._follow, name="gsth-room", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ visitors

    def come(self, client: viser.ClientHandle) -> None:
        """A visitor's browser is there."""
        client.gui.add_html(f'<i data-gsth-visitor="{client.client_id}" style="display:none"></i>')
        view = View(self.session, Painter(self.optics, self._other))
        self._visitors[client.client_id] = Visitor(client, view, self._link, self._sent)

    def leave(self, visitor: int) -> None:
        """A visitor has gone."""
        gone = self._visitors.pop(visitor, None)
        if gone is not None:
            gone.stop()
        self.panel.save.leave(visitor)

    def close(self) -> None:
        """End everything."""
        self._closed.set()
        self._changed.set()
        self._unlisten()
        self.panel.drive.stop_live()
        for visitor in tuple(self._visitors):
            self.leave(visitor)
        self._thread.join(timeout=5)
        if self._web is not None:
            self._web.cleanup()

    def view_of(self, visitor: int) -> View | None:
        """What a visitor looks at."""
        found = self._visitors.get(visitor)
        return None if found is None else found.view

    def go(self, client: viser.ClientHandle, orbit: Orbit) -> None:
        """Put a visitor's camera somewhere; it looks at the head."""
        with client.atomic():
            client.camera.up_direction = (0.0, -1.0, 0.0)
            client.camera.position = orbit.position
            client.camera.look_at = tuple(self.optics.target.tolist())
            client.camera.fov = orbit.fov

    def ask(self, visitor: int, purpose: str, accept: tuple[str, ...]) -> None:
        """Let a visitor choose a file."""
        self._link.send(visitor, t="ask", purpose=purpose, accept=",".join(accept))

    def tell(self, text: str) -> None:
        """Say something to all visitors of this room."""
        self._send(t="wrong", text=text)

    def draw_there(self, visitor: int) -> None:
        """Let a visitor's browser draw with the player of the web export."""
        with self._web_lock:
            if self._web is None:
                folder = tempfile.TemporaryDirectory(prefix="gsth-web-")
                try:
                    self.panel.save.exported("web", Path(folder.name))
                except GsthError:
                    folder.cleanup()
                    raise
                self._web = folder
        self._link.send(visitor, t="player", src=f"/gsth/player/{visitor}/index.html")

    # ------------------------------------------------------------------------------------------ what pages say

    def told(self, visitor: int, message: Message) -> None:
        """A page's message. Raises GsthErrors for its visitor."""
        here = self._visitors[visitor]
        if isinstance(message, Hello):
            here.client.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=message.dark)
            here.dark = message.dark
            here.arrived()
            self._tell_clock()
            if message.state:
                self.restore(protocol.unpack_state(message.state), here)
        elif isinstance(message, Key):
            self._key(here, message.name)
        elif isinstance(message, Hush):
            self.panel.drive.hush()
        elif isinstance(message, Shown):
            here.saw()
        elif isinstance(message, Player):
            here.view.asleep = message.on
            here.view.changed.set()
            self._tell_face()

    def given(self, name: str, purpose: str, path: Path) -> None:
        """A visitor's file. Raises GsthErrors for its visitor."""
        if purpose == "backdrop" or (not purpose and kind_of(name) == "image"):
            self.panel.look.give_backdrop(path)
        else:
            self.panel.drive.give(purpose, name, path)

    def heard(self, piece: bytes, rate: int) -> None:
        """A piece of a visitor's microphone, 16 bit mono."""
        from gsth import audio, media

        if len(piece) % 2:
            raise InputError("a piece of sound is cut in the middle of a sample")
        samples = np.frombuffer(piece, "<i2").astype(np.float32) / np.float32(32768)
        self.panel.drive.hear(media.resampled(samples, rate, audio.RATE))

    def _key(self, here: Visitor, name: str) -> None:
        session, client = self.session, here.client
        if name == "play":
            (session.pause if session.transport.playing else session.play)()
        elif name in ("back", "forward"):
            session.pause()
            session.seek(session.moment().frame + (1 if name == "forward" else -1))
        elif name in ("slower", "faster"):
            factor = _SPEED_STEP if name == "faster" else 1 / _SPEED_STEP
            session.set_speed(session.transport.speed * factor)
        elif name == "home":
            self.go(client, self.optics.home(1, 1))
        elif name == "mode":
            self.panel.look.next_mode()
        elif name == "reset":
            session.reset()
            session.look_at(None)
        elif name == "still":
            self.panel.save.still(client)
        elif name == "record":
            self.panel.save.toggle(client)
            self._link.send(client.client_id, t="recording", on=self.panel.save.recording(client.client_id))
        elif name == "theme":
            here.dark = not here.dark
            client.gui.configure_theme(show_logo=False, show_share_button=False, dark_mode=here.dark)

    # ------------------------------------------------------------------------------------------ state in the address

    def state(self, here: Visitor) -> dict[str, Any]:
        """What an address holds: controls that are not at rest, and the visitor's camera."""
        s, style, orbit = self.session, self.session.style, here.view.orbit
        out: dict[str, Any] = {}
        rest = Style()
        looks = {k: getattr(style, k) for k in ("background", "mode", "overlay", "split", "max_height")}
        looks = {k: v for k, v in looks.items() if v != getattr(rest, k) and v != "image"}
        for name, value in (("face", s.overrides), ("turns", s.turns), ("looks", looks)):
            if value:
                out[name] = value
        if s.transport.speed != 1.0:
            out["speed"] = s.transport.speed
        if orbit is not None and not self.optics.is_home(orbit):
            out["camera"] = [round(x, 4) for x in (*orbit.position, orbit.fov)]
        return out

    def restore(self, state: dict[str, Any], here: Visitor | None = None) -> None:
        """Put on what an address holds. Raises InputError where it is none of ours; then nothing has changed."""
        face, turns, looks = (_table(state, name) for name in ("face", "turns", "looks"))
        names = self.session.avatar.head.expression_names
        speed, camera = state.get("speed", 1.0), state.get("camera", [])
        numbers = [*face.values(), *(x for t in turns.values() for x in _row(t, 3)), speed]
        if camera:
            numbers += _row(camera, 4)
        good = all(type(x) in (int, float) and abs(x) < 1e4 for x in numbers)
        if not good or not set(face) <= set(names) or not set(turns) <= set(TURNABLE):
            raise InputError("the address holds a state of another avatar, or was cut off")
        try:
            style = Style(**looks)
        except TypeError as e:
            raise InputError("the address holds looks that this viewer does not know") from e
        self.session.style = style
        self.session.reset()
        for name, value in face.items():
            self.session.express(name, value)
        for what, turn in turns.items():
            self.session.turn(what, *turn)
        self.session.set_speed(min(max(speed, SPEEDS[0]), SPEEDS[1]))
        if camera and here is not None and 0.02 < camera[3] < 3:
            self.go(here.client, Orbit((camera[0], camera[1], camera[2]), (1.0, 0.0, 0.0, 0.0), camera[3], 1, 1))

    # ------------------------------------------------------------------------------------------ sound

    def asset(self, path: str) -> bytes | None:
        """``sound/N.wav``, or a file of the player below ``player/``."""
        kind, _, name = path.partition("/")
        if kind == "sound" and (sound := self._sounds.get(name.removesuffix(".wav"))) is not None:
            return _wav(sound)
        if kind == "player" and self._web is not None:
            wanted = name.rpartition("/")[2]
            files = {f.name: f for f in (Path(self._web.name) / "avatar").iterdir()}
            return files[wanted].read_bytes() if wanted in files else None
        return None

    def _sound_name(self, sound: Sound | None) -> str | None:
        """The name under which pages may ask for a sound."""
        if sound is None:
            return None
        for name, known in self._sounds.items():
            if known is sound:
                return name
        name = f"{id(self):x}-{time.monotonic_ns():x}"
        self._sounds[name] = sound
        for old in list(self._sounds)[:-_SOUNDS]:
            del self._sounds[old]
        return name

    # ------------------------------------------------------------------------------------------ following

    def _notice(self) -> None:
        """The session changed; called while it is locked."""
        self._tell_clock()
        self._changed.set()

    def _send(self, **message: Any) -> None:
        for visitor in tuple(self._visitors):
            self._link.send(visitor, **message)

    def _tell_clock(self) -> None:
        t = self.session.transport
        self._send(
            t="clock",
            playing=t.playing,
            position=t.position_s,
            duration=t.duration_s,
            speed=t.speed,
            loop=t.loop,
            sound=self._sound_name(t.sound),
        )

    def _tell_face(self) -> None:
        held = self.session.overrides
        self._send(t="face", face={name: held.get(name) for name in self.session.avatar.head.expression_names})

    def _follow(self) -> None:
        """Keep controls, clocks and addresses in step with the session, a few times a second while it moves."""
        told, version = 0.0, -1
        while not self._closed.is_set():
            playing = self.session.transport.playing
            self._changed.wait(_FOLLOW_S if playing else None)
            self._changed.clear()
            if self._closed.wait(_FOLLOW_S / 2):
                return
            try:
                self.panel.follow()
                if playing and time.monotonic() - told > _CLOCK_S:
                    told = time.monotonic()
                    self._tell_clock()
                if version != self.session.version:
                    version = self.session.version
                    self.tell_states()
                    self._tell_face()
            except Exception:
                log.exception("the controls cannot follow the session")

    def tell_states(self) -> None:
        """Let every page's address carry what it shows."""
        for visitor, here in tuple(self._visitors.items()):
            self._link.send(visitor, t="state", state=protocol.pack_state(self.state(here)))

    def _sent(self, visitor: int, picture: Picture, send_ms: float) -> None:
        """A picture went to a visitor."""
        self.panel.show(picture, send_ms)
        self.panel.save.look(visitor, picture.orbit)
        if self.session.gaze_follows:
            self.session.look_at(picture.orbit.position)
        if picture.full and not picture.moment.playing and (here := self._visitors.get(visitor)) is not None:
            self._link.send(visitor, t="state", state=protocol.pack_state(self.state(here)))


def _table(state: dict[str, Any], name: str) -> dict[str, Any]:
    value = state.get(name, {})
    if not isinstance(value, dict):
        raise InputError(f"the address holds no table of {name}")
    return value


def _row(value: Any, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise InputError("the address holds a row of the wrong length")
    return value


def _wav(sound: Sound) -> bytes:
    """16 bit mono."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes((np.clip(sound.samples, -1, 1) * 32767).astype("<i2").tobytes())
    return held.getvalue()
