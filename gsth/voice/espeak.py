"""espeak-ng: some hundred languages, exact phoneme times, no model files; it sounds like a machine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gsth import speech
from gsth.errors import InputError
from gsth.speech import Utterance
from gsth.voice import _neural

_WORDS_PER_MINUTE = 160
_ALIASES = {"zh": "cmn", "jp": "ja", "en": "en-us"}
"""Codes that people write, where espeak-ng says otherwise or leaves the choice."""


@dataclass(frozen=True)
class Config:
    """An espeak-ng voice, by language code and variant."""

    voice: str = "en-us"
    """Language, for example de, fr, zh; with +m1 to +m7 or +f1 to +f5 another voice."""

    def build(self) -> EspeakSpeaker:
        """Find the voice.

        Raises:
            InputError: espeak-ng has no such voice.
            MissingExtraError: espeakng-loader is not installed.
        """
        return EspeakSpeaker(voice_of(self.voice))


class EspeakSpeaker:
    """Speaks with one voice of espeak-ng."""

    def __init__(self, voice: str) -> None:
        self._voice = voice

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """As ``Speaker.say``."""
        _neural.check(rate, pitch)
        words = min(max(round(_WORDS_PER_MINUTE * rate), 80), 450)
        return speech.synthesize(text, self._voice, words, min(max(round(50 + 50 * math.log2(pitch)), 0), 99))


def voice_of(wanted: str) -> str:
    """espeak-ng's own code for a language as people write it (en, zh, pt-BR, de_AT), variant kept.

    Raises:
        InputError: espeak-ng does not speak it.
    """
    code, plus, variant = wanted.replace("_", "-").partition("+")
    known = speech.voices()
    code = _ALIASES.get(code.lower(), code.lower())
    shorter = code.split("-")[0]
    candidates = (code, _ALIASES.get(shorter, shorter), *(v for v in known if v.split("-")[0] == shorter))
    found = next((c for c in candidates if c in known), None)
    if found is None:
        raise InputError(f"espeak-ng has no voice {wanted!r}; it has {', '.join(known)}")
    return found + plus + variant
