"""Natural English without downloads: the package ``hibari-tts`` (Apache-2.0), whose model comes inside its wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsth.errors import InputError, MissingExtraError
from gsth.speech import Utterance
from gsth.voice import _neural

_DURATIONS = "/Clip_output_0"
"""Inner value of the model: frames of each token."""
_IPA = {
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "Q": "əʊ", "W": "aʊ", "Y": "ɔɪ", "T": "ɾ", "ᵊ": "ə", "S": "ʃ",
}  # fmt: skip
"""Letters of the model's alphabet (misaki's) that are not IPA."""
_SILENT, _MARKS = ';:,.!?—…"()“”', "ˈˌːʰʲ↓→↗↘̃"


@dataclass(frozen=True)
class Config:
    """A natural American voice that runs 100 times faster than real time (package hibari-tts)."""

    voice: str = "heart"
    """Name of a voice: heart; others when their files are in hibari's cache folder."""
    seed: int = 0
    """Of the noise in breathy sounds."""

    def build(self) -> HibariSpeaker:
        """Load the model.

        Raises:
            InputError: There is no such voice on this machine.
            MissingExtraError: hibari-tts is not installed.
        """
        return HibariSpeaker(self)


class HibariSpeaker:
    """Speaks English text with exact phoneme times."""

    def __init__(self, config: Config) -> None:
        try:
            import hibari  # type: ignore[import-untyped]
            from hibari.voices import VOICES, voice_path  # type: ignore[import-untyped]
        except ImportError as e:
            raise MissingExtraError("hibari-tts", "voices", "the natural English voice") from e
        if config.voice not in VOICES:
            raise InputError(f"hibari has no voice {config.voice!r}; there are: {', '.join(VOICES)}")
        try:
            self._model = Path(voice_path(config.voice))
        except RuntimeError as e:
            raise InputError(f"the voice {config.voice!r} of hibari is not on this machine: {e}") from e
        self._seed = config.seed
        self._session: Any = _neural.session(self._model, _DURATIONS)
        self._text: Any = hibari.Hibari(voice=config.voice)

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """As ``Speaker.say``; the pitch changes and the formants stay."""
        _neural.check(rate, pitch)
        from hibari import dsp

        rng = np.random.default_rng(self._seed)
        sounds: list[np.ndarray] = []
        seconds: list[float] = []
        units: list[_neural.Unit] = []
        for sentence in self._text.phonemize(text):
            known = [c for c in sentence if c in self._text.vocab]
            ids = np.asarray([[0, *(self._text.vocab[c] for c in known), 0]], np.int64)
            parts = self._session.run(None, {"ids": ids, "speed": np.asarray([rate], np.float32)})
            (*spectrum, f0), durations = [p[0] for p in parts[:6]], parts[6].reshape(-1)
            lh, th, ln, lr, phi = spectrum
            sounds.append(dsp.synth(lh, th, ln, lr, phi, f0 * pitch, rng))
            seconds += _neural.kokoro_seconds(durations)
            units += _units(known)
        if not any(symbol for symbol, _ in units):
            raise InputError(f"nothing to say in the text {text[:60]!r}; want at least one English word")
        samples = np.concatenate(sounds).astype(np.float32)
        return Utterance(samples, 24_000, _neural.phonemes(units, seconds, len(samples) / 24_000))


def _units(letters: list[str]) -> list[_neural.Unit]:
    """Sounds with the tokens that they span; stress belongs to the sound after it, length to the one before."""
    out: list[_neural.Unit] = [("", 1)]
    mark, waiting = "", 0
    for letter in letters:
        if letter in "ˈˌ":
            mark, waiting = letter, waiting + 1
        elif letter in _MARKS:
            symbol, tokens = out[-1]
            out[-1] = ((symbol or "") + letter if symbol else symbol, tokens + 1)
        elif letter in _SILENT or letter == " ":
            out.append((None if letter == " " else "", 1 + waiting))
            mark, waiting = "", 0
        else:
            out.append((mark + _IPA.get(letter, letter), 1 + waiting))
            mark, waiting = "", 0
    out.append(("", 1 + waiting))
    return out
