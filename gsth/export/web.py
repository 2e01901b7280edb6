"""Export ``web``: a page that plays and speaks in a browser or headset, without a server of its own.

A folder (``index.html``, ``player.js``, ``avatar.gsth.bin``, a sound) for any web server, or with ``single_file`` one
html that opens from disk. docs/vr.md says how to show and embed it, docs/player.md what the files hold.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError
from gsth.types import Done, Event, Motion, Notice, Step

if TYPE_CHECKING:
    import numpy as np

    from gsth.avatar import Avatar

_ASSETS = Path(__file__).parent / "assets"
_PLAYED = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".m4a": "audio/mp4", ".ogg": "audio/ogg"}
"""Sounds that every browser decodes; anything else becomes a wav."""
_WAV_HZ = 24_000
BIN = "avatar.gsth.bin"
_BINARY = "application/octet-stream"
KIND = "web"


@dataclass(frozen=True)
class Config:
    """A page for browsers and headsets: the avatar moves, looks, listens and speaks in it."""

    single_file: bool = False
    """Write one .html that opens from disk, instead of a folder for a web server."""
    audio: Path | None = None
    """A sound that the page's button Speak says: any file with sound."""
    motion: Path | None = None
    """A Motion artifact for the page's button Play film; without it, the tracked motion of the training video."""
    film_s: float = 20.0
    """At most so much of the motion is put in, s."""
    background: str = "#2a2d33"
    """Colour behind the avatar: a CSS colour, #rrggbb."""
    title: str = "Avatar"
    """Of the page."""

    def __post_init__(self) -> None:
        if self.film_s <= 0:
            raise InputError(f"film_s is {self.film_s}; it must be above 0")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.background):
            raise InputError(f"background is {self.background!r}; want a colour such as #2a2d33")

    def build(self) -> WebExporter:
        """The exporter."""
        return WebExporter(self)


class WebExporter:
    """Writes the page."""

    def __init__(self, config: Config) -> None:
        """Take the options."""
        self._config = config

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """Write the folder, or the .html with ``single_file``.

        Raises:
            InputError: ``out`` is something else, the motion is for another head, or the sound cannot be read.
            OutputError: It cannot be written.
        """
        from gsth.export import _bin

        config = self._config
        if config.single_file and out.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"{out}: with single_file the page is one file; want a name that ends in .html")
        yield Step("web", 0, 2)
        packed = _bin.pack(avatar, self._track(avatar))
        sound = None if config.audio is None else _sound(config.audio)
        yield Step("web", 1, 2)
        if _bin.voice_layout(avatar.speech) is None:
            yield Notice("this avatar has no voice that the page can run: there its mouth follows loudness")
        if avatar.splats.sh.shape[1] > 4:
            yield Notice("the page draws spherical harmonics of degree 0 and 1; higher ones were left out")
        if config.single_file:
            self._write_file(out, packed, sound)
        else:
            self._write_folder(out, packed, sound)
        yield Step("web", 2, 2)
        size = out.stat().st_size if config.single_file else sum(f.stat().st_size for f in out.iterdir())
        yield Done(out, {"megabytes": size / 1e6, "splats": float(len(avatar.splats.face_ids))})

    def _track(self, avatar: Avatar) -> Motion:
        from gsth import artifacts

        motion = avatar.motion
        if self._config.motion is not None:
            motion = artifacts.load(Motion, self._config.motion)
            if motion.head != avatar.head.id:
                raise InputError(
                    f"{self._config.motion}: this motion is for head {motion.head}, the avatar stands on "
                    f"{avatar.head.id}; drive the avatar again"
                )
        return motion[: max(1, int(self._config.film_s * motion.fps))]

    def _write_folder(self, out: Path, packed: bytes, sound: tuple[str, bytes] | None) -> None:
        from gsth import artifacts

        with artifacts.writing(out, KIND) as part:
            (part / BIN).write_bytes(packed)
            (part / "player.js").write_bytes((_ASSETS / "player.js").read_bytes())
            if sound is not None:
                (part / f"speech{sound[0]}").write_bytes(sound[1])
            demo = None if sound is None else f"speech{sound[0]}"
            page = self._page('<script src="player.js"></script>', BIN, demo)
            (part / "index.html").write_text(page, encoding="utf-8")

    def _write_file(self, out: Path, packed: bytes, sound: tuple[str, bytes] | None) -> None:
        from gsth import media

        code = (_ASSETS / "player.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
        demo = None if sound is None else _data(_PLAYED[sound[0]], sound[1])
        page = self._page(f"<script>{code}</script>", _data(_BINARY, packed), demo)
        with media.whole_file(out) as part:
            part.write_text(page, encoding="utf-8")

    def _page(self, player: str, avatar: str, demo: str | None) -> str:
        """The page with its addresses filled in; a backslash in the player's code stays what it is."""
        values = {
            "title": html.escape(self._config.title),
            "background": self._config.background,
            "player": player,
            "avatar": avatar,
            "demo": "undefined" if demo is None else json.dumps(demo),
        }
        template = (_ASSETS / "index.html").read_text(encoding="utf-8")
        return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def avatar_in(page: bytes, path: Path) -> bytes:
    """The bytes of ``avatar.gsth.bin`` out of a page that ``single_file`` wrote.

    Raises:
        InputError: There are none; the error calls the page ``path``.
    """
    found = re.search(rb"data:" + _BINARY.encode() + rb";base64,([A-Za-z0-9+/]+=*)", page)
    if found is None:
        raise InputError(f"{path}: holds no avatar; want a page that gsth export web --single-file wrote")
    try:
        return base64.b64decode(found[1])
    except ValueError as error:
        raise InputError(f"{path}: the avatar in it is damaged ({error}); export it again") from error


def _sound(path: Path) -> tuple[str, bytes]:
    """Suffix and bytes of a sound that browsers decode."""
    from gsth import media

    samples = media.sound(path, _WAV_HZ)  # refuses what is no sound, also where the bytes are kept
    if path.suffix.lower() in _PLAYED:
        return path.suffix.lower(), path.read_bytes()
    return ".wav", _wav(samples)


def _wav(samples: np.ndarray) -> bytes:
    """16 bit mono."""
    import io
    import wave

    import numpy as np

    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_WAV_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return held.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
