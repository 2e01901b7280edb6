"""Speech while it is spoken: samples in, pieces of any size; steps at 50 Hz out, the same for any pieces.

A step carries what the face needs of its 20 ms: the network's hidden state, how far the mouth may leave its rest, and
how strongly the syllable is accented. Every part looks ahead ``DELAY`` steps, so that all come out together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gsth import audio
from gsth.drive._speech_net import DELAY, STEPS_HZ, HiddenStream, SpeechNet

_BLOCK = 4
"""Columns that are worked on at a time: the level is looked at so often, whatever the pieces."""
_STEP_COLUMNS = audio.COLUMNS_HZ // STEPS_HZ
_ACTIVE_DB = 15.0
"""What is so far below the level of the speech, or farther, is breath and room."""
_BEHIND, _AHEAD, _RAMP = 10, 5, 3
"""Steps for which the mouth stays awake after speech, and before it, and half of the ramp in between."""
_GATE_DB = 22.0
_LEVEL_S = 4.0
"""The running level forgets with this time constant of speech."""
_PEAK_FALL = 10 ** (-0.1 * 1.5 / audio.COLUMNS_HZ)
"""The running peak falls by 1.5 dB a second."""
_ACCENT_DB = 7.0
"""A syllable that is so much louder than what was before it is fully accented."""
_ACCENT_BEHIND = 40


@dataclass(frozen=True, eq=False)
class Steps:
    """k steps of 20 ms."""

    hidden: Tensor
    """[k width]."""
    awake: Tensor
    """0 in silence and noise, 1 in speech, with ramps that begin before the speech, [k 1]."""
    accent: Tensor
    """0 to 1: how much louder the syllable is than the last second, [k 1]."""

    def joined(self) -> Tensor:
        """All side by side, [k width + 2]."""
        return torch.cat((self.hidden, self.awake, self.accent), 1)


class RunningLevel:
    """The level of the speech so far, dB of full scale: gated like ``audio.speech_level``, but causal."""

    def __init__(self) -> None:
        self._peak, self._mean, self._heard = 0.0, 0.0, 0
        self._recent: list[float] = []

    def push(self, powers: list[float]) -> float:
        """Hear the mean squares of some columns; returns the level now, -inf before the first speech."""
        for power in powers:
            self._recent = [*self._recent[-9:], power]
            self._peak = max(self._peak * _PEAK_FALL, sum(self._recent) / len(self._recent))
            if power > self._peak * 10 ** (-0.1 * _GATE_DB) and power > 10 ** (0.1 * audio.SILENT_DB):
                self._heard += 1
                share = 1 / min(self._heard, _LEVEL_S * audio.COLUMNS_HZ)
                self._mean += share * (power - self._mean)
        return 10 * math.log10(self._mean) if self._mean > 0 else -math.inf


class _Window:
    """A running function of steps: ``behind`` before and ``DELAY`` after each; it starts and ends in ``rest``."""

    def __init__(self, behind: int, rest: float) -> None:
        self._held = torch.full((behind,), rest)
        self.behind = behind

    def push(self, values: Tensor) -> Tensor:
        """Values [k] in; [k', behind + 1 + DELAY] out, a row for each step whose look-ahead is in."""
        joined = torch.cat((self._held, values))
        rows = len(joined) - self.behind - DELAY
        if rows <= 0:
            self._held = joined
            return joined.new_zeros(0, self.behind + 1 + DELAY)
        self._held = joined[rows:]
        return joined.unfold(0, self.behind + 1 + DELAY, 1)


class StepStream:
    """Samples to steps."""

    def __init__(self, net: SpeechNet, level_db: float | None = None) -> None:
        """Take the net and the level of the speech, dB of full scale; None estimates it while listening."""
        self._hidden = HiddenStream(net)
        self._level_db, self._running = level_db, RunningLevel()
        self._samples = torch.zeros(audio.MARGIN)
        self._columns = torch.empty(0, audio.BANDS + 1)
        self._odd = torch.empty(0)
        self._awake, self._accent = _Window(_BEHIND + _RAMP, 0.0), _Window(_ACCENT_BEHIND, -_ACTIVE_DB)
        self._none = Steps(torch.empty(0, net.size.width), torch.empty(0, 1), torch.empty(0, 1))
        self._taken = 0
        """Samples so far."""

    def push(self, samples: np.ndarray | Tensor) -> Steps:
        """Feed mono 16 kHz samples [s], s >= 0; the steps that became known."""
        new = audio.as_samples(samples)
        self._taken += len(new)
        return self._feed(new, last=False)

    def finish(self) -> Steps:
        """The remaining steps; silence follows the last sample."""
        whole = -(-self._taken // audio.HOP) * audio.HOP
        known = self._feed(torch.zeros(whole - self._taken + audio.MARGIN), last=True)
        rest = self._hidden.finish()
        quiet = torch.full((_STEP_COLUMNS * DELAY + len(self._odd),), -1e3)
        tail = self._envelopes(quiet)
        end = [torch.cat(pair) for pair in zip((known.awake, known.accent), tail, strict=True)]
        hidden = torch.cat((known.hidden, rest))
        return Steps(hidden, *(e[: len(hidden)] for e in end))

    def _feed(self, samples: Tensor, last: bool) -> Steps:
        self._samples = torch.cat((self._samples, samples))
        waiting = len(self._columns) + (len(self._samples) - audio.WINDOW) // audio.HOP + 1
        if waiting < _BLOCK and not last:  # small pieces cost little more than large ones
            return self._none
        power = audio.columns(self._samples)
        used = len(power) * audio.HOP
        own = self._samples[audio.MARGIN : audio.MARGIN + used].reshape(-1, audio.HOP).square().mean(1)
        self._samples = self._samples[used:]
        self._columns = torch.cat((self._columns, torch.cat((power, own[:, None]), 1)))
        ready = len(self._columns) if last else len(self._columns) // _BLOCK * _BLOCK
        blocks, self._columns = self._columns[:ready], self._columns[ready:]
        features, above = [power[:0]], [own[:0]]
        for block in blocks.split(_BLOCK if self._level_db is None else max(ready, 1)):
            level = self._running.push(block[:, -1].tolist()) if self._level_db is None else self._level_db
            quiet = not math.isfinite(level)
            silence = torch.full_like(block[:, :-1], audio.FLOOR_FEATURE)
            features.append(silence if quiet else audio.normalise(block[:, :-1], level))
            db = 10 * torch.log10(block[:, -1] + 1e-12)
            above.append(torch.full_like(db, -1e3) if quiet else torch.where(db > audio.SILENT_DB, db - level, -1e3))
        return Steps(self._hidden.push(torch.cat(features)), *self._envelopes(torch.cat(above)))

    def _envelopes(self, above_db: Tensor) -> tuple[Tensor, Tensor]:
        """Awake and accent [k 1] of the steps that became known by these columns' loudness over the level [c]."""
        joined = torch.cat((self._odd, above_db))
        even = len(joined) // _STEP_COLUMNS * _STEP_COLUMNS
        self._odd = joined[even:]
        steps = joined[:even].reshape(-1, _STEP_COLUMNS)
        active = (steps.amax(1) > -_ACTIVE_DB).float()
        rows = self._awake.push(active)
        # Widened, then smoothed; both inside the window of 13 steps before and 8 after.
        wide = rows.unfold(1, _BEHIND + 1 + _AHEAD, 1).amax(2)
        ramp = wide.mean(1, keepdim=True)
        loud = steps.mean(1).clamp(-_ACTIVE_DB, 20)
        rows = self._accent.push(loud)
        now = rows[:, _ACCENT_BEHIND - 4 : _ACCENT_BEHIND + 5].mean(1)
        accent = ((now - rows[:, : _ACCENT_BEHIND - 4].mean(1)) / _ACCENT_DB - 0.3).clamp(0, 1)
        return ramp * ramp * (3 - 2 * ramp), accent[:, None]


def steps_of(net: SpeechNet, samples: np.ndarray | Tensor, level_db: float | None = None) -> Steps:
    """Steps of a whole sound."""
    stream = StepStream(net, level_db)
    parts = (stream.push(samples), stream.finish())
    return Steps(*(torch.cat([getattr(p, n) for p in parts]) for n in ("hidden", "awake", "accent")))
