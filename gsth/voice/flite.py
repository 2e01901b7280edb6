"""Voices of Carnegie Mellon's Flite: small, and built from recordings of real people (the command ``flite``)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gsth import media
from gsth.errors import BackendError, InputError
from gsth.speech import Phoneme, Utterance
from gsth.voice import _neural

NAMES = ("slt", "rms", "awb", "kal16")
_RATE = 16_000
_IPA = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b", "ch": "tʃ",
    "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "l", "em": "m", "en": "n", "er": "ɝ", "ey": "eɪ", "f": "f",
    "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "ng": "ŋ", "nx": "n", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ",
    "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip
_FULL = frozenset("aa ae ah ao aw ay eh er ey ow oy uw".split())
"""Vowels that Flite does not reduce; it tells no stress, so they count as stressed."""
_PATIENCE_S = 120


@dataclass(frozen=True)
class Config:
    """An English voice of Flite: slt (a woman), rms, awb (a Scot) or kal16."""

    voice: str = "slt"
    """slt, rms, awb or kal16."""

    def build(self) -> FliteSpeaker:
        """Find the program.

        Raises:
            InputError: Flite has no such voice.
            BackendError: Flite is not installed.
        """
        if self.voice not in NAMES:
            raise InputError(f"flite has no voice {self.voice!r}; there are: {', '.join(NAMES)}")
        program = shutil.which("flite")
        if program is None:
            raise BackendError("there is no program flite on this machine; install it (Debian: apt install flite)")
        return FliteSpeaker(program, self.voice)


@dataclass(frozen=True)
class FliteSpeaker:
    """Speaks with one of Flite's voices and exact phoneme times."""

    program: str
    voice: str

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """As ``Speaker.say``; kal16 keeps its pitch."""
        _neural.check(rate, pitch)
        nothing = InputError(f"nothing to say in the text {text[:60]!r}; want at least one English word")
        if not any(c.isalnum() for c in text):
            raise nothing
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "said.wav"
            manner = ("--setf", f"duration_stretch={1 / rate:.4f}", "--setf", f"f0_shift={pitch:.4f}")
            command = (self.program, "-voice", self.voice, *manner, "-psdur", "-t", text.replace("\0", " "), str(out))
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
            except (OSError, subprocess.SubprocessError) as e:
                raise BackendError(f"flite could not speak the text {text[:60]!r}: {e}") from e
            if not out.is_file():
                raise nothing
            samples = media.sound(out, _RATE)
        told = phonemes(done.stdout, len(samples) / _RATE)
        if not any(p.symbol for p in told):
            raise nothing
        return Utterance(samples, _RATE, told)


def phonemes(told: str, seconds: float) -> tuple[Phoneme, ...]:
    """Flite's ``name:end`` pairs as phonemes without gaps, from 0 to the end of the sound, silences joined."""
    marks: list[tuple[str, float]] = []
    for pair in told.split():
        name, _, end = pair.partition(":")
        symbol = ("ˈ" if name in _FULL else "") + _IPA[name] if name in _IPA else ""
        if marks and not symbol and not marks[-1][0]:
            marks.pop()
        marks.append((symbol, min(float(end), seconds)))
    if marks and not marks[-1][0]:
        marks.pop()
    marks.append(("", seconds))
    starts = [0.0, *(end for _, end in marks[:-1])]
    return tuple(Phoneme(s, a, b) for (s, b), a in zip(marks, starts, strict=True) if b > a)
