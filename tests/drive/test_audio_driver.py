"""Speaking: lengths, silence, closures, loudness, streaming, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gsth import audio as sound_audio
from gsth import media, speech
from gsth.drive import Manner, audio, offline
from gsth.drive._person import opening_weights
from gsth.errors import InputError


@pytest.fixture(scope="module")
def made(person):
    """Someone whose face never moved: rest is neutral, so the openings below are the prior's."""
    return person(torch.zeros(100, 52), 100)


def _write(path: Path, samples: np.ndarray, rate: int = sound_audio.RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")  # 16 bits would add noise that depends on loudness
    return path


def _opening(motion, made) -> torch.Tensor:
    return motion.expr @ opening_weights(made.head) * 1000  # mm


@pytest.mark.parametrize(("fps", "seconds"), [(25.0, 1.0), (29.97, 1.013), (30.0, 0.52), (24.0, 2.001), (60.0, 0.11)])
def test_as_many_frames_as_the_sound_reaches_into(tmp_path: Path, person, spoken, fps: float, seconds: float) -> None:
    other = person(torch.zeros(100, 52), 100, fps)
    samples, _ = spoken()
    cut = samples[: round(seconds * sound_audio.RATE)]
    motion = offline(audio.Config(_write(tmp_path / "a.wav", cut)).build(other))
    assert len(motion) == sound_audio.frames_of(len(cut), fps)
    assert abs(len(motion) - seconds * fps) <= 1.01
    assert motion.fps == fps


def test_other_rates_and_stereo_are_taken(tmp_path: Path, made, sentence) -> None:
    stereo = np.repeat(np.stack((sentence[0],) * 2, 1), 3, 0)  # 48 kHz, held samples
    three = offline(audio.Config(_write(tmp_path / "b.wav", stereo, 48000)).build(made))
    one = offline(audio.Config(_write(tmp_path / "a.wav", sentence[0])).build(made))
    assert len(one) == len(three)
    assert np.corrcoef(_opening(one, made), _opening(three, made))[0, 1] > 0.95


def test_lips_follow_the_phonemes_of_an_unheard_voice(made, wav: Path, sentence) -> None:
    motion = offline(audio.Config(wav).build(made))
    truth = speech.visemes(sentence[1], motion.fps, len(motion), made.head.expression_names)
    want, have = truth @ opening_weights(made.head), _opening(motion, made)
    assert np.corrcoef(want, have)[0, 1] > 0.8
    jaw = made.head.expression_names.index("jawOpen")
    assert 0.6 < float(motion.expr[:, jaw].std() / truth[:, jaw].std()) < 1.4


def test_lips_meet_on_closures(made, wav: Path, sentence) -> None:
    motion = offline(audio.Config(wav).build(made))
    opened = _opening(motion, made)
    around = {"closed": [], "vowel": []}
    for p in sentence[1]:
        kind = "closed" if p.symbol in ("p", "b", "m") else "vowel" if p.symbol[-1:] in "ɑːaɛæʌɔ" and p.symbol else None
        if kind:
            a, b = int(p.start_s * motion.fps), int(np.ceil(p.end_s * motion.fps)) + 1
            part = opened[max(a - 1, 0) : b]
            around[kind].append(float(part.min() if kind == "closed" else part.max()))
    closed, vowels = np.array(around["closed"]), np.array(around["vowel"])
    assert len(closed) >= 12 and len(vowels) >= 8
    assert np.median(closed) < 0.25 * np.median(vowels)
    assert (closed < 1.5).mean() > 0.7  # mm


def test_silence_rests_with_closed_lips(tmp_path: Path, made, sentence) -> None:
    quiet = np.zeros(sound_audio.RATE, np.float32)
    noise = 0.002 * np.random.default_rng(0).standard_normal(3 * len(quiet) + len(sentence[0])).astype(np.float32)
    for samples in (
        np.concatenate((quiet, sentence[0], quiet, quiet)),
        np.concatenate((quiet, sentence[0], quiet, quiet)) + noise,
    ):
        motion = offline(audio.Config(_write(tmp_path / "a.wav", samples)).build(made))
        opened = _opening(motion, made)
        assert opened[:20].abs().max() < 1.0  # mm
        assert opened[-35:].abs().max() < 1.0
        assert opened.max() > 6.0


@pytest.mark.parametrize("gain", [0.1, 3.0])
def test_loudness_does_not_open_the_mouth(tmp_path: Path, made, sentence, gain: float) -> None:
    quiet = 0.3 * sentence[0]
    a, b = (
        offline(audio.Config(_write(tmp_path / f"{i}.wav", s)).build(made)) for i, s in enumerate((quiet, gain * quiet))
    )
    assert (a.expr - b.expr).abs().max() < 0.03
    assert (a.expr - b.expr).abs().mean() < 0.002


def test_pieces_come_in_order_and_join_to_the_whole(made, wav: Path) -> None:
    driver = audio.Config(wav, Manner(seed=4)).build(made)
    pieces = list(driver.stream())
    assert len(pieces) > 5 and all(len(p) > 0 for p in pieces)
    assert len(pieces[0]) < 0.3 * made.motion.fps
    again = offline(audio.Config(wav, Manner(seed=4)).build(made))
    assert torch.equal(torch.cat([p.expr for p in pieces]), again.expr)
    assert torch.equal(torch.cat([p.joints for p in pieces]), again.joints)


def test_seed_changes_life_but_not_the_mouth(made, wav: Path) -> None:
    a, b = (offline(audio.Config(wav, Manner(seed=s)).build(made)) for s in (0, 1))
    lids = [i for i, n in enumerate(made.head.expression_names) if n.startswith("eyeBlink")]
    others = [i for i in range(52) if i not in lids]
    assert torch.equal(a.expr[:, others], b.expr[:, others])
    assert not torch.equal(a.joints, b.joints)


def test_expressiveness_scales_the_way_from_rest(made, wav: Path) -> None:
    none = offline(audio.Config(wav, Manner(expressiveness=0)).build(made))
    assert _opening(none, made).abs().max() < 0.1
    half, full = (offline(audio.Config(wav, Manner(expressiveness=x)).build(made)) for x in (0.5, 1.0))
    jaw = made.head.expression_names.index("jawOpen")
    torch.testing.assert_close(half.expr[:, jaw], full.expr[:, jaw] / 2, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="expressiveness"):
        Manner(expressiveness=3)


def test_unusable_sound_is_refused(tmp_path: Path, made) -> None:
    with pytest.raises(InputError):
        audio.Config(tmp_path / "none.wav").build(made)
    text = tmp_path / "text.wav"
    text.write_text("this is no sound")
    with pytest.raises(InputError):
        audio.Config(text).build(made)
    with pytest.raises(InputError, match="silence throughout"):
        audio.Config(_write(tmp_path / "silent.wav", np.zeros(16000))).build(made)
    with pytest.raises(InputError, match="want at least"):
        audio.Config(_write(tmp_path / "short.wav", 0.1 * np.ones(800))).build(made)


def test_a_head_without_mouth_shapes_is_refused(made, person, wav: Path) -> None:
    import dataclasses

    names = tuple(n.replace("jawOpen", "exp000") for n in made.head.expression_names)
    other = person(torch.zeros(10, 52), 10)
    other.head = dataclasses.replace(made.head, expression_names=names)
    with pytest.raises(InputError, match="jawOpen"):
        audio.Config(wav).build(other)


def _opening_of(samples: np.ndarray, path: Path, made, rate: int = sound_audio.RATE) -> torch.Tensor:
    return _opening(offline(audio.Config(_write(path, samples, rate)).build(made)), made)


def test_clipped_sound_and_telephones_are_understood(tmp_path: Path, made, sentence) -> None:
    from scipy.signal import resample_poly

    clean = _opening_of(sentence[0], tmp_path / "a.wav", made)
    clipped = _opening_of(np.clip(8 * sentence[0], -0.5, 0.5), tmp_path / "b.wav", made)
    telephone = _opening_of(resample_poly(sentence[0], 1, 2).astype(np.float32), tmp_path / "c.wav", made, 8000)
    for other in (clipped, telephone):
        assert len(other) == len(clean)
        assert np.corrcoef(clean, other)[0, 1] > 0.7


def test_a_held_chord_does_not_make_the_mouth_chatter(tmp_path: Path, made, sentence) -> None:
    t = np.arange(4 * sound_audio.RATE) / sound_audio.RATE
    chord = sum(0.1 * np.sin(2 * np.pi * f * k * t) / k for f in (220, 277, 330) for k in (1, 2, 3)).astype(np.float32)
    speech_opening = _opening_of(sentence[0], tmp_path / "a.wav", made)
    held = _opening_of(chord, tmp_path / "b.wav", made)[25:75]
    assert float(held.diff().abs().mean()) < 0.2 * float(speech_opening.diff().abs().mean())


def test_long_sound_is_spoken_while_it_is_read(made, sentence) -> None:
    import time

    from gsth.drive import Sound
    from gsth.drive._speaking import SpeechDriver

    samples = np.resize(sentence[0], 1800 * sound_audio.RATE)  # half an hour
    begun = time.process_time()
    first = next(SpeechDriver(made, samples, Manner(), Sound(samples, sound_audio.RATE)).stream())
    assert len(first) > 0
    assert time.process_time() - begun < 4.0


def test_a_file_is_never_held_whole(tmp_path: Path, made, sentence, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = _write(tmp_path / "a.wav", np.tile(sentence[0], 3), sound_audio.RATE)
    monkeypatch.setattr(media, "sound", None)  # the whole at once
    longest = 0

    def watched(path, rate, real=media.sound_pieces):
        nonlocal longest
        for piece in real(path, rate):
            longest = max(longest, len(piece))
            yield piece

    monkeypatch.setattr(media, "sound_pieces", watched)
    pieces = list(audio.Config(wav).build(made).stream())
    assert 0 < longest < 0.6 * sound_audio.RATE
    assert max(len(p) for p in pieces) <= 8 and len(pieces) > 30
    assert sum(len(p) for p in pieces) == sound_audio.frames_of(3 * len(sentence[0]), made.motion.fps)


def test_brows_and_head_go_with_accents(made, wav: Path, sentence) -> None:
    motion = offline(audio.Config(wav).build(made))
    brow = motion.expr[:, made.head.expression_names.index("browInnerUp")]
    assert 0.05 < float(brow.max()) < 0.5 and float(brow.min()) < 0.01
    loud = sound_audio.per_picture(
        torch.from_numpy(sentence[0][: len(sentence[0]) // 160 * 160]).reshape(-1, 160).square().mean(1, keepdim=True),
        motion.fps,
        len(motion),
    )[:, 0]
    assert float(torch.corrcoef(torch.stack((brow, 10 * torch.log10(loud + 1e-6))))[0, 1]) > 0.2


def test_emotion_shows_on_speech(made, wav: Path) -> None:
    plain, sad = (offline(audio.Config(wav, Manner(emotion=e)).build(made)) for e in ("none", "sad:0.8"))
    frown = made.head.expression_names.index("mouthFrownLeft")
    assert float((sad.expr - plain.expr)[:, frown].mean()) > 0.2
    assert np.corrcoef(_opening(plain, made), _opening(sad, made))[0, 1] > 0.9
    with pytest.raises(InputError, match="grumpy"):
        audio.Config(wav, Manner(emotion="grumpy")).build(made)
