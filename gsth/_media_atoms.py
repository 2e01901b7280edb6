"""What QuickTime and MP4 files say of single tracks; FFmpeg hears only what they say of the whole file.

Phones write the lens here. Source: Apple, QuickTime File Format, Metadata (``meta`` with ``hdlr``, ``keys``, ``ilst``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_META, MAX_ATOMS = 1 << 20, 4096
"""Bytes of one list of tags, and atoms of one level, that are read; sizes in damaged files can claim any amount."""
TEXTS, SIGNED, UNSIGNED, FLOATS = (1, 4), (21, 65, 66, 67, 74), (22, 75, 76, 77, 78), {23: ">f", 24: ">d"}
"""Well-known types of values."""

Span = tuple[int, int]


def track_tags(path: Path) -> dict[str, str]:
    """Tags of all tracks by key, the first of a key; nothing where the file is of another kind, or damaged."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        whole = (0, file.seek(0, 2))
        for meta in _under(file, whole, (b"moov", b"trak", b"meta")):
            for key, value in _tags(file, meta):
                found.setdefault(key, value)
    return found


def _under(file: BinaryIO, span: Span, way: tuple[bytes, ...]) -> Iterator[Span]:
    """Contents of all atoms at the end of a way down."""
    if not way:
        yield span
        return
    for kind, inside in _atoms(file, span):
        if kind == way[0]:
            yield from _under(file, inside, way[1:])


def _atoms(file: BinaryIO, span: Span) -> Iterator[tuple[bytes, Span]]:
    """Kind and content of the atoms side by side in a part of the file, up to the first that cannot be."""
    at, end = span
    for _ in range(MAX_ATOMS):
        file.seek(at)
        head = file.read(16)
        if end - at < 8 or len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        start = at + 8
        if size == 1 and len(head) == 16:
            size, start = struct.unpack(">Q", head[8:])[0], at + 16
        elif size == 0:
            size = end - at
        if not start <= at + size <= end:
            return
        yield kind, (start, at + size)
        at += size


def _tags(file: BinaryIO, meta: Span) -> Iterator[tuple[str, str]]:
    """Keys and values of a list of tags."""
    if meta[1] - meta[0] > MAX_META:
        return
    # MP4 puts version and flags first, QuickTime does not
    parts = next((p for skip in (0, 4) if b"keys" in (p := dict(_atoms(file, (meta[0] + skip, meta[1]))))), {})
    if b"ilst" not in parts:
        return
    start, end = parts[b"keys"]
    # after version and count, keys are laid out as atoms are: size, name space, text
    keys = [_bytes(file, inside).decode("utf-8", "replace") for _, inside in _atoms(file, (start + 8, end))]
    for number, item in _atoms(file, parts[b"ilst"]):
        index = int.from_bytes(number, "big") - 1
        for kind, inside in _atoms(file, item):
            value = _value(_bytes(file, inside)) if kind == b"data" else None
            if value is not None and 0 <= index < len(keys):
                yield keys[index], value


def _bytes(file: BinaryIO, span: Span) -> bytes:
    file.seek(span[0])
    return file.read(span[1] - span[0])


def _value(data: bytes) -> str | None:
    """A value as text: type and place in four bytes each, then itself; None for what is neither text nor number."""
    if len(data) < 8:
        return None
    kind, raw = int.from_bytes(data[:4], "big"), data[8:]
    if kind in TEXTS:
        return raw.decode("utf-8", "replace")
    if kind in SIGNED or kind in UNSIGNED:
        return str(int.from_bytes(raw[:8], "big", signed=kind in SIGNED))
    form = FLOATS.get(kind)
    return None if form is None or len(raw) != struct.calcsize(form) else str(struct.unpack(form, raw)[0])
