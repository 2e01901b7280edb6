"""When the words of a recording are said, found by espeak-ng's voice warped onto it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gsth import audio, media, speech

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "_exact_words.py"
TEXT = "Some people never open their windows in the summer."


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exact_words", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_times_of_another_voice_at_another_rate(script: ModuleType) -> None:
    said = speech.synthesize(TEXT, "en-us+f2", 110)
    lead = 0.4
    samples = np.pad(media.resampled(said.samples, said.sample_rate, audio.RATE), (int(lead * audio.RATE), 4000))
    found = [p for p in script.aligned(TEXT, "en-us", samples, lead, lead + said.seconds) if p.symbol]
    true = [p for p in said.phonemes if p.symbol]
    assert [p.symbol for p in found] == [p.symbol for p in true]
    off = torch.tensor([f.start_s - lead - t.start_s for f, t in zip(found, true, strict=True)])
    assert off.abs().median() < 0.03
    assert off.abs().max() < 0.15


def test_warp_is_the_cheapest_way(script: ModuleType) -> None:
    cost = np.ones((5, 3))
    way = [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)]
    for step in way:
        cost[step] = 0.0
    assert script._warp(cost).tolist() == [list(step) for step in way]
