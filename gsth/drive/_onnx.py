"""The speech network as an ONNX file, for browsers and other engines; with one person's own face in it.

Inputs: ``features`` [1, c, 64], log-mel columns at 100 Hz as ``gsth.audio.log_mel`` makes them, c even and at least 2;
``state`` [1, s], what the network remembers (``Speech.start`` at the beginning, then the last ``state_out``).
Outputs: ``expr`` [1, c/2, e], expressions of steps of 20 ms; ``state_out`` [1, s]. Step k describes the time of
features 2 (k - delay) and 2 (k - delay) + 1: the first ``delay`` steps of a sound are to be dropped, and ``2 * delay``
columns of silence (all ``floor``) to be fed after its end.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gsth import audio
from gsth.drive import _person
from gsth.drive._speech_net import DELAY, STEPS_HZ, CausalConv, SpeechNet, warm_state
from gsth.errors import MissingExtraError, writes

if TYPE_CHECKING:
    from gsth.avatar import Avatar

_OPSET = 18
"""onnxruntime-web runs it since 1.15."""


class _Streaming(nn.Module):
    """The network and the person's layer with all of the memory in one vector, from library convolutions only."""

    def __init__(self, voice: _person.Voice) -> None:
        super().__init__()
        self.net, self.voice = voice.net, voice
        layers: list[CausalConv] = [voice.net.stem, *(b.conv for b in voice.net.blocks)]  # pyright: ignore
        self.sizes = [layer.reach * layer.linear.in_features // layer.kernel for layer in layers]

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        histories = state.split(self.sizes, 1)
        x, kept = _convolved(self.net.stem, features, histories[0])
        new = [kept]
        for block, history in zip(self.net.blocks, histories[1:], strict=True):
            y, kept = _convolved(block.conv, block.norm(x), history)  # pyright: ignore
            x = x + block.mix(nn.functional.gelu(y))  # pyright: ignore
            new.append(kept)
        hidden = self.net.norm(x)[0]
        return self.voice.expressions(hidden)[None], torch.cat(new, 1)


def _convolved(layer: CausalConv, x: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """``CausalConv.forward`` as one Conv; the history is flat, [1, reach * channels]."""
    channels = layer.linear.in_features // layer.kernel
    joined = torch.cat((history.reshape(1, layer.reach, channels), x), 1)
    weight = layer.linear.weight.reshape(-1, layer.kernel, channels).transpose(1, 2)
    y = nn.functional.conv1d(
        joined.transpose(1, 2), weight, layer.linear.bias, stride=layer.stride, dilation=layer.dilation
    )
    return y.transpose(1, 2), joined[:, -layer.reach :].reshape(1, layer.reach * channels)


def export(avatar: Avatar, path: Path) -> dict[str, Any]:
    """Write the network with an avatar's voice as ``path`` (.onnx) and what it needs to know beside it (.json).

    Returns:
        What the .json holds: ``sample_rate, hop, window, fft, bands, low_hz, high_hz, pre_emphasis, floor_power,
        centre, spread`` of the features, ``floor`` (their value in silence), ``steps_hz``, ``delay`` (steps),
        ``names`` (of the e expressions), ``rest`` [e], ``start`` (the state before a sound, [s]).

    Raises:
        InputError: The avatar's head model has no ARKit mouth shapes.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise MissingExtraError("onnx and onnxscript", "export", "exporting the speech network") from e
    voice = _person.voice_of(avatar)
    module = _Streaming(voice).eval()
    start = flat_state(voice.net)
    columns = torch.export.Dim("pairs", min=1, max=100_000) * 2
    held = io.BytesIO()
    with _silent(), torch.no_grad():
        module(torch.zeros(1, 2, audio.BANDS), start)  # numbers that are worked out once must not be traced
        program = torch.onnx.export(
            module,
            (torch.zeros(1, 8, audio.BANDS), start),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["features", "state"],
            output_names=["expr", "state_out"],
            dynamic_shapes={"features": {1: columns}, "state": None},
            verbose=False,
        )
    program.save(held)  # pyright: ignore
    about = {
        **audio.settings(),
        "floor": audio.FLOOR_FEATURE,
        "steps_hz": STEPS_HZ,
        "delay": DELAY,
        "names": list(avatar.head.expression_names),
        "rest": [round(v, 6) for v in voice.rest.tolist()],
        "start": [round(v, 6) for v in start[0].tolist()],
    }
    for target, data in ((path, held.getvalue()), (path.with_suffix(".json"), json.dumps(about).encode())):
        part = target.with_name(f".{target.name}.part")
        with writes(target):
            part.write_bytes(data)
            part.replace(target)
    return about


def flat_state(net: SpeechNet) -> Tensor:
    """What the network remembers before a sound begins, [1, s]."""
    return torch.cat([h.reshape(1, -1) for h in warm_state(net)], 1)


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
