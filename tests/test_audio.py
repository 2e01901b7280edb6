"""Sound features: rates, alignment, loudness, activity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth import audio
from gsth.errors import InputError


def _burst(start_s: float, stop_s: float, seconds: float = 2.0, hz: float = 1000.0) -> np.ndarray:
    t = np.arange(int(seconds * audio.RATE)) / audio.RATE
    return (0.3 * np.sin(2 * np.pi * hz * t) * ((t >= start_s) & (t < stop_s))).astype(np.float32)


@pytest.mark.parametrize("fps", [24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 100.0])
def test_a_sound_lands_in_the_pictures_of_its_time(fps: float) -> None:
    first, last = 12 / fps, 18 / fps
    energy = audio.log_mel(_burst(first, last), fps=fps).amax(1)
    quiet, loud = energy[:10].max(), energy[12:18].min()
    assert loud > quiet + 0.5
    assert energy[20:].max() < quiet + 0.05
    # Half on, half off: the picture at the edge is between.
    half = audio.log_mel(_burst(first + 0.5 / fps, last), fps=fps).amax(1)
    assert quiet < half[12] < energy[12]


@pytest.mark.parametrize("gain", [0.01, 0.1, 3.0, 20.0])
def test_loudness_changes_nothing(gain: float) -> None:
    sound = torch.from_numpy(_burst(0.3, 1.2)) + torch.randn(32000) * 0.01
    torch.testing.assert_close(audio.log_mel(sound * gain), audio.log_mel(sound), atol=2e-3, rtol=0)


def test_level_follows_gain_in_decibels_and_ignores_pauses() -> None:
    sound = _burst(0.2, 1.4)
    assert audio.speech_level(2 * sound) - audio.speech_level(sound) == pytest.approx(6.02, abs=0.01)
    padded = np.concatenate((sound, np.zeros(audio.RATE, np.float32)))
    assert audio.speech_level(padded) == pytest.approx(audio.speech_level(sound), abs=0.1)
    # A full-scale sine is 3 dB below full scale.
    assert audio.speech_level(_burst(0, 2) / 0.3) == pytest.approx(-3.0, abs=0.1)


def test_silence_is_the_floor_everywhere() -> None:
    assert audio.speech_level(np.zeros(16000)) == -math.inf
    features = audio.log_mel(np.zeros(16000), fps=25)
    assert features.shape == (25, audio.BANDS)
    assert torch.all(features == audio.FLOOR_FEATURE)


def test_a_tone_lights_its_own_band() -> None:
    bands = [int(audio.log_mel(_burst(0, 2, hz=hz)).mean(0).argmax()) for hz in (200, 500, 1000, 2000, 4000)]
    assert bands == sorted(bands) and len(set(bands)) == 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80_000), st.sampled_from([23.976, 24.0, 25.0, 29.97, 30.0, 60.0, 7.5]))
def test_number_of_pictures_covers_the_sound(samples: int, fps: float) -> None:
    frames = audio.frames_of(samples, fps)
    assert frames >= 1
    # All but 1 % of a picture is covered, and no picture lies wholly past the sound.
    assert frames / fps >= samples / audio.RATE - 0.0101 / fps
    assert frames == 1 or (frames - 1) / fps < samples / audio.RATE


def test_per_picture_keeps_the_integral() -> None:
    values = torch.rand(300, 3)
    averaged = audio.per_picture(values, 30.0, 90)
    torch.testing.assert_close(averaged.mean(0), values.mean(0), atol=1e-5, rtol=0)


def test_activity_marks_speech_and_bridges_closures() -> None:
    sound = _burst(0.4, 0.8) + _burst(0.9, 1.4)
    active = audio.activity(sound, 25.0)
    assert active.shape == (50,)
    assert active[:9].max() == 0 and active[37:].max() == 0
    assert active[11:34].min() == 1
    assert audio.activity(np.zeros(16000), 25.0).max() == 0


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((2, 100)), 16000, "one channel"),
        (np.zeros(100), 44100, "16000 Hz"),
        (np.full(100, np.nan), 16000, "not finite"),
    ],
)
def test_wrong_sound_is_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        audio.log_mel(samples, rate)


def test_wrong_rate_of_pictures_is_refused() -> None:
    with pytest.raises(InputError, match="fps"):
        audio.log_mel(np.zeros(100), fps=0)


def test_level_of_pieces_is_that_of_the_whole() -> None:
    sound = np.concatenate((_burst(0, 1), np.zeros(5000, np.float32), 0.1 * _burst(0, 1)))
    for size in (1, 159, 7000):
        if size == 1:
            pieces = [sound[:1], sound[1:]]
        else:
            pieces = [sound[i : i + size] for i in range(0, len(sound), size)]
        level, count = audio.measured(pieces)
        assert count == len(sound) and level == pytest.approx(audio.speech_level(sound), abs=1e-4)
    assert audio.measured([]) == (-math.inf, 0)
