"""Sound to features: log-mel energies that neither loudness nor microphone gain changes, and where speech is.

Column j of the 100 Hz features covers [j, j + 1) x 10 ms; its 25 ms window is centred on it, so nothing later than
7.5 ms after its end is heard. Features at a video's rate are averages over the picture's time: row i covers
[i / fps, (i + 1) / fps) and lines up with picture i.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gsth.errors import InputError

RATE = 16_000
"""Sample rate of everything here, Hz."""
HOP = 160
"""Samples of one column: 10 ms."""
WINDOW = 400
"""Samples that one column listens to: 25 ms."""
MARGIN = (WINDOW - HOP) // 2
"""Samples that a column hears before and after its own 10 ms."""
COLUMNS_HZ = RATE // HOP
BANDS = 64
_FFT = 512
_LOW_HZ, _HIGH_HZ = 60.0, 7600.0
_PRE_EMPHASIS = 0.97
_FLOOR = 1e-5
"""What is 50 dB below the speech in a band counts as nothing."""
_CENTRE, _SPREAD = -5.0, 3.0
"""Mean and standard deviation, about, of log-mel energies of speech at its own level."""
SILENT_DB = -65.0
"""Sound that never rises above this (dB of full scale) is silence; 16 bit recordings of nothing lie below it."""
_GATE_DB = 22.0
"""Columns within this of the loudest 100 ms are active; breath and room noise of a pause lie farther down."""


def mel_filters(bands: int = BANDS) -> Tensor:
    """Triangular filters of equal area on the mel scale over an FFT power spectrum, with pre-emphasis, [257 bands]."""
    return _filters(bands)


@cache
def _filters(bands: int) -> Tensor:
    hz = torch.linspace(0, RATE / 2, _FFT // 2 + 1, dtype=torch.float64)
    ends = 2595 * torch.log10(1 + torch.tensor((_LOW_HZ, _HIGH_HZ), dtype=torch.float64) / 700)
    edges = 700 * (10 ** (torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64) / 2595) - 1)
    rise = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rise, fall).clamp_min(0)
    triangles = triangles / triangles.sum(0).clamp_min(1e-9)
    tilt = 1 + _PRE_EMPHASIS**2 - 2 * _PRE_EMPHASIS * torch.cos(2 * math.pi * hz / RATE)
    return (triangles * tilt[:, None]).float()


def as_samples(samples: np.ndarray | Tensor, sample_rate: int = RATE) -> Tensor:
    """Mono sound as a float32 tensor [s].

    Raises:
        InputError: It is not one channel, not at 16 kHz, or holds values that are not finite.
    """
    tensor = torch.as_tensor(samples, dtype=torch.float32)
    if sample_rate != RATE:
        raise InputError(f"sound at {sample_rate} Hz; want {RATE} Hz: gsth.media.sound(path, {RATE}) resamples")
    if tensor.ndim != 1:
        raise InputError(f"sound of shape {list(tensor.shape)}; want one channel, [samples]")
    if not bool(torch.isfinite(tensor).all()):
        raise InputError("sound holds values that are not finite; decode the file again")
    return tensor


def columns(padded: Tensor) -> Tensor:
    """Mel power of every whole 10 ms, [columns bands].

    Args:
        padded: Samples [s] that begin ``MARGIN`` before the first column; trailing samples that do not complete a
            window are left out.
    """
    if len(padded) < WINDOW:
        return padded.new_zeros(0, BANDS)
    windows = padded.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=padded.dtype, device=padded.device)
    power = torch.fft.rfft(windows, _FFT).abs().square()
    # Normalised by the window's energy, so that a column's sum over frequency is a mean square.
    return power @ _filters(BANDS).to(padded.device) / (0.375 * WINDOW)


def _loudness_db(samples: Tensor) -> Tensor:
    """Level of each whole 10 ms, dB of full scale, [columns]."""
    count = len(samples) // HOP
    return _smooth_db(samples[: count * HOP].reshape(count, HOP).square().mean(1))


def _smooth_db(power: Tensor) -> Tensor:
    """Mean squares of each 10 ms as dB of full scale, over three of them, [columns]."""
    if len(power) == 0:
        return power
    smooth = torch.nn.functional.avg_pool1d(power[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    return 10 * torch.log10(smooth + 1e-12)


def _loudest_db(db: Tensor) -> float:
    """Level of the loudest 100 ms, so that one word in a long silence counts and a click does not; -inf for nothing."""
    if len(db) == 0:
        return -math.inf
    mean = torch.nn.functional.avg_pool1d(10 ** (db / 10)[None, None], min(10, len(db)), 1)
    return float(10 * torch.log10(mean.max()))


def speech_level(samples: np.ndarray | Tensor) -> float:
    """How loud the speech in a sound is: the gated level over its active parts, dB of full scale.

    Pauses do not lower it (as in ITU-T P.56 and EBU R 128: a gate relative to the loud parts). Twice the amplitude
    gives 6.02 dB more, exactly. -inf where the whole sound is silence (below ``SILENT_DB``) or shorter than 10 ms.
    """
    return _gated(_loudness_db(as_samples(samples)))


def measured(pieces: Iterable[np.ndarray]) -> tuple[float, int]:
    """``speech_level`` and length, samples, of a sound that comes in pieces of any length; keeps none of them."""
    powers, left, total = [torch.zeros(0)], torch.zeros(0), 0
    for piece in pieces:
        joined = torch.cat((left, as_samples(piece)))
        whole = len(joined) // HOP * HOP
        powers.append(joined[:whole].reshape(-1, HOP).square().mean(1))
        left, total = joined[whole:], total + len(piece)
    return _gated(_smooth_db(torch.cat(powers))), total


def _gated(db: Tensor) -> float:
    """Mean level of the active ones among 10 ms levels, dB; -inf where none is."""
    if (loud := _loudest_db(db)) < SILENT_DB:
        return -math.inf
    active = db[db > loud - _GATE_DB]
    return float(10 * torch.log10((10 ** (active / 10)).mean()))


def activity(samples: np.ndarray | Tensor, fps: float, frames: int | None = None) -> Tensor:
    """Share of each picture's time in which the sound is active, 0 to 1, [t]; by energy, gated like ``speech_level``.

    Gaps under 150 ms (closures inside words) count as active. A sound that is all silence is active nowhere.
    """
    tensor = as_samples(samples)
    db = _loudness_db(tensor)
    loud = _loudest_db(db)
    active = (db > loud - _GATE_DB) & (loud >= SILENT_DB)
    # Closing: widen by the gap, then narrow again.
    wide = torch.nn.functional.max_pool1d(active.float()[None, None], 15, 1, 7)
    closed = -torch.nn.functional.max_pool1d(-wide, 15, 1, 7)[0, 0] if len(db) else active.float()
    return per_picture(closed[:, None], fps, frames_of(len(tensor), fps) if frames is None else frames)[:, 0]


def frames_of(samples: int, fps: float) -> int:
    """How many pictures a sound needs: every picture that the sound reaches into, at least one.

    A last picture that the sound fills by less than 1 % is not counted, so that rounding of file lengths adds none.
    """
    return max(1, math.ceil(samples / RATE * fps - 0.01))


def per_picture(values: Tensor, fps: float, frames: int) -> Tensor:
    """Averages of 100 Hz columns [c d] over the time of each picture, [frames d]; the last column goes on for ever."""
    if len(values) == 0:
        return values.new_zeros(frames, values.shape[1])
    total = torch.cat((values.new_zeros(1, values.shape[1]), values.cumsum(0, dtype=torch.float64)))
    edges = torch.arange(frames + 1, dtype=torch.float64) * (COLUMNS_HZ / fps)
    whole = edges.floor().long().clamp_max(len(values))
    beyond = (edges - whole)[:, None] * values[whole.clamp_max(len(values) - 1)]
    integral = total[whole] + beyond
    return ((integral[1:] - integral[:-1]) * (fps / COLUMNS_HZ)).to(values.dtype)


def normalise(power: Tensor, level_db: float) -> Tensor:
    """Mel power to features of about zero mean and unit spread, relative to the speech level."""
    return (torch.log(power * 10 ** (-level_db / 10) + _FLOOR) - _CENTRE) / _SPREAD


FLOOR_FEATURE = (math.log(_FLOOR) - _CENTRE) / _SPREAD
"""Value of every feature in digital silence."""


def log_mel(
    samples: np.ndarray | Tensor, sample_rate: int = RATE, fps: float = COLUMNS_HZ, level_db: float | None = None
) -> Tensor:
    """Log-mel features of a sound, [t 64].

    The level of the speech is taken out, so any gain gives the same features; what lies 50 dB under the speech is
    floored. Silence gives ``FLOOR_FEATURE`` everywhere.

    Args:
        samples: Mono, 16 kHz, [s].
        sample_rate: Must be 16000.
        fps: Rows per second; row i covers [i / fps, (i + 1) / fps). The number of rows is ``frames_of``.
        level_db: Level to take out; None measures it on these samples. A stream passes the level it knows.
    """
    if fps <= 0:
        raise InputError(f"fps is {fps}; it must be above 0")
    tensor = as_samples(samples, sample_rate)
    level = speech_level(tensor) if level_db is None else level_db
    count = math.ceil(len(tensor) / HOP)
    padded = torch.nn.functional.pad(tensor, (MARGIN, count * HOP - len(tensor) + MARGIN))
    power = columns(padded)
    features = normalise(power, level) if math.isfinite(level) else torch.full_like(power, FLOOR_FEATURE)
    return features if fps == COLUMNS_HZ else per_picture(features, fps, frames_of(len(tensor), fps))


def settings() -> dict[str, float]:
    """All numbers that define the features, for code in other languages that must make the same."""
    return {
        "sample_rate": RATE,
        "hop": HOP,
        "window": WINDOW,
        "fft": _FFT,
        "bands": BANDS,
        "low_hz": _LOW_HZ,
        "high_hz": _HIGH_HZ,
        "pre_emphasis": _PRE_EMPHASIS,
        "floor_power": _FLOOR,
        "centre": _CENTRE,
        "spread": _SPREAD,
    }
