"""Who said that this avatar may be made, and how that travels with it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gsth import artifacts, media
from gsth.errors import InputError

KEY = "provenance"
"""Under which an avatar's meta holds the record."""
LONGEST = 4000
"""Characters of a statement."""
QUESTION = "Who is shown, and how did they agree to this avatar? (one line, kept in the avatar): "


@dataclass(frozen=True)
class Consent:
    """A statement that the person who is shown agreed; gsth records it and cannot check that it is true."""

    statement: str
    kind: Literal["person", "synthetic"] = "person"
    given_by: str = "option"
    """How it reached gsth: option, terminal, gsth (for its own actor), or the name and hash of a file."""
    recorded: str = ""
    """UTC, ISO 8601; empty until it is recorded."""

    def __post_init__(self) -> None:
        text = self.statement.strip()
        if not text or len(text) > LONGEST or not all(c.isprintable() or c in "\n\t" for c in text):
            raise InputError(
                f"the consent statement must be 1 to {LONGEST} printable characters, got {len(text)}; say in plain "
                'words who is shown and that they agreed, for example --consent "I am this person"'
            )


SYNTHETIC = Consent("The synthetic actor of gsth; no person is shown.", "synthetic", "gsth")
"""For clips that ``gsth.synth`` filmed."""


@dataclass(frozen=True)
class About:
    """What a picture says of the avatars in it."""

    id: int
    """32 bits, goes into the watermark: of the avatar, or of the first one."""
    consent: tuple[str, ...]
    """One of each avatar: person, synthetic, or none (made before consent was recorded)."""


def consent_from(given: str | None, ask: Callable[[str], str] | None) -> Consent:
    """The consent for a training run.

    Args:
        given: The statement itself, or the path of a text file that holds it; None: it must be asked for.
        ask: Puts a question to the person at the terminal and returns the answer; None: there is no terminal.

    Raises:
        InputError: There is no statement, or it cannot be read.
    """
    if given is None:
        if ask is None:
            raise InputError(
                "making an avatar needs the consent of the person who is shown: give --consent with a statement, for "
                'example --consent "I am this person", or with a text file'
            )
        return Consent(ask(QUESTION).strip(), given_by="terminal")
    path = Path(given)
    try:
        is_file = path.is_file()
    except OSError:  # too long for a path: a statement
        is_file = False
    if not is_file:
        return Consent(given.strip())
    try:
        data = path.read_bytes()[: 4 * LONGEST + 1]
        return Consent(data.decode().strip(), given_by=f"{path.name} sha256 {hashlib.sha256(data).hexdigest()}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); wanted a consent statement in UTF-8") from error


def record(meta: Mapping[str, Any], consent: Consent, source_sha256: str) -> dict[str, Any]:
    """An avatar's meta with the consent and the id that its pictures will carry."""
    when = consent.recorded or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = asdict(consent) | {"recorded": when}
    mark = hashlib.sha256(json.dumps([source_sha256, said["statement"], when]).encode()).hexdigest()[:8]
    return {**meta, KEY: {"ai_generated": True, "id": mark, "consent": said}}


def about(metas: Sequence[Mapping[str, Any]]) -> About:
    """What pictures of avatars with these metas say; an avatar from before consent was recorded gets id 0."""
    records = [_record(meta) for meta in metas]
    ids = [r["id"] for r in records if r is not None]
    return About(int(ids[0], 16) if ids else 0, tuple("none" if r is None else r["consent"]["kind"] for r in records))


def write_sidecar(exported: Path, meta: Mapping[str, Any]) -> Path:
    """Write the record (and the licences) of an avatar as JSON beside an exported file, or into an exported folder."""
    side = exported / "provenance.json" if exported.is_dir() else exported.with_name(exported.name + ".provenance.json")
    said = {
        "generator": f"gsth {artifacts.gsth_version()}",
        KEY: _record(meta) or {"ai_generated": True, "consent": None},
        "licences": meta.get("licences", []),
    }
    with media.whole_file(side) as part:
        part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return side


def _record(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in a meta that anybody may have written, or None where there is none that can be understood."""
    found = meta.get(KEY)
    try:
        consent = Consent(**found["consent"])  # type: ignore[index]
        mark = f"{int(found['id'], 16) & 0xFFFFFFFF:08x}"  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None
    return {"ai_generated": True, "id": mark, "consent": asdict(consent)}
