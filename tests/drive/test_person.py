"""Learning one person's speech from their clip."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gsth import audio, speech
from gsth.drive import SpeechConfig, _person, describe, fit_speech
from gsth.drive._person import general_voice, opening_weights, voice_of
from gsth.drive._speech_net import at_pictures, hidden_states
from gsth.errors import ArtifactError

FPS = 25.0


def _said(made, sound: np.ndarray) -> torch.Tensor:
    """Expressions of the avatar's voice at the pictures of its clip."""
    voice = voice_of(made)
    hidden = at_pictures(hidden_states(voice.net, audio.log_mel(sound)), FPS, len(made.motion))
    return voice.expressions(hidden)


def _errors(made, sound: np.ndarray) -> tuple[float, float]:
    """On the part never learned from: rms error of the expressions and correlation of the opening."""
    held = slice(made.source.train_frames, None)
    said, seen = _said(made, sound)[held], made.motion.expr[held]
    gap = opening_weights(made.head)
    r = np.corrcoef(said @ gap, seen @ gap)[0, 1]
    return float((said - seen).square().mean().sqrt()), float(r)


@pytest.fixture(scope="module")
def learned(clip):
    made, sound = copy.copy(clip[0]), clip[1]
    made.speech = fit_speech(made, sound)
    return made


def test_what_was_learned_holds_on_frames_never_seen(clip, learned) -> None:
    general, personal = _errors(clip[0], clip[1]), _errors(learned, clip[1])
    assert personal[0] < 0.85 * general[0]
    assert personal[1] > general[1] - 0.01
    assert personal[1] > 0.8
    assert "learned" in describe(learned.speech)


def test_an_opening_that_proves_no_better_stays_the_general_one(clip) -> None:
    """Frames that go with the sound by chance only: what else moves may be learned, the opening may not."""
    made, gap = copy.copy(clip[0]), opening_weights(clip[0].head)
    shake = 0.25 * torch.randn(len(made.motion), generator=torch.Generator().manual_seed(3))
    expr = made.motion.expr.clone()
    expr[:, made.head.expression_names.index("jawOpen")] += shake
    made.motion = made.motion.replace(expr=expr.clamp(0, 1))
    kept = copy.copy(made)
    kept.speech = fit_speech(made, clip[1])
    assert voice_of(kept).evidence["learned"] == 1.0
    general, personal = general_voice(made), voice_of(kept)
    a, b = gap[general.moved] @ general.weight, gap[personal.moved] @ personal.weight
    # The same direction in the hidden states; only the span is the person's.
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) == pytest.approx(1.0, abs=1e-5)
    assert not torch.allclose(personal.weight / personal.weight.norm(), general.weight / general.weight.norm())


def test_better_means_better_than_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(300, generator=draw)
    noise = torch.randn(3, 300, generator=draw)
    old = seen + 2 * noise[0]
    assert _person._surely_better(seen + noise[0], old, seen)
    assert not _person._surely_better(old, old, seen)
    assert not _person._surely_better(seen + 2 * noise[1], old, seen)
    assert not _person._surely_better(old, seen + noise[2], seen)


def test_the_mouth_opens_as_far_as_the_person_does(clip, learned) -> None:
    gap = opening_weights(learned.head)
    said, seen = _said(learned, clip[1]) @ gap, learned.motion.expr @ gap
    assert 0.7 < float(said.std() / seen.std()) < 1.3


def test_rest_and_silence_stay_the_persons_own(learned) -> None:
    voice = voice_of(learned)
    names = learned.head.expression_names
    smile, jaw = names.index("mouthSmileLeft"), names.index("jawOpen")
    assert voice.rest[smile] == pytest.approx(0.15, abs=0.06)
    silent = voice.expressions(hidden_states(voice.net, torch.full((100, audio.BANDS), audio.FLOOR_FEATURE)))
    assert silent[:, smile].mean() == pytest.approx(0.15, abs=0.08)
    assert (silent @ opening_weights(learned.head)).abs().max() < 1.2e-3
    assert silent[:, jaw].max() < 0.06


def test_only_the_training_part_counts(clip, learned) -> None:
    made, sound = copy.copy(clip[0]), clip[1].copy()
    n = made.source.train_frames
    expr = made.motion.expr.clone()
    expr[n:] = 0.5
    made.motion = made.motion.replace(expr=expr)
    sound[round(n / FPS * audio.RATE) :] = 0.3
    again = fit_speech(made, sound)
    assert again.keys() == learned.speech.keys()
    assert all(torch.equal(again[k], learned.speech[k]) for k in again)


def test_anothers_sound_is_noticed(clip, spoken) -> None:
    made = copy.copy(clip[0])
    other, _ = spoken(
        "Completely different words were spoken by somebody else in another place and time, long ago. "
        "They do not fit the picture, whatever one tries, and nobody should learn anything.",
        "de+m3",
    )
    made.speech = fit_speech(made, np.resize(other, len(clip[1])))
    assert "general voice model" in describe(made.speech)
    general, kept = general_voice(made), voice_of(made)
    # Span and rest come from the picture, the way of speaking does not.
    torch.testing.assert_close(kept.weight, general.weight * kept.evidence["span"])
    assert torch.equal(kept.rest, general.rest)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_silent_or_short_clips_fall_back(person, seconds: float) -> None:
    made = person(torch.rand(max(int(seconds * FPS), 3), 52) * 0.1, max(int(seconds * FPS), 3))
    weights = fit_speech(made, np.zeros(int(seconds * audio.RATE) + 800, np.float32))
    assert "general voice model" in describe(weights)


def test_learning_can_be_switched_off(clip) -> None:
    weights = fit_speech(clip[0], clip[1], SpeechConfig(personal=False))
    made = copy.copy(clip[0])
    made.speech = weights
    kept = voice_of(made)
    torch.testing.assert_close(kept.weight, general_voice(clip[0]).weight * kept.evidence["span"])


def test_deterministic(clip, learned) -> None:
    again = fit_speech(clip[0], clip[1])
    assert all(torch.equal(again[k], learned.speech[k]) for k in again)


def test_late_pictures_are_lined_up(clip) -> None:
    made = copy.copy(clip[0])
    late = 3
    made.motion = made.motion.replace(expr=made.motion.expr.roll(late, 0))
    straight = dict(zip(("r", "chance", "lag"), fit_speech(clip[0], clip[1])["evidence"].tolist(), strict=False))
    shifted = dict(zip(("r", "chance", "lag"), fit_speech(made, clip[1])["evidence"].tolist(), strict=False))
    assert shifted["lag"] - straight["lag"] == late
    assert shifted["r"] == pytest.approx(straight["r"], abs=0.05)


def test_lost_frames_teach_nothing(clip) -> None:
    made = copy.copy(clip[0])
    made.source = copy.copy(made.source)
    found, expr = made.source.found.clone(), made.motion.expr.clone()
    found[20:40] = False
    expr[20:40] = 0.9
    clean = copy.copy(made)
    made.source.found = found
    clean.source = copy.copy(made.source)
    made.motion = made.motion.replace(expr=expr)
    a, b = fit_speech(made, clip[1]), fit_speech(clean, clip[1])
    torch.testing.assert_close(a["weight"], b["weight"], atol=0.02, rtol=0)


def test_closures_of_the_learned_voice(clip, learned, sentence) -> None:
    gap = opening_weights(learned.head)
    opened = _said(learned, clip[1]) @ gap * 1000
    closed = []
    for p in sentence[1]:
        if p.symbol in ("p", "b", "m"):
            a, b = int(p.start_s * FPS), int(np.ceil(p.end_s * FPS)) + 1
            closed.append(float(opened[max(a - 1, 0) : b].min()))
    assert np.median(closed) < 0.2 * float(opened.quantile(0.9))


def test_damaged_weights_are_refused(learned) -> None:
    broken = copy.copy(learned)
    broken.speech = {k: v for k, v in learned.speech.items() if k != "rest"}
    with pytest.raises(ArtifactError, match="train the avatar again"):
        voice_of(broken)


def test_visemes_table_and_network_move_the_same_shapes() -> None:
    said = [speech.Phoneme(s, i * 0.2, i * 0.2 + 0.2) for i, s in enumerate("amisufθʃwl")]
    curves = speech.visemes(said, 50, 100)
    moved = {n for n, m in zip(speech.ARKIT_NAMES, curves.amax(0), strict=True) if m > 0}
    from gsth.drive._speech_net import NAMES

    assert moved == set(NAMES)
