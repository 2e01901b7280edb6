"""Every voice keeps the room's promise: sound, and phonemes that cover it without gaps."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest

from gsth import registry, speech, voice
from gsth.errors import BackendError, InputError, MissingExtraError
from gsth.voice import _neural, espeak, flite, kokoro

TEXT = "Papa may buy a big boat, maybe."


@pytest.fixture(params=["espeak", "flite", "hibari", "kokoro", "piper"])
def speaker(request: pytest.FixtureRequest) -> voice.Speaker:
    if request.param not in ("espeak", "flite"):
        pytest.importorskip("onnxruntime")
    if request.param == "flite" and shutil.which("flite") is None:
        pytest.skip("there is no program flite here")
    if request.param == "piper":
        return voice.find(str(request.getfixturevalue("piper_voice")))
    if request.param == "kokoro":
        return voice.find(f"kokoro:{request.getfixturevalue('kokoro_voice')}@af_loud")
    if request.param == "hibari":
        pytest.importorskip("hibari")
    return voice.find(request.param)


def test_all_voices_are_tried_here() -> None:
    assert set(registry.names("voice")) == {"espeak", "flite", "hibari", "kokoro", "piper"}


def test_sound_and_phonemes(speaker: voice.Speaker) -> None:
    said = speaker.say(TEXT)
    assert said.samples.dtype == np.float32 and said.samples.ndim == 1
    assert np.abs(said.samples).max() <= 1.0 and 0.5 < said.seconds < 8
    times = [(p.start_s, p.end_s) for p in said.phonemes]
    assert times[0][0] == 0 and times[-1][1] == pytest.approx(said.seconds, abs=1e-6)
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in zip(times, times[1:], strict=False))
    labials = [p for p in said.phonemes if p.symbol.strip("ˈˌ") in ("p", "b", "m")]
    assert len(labials) == 8
    # All of it can be turned into mouth shapes, and the labials close.
    assert float(speech.visemes(said.phonemes, 25.0, 100).max()) > 0.2


def test_same_text_same_sound_and_slower_is_longer(speaker: voice.Speaker) -> None:
    a, b, slow = speaker.say(TEXT), speaker.say(TEXT), speaker.say(TEXT, rate=0.6)
    assert np.array_equal(a.samples, b.samples)
    assert slow.seconds > 1.25 * a.seconds
    for wrong in ({"rate": 0.2}, {"pitch": 3.0}):
        with pytest.raises(InputError, match="must be 0.5 to 2"):
            speaker.say(TEXT, **wrong)


def test_nothing_to_say_is_refused(speaker: voice.Speaker) -> None:
    with pytest.raises(InputError, match="nothing to say"):
        speaker.say("...")


def test_hibari_is_timed_rightly() -> None:
    pytest.importorskip("hibari")
    said = voice.find("hibari").say("Sasa, papa, sasa.")
    rate = said.sample_rate
    energy = np.sqrt(np.convolve(said.samples**2, np.ones(rate // 100) / (rate // 100), "same"))
    middles: dict[str, list[float]] = {"p": [], "ɑ": []}
    for p in said.phonemes:
        if p.symbol[-1:] in middles:
            middles[p.symbol[-1:]].append(float(energy[int((p.start_s + p.end_s) / 2 * rate)]))
    assert len(middles["p"]) == 2 and len(middles["ɑ"]) >= 3
    assert np.mean(middles["p"]) < 0.4 * np.mean(middles["ɑ"])


def test_what_flite_tells_becomes_phonemes_without_gaps() -> None:
    told = "pau:0.2 m:0.3 ey:0.4 pau:0.5 pau:0.55 b:0.6 ax:0.7 pau:0.9\n"
    said = flite.phonemes(told, 0.8)
    assert [p.symbol for p in said] == ["", "m", "ˈeɪ", "", "b", "ə", ""]
    ends = [p.end_s for p in said]
    assert ends == [0.2, 0.3, 0.4, 0.55, 0.6, 0.7, 0.8]
    assert [p.start_s for p in said] == [0.0, *ends[:-1]]
    assert flite.phonemes("b:0.3", 0.5)[-1] == speech.Phoneme("", 0.3, 0.5)


def test_flite_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendError, match="apt install flite"):
        voice.find("flite:rms")


def test_pitch_of_espeak_changes() -> None:
    def hertz(samples: np.ndarray, rate: int) -> float:
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
        auto = np.fft.irfft(spectrum**2)
        low, high = rate // 320, rate // 65
        return rate / (low + int(np.argmax(auto[low:high])))

    low, high = (espeak.Config().build().say("aaa", 1.0, p) for p in (0.7, 1.4))
    assert hertz(high.samples, high.sample_rate) > 1.3 * hertz(low.samples, low.sample_rate)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("en", "en-us"), ("EN_gb", "en-gb"), ("zh", "cmn"), ("zh-CN", "cmn"), ("de-AT", "de"), ("de+f2", "de+f2")],
)
def test_languages_as_people_write_them(wanted: str, got: str) -> None:
    assert espeak.voice_of(wanted) == got


@pytest.mark.parametrize(
    ("name", "lang", "reason"),
    [
        ("klingon", None, "no voice"),
        (None, "xx", "no voice"),
        ("de+f1", "fr", "does not speak"),
        ("nobody", "de", "variant"),
        ("absent.onnx", None, "absent.onnx.json"),
        ("hibari", "de", "English alone"),
        ("flite", "de", "English alone"),
        ("flite:nobody", None, "there are: slt"),
        ("hibari:nobody", None, "no voice"),
    ],
)
def test_unknown_voices_are_refused(name: str | None, lang: str | None, reason: str) -> None:
    if name and name.startswith("hibari:"):
        pytest.importorskip("hibari")
    with pytest.raises(InputError, match=reason):
        voice.find(name, lang).say("Hello")


def test_a_damaged_piper_voice_is_refused(tmp_path: Path, piper_voice: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = tmp_path / "x.onnx"
    model.write_bytes(b"no model")
    settings = tmp_path / "x.onnx.json"
    settings.write_text("{}")
    with pytest.raises(InputError, match="phoneme_id_map"):
        voice.find(str(model))
    settings.write_bytes(piper_voice.with_name(piper_voice.name + ".json").read_bytes())
    with pytest.raises(InputError, match="cannot be read as a voice model"):
        voice.find(str(model))


def test_kokoros_voices_mix_and_are_named(kokoro_voice: Path) -> None:
    pytest.importorskip("onnxruntime")

    def level(names: str) -> float:
        return float(voice.find(f"kokoro:{kokoro_voice}@{names}").say("Papa.").samples.mean())

    assert level("af_loud") == pytest.approx(0.3, abs=1e-3) and level("am_soft") == pytest.approx(0.1, abs=1e-3)
    assert level("am_soft+af_loud+af_loud") == pytest.approx(0.7 / 3, abs=1e-3)
    with pytest.raises(InputError, match="has no voice 'nobody'; there are: af_loud, am_soft"):
        level("nobody")


def test_kokoro_says_long_texts_in_pieces(kokoro_voice: Path) -> None:
    pytest.importorskip("onnxruntime")
    speaker = voice.find(f"kokoro:{kokoro_voice}")
    one, many = speaker.say("Papa may."), speaker.say("Papa may. " * 80)
    assert sum(p.symbol.strip("ˈˌ") == "p" for p in many.phonemes) == 160
    assert many.seconds > 70 * (one.seconds - 0.2)


def test_a_damaged_kokoro_is_refused(tmp_path: Path, kokoro_voice: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = tmp_path / "k.onnx"
    model.write_bytes(b"no model")
    with pytest.raises(InputError, match="voices\\*.npz"):
        voice.find(f"kokoro:{model}")
    voices = tmp_path / "voices.bin"
    voices.write_bytes(b"no voices")
    with pytest.raises(InputError, match="cannot be read as voices of Kokoro"):
        voice.find(f"kokoro:{model}")
    voices.write_bytes(kokoro_voice.with_name("voices.npz").read_bytes())
    with pytest.raises(InputError, match="cannot be read as a voice model"):
        voice.find(f"kokoro:{model}")


@pytest.mark.parametrize(
    ("package", "name"), [("onnxruntime", "piper"), ("onnxruntime", "kokoro"), ("hibari", "hibari")]
)
def test_absent_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, piper_voice: Path, kokoro_voice: Path, package: str, name: str
) -> None:
    real = builtins.__import__

    def without(wanted: str, *args: object, **more: object) -> object:
        if wanted.split(".")[0] == package:
            raise ImportError(wanted)
        return real(wanted, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    kokoro._loaded.cache_clear()
    asked = {"piper": str(piper_voice), "kokoro": f"kokoro:{kokoro_voice}", "hibari": name}
    with pytest.raises(MissingExtraError, match=r"gsth\[voices\]"):
        voice.find(asked[name])


def test_phonemes_cover_the_sound_and_gaps_belong_somewhere() -> None:
    units = [("", 1), ("a", 1), (None, 1), ("b", 1), (None, 1), ("", 1)]
    found = _neural.phonemes(units, [0.1, 0.1, 0.02, 0.1, 0.2, 0.1], 0.7)
    assert [(p.symbol, round(p.start_s, 2), round(p.end_s, 2)) for p in found] == [
        ("", 0.0, 0.1),
        ("a", 0.1, 0.22),
        ("b", 0.22, 0.32),
        ("", 0.32, 0.7),
    ]
