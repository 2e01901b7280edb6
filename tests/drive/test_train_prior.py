"""What the prior is made from: utterances that follow from their seeds, vocal tracts, and a net that learns."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gsth import audio, speech
from gsth.drive import _corpus, train_prior
from gsth.drive._corpus import Sources
from gsth.drive._speech_net import NetSize, hidden_states
from gsth.voice import kokoro

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


def test_a_room_adds_the_power_of_its_tail() -> None:
    log = torch.full((2, 160, 4), -12.0)
    log[:, 20, 1], log[:, 60, 2] = 0.0, 3.0
    seconds, late = torch.tensor([0.3, 0.6]).reshape(2, 1, 1), torch.tensor([0.0, -2.0]).reshape(2, 1, 1)
    heard = _corpus.reverberant(log, seconds, late).exp() - log.exp()
    for i in range(2):
        for band, at, power in ((1, 20, 1.0), (2, 60, float(torch.tensor(3.0).exp()))):
            tail = heard[i, at + _corpus._EARLY : at + _corpus._TAIL, band]
            assert float(tail.sum()) == pytest.approx(power * float(late[i].exp()), rel=0.02)
            fallen = 10 * float(torch.log10(tail[0] / tail[10]))  # 0.1 s later
            assert fallen == pytest.approx(60 * 0.1 / float(seconds[i]), rel=0.05)
            assert float(heard[i, : at + _corpus._EARLY, band].abs().max()) < 1e-4 * power  # nothing before it is heard


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
    assert 0.5 < after["opening_spread"] < 1.2
    assert after["mean_absolute_error"] < 0.5 * before["mean_absolute_error"]


def test_a_net_that_is_unsure_is_paid_for_moving_as_far_as_the_truth() -> None:
    random = torch.Generator().manual_seed(3)
    known, unknown = torch.randn(2, 6, 400, 20, generator=random)
    still = torch.zeros(20).index_fill_(0, torch.tensor([4]), 1.0)
    wanted = (known + unknown) * (1 - still)  # one curve never moves
    scale = wanted.std((0, 1)) + 0.03
    gains = torch.linspace(0.8, 1.6, 81)

    def best(spread: float) -> float:
        recipe = replace(train_prior.Recipe(), spread=spread, velocity=0.0)
        return float(
            gains[
                torch.stack([train_prior.loss(known * g * (1 - still), wanted, scale, recipe) for g in gains]).argmin()
            ]
        )

    # Of what moves, the net knows half: squared errors want that half and no more, 1 / sqrt(2) of the true spread.
    assert best(0.0) == pytest.approx(1.0, abs=0.03)
    assert 1.15 < best(train_prior.Recipe().spread) < 2**0.5


def test_what_goes_on_begins_with_what_it_went_on_from(examples) -> None:
    start = train_prior.SpeechNet(NetSize(dilations=speech.NET.dilations[:8]))
    still = replace(train_prior.Recipe(), steps=2, batch=2, crop_s=1.2, rate=0.0)
    net = train_prior.fit(examples, still, lambda *_: None, start)
    features = examples[0].features
    assert len(net.blocks) > len(start.blocks)
    assert torch.equal(hidden_states(net, features), hidden_states(start.eval(), features))


def test_groups_of_voices_are_read() -> None:
    assert train_prior._group("300:flite:slt,hibari") == (300, ("flite:slt", "hibari"))
    assert train_prior._group("12") == (12, ())


def test_a_text_is_read_by_all_but_who_is_only_scored(tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text(
        "CHAPTER I\n\nTHE VERY LONG TITLE HERE\n\nShe said, `I know it well;' and left\nthe room. No. It was late:\n"
    )
    sources = train_prior._sources(("hibari", str(text)), ("flite:rms", "kokoro:a.onnx@af_x"))
    assert sources.natural == ("hibari",) and "af_x" in sources.unheard
    assert sources.sentences == ("She said, I know it well;' and left the room.",)


def test_mixtures_keep_to_one_language(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("af_a", "bm_b", "ff_c", "pf_d", "zf_e", "zm_f")
    monkeypatch.setattr(kokoro, "names", lambda model: names)
    monkeypatch.setattr(kokoro.Config, "build", lambda self: self.voice)
    drawn = {_corpus._mixture(random.Random(seed), "m.onnx", ("bm_b",)) for seed in range(300)}
    spoken = {(frozenset(str(voice).partition("@")[2].split("+")), language) for voice, language in drawn}
    chinese = {frozenset({"zf_e"}), frozenset({"zm_f"}), frozenset({"zf_e", "zm_f"})}  # Portuguese has no words here
    assert spoken == {(frozenset({"af_a"}), "en"), (frozenset({"ff_c"}), "fr"), *((some, "cmn") for some in chinese)}
