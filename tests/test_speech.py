"""Synthesised speech and the mouth movements of its phonemes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gsth import speech
from gsth.errors import InputError
from gsth.speech import ARKIT_NAMES, Phoneme

pytest.importorskip("espeakng_loader", reason="needs the extra 'audio'")

SENTENCES = {
    "en-us": "Bob made a movie; we found five big peaches.",
    "de": "Über fünf schöne Pferde freut sich der Bäcker.",
    "es": "El perro grande corre muy rápido.",
    "fr-fr": "Bonjour, je voudrais un peu de vin blanc.",
    "cmn": "你好，今天天气很好。",
}


def column(curves: np.ndarray, name: str) -> np.ndarray:
    return curves[:, ARKIT_NAMES.index(name)]


def said(*symbols: str, each_s: float = 0.1) -> list[Phoneme]:
    return [Phoneme(s, i * each_s, (i + 1) * each_s) for i, s in enumerate(symbols)]


@pytest.mark.parametrize("voice", SENTENCES)
def test_phonemes_cover_the_sound_without_gaps(voice: str) -> None:
    utterance = speech.synthesize(SENTENCES[voice], voice)
    starts = [p.start_s for p in utterance.phonemes]
    ends = [p.end_s for p in utterance.phonemes]
    assert starts[0] == 0 and ends[-1] == pytest.approx(utterance.seconds)
    assert starts[1:] == ends[:-1]
    assert all(a < b for a, b in zip(starts, ends, strict=True))
    assert sum(bool(p.symbol) for p in utterance.phonemes) >= 8


@pytest.mark.parametrize("voice", SENTENCES)
def test_every_symbol_of_the_voice_is_in_the_tables(voice: str) -> None:
    for phoneme in speech.synthesize(SENTENCES[voice], voice).phonemes:
        if phoneme.symbol:
            letters = speech._letters(phoneme.symbol)
            assert letters and speech._base(phoneme.symbol).startswith(letters[0])


def test_sound_is_loud_where_phonemes_are_and_quiet_in_silence() -> None:
    utterance = speech.synthesize("Hello there. My name is Ash.")
    at = (np.arange(len(utterance.samples)) + 0.5) / utterance.sample_rate
    silent = np.zeros(len(at), bool)
    for p in utterance.phonemes:
        if not p.symbol:
            silent |= (at > p.start_s + 0.05) & (at < p.end_s - 0.05)
    assert silent.any()
    assert np.abs(utterance.samples[silent]).max() < 0.05 * np.abs(utterance.samples).max()


def test_speech_is_deterministic_even_from_threads() -> None:
    first = speech.synthesize("Both boats.", "en-us+f3")
    speech.synthesize("Something else.", "de", pitch=20)
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: speech.synthesize("Both boats.", "en-us+f3"), range(8)):
            assert np.array_equal(first.samples, other.samples) and first.phonemes == other.phonemes


def test_faster_speech_is_shorter() -> None:
    assert speech.synthesize("Both boats.", rate_wpm=260).seconds < 0.8 * speech.synthesize("Both boats.").seconds


@pytest.mark.parametrize(
    ("text", "voice", "rate", "message"),
    [
        ("", "en-us", 160, "at least one word"),
        ("...", "en-us", 160, "at least one word"),
        ("Hi", "klingon", 160, "no voice 'klingon'"),
        ("Hi", "en-us+nobody", 160, "no variant"),
        ("Hi", "en-us", 5, "80 to 450"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, voice: str, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        speech.synthesize(text, voice, rate)


@pytest.mark.parametrize("fps", [25.0, 29.97, 60.0])
@pytest.mark.parametrize("rate", [120, 300])
def test_every_closure_is_complete_in_some_frame(fps: float, rate: int) -> None:
    utterance = speech.synthesize("Maybe Bob may pay a big map maker.", rate_wpm=rate)
    frames = int(np.ceil(utterance.seconds * fps))
    curves = speech.visemes(utterance.phonemes, fps, frames).numpy()
    middles = (np.arange(frames) + 0.5) / fps
    closures = [p for p in utterance.phonemes if p.symbol[-1:] in ("p", "b", "m")]
    assert len(closures) >= 9
    for p in closures:
        half = max((p.end_s - p.start_s) / 2, 0.51 / fps)
        held = np.abs(middles - (p.start_s + p.end_s) / 2) <= half
        gap = column(curves, "jawOpen") - column(curves, "mouthClose")
        assert held.any() and gap[held].min() == pytest.approx(0, abs=1e-6)
        sealed = held & (gap < 1e-6)
        for parting in ("mouthLowerDownLeft", "mouthUpperUpLeft", "mouthFunnel", "tongueOut"):
            assert column(curves, parting)[sealed].min() < 1e-6, parting


def test_each_sound_has_its_shape() -> None:
    def peak(symbol: str, name: str) -> float:
        curves = speech.visemes(said("", "t", symbol, "t", "", each_s=0.15), 50, 38).numpy()
        return float(column(curves, name)[17:20].max())

    assert peak("ˈɑː", "jawOpen") > 2 * peak("ˈiː", "jawOpen")
    assert peak("ˈuː", "mouthPucker") > 0.4 > 0.1 > peak("ˈɑː", "mouthPucker")
    assert peak("ˈiː", "mouthStretchLeft") > 0.15 > 0.02 > peak("ˈuː", "mouthStretchLeft")
    assert peak("f", "mouthRollLower") > 0.5 > 0.2 > peak("k", "mouthRollLower")
    assert peak("ʃ", "mouthFunnel") > 0.3 > 0.1 > peak("s", "mouthFunnel")
    assert peak("θ", "tongueOut") > peak("l", "tongueOut") > peak("k", "tongueOut")


def test_rounding_draws_the_lips_together() -> None:
    """The lips of rounded sounds part far less than their jaw opens, in the order that lips were measured in."""

    def gap(symbol: str) -> float:
        curves = speech.visemes(said("", "t", symbol, "t", "", each_s=0.15), 50, 38).numpy()
        return float((column(curves, "jawOpen") - column(curves, "mouthClose"))[17:20].max())

    wide, o, u, w = (gap(s) for s in ("ˈɑː", "ˈoː", "ˈuː", "w"))
    assert wide > 2 * o > 3 * u and u > 2 * w and w < 0.05 * wide
    an, on = (gap(f"ˈ{s}\u0303") for s in "ɑɔ")  # as in French
    assert on == pytest.approx(o, abs=1e-3) and o < an < 0.8 * wide


def test_rounding_spreads_to_neighbours_and_k_leaves_the_lips_alone() -> None:
    """Co-articulation: the k of 'koo' is rounded, that of 'kee' is not."""
    at_k = slice(5, 8)
    koo = column(speech.visemes(said("", "k", "ˈuː", ""), 50, 20).numpy(), "mouthPucker")
    kee = column(speech.visemes(said("", "k", "ˈiː", ""), 50, 20).numpy(), "mouthPucker")
    assert koo[at_k].mean() > 0.2 and kee[at_k].max() < 0.01


def test_silence_rests() -> None:
    curves = speech.visemes(said("ˈɑː", "p", "", "", "", "", "", "ˈuː"), 50, 40).numpy()
    assert curves[20:25].max() < 1e-6
    assert speech.visemes([], 25, 10).abs().max() == 0


def test_curves_are_in_range_smooth_and_follow_the_given_order() -> None:
    utterance = speech.synthesize(SENTENCES["en-us"])
    curves = speech.visemes(utterance.phonemes, 100, 300).numpy()
    assert curves.shape == (300, 52) and curves.min() >= 0 and curves.max() <= 1
    assert np.abs(np.diff(column(curves, "jawOpen"))).max() < 0.15
    reverse = speech.visemes(utterance.phonemes, 100, 300, ARKIT_NAMES[::-1]).numpy()
    assert np.array_equal(reverse, curves[:, ::-1])


def test_unknown_letters_act_as_a_schwa() -> None:
    assert np.array_equal(
        speech.visemes(said("", "ꜵ", ""), 50, 15).numpy(), speech.visemes(said("", "ə", ""), 50, 15).numpy()
    )


def test_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        speech.visemes([], 25, 0)
