"""What the face and the head do on top of the motion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gsth.serve import _sources
from gsth.serve._panel import by_visitor, on_click, put

if TYPE_CHECKING:
    import viser

    from gsth.serve._panel import Stage

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Brows": ("brow",),
    "Eyes": ("eye",),
    "Jaw and tongue": ("jaw", "tongue"),
    "Mouth": ("mouth",),
    "Cheeks and nose": ("cheek", "nose"),
}
"""Folders of expression sliders, and the beginnings of the ARKit names in each; all others go into "Other"."""
TURNS: Mapping[str, Mapping[str, float]] = {
    "gaze": {"yaw": 30, "pitch": 20},
    "head": {"yaw": 40, "pitch": 30, "roll": 25},
    "neck": {"yaw": 30, "pitch": 20, "roll": 15},
}
"""Sliders of what can be turned, and how far each way, degrees."""
AXES = ("yaw", "pitch", "roll")
_NEUTRAL = "as driven"


def grouped(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Expression names by folder; each in exactly one, empty folders left out."""
    out: dict[str, list[str]] = {group: [] for group in (*GROUPS, "Other")}
    for name in names:
        out[next((g for g, starts in GROUPS.items() if name.startswith(starts)), "Other")].append(name)
    return {group: members for group, members in out.items() if members}


def mirror_of(name: str, names: tuple[str, ...]) -> str | None:
    """The same expression of the other side, where there is one."""
    for a, b in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(a) and name.removesuffix(a) + b in names:
            return name.removesuffix(a) + b
    return None


class FacePanel:
    """The tab "Face": gaze, head and neck, and every expression."""

    def __init__(self, gui: viser.GuiApi, stage: Stage) -> None:
        self._session = stage.session
        self._names = stage.session.avatar.head.expression_names
        self._presets = _sources.presets(self._names)
        self.sliders: dict[str, Any] = {}
        """Expression sliders by name."""
        self.turns: dict[str, dict[str, Any]] = {}
        """Turn sliders by what they turn and about which axis."""
        self._add_turns(gui, stage)
        self._add_expressions(gui)

    def follow(self) -> None:
        """Show what the session holds."""
        held = self._session.overrides
        for name, slider in self.sliders.items():
            put(slider, "value", round(held.get(name, 0.0), 4))
        turned = self._session.turns
        for what, sliders in self.turns.items():
            angles: dict[str, float] = dict(zip(AXES, turned.get(what, (0.0, 0.0, 0.0)), strict=True))
            for axis, slider in sliders.items():
                put(slider, "value", min(max(angles[axis], -TURNS[what][axis]), TURNS[what][axis]))
        put(self.gaze, "value", self._session.gaze_follows)
        if not held:
            put(self.preset, "value", _NEUTRAL)

    def put_on(self, preset: str) -> None:
        """Hold the expressions of a preset, and no others."""
        self._session.reset(self._names)
        for name, value in self._presets.get(preset, {}).items():
            self._session.express(name, value)

    def _add_turns(self, gui: viser.GuiApi, stage: Stage) -> None:
        with gui.add_folder("Gaze, head, neck", expand_by_default=False):
            self.gaze = gui.add_checkbox("eyes follow the camera", False)
            for what, axes in TURNS.items():
                self.turns[what] = {a: gui.add_slider(f"{what} {a}", -m, m, 1.0, 0.0) for a, m in axes.items()}
                for slider in self.turns[what].values():
                    by_visitor(slider, lambda _, what=what: self._turn(what))
            reset = gui.add_button("Reset")

        def follow_camera(event: Any) -> None:
            view = stage.view_of(event.client.client_id)
            on = self.gaze.value and view is not None and view.orbit is not None
            self._session.look_at(view.orbit.position if on and view and view.orbit else None)

        by_visitor(self.gaze, follow_camera)
        on_click(reset, lambda _: self._straighten())

    def _add_expressions(self, gui: viser.GuiApi) -> None:
        session = self._session
        self.preset = gui.add_dropdown("face", (_NEUTRAL, *self._presets), initial_value=_NEUTRAL)
        self.mirrored = gui.add_checkbox("left and right together", True)
        everything = gui.add_button("Reset all")
        for group, names in grouped(self._names).items():
            with gui.add_folder(group, expand_by_default=False):
                for name in names:
                    slider = self.sliders[name] = gui.add_slider(name, 0.0, 1.0, 0.01, 0.0)
                    by_visitor(slider, lambda e, name=name: self._express(name, float(e.target.value)))
                reset = gui.add_button("Reset")
            on_click(reset, lambda _, names=names: session.reset(names))
        on_click(everything, lambda _: session.reset(self._names))
        by_visitor(self.preset, lambda _: self.put_on(self.preset.value))

    def _express(self, name: str, value: float) -> None:
        self._session.express(name, value)
        other = mirror_of(name, self._names) if self.mirrored.value else None
        if other is not None:
            self._session.express(other, value)

    def _turn(self, what: str) -> None:
        self._session.turn(
            what, **{"yaw": 0.0, "pitch": 0.0} | {a: float(s.value) for a, s in self.turns[what].items()}
        )

    def _straighten(self) -> None:
        for what in self.turns:
            self._session.turn(what, 0.0, 0.0)
        self._session.look_at(None)
