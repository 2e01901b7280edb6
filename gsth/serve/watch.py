"""Training, watched: the avatar as it forms, with its curves, on the page of the live viewer."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsth.errors import GsthError
from gsth.serve._panel import on_click
from gsth.serve.app import Page, ViewConfig
from gsth.types import Event, Formed, Notice, Saved, Step

if TYPE_CHECKING:
    import viser

    from gsth.avatar import Avatar

_MOST_POINTS = 400
"""Of a curve; of longer ones every second point is dropped."""
_CURVES_S = 0.5
"""Shortest time between two pictures of the curves: drawn at every step they keep a page from anything else."""


def watched(events: Iterator[Event], out: Path, work: Path, config: ViewConfig) -> Iterator[Event]:
    """Pass the events of a training run on, and show it meanwhile; a page that cannot be served is a ``Notice``.

    Args:
        events: Of ``gsth.pipeline.train``; closed early where a visitor stops the run.
        out: The avatar that the run will write; kept states go beside it.
        work: Where the run keeps its checkpoints; branches copy it.
        config: Where to serve.
    """
    with contextlib.ExitStack() as open_things:
        page: Page | None = None
        desk: Desk | None = None
        broken = False
        for event in events:
            if isinstance(event, Formed) and not broken:
                avatar = event.make()
                if page is None:
                    try:
                        page = open_things.enter_context(Page(avatar, config))
                    except GsthError as e:
                        broken = True
                        yield Notice(f"training goes on without the viewer: {e}")
                        continue
                    desk = Desk(page, out, work)
                    yield Notice(f"the viewer is at {page.url}")
                assert desk is not None
                desk.formed(event.step, avatar)
            elif isinstance(event, Step) and desk is not None:
                desk.stepped(event)
            yield event
            if desk is not None:
                yield from desk.done()
                if desk.stopped.is_set():
                    yield Notice("stopped from the viewer; the same command goes on from the last checkpoint")
                    return


class Desk:
    """The tab "Training": curves, and what a visitor may do to the run."""

    def __init__(self, page: Page, out: Path, work: Path) -> None:
        """Add the tab."""
        self.stopped = threading.Event()
        """Set where the run is to end."""
        self._room, self._out, self._work = page.room, out, work
        self._lock = threading.Lock()
        self._step, self._avatar = 0, page.session.avatar
        self._points: list[tuple[float, float, float]] = []
        self._drawn = -math.inf
        self._done: list[Event] = []
        self._add(page.gui)

    def formed(self, step: int, avatar: Avatar) -> None:
        """Show a new state."""
        with self._lock:
            self._step, self._avatar = step, avatar
        self._room.session.wear(avatar)

    def stepped(self, step: Step) -> None:
        """Go on with the curves."""
        if "loss" not in step.values:
            return
        self._points.append((float(step.done), step.values["loss"], step.values.get("psnr_db", math.nan)))
        if len(self._points) > _MOST_POINTS:
            del self._points[1::2]
        if (now := time.monotonic()) < self._drawn + _CURVES_S:
            return  # the next one shows this one too
        self._drawn = now
        steps, losses, psnrs = np.array(self._points).T
        self.loss.data, self.psnr.data = (steps, losses), (steps, psnrs)
        self.text.content = f"step {step.done} of {step.total}, loss {losses[-1]:.4f}, {psnrs[-1]:.1f} dB"

    def keep(self) -> Path:
        """Write the avatar as it is now beside the one that the run will write; its folder."""
        with self._lock:
            step, avatar = self._step, self._avatar
        folder = self._beside(f"step{step}")
        avatar.save(folder)
        self._done.append(Saved(folder))
        return folder

    def branch(self) -> Path:
        """Copy the run's checkpoints, so that another run can go on from here; what that run is to write."""
        folder = self._beside(f"branch{self._step}")
        shutil.copytree(self._work, folder.with_name(folder.name + ".work"), dirs_exist_ok=True)
        self._done.append(Notice(f"a copy of this run goes on with: gsth train CLIP --out {folder}"))
        return folder

    def done(self) -> list[Event]:
        """What happened since the last call."""
        done, self._done = self._done, []
        return done

    def _beside(self, what: str) -> Path:
        return self._out.with_name(f"{self._out.stem}-{what}{self._out.suffix}")

    def _add(self, gui: viser.GuiApi) -> None:
        from viser import uplot

        nothing = (np.zeros(1), np.zeros(1))

        def curve(label: str, colour: str) -> Any:
            series = (uplot.Series(label="step"), uplot.Series(label=label, stroke=colour, width=2))
            return gui.add_uplot(nothing, series, aspect=2.0)

        with self._room.panel.tabs.add_tab("Training"):
            self.text = gui.add_markdown("")
            self.loss, self.psnr = curve("loss", "#e67e22"), curve("PSNR, dB", "#2e86de")
            keep, branch = gui.add_button("Keep this state"), gui.add_button("Branch the run")
            stop = gui.add_button("Stop the run", color="red")
        on_click(keep, lambda client: self._told(client, "Kept", self.keep()))
        on_click(branch, lambda client: self._told(client, "Branched", self.branch()))
        on_click(stop, lambda _: self.stopped.set())

    def _told(self, client: viser.ClientHandle, title: str, folder: Path) -> None:
        client.add_notification(title, str(folder), auto_close_seconds=8.0)
