"""Phonemes of a recording and when they are said: words by faster-whisper, phonemes by espeak-ng, times by dynamic time
warping of espeak-ng's voice onto the recording.

``pip install faster-whisper``; the weights are the user's, a folder as faster-whisper reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gsth import audio, media, speech
from gsth.speech import Phoneme

VOICES = {"en": "en-us", "zh": "cmn"}
"""espeak-ng's name of a language where it differs from whisper's."""
CEPSTRA = 14
LOUDNESS_SHARE = 1.5
"""Weight of the zeroth cepstrum: pauses and vowels carry the alignment."""
BEFORE_S, AFTER_S = 0.1, 0.15
"""Words begin earlier and end later than recognisers say."""
STANDS = 0.7
"""What a step of the warp that stands still on one side costs of a diagonal one, which is two steps at once."""
ROUND_S = 0.05
"""Over so long a warp is averaged, which has steps of whole columns."""


def phonemes(path: Path, weights: Path) -> tuple[Phoneme, ...]:
    """All that is said in a sound file, and when, from its begin to its end."""
    from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

    samples = media.sound(path)
    heard, about = WhisperModel(str(weights), device="cpu", compute_type="int8").transcribe(
        samples, word_timestamps=True, beam_size=5
    )
    segments = [(s.text.strip(), s.words[0].start, s.words[-1].end) for s in heard if s.words]
    return timeline(segments, VOICES.get(about.language, about.language), samples)


def timeline(segments: Sequence[tuple[str, float, float]], voice: str, samples: np.ndarray) -> tuple[Phoneme, ...]:
    """All phonemes of a recording [n], without gaps, from its begin to its end.

    Args:
        segments: What is said, and when about, s, in time order.
        voice: espeak-ng's.
        samples: At ``audio.RATE``.
    """
    out, last, length = [], 0.0, len(samples) / audio.RATE
    for text, begin, end in segments:
        for sound in aligned(text, voice, samples, max(last, begin - BEFORE_S), min(end + AFTER_S, length)):
            if sound.start_s > last:
                out.append(Phoneme("", last, sound.start_s))
            out.append(Phoneme(sound.symbol, max(last, sound.start_s), max(last, sound.end_s)))
            last = out[-1].end_s
    return (*out, Phoneme("", last, max(last, length)))


def aligned(text: str, voice: str, samples: np.ndarray, begin_s: float, end_s: float) -> list[Phoneme]:
    """The text's phonemes at the times at which this stretch of the recording [n] says them."""
    said = speech.synthesize(text, voice, 150)
    spoken = [p for p in said.phonemes if p.symbol]
    first = max(spoken[0].start_s - BEFORE_S, 0.0)
    pattern = media.resampled(said.samples, said.sample_rate, audio.RATE)
    here, there = (
        _cepstra(s[int(a * audio.RATE) : int(b * audio.RATE)])
        for s, a, b in ((samples, begin_s, end_s), (pattern, first, spoken[-1].end_s + BEFORE_S))
    )
    path = _warp(torch.cdist(here, there).numpy())
    columns = np.unique(path[:, 1])
    times = np.array([path[path[:, 1] == c, 0].mean() for c in columns])
    width = round(ROUND_S * audio.COLUMNS_HZ)
    times = np.convolve(np.pad(times, width // 2, "edge"), np.full(width, 1 / width), "valid")

    def when(second: float) -> float:
        column = (second - first) * audio.COLUMNS_HZ - 0.5
        return begin_s + (float(np.interp(column, columns, times)) + 0.5) / audio.COLUMNS_HZ

    inside = [p for p in said.phonemes if spoken[0].start_s <= p.start_s < spoken[-1].end_s]
    return [Phoneme(p.symbol, when(p.start_s), when(p.end_s)) for p in inside]


def _cepstra(samples: np.ndarray) -> torch.Tensor:
    """Mel cepstra and their slopes, each of spread one, [t 2 * CEPSTRA]."""
    mel = audio.log_mel(samples)
    band = torch.arange(mel.shape[1]) + 0.5
    basis = torch.cos(torch.pi / mel.shape[1] * torch.arange(CEPSTRA)[:, None] * band)
    out = mel @ basis.T
    out = (out - out.mean(0)) / out.std(0).clamp_min(1e-6)
    slope = torch.gradient(out, dim=0)[0] * 2
    out[:, 0] *= LOUDNESS_SHARE
    return torch.cat((out, slope), 1)


def _warp(cost: np.ndarray) -> np.ndarray:
    """The cheapest way through a table of costs [n m] from corner to corner, rows and columns of its steps, [k 2]."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(n):
        for j in range(m):
            stays = min(total[i, j + 1], total[i + 1, j]) + STANDS * cost[i, j]
            total[i + 1, j + 1] = min(total[i, j] + cost[i, j], stays)
    path, i, j = [], n, m
    while i and j:
        path.append((i - 1, j - 1))
        step = cost[i - 1, j - 1]
        ways = (total[i - 1, j - 1] + step, total[i - 1, j] + STANDS * step, total[i, j - 1] + STANDS * step)
        i, j = ((i - 1, j - 1), (i - 1, j), (i, j - 1))[int(np.argmin(ways))]
    return np.array(path[::-1])
