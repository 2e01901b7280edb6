"""When the words of a recording are said, found by espeak-ng's voice warped onto it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch

from gsth import audio, media, speech

TEXT = "Some people never open their windows in the summer."


@pytest.fixture(scope="module")
def words(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("_exact_words")


def test_times_of_another_voice_at_another_rate(words: ModuleType) -> None:
    said = speech.synthesize(TEXT, "en-us+f2", 110)
    lead = 0.4
    samples = np.pad(media.resampled(said.samples, said.sample_rate, audio.RATE), (int(lead * audio.RATE), 4000))
    found = [p for p in words.aligned(TEXT, "en-us", samples, lead, lead + said.seconds) if p.symbol]
    true = [p for p in said.phonemes if p.symbol]
    assert [p.symbol for p in found] == [p.symbol for p in true]
    off = torch.tensor([f.start_s - lead - t.start_s for f, t in zip(found, true, strict=True)])
    assert off.abs().median() < 0.03
    assert off.abs().max() < 0.15


def test_pauses_between_words_are_silence(words: ModuleType) -> None:
    said = speech.synthesize(TEXT, "en-us+f2", 160)
    once = media.resampled(said.samples, said.sample_rate, audio.RATE)
    quiet = np.zeros(audio.RATE, np.float32)
    samples = np.concatenate((quiet, once, quiet, once, quiet))
    starts = 1.0, 2.0 + said.seconds
    found = words.timeline([(TEXT, s, s + said.seconds) for s in starts], "en-us", samples)
    assert found[0].start_s == 0.0 and found[-1].end_s == pytest.approx(len(samples) / audio.RATE)
    assert all(a.end_s == b.start_s for a, b in zip(found, found[1:], strict=False))
    pauses = [p for p in found if not p.symbol and p.end_s - p.start_s > 0.5]
    assert [round(p.start_s) for p in pauses] == [0, round(1 + said.seconds), round(2 + 2 * said.seconds)]


def test_warp_is_the_cheapest_way(words: ModuleType) -> None:
    cost = np.ones((5, 3))
    way = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)]
    for step in way:
        cost[step] = 0.0
    assert words._warp(cost).tolist() == [list(step) for step in way]
