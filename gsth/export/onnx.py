"""Export ``onnx``: an avatar's voice for browsers and engines that run ONNX; a folder with speech.onnx and speech.json.

Inputs: ``features`` [1, c, 64], log-mel columns at 100 Hz as ``gsth.audio.log_mel`` makes them, c even and at least 2;
``state`` [1, s], what the network remembers (``start`` at the beginning, then the last ``state_out``).
Outputs: ``expr`` [1, c/2, e], expressions of steps of 20 ms; ``state_out`` [1, s]. Step k describes the time of
features 2 (k - delay) and 2 (k - delay) + 1: the first ``delay`` steps of a sound are to be dropped, and ``2 * delay``
columns of silence (all ``floor``) to be fed after its end.

speech.json holds ``sample_rate, hop, window, fft, bands, low_hz, high_hz, pre_emphasis, floor_power, centre,
spread`` of the features, ``floor`` (their value in silence), ``steps_hz``, ``delay`` (steps), ``names`` (of the e
expressions), ``rest`` [e] and ``start`` (the state before a sound, [s]). The web player runs the same arrays by itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.errors import MissingExtraError
from gsth.types import Done, Event, Step

if TYPE_CHECKING:
    from gsth.avatar import Avatar

KIND = "onnx"
_OPSET = 18
"""onnxruntime-web runs it since 1.15."""


@dataclass(frozen=True)
class Config:
    """The avatar's voice as an ONNX network: sound in, expressions out, for onnxruntime and the like."""

    def build(self) -> OnnxExporter:
        """The exporter."""
        return OnnxExporter()


class OnnxExporter:
    """Writes the voice."""

    def write(self, avatar: Avatar, out: Path) -> Iterator[Event]:
        """Write the folder.

        Raises:
            InputError: The avatar has no voice, or ``out`` is something else.
            MissingExtraError: onnx or onnxscript is not installed.
            OutputError: It cannot be written.
        """
        from gsth import artifacts

        yield Step("onnx", 0, 1)
        with artifacts.writing(out, KIND) as part:
            network, about = exported(avatar)
            (part / "speech.onnx").write_bytes(network)
            (part / "speech.json").write_text(json.dumps(about))
        yield Step("onnx", 1, 1)
        yield Done(out, {"megabytes": len(network) / 1e6, "state": float(len(about["start"]))})


def exported(avatar: Avatar) -> tuple[bytes, dict[str, Any]]:
    """The network and what speech.json holds. Raises as ``write``."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise MissingExtraError("onnx and onnxscript", "export", "exporting the speech network") from e
    import torch

    from gsth import audio, speech
    from gsth.export import _voice

    module = _voice.StreamingVoice.of(avatar)
    start = module.start()
    held = io.BytesIO()
    with _silent(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (torch.zeros(1, 8, audio.BANDS), start),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["features", "state"],
            output_names=["expr", "state_out"],
            dynamic_shapes={"features": {1: torch.export.Dim("pairs", min=1, max=100_000) * 2}, "state": None},
            verbose=False,
        )
    program.save(held)  # pyright: ignore
    return held.getvalue(), {
        **audio.settings(),
        "floor": audio.FLOOR_FEATURE,
        "steps_hz": speech.NET.steps_hz,
        "delay": speech.NET.delay,
        "names": list(avatar.head.expression_names),
        "rest": [round(v, 6) for v in avatar.speech["rest"].tolist()],
        "start": [round(v, 6) for v in start[0].tolist()],
    }


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter prints what it does; here it need not."""
    level = logging.getLogger().level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        logging.getLogger().setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.getLogger().setLevel(level)
