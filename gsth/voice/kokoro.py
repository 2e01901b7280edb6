"""Voices of the Kokoro project: one model file (.onnx) and the file of its voices (.npz, .bin) beside it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gsth import speech
from gsth.errors import InputError
from gsth.speech import Utterance
from gsth.voice import _neural

_DURATIONS = "/encoder/Clip_output_0"
"""Inner value of the model: frames of each token."""
_RATE = 24_000
_LONGEST = 510
"""Tokens of one run."""
_LETTERS = {
    **{letter: i for i, letter in enumerate(';:,.!?', 1)}, " ": 16, "ʣ": 18, "ʥ": 19, "ʦ": 20, "ʨ": 21, "A": 24,
    "I": 25, "O": 31, "Q": 33, "S": 35, "T": 36, "W": 39, "Y": 41, "ᵊ": 42, "a": 43, "b": 44, "c": 45, "d": 46,
    "e": 47, "f": 48, "h": 50, "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "o": 57, "p": 58, "q": 59,
    "r": 60, "s": 61, "t": 62, "u": 63, "v": 64, "w": 65, "x": 66, "y": 67, "z": 68, "ɑ": 69, "ɐ": 70, "ɒ": 71,
    "æ": 72, "β": 75, "ɔ": 76, "ɕ": 77, "ç": 78, "ɖ": 80, "ð": 81, "ʤ": 82, "ə": 83, "ɚ": 85, "ɛ": 86, "ɜ": 87,
    "ɟ": 90, "ɡ": 92, "ɥ": 99, "ɨ": 101, "ɪ": 102, "ʝ": 103, "ɯ": 110, "ɰ": 111, "ŋ": 112, "ɳ": 113, "ɲ": 114,
    "ɴ": 115, "ø": 116, "ɸ": 118, "θ": 119, "œ": 120, "ɹ": 123, "ɾ": 125, "ɻ": 126, "ʁ": 128, "ɽ": 129, "ʂ": 130,
    "ʃ": 131, "ʈ": 132, "ʧ": 133, "ʊ": 135, "ʋ": 136, "ʌ": 138, "ɣ": 139, "ɤ": 140, "χ": 142, "ʎ": 143, "ʒ": 147,
    "ʔ": 148, "ˈ": 156, "ˌ": 157, "ː": 158, "ʰ": 162, "ʲ": 164, "ᵻ": 177,
}  # fmt: skip
"""The model's alphabet (version 1.0)."""
_SPELLED = {
    "eɪ": "A", "aɪ": "I", "oʊ": "O", "əʊ": "Q", "aʊ": "W", "ɔɪ": "Y", "tʃ": "ʧ", "dʒ": "ʤ", "ɜː": "ɜɹ", "ɚ": "əɹ",
    "g": "ɡ", "r": "ɹ",
}  # fmt: skip
"""What it writes otherwise than espeak-ng's English."""
_LANGUAGES = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "h": "hi", "i": "it", "p": "pt-br", "z": "cmn"}
"""A voice's first letter tells its language; others speak English."""


@dataclass(frozen=True)
class Config:
    """Kokoro's voices: MODEL.onnx@NAME; a mixture is MODEL.onnx@NAME+NAME."""

    voice: str
    """The model file, then the voice: kokoro-v1.0.onnx@af_heart. Its voices lie beside it in one file voices*."""
    seed: int = 0
    """Of the noise in breathy sounds."""

    def build(self) -> KokoroSpeaker:
        """Load the model.

        Raises:
            InputError: A file is missing or is none of Kokoro's, or there is no such voice.
            MissingExtraError: onnxruntime or espeakng-loader is not installed.
        """
        return KokoroSpeaker(self)


class KokoroSpeaker:
    """Speaks with one of Kokoro's voices and its own phoneme times; espeak-ng reads the text."""

    def __init__(self, config: Config) -> None:
        file, _, names = config.voice.partition("@")
        model = Path(file)
        styles = _styles(model)
        wanted = names.split("+") if names or not styles else [next(iter(styles))]
        if unknown := [n for n in wanted if n not in styles]:
            raise InputError(f"{model}: has no voice {unknown[0]!r}; there are: {', '.join(styles)}")
        self._style: np.ndarray = sum(styles[n] for n in wanted) / np.float32(len(wanted))
        self._code = language(wanted[0])
        self._session = _loaded(model, config.seed)

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """As ``Speaker.say``; the pitch stays the voice's own."""
        _neural.check(rate, pitch)
        symbols = speech.read_aloud(text, self._code)
        if not any(s[0] not in speech.PAUSES + " " for s in symbols):
            raise InputError(f"nothing to say in the text {text[:60]!r}; want at least one word in {self._code}")
        sounds: list[np.ndarray] = []
        seconds: list[float] = []
        units: list[_neural.Unit] = []
        for part in _parts([(s, _tokens(s)) for s in symbols]):
            ids = [0, *(i for _, tokens in part for i in tokens), 0]
            style = self._style[min(len(ids) - 2, len(self._style)) - 1].reshape(1, -1)
            feed = {"tokens": np.asarray([ids]), "style": style, "speed": np.asarray([rate], np.float32)}
            sound, durations = self._session.run(None, feed)
            sounds.append(np.asarray(sound, np.float32).reshape(-1))
            seconds += _neural.kokoro_seconds(durations.reshape(-1))
            units += [("", 1), *((_heard(s), len(tokens)) for s, tokens in part), ("", 1)]
        samples = np.concatenate(sounds)
        return Utterance(samples, _RATE, _neural.phonemes(units, seconds, len(samples) / _RATE))


@cache
def _loaded(model: Path, seed: int) -> Any:
    """The session, shared by all voices: the model is the large part, a voice is a few numbers."""
    return _neural.session(model, _DURATIONS, seed)


def language(name: str) -> str:
    """espeak-ng's code of the language that a voice reads."""
    return _LANGUAGES.get(name[:1], "en-us")


def names(model: Path) -> tuple[str, ...]:
    """The voices of a model.

    Raises:
        InputError: A file is missing or is none of Kokoro's.
    """
    return tuple(_styles(model))


@cache
def _styles(model: Path) -> dict[str, np.ndarray]:
    """Style vectors [tokens, 1, 256] of each voice."""
    found = sorted(p for p in model.parent.glob("voices*") if p.suffix in (".npz", ".bin"))
    if not model.is_file() or not found:
        raise InputError(f"{model}: want a model of Kokoro (.onnx) and a file voices*.npz or voices*.bin beside it")
    try:
        with np.load(found[0]) as arrays:
            return {n: arrays[n].reshape(-1, 256) for n in sorted(arrays.files)}
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise InputError(f"{found[0]}: cannot be read as voices of Kokoro ({e})") from e


def _tokens(symbol: str) -> list[int]:
    """The model's letters of one sound, pause or gap between words."""
    marks = "".join(c for c in symbol if c in "ˈˌ")
    plain = symbol.replace("ˈ", "").replace("ˌ", "")
    return [_LETTERS[c] for c in marks + _SPELLED.get(plain, plain) if c in _LETTERS]


def _heard(symbol: str) -> str | None:
    return "" if symbol in speech.PAUSES else None if symbol == " " else symbol


def _parts(sounds: list[tuple[str, list[int]]]) -> list[list[tuple[str, list[int]]]]:
    """In pieces that the model can say at once, cut after pauses, else between words."""
    out: list[list[tuple[str, list[int]]]] = [[]]
    for symbol, tokens in sounds:
        if sum(len(t) for _, t in out[-1]) + len(tokens) > _LONGEST - 2:
            cut = max((i + 1 for i, (s, _) in enumerate(out[-1]) if s in speech.PAUSES), default=0)
            cut = cut or max((i + 1 for i, (s, _) in enumerate(out[-1]) if s == " "), default=len(out[-1]))
            out[-1], rest = out[-1][:cut], out[-1][cut:]
            out.append(rest)
        out[-1].append((symbol, tokens))
    return out
