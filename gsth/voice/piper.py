"""Voices of the Piper project: a model file (.onnx) with its settings (.onnx.json) beside it; many languages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsth import speech
from gsth.errors import InputError
from gsth.speech import Utterance
from gsth.voice import _neural

_DURATIONS = "/Ceil_output_0"
"""Inner value of Piper's models (VITS): frames of each token."""
_HOP = 256
_PAD, _START, _END = "_", "^", "$"


@dataclass(frozen=True)
class Config:
    """A Piper voice: its model file; the settings lie beside it as NAME.onnx.json."""

    voice: str
    """The model file, for example en_US-joe-medium.onnx."""
    seed: int = 0
    """Of the manner of speaking."""

    def build(self) -> PiperSpeaker:
        """Load the model.

        Raises:
            InputError: A file is missing or is no Piper voice.
            MissingExtraError: onnxruntime or espeakng-loader is not installed.
        """
        return PiperSpeaker(self)


class PiperSpeaker:
    """Speaks with a Piper voice and exact phoneme times; espeak-ng reads the text, as for Piper's training."""

    def __init__(self, config: Config) -> None:
        model = Path(config.voice)
        settings = model.with_name(model.name + ".json")
        try:
            self._settings: dict[str, Any] = json.loads(settings.read_text())
            self._ids: dict[str, list[int]] = self._settings["phoneme_id_map"]
            self._rate = int(self._settings["audio"]["sample_rate"])
            self._code = str(self._settings["espeak"]["voice"])
        except OSError as e:
            raise InputError(f"{settings}: cannot be read; a Piper voice is two files, .onnx and .onnx.json") from e
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:
            raise InputError(f"{settings}: is not the settings file of a Piper voice (it lacks {e})") from e
        self._session = _neural.session(model, _DURATIONS, config.seed)

    def say(self, text: str, rate: float = 1.0, pitch: float = 1.0) -> Utterance:
        """As ``Speaker.say``; the pitch stays the voice's own."""
        _neural.check(rate, pitch)
        units: list[_neural.Unit] = []
        ids = [*self._ids[_START], *self._ids[_PAD]]
        units.append(("", len(ids)))
        for symbol in speech.read_aloud(text, self._code):
            known = [i for c in symbol if c in self._ids for i in (*self._ids[c], *self._ids[_PAD])]
            ids += known
            units.append(("" if symbol in speech.PAUSES else None if symbol == " " else symbol, len(known)))
        ids += self._ids[_END]
        units.append(("", len(self._ids[_END])))
        if not any(symbol for symbol, _ in units):
            raise InputError(f"nothing to say in the text {text[:60]!r}; want at least one word in {self._code}")
        own = self._settings.get("inference", {})
        scales = (own.get("noise_scale", 0.667), own.get("length_scale", 1.0) / rate, own.get("noise_w", 0.8))
        feed = {
            "input": np.asarray([ids], np.int64),
            "input_lengths": np.asarray([len(ids)], np.int64),
            "scales": np.asarray(scales, np.float32),
        }
        if self._settings.get("num_speakers", 1) > 1:
            feed["sid"] = np.asarray([0], np.int64)
        sound, durations = self._session.run(None, feed)
        samples = np.asarray(sound, np.float32).reshape(-1)
        seconds = [float(n) * _HOP / self._rate for n in durations.reshape(-1)]
        return Utterance(samples, self._rate, _neural.phonemes(units, seconds, len(samples) / self._rate))
