"""Noise, truncated files and path tricks against a real page: it lives on, and writes nowhere but in its folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from watching import until

from gsth import media
from gsth.serve import protocol
from gsth.serve._paint import Painter
from gsth.serve._view import View
from gsth.serve._visitor import Visitor
from gsth.serve.app import Page, ViewConfig

pytest.importorskip("viser", reason="viser is absent: pip install 'gsth[viewer]'")
client = pytest.importorskip("websockets.sync.client", reason="websockets (with viser) is absent")

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_written: list[str] | None = None


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if _written is None:
        return
    if event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & _WRITES:
        _written.append(os.path.abspath(os.fsdecode(args[0])))
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.rename"):
        # of a path to a folder that is open, the last argument says which
        folder = os.readlink(f"/proc/self/fd/{args[-1]}") if args[-1] > 2 else os.getcwd()
        for path in args[:2] if event in ("os.link", "os.symlink", "os.rename") else args[:1]:
            _written.append(os.path.join(folder, os.fsdecode(path)))


sys.addaudithook(_heard)  # can never be taken away, so it does nothing but where a test asks for it


@pytest.fixture
def written() -> Iterator[list[str]]:
    """Paths that this process opens for writing, makes, renames or removes."""
    global _written
    _written = []
    yield _written
    _written = None


def _whole_files(folder: Path) -> dict[str, bytes]:
    """A good file of every kind, by its ending."""
    sound, motion = io.BytesIO(), io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.sin(np.arange(4000) * 0.2) * 9000).astype("<i2").tobytes())
    np.savez(motion, expr=np.full((7, 1), 0.5), names=np.array(["jawOpen"]), fps=25.0)
    media.write_image(folder / "a.png", np.full((20, 30, 3), 90, np.uint8))
    media.write_video(folder / "a.mp4", (np.full((64, 64, 3), 20 * i, np.uint8) for i in range(5)), 25.0)
    return {
        ".wav": sound.getvalue(),
        ".npz": motion.getvalue(),
        ".csv": b"Timecode,BlendshapeCount,JawOpen\n00:00:00:00,1,0.5\n",
        ".json": b'{"fps": 25, "names": ["jawOpen"], "frames": [[0.5], [0.6]]}',
        ".png": (folder / "a.png").read_bytes(),
        ".mp4": (folder / "a.mp4").read_bytes(),
    }


def _broken(whole: bytes, dice: random.Random) -> bytes:
    """Cut off, with other bytes in it, or with numbers that are huge."""
    kind = dice.randrange(3)
    if kind == 0:
        return whole[: dice.randrange(1, len(whole))]
    content = bytearray(whole)
    for _ in range(dice.randrange(1, 9)):
        at = dice.randrange(len(content))
        content[at : at + 4] = b"\xff\xff\xff\x7f" if kind == 1 else dice.randbytes(4)
    return bytes(content)


def _anything(dice: random.Random, depth: int = 0) -> Any:
    """A random value of JSON."""
    leaf = (None, True, -1, 0.5, 1e308, 10**30, "jawOpen", "../../x", "é\u0000", [], {})
    if depth > 2 or dice.random() < 0.6:
        return dice.choice(leaf)
    if dice.random() < 0.5:
        return [_anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    names = ("face", "turns", "looks", "speed", "camera", "head", "jawOpen", "mode")
    return {dice.choice(names): _anything(dice, depth + 1) for _ in range(dice.randrange(4))}


class Guest:
    """Stands for viser's handle of a visitor."""

    client_id = 7

    def __init__(self) -> None:
        self.downloads: list[str] = []
        self.camera = SimpleNamespace(
            position=(0.0, 0.0, 0.0),
            wxyz=(1.0, 0.0, 0.0, 0.0),
            fov=0.4,
            image_width=96,
            image_height=96,
            on_update=lambda _: None,
        )
        self.gui = SimpleNamespace(configure_theme=lambda **_: None)

    def atomic(self) -> Any:
        return contextlib.nullcontext()

    def send_file_download(self, name: str, content: bytes, save_immediately: bool) -> None:
        self.downloads.append(name)


@pytest.fixture
def guest(person: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Page, Guest]]:
    """A page with one visitor, whose temporary folder is ``tmp_path / "t"``."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    with Page(person, ViewConfig(port=0)) as page:
        room, guest = page.room, Guest()
        view = View(room.session, Painter(room.optics))
        room._visitors[7] = Visitor(guest, view, room._link, room._sent)  # type: ignore[arg-type]
        view.look(room.optics.home(96, 96))
        page._rooms[7] = room
        yield page, guest


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_survived_and_stays_in_its_folder(
    guest: tuple[Page, Guest], written: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    dice = random.Random(seed)
    page, visitor = guest
    page.room.panel.save.still(visitor)  # type: ignore[arg-type]
    assert visitor.downloads == ["avatar.png"]  # by now there is a key to sign pictures with
    whole = _whole_files(tmp_path)
    here = page.room._visitors[7].view
    del written[:]
    origin = page.url
    with client.connect(
        f"{origin.replace('http', 'ws')}/gsth/line", origin=origin, max_queue=None, open_timeout=60
    ) as line:
        say = lambda **m: line.send(json.dumps(m))  # noqa: E731
        say(do="hello", visitor=7)
        for _ in range(60):
            what = dice.randrange(5)
            if what == 0:
                say(do="hello", visitor=dice.choice((7, 8, -1)), state=protocol.pack_state({"face": _anything(dice)}))
                say(do="hello", visitor=7, state=protocol.pack_state({"x": 1} | (_dict(_anything(dice)))))
            elif what == 1:
                say(do="key", name=dice.choice([k for k in protocol.KEYS if k != "record"]))
            elif what == 2:
                say(do=dice.choice(list(protocol.MESSAGES)), on=_anything(dice), rate=_anything(dice))
            else:
                _give(line, dice, whole)
        say(do="hello", visitor=7, state=protocol.pack_state({"speed": 1.75}))
        until(lambda: page.session.transport.speed == 1.75, "the last message")
    page.room.panel.drive.play("tracked clip")
    page.session.pause()
    page.session.seek(3)
    page.room.leave(7)  # its own threads draw no more
    here.asleep = False
    here.again()
    sketch = here.begin()
    picture = None if sketch is None else here.draw(sketch)
    assert picture is not None and bool((picture.rgb > 0).any())
    assert [r.exc_text or r.message for r in caplog.records if r.levelname == "ERROR"] == []
    outside = [p for p in written if not p.startswith((str(tmp_path / "t"), os.devnull)) and "__pycache__" not in p]
    assert outside == []
    until(lambda: not list((tmp_path / "t").glob("gsth-*")), "every folder to be gone")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _give(line: Any, dice: random.Random, whole: dict[str, bytes]) -> None:
    """One upload: of a kind under a name of any kind, for any purpose."""
    suffix = dice.choice(list(whole))
    content = _broken(whole[suffix], dice) if dice.random() < 0.8 else whole[suffix]
    stem = dice.choice(("a", "../../../tmp/x", "/etc/x", "..\\x", "x" * 3000, "\u0000", "a/b", "CON", "~/.ssh/x"))
    named = dice.choice((suffix, suffix.upper(), dice.choice(list(whole)), ".exe", ""))
    purpose = dice.choice(
        (
            "",
            "backdrop",
            "drive:motion:path",
            "drive:motion:../x",
            "drive:text:text",
            "drive:no:x",
            "drive::",
            "x" * 500,
        )
    )
    size = len(content) if dice.random() < 0.8 else dice.choice((0, 1, -5, 10**12))
    line.send(json.dumps({"do": "file", "name": stem + named, "size": size, "purpose": purpose}))
    line.send(content)
