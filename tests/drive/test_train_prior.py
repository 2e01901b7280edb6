"""What the prior is made from: utterances that follow from their seeds, vocal tracts, and a net that learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gsth import audio
from gsth.drive import _corpus, train_prior
from gsth.drive._corpus import Sources

SOURCES = Sources(("f1", "m3"))


@pytest.fixture(scope="module")
def examples() -> list[_corpus.Example]:
    return [e for seed in (1, 2, 3) for e in _corpus.examples(seed, SOURCES, copies=2)]


def test_utterances_follow_from_their_seeds(examples) -> None:
    again = _corpus.examples(2, SOURCES, copies=2)
    assert all(torch.equal(a.features, b.features) for a, b in zip(examples[2:4], again, strict=True))
    assert not torch.equal(examples[0].features[:50], examples[1].features[:50])  # rooms and tracts differ
    for e in examples:
        assert len(e.features) == 2 * len(e.curves) and e.features.shape[1] == audio.BANDS
        assert float(e.curves[0].abs().max()) < 0.02 < float(e.curves.max())


def test_nobody_who_is_scored_is_trained_on() -> None:
    assert not set(_corpus.training_variants()) & _corpus.HELD_OUT


def test_a_longer_vocal_tract_lowers_what_resonates() -> None:
    filters = audio.mel_filters()
    hz = torch.arange(len(filters)) * audio.RATE / 2 / (len(filters) - 1)
    centres = (filters * hz[:, None]).sum(0) / filters.sum(0)
    for band in (20, 35, 50):
        peak = torch.exp(-0.5 * ((torch.arange(audio.BANDS) - band) / 1.5) ** 2)[None, None]
        for factor in (0.8, 1.0, 1.25):
            found = int(_corpus.stretched(peak, torch.tensor([[[factor]]])).argmax())
            assert float(centres[found]) == pytest.approx(float(centres[band]) / factor, rel=0.05), (band, factor)


def test_augmented_features_stay_features(examples) -> None:
    batch = torch.stack([e.features[:200] for e in examples])
    one, two = (_corpus.augmented(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == batch.shape
    assert bool(torch.isfinite(one).all()) and float(one.min()) >= audio.FLOOR_FEATURE - 1e-5
    assert not torch.equal(one, _corpus.augmented(batch, torch.Generator().manual_seed(6)))


def test_a_net_learns_and_is_scored(examples) -> None:
    recipe = replace(train_prior.Recipe(), steps=100, batch=1, crop_s=1.2)
    told: list[tuple[int, float]] = []
    net = train_prior.fit(examples, recipe, lambda step, value: told.append((step, value)))
    assert told[-1][0] == 100
    fresh = train_prior.SpeechNet().eval().requires_grad_(False)
    after, before = (train_prior.scores(n, examples) for n in (net, fresh))
    assert after["opening_correlation"] > before["opening_correlation"] + 0.1
    assert after["opening_in_other_tracts"] > before["opening_in_other_tracts"] + 0.1
    assert after["mean_absolute_error"] < 0.5 * before["mean_absolute_error"]


def test_groups_of_voices_are_read() -> None:
    assert train_prior._group("300:flite:slt,hibari") == (300, ("flite:slt", "hibari"))
    assert train_prior._group("12") == (12, ())
