"""What a speaker knows besides the sound: which phoneme comes when, where the emphasis lies, and the mood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gsth.drive._emotion import Mood
from gsth.speech import Phoneme

_EDGE_S = 0.08


@dataclass(frozen=True)
class Emphasis:
    """A stretch of speech that is said with more or less effort."""

    start_s: float
    end_s: float
    effort: float
    """Factor on the movements of the mouth."""


@dataclass(frozen=True)
class Cues:
    """All of it for one sound."""

    phonemes: tuple[Phoneme, ...] = ()
    """In time order; empty where they are not known."""
    emphases: tuple[Emphasis, ...] = ()
    moods: tuple[Mood, ...] = ()
    """In time order."""

    def joined(self, later: Cues) -> Cues:
        """These and later ones."""
        phonemes, emphases = self.phonemes + later.phonemes, self.emphases + later.emphases
        return Cues(phonemes, emphases, self.moods + later.moods)

    def shifted(self, seconds: float) -> Cues:
        """The same, later."""
        return Cues(
            tuple(Phoneme(p.symbol, p.start_s + seconds, p.end_s + seconds) for p in self.phonemes),
            tuple(Emphasis(e.start_s + seconds, e.end_s + seconds, e.effort) for e in self.emphases),
            tuple(Mood(m.start_s + seconds, m.name, m.intensity) for m in self.moods),
        )


def effort(emphases: Sequence[Emphasis], times: Tensor) -> Tensor:
    """Factor on the mouth's movements at some times [t], [t 1]; smooth at the edges of each stretch."""
    out = torch.ones(len(times))
    for e in emphases:
        inside = torch.minimum(times - e.start_s, e.end_s - times) / _EDGE_S + 0.5
        out = out * (1 + (e.effort - 1) * inside.clamp(0, 1))
    return out[:, None]
