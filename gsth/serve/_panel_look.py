"""How the avatar is shown: cameras, kinds of pictures, comparisons, backgrounds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gsth import media
from gsth.errors import InputError
from gsth.serve._optics import PRESETS_DEG
from gsth.serve._panel import by_visitor, on_click, put
from gsth.serve._sources import SUFFIXES
from gsth.serve.session import COLOURS, COMPARES, FROM_IMAGE, FROM_VIDEO, MODES, OVERLAYS

if TYPE_CHECKING:
    import viser

    from gsth.serve._panel import Stage

HEIGHTS = (256, 384, 512, 720, 1080)
FOV_DEG = (8.0, 90.0)
_OWN_COLOUR = "colour"


class LookPanel:
    """The tab "View"."""

    def __init__(self, gui: viser.GuiApi, stage: Stage) -> None:
        self._session, self._stage = stage.session, stage
        self._add_camera(gui)
        self._add_picture(gui)
        self._add_background(gui)

    def follow(self) -> None:
        """Show the session's style."""
        style = self._session.style
        for name in ("mode", "overlay", "compare", "split"):
            put(getattr(self, name), "value", getattr(style, name))
        heights = tuple(map(str, sorted({*HEIGHTS, style.max_height})))
        put(self.height, "options", heights)
        put(self.height, "value", str(style.max_height))
        put(self.background, "value", _OWN_COLOUR if style.background.startswith("#") else style.background)

    def give_backdrop(self, path: Path) -> None:
        """Put an image behind the avatar. Raises InputError where it is none."""
        image = media.read_image(path)
        if image.shape[0] * image.shape[1] > 64_000_000:
            raise InputError(f"the image has {image.shape[1]} x {image.shape[0]} px; want at most 64 megapixels")
        self._session.backdrop = torch.from_numpy(image).float() / 255
        self._restyle(background=FROM_IMAGE)

    def next_mode(self) -> None:
        """The next kind of picture."""
        at = MODES.index(self._session.style.mode)
        self._restyle(mode=MODES[(at + 1) % len(MODES)])

    def _add_camera(self, gui: viser.GuiApi) -> None:
        home = gui.add_button("Training view")
        self.sides = gui.add_dropdown("side", tuple(PRESETS_DEG), initial_value="front")
        fov = math.degrees(self._stage.painter.optics.home_fov)
        self.fov = gui.add_slider("angle of view", *FOV_DEG, 0.5, min(max(round(fov, 1), FOV_DEG[0]), FOV_DEG[1]))
        here = gui.add_button("Draw in this browser")
        optics = self._stage.painter.optics
        on_click(home, lambda client: self._stage.go(client, optics.home(1, 1)))
        by_visitor(self.sides, lambda e: self._stage.go(e.client, optics.beside(PRESETS_DEG[self.sides.value])))
        on_click(here, lambda client: self._stage.draw_there(client.client_id), "This browser cannot draw it")

        def widen(event: Any) -> None:
            event.client.camera.fov = math.radians(float(self.fov.value))

        by_visitor(self.fov, widen)

    def _add_picture(self, gui: viser.GuiApi) -> None:
        style = self._session.style
        heights = tuple(map(str, sorted({*HEIGHTS, style.max_height})))
        with gui.add_folder("Picture"):
            self.mode = gui.add_dropdown("show", MODES, initial_value=style.mode)
            self.overlay = gui.add_dropdown("on top", OVERLAYS, initial_value=style.overlay)
            self.compare = gui.add_dropdown("compare with", COMPARES, initial_value=style.compare)
            self.split = gui.add_slider("split", 0.0, 1.0, 0.01, style.split)
            self.height = gui.add_dropdown("height, px", heights, initial_value=str(style.max_height))
        by_visitor(self.mode, lambda _: self._restyle(mode=self.mode.value))
        by_visitor(self.overlay, lambda _: self._restyle(overlay=self.overlay.value))
        by_visitor(self.compare, lambda _: self._compare())
        by_visitor(self.split, lambda _: self._restyle(split=float(self.split.value)))
        by_visitor(self.height, lambda _: self._restyle(max_height=int(self.height.value)))

    def _add_background(self, gui: viser.GuiApi) -> None:
        with gui.add_folder("Background"):
            choices = (FROM_VIDEO, FROM_IMAGE, *COLOURS, _OWN_COLOUR)
            self.background = gui.add_dropdown("behind", choices, initial_value=self._session.style.background)
            self.colour = gui.add_rgb("colour", (40, 60, 90))
            image = gui.add_button("Choose an image")
        by_visitor(self.background, lambda _: self._restyle(background=self._chosen()))
        by_visitor(self.colour, lambda _: self._restyle(background=_hex(self.colour.value)))
        on_click(image, lambda client: self._stage.ask(client.client_id, "backdrop", SUFFIXES["image"]))

    def _chosen(self) -> str:
        return _hex(self.colour.value) if self.background.value == _OWN_COLOUR else self.background.value

    def _compare(self) -> None:
        choice = self.compare.value
        self._stage.painter.check_compare(self._session, choice)
        self._restyle(compare=choice)

    def _restyle(self, **changes: Any) -> None:
        self._session.style = dataclasses.replace(self._session.style, **changes)


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{min(max(int(c), 0), 255):02x}" for c in rgb)
