"""What page and server tell each other, as typed messages; nothing else is accepted.

Text messages are JSON objects whose ``do`` names the message. A ``File`` is followed by one binary message that holds
it; while a page listens (``Listen`` until ``Hush``), binary messages are pieces of sound. Binary messages to a page are
pictures, JPEG.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import typing
from dataclasses import dataclass
from typing import Any

from gsth.errors import InputError

MAX_TEXT = 64 * 1024
"""Characters of a text message."""
MAX_FILE = 64 * 1024 * 1024
"""Bytes of an upload."""
KEYS = ("play", "back", "forward", "slower", "faster", "home", "mode", "reset", "still", "record", "theme")
RATES = (8_000, 96_000)


@dataclass(frozen=True)
class Message:
    """Something that a page says."""


@dataclass(frozen=True)
class Hello(Message):
    """A page is there."""

    visitor: int
    """What the panel calls it."""
    state: str = ""
    """From its address."""
    dark: bool = True
    """What its reader prefers."""


@dataclass(frozen=True)
class Key(Message):
    """A shortcut was pressed."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in KEYS:
            raise InputError(f"there is no shortcut {self.name[:40]!r}; there are: {', '.join(KEYS)}")


@dataclass(frozen=True)
class File(Message):
    """A file follows."""

    name: str
    size: int
    purpose: str = ""
    """What the panel asked it for; empty: dropped on the page, or spoken."""

    def __post_init__(self) -> None:
        if not 0 < self.size <= MAX_FILE:
            raise InputError(f"the file has {self.size} bytes; want 1 to {MAX_FILE // 1024 // 1024} MiB")


@dataclass(frozen=True)
class Listen(Message):
    """Pieces of sound follow: 16 bit mono, little endian."""

    rate: int

    def __post_init__(self) -> None:
        if not RATES[0] <= self.rate <= RATES[1]:
            raise InputError(f"the microphone's rate is {self.rate}; want {RATES[0]} to {RATES[1]} Hz")


@dataclass(frozen=True)
class Hush(Message):
    """No more sound follows."""


@dataclass(frozen=True)
class Player(Message):
    """Whether the page draws for itself."""

    on: bool


@dataclass(frozen=True)
class Shown(Message):
    """The oldest picture that was under way is on the page, or could not be read."""


MESSAGES = {c.__name__.lower(): c for c in (Hello, Key, File, Listen, Hush, Player, Shown)}


def parse(text: str) -> Message:
    """A page's message. Raises InputError for anything that is none."""
    if len(text) > MAX_TEXT:
        raise InputError(f"a message of {len(text)} characters; at most {MAX_TEXT}")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError("a message that is not JSON") from e
    kind = MESSAGES.get(given["do"]) if isinstance(given, dict) and isinstance(given.get("do"), str) else None
    if kind is None:
        raise InputError(f"a message of no known kind; there are: {', '.join(MESSAGES)}")
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for f in dataclasses.fields(kind):
        if f.name in given:
            values[f.name] = given[f.name]
            if type(values[f.name]) is not hints[f.name]:
                raise InputError(f"{given['do']}: {f.name} is no {hints[f.name].__name__}")
        elif f.default is dataclasses.MISSING:
            raise InputError(f"{given['do']}: lacks {f.name}")
    return kind(**values)


def pack_state(state: dict[str, Any]) -> str:
    """A state as it stands in an address; empty where there is nothing to say."""
    if not state:
        return ""
    text = json.dumps(state, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def unpack_state(text: str) -> dict[str, Any]:
    """The inverse of ``pack_state``. Raises InputError where it is none."""
    if not text:
        return {}
    try:
        padded = text + "=" * (-len(text) % 4)
        state = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as e:
        raise InputError("the address holds no state of a viewer") from e
    if not isinstance(state, dict):
        raise InputError("the address holds no state of a viewer")
    return state
