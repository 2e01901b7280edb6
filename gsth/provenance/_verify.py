"""What a file says of where it comes from, in plain words."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from gsth import artifacts, media
from gsth.errors import InputError, MissingExtraError
from gsth.provenance import _credentials, _watermark
from gsth.provenance._consent import _record

LOOKED_AT = 60
"""Frames of a video whose votes are added: more do not help a mark that is there."""


def verify(path: Path) -> list[str]:
    """What an avatar, a picture or a video carries, one sentence a line.

    Raises:
        InputError: It is missing, damaged, or none of these.
    """
    if path.is_dir():
        return _avatar(path)
    if path.suffix.lower() not in _credentials.MIMES:
        raise InputError(f"{path}: wanted an avatar's folder or a file that ends in {', '.join(_credentials.MIMES)}")
    pictures = _pictures(path)
    return [_credentials_line(path), _mark_line(pictures), *_note(path)]


def _pictures(path: Path) -> list[media.Picture]:
    if path.suffix.lower() != ".mp4":
        return [media.read_image(path)]
    return list(islice(media.frames(media.probe(path)), LOOKED_AT))


def _avatar(folder: Path) -> list[str]:
    meta = artifacts.read_meta(folder, "avatar")
    record = _record(meta)
    if record is None:
        return ["consent: none is recorded; the avatar was made before gsth asked, or its record was removed"]
    said = record["consent"]
    whom = "the synthetic actor, no person" if said["kind"] == "synthetic" else "a person"
    return [
        f"consent: recorded {said['recorded']} for {whom} (by {said['given_by']}): {said['statement']!r}",
        f"id: {record['id']}, which is in the watermark of its pictures and videos",
    ]


def _credentials_line(path: Path) -> str:
    try:
        found = _credentials.read(path)
    except MissingExtraError as error:
        return f"content credentials: not looked for, {error}"
    except InputError as error:
        return f"content credentials: unreadable, {error}"
    if found is None:
        return "content credentials: none; that proves nothing, they are lost when a file is encoded again"
    if found.state == "changed":
        return f"content credentials: BROKEN, the file changed after {found.tool} signed it; believe none of them"
    kind = "AI-generated" if found.ai_generated else "not stated to be AI-generated"
    vouched = "an authority vouches for it" if found.trusted else "no authority vouches for that name"
    consent = f"; consent: {', '.join(map(str, found.said.get('consent', [])))}" if found.said.get("consent") else ""
    return f"content credentials: intact; {kind}, made by {found.tool}, signed by {found.signer!r} ({vouched}){consent}"


def _mark_line(pictures: list[media.Picture]) -> str:
    mark = _watermark.read(pictures)
    if mark.id is None:
        return "watermark: none can be read; that proves nothing, crops and strong compression destroy it"
    return f"watermark: made by gsth from avatar {mark.id:08x}"


def _note(path: Path) -> list[str]:
    note = media.comment(path)
    return [f"comment: {note}"] if note else []
