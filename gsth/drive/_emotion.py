"""Emotions as data: offsets of expressions, a gain of the mouth, a tilt of the head; blended over time.

Each is a file ``configs/emotion/NAME.yaml``. Whatever they do to the lips, speech stays readable: where the spoken
mouth is closed, the jaw's and lips' opening that an emotion would add is taken back by ``mouthClose``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gsth import _config
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.head import HeadModel

_BLEND_S = 0.4
"""One emotion passes into the next in this time."""
_CLOSED_M, _OPEN_M = 0.0008, 0.004
"""Lips that are parted less than the first count as closed, more than the second as open."""


@dataclass(frozen=True)
class Emotion:
    """What one emotion does at full intensity."""

    offsets: dict[str, float] = field(default_factory=dict)
    """Added to expressions, -1 to 1, by ARKit name; a name without its side means both sides."""
    mouth: float = 1.0
    """Factor on the movements of speech."""
    nod_rad: float = 0.0
    """Tilt of the head, rad; positive: down."""

    def __post_init__(self) -> None:
        for name, value in self.offsets.items():
            if not isinstance(value, (int, float)) or not -1 <= value <= 1:
                raise InputError(f"offsets: {name} is {value!r}; it must be -1 to 1")
        if not 0.3 <= self.mouth <= 2 or not -0.3 <= self.nod_rad <= 0.3:
            raise InputError(f"mouth {self.mouth} and nod_rad {self.nod_rad}: want 0.3 to 2 and -0.3 to 0.3")


@dataclass(frozen=True)
class Mood:
    """From a time on, an emotion."""

    start_s: float
    name: str
    """"" is none."""
    intensity: float = 1.0

    def __post_init__(self) -> None:
        if self.name and self.name not in library():
            raise InputError(f"there is no emotion {self.name!r}; there are: {', '.join(library())}")
        if not 0 <= self.intensity <= 1:
            raise InputError(f"intensity of {self.name!r} is {self.intensity}; it must be 0 to 1")


@cache
def library() -> Mapping[str, Emotion]:
    """All emotions by name."""
    return _config.presets(Emotion, "emotion")


def moods(text: str) -> tuple[Mood, ...]:
    """Parse what the command line takes: ``happy``, ``happy:0.5``, ``calm, happy:0.8@2.5, none@6`` (from second 6 on).

    Raises:
        InputError: An unknown emotion, or a number that is none or out of range.
    """
    out = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, start = part.partition("@")
        name, _, intensity = name.partition(":")
        try:
            numbers = float(start or 0), float(intensity or 1)
        except ValueError as e:
            raise InputError(f"{part!r} is no emotion; want NAME, NAME:INTENSITY or NAME:INTENSITY@SECONDS") from e
        out.append(Mood(numbers[0], "" if name == "none" else name, numbers[1]))
    return tuple(sorted(out, key=lambda m: m.start_s))


@dataclass(frozen=True, eq=False)
class Feeling:
    """What a head shows of some moods over time."""

    gap: Tensor
    """How much each expression parts the lips, m, [e]."""
    starts: tuple[float, ...]
    offsets: Tensor
    """Of each mood, [n e]; the first is none."""
    mouths: Tensor
    """[n]."""
    nods: Tensor
    """[n]."""
    close: int
    """Index of ``mouthClose``."""

    @classmethod
    def of(cls, moods: Sequence[Mood], head: HeadModel, gap: Tensor) -> Feeling:
        """Prepare moods (in time order) for a head.

        Raises:
            InputError: The head has no expression that an emotion moves.
        """
        names = list(head.expression_names)
        rows = [(0.0, torch.zeros(len(names)), 1.0, 0.0)]
        for mood in moods:
            if not mood.name and len(rows) == 1:  # none after none
                continue
            emotion = library()[mood.name] if mood.name else Emotion()
            row = torch.zeros(len(names))
            for name, value in emotion.offsets.items():
                sides = [n for n in (name, name + "Left", name + "Right") if n in names]
                if not sides:
                    raise InputError(f"configs/emotion/{mood.name}.yaml: head {head.id} has no expression {name!r}")
                row[[names.index(n) for n in sides]] = value * mood.intensity
            mouth = 1 + (emotion.mouth - 1) * mood.intensity
            rows.append((mood.start_s, row, mouth, emotion.nod_rad * mood.intensity))
        starts, offsets, mouths, nods = zip(*rows, strict=True)
        return cls(
            gap, starts, torch.stack(offsets), torch.tensor(mouths), torch.tensor(nods), names.index("mouthClose")
        )

    def _shares(self, times: Tensor) -> Tensor:
        """How much of each mood there is at some times [t], [t n]; they sum to 1."""
        if len(self.starts) == 1:  # the usual case, of which live speech asks for every frame
            return torch.ones(len(times), 1)
        began = torch.tensor([-10.0, *self.starts[1:]])
        # What begins at 0 or before is there from the start.
        ramp = ((times[:, None] - began) / _BLEND_S + 0.5).clamp(0, 1)
        ramp = torch.where(began <= 0, torch.ones_like(ramp), ramp * ramp * (3 - 2 * ramp))
        left = torch.cat((1 - ramp[:, 1:], torch.ones(len(times), 1)), 1)
        return ramp * left.flip(1).cumprod(1).flip(1)

    def mouth(self, times: Tensor) -> Tensor:
        """Factor on the movements of speech at some times [t], [t 1]."""
        return (self._shares(times) @ self.mouths)[:, None]

    def nod(self, times: Tensor) -> Tensor:
        """Tilt of the head, rad, [t]."""
        return self._shares(times) @ self.nods

    def shown(self, expr: Tensor, times: Tensor) -> Tensor:
        """Spoken expressions [t e] at some times [t] with the emotions on top, [t e]."""
        if len(self.starts) == 1:
            return expr.clamp(0, 1)
        felt = (expr + self._shares(times) @ self.offsets).clamp(0, 1)
        spoken = expr @ self.gap
        closed = ((_OPEN_M - spoken) / (_OPEN_M - _CLOSED_M)).clamp(0, 1)
        surplus = (felt @ self.gap - spoken).clamp_min(0) * closed
        felt[:, self.close] = (felt[:, self.close] - surplus / self.gap[self.close]).clamp(0, 1)
        return felt
