"""The controls beside the picture. All visitors share them, as they share the avatar."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import GsthError
from gsth.serve.session import COLOURS, FROM_VIDEO, Session, Style
from gsth.types import Motion

if TYPE_CHECKING:
    import viser

    from gsth.serve._view import Picture

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Brows": ("brow",),
    "Eyes": ("eye",),
    "Jaw and tongue": ("jaw", "tongue"),
    "Mouth": ("mouth",),
    "Cheeks and nose": ("cheek", "nose"),
}
"""Folders of expression sliders, and the beginnings of the ARKit names in each; all others go into "Other"."""
HEIGHTS = (256, 384, 512, 720, 1080)
TURNS: Mapping[str, Mapping[str, float]] = {
    "gaze": {"yaw": 30, "pitch": 20},
    "head": {"yaw": 40, "pitch": 30, "roll": 25},
    "neck": {"yaw": 30, "pitch": 20, "roll": 15},
}
"""Sliders of what can be turned, and how far each way, degrees."""
TRACKED = "tracked clip"
REFRESH_S = 0.25
"""The statistics and the frame slider follow no quicker than this."""


def grouped(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Expression names by folder; each in exactly one, empty folders left out."""
    out: dict[str, list[str]] = {group: [] for group in (*GROUPS, "Other")}
    for name in names:
        out[next((g for g, starts in GROUPS.items() if name.startswith(starts)), "Other")].append(name)
    return {group: members for group, members in out.items() if members}


class Panel:
    """Builds the controls and keeps them and the session in step."""

    def __init__(self, gui: viser.GuiApi, session: Session, go_home: Callable[[viser.ClientHandle], None]) -> None:
        """Add all controls to the page."""
        self._gui, self._session, self._go_home = gui, session, go_home
        self._motions: dict[str, tuple[Motion, str]] = {TRACKED: (session.avatar.motion, "")}
        """What can be played: its motion, and the sound as a data URL."""
        self._refresh = threading.Lock()
        self._refreshed_at = 0.0
        self._take = 0
        self.sliders: dict[str, Any] = {}
        """Expression sliders by name."""
        self.turns: dict[str, dict[str, Any]] = {}
        """Turn sliders by what they turn and about which axis."""
        self.stats = gui.add_markdown("")
        self._add_play()
        self._add_picture()
        self._add_turns()
        self._add_expressions()

    def show(self, picture: Picture) -> None:
        """Let statistics and frame slider follow a picture that was sent."""
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
                f"{s.splats:,} splats, {s.width} x {s.height} px, {s.render_ms:.0f} ms, {s.fps:.0f} pictures/s"
            )
            self.frame.value = picture.moment.frame
        finally:
            self._refresh.release()

    def speak(self, name: str, content: bytes) -> None:
        """Drive the avatar by a sound file and play it. Raises InputError where it holds no usable sound."""
        from gsth import drive
        from gsth.drive import audio

        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder) / f"sound{Path(name).suffix}"
            wav.write_bytes(content)
            motion = drive.offline(audio.Config(wav=wav).build(self._session.avatar))
        kind = mimetypes.guess_type(name)[0] or "audio/wav"
        self._motions[name] = motion, f"data:{kind};base64,{base64.b64encode(content).decode()}"
        self.motion.options = tuple(self._motions)
        self.motion.value = name
        self._put_on(name)
        self._play()

    def _add_play(self) -> None:
        gui, session = self._gui, self._session
        with gui.add_folder("Play"):
            self.motion = gui.add_dropdown("motion", (TRACKED,), initial_value=TRACKED)
            self.play = gui.add_button_group("", ("Play", "Pause"))
            self.frame = gui.add_slider("frame", 0, max(session.frames - 1, 1), 1, 0)
            self.loop = gui.add_checkbox("loop", True)
            self.upload = gui.add_upload_button("Speak a sound file", mime_type="audio/*")
            self._sound = gui.add_html("")
        _by_visitor(self.motion, lambda _: self._put_on(self.motion.value))
        self.play.on_click(lambda event: self._play() if event.target.value == "Play" else self._pause())
        _by_visitor(self.frame, lambda _: session.seek(int(self.frame.value)))
        _by_visitor(self.loop, lambda _: session.set_loop(self.loop.value))
        self.upload.on_upload(self._uploaded)

    def _add_picture(self) -> None:
        gui, session = self._gui, self._session
        heights = tuple(map(str, sorted({*HEIGHTS, session.style.max_height})))
        with gui.add_folder("Picture"):
            self.height = gui.add_dropdown("height, px", heights, initial_value=str(session.style.max_height))
            self.background = gui.add_dropdown(
                "background", (FROM_VIDEO, *COLOURS), initial_value=session.style.background
            )
            self.home = gui.add_button("Training view")

        def restyle(_: Any) -> None:
            session.style = Style(background=self.background.value, max_height=int(self.height.value))

        _by_visitor(self.height, restyle)
        _by_visitor(self.background, restyle)
        self.home.on_click(lambda event: self._go_home(event.client) if event.client is not None else None)

    def _add_turns(self) -> None:
        gui = self._gui
        with gui.add_folder("Gaze, head, neck", expand_by_default=False):
            for what, axes in TURNS.items():
                self.turns[what] = {a: gui.add_slider(f"{what} {a}", -m, m, 1.0, 0.0) for a, m in axes.items()}
                for slider in self.turns[what].values():
                    _by_visitor(slider, lambda _, what=what: self._turn(what))
            reset = gui.add_button("Reset")
        reset.on_click(lambda _: self._straighten())

    def _add_expressions(self) -> None:
        gui, session = self._gui, self._session
        with gui.add_folder("Expression", expand_by_default=False):
            everything = gui.add_button("Reset all")
            for group, names in grouped(session.avatar.head.expression_names).items():
                with gui.add_folder(group, expand_by_default=False):
                    for name in names:
                        slider = self.sliders[name] = gui.add_slider(name, 0.0, 1.0, 0.01, 0.0)
                        _by_visitor(slider, lambda e, name=name: session.express(name, float(e.target.value)))
                    reset = gui.add_button("Reset")
                reset.on_click(lambda _, names=names: self._relax(names))
        everything.on_click(lambda _: self._relax(list(self.sliders)))

    def _turn(self, what: str) -> None:
        self._session.turn(what, **{axis: float(s.value) for axis, s in self.turns[what].items()})

    def _straighten(self) -> None:
        for what, sliders in self.turns.items():
            for slider in sliders.values():
                slider.value = 0.0
            self._turn(what)

    def _relax(self, names: list[str]) -> None:
        self._session.reset(names)
        for name in names:
            self.sliders[name].value = 0.0

    def _put_on(self, name: str) -> None:
        """Another motion, from its start; a sound is spoken once, the tracked clip goes round."""
        motion, sound = self._motions[name]
        self._quiet()
        self.loop.value = not sound
        self._session.load(motion, loop=not sound)
        self.frame.max = max(len(motion) - 1, 1)
        self.frame.value = 0

    def _play(self) -> None:
        sound = self._motions[self.motion.value][1]
        if sound:
            # The page cannot be told to wind a sound to a place, so speech starts from the beginning, with its sound.
            self._session.seek(0)
            self._take += 1
            self._sound.content = (
                f'<audio autoplay controls style="width: 100%" src="{sound}" data-take="{self._take}"></audio>'
            )
        self._session.play()

    def _pause(self) -> None:
        self._quiet()
        self._session.pause()

    def _quiet(self) -> None:
        self._sound.content = ""

    def _uploaded(self, event: viser.GuiEvent[Any]) -> None:
        with _telling(event.client, "This sound cannot be spoken"):
            self.speak(event.target.value.name, event.target.value.content)


def _by_visitor(handle: Any, react: Callable[[Any], None]) -> None:
    """Call ``react`` where a visitor changed a control, not where the panel itself moved it."""
    handle.on_update(lambda event: react(event) if event.client is not None else None)


@contextmanager
def _telling(client: viser.ClientHandle | None, title: str) -> Iterator[None]:
    """Shows what goes wrong to the visitor who asked for it."""
    try:
        yield
    except GsthError as e:
        if client is None:
            raise
        client.add_notification(title, str(e), color="red")
