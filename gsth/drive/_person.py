"""How one person speaks: the prior's network with the person's own last layer, rest and span.

The prior hears, the person's last layer answers in their own tracked expressions. It is a maximum a posteriori linear
regression from the network's hidden states: the prior's layer, scaled to the person's span, is the mean, and how far
the clip may pull away from it is chosen by cross-validation on the clip, so a clip that teaches nothing changes
nothing. Closures (p b m) end in the person's own closed lips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsth import audio, speech
from gsth.drive import _speech_net
from gsth.drive._config import SpeechConfig
from gsth.drive._speech_net import NAMES, STEPS_HZ, SpeechNet
from gsth.errors import ArtifactError, InputError
from gsth.head import HeadModel

if TYPE_CHECKING:
    from gsth.avatar import Avatar

LOWER_FACE = ("jaw", "mouth", "tongue", "cheek", "nose")
"""Expressions whose names begin so belong to speech; lids, brows and gaze do not."""
_LIP_LANDMARKS = (13, 14)
"""MediaPipe's middle of the inner upper and lower lip."""
_PRESS = NAMES.index("mouthPressLeft")
"""Moved by nothing but closures, so it says how closed the prior wants the lips."""
_KNOWN_CLOSURE = (0.50, 0.98)
"""``speech.NET.closure`` where phonemes are known: exact curves reach a full closure, the network's do not."""
_FOLDS = 4
_INDIFFERENT = 0.05
"""Shares of variance that differ by less count as equal."""
_BLOCK_ROWS = 12
"""Speech frames that count as one observation, about half a second."""
_SURE = 2.33
"""Standard errors by which the best of some openings must be better: one chance in a hundred each of being wrong."""
_MOVES = 0.02
"""An expression with a smaller standard deviation is at rest."""
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, math.inf)
"""Candidates for the pull towards the prior, in units of the number of frames; inf is the prior itself."""
_SPAN = (0.5, 2.0)
"""Limits of the factor between the person's mouth opening and the prior's."""
_GIVEN_BACK = (0.6, 1.6)
"""Limits of the same factor after learning."""
_LEAST_BELIEF = 0.65
"""In the person's span, however little their lips follow the sound: they do open them."""
_ROUNDS = 4
_LAG_S = 0.2
"""Largest offset between sound and picture that is looked for."""
_MIN_CORRELATION = 0.2
_MIN_FRAMES = 40
"""Speech frames below which nothing is learned from a clip."""


@dataclass(frozen=True, eq=False)
class Voice:
    """What turns sound into one person's expressions."""

    net: SpeechNet
    weight: Tensor
    """From hidden states to offsets from rest, [m width]."""
    bias: Tensor
    """[m]."""
    rest: Tensor
    """The person's face at rest, lips closed, all expressions of the head, [e]."""
    moved: Tensor
    """Which expressions the m rows move, int64, [m]."""
    closed: Tensor
    """Offsets from rest in a full closure, [m]."""
    rows: Tensor
    """Which of the m rows are those of ``NAMES``, int64, [20]."""
    evidence: Mapping[str, float]
    """``correlation`` of the general model's mouth opening with the tracked one, ``chance`` (what unrelated sound
    would reach), ``lag_frames``, ``learned`` (1: the last layer is the person's own), ``span``."""

    def expressions(self, hidden: Tensor, amount: float | Tensor = 1.0, known: Tensor | None = None) -> Tensor:
        """Expressions [k e] of hidden states [k width].

        Args:
            hidden: Of the network.
            amount: A number or [k 1]; scales the way from rest.
            known: The general curves [k 20] that are right for this time, where the phonemes are known; what the
                network is off by is then taken out, so closures are exact whatever the voice.
        """
        moved = hidden @ self.weight.T + self.bias
        general, (begin, met) = self.net.curves(hidden), speech.NET.closure
        if known is not None:
            moved[:, self.rows] += (known - general) * self.evidence["span"]
            general, (begin, met) = known, _KNOWN_CLOSURE
        press = general[:, _PRESS : _PRESS + 1] / _full_press()
        shut = ((press - begin) / (met - begin)).clamp(0, 1)
        shut = shut * shut * (3 - 2 * shut)
        by = amount * (moved + (self.closed - moved) * shut)
        # A product with zeros and ones puts each in its place, and exports to ONNX, which indexed sums do not.
        places = torch.nn.functional.one_hot(self.moved, len(self.rest)).to(by.dtype)
        return (self.rest + by @ places).clamp(0, 1)

    def tensors(self) -> dict[str, Tensor]:
        """All of it as arrays, for an avatar's file."""
        own = {n: getattr(self, n).contiguous() for n in ("weight", "bias", "rest", "moved", "closed")}
        own["evidence"] = torch.tensor([self.evidence[n] for n in _EVIDENCE], dtype=torch.float64)
        return own | {f"net.{n}": v for n, v in _speech_net.pack(self.net).items()}


_EVIDENCE = ("correlation", "chance", "lag_frames", "learned", "span")


@cache
def _closure_curves() -> Tensor:
    """The prior's own curves in the middle of an m, [20]."""
    said = [speech.Phoneme(s, a, b) for s, a, b in (("", 0.0, 0.4), ("m", 0.4, 0.6), ("", 0.6, 1.0))]
    return speech.visemes(said, STEPS_HZ, STEPS_HZ, NAMES)[STEPS_HZ // 2]


@cache
def _full_press() -> float:
    return float(_closure_curves()[_PRESS])


def opening_weights(head: HeadModel) -> Tensor:
    """How much each expression parts the lips of the neutral head, m, [e]: the opening is linear in expressions."""
    moved = head.landmarks(head.expr_basis)
    upper, lower = (moved[:, i, 1] for i in _LIP_LANDMARKS)
    return lower - upper


def check(avatar: Avatar) -> None:
    """Raises InputError where the avatar's head model lacks the ARKit mouth expressions."""
    if missing := [n for n in NAMES if n not in avatar.head.expression_names]:
        raise InputError(
            f"head {avatar.head.id} has no expression {missing[0]!r}; speech needs the ARKit mouth shapes, "
            "train the avatar on the built-in head"
        )


def general_voice(avatar: Avatar) -> Voice:
    """The prior in the person's rest pose and span; uses no sound.

    Raises:
        InputError: The avatar's head model lacks the ARKit mouth expressions.
    """
    check(avatar)
    names = list(avatar.head.expression_names)
    net = _speech_net.prior()
    expr = avatar.motion.expr[: max(avatar.source.train_frames, 1)].float()
    opened = expr @ opening_weights(avatar.head)
    moved = torch.tensor([i for i, n in enumerate(names) if n.startswith(LOWER_FACE)])
    rows = _rows(moved, names)
    weight, bias, closed = (torch.zeros(len(moved), *shape) for shape in ((net.size.width,), (), ()))
    weight[rows], bias[rows], closed[rows] = net.head.weight, net.head.bias, _closure_curves()
    evidence = dict.fromkeys(_EVIDENCE, 0.0) | {"span": 1.0}
    return _resting(Voice(net, weight, bias, rest_of(expr, opened, names), moved, closed, rows, evidence))


def _rows(moved: Tensor, names: list[str]) -> Tensor:
    """Where the expressions of ``NAMES`` are among the moved ones."""
    return torch.tensor([moved.tolist().index(names.index(n)) for n in NAMES])


def rest_of(expr: Tensor, opened: Tensor, names: list[str]) -> Tensor:
    """The face at rest [e]: typical of the frames in which the lips just touch, eyes open.

    Not of those in which they are nearest: a p or b presses them, and a mouth at rest does not.
    """
    count = max(1, math.ceil(0.15 * len(expr)))
    rest = expr[opened.abs().argsort()[:count]].median(0).values
    lids = [i for i, n in enumerate(names) if n.startswith("eyeBlink")]
    rest[lids] = expr[:, lids].quantile(0.3, dim=0)
    # Tracked noise must not leave the mouth ajar: what parts the lips has no place in a closed mouth.
    seal = torch.minimum(rest[names.index("jawOpen")], rest[names.index("mouthClose")])
    rest[names.index("jawOpen")] = rest[names.index("mouthClose")] = seal
    rest[names.index("tongueOut")] = 0
    return rest


def voice_of(avatar: Avatar) -> Voice:
    """The avatar's own voice where one was learned, else the general one.

    Raises:
        ArtifactError: The stored weights are incomplete or of another kind.
        InputError: The avatar's head model lacks the ARKit mouth expressions.
    """
    check(avatar)
    if not avatar.speech:
        return general_voice(avatar)
    arrays = dict(avatar.speech)
    try:
        net = _speech_net.unpack({n[len("net.") :]: v for n, v in arrays.items() if n.startswith("net.")})
        own = {n: arrays[n] for n in ("weight", "bias", "rest", "moved", "closed")}
        evidence: dict[str, float] = dict(zip(_EVIDENCE, arrays["evidence"].tolist(), strict=True))
        rows = _rows(own["moved"], list(avatar.head.expression_names))
    except (KeyError, RuntimeError, ValueError) as e:
        raise ArtifactError(f"the avatar's speech weights cannot be used ({e}); train the avatar again") from e
    return Voice(net, **own, rows=rows, evidence=evidence)


@dataclass(frozen=True, eq=False)
class _Lesson:
    """The clip's training part as regression data; rows are frames in time order."""

    hidden: Tensor
    """[t width]."""
    wanted: Tensor
    """Tracked offsets from rest, [t m]."""
    use: Tensor
    """bool: the face was found and someone speaks, [t]."""
    gap: Tensor
    """Opening weights of the m expressions, m, [m]."""
    lips: Tensor
    """The same of all expressions, m, [e]."""


def fit_speech(avatar: Avatar, sound: np.ndarray, config: SpeechConfig | None = None) -> Mapping[str, Tensor]:
    """Learn how the person speaks from the training part of their clip.

    Only frames before ``avatar.source.train_frames`` are used, and only the sound up to their end. Where the lips do
    not follow the sound better than chance (another's voice, music, silence), the general model is kept, with the
    person's rest; ``describe`` says which it was.

    Args:
        avatar: Its motion, source and head are used.
        sound: The clip's sound from picture time 0, mono 16 kHz, [samples].
        config: How to learn.

    Returns:
        Arrays for ``Avatar.speech``.

    Raises:
        InputError: The sound is not mono 16 kHz floats, or the head model has no ARKit mouth shapes.
    """
    config = config or SpeechConfig()
    voice = general_voice(avatar)
    count, fps = avatar.source.train_frames, avatar.source.fps
    ids = avatar.source.frame_ids[:count].long()
    heard = audio.as_samples(sound)
    if len(ids) < _MIN_FRAMES or not math.isfinite(audio.speech_level(heard)):
        return voice.tensors()
    heard = heard[: round((int(ids[-1]) + 1) / fps * audio.RATE)]
    pictures = int(ids[-1]) + 1
    steps = _speech_net.hidden_states(voice.net, audio.log_mel(heard))
    hidden = _speech_net.at_pictures(steps, fps, pictures)
    speaking = audio.activity(heard, fps, pictures) > 0.5
    use = speaking[ids] & avatar.source.found[:count].bool()
    if int(use.sum()) < _MIN_FRAMES:
        return voice.tensors()
    wanted = avatar.motion.expr[:count][:, voice.moved] - voice.rest[voice.moved]
    lips = opening_weights(avatar.head)
    gap = lips[voice.moved]
    correlation, lag = _best_lag(voice, hidden, _Lesson(hidden[ids], wanted, use, gap, lips), ids, fps)
    lesson = _Lesson(hidden[(ids - lag).clamp(0, pictures - 1)], wanted, use, gap, lips)
    chance = _chance(_said(voice, lesson.hidden) @ gap, wanted @ gap, use)
    found = {"correlation": correlation, "chance": chance, "lag_frames": float(lag)}
    voice = _spanned(replace(voice, evidence={**voice.evidence, **found}), lesson)
    if not config.personal or correlation < max(_MIN_CORRELATION, chance):
        return voice.tensors()
    return _learned(voice, lesson).tensors()


def describe(weights: Mapping[str, Tensor]) -> str:
    """One sentence for the user on what ``fit_speech`` found."""
    e = dict(zip(_EVIDENCE, weights["evidence"].tolist(), strict=True))
    if e["learned"]:
        return f"learned the person's speech (the lips follow the sound: r = {e['correlation']:.2f})"
    return (
        f"the lips do not follow the clip's sound (r = {e['correlation']:.2f}, chance reaches {e['chance']:.2f}), so "
        "the avatar will speak with the general voice model"
    )


def _said(voice: Voice, hidden: Tensor) -> Tensor:
    """Offsets from rest by the last layer alone, [t m]."""
    return hidden @ voice.weight.T + voice.bias


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r; 0 where a series does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def _best_lag(voice: Voice, hidden: Tensor, lesson: _Lesson, ids: Tensor, fps: float) -> tuple[float, int]:
    """Best correlation of heard and tracked opening, and by how many frames the picture is late."""
    seen = lesson.wanted @ lesson.gap
    heard = _said(voice, hidden) @ lesson.gap
    reach = max(1, round(_LAG_S * fps))
    found = []
    for lag in range(-reach, reach + 1):
        at = (ids - lag).clamp(0, len(hidden) - 1)
        found.append((_correlation(heard[at][lesson.use], seen[lesson.use]), -abs(lag), lag))
    best = max(found)
    return best[0], best[2]


def _chance(heard: Tensor, seen: Tensor, use: Tensor) -> float:
    """What unrelated sound would reach: the 95th percentile of correlations under large circular shifts."""
    t = len(seen)
    shifts = range(t // 8, t - t // 8)
    values = [_correlation(heard.roll(s)[use], seen[use]) for s in shifts]
    return float(np.quantile(values, 0.95))


def _opened(voice: Voice, lesson: _Lesson) -> float:
    """How widely the mouth's opening varies while someone speaks, m; closures and ends of expressions included."""
    return float((voice.expressions(lesson.hidden) @ lesson.lips)[lesson.use].std().clamp_min(1e-9))


def _believed(voice: Voice, lesson: _Lesson) -> float:
    """How widely the mouth should vary, m: the person's spread, as far as their lips are known to follow the sound.

    Where they hardly do, most of the spread is breath, tracking noise or another's words, and to match it would blow
    up what the network is off by; so the general model's spread is moved towards it by a power of the correlation.
    """
    own, seen = _opened(voice, lesson), float((lesson.wanted @ lesson.gap)[lesson.use].std())
    ratio = min(max(seen / own, _SPAN[0]), _SPAN[1])
    return own * ratio ** min(max(voice.evidence["correlation"], _LEAST_BELIEF), 1.0)


def _wider(voice: Voice, factor: float) -> Voice:
    """The voice with all its movements scaled."""
    return replace(voice, weight=voice.weight * factor, bias=voice.bias * factor)


def _parted(voice: Voice, factor: float, gap: Tensor) -> Voice:
    """The voice with the opening of its lips scaled, by the smallest change of its expressions."""
    along = (factor - 1) * gap / gap.square().sum()
    weight, bias = voice.weight + along[:, None] * (gap @ voice.weight), voice.bias + along * (gap @ voice.bias)
    return replace(voice, weight=weight, bias=bias)


def _fitting(scaled: Callable[[float], Voice], lesson: _Lesson, wanted: float, limits: tuple[float, float]) -> float:
    """Factor with which the scaled voice's opening varies so widely; closures are not scaled, so it takes rounds."""
    factor = 1.0
    for _ in range(_ROUNDS):
        heard = _opened(scaled(factor), lesson)
        factor = min(max(factor * wanted / heard, limits[0]), limits[1])
    return factor


def _spanned(voice: Voice, lesson: _Lesson) -> Voice:
    """The voice whose mouth opens about as far as the person's."""
    span = _fitting(lambda factor: _wider(voice, factor), lesson, _believed(voice, lesson), _SPAN)
    return _resting(replace(_wider(voice, span), evidence={**voice.evidence, "span": span}))


def _learned(mean: Voice, lesson: _Lesson) -> Voice:
    """The spanned voice with its last layer fitted to the lesson, as far from it as unseen parts of the clip allow.

    The opening of the lips and what else moves are judged apart: an opening that is not surely better on parts that
    were left out stays exactly the general one.
    """
    rows = lesson.use.nonzero()[:, 0]
    said = {penalty: _unseen(mean, lesson, rows, penalty) for penalty in _PENALTIES}
    scores = {p: _explained(s, lesson.wanted[rows]) for p, s in said.items()}
    # Scores of one short clip are uncertain: what is hardly better than more of the prior is not better.
    good = max(scores.values()) - _INDIFFERENT
    fitted = _posterior(mean, lesson, rows, max(p for p in _PENALTIES if scores[p] >= good))
    opened = {p: s @ lesson.gap for p, s in said.items()}
    seen = (lesson.wanted @ lesson.gap)[rows]
    best = max(_PENALTIES, key=lambda p: (_correlation(opened[p], seen), p))
    proven = _surely_better(opened[best], opened[math.inf], seen)
    parting = _posterior(mean, lesson, rows, best if proven else math.inf)
    fitted = _opening_as(fitted, parting, lesson.gap)
    # Least squares pulls towards the mean; give the opening back its span.
    gain = _fitting(lambda factor: _parted(fitted, factor, lesson.gap), lesson, _opened(mean, lesson), _GIVEN_BACK)
    return _resting(replace(_parted(fitted, gain, lesson.gap), evidence={**mean.evidence, "learned": 1.0}))


def _unseen(mean: Voice, lesson: _Lesson, rows: Tensor, penalty: float) -> Tensor:
    """What layers fitted to the other folds say in each fold of the rows: offsets from rest, [rows m]."""
    held = [rows[len(rows) * k // _FOLDS : len(rows) * (k + 1) // _FOLDS] for k in range(_FOLDS)]
    fitted = [_posterior(mean, lesson, rows[~torch.isin(rows, part)], penalty) for part in held]
    return torch.cat([_said(voice, lesson.hidden[part]) for voice, part in zip(fitted, held, strict=True)])


def _explained(said: Tensor, wanted: Tensor) -> float:
    """Mean share of the variance explained of the curves that move."""
    moving = wanted.std(0) > _MOVES
    if not bool(moving.any()):
        return 0.0
    missed = (said - wanted)[:, moving].square().mean(0) / wanted[:, moving].var(0)
    return float((1 - missed).clamp(-1, 1).mean())


def _surely_better(new: Tensor, old: Tensor, seen: Tensor) -> bool:
    """Whether a series agrees better with what was seen by more than its uncertainty; all [rows].

    Pearson's r is a mean over rows, and so is a difference of two; its standard error is that of blocks of rows, since
    neighbours resemble each other.
    """
    new, old, seen = ((x - x.mean()) / x.std().clamp_min(1e-9) for x in (new, old, seen))
    blocks = torch.stack([part.mean() for part in ((new - old) * seen).tensor_split(max(2, len(seen) // _BLOCK_ROWS))])
    return bool(blocks.mean() > _SURE * blocks.std() / len(blocks) ** 0.5)


def _opening_as(voice: Voice, other: Voice, gap: Tensor) -> Voice:
    """The voice with its lips parted as the other's, by the smallest change of its expressions."""
    along = gap / gap.square().sum()
    weight = voice.weight + along[:, None] * (gap @ (other.weight - voice.weight))
    return replace(voice, weight=weight, bias=voice.bias + along * (gap @ (other.bias - voice.bias)))


def _posterior(mean: Voice, lesson: _Lesson, rows: Tensor, penalty: float) -> Voice:
    """argmin over W of sum |W x - y|^2 + penalty rows |W - W_mean|^2, with silence held at rest."""
    if math.isinf(penalty):
        return mean
    quiet = _silence(mean.net)
    x = torch.cat((lesson.hidden[rows], quiet.repeat(len(rows) // 4, 1)))
    x = torch.cat((x, torch.ones(len(x), 1)), 1).double()
    start = torch.cat((mean.weight, mean.bias[:, None]), 1).double()
    left = torch.cat((lesson.wanted[rows], torch.zeros(len(x) - len(rows), len(mean.moved)))).double() - x @ start.T
    gram = x.T @ x + penalty * len(rows) * torch.eye(x.shape[1], dtype=x.dtype)
    fitted = (start + torch.linalg.solve(gram, x.T @ left).T).float()
    return replace(mean, weight=fitted[:, :-1].contiguous(), bias=fitted[:, -1].contiguous())


def _resting(voice: Voice) -> Voice:
    """The voice with its bias set so that silence gives exactly the rest pose."""
    return replace(voice, bias=-(_silence(voice.net) @ voice.weight.T)[0])


def _silence(net: SpeechNet) -> Tensor:
    """What the network thinks in silence, [1 width]."""
    features = torch.full((audio.COLUMNS_HZ, audio.BANDS), audio.FLOOR_FEATURE)
    return _speech_net.hidden_states(net, features)[STEPS_HZ // 2 : STEPS_HZ // 2 + 1]
