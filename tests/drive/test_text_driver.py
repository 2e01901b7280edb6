"""Text: exact closures, pauses, emphasis and moods at their times; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth.drive import Manner, offline, text
from gsth.drive._person import opening_weights
from gsth.drive._say import say
from gsth.errors import InputError
from gsth.voice import find


@pytest.fixture(scope="module")
def made(person):
    return person(torch.zeros(100, 52), 100)


def _opening_mm(motion, made) -> torch.Tensor:
    return motion.expr @ opening_weights(made.head) * 1000


def test_every_labial_closes_and_vowels_open(made) -> None:
    driver = text.Config("My mother may buy a better piano. Papa remembers Bob.", "en-us+f4").build(made)
    motion = offline(driver)
    opened = _opening_mm(motion, made)
    spans = {"closed": [], "open": []}
    for p in driver.cues.phonemes:
        part = opened[int(p.start_s * 25) : int(np.ceil(p.end_s * 25)) + 1]
        if p.symbol.strip("ˈˌ") in ("p", "b", "m"):
            spans["closed"].append(float(part.min()))
        elif p.symbol.strip("ˈˌː") in ("ɑ", "aɪ", "æ", "ɔ"):
            spans["open"].append(float(part.max()))
    assert len(spans["closed"]) >= 11 and max(spans["closed"]) < 1.0
    assert len(spans["open"]) >= 5 and np.median(spans["open"]) > 4.0


def test_motion_lasts_as_long_as_the_sound(made) -> None:
    driver = text.Config("Good morning, everyone.").build(made)
    sound = driver.sound
    assert len(offline(driver)) == pytest.approx(len(sound.samples) / sound.rate * 25, abs=1.01)


def test_pauses_are_silent_and_the_mouth_rests_in_them(made) -> None:
    plain, paused = (text.Config(t).build(made) for t in ("One two.", "One [1.5s] two."))
    assert len(paused.sound.samples) - len(plain.sound.samples) > 1.2 * plain.sound.rate
    quiet = [p for p in paused.cues.phonemes if not p.symbol and p.end_s - p.start_s > 1.2]
    assert len(quiet) == 1
    a, b = quiet[0].start_s, quiet[0].end_s
    assert np.abs(paused.sound.samples[int((a + 0.05) * 22050) : int((b - 0.05) * 22050)]).max() < 0.01
    opened = _opening_mm(offline(paused), made)
    assert opened[int((a + 0.4) * 25) : int((b - 0.3) * 25)].abs().max() < 0.8


def test_emphasis_is_louder_slower_and_wider(made) -> None:
    plain, strong = (say(t, find()) for t in ("I saw a lion there", "I saw a *lion* there"))
    (mark,) = strong.cues.emphases
    assert mark.effort > 1 and 0.2 < mark.end_s - mark.start_s < 0.9
    assert strong.seconds > plain.seconds - 0.2
    loud = [p for p in strong.cues.phonemes if p.start_s >= mark.start_s and p.end_s <= mark.end_s + 0.01]
    assert "".join(p.symbol.strip("ˈˌ") for p in loud).startswith("l")


def test_phonemes_line_up_with_the_joined_sound() -> None:
    said = say("Sasa *papa* sasa. [0.3s] Papa", find())
    times = [(p.start_s, p.end_s) for p in said.cues.phonemes]
    assert all(a[1] == pytest.approx(b[0], abs=1e-6) for a, b in zip(times, times[1:], strict=False))
    assert times[-1][1] == pytest.approx(said.seconds, abs=1e-3)
    rate, sound = said.sound.rate, said.sound.samples
    level = {"s": [], "": []}
    for p in said.cues.phonemes:
        if p.symbol in level and p.end_s - p.start_s > 0.05:
            level[p.symbol].append(float(np.abs(sound[int(p.start_s * rate) : int(p.end_s * rate)]).mean()))
    assert np.mean(level["s"]) > 10 * np.mean(level[""])


def test_moods_in_the_text_show_when_they_are_said(made) -> None:
    driver = text.Config('So it is. <mood name="happy">What a lovely day it is today!</mood>').build(made)
    (mood,) = driver.cues.moods
    smile = offline(driver).expr[:, made.head.expression_names.index("mouthSmileLeft")]
    at = int(mood.start_s * 25)
    assert smile[: at - 8].mean() < 0.2 < smile[at + 8 :].mean()


@pytest.mark.parametrize("voice", ["de", "zh", "fr", "ja"])
def test_languages(made, voice: str) -> None:
    words = {"de": "Guten Morgen, liebe Leute", "zh": "你好，我的朋友", "fr": "Bonjour mes amis", "ja": "こんにちは"}
    motion = offline(text.Config(words[voice], lang=voice).build(made))
    assert float(_opening_mm(motion, made).max()) > 2


def test_bad_text_is_refused(made, tmp_path: Path) -> None:
    for words, reason in (("", "empty"), ("<emphasis>x", "markup"), ('<mood name="joyful">x</mood>', "joyful")):
        with pytest.raises(InputError, match=reason):
            text.Config(words).build(made)
    with pytest.raises(InputError, match="happi"):
        text.Config("Hello", manner=Manner(emotion="happi")).build(made)
    binary = tmp_path / "a.txt"
    binary.write_bytes(b"\xff\xfe\x00hello")
    with pytest.raises(InputError, match="UTF-8"):
        text.read(binary)
    with pytest.raises(InputError, match="cannot be read"):
        text.read(tmp_path / "none.txt")
    binary.write_text("\ufeffHello", encoding="utf-8")
    assert text.read(binary) == "Hello"
