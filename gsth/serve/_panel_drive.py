"""What the avatar does: the drivers that there are, the motions that they made, and the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import GsthError, InputError
from gsth.serve import _sources
from gsth.serve._panel import by_visitor, on_click, put
from gsth.serve._sources import SUFFIXES, Source

if TYPE_CHECKING:
    import viser

    from gsth.drive import Manner, Sound
    from gsth.serve._panel import Stage
    from gsth.types import Motion

TRACKED, IDLE, LIVE = "tracked clip", "idle", "live"
MOST = 12
"""Motions that are kept; the oldest go first."""
_NO_MOOD = "none"
_BY_KIND = {"sound": "audio", "video": "video", "motion": "motion"}
"""Which driver takes a file that was dropped on the page."""


@dataclass(frozen=True, eq=False)
class Playable:
    """A motion and its sound."""

    motion: Motion
    sound: Sound | None = None
    loop: bool = True


class DrivePanel:
    """The tab "Drive"."""

    def __init__(self, gui: viser.GuiApi, stage: Stage) -> None:
        self._stage, self._session = stage, stage.session
        self._lock = threading.Lock()
        self._live: threading.Event | None = None
        self._speaker: Any = None
        self._made: dict[str, Playable | None] = {TRACKED: None, IDLE: None}
        self.sources = _sources.sources()
        self.given: dict[str, dict[str, Any]] = {}
        """What the visitor typed for each driver, by field."""
        self._add_clock(gui)
        self._add_sources(gui)
        self._add_manner(gui)

    # ------------------------------------------------------------------------------------------ what can be done

    def manner(self) -> Manner:
        """How the avatar speaks next."""
        from gsth.drive import Manner

        mood = self.mood.value
        emotion = mood if mood == _NO_MOOD else f"{mood}:{float(self.strength.value):.2f}"
        return Manner(expressiveness=float(self.expressive.value), emotion=emotion)

    def run(self, name: str, given: dict[str, Any], title: str) -> None:
        """Let a driver make a motion and play it, or follow it live where it has no end of its own.

        Raises:
            GsthError: As the driver does.
        """
        from gsth.drive import offline

        source = self.sources.get(name)
        if source is None:
            raise InputError(f"there is no driver {name!r} here; there are: {', '.join(self.sources)}")
        driver = source.build(self._session.avatar, given, self.manner())
        if source.wants is None:
            self._follow_live(driver)
            return
        self.add(title, Playable(offline(driver), driver.sound, loop=False))

    def add(self, title: str, playable: Playable) -> None:
        """Keep a motion under a title, and play it."""
        with self._lock:
            self._made.pop(title, None)
            self._made[title] = playable
            for old in list(self._made)[2 : 2 + max(len(self._made) - MOST, 0)]:
                del self._made[old]
            self.motion.options = tuple(self._made)
        self.play(title)

    def play(self, title: str) -> None:
        """Put a motion on from its start and play it."""
        self.stop_live()
        if title not in self._made:
            raise InputError(f"there is no motion {title!r}; there are: {', '.join(self._made)}")
        playable = self._made[title]
        if playable is None:
            avatar = self._session.avatar
            playable = Playable(avatar.motion if title == TRACKED else _sources.idle(avatar, self.manner()))
        put(self.motion, "value", title)
        self._session.load(playable.motion, sound=playable.sound, loop=playable.loop)
        self._session.play()

    def give(self, purpose: str, name: str, path: Path) -> None:
        """Use a file that a visitor gave: for the driver and field in ``purpose``, else by its kind.

        Raises:
            GsthError: No driver takes it, or as the driver does.
        """
        driver, _, wanted = purpose.removeprefix("drive:").partition(":")
        if not purpose.startswith("drive:"):
            driver, wanted = _BY_KIND.get(_sources.kind_of(name), ""), ""
        source = self.sources.get(driver)
        files = () if source is None else tuple(f.name for f in source.fields if f.kind == "file")
        wanted = wanted or next(iter(files), "")
        if wanted not in files:
            raise InputError(f"{name[:60]!r}: no driver here takes such a file")
        self.run(driver, {**self.given.get(driver, {}), wanted: path}, Path(name).name[:60])

    def hear(self, samples: Any) -> None:
        """Let the mouth follow a microphone: 16 kHz mono float samples, as they come."""
        from gsth.drive._speaking import LiveSpeech

        if self._speaker is None:
            self.stop_live()
            self._speaker = LiveSpeech(self._session.avatar, self.manner())
        motion = self._speaker.push(samples)
        if motion is not None:
            self._session.load(motion, loop=False)
            self._session.play()

    def hush(self) -> None:
        """The microphone is off."""
        if self._speaker is not None:
            self._speaker = None
            self.play(IDLE)

    def stop_live(self) -> None:
        """End what follows a camera."""
        if self._live is not None:
            self._live.set()
            self._live = None

    def follow(self) -> None:
        """Show what the session does."""
        transport = self._session.transport
        put(self.frame, "max", max(self._session.frames - 1, 1))
        put(self.frame, "value", min(int(transport.position_s * self._session.fps), self._session.frames - 1))
        put(self.loop, "value", transport.loop)
        put(self.speed, "value", round(transport.speed, 2))

    # ------------------------------------------------------------------------------------------ controls

    def _add_clock(self, gui: viser.GuiApi) -> None:
        session = self._session
        self.motion = gui.add_dropdown("motion", tuple(self._made), initial_value=TRACKED)
        self.buttons = gui.add_button_group("", ("Play", "Pause"))
        self.frame = gui.add_slider("frame", 0, max(session.frames - 1, 1), 1, 0)
        self.speed = gui.add_slider("speed", 0.1, 4.0, 0.05, 1.0)
        self.loop = gui.add_checkbox("loop", True)
        by_visitor(self.motion, lambda _: self.play(self.motion.value))
        self.buttons.on_click(lambda event: session.play() if event.target.value == "Play" else session.pause())
        by_visitor(self.frame, lambda _: session.seek(int(self.frame.value)))
        by_visitor(self.speed, lambda _: session.set_speed(float(self.speed.value)))
        by_visitor(self.loop, lambda _: session.set_loop(self.loop.value))

    def _add_sources(self, gui: viser.GuiApi) -> None:
        for name, source in self.sources.items():
            self.given[name] = {}
            title = name.capitalize()
            with gui.add_folder(title, expand_by_default=name in ("audio", "text")):
                self._add_wanted(gui, name, source)
                for f in source.fields:
                    if not f.required and f.kind != "file":
                        self._add_option(gui, name, f)

    def _add_wanted(self, gui: viser.GuiApi, name: str, source: Source) -> None:
        wanted = source.wants
        if wanted is None:
            go, end = gui.add_button("Start"), gui.add_button("Stop")
            on_click(go, lambda _: self.run(name, self.given[name], LIVE), f"{name} cannot start")
            on_click(end, lambda _: self.stop_live())
        elif wanted.kind == "file":
            accept = next((SUFFIXES[k] for k, n in _BY_KIND.items() if n == name), sum(SUFFIXES.values(), ()))
            choose = gui.add_button("Choose a file")
            purpose = f"drive:{name}:{wanted.name}"
            on_click(choose, lambda client: self._stage.ask(client.client_id, purpose, accept))
        else:
            typed = gui.add_text(wanted.name, "", multiline=True)
            say = gui.add_button("Say")

            def said(_: Any) -> None:
                text = str(typed.value).strip()
                if not text:
                    raise InputError("nothing is written; write what the avatar is to say")
                self.run(name, {**self.given[name], wanted.name: text}, _short(text))

            on_click(say, said, "This cannot be said")

    def _add_option(self, gui: viser.GuiApi, name: str, f: _sources.Field) -> None:
        """A field that may stay as it is."""
        if f.kind == "number":
            handle: Any = gui.add_number(f.name, f.default)
            convert: Callable[[Any], Any] = type(f.default)
        else:
            handle, convert = gui.add_text(f.name, f.default or ""), str

        def changed(_: Any) -> None:
            value = handle.value
            if value == "" or value == f.default:
                self.given[name].pop(f.name, None)
            else:
                self.given[name][f.name] = convert(value)

        by_visitor(handle, changed)

    def _add_manner(self, gui: viser.GuiApi) -> None:
        with gui.add_folder("Manner of speaking"):
            self.mood = gui.add_dropdown("emotion", (_NO_MOOD, *_sources.moods()), initial_value=_NO_MOOD)
            self.strength = gui.add_slider("strength", 0.0, 1.0, 0.05, 0.7)
            self.expressive = gui.add_slider("expressiveness", 0.0, 2.0, 0.05, 1.0)

    def _follow_live(self, driver: Any) -> None:
        """Show each frame of a driver as it comes, until it ends or something else is put on."""
        self.stop_live()
        ended = self._live = threading.Event()
        session, tell = self._session, self._stage.tell

        def run() -> None:
            try:
                for piece in driver.stream():
                    if ended.is_set():
                        return
                    session.load(piece[-1:], loop=False)
            except GsthError as e:
                tell(str(e))

        threading.Thread(target=run, name="gsth-live", daemon=True).start()


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 40 else f"{words[:39]}…"
