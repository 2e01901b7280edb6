"""Marked-up text to sound with cues: pieces are spoken one by one and joined, with their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gsth import audio, media, speech
from gsth.drive import Sound
from gsth.drive._cues import Cues, Emphasis
from gsth.drive._emotion import Mood
from gsth.errors import InputError
from gsth.voice import Speaker, markup

_JOINT_S = 0.03
"""Silence that stays between two pieces of one sentence."""
_FADE_S = 0.005
_ENDS = (".", "!", "?", ":", ";", ",", "。", "！", "？", "，")
LONGEST_S = 3600.0


@dataclass(frozen=True, eq=False)
class Said:
    """A text as it sounds."""

    sound: Sound
    cues: Cues

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.sound.samples) / self.sound.rate

    def samples(self) -> np.ndarray:
        """The sound at the rate that the speech network hears, 16 kHz."""
        return media.resampled(self.sound.samples, self.sound.rate, audio.RATE)


def say(text: str, speaker: Speaker) -> Said:
    """Speak a text with its markup.

    Raises:
        InputError: Nothing is to be said, broken markup, an unknown mood, or a text that lasts over an hour.
    """
    pieces = markup.pieces(text)
    rate = 0
    sounds: list[np.ndarray] = []
    phonemes: list[speech.Phoneme] = []
    emphases: list[Emphasis] = []
    moods: list[Mood] = []
    now, exact = 0.0, True
    for i, piece in enumerate(pieces):
        if piece.pause_s and rate:
            now += _rest(sounds, phonemes, piece.pause_s, rate, now)
        if not piece.text:
            continue
        manner = piece.manner
        said = speaker.say(piece.text, manner.rate, manner.pitch)
        if piece.pause_s and not rate:
            now += _rest(sounds, phonemes, piece.pause_s, said.sample_rate, now)
        rate = said.sample_rate
        flows_in = i > 0 and piece.pause_s == 0 and not pieces[i - 1].text.endswith(_ENDS)
        flows_on = i + 1 < len(pieces) and pieces[i + 1].pause_s == 0 and not piece.text.endswith(_ENDS)
        samples, known = _trimmed(said, flows_in, flows_on)
        exact = exact and bool(known)
        sounds.append(_faded(samples * manner.loudness, rate))
        phonemes += [speech.Phoneme(p.symbol, p.start_s + now, p.end_s + now) for p in known]
        end = now + len(samples) / rate
        if manner.effort != 1:
            emphases.append(Emphasis(now, end, manner.effort))
        if manner.mood != (moods[-1].name if moods else "") or (moods and manner.mood_level != moods[-1].intensity):
            moods.append(Mood(now, manner.mood, manner.mood_level))
        now = end
        if now > LONGEST_S:
            raise InputError(f"the text lasts over {LONGEST_S / 60:.0f} minutes; split it into several")
    samples = np.clip(np.concatenate(sounds), -1, 1).astype(np.float32)
    return Said(Sound(samples, rate), Cues(tuple(phonemes) if exact else (), tuple(emphases), tuple(moods)))


def _rest(sounds: list[np.ndarray], phonemes: list[speech.Phoneme], seconds: float, rate: int, now: float) -> float:
    """Add a silence; its exact length, s."""
    count = round(seconds * rate)
    sounds.append(np.zeros(count, np.float32))
    phonemes.append(speech.Phoneme("", now, now + count / rate))
    return count / rate


def _trimmed(said: speech.Utterance, start: bool, end: bool) -> tuple[np.ndarray, Sequence[speech.Phoneme]]:
    """An utterance without the silence at its start or end (all but a joint), and its phonemes."""
    known = said.phonemes
    loud = [p for p in known if p.symbol]
    if not loud:
        return said.samples, ()
    first = max(loud[0].start_s - _JOINT_S / 2, 0.0) if start else 0.0
    last = min(loud[-1].end_s + _JOINT_S / 2, said.seconds) if end else said.seconds
    a, b = round(first * said.sample_rate), round(last * said.sample_rate)
    first, last = a / said.sample_rate, b / said.sample_rate
    moved = [
        speech.Phoneme(p.symbol, max(p.start_s - first, 0.0), min(p.end_s, last) - first)
        for p in known
        if p.end_s > first and p.start_s < last
    ]
    return said.samples[a:b], moved


def _faded(samples: np.ndarray, rate: int) -> np.ndarray:
    """With ends that do not click."""
    count = min(round(_FADE_S * rate), len(samples) // 2)
    out, ramp = samples.astype(np.float32), np.linspace(0, 1, count, dtype=np.float32)
    out[:count] *= ramp
    out[len(out) - count :] *= ramp[::-1]
    return out
