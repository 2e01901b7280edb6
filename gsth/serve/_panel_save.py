"""Pictures, videos and exports of what is shown."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gsth import registry
from gsth.errors import InputError
from gsth.serve import _record
from gsth.serve._panel import on_click, put
from gsth.serve._record import Recorder, Take
from gsth.types import Done, Step

if TYPE_CHECKING:
    import viser

    from gsth.serve._optics import Orbit
    from gsth.serve._panel import Stage

HEIGHTS = (360, 512, 720, 1080)


class SavePanel:
    """The tab "Save"."""

    def __init__(self, gui: viser.GuiApi, stage: Stage) -> None:
        self._stage, self._session = stage, stage.session
        self._busy = threading.Lock()
        self._recorders: dict[int, Recorder] = {}
        self.path: list[Orbit] = []
        """Keys of the camera path."""
        self.progress = gui.add_progress_bar(0.0, visible=False)
        self._add_record(gui)
        self._add_path(gui)
        self._add_export(gui)

    # ------------------------------------------------------------------------------------------ what can be done

    def still(self, client: viser.ClientHandle) -> None:
        """Send a visitor a png of what they see."""
        orbit = self._orbit(client)
        with self._working():
            with tempfile.TemporaryDirectory(prefix="gsth-save-") as folder:
                out = Path(folder) / "avatar.png"
                _record.still(self._session, self._stage.painter, orbit, self._height(), out)
                _send(client, out)

    def recording(self, visitor: int) -> bool:
        """Whether a visitor's view is being recorded."""
        return visitor in self._recorders

    def toggle(self, client: viser.ClientHandle) -> None:
        """Begin to record what a visitor sees, or end it and send the video."""
        recorder = self._recorders.pop(client.client_id, None)
        if recorder is None:
            self._recorders[client.client_id] = Recorder(self._session, self._orbit(client))
        else:
            self._film(client, recorder.stop(), "recording.mp4")
        put(self.record, "label", "End recording" if self._recorders else "Record")

    def look(self, visitor: int, orbit: Orbit) -> None:
        """A visitor's camera moved."""
        recorder = self._recorders.get(visitor)
        if recorder is not None:
            recorder.look(orbit)

    def leave(self, visitor: int) -> None:
        """A visitor has gone; their recording is of no use to anybody."""
        recorder = self._recorders.pop(visitor, None)
        if recorder is not None:
            recorder.stop()

    def export(self, client: viser.ClientHandle, name: str) -> None:
        """Write the avatar in a format and send it; a folder is sent as zip. Raises GsthError as the exporter does."""
        with self._working(), tempfile.TemporaryDirectory(prefix="gsth-save-") as folder:
            out = self.exported(name, Path(folder))
            if out.is_dir():
                out = Path(shutil.make_archive(str(out), "zip", out))
            _send(client, out)

    def exported(self, name: str, folder: Path) -> Path:
        """Write the avatar in a format into a folder."""
        config = registry.plugin("export", name)()
        out = folder / ("avatar" if name == "web" else f"avatar.{getattr(config, 'suffix', name).lstrip('.')}")
        for event in config.build().write(self._session.avatar, out):
            if isinstance(event, Step):
                put(self.progress, "value", 100 * event.done / max(event.total, 1))
            elif isinstance(event, Done):
                out = event.path
        return out

    # ------------------------------------------------------------------------------------------ controls

    def _add_record(self, gui: viser.GuiApi) -> None:
        self.height = gui.add_dropdown("height, px", tuple(map(str, HEIGHTS)), initial_value="512")
        still = gui.add_button("Picture (png)")
        self.record = gui.add_button("Record")
        on_click(still, self.still)
        on_click(self.record, self.toggle)

    def _add_path(self, gui: viser.GuiApi) -> None:
        with gui.add_folder("Camera path", expand_by_default=False):
            count = gui.add_markdown("no keys")
            add, clear = gui.add_button("Add this view"), gui.add_button("Clear")
            fly = gui.add_button("Film the motion along it")

        def keyed(change: Callable[[viser.ClientHandle], None]) -> Callable[[viser.ClientHandle], None]:
            def changed(client: viser.ClientHandle) -> None:
                change(client)
                count.content = f"{len(self.path)} keys" if self.path else "no keys"

            return changed

        def film(client: viser.ClientHandle) -> None:
            self._film(client, Take.of_motion(self._session, self.path, self._stage.painter), "path.mp4")

        on_click(add, keyed(lambda client: self.path.append(self._orbit(client))))
        on_click(clear, keyed(lambda _: self.path.clear()))
        on_click(fly, film)

    def _add_export(self, gui: viser.GuiApi) -> None:
        names = registry.names("export")
        with gui.add_folder("Export"):
            chosen = gui.add_dropdown("format", names, initial_value=names[0])
            write = gui.add_button("Export")
        on_click(write, lambda client: self.export(client, chosen.value), "It cannot be exported")

    def _film(self, client: viser.ClientHandle, take: Take, name: str) -> None:
        with self._working(), tempfile.TemporaryDirectory(prefix="gsth-save-") as folder:
            out = Path(folder) / name
            told = lambda share: put(self.progress, "value", round(100 * share))  # noqa: E731
            _record.film(take, self._session, self._stage.painter, self._height(), out, told)
            _send(client, out)

    def _working(self) -> _Busy:
        return _Busy(self._busy, self.progress)

    def _height(self) -> int:
        return int(self.height.value)

    def _orbit(self, client: viser.ClientHandle) -> Orbit:
        view = self._stage.view_of(client.client_id)
        if view is None or view.orbit is None:
            raise InputError("this page has not shown anything yet")
        return view.orbit


class _Busy:
    """One thing is written at a time; the bar is there meanwhile."""

    def __init__(self, lock: threading.Lock, bar: viser.GuiProgressBarHandle) -> None:
        self._lock, self._bar = lock, bar

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise InputError("something is being written already; wait for it")
        self._bar.value, self._bar.visible = 0.0, True

    def __exit__(self, *_: object) -> None:
        self._bar.visible = False
        self._lock.release()


def _send(client: viser.ClientHandle, path: Path) -> None:
    client.send_file_download(path.name, path.read_bytes(), save_immediately=True)
