"""The exported speech network gives what ours gives, in pieces of any size."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import audio
from gsth.drive import _onnx, _person, _speech_net
from gsth.errors import MissingExtraError


def test_onnxruntime_agrees_in_pieces(tmp_path: Path, clip, sentence) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    person, _ = clip
    about = _onnx.export(person, tmp_path / "speech.onnx")
    assert json.loads((tmp_path / "speech.json").read_text()) == about
    assert (tmp_path / "speech.onnx").stat().st_size < 4_000_000
    features = audio.log_mel(sentence[0])
    features = features[: len(features) // 2 * 2]
    tail = torch.full((2 * about["delay"], audio.BANDS), about["floor"])
    session = onnxruntime.InferenceSession(str(tmp_path / "speech.onnx"))
    state, out = np.asarray([about["start"]], np.float32), []
    for piece in torch.cat((features, tail)).split((2, 26, 8, len(features) + len(tail) - 36)):
        expr, state = session.run(None, {"features": piece[None].numpy(), "state": state})
        assert expr.shape == (1, len(piece) // 2, len(about["names"]))
        out.append(expr[0])
    voice = _person.voice_of(person)
    wanted = voice.expressions(_speech_net.hidden_states(voice.net, features))
    np.testing.assert_allclose(np.concatenate(out)[about["delay"] :], wanted.numpy(), atol=1e-5)


def test_the_settings_make_the_same_features(sentence) -> None:
    """Features by the numbers of the .json alone, as a browser would."""
    s = audio.settings()
    samples = sentence[0][: 100 * s["hop"]].astype(np.float64)
    level = audio.speech_level(samples)
    margin = (s["window"] - s["hop"]) // 2
    padded = np.pad(samples, margin)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(s["window"]) / s["window"])
    frames = np.stack([padded[i * s["hop"] : i * s["hop"] + s["window"]] * hann for i in range(100)])
    power = np.abs(np.fft.rfft(frames, s["fft"])) ** 2
    mel = power @ audio.mel_filters().numpy() / (hann**2).sum()
    features = (np.log(mel * 10 ** (-level / 10) + s["floor_power"]) - s["centre"]) / s["spread"]
    np.testing.assert_allclose(features, audio.log_mel(sentence[0][: 100 * s["hop"]]).numpy(), atol=2e-3)


def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"gsth\[export\]"):
        _onnx.export(clip[0], tmp_path / "speech.onnx")
