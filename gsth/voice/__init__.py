"""Speaking text: engines that turn text into sound with phoneme times.

To add one: a public file in this room with a frozen ``Config`` (its first field is ``voice``: a name, or a model file)
whose ``build()`` returns a ``Speaker``. The configs import nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gsth import registry
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.speech import Utterance

__all__ = ["Speaker", "find"]


class Speaker(Protocol):
    """One voice of one engine."""

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """Speak a text.

        Args:
            text: At least one word.
            rate: Factor on the voice's own speed, 0.5 to 2.
            pitch: Factor on the voice's own fundamental frequency, 0.5 to 2; engines that cannot change it leave it.

        Returns:
            Sound at the engine's rate. ``phonemes`` is empty where the engine does not tell their times.

        Raises:
            InputError: There is nothing to say in the text, or a number is out of range.
        """
        ...


def find(voice: str | None = None, lang: str | None = None) -> Speaker:
    """A speaker by what people write.

    Args:
        voice: ``ENGINE:NAME`` or ``ENGINE`` (espeak, flite, hibari, kokoro, piper), the file of a Piper voice, or an
            espeak-ng voice such as ``en-gb+f3`` or, with a language, ``f3``. None: espeak-ng's own voice of the
            language.
        lang: Language code, for example en, de, zh; None: English.

    Raises:
        InputError: There is no such voice or language, or the voice speaks another language.
        MissingExtraError: The engine's package is not installed.
    """
    engine, _, name = (voice or "").partition(":")
    if engine not in registry.names("voice"):
        engine, name = ("piper" if (voice or "").endswith(".onnx") else "espeak"), voice or ""
    if engine == "espeak":
        if lang and name and "+" not in name and "-" not in name:  # a variant alone, for example f3
            name = f"{lang}+{name}"
        elif lang and name and not name.lower().startswith(lang.lower()[:2]):
            raise InputError(f"the voice {name!r} does not speak {lang!r}; leave one of both out")
        name = name or lang or "en-us"
    elif lang and engine in ("flite", "hibari") and not lang.lower().startswith("en"):
        raise InputError(f"{engine} speaks English alone, not {lang!r}; leave the voice out, or give a Piper voice")
    config = registry.plugin("voice", engine)
    return (config(name) if name else config()).build()
