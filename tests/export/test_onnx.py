"""The exported speech network gives what ours gives, in pieces of any size."""

from __future__ import annotations

import builtins
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import audio
from gsth.avatar import Avatar
from gsth.drive import _person, _speech_net
from gsth.errors import InputError, MissingExtraError
from gsth.export import onnx


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Two seconds of swelling buzz and pauses."""
    t = np.arange(2 * audio.RATE) / audio.RATE
    swell = np.clip(np.sin(2 * np.pi * 1.7 * t), 0, 1)
    return (0.3 * swell * np.sign(np.sin(2 * np.pi * (120 + 40 * np.sin(3 * t)) * t))).astype(np.float32)


def test_onnxruntime_agrees_in_pieces(person: Avatar, sound: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    list(onnx.Config().build().write(person, tmp_path / "voice"))
    about = json.loads((tmp_path / "voice" / "speech.json").read_text())
    features = audio.log_mel(sound)
    tail = torch.full((2 * about["delay"], audio.BANDS), about["floor"])
    session = onnxruntime.InferenceSession(str(tmp_path / "voice" / "speech.onnx"))
    state, out = np.asarray([about["start"]], np.float32), []
    for piece in torch.cat((features, tail)).split((2, 26, 8, len(features) + len(tail) - 36)):
        expr, state = session.run(None, {"features": piece[None].numpy(), "state": state})
        assert expr.shape == (1, len(piece) // 2, len(about["names"]))
        out.append(expr[0])
    voice = _person.voice_of(person)
    wanted = voice.expressions(_speech_net.hidden_states(voice.net, features)).numpy()
    assert np.ptp(wanted, axis=0).max() > 0.1
    np.testing.assert_allclose(np.concatenate(out)[about["delay"] :], wanted, atol=1e-5)


def test_the_settings_make_the_same_features(sound: np.ndarray) -> None:
    """Features by the numbers of speech.json alone, as a browser would."""
    s = audio.settings()
    samples = sound[: 100 * s["hop"]].astype(np.float64)
    level = audio.speech_level(samples)
    margin = (s["window"] - s["hop"]) // 2
    padded = np.pad(samples, margin)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s["window"]) / s["window"])
    frames = np.stack([padded[i * s["hop"] : i * s["hop"] + s["window"]] * hann for i in range(100)])
    power = np.abs(np.fft.rfft(frames, s["fft"])) ** 2
    mel = power @ audio.mel_filters().numpy() / (hann**2).sum()
    features = (np.log(mel * 10 ** (-level / 10) + s["floor_power"]) - s["centre"]) / s["spread"]
    np.testing.assert_allclose(features, audio.log_mel(sound[: 100 * s["hop"]]).numpy(), atol=2e-3)


def test_what_is_missing_is_named(person: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no voice"):
        list(onnx.Config().build().write(dataclasses.replace(person, speech={}), tmp_path / "voice"))
    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"gsth\[export\]"):
        list(onnx.Config().build().write(person, tmp_path / "voice"))
    assert not (tmp_path / "voice").exists()
