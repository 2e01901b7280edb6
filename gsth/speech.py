"""Speech with known phoneme times (espeak-ng), and the mouth movements that belong to the phonemes.

``synthesize`` makes sound and exact phoneme times; ``visemes`` turns phoneme times into ARKit expression curves. The
curves follow the dominance model of co-articulation (Cohen and Massaro 1993, "Modeling coarticulation in synthetic
visual speech"): each sound pulls each articulator towards its own target with its own strength, so that a rounded
vowel rounds the consonants around it and a /k/ leaves the lips to its neighbours. Closures (p b m) and lip tucks (f v)
are no targets to be averaged but events that always complete, as in JALI (Edwards et al., SIGGRAPH 2016).
"""

from __future__ import annotations

import _ctypes
import ctypes
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsth.errors import BackendError, InputError, MissingExtraError

ARKIT_NAMES = tuple(
    "eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft eyeWideLeft "
    "eyeBlinkRight eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight eyeSquintRight eyeWideRight "
    "jawForward jawLeft jawRight jawOpen mouthClose mouthFunnel mouthPucker mouthLeft mouthRight "
    "mouthSmileLeft mouthSmileRight mouthFrownLeft mouthFrownRight mouthDimpleLeft mouthDimpleRight "
    "mouthStretchLeft mouthStretchRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper "
    "mouthPressLeft mouthPressRight mouthLowerDownLeft mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight "
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft "
    "cheekSquintRight noseSneerLeft noseSneerRight tongueOut".split()
)
"""The 52 ARKit blend shapes in the order of Apple's documentation."""


@dataclass(frozen=True)
class Phoneme:
    """One sound of an utterance."""

    symbol: str
    """IPA as espeak-ng writes it, stress mark included; empty in silence."""
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class Utterance:
    """Spoken text."""

    samples: np.ndarray
    """Mono, float32, -1 to 1, [samples]."""
    sample_rate: int
    phonemes: tuple[Phoneme, ...]
    """In time order, without gaps, from 0 to the end of the sound."""

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class NetLayout:
    """What the arrays of a speech network do not tell: ``gsth.drive`` runs it, ``gsth.export`` hands it to others."""

    steps_hz: int = 50
    delay: int = 8
    """Look-ahead in steps: a step comes out so many steps after its sound went in."""
    dilations: tuple[int, ...] = (1, 2, 4, 8) * 3
    """Of its residual blocks; a network of fewer blocks has the first of them."""
    curves: tuple[str, ...] = (
        "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthSmileLeft", "mouthSmileRight",
        "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower",
        "mouthRollUpper", "mouthShrugLower", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft",
        "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "tongueOut",
    )  # fmt: skip
    """What its head moves, by ARKit name: all that ``visemes`` moves."""
    closure: tuple[float, float] = (0.30, 0.75)
    """Share of a full closure's press from which the lips begin to meet, and at which they have met."""


NET = NetLayout()
"""Of every network so far."""


# ---- espeak-ng, by its C interface (speak_lib.h 1.52) ----------------------------------------------------------------


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.POINTER(ctypes.c_char)),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 2, 1, 2, 0x8000
_UTF8, _END_PAUSE, _IPA_UNDERSCORED = 1, 0x1000, 2 | ord("_") << 8
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_lock = threading.Lock()
"""espeak-ng keeps one voice and one output per process."""


@contextmanager
def _espeak() -> Iterator[tuple[Any, int]]:
    """A fresh copy of the library, initialised, and its sample rate; one at a time.

    espeak-ng has state that no call resets (the phase of its pitch flutter), so that the same text sounds a little
    different each time. Loading takes less than a millisecond, so each use loads it anew and is deterministic.
    """
    try:
        import espeakng_loader
    except ImportError as e:
        raise MissingExtraError("espeakng-loader", "audio", "speech synthesis") from e
    with _lock:
        lib = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            data = espeakng_loader.get_data_path()
            options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
            rate = lib.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), options)
            if rate <= 0:
                raise BackendError(
                    f"espeak-ng could not read its data in {data} (its paths must stay under 160 characters); "
                    "reinstall espeakng-loader in a folder with a shorter name"
                )
            yield lib, rate
            lib.espeak_Terminate()
        finally:
            (_ctypes.FreeLibrary if sys.platform == "win32" else _ctypes.dlclose)(lib._handle)


@cache
def _identifiers() -> Mapping[str, str]:
    """espeak-ng's voice file of each language code."""
    with _espeak() as (lib, _):
        lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        listed = lib.espeak_ListVoices(None)
        best: dict[str, tuple[int, str]] = {}
        i = 0
        while listed[i]:
            voice, at = listed[i].contents, 0
            # A list of (priority byte, language code, 0); a priority byte of 0 ends it.
            while voice.languages[at] != b"\0":
                priority, code = ord(voice.languages[at]), b""
                at += 1
                while (byte := voice.languages[at]) != b"\0":
                    code += byte
                    at += 1
                at += 1
                name = code.decode()
                best[name] = min(best.get(name, (256, "")), (priority, voice.identifier.decode()))
            i += 1
    return {name: identifier for name, (_, identifier) in sorted(best.items())}


def voices() -> tuple[str, ...]:
    """Language codes that ``synthesize`` speaks, for example en-us, de, es, fr-fr, cmn.

    A variant may be added to each: ``+m1`` to ``+m7`` (male), ``+f1`` to ``+f5`` (female), as in ``en-us+f3``.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
    """
    return tuple(_identifiers())


def _voice_file(voice: str) -> str:
    """espeak-ng's name of a voice: language file and variant."""
    code, plus, variant = voice.partition("+")
    if code not in _identifiers():
        near = [v for v in voices() if v.startswith(code[:2])] or ["en-us", "de", "es", "fr-fr", "cmn"]
        raise InputError(f"espeak-ng has no voice {voice!r}; gsth.speech.voices() lists all, for example: {near}")
    import espeakng_loader  # type: ignore[import-untyped]

    variants = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    if plus and not (variants / variant).is_file():  # espeak-ng itself would silently leave it out
        known = " ".join(sorted(p.name for p in variants.iterdir()))
        raise InputError(f"the voice {voice!r} names no variant of espeak-ng; there are: {known}")
    return _identifiers()[code] + plus + variant


def synthesize(text: str, voice: str = "en-us", rate_wpm: int = 160, pitch: int = 50) -> Utterance:
    """Speak a text with espeak-ng, with the exact time of each phoneme. Deterministic; threads take turns.

    Args:
        text: What to say; at least one word.
        voice: A language code of ``voices()``, with or without a variant.
        rate_wpm: Words per minute, 80 to 450.
        pitch: 0 (deep) to 99 (high).

    Raises:
        InputError: An unknown voice, a number out of range, or a text that makes no sound.
        MissingExtraError: espeakng-loader is not installed.
    """
    if not (80 <= rate_wpm <= 450 and 0 <= pitch <= 99):
        raise InputError(f"rate_wpm {rate_wpm} and pitch {pitch}: want 80 to 450 words per minute and 0 to 99")
    chunks: list[np.ndarray] = []
    marks: list[tuple[str, int]] = []

    def receive(wave: Any, count: int, event: Any) -> int:
        i = 0
        while event[i].type != _EVENT_END:
            if event[i].type == _EVENT_PHONEME:
                # Eight bytes may cut a long symbol inside a character.
                marks.append((event[i].id.string.decode("utf-8", "ignore"), event[i].sample))
            i += 1
        if wave and count > 0:
            chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    callback = _CALLBACK(receive)
    encoded = text.replace("\0", " ").encode()
    voice_file = _voice_file(voice)
    with _espeak() as (lib, rate):
        if lib.espeak_SetVoiceByName(voice_file.encode()) != 0:
            raise InputError(f"espeak-ng cannot load the voice {voice!r} ({voice_file})")
        for parameter, value in ((_RATE, rate_wpm), (_VOLUME, 100), (_PITCH, pitch), (_RANGE, 50)):
            lib.espeak_SetParameter(parameter, value, 0)
        lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
        lib.espeak_SetSynthCallback(callback)
        failed = lib.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8 | _END_PAUSE, None, None)
    if failed or not chunks or not any(_base(symbol) for symbol, _ in marks):
        raise InputError(f"nothing to say in the text {text[:60]!r}; want at least one word that {voice} can read")
    samples = np.concatenate(chunks).astype(np.float32) / 32768
    return Utterance(samples, rate, _segments(marks, len(samples), rate))


PAUSES = ",.;:!?"
"""Marks at which a voice may pause."""


def read_aloud(text: str, voice: str = "en-us") -> list[str]:
    """The IPA symbols of a text as espeak-ng reads it, " " between words, and each mark of ``PAUSES`` as itself.

    Raises:
        InputError: An unknown voice.
        MissingExtraError: espeakng-loader is not installed.
    """
    voice_file = _voice_file(voice)
    out: list[str] = []
    with _espeak() as (lib, _):
        if lib.espeak_SetVoiceByName(voice_file.encode()) != 0:
            raise InputError(f"espeak-ng cannot load the voice {voice!r} ({voice_file})")
        lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        for part in re.split(rf"([{re.escape(PAUSES)}]+)(?=\s|$)", text):
            if part and part[0] in PAUSES:
                out.append(part[0])
                continue
            left = ctypes.c_char_p(part.replace("\0", " ").encode())
            while left.value:
                said = lib.espeak_TextToPhonemes(ctypes.byref(left), _UTF8, _IPA_UNDERSCORED).decode()
                for word in said.split():
                    out += [*([" "] if out and out[-1] not in PAUSES else []), *filter(None, word.split("_"))]
    return out


def _segments(marks: Sequence[tuple[str, int]], samples: int, rate: int) -> tuple[Phoneme, ...]:
    """Phonemes from their starts, without gaps; silences that touch are one."""
    joined: list[tuple[str, int]] = [("", 0)]
    for symbol, start in marks:
        symbol = symbol if _base(symbol) else ""
        start = min(max(start, joined[-1][1]), samples)
        if start == joined[-1][1]:
            joined.pop()
        if not joined or symbol or joined[-1][0]:
            joined.append((symbol, start))
    joined = [m for m in joined if m[1] < samples]
    ends = [start for _, start in joined[1:]] + [samples]
    return tuple(Phoneme(s, a / rate, b / rate) for (s, a), b in zip(joined, ends, strict=True))


# ---- phonemes to mouth movements -------------------------------------------------------------------------------------

_ARTICULATORS = ("jaw", "spread", "pucker", "funnel", "bare", "tongue", "narrow")
"""Jaw opening; corners apart; lips forward and small; forward and square; off the teeth; tongue tip; the share of the
jaw's opening that rounding takes back: lips part by far less than the jaw opens in rounded sounds, more in i and s
(Fromkin 1964, Language and Speech 7; Linker 1982, UCLA Working Papers in Phonetics 56; the sizes are our own)."""

_VOWELS: Mapping[str, tuple[float, float, float]] = {  # jaw, spread, round
    "i": (0.18, 0.85, 0.0), "y": (0.14, 0.0, 0.95), "ɨ": (0.20, 0.40, 0.0), "ᵻ": (0.22, 0.40, 0.0),
    "ʉ": (0.16, 0.0, 0.75), "ɯ": (0.18, 0.35, 0.0), "u": (0.16, 0.0, 1.0), "ɪ": (0.28, 0.55, 0.0),
    "ʏ": (0.22, 0.0, 0.80), "ʊ": (0.25, 0.0, 0.75), "e": (0.36, 0.65, 0.0), "ø": (0.32, 0.0, 0.80),
    "ɘ": (0.34, 0.25, 0.0), "ɵ": (0.32, 0.0, 0.60), "ɤ": (0.36, 0.15, 0.0), "o": (0.42, 0.0, 0.85),
    "ə": (0.30, 0.10, 0.0), "ɚ": (0.26, 0.0, 0.35), "ɛ": (0.52, 0.45, 0.0), "œ": (0.48, 0.0, 0.60),
    "ɜ": (0.38, 0.05, 0.20), "ɝ": (0.34, 0.0, 0.40), "ʌ": (0.58, 0.10, 0.0), "ɔ": (0.60, 0.0, 0.60),
    "æ": (0.76, 0.45, 0.0), "ɐ": (0.56, 0.10, 0.0), "a": (0.88, 0.15, 0.0), "ɶ": (0.80, 0.0, 0.40),
    "ɑ": (0.95, 0.0, 0.0), "ɒ": (0.76, 0.0, 0.45),
}  # fmt: skip

_CONSONANTS: Mapping[str, str] = {
    "closed": "pbmɓʙ",
    "tucked": "fvɱʋⱱ",
    "dental": "θð",
    "hissing": "szʦʣɬɮ",
    "alveolar": "tdnrɾɺɳʈɖɽɗ",
    "lateral": "lɫɭʎʟ",
    "rounded_r": "ɹɻ",
    "hushing": "ʃʒɕʑʂʐʧʤɧ",
    "palatal": "jɲçʝcɟʄ",
    "velar": "kɡgŋxɣqɢɴχʁʀɰɠʛ",
    "labial_glide": "wʍɥ",
    "loose_labial": "βɸ",
    "throat": "hɦʔħʕ",
}

# Target of each articulator and how strongly the class insists on it (0: left to the neighbours).
_CLASSES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    #             jaw   spread pucker funnel bare tongue narrow    strengths
    "silence": ((0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)),
    "vowel": ((0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "closed": ((0.10, 0.00, 0.05, 0.00, 0.00, 0.00, 0.00), (0.7, 0.2, 0.1, 0.1, 1.0, 1.0, 0.1)),
    "tucked": ((0.12, 0.10, 0.00, 0.00, 0.15, 0.00, 0.00), (1.0, 0.3, 0.4, 0.4, 0.6, 1.0, 0.4)),
    "dental": ((0.20, 0.15, 0.00, 0.00, 0.50, 1.00, 0.00), (0.8, 0.3, 0.2, 0.2, 0.5, 1.5, 0.2)),
    "hissing": ((0.10, 0.35, 0.00, 0.05, 0.90, 0.00, 0.00), (1.4, 0.4, 0.2, 0.2, 0.9, 1.0, 0.2)),
    "alveolar": ((0.16, 0.20, 0.00, 0.00, 0.60, 0.15, 0.00), (0.7, 0.2, 0.1, 0.1, 0.4, 0.8, 0.1)),
    "lateral": ((0.26, 0.15, 0.00, 0.00, 0.35, 0.40, 0.00), (0.7, 0.2, 0.1, 0.1, 0.4, 1.2, 0.1)),
    "rounded_r": ((0.18, 0.00, 0.35, 0.25, 0.10, 0.00, 0.35), (0.7, 0.5, 0.6, 0.8, 0.4, 0.8, 0.7)),
    "hushing": ((0.10, 0.00, 0.25, 0.65, 0.40, 0.00, 0.20), (1.5, 0.8, 0.6, 1.6, 0.9, 1.0, 0.6)),
    "palatal": ((0.15, 0.50, 0.00, 0.00, 0.45, 0.00, 0.00), (0.7, 0.4, 0.1, 0.1, 0.3, 0.8, 0.1)),
    "velar": ((0.24, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (0.5, 0.05, 0.05, 0.05, 0.1, 0.8, 0.05)),
    "labial_glide": ((0.12, 0.00, 1.00, 0.00, 0.00, 0.00, 0.95), (1.2, 1.0, 1.8, 1.2, 1.2, 0.8, 3.0)),
    "loose_labial": ((0.14, 0.00, 0.15, 0.00, 0.00, 0.00, 0.50), (0.9, 0.3, 0.3, 0.2, 0.6, 0.8, 0.8)),
    "throat": ((0.20, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (0.05, 0.05, 0.05, 0.05, 0.05, 0.2, 0.05)),
}
_CLASS_OF = {letter: name for name, letters in _CONSONANTS.items() for letter in letters}

_TO_ARKIT: Mapping[str, Mapping[str, float]] = {
    "jaw": {"jawOpen": 0.52, "mouthLowerDown": 0.10},
    "spread": {"mouthStretch": 0.30, "mouthSmile": 0.26, "mouthDimple": 0.10, "mouthUpperUp": 0.08},
    "pucker": {"mouthPucker": 0.72, "mouthFunnel": 0.16},
    "funnel": {"mouthFunnel": 0.62, "mouthPucker": 0.14},
    "bare": {"mouthLowerDown": 0.34, "mouthUpperUp": 0.20},
    "tongue": {"tongueOut": 0.22},
    "closed": {"mouthPress": 0.22, "mouthRollLower": 0.16, "mouthRollUpper": 0.14},
    "tucked": {"mouthRollLower": 0.62, "mouthUpperUp": 0.24, "mouthShrugLower": 0.14},
}  # mouthX without a side means both sides

_PARTS_LIPS = ("mouthLowerDown", "mouthUpperUp", "mouthFunnel", "tongueOut", "mouthShrugUpper")
"""Shapes that part the lips whatever the jaw does; a closure takes them away."""

# How fast each articulator moves (standard deviation) and how far it runs ahead of the sound, s. The lips are heavy
# and start early (JALI's "lip-heavy" rule), the tongue tip is quick.
_SIGMA_S = (0.034, 0.042, 0.050, 0.045, 0.036, 0.024, 0.042)
_LEAD_S = (0.010, 0.015, 0.045, 0.035, 0.010, 0.000, 0.020)
_RAMP_S = 0.055
"""Time that the lips take to meet and to part."""
_GRID_HZ = 400


def _base(symbol: str) -> str:
    """The letters of an IPA symbol, without marks; French an and on are as round as they are spoken (Carignan 2014)."""
    plain = unicodedata.normalize("NFD", symbol.replace("ʰ", "")).replace("ɑ\u0303", "ɒ").replace("ɔ\u0303", "o")
    return "".join(c for c in plain if c.isalpha() and unicodedata.category(c) != "Lm")


def _letters(symbol: str) -> list[str]:
    """What a symbol passes through: both vowels of a diphthong, both parts of an affricate."""
    known = [c for c in _base(symbol) if c in _VOWELS or c in _CLASS_OF]
    if len(known) > 1 and known[-1] == "h":  # an aspirate is its stop: "th" in cmn
        known.pop()
    # Letters beyond the tables (rare ones) behave as the most neutral sound.
    return known or (["ə"] if _base(symbol) else [])


def _vowel_target(letter: str, stressed: bool) -> tuple[float, ...]:
    jaw, spread, rounded = _VOWELS[letter]
    strong = 1.0 if stressed else 0.8
    # Open rounded vowels keep a wide square mouth (funnel), closed ones a small one (pucker).
    round_lips = (rounded * (1 - 0.7 * jaw), rounded * 0.9 * jaw)
    return (jaw * strong, spread * strong, *round_lips, 0.12 + 0.45 * spread, 0.0, 0.75 * rounded)


def _pieces(phonemes: Sequence[Phoneme]) -> list[tuple[str, float, float, bool]]:
    """Single letters ("" in silence) with start and end, s, and whether the vowel is stressed."""
    out = []
    for p in phonemes:
        letters = _letters(p.symbol) or [""]
        step = (p.end_s - p.start_s) / len(letters)
        for i, letter in enumerate(letters):
            out.append((letter, p.start_s + i * step, p.start_s + (i + 1) * step, "ˈ" in p.symbol))
    return out


def _blend(pieces: Sequence[tuple[str, float, float, bool]], times: np.ndarray) -> np.ndarray:
    """Articulator curves [times, 7]: strength-weighted targets, both smoothed by the articulator's kernel."""
    first, last = times[0] - 0.5, times[-1] + 0.5
    grid = np.arange(first, last, 1 / _GRID_HZ)
    target = np.zeros((len(grid), len(_ARTICULATORS)))
    strength = np.tile(np.asarray(_CLASSES["silence"][1]), (len(grid), 1))
    for letter, start, end, stressed in pieces:
        name = "silence" if not letter else "vowel" if letter in _VOWELS else _CLASS_OF[letter]
        rows = slice(*np.searchsorted(grid, (start, end)))
        target[rows] = _vowel_target(letter, stressed) if name == "vowel" else _CLASSES[name][0]
        strength[rows] = _CLASSES[name][1]
    out = np.empty((len(times), len(_ARTICULATORS)))
    for k, (sigma, lead) in enumerate(zip(_SIGMA_S, _LEAD_S, strict=True)):
        reach = int(3 * sigma * _GRID_HZ)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma * _GRID_HZ)) ** 2)
        weighted = np.convolve(target[:, k] * strength[:, k], kernel, "same")
        curve = weighted / np.convolve(strength[:, k], kernel, "same")
        out[:, k] = np.interp(times + lead, grid, curve)
    return out


def _events(
    pieces: Sequence[tuple[str, float, float, bool]], name: str, times: np.ndarray, hold_s: float
) -> np.ndarray:
    """0 to 1 [times]: 1 while the lips hold a closure (or tuck), raised-cosine ramps around it.

    Args:
        hold_s: Shortest hold; the length of a video frame, so that every closure is seen in at least one frame.
    """
    out = np.zeros(len(times))
    for letter, start, end, _ in pieces:
        if letter and _CLASS_OF.get(letter) == name:
            half = max(end - start, hold_s) / 2
            away = np.abs(times - (start + end) / 2) - half
            out = np.maximum(out, 0.5 + 0.5 * np.cos(np.pi * np.clip(away / _RAMP_S, 0, 1)))
    return out


def visemes(phonemes: Sequence[Phoneme], fps: float, frames: int, names: Sequence[str] = ARKIT_NAMES) -> Tensor:
    """Expression curves of a mouth that says the phonemes.

    Frame i shows the time (i + 0.5) / fps. Every p, b and m is fully closed (jawOpen equals mouthClose and nothing
    else parts the lips) in at least one frame; in silence all curves come to 0. The eyes and brows stay at 0.

    Args:
        phonemes: In time order, IPA; espeak-ng's symbols of any language (letters unknown here act as a schwa).
        fps: Frame rate of the curves, Hz.
        frames: How many frames; times after the last phoneme are silence.
        names: Order of the columns, ARKit names; a head model's ``expression_names``.

    Returns:
        [frames, len(names)], 0 to 1, float32.

    Raises:
        InputError: fps or frames are not positive.
    """
    if fps <= 0 or frames <= 0:
        raise InputError(f"visemes: want fps and frames above 0, got {fps} and {frames}")
    times = (np.arange(frames) + 0.5) / fps
    pieces = _pieces(phonemes)
    blend = _blend(pieces, times)
    # The tiny surplus keeps a frame inside the hold where frame times and closure fall together.
    closed, tucked = (_events(pieces, name, times, 1.001 / fps) for name in ("closed", "tucked"))
    levels = dict(zip(_ARTICULATORS, blend.T, strict=True)) | {"closed": closed, "tucked": tucked}

    sides: dict[str, np.ndarray] = {}
    for articulator, shapes in _TO_ARKIT.items():
        for shape, gain in shapes.items():
            sides[shape] = sides.get(shape, np.zeros(frames)) + gain * levels[articulator]
    for shape in _PARTS_LIPS:
        if shape in sides:
            sides[shape] = sides[shape] * (1 - closed)
    # A tuck brings the lower lip to the upper teeth, so the jaw comes nearly up and the lower lip does not hang.
    sides["jawOpen"] = sides["jawOpen"] * (1 - 0.6 * tucked) * (1 - 0.5 * closed)
    sides["mouthLowerDown"] = sides["mouthLowerDown"] * (1 - tucked)
    sides["mouthClose"] = sides["jawOpen"] * np.maximum(closed, levels["narrow"])
    sides |= {shape: sides[shape] * (1 - 0.7 * tucked) for shape in ("mouthFunnel", "mouthPucker")}

    out = np.zeros((frames, len(names)), np.float32)
    for i, name in enumerate(names):
        curve = sides.get(name, sides.get(name.removesuffix("Left").removesuffix("Right")))
        if curve is not None:
            out[:, i] = np.clip(curve, 0, 1)
    return torch.from_numpy(out)
