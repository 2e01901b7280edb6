"""Drive an avatar by text: spoken by a synthetic voice, with the phonemes' exact times for the mouth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.drive._config import Manner
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive._speaking import SpeechDriver


@dataclass(frozen=True)
class Config:
    """Speech from text; ``gsth.voice.markup`` says how pauses, emphasis and moods are written in it."""

    text: str
    """What to say."""
    voice: str | None = None
    """espeak-ng voice (en-gb+f3, or f3 with a language), hibari, the file of a Piper voice, or kokoro:FILE@NAME."""
    lang: str | None = None
    """Language code, for example en, de, zh."""
    manner: Manner = field(default_factory=Manner)
    """How it is said."""

    def build(self, avatar: Avatar) -> SpeechDriver:
        """Speak the text.

        Raises:
            InputError: An empty text, broken markup, an unknown voice or language; or the avatar's head model has no
                ARKit mouth shapes.
            MissingExtraError: The voice's package is not installed.
        """
        from gsth import voice
        from gsth.drive._say import say
        from gsth.drive._speaking import SpeechDriver

        said = say(self.text, voice.find(self.voice, self.lang))
        return SpeechDriver(avatar, said.samples(), self.manner, said.sound, said.cues)


def read(path: Path) -> str:
    """A text file, UTF-8.

    Raises:
        InputError: It is missing or no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); want a text file") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: is not UTF-8 text (byte {e.start}); save it as UTF-8") from e
