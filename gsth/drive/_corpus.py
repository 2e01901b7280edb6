"""Synthesised speech with known mouth movements, to train the prior on; every utterance follows from its seed."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gsth import audio, speech, voice
from gsth.drive._speech_net import NAMES, STEPS_HZ
from gsth.voice import Speaker

_WORDS = {
    "en": (
        "the of and to in is that it was for on are as with they be at this from have or by one had not but what all "
        "were when we there can an your which their said if do will each about how up out them then she many some so "
        "these would other into has more her two like him see time could no make than first been its who now people "
        "my made over did down only way find use may water long little very after words called just where most know "
        "get through back much before go good new write our used me man too any day same right look think also around "
        "another came come work three must because does part even place well such here take why help put different "
        "away again off went old number great tell men say small every found still between name should home big give "
        "air line set own under read last never us left end along while might next sound below saw something thought "
        "both few those always show large often together asked house world going want school important until form "
        "food keep children feet land side without boy once animal life enough took four head above kind began almost "
        "live page got earth need far hand high year mother light country father let night picture being study second "
        "soon story since white ever paper hard near sentence better best across during today however sure knew try "
        "told young sun thing whole hear example heard several change answer room sea against top turned learn point "
        "city play toward five himself usually money seen car morning body upon family later turn move face door cut "
        "done group true half red fish plants living black eat short united run book gave order open ground cold "
        "really table remember tree course front american space inside ago sad early learned brought close nothing "
        "though idea before lived became add become grow draw yet less wind behind cannot letter among able dog shown "
        "mean english rest perhaps certain six feel fire ready green yes built special ran full town complete oh "
        "person hot anything hold state list stood hundred ten fast felt kept notice voice probably area horse matter "
        "stand box start that's class piece surface river common stop talk whether fine"
    ),
    "de": (
        "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat "
        "dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis "
        "mehr durch man sein wurde sei prozent hatte kann gegen vom können schon wenn habe seine mark ihre dann unter "
        "wir soll ich eines jahr zwei jahren diese dieser wieder keine uhr seiner worden will zwischen immer millionen "
        "was sagte gibt alle seit muss wurden beim doch jetzt waren drei später menschen frage überall möglich größer"
    ),
    "es": (
        "de la que el en y a los se del las un por con no una su para es al lo como más pero sus le ha me si sin sobre "
        "este ya entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque qué sólo "
        "han yo hay vez puede todos así nos ni parte tiene él uno donde bien tiempo mismo ese ahora cada vida otro "
        "después te otros aunque esa eso hace otra gobierno tan durante siempre día tanto ella tres sí dijo sido gran "
        "país según menos mundo año antes estado contra sino forma caso nada hacer general estaba poco estos mayor"
    ),
    "fr": (
        "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont la mais comme "
        "on lui nous avec tout y aussi leur bien peut ces deux même ou où elle si ont fait être cette encore sans "
        "ses années très donc entre faire après sous temps pays vous ans depuis peu monde trois moins jours alors "
        "toujours autres contre chez homme vie était rien quand beaucoup jour petit grand jamais chose beau bon peur"
    ),
    "cmn": (
        "的 一 是 不 了 在 人 有 我 他 这 个 们 中 来 上 大 为 和 国 地 到 以 说 时 要 就 出 会 可 也 你 对 生 能 而 "
        "子 那 得 于 着 下 自 之 年 过 发 后 作 里 用 道 行 所 然 家 种 事 成 方 多 经 么 去 法 学 如 都 同 现 当 没 "
        "动 面 起 看 定 天 分 还 进 好 小 部 其 些 主 样 理 心 她 本 前 开 但 因 只 从 想 实 日 军 者 意 无 力 它 与"
    ),
    "it": (
        "di e il la che a per un in del è non sono si da una le con i dei nel alla più ha come della lo ma gli anche "
        "questo se al o delle ci mi quando molto tutto essere fare bene dove prima sempre tempo anno giorno vita uomo"
    ),
}
_SHARES = (4, 4, 4, 4, 4, 2)
"""Of the languages in what espeak-ng says."""
_SPELLING = {"en": "en-us en-gb en-gb-scotland en-gb-x-rp".split(), "fr": ["fr-fr"]}
_SYLLABLE = (
    "b p m f v d t n s z l r k g h j w ch sh th st tr br pl kw".split(),
    "a e i o u a e i o u ai ee oo ou".split(),
    ["", "", "", "", "n", "m", "s", "t", "l", "r", "k", "p"],
)
_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 klatt5 klatt6 Alex Alicia Andrea Andy Annie "
    "Denis Diogo Gene Henrique Hugo Lee Marco Mario Michael Mike Nguyen Reed Storm adam anika antonio aunty belinda "
    "benjamin boris caleb david ed edward grandma grandpa gustave ian iven john kaukovalta linda marcelo max michel "
    "miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac whisper croak"
).split()
HELD_OUT = frozenset(("f4", "m5", "Annie", "david", "klatt4", "sandro"))
"""Voice variants that training never hears; validation and tests use them."""


_DRY = 0.6
"""Share of crops that ``augmented`` leaves without a room."""
_EARLY, _TAIL = 2, 50
"""Columns from which a room's sound counts as late, and for which it is heard: half a second."""
_READ = 0.75
"""Share of sentences that people wrote, where there are some, against words at random."""
_SHORTEST, _LONGEST = 4, 20
"""Words of a sentence that is read."""
_ENGLISH = 0.7
"""Share of English in what Kokoro's voices say, where they speak more."""
_LOWER, _HIGHER = (0.55, 0.7, 0.85, 1.0, 1.0, 1.15), (0.8, 1.0, 1.2, 1.4, 1.7)
"""Factors on their pitch: the neural ones are high and soon sound unnatural above, Flite's are mostly men's."""


@dataclass(frozen=True)
class Sources:
    """Who speaks."""

    variants: tuple[str, ...]
    """Voice variants of espeak-ng."""
    natural: tuple[str, ...] = ()
    """Natural voices, English but for Kokoro's: ``hibari``, ``flite:NAME``, the files of Piper voices, or of Kokoro's
    model with ``@`` behind it, whose voices of one language are then mixed at random; one that stands there twice
    speaks twice as much."""
    natural_share: float = 0.65
    """Share of the utterances that natural voices speak, where there are some."""
    sentences: tuple[str, ...] = ()
    """English that somebody wrote: natural voices read it ``_READ`` of the time."""
    unheard: tuple[str, ...] = ()
    """Voices of Kokoro's that no mixture holds."""


@dataclass(frozen=True, eq=False)
class Example:
    """One utterance, ready to learn from."""

    features: Tensor
    """Log-mel at 100 Hz, silence around the speech, [2 k, 64]."""
    curves: Tensor
    """Mouth curves at 50 Hz in the order of ``NAMES``, [k, 20]."""


def sentence(rng: random.Random, language: str) -> str:
    """A few words: common words of the language mixed with invented ones, with a comma or full stop here and there."""
    words = _WORDS[language].split()
    out = []
    for _ in range(rng.randint(5, 14)):
        if language != "cmn" and rng.random() < 0.35:
            word = "".join("".join(rng.choice(part) for part in _SYLLABLE) for _ in range(rng.randint(1, 3)))
        else:
            word = rng.choice(words)
        out.append(word + (rng.choice((",", ".", ",", ";")) if rng.random() < 0.12 else ""))
    return " ".join(out)


def sentences(path: Path) -> tuple[str, ...]:
    """The sentences of an English text that are of a length to say in one breath or two."""
    plain = re.sub(r"[^\w\s.,;:!?'-]|_|\bCHAPTER\b.*", " ", path.read_text(encoding="utf-8", errors="replace"))
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.!?;:])\s|\n\s*\n", plain))
    return tuple(part for part in found if _SHORTEST <= len(part.split()) <= _LONGEST and not part.isupper())


_natural = cache(voice.find)


def _mixture(rng: random.Random, model: str, unheard: tuple[str, ...]) -> tuple[Speaker, str]:
    """Somebody new, and the language: Kokoro's voices are vectors, and what lies between them speaks too."""
    from gsth.voice import kokoro

    known: dict[str, list[str]] = {}
    for name in kokoro.names(Path(model)):
        language = kokoro.language(name).split("-")[0]
        if language in _WORDS and name not in unheard:
            known.setdefault(language, []).append(name)
    foreign = [language for language, names in known.items() if language != "en" for _ in names]
    abroad = foreign and ("en" not in known or rng.random() > _ENGLISH)
    language = rng.choice(foreign) if abroad else "en"
    speaker = kokoro.Config(f"{model}@{'+'.join(rng.choice(known[language]) for _ in range(3))}").build()
    return speaker, language


def _said(rng: random.Random, sources: Sources) -> speech.Utterance:
    """A random sentence by a random voice, in a random manner."""
    if sources.natural and rng.random() < sources.natural_share:
        name = rng.choice(sources.natural)
        mixed = name.endswith("@")
        speaker, language = _mixture(rng, name[:-1], sources.unheard) if mixed else (_natural(name), "en")
        read = language == "en" and sources.sentences and rng.random() < _READ
        text = rng.choice(sources.sentences) if read else sentence(rng, language)
        pitches = _HIGHER if name.startswith("flite") else _LOWER
        return speaker.say(text, rng.uniform(0.8, 1.4), rng.choice(pitches))
    language = rng.choices(tuple(_WORDS), _SHARES)[0]
    code = f"{rng.choice(_SPELLING.get(language, [language]))}+{rng.choice(sources.variants)}"
    return speech.synthesize(sentence(rng, language), code, rng.randint(110, 215), rng.randint(5, 95))


def _played(said: speech.Utterance, rng: random.Random) -> tuple[np.ndarray, list[speech.Phoneme]]:
    """An utterance at 16 kHz with its phonemes; pitch and vocal tract vary by resampling."""
    from scipy.signal import resample_poly

    # Played faster or slower: pitch and formants shift together, as in a shorter or longer vocal tract.
    speed = rng.choice((0.86, 0.9, 0.94, 1.0, 1.0, 1.06, 1.12, 1.18))
    up, down = audio.RATE, round(said.sample_rate * speed)
    shared = np.gcd(up, down)
    if max(up, down) // shared > 2000:  # keep the filter of resample_poly short; the error in speed is below 0.5 %
        up, down, shared = round(up / 100), round(down / 100), 1
    samples = resample_poly(said.samples, up // shared, down // shared).astype(np.float32)
    real = len(said.samples) / len(samples) * audio.RATE / said.sample_rate
    return samples, [speech.Phoneme(p.symbol, p.start_s / real, p.end_s / real) for p in said.phonemes]


def _room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The sound in a room: exponentially decaying noise as its impulse response (Polack's model)."""
    from scipy.signal import fftconvolve

    seconds = rng.uniform(0.12, 0.6)
    t = np.arange(int(seconds * audio.RATE)) / audio.RATE
    tail = rng.standard_normal(len(t)) * np.exp(-6.9 * t / seconds)
    tail *= rng.uniform(0.1, 0.9) * 1 / max(1e-9, float(np.sqrt((tail**2).sum())))
    tail[0] = 1.0
    return fftconvolve(samples, tail)[: len(samples)].astype(np.float32)


def _band_limited(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a small loudspeaker or a telephone: high-pass and low-pass at random corners."""
    from scipy.signal import butter, sosfilt

    corners = (rng.uniform(60, 350), rng.uniform(3300, 7500))
    sos = butter(2, corners, "bandpass", fs=audio.RATE, output="sos")
    return np.asarray(sosfilt(sos, samples), np.float32)


def _compressed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As broadcasters level speech: soft syllables come nearer to loud ones."""
    from scipy.ndimage import uniform_filter1d

    power = uniform_filter1d(samples.astype(np.float64) ** 2, int(rng.uniform(0.02, 0.2) * audio.RATE))
    level = np.sqrt(np.maximum(power, 0))  # the filter's running sum may end a hair below nothing
    floor = 0.02 * level.max() + 1e-9
    return (samples * ((level + floor) / level.max()) ** -rng.uniform(0.2, 0.6)).astype(np.float32)


def examples(seed: int, sources: Sources, copies: int = 1) -> list[Example]:
    """One utterance from its seed, played and recorded in ``copies`` ways; the same seed gives the same ones."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    said = _said(rng, sources)
    return [_recorded(said, rng, noise) for _ in range(copies)]


def _recorded(said: speech.Utterance, rng: random.Random, noise: np.random.Generator) -> Example:
    """The utterance as some room and microphone give it, silence around it, with the curves that belong to it."""
    samples, phonemes = _played(said, rng)
    before, after = (int(rng.uniform(0.1, 0.7) * audio.RATE) for _ in range(2))
    samples = np.pad(samples, (before, after))
    step = audio.RATE // STEPS_HZ
    samples = samples[: len(samples) // step * step]
    shift = before / audio.RATE
    moved = [speech.Phoneme(p.symbol, p.start_s + shift, p.end_s + shift) for p in phonemes]
    curves = speech.visemes(moved, STEPS_HZ, len(samples) // step, NAMES)
    if rng.random() < 0.3:
        samples = _compressed(samples, noise)
    if rng.random() < 0.45:
        samples = _room(samples, noise)
    if rng.random() < 0.25:
        samples = _band_limited(samples, noise)
    return Example(audio.log_mel(samples), curves)


def training_variants() -> tuple[str, ...]:
    """Voice variants to train on."""
    return tuple(v for v in _VARIANTS if v not in HELD_OUT)


def stretched(features: Tensor, factor: Tensor | float) -> Tensor:
    """Log-mel [b c 64] as from a vocal tract ``factor`` times as long (or [b 1 1] of them): frequencies are divided.

    The pitch moves along. What would come from above the highest band repeats it.
    """
    ends = 2595 * torch.log10(1 + torch.tensor((audio._LOW_HZ, audio._HIGH_HZ)) / 700)
    step = (ends[1] - ends[0]) / (audio.BANDS + 1)
    hz = 700 * (10 ** ((ends[0] + step * torch.arange(1, audio.BANDS + 1)) / 2595) - 1)
    position = ((2595 * torch.log10(1 + hz * factor / 700) - ends[0]) / step - 1).clamp(0, audio.BANDS - 1)
    low = position.floor().clamp_max(audio.BANDS - 2)
    part, index = position - low, low.long().expand(features.shape)
    return features.gather(-1, index) * (1 - part) + features.gather(-1, index + 1) * part


def reverberant(log: Tensor, seconds: Tensor, late: Tensor) -> Tensor:
    """Log mel power [b c 64] as heard in rooms.

    Late sound has no phase in common with the direct one, so powers add (Polack's model).

    Args:
        log: At 100 Hz.
        seconds: In which the room's sound falls by 60 dB, [b 1 1].
        late: Logarithm of its power over that of the direct sound, [b 1 1].
    """
    time = torch.arange(_TAIL)
    tail = torch.exp(-6 * np.log(10) / audio.COLUMNS_HZ / seconds[..., 0] * time) * (time >= _EARLY)
    tail = tail / tail.sum(1, keepdim=True) * torch.exp(late[..., 0])
    power = torch.exp(log).transpose(1, 2)
    size = power.shape[2] + _TAIL
    heard = torch.fft.irfft(torch.fft.rfft(power, size) * torch.fft.rfft(tail, size)[:, None], size)
    return torch.log(power + heard[..., : power.shape[2]].clamp_min(0)).transpose(1, 2)


def augmented(features: Tensor, generator: torch.Generator) -> Tensor:
    """A batch [b c 64] as other people, rooms and microphones would give it.

    Level +-5 dB, a smooth random colouring over the bands (microphone, voice), a vocal tract up to a quarter longer or
    two fifths shorter (men's to children's; synthetic voices are mostly men's), a room for some, steady noise 8 to
    50 dB below the speech, and bands that are missing (SpecAugment, Park et al. 2019).
    """
    batch, _, bands = features.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand((batch, 1, 1), generator=generator) * (high - low) + low

    def smooth(knots: int) -> Tensor:
        """A random curve over the bands, [b 1 bands]."""
        values = torch.randn(batch, 1, knots, generator=generator)
        return torch.nn.functional.interpolate(values, bands, mode="linear", align_corners=True)

    log = stretched(features, torch.exp(uniform(-0.5, 0.22))) * audio._SPREAD + audio._CENTRE
    dry = uniform(0.0, 1.0) < _DRY
    log = torch.where(dry, log, reverberant(log, uniform(0.2, 0.9), uniform(-7.0, 0.7)))
    log = log + smooth(7) * uniform(0.0, 2.0) + uniform(-1.15, 1.15)
    floor = 1.5 * smooth(5) - uniform(3.0, 11.0) - 3.0
    flicker = torch.randn(features.shape, generator=generator) * 0.5
    log = torch.logaddexp(log, floor + flicker).clamp_min(np.log(audio._FLOOR))
    out = (log - audio._CENTRE) / audio._SPREAD
    start = torch.randint(0, bands, (batch, 1, 1), generator=generator)
    width = torch.randint(0, 9, (batch, 1, 1), generator=generator)
    band = torch.arange(bands)
    missing = (band >= start) & (band < start + width)
    return torch.where(missing, out.mean((1, 2), keepdim=True), out)
